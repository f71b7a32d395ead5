// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
// The number of bytes that fitted must not be ignored, because the others would be lost.
#include <array>

#include <vmsuperio/serial.hpp>

void give(vmsuperio::Serial<vmsuperio::NullTrigger>& uart, std::array<std::uint8_t, 4> bytes) {
#if defined(REJECT)
    uart.enqueue_raw_bytes(bytes);
#else
    if (!uart.enqueue_raw_bytes(bytes)) {
        bytes = {};
    }
#endif
}
