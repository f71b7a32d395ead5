// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
// ByteDevice requires byte reads and writes.
#include <cstdint>

#include <vmdevice/byte_device.hpp>

struct Model {
    std::uint8_t read(std::uint8_t offset) { return offset; }
#ifndef REJECT
    void write(std::uint8_t, std::uint8_t) {}
#endif
};

std::uint64_t window(Model model) { return vmdevice::ByteDevice<Model>(model).window(); }
