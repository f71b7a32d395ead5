// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
// What the fragments of docs/devices/rtc_pl031.md refer to.
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
