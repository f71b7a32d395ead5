// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
// Declarations that the fragments of docs/vmdevice.md use.
#pragma once

#include <cstddef>
#include <cstdint>
#include <linux/kvm.h>

#include <vmdevice/vmdevice.hpp>

namespace snippets {
using namespace vmdevice;

extern IoManager io;
extern kvm_run* run;
}  // namespace snippets
