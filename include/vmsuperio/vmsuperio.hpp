// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
#pragma once

/// All portable parts of vmsuperio. The helpers for Linux (`<vmsuperio/linux/...>`) and for nlohmann-json
/// (`<vmsuperio/state_json.hpp>`) are included by name.

#include <vmsuperio/acpi_pm.hpp>
#include <vmsuperio/callback.hpp>
#include <vmsuperio/clock.hpp>
#include <vmsuperio/debug_port.hpp>
#include <vmsuperio/device_shell.hpp>
#include <vmsuperio/exit_port.hpp>
#include <vmsuperio/host_errors.hpp>
#include <vmsuperio/i8042.hpp>
#include <vmsuperio/i8042_state.hpp>
#include <vmsuperio/inspect.hpp>
#include <vmsuperio/interrupt_line.hpp>
#include <vmsuperio/keys.hpp>
#include <vmsuperio/ps2/keyboard_state.hpp>
#include <vmsuperio/ps2/mouse_state.hpp>
#include <vmsuperio/pvpanic.hpp>
#include <vmsuperio/registers/acpi_pm.hpp>
#include <vmsuperio/registers/i8042.hpp>
#include <vmsuperio/registers/mc146818.hpp>
#include <vmsuperio/registers/pl031.hpp>
#include <vmsuperio/registers/ps2.hpp>
#include <vmsuperio/registers/pvpanic.hpp>
#include <vmsuperio/registers/register.hpp>
#include <vmsuperio/registers/reset_control.hpp>
#include <vmsuperio/registers/uart16550.hpp>
#include <vmsuperio/reset_control.hpp>
#include <vmsuperio/rtc_cmos.hpp>
#include <vmsuperio/rtc_pl031.hpp>
#include <vmsuperio/serial.hpp>
#include <vmsuperio/serial_error.hpp>
#include <vmsuperio/serial_events.hpp>
#include <vmsuperio/serial_metrics.hpp>
#include <vmsuperio/serial_state.hpp>
#include <vmsuperio/serial_timeout.hpp>
#include <vmsuperio/snapshot.hpp>
#include <vmsuperio/state_error.hpp>
#include <vmsuperio/timed.hpp>
#include <vmsuperio/timestamp_writer.hpp>
#include <vmsuperio/trigger.hpp>
#include <vmsuperio/version.hpp>
#include <vmsuperio/writer.hpp>
