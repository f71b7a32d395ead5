// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
// Declarations that the fragments of docs/devices/reset_control.md use.
#pragma once

#include <vmsuperio/reset_control.hpp>

namespace snippets {
struct ResetEvents {
    void reset_requested(vmsuperio::ResetKind kind);
    void a20_changed(bool enabled);
};

extern vmsuperio::NullTrigger trigger;
extern ResetEvents events;
}  // namespace snippets
