// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
// A number becomes a register only where that is said: MSR bits are no MCR bits.
#include <vmsuperio/serial.hpp>

using Uart = vmsuperio::Serial<vmsuperio::NullTrigger>;

void unplug(Uart& uart) {
#if defined(REJECT)
    static_cast<void>(uart.set_modem_lines(0x00));
#else
    static_cast<void>(uart.set_modem_lines(vmsuperio::uart16550::ModemStatus(0x00)));
#endif
}
