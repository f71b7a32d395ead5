// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
#include "acpi/dsdt.hpp"

#include <algorithm>
#include <cstddef>
#include <stdexcept>
#include <string>
#include <string_view>
#include <vector>

namespace kvm_vmm {
namespace {

using aml::Bytes;

constexpr std::uint64_t present_and_working = 0xF;  // _STA (ACPI 6.5, 6.3.7)

std::string numbered(std::string_view prefix, std::size_t number, std::size_t digits) {
    constexpr std::string_view hex_digits = "0123456789ABCDEF";
    std::string text(digits, '0');
    for (std::size_t i = digits; i > 0; --i, number >>= 4U) {
        text[i - 1] = hex_digits[number & 0xFU];
    }
    if (number != 0) {
        throw std::length_error("ACPI: too many devices of one kind");
    }
    return std::string(prefix) + text;
}

Bytes hid(std::string_view eisa_id) { return aml::name("_HID", aml::eisa_id(eisa_id)); }
Bytes uid(std::uint64_t number) { return aml::name("_UID", aml::integer(number)); }
Bytes status() { return aml::name("_STA", aml::integer(present_and_working)); }
Bytes resources(std::initializer_list<Bytes> descriptors) {
    return aml::name("_CRS", aml::resource_template(descriptors));
}

Bytes processor(unsigned id) {
    return aml::device(numbered("C", id, 3), {aml::name("_HID", aml::string("ACPI0007")), uid(id)});
}

Bytes serial_port(const std::vector<SerialPort>& ports, std::size_t index) {
    const SerialPort& port = ports[index];
    const auto users = std::ranges::count(ports, port.irq, &SerialPort::irq);
    return aml::device(
        numbered("COM", index + 1, 1),
        {hid("PNP0501"), uid(index + 1), status(),
         resources({aml::io(port.port, 8),
                    aml::irq(port.irq, users > 1 ? aml::Sharing::shared : aml::Sharing::exclusive)})});
}

Bytes keyboard() {
    return aml::device(
        "KBD_", {hid("PNP0303"), status(),
                 resources({aml::io(platform::i8042_data_port, 1), aml::io(platform::i8042_command_port, 1),
                            aml::irq(platform::keyboard_irq)})});
}

Bytes mouse() {
    return aml::device("MOU_", {hid("PNP0F13"), status(), resources({aml::irq(platform::mouse_irq)})});
}

Bytes real_time_clock() {
    return aml::device(
        "RTC_",
        {hid("PNP0B00"), status(),
         resources({aml::io(platform::rtc_port, platform::rtc_port_count), aml::irq(platform::rtc_irq)})});
}

Bytes panic_device() {
    return aml::device("PEVT", {aml::name("_HID", aml::string("QEMU0001")), status(),
                                resources({aml::io(platform::pvpanic_port, 1)})});
}

Bytes virtio_mmio(const VirtioMmio& device, std::size_t index) {
    const auto triggering = device.level_triggered ? aml::Triggering::level : aml::Triggering::edge;
    return aml::device(
        numbered("VR", index, 2),
        {aml::name("_HID", aml::string("LNRO0005")), uid(index),
         aml::name("_CCA", aml::integer(1)),  // its DMA is coherent
         resources({aml::memory32_fixed(device.base, device.size), aml::interrupt(device.gsi, triggering)})});
}

}  // namespace

aml::Bytes dsdt_body(const Platform& platform) {
    constexpr std::size_t single_devices = 4;
    std::vector<Bytes> devices;
    devices.reserve(platform.cpus + platform.serial_ports.size() + single_devices +
                    platform.virtio_mmio.size());
    for (unsigned i = 0; i < platform.cpus; ++i) {
        devices.push_back(processor(i));
    }
    for (std::size_t i = 0; i < platform.serial_ports.size(); ++i) {
        devices.push_back(serial_port(platform.serial_ports, i));
    }
    if (platform.i8042 == I8042Profile::keyboard || platform.i8042 == I8042Profile::keyboard_and_mouse) {
        devices.push_back(keyboard());
    }
    if (platform.i8042 == I8042Profile::keyboard_and_mouse) {
        devices.push_back(mouse());
    }
    if (platform.rtc) {
        devices.push_back(real_time_clock());
    }
    if (platform.pvpanic) {
        devices.push_back(panic_device());
    }
    for (std::size_t i = 0; i < platform.virtio_mmio.size(); ++i) {
        devices.push_back(virtio_mmio(platform.virtio_mmio[i], i));
    }

    // The power button needs no device here: the FADT declares it as fixed hardware.
    const Bytes type = aml::integer(platform::sleep_type_s5);
    Bytes body = aml::name("_S5_", aml::package({type, type, aml::integer(0), aml::integer(0)}));
    const Bytes system_bus = aml::scope("_SB_", devices);
    body.insert(body.end(), system_bus.begin(), system_bus.end());
    return body;
}

}  // namespace kvm_vmm
