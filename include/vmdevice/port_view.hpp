// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
#pragma once

/// PortView: one device at several port ranges with gaps between them.

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <utility>

#include <vmdevice/address.hpp>
#include <vmdevice/device.hpp>

namespace vmdevice::inline v0_2 {

/// Lets a device be registered at several ranges: it receives every access with its offset from `origin`,
/// whichever range was accessed. The i8042 needs this, because a port of another device is between its ports
/// 0x60 and 0x64. The ranges must not begin below `origin`.
///
/// Thread safety: that of the device.
class PortView : public DevicePio {
public:
    /// Offsets that `device` sees are counted from the port `origin`.
    PortView(PioAddress origin, std::shared_ptr<DevicePio> device)
        : origin_(origin), device_(std::move(device)) {}

    void pio_read(PioAddress base, PioOffset offset, std::span<std::uint8_t> data) override {
        device_->pio_read(origin_, from_origin(base, offset), data);
    }
    void pio_write(PioAddress base, PioOffset offset, std::span<const std::uint8_t> data) override {
        device_->pio_write(origin_, from_origin(base, offset), data);
    }
    void pio_read_repeated(PioAddress base, PioOffset offset, std::size_t width,
                           std::span<std::uint8_t> data) override {
        device_->pio_read_repeated(origin_, from_origin(base, offset), width, data);
    }
    void pio_write_repeated(PioAddress base, PioOffset offset, std::size_t width,
                            std::span<const std::uint8_t> data) override {
        device_->pio_write_repeated(origin_, from_origin(base, offset), width, data);
    }

private:
    [[nodiscard]] PioOffset from_origin(PioAddress base, PioOffset offset) const noexcept {
        return static_cast<PioOffset>(base.value - origin_.value + offset);
    }

    PioAddress origin_;
    std::shared_ptr<DevicePio> device_;
};

}  // namespace vmdevice::inline v0_2
