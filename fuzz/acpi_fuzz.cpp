// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//
// The firmware tables of any machine: an operating system finds all of them, with correct lengths and
// checksums, inside the area that the loader reserves for them, or the machine is refused.
//
// Input: 2 bytes of CPUs (modulo 16 where bit 15 is clear, as each costs time, else modulo 1024), one of
// options (bits 1:0 i8042, 2 RTC, 3 pvpanic, 4 no MP table, 7:5 the timer pin), then devices: an even byte
// and 3 bytes for a serial port (port, irq), an odd one and 12 for virtio-mmio (base, size, gsi; bit 1 of the
// first: level triggered).

#include <array>
#include <cstdint>
#include <cstring>
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

Platform platform_of(Input& input, const Trace& trace) {
    Platform platform;
    const std::uint16_t cpus = input.u16();
    platform.cpus = (cpus & 0x8000U) != 0 ? cpus % 1024U : cpus % 16U;
    const std::uint8_t options = input.byte();
    platform.i8042 = static_cast<kvm_vmm::I8042Profile>(options & 3U);
    platform.rtc = (options & 4U) != 0;
    platform.pvpanic = (options & 8U) != 0;
    platform.mptable = (options & 16U) == 0;
    platform.timer_pin = options >> 5U;
    platform.serial_ports.clear();
    trace("Platform of ", platform.cpus, " CPUs, options ", Hex{options});
    while (!input.empty()) {
        const std::uint8_t what = input.byte();
        if (what % 2 == 0) {
            const std::uint16_t port = input.u16();
            platform.serial_ports.push_back({port, input.byte()});
            trace("    serial port ", Hex{port}, ", irq ", unsigned{platform.serial_ports.back().irq});
        } else {
            const std::uint32_t base = input.u32();
            const std::uint32_t size = input.u32();
            const std::uint32_t gsi = input.u32();
            platform.virtio_mmio.push_back({base, size, gsi, (what & 2U) != 0});
            trace("    virtio-mmio ", Hex{base}, ", ", Hex{size}, ", gsi ", gsi);
        }
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
