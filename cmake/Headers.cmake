# SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
# The public headers of each library, relative to include/. Each one must compile alone.
set(vmdevice_headers
    vmdevice/detail/config.hpp)

set(vmsuperio_headers
    vmsuperio/clock.hpp
    vmsuperio/debug_port.hpp
    vmsuperio/detail/byte_queue.hpp
    vmsuperio/detail/config.hpp
    vmsuperio/detail/device_time.hpp
    vmsuperio/detail/i8042_core.hpp
    vmsuperio/detail/ps2_keyboard.hpp
    vmsuperio/detail/ps2_mouse.hpp
    vmsuperio/detail/rtc_calendar.hpp
    vmsuperio/detail/scan_codes.hpp
    vmsuperio/exit_port.hpp
    vmsuperio/i8042.hpp
    vmsuperio/keys.hpp
    vmsuperio/pvpanic.hpp
    vmsuperio/registers/i8042.hpp
    vmsuperio/registers/mc146818.hpp
    vmsuperio/registers/pl031.hpp
    vmsuperio/registers/register.hpp
    vmsuperio/rtc_cmos.hpp
    vmsuperio/rtc_pl031.hpp
    vmsuperio/snapshot.hpp
    vmsuperio/state_error.hpp
    vmsuperio/trigger.hpp)
