// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
// A registration that may have failed cannot be ignored by accident.
#include <vmdevice/bus.hpp>

void add(vmdevice::PioBus<int>& bus) {
#ifdef REJECT
    bus.register_device(vmdevice::PioRange::unit({0x60}), 1);
#else
    static_cast<void>(bus.register_device(vmdevice::PioRange::unit({0x60}), 1));
#endif
}
