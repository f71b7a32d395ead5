// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <utility>

#include <vmdevice/address.hpp>
#include <vmdevice/device.hpp>

namespace kvm_vmm {

/// Puts a device on the bus in several ranges with gaps: it sees every access at its offset from `origin`,
/// whichever range was hit. The i8042 needs it, whose ports 0x60 and 0x64 have a stranger's between them.
class PortView final : public vmdevice::DevicePio {
public:
    PortView(vmdevice::PioAddress origin, std::shared_ptr<vmdevice::DevicePio> device)
        : origin_(origin), device_(std::move(device)) {}

    void pio_read(vmdevice::PioAddress base, vmdevice::PioOffset offset,
                  std::span<std::uint8_t> data) override {
        device_->pio_read(origin_, from_origin(base, offset), data);
    }
    void pio_write(vmdevice::PioAddress base, vmdevice::PioOffset offset,
                   std::span<const std::uint8_t> data) override {
        device_->pio_write(origin_, from_origin(base, offset), data);
    }

private:
    [[nodiscard]] vmdevice::PioOffset from_origin(vmdevice::PioAddress base,
                                                  vmdevice::PioOffset offset) const {
        return static_cast<vmdevice::PioOffset>(base.value - origin_.value + offset);
    }

    vmdevice::PioAddress origin_;
    std::shared_ptr<vmdevice::DevicePio> device_;
};

}  // namespace kvm_vmm
