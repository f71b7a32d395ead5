// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
// A type without registers cannot be shared on a bus.
#include <cstdint>

#include <vmdevice/share.hpp>

struct Model {
    std::uint8_t read(std::uint8_t);
#ifndef REJECT
    void write(std::uint8_t, std::uint8_t);
#endif
};

auto share(Model model) { return vmdevice::share(model); }
