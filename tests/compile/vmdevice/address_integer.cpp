// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
// A bare integer is not an address.
#include <cstdint>

#include <vmdevice/address.hpp>

std::uint16_t value(vmdevice::PioAddress address) { return address.value; }

std::uint16_t use(std::uint16_t port) {
#ifdef REJECT
    return value(port);
#else
    return value(vmdevice::PioAddress{port});
#endif
}
