// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
// The four events are required, so that a misspelt one is detected.
#include <vmsuperio/serial.hpp>

struct Events {
    void buffer_read() {}
    void out_byte() {}
    void tx_lost_byte() {}
#if defined(REJECT)
    void in_bufer_empty() {}
#else
    void in_buffer_empty() {}
#endif
};

using Uart = vmsuperio::Serial<vmsuperio::NullTrigger, Events>;
static_assert(sizeof(Uart) != 0);
