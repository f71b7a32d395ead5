// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
#pragma once

#include <array>
#include <cstdint>
#include <cstdio>
#include <memory>
#include <string>
#include <string_view>

#include <vmsuperio/acpi_pm.hpp>
#include <vmsuperio/i8042.hpp>
#include <vmsuperio/pvpanic.hpp>
#include <vmsuperio/registers/acpi_pm.hpp>
#include <vmsuperio/registers/i8042.hpp>
#include <vmsuperio/registers/mc146818.hpp>
#include <vmsuperio/registers/pvpanic.hpp>
#include <vmsuperio/registers/reset_control.hpp>
#include <vmsuperio/registers/uart16550.hpp>
#include <vmsuperio/reset_control.hpp>
#include <vmsuperio/rtc_cmos.hpp>
#include <vmsuperio/serial.hpp>

#include "devices/console_uart.hpp"
#include "devices/timed_device.hpp"
#include "observe/device_directory.hpp"

namespace kvm_vmm {

/// `register_name(model, offset, write)`: the library's name of the register that an access reaches in the
/// model's present state, or empty if it has none.
template <class... Ts>
[[nodiscard]] std::string register_name(const vmsuperio::Serial<Ts...>& uart, std::uint64_t offset,
                                        bool write) {
    namespace uart16550 = vmsuperio::uart16550;
    using uart16550::LineControl;
    const LineControl line_control(uart.peek(uart16550::offset::line_control));
    return std::string(
        uart16550::register_name(offset, write, line_control[LineControl::divisor_latch_access]));
}
template <class Serial>
[[nodiscard]] std::string register_name(const ConsoleUart<Serial>& uart, std::uint64_t offset, bool write) {
    return register_name(uart.serial(), offset, write);
}

template <class... Ts>
[[nodiscard]] std::string register_name(const vmsuperio::I8042<Ts...>&, std::uint64_t offset, bool write) {
    return std::string(vmsuperio::i8042::register_name(offset, write));
}

/// The data port is "data[0x0a:A]", with the selected index and the name of the byte there, if any. There are
/// no spaces, because a name is one column of the trace.
template <class... Ts>
[[nodiscard]] std::string register_name(const vmsuperio::RtcCmos<Ts...>& clock, std::uint64_t offset, bool) {
    namespace mc146818 = vmsuperio::mc146818;
    std::string name(mc146818::register_name(offset));
    if (offset == mc146818::data_offset) {
        const mc146818::IndexRegister selected(clock.state().index);
        const std::uint8_t index = selected[mc146818::IndexRegister::index];
        std::array<char, 8> text{};
        std::snprintf(text.data(), text.size(), "0x%02x", static_cast<unsigned>(index));
        const std::string_view byte = mc146818::index_name(index);
        name.append("[").append(text.data()).append(byte.empty() ? "" : ":").append(byte).append("]");
    }
    return name;
}

template <class... Ts>
[[nodiscard]] std::string register_name(const vmsuperio::AcpiPm<Ts...>&, std::uint64_t offset, bool) {
    return std::string(vmsuperio::acpi_pm::register_name(offset));
}

template <class... Ts>
[[nodiscard]] std::string register_name(const vmsuperio::ResetControl<Ts...>&, std::uint64_t, bool) {
    return std::string(vmsuperio::ResetControlRegister::name);
}
template <class... Ts>
[[nodiscard]] std::string register_name(const vmsuperio::SystemControlPortA<Ts...>&, std::uint64_t, bool) {
    return std::string(vmsuperio::SystemControlA::name);
}
[[nodiscard]] inline std::string register_name(const vmsuperio::Pvpanic&, std::uint64_t, bool) {
    return std::string(vmsuperio::PvpanicEvents::name);
}

template <class Device, class DeadlineTimer>
[[nodiscard]] std::string register_name(const TimedDevice<Device, DeadlineTimer>& device,
                                        std::uint64_t offset, bool write) {
    return register_name(device.device(), offset, write);
}

/// Returns a function that names the registers of a `vmdevice::Locked` device under its lock, or an empty one
/// for a model that has no names. The function may be called after the device was destroyed.
template <class Locked>
[[nodiscard]] RegisterNamer register_namer(const std::shared_ptr<Locked>& device) {
    if constexpr (requires { register_name(*device->lock(), std::uint64_t{}, bool{}); }) {
        return [weak = std::weak_ptr<const Locked>(device)](std::uint64_t offset, bool write) {
            const auto locked = weak.lock();
            return locked ? register_name(*locked->lock(), offset, write) : std::string();
        };
    } else {
        return {};
    }
}

}  // namespace kvm_vmm
