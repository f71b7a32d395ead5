// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
// Declarations that the fragments of docs/devices/serial.md use.
#pragma once

#include <chrono>
#include <cstdint>
#include <cstdio>
#include <expected>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <system_error>
#include <utility>
#include <vector>

#include <vmdevice/vmdevice.hpp>
#include <vmsuperio/state_json.hpp>
#include <vmsuperio/vmsuperio.hpp>

namespace snippets {
using Uart = vmsuperio::Serial<vmsuperio::NullTrigger, vmsuperio::NoEvents, vmsuperio::NullWriter>;

extern Uart uart;
extern vmsuperio::NullTrigger trigger;
extern vmsuperio::NullTrigger interrupt;
extern vmsuperio::NoEvents events;
extern vmsuperio::NullWriter writer;
extern vmsuperio::NullWriter console;
extern std::span<const std::uint8_t> bytes;
extern std::span<const std::uint8_t> input;
extern vmdevice::IoManager io;
void log(std::string_view line);
}  // namespace snippets
