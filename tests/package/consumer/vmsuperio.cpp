// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
#include <vmsuperio/vmsuperio.hpp>

#if __has_include(<vmdevice/vmdevice.hpp>) && defined(ALONE)
#error "vmdevice is installed too"
#endif

int main() {
    vmsuperio::Serial serial(vmsuperio::NullTrigger{}, vmsuperio::NullWriter{});
    return serial.read(5) == 0x60 ? 0 : 1;
}
