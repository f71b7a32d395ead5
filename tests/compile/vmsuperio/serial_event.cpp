// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
// An optional event that has another signature would never be called.
#include <cstddef>

#include <vmsuperio/serial.hpp>

struct Events : vmsuperio::NoEvents {
#if defined(REJECT)
    void dropped_bytes() {}
#else
    void dropped_bytes(std::size_t) {}
#endif
};

using Uart = vmsuperio::Serial<vmsuperio::NullTrigger, Events>;
static_assert(sizeof(Uart) != 0);
