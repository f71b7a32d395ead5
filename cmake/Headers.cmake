# SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
# The public headers of each library, relative to include/. Each one must compile alone.
set(vmdevice_headers
    vmdevice/address.hpp
    vmdevice/bus.hpp
    vmdevice/byte_device.hpp
    vmdevice/detail/config.hpp
    vmdevice/detail/mutex.hpp
    vmdevice/detail/range_index.hpp
    vmdevice/detail/thread_annotations.hpp
    vmdevice/device.hpp
    vmdevice/error.hpp
    vmdevice/io_manager.hpp
    vmdevice/locked.hpp
    vmdevice/range.hpp
    vmdevice/vmdevice.hpp)

set(vmsuperio_headers
    vmsuperio/clock.hpp
    vmsuperio/detail/config.hpp
    vmsuperio/detail/serial_fifo.hpp
    vmsuperio/linux/eventfd.hpp
    vmsuperio/linux/fd_writer.hpp
    vmsuperio/linux/unique_fd.hpp
    vmsuperio/registers/register.hpp
    vmsuperio/registers/uart16550.hpp
    vmsuperio/serial.hpp
    vmsuperio/serial_error.hpp
    vmsuperio/serial_events.hpp
    vmsuperio/serial_state.hpp
    vmsuperio/snapshot.hpp
    vmsuperio/trigger.hpp
    vmsuperio/vmsuperio.hpp
    vmsuperio/writer.hpp)
