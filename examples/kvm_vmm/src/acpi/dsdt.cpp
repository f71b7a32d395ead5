// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
#include "acpi/dsdt.hpp"

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <iterator>
#include <limits>
#include <stdexcept>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include <vmdevice/resources.hpp>

namespace kvm_vmm {
namespace {

using aml::Bytes;

constexpr std::uint64_t present_and_working = 0xF;  // _STA (ACPI 6.5, 6.3.7)
constexpr std::uint32_t isa_interrupts = 16;

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

template <class Field>
Field at_most(std::uint64_t value) {
    if (value > std::numeric_limits<Field>::max()) {
        throw std::length_error("ACPI: a range does not fit its resource descriptor");
    }
    return static_cast<Field>(value);
}

Bytes processor(unsigned id) {
    return aml::device(numbered("C", id, 3), {aml::name("_HID", aml::string("ACPI0007")), uid(id)});
}

// A resource descriptor. Interrupts of the ISA bus have the short form, which means edge and active high.
Bytes descriptor(const vmdevice::ResourceConstraint& resource) {
    if (const auto* const io = std::get_if<vmdevice::PioConstraint>(&resource); io && io->base) {
        return aml::io(io->base->value, at_most<std::uint8_t>(io->size));
    }
    if (const auto* const window = std::get_if<vmdevice::MmioConstraint>(&resource); window && window->base) {
        return aml::memory32_fixed(at_most<std::uint32_t>(window->base->value),
                                   at_most<std::uint32_t>(window->size));
    }
    if (const auto* const line = std::get_if<vmdevice::LegacyIrqConstraint>(&resource); line && line->irq) {
        using vmdevice::IrqSharing;
        const bool level = line->sharing == IrqSharing::level;
        const auto sharing =
            line->sharing == IrqSharing::exclusive ? aml::Sharing::exclusive : aml::Sharing::shared;
        return *line->irq < isa_interrupts && !level
                   ? aml::irq(static_cast<std::uint8_t>(*line->irq), sharing)
                   : aml::interrupt(*line->irq, level ? aml::Triggering::level : aml::Triggering::edge,
                                    sharing);
    }
    throw std::invalid_argument("ACPI: a device's resource has no descriptor");
}

Bytes node(const AcpiNode& node) {
    constexpr std::size_t eisa_length = 7;
    std::vector<Bytes> terms{node.hardware_id.size() == eisa_length
                                 ? hid(node.hardware_id)
                                 : aml::name("_HID", aml::string(node.hardware_id))};
    if (node.unique_id) {
        terms.push_back(uid(*node.unique_id));
    }
    if (node.dma_coherent) {
        terms.push_back(aml::name("_CCA", aml::integer(1)));
    }
    terms.push_back(status());
    std::vector<Bytes> descriptors;
    std::ranges::transform(node.resources, std::back_inserter(descriptors), descriptor);
    terms.push_back(aml::name("_CRS", aml::resource_template(descriptors)));
    return aml::device(node.name, terms);
}

}  // namespace

aml::Bytes dsdt_body(const Platform& platform) {
    std::vector<Bytes> nodes;
    for (unsigned i = 0; i < platform.cpus; ++i) {
        nodes.push_back(processor(i));
    }
    for (const DeviceDescription& device : platform.devices) {
        std::ranges::transform(device.acpi_nodes, std::back_inserter(nodes), node);
    }
    Bytes body;
    // The power button needs no node here: the FADT declares it as fixed hardware.
    if (const auto* const power = platform.fixed_hardware<fixed_hardware::PowerManagement>()) {
        const Bytes type = aml::integer(power->sleep_type_s5);
        body = aml::name("_S5_", aml::package({type, type, aml::integer(0), aml::integer(0)}));
    }
    const Bytes system_bus = aml::scope("_SB_", nodes);
    body.insert(body.end(), system_bus.begin(), system_bus.end());
    return body;
}

}  // namespace kvm_vmm
