// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
// What the fragments of docs/devices/debug_port.md refer to.
#pragma once

#include <cstdint>

#include <vmsuperio/debug_port.hpp>
#include <vmsuperio/writer.hpp>

namespace snippets {
extern vmsuperio::BufferWriter writer;
}  // namespace snippets
