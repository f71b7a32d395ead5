// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
#pragma once

/// All of vmdevice: addresses, ranges, buses, device interfaces, IoManager, resources, DeviceManager.

#include <vmdevice/address.hpp>
#include <vmdevice/alloc_error.hpp>
#include <vmdevice/allocator.hpp>
#include <vmdevice/allocator_state.hpp>
#include <vmdevice/bus.hpp>
#include <vmdevice/byte_device.hpp>
#include <vmdevice/device.hpp>
#include <vmdevice/device_info.hpp>
#include <vmdevice/device_manager.hpp>
#include <vmdevice/error.hpp>
#include <vmdevice/io_manager.hpp>
#include <vmdevice/locked.hpp>
#include <vmdevice/port_view.hpp>
#include <vmdevice/range.hpp>
#include <vmdevice/range_allocator.hpp>
#include <vmdevice/resources.hpp>
#include <vmdevice/share.hpp>
#include <vmdevice/span_device.hpp>
#include <vmdevice/text.hpp>
#include <vmdevice/version.hpp>
