// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
// Declarations that the fragments of docs/devices/i8042.md use.
#pragma once

#include <chrono>
#include <memory>

#include <vmdevice/vmdevice.hpp>
#include <vmsuperio/vmsuperio.hpp>

namespace snippets {
using Trigger = vmsuperio::NullTrigger;

extern Trigger reset;
extern Trigger irq1;
extern Trigger irq12;
extern vmdevice::IoManager io;
}  // namespace snippets
