// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
#pragma once

#include "support/check.hpp"
#include "support/input.hpp"
#include "support/trace.hpp"

namespace fuzz {

/// Each target defines this function, which runs one test case from the beginning. It must not keep any state
/// from one call to the next.
void run_target(Input& input, const Trace& trace);

}  // namespace fuzz
