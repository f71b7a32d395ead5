// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
// A locked device is shared by pointer: a copy would have a lock of its own.
#include <cstdint>

#include <vmdevice/locked.hpp>

struct Model {
    std::uint8_t read(std::uint8_t offset) { return offset; }
    void write(std::uint8_t, std::uint8_t) {}
};

void use(vmdevice::Locked<Model>& device) {
#ifdef REJECT
    vmdevice::Locked<Model> other(device);
#else
    vmdevice::Locked<Model>& other = device;
#endif
    static_cast<void>(other.read(std::uint8_t{0}));
}
