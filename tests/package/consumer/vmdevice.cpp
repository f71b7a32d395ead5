// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
#include <vmdevice/vmdevice.hpp>

int main() {
    vmdevice::PioBus<int> bus;
    const auto range = vmdevice::PioRange::create(vmdevice::PioAddress{0x60}, 5);
    return range && bus.register_device(*range, 7) && bus.size() == 1 ? 0 : 1;
}
