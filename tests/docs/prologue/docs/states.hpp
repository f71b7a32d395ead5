// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
// Declarations that the fragments of docs/states.md use.
#pragma once

#include <array>
#include <cstdint>
#include <fstream>
#include <string>
#include <string_view>
#include <vector>

#include <vmsuperio/state_json.hpp>
#include <vmsuperio/vmsuperio.hpp>

namespace snippets {
using Keyboard = vmsuperio::I8042<vmsuperio::NullTrigger>;

struct TimerControl : vmsuperio::Register<TimerControl, std::uint8_t> {
    using Register::Register;
    static constexpr std::string_view name = "CONTROL";
    static constexpr Bit<0> enable{};
    static constexpr vmsuperio::FieldInfo fields[]{{"enable", enable.bits}};
};

extern Keyboard keyboard;
extern vmsuperio::NullTrigger reset;
extern vmsuperio::NullTrigger irq1;
extern vmsuperio::NullTrigger irq12;
extern std::string text;
void log(std::string_view line);
}  // namespace snippets
