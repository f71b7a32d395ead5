// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//
// The firmware tables of any machine: an operating system finds all of them, with correct lengths and
// checksums, inside the area that the loader reserves for them, or the machine is refused.
//
// Input: 2 bytes with the number of CPUs (modulo 1024 if bit 15 is set, otherwise modulo 16, because each
// takes time), then devices: a byte with the kind of fixed hardware (0 to 3; others: none) and its values, a
// byte with the device's shape (bits 1:0 number of resources, 2 no ACPI node, 3 an ACPI id instead of an EISA
// id, 4 _UID, 5 _CCA), the resources, the node's name and hardware id.

#include <array>
#include <cstdint>
#include <cstring>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "acpi/tables.hpp"
#include "arch/x86_64/layout.hpp"
#include "arch/x86_64/mptable.hpp"
#include "machine/platform.hpp"
#include "memory/guest_memory.hpp"
#include "support/target.hpp"
#include "util/error.hpp"

namespace fuzz {
namespace {

using kvm_vmm::GuestMemory;
using kvm_vmm::Platform;
namespace layout = kvm_vmm::layout;

std::vector<std::uint8_t> bytes_at(const GuestMemory& memory, std::uint64_t at, std::uint64_t size) {
    check(at >= layout::acpi && size <= layout::acpi_end - at, "the table is in the area kept for it");
    std::vector<std::uint8_t> bytes(size);
    check(memory.read(at, bytes), "the table is in RAM");
    return bytes;
}
void check_sum(const std::vector<std::uint8_t>& bytes) {
    std::uint8_t sum = 0;
    for (const std::uint8_t byte : bytes) {
        sum = static_cast<std::uint8_t>(sum + byte);
    }
    check_equal(sum, 0, "the bytes add up to 0");
}
std::uint64_t number_at(const std::vector<std::uint8_t>& bytes, std::size_t at, std::size_t width) {
    check(at + width <= bytes.size(), "the table is long enough");
    std::uint64_t value = 0;
    for (std::size_t i = 0; i < width; ++i) {
        value |= std::uint64_t{bytes[at + i]} << (8U * i);
    }
    return value;
}
bool has_signature(const std::vector<std::uint8_t>& bytes, std::string_view signature) {
    return bytes.size() >= signature.size() &&
           std::memcmp(bytes.data(), signature.data(), signature.size()) == 0;
}
std::vector<std::uint8_t> table_at(const GuestMemory& memory, std::uint64_t at) {
    const std::vector<std::uint8_t> bytes = bytes_at(memory, at, number_at(bytes_at(memory, at, 36), 4, 4));
    check_sum(bytes);
    return bytes;
}

// Entries of the MADT: type, length, body.
void check_madt(const std::vector<std::uint8_t>& madt, const Platform& platform) {
    unsigned cpus = 0;
    unsigned ioapics = 0;
    for (std::size_t at = 44; at < madt.size();) {
        const std::size_t length = number_at(madt, at + 1, 1);
        check(length >= 2 && at + length <= madt.size(), "the MADT's entries fill it");
        cpus += madt[at] == 0 || madt[at] == 9 ? 1U : 0U;
        ioapics += madt[at] == 1 ? 1U : 0U;
        at += length;
    }
    check_equal(cpus, platform.cpus, "each CPU is in the MADT");
    check_equal(ioapics, 1, "there is one IOAPIC");
}

void check_tables(const GuestMemory& memory, std::uint64_t rsdp_at, const Platform& platform) {
    const auto rsdp = bytes_at(memory, rsdp_at, 36);
    check(has_signature(rsdp, "RSD PTR "), "the RSDP's signature");
    check_sum({rsdp.begin(), rsdp.begin() + 20});
    check_sum(rsdp);
    const auto xsdt = table_at(memory, number_at(rsdp, 24, 8));
    check(has_signature(xsdt, "XSDT"), "the XSDT's signature");
    bool fadt_found = false;
    bool madt_found = false;
    for (std::size_t at = 36; at < xsdt.size(); at += 8) {
        const auto table = table_at(memory, number_at(xsdt, at, 8));
        if (has_signature(table, "FACP")) {
            fadt_found = true;
            const auto dsdt = table_at(memory, number_at(table, 140, 8));
            check(has_signature(dsdt, "DSDT"), "the DSDT's signature");
            const auto facs = bytes_at(memory, number_at(table, 36, 4), 64);
            check(has_signature(facs, "FACS"), "the FACS's signature");
            check_equal(number_at(table, 36, 4) % 64, 0, "the FACS is aligned to 64 bytes");
        } else if (has_signature(table, "APIC")) {
            madt_found = true;
            check_madt(table, platform);
        }
    }
    check(fadt_found && madt_found, "the XSDT names FADT and MADT");
}

// A name that ends with two printable characters of the input, which may be invalid in a name.
std::string name_of(Input& input, std::string_view prefix) {
    std::string name(prefix);
    for (int i = 0; i < 2; ++i) {
        name += static_cast<char>(' ' + input.byte() % 95);
    }
    return name;
}

// A range of ports or memory may be too large for its descriptor, and an interrupt may not exist.
vmdevice::ResourceConstraint resource_of(Input& input) {
    const std::uint8_t what = input.byte();
    switch (what & 3U) {
        case 0:
            return vmdevice::PioConstraint{
                .size = input.u16(),
                .base = (what & 4U) == 0 ? std::optional(vmdevice::PioAddress{input.u16()}) : std::nullopt};
        case 1:
            return vmdevice::MmioConstraint{
                .size = input.u32(),
                .base = vmdevice::MmioAddress{std::uint64_t{input.u32()} << ((what & 4U) == 0 ? 0U : 8U)}};
        case 2:
            return vmdevice::LegacyIrqConstraint{
                .irq = what >> 3U, .sharing = static_cast<vmdevice::IrqSharing>(input.byte() % 3U)};
        default:
            return vmdevice::LegacyIrqConstraint{.irq = input.u32()};
    }
}

void set_fixed_hardware(Input& input, kvm_vmm::FixedHardware& hardware) {
    using namespace kvm_vmm::fixed_hardware;
    switch (input.byte() % 8U) {
        case 0:
            hardware = PowerManagement{
                .block_port = input.u16(), .sci_irq = input.byte(), .sleep_type_s5 = input.byte()};
            break;
        case 1:
            hardware = ResetRegister{.port = input.u16(), .value = input.byte()};
            break;
        case 2:
            hardware =
                CmosClock{.day_alarm = input.byte(), .month_alarm = input.byte(), .century = input.byte()};
            break;
        case 3:
            hardware = KeyboardController{};
            break;
        default:
            break;
    }
}

Platform platform_of(Input& input, const Trace& trace) {
    Platform platform;
    const std::uint16_t cpus = input.u16();
    platform.cpus = (cpus & 0x8000U) != 0 ? cpus % 1024U : cpus % 16U;
    trace("Platform of ", platform.cpus, " CPUs");
    while (!input.empty()) {
        kvm_vmm::DeviceDescription device{.name = "device", .title = {}, .model = {}};
        set_fixed_hardware(input, device.fixed_hardware);
        const std::uint8_t shape = input.byte();
        for (unsigned i = 0; i < (shape & 3U); ++i) {
            device.resources.push_back(resource_of(input));
        }
        if ((shape & 4U) == 0) {
            device = with_acpi_node(
                device, name_of(input, "DV"), name_of(input, (shape & 8U) == 0 ? "PNP05" : "TEST00"),
                (shape & 16U) == 0 ? std::nullopt : std::optional<std::uint64_t>(input.u32()));
            device.acpi_nodes.front().dma_coherent = (shape & 32U) != 0;
        }
        trace("    a device with ", device.resources.size(), " resources, ", device.acpi_nodes.size(),
              " nodes, fixed hardware of kind ", device.fixed_hardware.index());
        platform.devices.push_back(device);
    }
    return platform;
}

}  // namespace

void run_target(Input& input, const Trace& trace) {
    GuestMemory memory(2U << 20U);
    const Platform platform = platform_of(input, trace);
    const auto attempt = [&](const char* what, auto action) {
        try {
            action();
        } catch (const kvm_vmm::VmmError& error) {
            const std::string_view text = error.what();
            trace("// ", what, " refused: ", text);
            check(error.code() == kvm_vmm::ExitCode::usage, "refused as wrong usage");
            check(text.find('\n') == std::string_view::npos && text.size() < 300, "with one clear line");
        }
    };
    attempt("ACPI", [&] {
        check_tables(memory, kvm_vmm::write_acpi_tables(memory, layout::acpi_tables, platform), platform);
    });
    attempt("MP table", [&] {
        kvm_vmm::write_mptable(memory, platform);
        // The table is written into its own area, and nothing before it.
        check(memory.read_object<std::uint32_t>(layout::mptable) == 0x5F504D5FU, "the MP floating pointer");
    });
    const auto behind = memory.slice(layout::high_memory, 0x1000);
    static constexpr std::array<std::uint8_t, 0x1000> zeros{};
    check(std::memcmp(behind->data(), zeros.data(), zeros.size()) == 0,
          "nothing is written behind the firmware area");
}

}  // namespace fuzz
