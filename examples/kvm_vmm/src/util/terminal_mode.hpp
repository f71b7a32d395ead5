// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
#pragma once

#include <atomic>

namespace kvm_vmm {

/// Whether this process has put its terminal into raw mode, in which lines need their own carriage return.
/// Set by RawTerminal; signal handlers read it too.
inline std::atomic<bool> terminal_is_raw{false};
static_assert(std::atomic<bool>::is_always_lock_free);

}  // namespace kvm_vmm
