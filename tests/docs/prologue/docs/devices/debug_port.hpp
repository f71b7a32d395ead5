// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
// Declarations that the fragments of docs/devices/debug_port.md use.
#pragma once

#include <cstdint>

#include <vmsuperio/debug_port.hpp>
#include <vmsuperio/writer.hpp>

namespace snippets {
extern vmsuperio::BufferWriter writer;
}  // namespace snippets
