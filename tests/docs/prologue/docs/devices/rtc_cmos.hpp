// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
// Declarations that the fragments of docs/devices/rtc_cmos.md use.
#pragma once

#include <chrono>
#include <cstdint>

#include <vmsuperio/vmsuperio.hpp>

namespace snippets {
struct Timer {
    void arm(std::chrono::nanoseconds since_epoch);
};

extern vmsuperio::NullTrigger irq8;
extern vmsuperio::NoEvents events;
extern vmsuperio::SystemClock clock;
extern vmsuperio::RtcCmos<vmsuperio::NullTrigger> rtc;
extern Timer timer;
extern std::uint64_t below_4g;
extern std::uint64_t above_4g;
}  // namespace snippets
