// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
#pragma once

/// The errors of a bus.

#include <vmdevice/detail/config.hpp>

#include <cstdint>
#include <string_view>

namespace vmdevice::inline v0_2 {

/// Why a bus refused an operation.
enum class BusError : std::uint8_t {
    /// No device claims the address, or the access extends past the end of the device's range, or the pointer
    /// to the device is empty.
    device_not_found,
    /// The range, or a part of it, already belongs to a device.
    device_overlap,
    /// A repeated access whose buffer is not a whole number of items, or whose item is not 1, 2, 4 or 8
    /// bytes.
    invalid_access_length,
    /// A range or an access of no bytes, or a range that wraps around the end of the address space.
    invalid_range,
};

/// The text of the error, for a message.
[[nodiscard]] constexpr std::string_view to_string(BusError error) noexcept {
    switch (error) {
        case BusError::device_not_found:
            return "no device at this address";
        case BusError::device_overlap:
            return "the range overlaps that of another device";
        case BusError::invalid_access_length:
            return "invalid access length";
        case BusError::invalid_range:
            return "the range is empty or wraps around the address space";
    }
    return "unknown bus error";
}

}  // namespace vmdevice::inline v0_2
