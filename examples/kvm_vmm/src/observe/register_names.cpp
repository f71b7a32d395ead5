// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
#include "observe/register_names.hpp"

#include <array>
#include <cinttypes>
#include <cstdio>
#include <string>
#include <string_view>

#include <vmsuperio/registers/i8042.hpp>
#include <vmsuperio/registers/mc146818.hpp>
#include <vmsuperio/registers/uart16550.hpp>

#include "acpi/platform.hpp"

namespace kvm_vmm {
namespace {

using vmsuperio::uart16550::LineControl;

std::string hex(std::uint64_t value) {
    std::array<char, 24> text{};
    std::snprintf(text.data(), text.size(), "0x%02" PRIx64, value);
    return text.data();
}

std::string uart_register(std::uint64_t offset, bool write, std::uint8_t line_control) {
    using namespace vmsuperio::uart16550;
    const bool latch = LineControl(line_control)[LineControl::divisor_latch_access];
    switch (offset) {
        case offset::receiver_buffer:
            return latch ? "DLL" : (write ? "THR" : "RBR");
        case offset::interrupt_enable:
            return latch ? "DLM" : "IER";
        case offset::interrupt_identification:
            return write ? "FCR" : "IIR";
        case offset::line_control:
            return "LCR";
        case offset::modem_control:
            return "MCR";
        case offset::line_status:
            return "LSR";
        case offset::modem_status:
            return "MSR";
        default:
            return "SCR";
    }
}

std::string pm_register(std::uint64_t offset) {
    if (offset < 2) {
        return "STS";
    }
    if (offset < platform::pm1a_event_length) {
        return "EN";
    }
    if (offset < platform::pm1a_event_length + platform::pm1a_control_length) {
        return "CNT";
    }
    return offset < platform::pm_timer_port - platform::pm_block_port ? "reserved" : "TMR";
}

std::string cmos_byte(std::uint8_t index) {
    const std::string_view name = vmsuperio::mc146818::index_name(index);
    return "data[" + hex(index) + (name.empty() ? "" : " ") + std::string(name) + "]";
}

std::string register_of(RegisterSet registers, std::uint64_t offset, bool write, std::uint8_t latch) {
    switch (registers) {
        case RegisterSet::uart16550:
            return uart_register(offset, write, latch);
        case RegisterSet::i8042:
            return offset == vmsuperio::i8042::data_offset ? "data" : (write ? "command" : "status");
        case RegisterSet::rtc_cmos:
            switch (offset) {
                case vmsuperio::mc146818::index_offset:
                    return "index";
                case vmsuperio::mc146818::data_offset:
                    return cmos_byte(latch & 0x7FU);
                case vmsuperio::mc146818::extended_index_offset:
                    return "index2";
                default:
                    return "data2";
            }
        case RegisterSet::acpi_pm:
            return pm_register(offset);
        case RegisterSet::none:
            break;
    }
    return hex(offset);
}

}  // namespace

std::string RegisterNames::name(const ObservedDevice* device, const IoAccess& access) {
    if (device == nullptr) {
        return "-";
    }
    const bool pio = access.bus == IoAccess::Bus::pio;
    const std::uint64_t offset = access.address - (pio ? device->port_origin : device->mmio_origin);
    const std::string name = register_of(device->registers, offset, access.write, latch(*device));
    note(*device, offset, access);
    return device->name + '.' + name;
}

std::uint8_t& RegisterNames::latch(const ObservedDevice& device) {
    if (device.index >= latches_.size()) {
        latches_.resize(device.index + 1, 0);
    }
    return latches_.at(device.index);
}

void RegisterNames::note(const ObservedDevice& device, std::uint64_t offset, const IoAccess& access) {
    // A wide access is split into bytes in ascending order; string I/O stays at its port.
    for (std::size_t i = 0; i < access.data.size(); ++i) {
        const std::uint64_t at = offset + i % access.width;
        if (device.registers == RegisterSet::uart16550 && at == vmsuperio::uart16550::offset::line_control) {
            latch(device) = access.data[i];
        }
        if (device.registers == RegisterSet::rtc_cmos && at == vmsuperio::mc146818::index_offset &&
            access.write) {
            latch(device) = access.data[i];
        }
    }
}

}  // namespace kvm_vmm
