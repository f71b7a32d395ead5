# SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
# The public headers of each library, relative to include/. Each one must compile alone.
set(vmdevice_headers
    vmdevice/address.hpp
    vmdevice/allocator.hpp
    vmdevice/bus.hpp
    vmdevice/byte_device.hpp
    vmdevice/detail/asymmetric_fence.hpp
    vmdevice/detail/bus_tables.hpp
    vmdevice/detail/config.hpp
    vmdevice/detail/describe.hpp
    vmdevice/detail/mutex.hpp
    vmdevice/detail/range_index.hpp
    vmdevice/detail/shared_bus.hpp
    vmdevice/detail/thread_annotations.hpp
    vmdevice/detail/visitors.hpp
    vmdevice/device.hpp
    vmdevice/device_manager.hpp
    vmdevice/error.hpp
    vmdevice/io_manager.hpp
    vmdevice/locked.hpp
    vmdevice/range.hpp
    vmdevice/range_allocator.hpp
    vmdevice/resources.hpp
    vmdevice/vmdevice.hpp)

set(vmsuperio_headers
    vmsuperio/clock.hpp
    vmsuperio/detail/config.hpp
    vmsuperio/registers/register.hpp
    vmsuperio/snapshot.hpp
    vmsuperio/trigger.hpp)
