// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
// A device with a fault, fuzzed by another project with the installed support files.
#include <array>
#include <cstdint>
#include <memory>

#include "fuzz_any_device.hpp"

namespace {

struct MyDevice final : vmdevice::DevicePio {
    void pio_read(vmdevice::PioAddress, vmdevice::PioOffset offset, std::span<std::uint8_t> data) override {
        for (std::uint8_t& byte : data) {
            byte = registers[offset++ % registers.size()];
        }
    }
    void pio_write(vmdevice::PioAddress, vmdevice::PioOffset offset,
                   std::span<const std::uint8_t> data) override {
        for (const std::uint8_t byte : data) {
            registers[offset++ % registers.size()] = byte;
        }
    }
    std::array<std::uint8_t, 8> registers{};
};

}  // namespace

void fuzz::run_target(fuzz::Input& input, const fuzz::Trace& trace) {
    vmdevice::IoManager io;
    const auto device = std::make_shared<MyDevice>();
    const auto range = vmdevice::PioRange::create({0x200}, 8).value();
    io.register_pio(range, device).value();
    fuzz::AnyDevice any(trace, io);
    any.add_pio(range);
    any.after_each_step([&] { fuzz::check(device->registers[3] != 7, "register 3 is never 7"); });
    any.run(input);
}
