// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
// Declarations that the fragments of include/vmsuperio/snapshot.hpp use.
#pragma once

#include <array>
#include <cstdint>
#include <string_view>

#include <vmsuperio/registers/register.hpp>
#include <vmsuperio/snapshot.hpp>

using namespace vmsuperio;

struct FooControl : Register<FooControl, std::uint8_t> {
    using Register::Register;
    static constexpr std::string_view name = "CONTROL";
    static constexpr Bit<0> enable{};
    static constexpr FieldInfo fields[]{{"enable", enable.bits}};
};
