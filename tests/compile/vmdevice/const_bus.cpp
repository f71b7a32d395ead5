// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
// A const bus returns const devices.
#include <utility>

#include <vmdevice/bus.hpp>

void change(vmdevice::PioBus<int>& bus) {
#ifdef REJECT
    std::as_const(bus).device({0x60})->device = 1;
#else
    bus.device({0x60})->device = 1;
#endif
}
