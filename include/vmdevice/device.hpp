// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
#pragma once

/// The interfaces that a device on a bus implements.
///
/// `base` is the start of the device's range and `offset` the distance of the access from it, so that a
/// device can distinguish its ranges. An access is never empty and lies entirely inside the range. A device
/// on both buses derives from both interfaces.
///
/// Thread safety: several vCPUs may call one device at the same time; put an unsynchronised one in Locked<D>.

#include <cstddef>
#include <cstdint>
#include <span>

#include <vmdevice/address.hpp>

namespace vmdevice::inline v0_2 {

/// A device in the port space.
struct DevicePio {
    DevicePio() = default;
    DevicePio(const DevicePio&) = default;
    DevicePio(DevicePio&&) = default;
    DevicePio& operator=(const DevicePio&) = default;
    DevicePio& operator=(DevicePio&&) = default;
    virtual ~DevicePio() = default;

    /// Fills `data` with the result of a read of data.size() bytes, lowest address first.
    virtual void pio_read(PioAddress base, PioOffset offset, std::span<std::uint8_t> data) = 0;
    /// Takes a write of data.size() bytes, lowest address first.
    virtual void pio_write(PioAddress base, PioOffset offset, std::span<const std::uint8_t> data) = 0;

    /// String input (REP INS): data.size() / width reads of `width` bytes each at the same port, in order.
    virtual void pio_read_repeated(PioAddress base, PioOffset offset, std::size_t width,
                                   std::span<std::uint8_t> data) {
        for (std::size_t at = 0; width != 0 && at < data.size(); at += width) {
            pio_read(base, offset, data.subspan(at, width < data.size() - at ? width : data.size() - at));
        }
    }
    /// String output (REP OUTS): data.size() / width writes of `width` bytes each at the same port, in order.
    virtual void pio_write_repeated(PioAddress base, PioOffset offset, std::size_t width,
                                    std::span<const std::uint8_t> data) {
        for (std::size_t at = 0; width != 0 && at < data.size(); at += width) {
            pio_write(base, offset, data.subspan(at, width < data.size() - at ? width : data.size() - at));
        }
    }
};

/// A device in guest physical memory.
struct DeviceMmio {
    DeviceMmio() = default;
    DeviceMmio(const DeviceMmio&) = default;
    DeviceMmio(DeviceMmio&&) = default;
    DeviceMmio& operator=(const DeviceMmio&) = default;
    DeviceMmio& operator=(DeviceMmio&&) = default;
    virtual ~DeviceMmio() = default;

    /// Fills `data` with the result of a read of data.size() bytes, lowest address first.
    virtual void mmio_read(MmioAddress base, MmioOffset offset, std::span<std::uint8_t> data) = 0;
    /// Takes a write of data.size() bytes, lowest address first.
    virtual void mmio_write(MmioAddress base, MmioOffset offset, std::span<const std::uint8_t> data) = 0;
};

}  // namespace vmdevice::inline v0_2
