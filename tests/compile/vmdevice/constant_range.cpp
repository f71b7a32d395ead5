// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
// A constant range that is empty or extends past the last address does not compile.
#include <vmdevice/range.hpp>

#ifdef REJECT
constexpr auto range = vmdevice::pio_range(0xFFF9, 8);
#else
constexpr auto range = vmdevice::pio_range(0xFFF8, 8);
#endif

int main() { return range.size() == 8 ? 0 : 1; }
