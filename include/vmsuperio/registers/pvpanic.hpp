// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
#pragma once

#include <cstdint>
#include <string_view>

#include <vmsuperio/registers/register.hpp>

namespace vmsuperio::inline v0_2 {

/// The events register of pvpanic (QEMU, "PVPANIC DEVICE" specification): a read returns the events that the
/// device supports, a write reports those that happened.
struct PvpanicEvents : Register<PvpanicEvents, std::uint8_t> {
    using Register::Register;
    static constexpr std::string_view name = "events";
    static constexpr Bit<0> panicked{};
    static constexpr Bit<1> crash_loaded{};
    static constexpr Bit<2> shutdown{};
    static constexpr FieldInfo fields[]{
        {"panicked", panicked.bits}, {"crash_loaded", crash_loaded.bits}, {"shutdown", shutdown.bits}};
};

}  // namespace vmsuperio::inline v0_2
