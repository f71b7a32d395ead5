// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
// An address of one space is not an address of another.
#include <vmdevice/bus.hpp>

bool found(const vmdevice::PioBus<int>& bus) {
#ifdef REJECT
    return bus.device(vmdevice::MmioAddress{0x60}).has_value();
#else
    return bus.device(vmdevice::PioAddress{0x60}).has_value();
#endif
}
