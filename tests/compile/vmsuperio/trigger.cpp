// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
// A trigger says how it fails: one that returns nothing is none.
#include <vmsuperio/serial.hpp>

struct Interrupt {
    using error_type = int;
#if defined(REJECT)
    void trigger() {}
#else
    std::expected<void, int> trigger() { return {}; }
#endif
};

using Uart = vmsuperio::Serial<Interrupt>;
static_assert(sizeof(Uart) != 0);
