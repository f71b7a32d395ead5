// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
#pragma once

#include <cstddef>
#include <cstdint>

#include <vmdevice/range.hpp>

/// Ranges whose base and size a test computes; `vmdevice::pio_range` takes constants only.
namespace bus_tests {

inline vmdevice::PioRange pio(std::size_t base, std::size_t size) {
    return vmdevice::PioRange::create(vmdevice::PioAddress{static_cast<std::uint16_t>(base)},
                                      static_cast<std::uint16_t>(size))
        .value();
}
inline vmdevice::MmioRange mmio(std::uint64_t base, std::uint64_t size) {
    return vmdevice::MmioRange::create(vmdevice::MmioAddress{base}, size).value();
}

}  // namespace bus_tests
