// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
// Declarations that the fragments of docs/devices/rtc_pl031.md use.
#pragma once

#include <array>
#include <cstdint>

#include <vmdevice/vmdevice.hpp>
#include <vmsuperio/vmsuperio.hpp>

namespace snippets {
extern vmsuperio::NullTrigger irq;
extern vmsuperio::NoEvents events;
extern vmsuperio::SystemClock clock;
extern vmdevice::IoManager io;
}  // namespace snippets
