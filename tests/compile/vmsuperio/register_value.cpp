// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
// A number is converted to a register only explicitly: MSR bits are not MCR bits.
#include <vmsuperio/serial.hpp>

using Uart = vmsuperio::Serial<vmsuperio::NullTrigger>;

void unplug(Uart& uart) {
#if defined(REJECT)
    static_cast<void>(uart.set_modem_lines(0x00));
#else
    static_cast<void>(uart.set_modem_lines(vmsuperio::uart16550::ModemStatus(0x00)));
#endif
}
