// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
// A bus of move-only devices takes them only by move.
#include <memory>
#include <utility>

#include <vmdevice/bus.hpp>

bool add(vmdevice::PioBus<std::unique_ptr<int>>& bus, std::unique_ptr<int> device) {
    const auto range = vmdevice::PioRange::unit({0x60});
#ifdef REJECT
    return bus.register_device(range, device).has_value();
#else
    return bus.register_device(range, std::move(device)).has_value();
#endif
}
