// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
// A trigger must report failures: a type whose trigger() returns nothing is not one.
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
