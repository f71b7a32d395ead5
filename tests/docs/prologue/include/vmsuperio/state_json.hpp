// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
// Declarations that the fragments of include/vmsuperio/state_json.hpp use.
#pragma once

#include <vmsuperio/i8042.hpp>
#include <vmsuperio/state_json.hpp>

namespace snippets {
extern vmsuperio::I8042<vmsuperio::NullTrigger> device;
}  // namespace snippets
