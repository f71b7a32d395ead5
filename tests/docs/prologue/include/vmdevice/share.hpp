// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
// Declarations that the fragments of include/vmdevice/share.hpp use.
#pragma once

#include <cstdint>
#include <span>

#include <vmdevice/vmdevice.hpp>
#include <vmsuperio/serial.hpp>

namespace snippets {
extern vmsuperio::NullTrigger trigger;
extern vmsuperio::NullWriter writer;
extern vmdevice::IoManager io;
extern std::span<const std::uint8_t> typed;
}  // namespace snippets
