// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
// The state of a CPU at its first instruction, read by the guest itself or from KVM.
#include "arch/x86_64/cpu_setup.hpp"

#include <cstdint>
#include <cstring>
#include <fstream>
#include <mutex>
#include <string>
#include <vector>

#include "small_guest.hpp"

using namespace kvm_vmm;
using namespace kvm_vmm::test;

namespace {

using Bytes = std::vector<std::uint8_t>;

/// Records the guest's writes to a port; writing the byte 0xFF at offset 1 ends the VM.
class Report final : public vmdevice::DevicePio {
public:
    explicit Report(EndLatch& end) : end_(end) {}
    void pio_read(vmdevice::PioAddress, vmdevice::PioOffset, std::span<std::uint8_t>) override {}
    void pio_write(vmdevice::PioAddress, vmdevice::PioOffset offset,
                   std::span<const std::uint8_t> data) override {
        if (offset == 4) {
            end_.request(end::PoweredOff{});
            return;
        }
        std::uint32_t value = 0;
        std::memcpy(&value, data.data(), std::min(data.size(), sizeof(value)));
        values.push_back(value);
    }
    std::vector<std::uint32_t> values;

private:
    EndLatch& end_;
};

void append(Bytes& code, const Bytes& more) { code.insert(code.end(), more.begin(), more.end()); }
void append32(Bytes& code, std::uint32_t value) {
    for (unsigned shift = 0; shift < 32; shift += 8) {
        code.push_back(static_cast<std::uint8_t>(value >> shift));
    }
}

constexpr std::uint16_t report_port = 0x500;

/// Runs 64-bit code that reports each MSR (low half, then high half).
std::vector<std::uint32_t> msrs_in_guest(const std::vector<std::uint32_t>& indexes) {
    SmallGuest guest;
    const auto report = std::make_shared<Report>(guest.end());
    REQUIRE(
        guest.io().register_pio(*vmdevice::PioRange::create(vmdevice::PioAddress{report_port}, 8), report));
    Bytes code;
    for (const std::uint32_t index : indexes) {
        code.push_back(0xB9);  // mov ecx, index
        append32(code, index);
        append(code, {0x0F, 0x32,                // rdmsr
                      0x89, 0xD3,                // mov ebx, edx
                      0x66, 0xBA, 0x00, 0x05,    // mov dx, 0x500
                      0xEF, 0x89, 0xD8, 0xEF});  // out dx, eax; mov eax, ebx; out dx, eax
    }
    append(code, {0x66, 0xBA, 0x04, 0x05, 0xEE, 0xF4});  // out to 0x504; hlt
    guest.load_long_mode(code);
    CHECK(guest.run().reason == EndReason(end::PoweredOff{}));
    return report->values;
}

std::uint32_t lapic_register(const KvmVcpu& vcpu, std::size_t offset) {
    const kvm_lapic_state lapic = vcpu.lapic();
    std::uint32_t value = 0;
    std::memcpy(&value, lapic.regs + offset, sizeof(value));
    return value;
}

bool host_ignores_msrs() {
    std::ifstream file("/sys/module/kvm/parameters/ignore_msrs");
    char answer = 'N';
    file >> answer;
    return answer == 'Y';
}

}  // namespace

TEST_CASE("CPU set-up: memory is write-back, fast strings are on, other MSRs are at reset", "[kvm][cpu]") {
    REQUIRE_KVM();
    // SDM vol. 3A 11.11.2.1: IA32_MTRR_DEF_TYPE, enabled (bit 11), type 6; vol. 4: IA32_MISC_ENABLE bit 0.
    const auto values = msrs_in_guest(
        {0x2FF, 0x1A0, 0x174, 0x175, 0x176, 0xC000'0081, 0xC000'0082, 0xC000'0083, 0xC000'0084, 0xC000'0102});
    REQUIRE(values.size() == 20);
    CHECK(values[0] == 0x806);
    CHECK(values[1] == 0);
    CHECK((values[2] & 1U) == 1);
    for (std::size_t i = 4; i < values.size(); ++i) {
        CAPTURE(i);
        CHECK(values[i] == 0);
    }
}

TEST_CASE("CPU set-up: the boot CPU takes the PIC's interrupts at LINT0 and NMI at LINT1, other CPUs neither",
          "[kvm][cpu]") {
    REQUIRE_KVM();
    const Kvm kvm;
    const GuestMemory memory(1U << 20U);
    KvmVm vm(kvm);
    vm.map_memory(memory);
    vm.create_interrupt_controllers();
    KvmVcpu boot(kvm, vm, 0);
    KvmVcpu other(kvm, vm, 1);
    set_up_cpu(boot, kvm, 2);
    set_up_cpu(other, kvm, 2);
    // SDM vol. 3A 11.5.1: bits 8 to 10 are the delivery mode, ExtINT 7 and NMI 4; bit 16 masks.
    CHECK(lapic_register(boot, 0x350) == 0x700);
    CHECK(lapic_register(boot, 0x360) == 0x400);
    CHECK(lapic_register(other, 0x350) == 0x1'0000);
    CHECK(lapic_register(other, 0x360) == 0x1'0000);
}

TEST_CASE("CPU set-up: the message names the MSR that KVM refused, whichever of several it is",
          "[kvm][cpu]") {
    REQUIRE_KVM();
    if (host_ignores_msrs()) {
        VMSUPERIO_SKIP("KVM ignores unknown MSRs on this host");
    }
    SmallGuest guest;
    const auto refusal = [&](const std::vector<kvm_msr_entry>& entries) -> std::string {
        try {
            guest.vcpu().set_msrs(entries);
        } catch (const VmmError& error) {
            CHECK(error.code() == ExitCode::vmm_error);
            return error.what();
        }
        return "(none)";
    };
    const auto entry = [](std::uint32_t index) {
        kvm_msr_entry result{};
        result.index = index;
        return result;
    };
    CHECK(refusal({entry(0x174), entry(0x175)}) == "(none)");
    CHECK(refusal({entry(0x174), entry(0x4321'0000), entry(0x175)}) == "KVM refused MSR 0x43210000");
    CHECK(refusal({entry(0x4321'0001)}) == "KVM refused MSR 0x43210001");
}

TEST_CASE("KVM set-up: KVM emulates port 0x61 and the PIT, and port 0x61 shows channel 2's output",
          "[kvm][pit]") {
    REQUIRE_KVM();
    SmallGuest guest;
    const auto report = std::make_shared<Report>(guest.end());
    const auto in_kernel = std::make_shared<Report>(guest.end());
    REQUIRE(
        guest.io().register_pio(*vmdevice::PioRange::create(vmdevice::PioAddress{report_port}, 8), report));
    // This device would be called if KVM did not handle the ports itself.
    REQUIRE(guest.io().register_pio(*vmdevice::PioRange::create(vmdevice::PioAddress{0x61}, 1), in_kernel));
    REQUIRE(guest.io().register_pio(*vmdevice::PioRange::create(vmdevice::PioAddress{0x40}, 4), in_kernel));
    guest.load_real_mode({
        0xB0, 0x01, 0xE6, 0x61,  // mov al, 1; out 0x61, al: channel 2's gate on, the speaker off
        0xB0, 0xB0, 0xE6, 0x43,  // channel 2, low and high byte, mode 0
        0xB0, 0x10, 0xE6, 0x42,  // 16 ticks, 13 us
        0x30, 0xC0, 0xE6, 0x42,  //
        0xE4, 0x61,              // in al, 0x61
        0xA8, 0x20, 0x74, 0xFA,  // test al, 0x20 (OUT2); jz back to the in
        0x24, 0x2F,              // and al, 0x2F: the refresh bit toggles
        0xBA, 0x00, 0x05, 0xEE,  // mov dx, 0x500; out dx, al
        0xBA, 0x04, 0x05, 0xEE,  // to 0x504
        0xF4,
    });
    CHECK(guest.run().reason == EndReason(end::PoweredOff{}));
    REQUIRE(report->values.size() == 1);
    CHECK(report->values[0] == 0x21);
    CHECK(in_kernel->values.empty());
}
