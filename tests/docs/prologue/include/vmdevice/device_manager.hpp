// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
// Declarations that the fragments of include/vmdevice/device_manager.hpp use.
#pragma once

#include <memory>

#include <vmdevice/vmdevice.hpp>

namespace snippets {
using namespace vmdevice;

extern DeviceManager manager;
extern std::shared_ptr<DevicePio> com1;
}  // namespace snippets
