// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
#pragma once

/// Ranges and devices that the tests of the buses share.

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <utility>

#include <vmdevice/io_manager.hpp>

#include "ranges.hpp"

namespace bus_tests {

/// Runs a function on every access.
struct Hook : vmdevice::DevicePio, vmdevice::DeviceMmio {
    explicit Hook(std::function<void()> f) : function(std::move(f)) {}
    std::function<void()> function;
    void pio_read(vmdevice::PioAddress, vmdevice::PioOffset, std::span<std::uint8_t>) override { function(); }
    void pio_write(vmdevice::PioAddress, vmdevice::PioOffset, std::span<const std::uint8_t>) override {
        function();
    }
    void mmio_read(vmdevice::MmioAddress, vmdevice::MmioOffset, std::span<std::uint8_t>) override {
        function();
    }
    void mmio_write(vmdevice::MmioAddress, vmdevice::MmioOffset, std::span<const std::uint8_t>) override {
        function();
    }
};
inline std::shared_ptr<Hook> hook(std::function<void()> function) {
    return std::make_shared<Hook>(std::move(function));
}

inline bool read(vmdevice::IoManager& manager, std::size_t port) {
    std::uint8_t byte = 0;
    return manager.pio_read(vmdevice::PioAddress{static_cast<std::uint16_t>(port)}, {&byte, 1}).has_value();
}
inline bool read_memory(vmdevice::IoManager& manager, std::uint64_t address) {
    std::uint8_t byte = 0;
    return manager.mmio_read(vmdevice::MmioAddress{address}, {&byte, 1}).has_value();
}
inline void deregister(vmdevice::IoManager& manager, std::size_t port) {
    manager.deregister_pio(vmdevice::PioAddress{static_cast<std::uint16_t>(port)});
}

}  // namespace bus_tests
