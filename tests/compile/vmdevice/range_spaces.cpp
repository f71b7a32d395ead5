// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
// A device cannot be registered at a range of the other space.
#include <memory>

#include <vmdevice/io_manager.hpp>

bool add(vmdevice::IoManager& manager, std::shared_ptr<vmdevice::DevicePio> device) {
#ifdef REJECT
    return manager.register_pio(vmdevice::MmioRange::unit({0x60}), device).has_value();
#else
    return manager.register_pio(vmdevice::PioRange::unit({0x60}), device).has_value();
#endif
}
