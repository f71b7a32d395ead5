// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
// Guests whose writes to serial ports KVM coalesces: in the process of the test, and in kvm_vmm.
#include <algorithm>
#include <chrono>
#include <cstdio>
#include <fcntl.h>
#include <map>
#include <memory>
#include <nlohmann/json.hpp>
#include <sstream>
#include <string>
#include <vector>

#include <vmdevice/byte_device.hpp>
#include <vmdevice/locked.hpp>
#include <vmsuperio/i8042.hpp>
#include <vmsuperio/serial.hpp>

#include "devices/reset_trigger.hpp"
#include "program.hpp"
#include "vmm/coalesced_writes.hpp"

using namespace kvm_vmm;
using namespace kvm_vmm::test;
using nlohmann::json;

namespace {

using Bytes = std::vector<std::uint8_t>;
using Clock = std::chrono::steady_clock;

Bytes operator+(Bytes left, const Bytes& right) {
    left.insert(left.end(), right.begin(), right.end());
    return left;
}
Bytes imm32(std::uint32_t value) {
    return {static_cast<std::uint8_t>(value), static_cast<std::uint8_t>(value >> 8U),
            static_cast<std::uint8_t>(value >> 16U), static_cast<std::uint8_t>(value >> 24U)};
}

// 64-bit code that sends `count` bytes from 'a' upwards to `port`, without any other access.
Bytes print(std::uint32_t count, std::uint16_t port = 0x3F8) {
    return Bytes{0x66, 0xBA, static_cast<std::uint8_t>(port), static_cast<std::uint8_t>(port >> 8U), 0xB9} +
           imm32(count) +  // mov dx, port; mov ecx, count
           Bytes{0xB0, 'a',  0xEE, 0xFF, 0xC0,
                 0xFF, 0xC9, 0x75, 0xF9};  // mov al, 'a'; out dx, al; inc eax; dec ecx; jnz to the out
}
std::string printed(std::uint32_t count) {
    std::string text;
    for (std::uint32_t i = 0; i < count; ++i) {
        text += static_cast<char>('a' + i);
    }
    return text;
}

const Bytes reset{0xB0, 0xFE, 0xE6, 0x64, 0xF4};                    // mov al, 0xFE; out 0x64, al; hlt
const Bytes triple_fault{0x6A, 0x00, 0x6A, 0x00, 0x0F, 0x01, 0x1C,  // push 0; push 0; lidt [rsp]
                         0x24, 0x0F, 0x0B};                         // ud2
const Bytes halt{0xFA, 0xF4, 0xEB, 0xFC};                           // cli; hlt; jmp to the cli
const Bytes spin{0xEB, 0xFE};                                       // jmp to itself
const Bytes idle{0xB0, 0xFF, 0xE6, 0x21, 0xFB, 0xF4, 0xEB, 0xFD};   // mask the PIC; sti; hlt; jmp to the hlt
const Bytes stack{0xBC, 0x00, 0x00, 0x05, 0x00};                    // mov esp, 0x50000

struct Outcome {
    Result result;
    json metrics;
};
Outcome run_with_metrics(const Bytes& code, std::vector<std::string> more = {}) {
    const ScratchDirectory directory;
    const std::string file = (directory / "metrics").string();
    more.insert(more.end(), {"--metrics", file});
    Result result = run(directory, with_kernel(directory, code, more));
    return {std::move(result), json::parse(slurp(file))};
}

class Running : public Job {
public:
    Running(const ScratchDirectory& directory, const Bytes& code, const std::vector<std::string>& more = {})
        : Job(with_kernel(directory, code, more)) {}

    [[nodiscard]] std::string rest() const { return read(SIZE_MAX / 2); }
    int end_by(int signal) {
        send(signal);
        return wait();
    }
    // Context switches of all threads so far.
    [[nodiscard]] std::uint64_t switches() const {
        std::uint64_t total = 0;
        for (const auto& task : fs::directory_iterator("/proc/" + std::to_string(pid()) + "/task")) {
            std::istringstream status(slurp(task.path() / "status"));
            for (std::string line; std::getline(status, line);) {
                if (line.starts_with("voluntary_ctxt_switches:")) {
                    total += std::stoull(line.substr(line.find(':') + 1));
                }
            }
        }
        return total;
    }
};

bool kvm_coalesces() { return Kvm().coalesced_ring_offset().has_value(); }

}  // namespace

/// Skips the test case if guests cannot run or KVM cannot coalesce writes to ports.
#define REQUIRE_COALESCING()                                     \
    REQUIRE_KVM();                                               \
    do {                                                         \
        if (!kvm_coalesces()) {                                  \
            VMSUPERIO_SKIP("KVM does not coalesce port writes"); \
        }                                                        \
    } while (false)

// --- In this process

TEST_CASE("Coalesced guest: KVM fills the ring, and a full ring returns from KVM_RUN", "[kvm][coalesce]") {
    REQUIRE_COALESCING();
    SmallGuest guest;
    using Uart = vmsuperio::Serial<vmsuperio::NullTrigger, vmsuperio::NoEvents, vmsuperio::BufferWriter>;
    using Device = vmdevice::Locked<vmdevice::ByteDevice<Uart>>;
    const auto uart = std::make_shared<Device>(Uart({}, {}, {}));
    REQUIRE(guest.io().register_pio(*vmdevice::PioRange::create(vmdevice::PioAddress{0x3F8}, 8), uart));
    using Controller = vmdevice::ByteDevice<vmsuperio::I8042<ResetTrigger>>;
    REQUIRE(
        guest.io().register_pio(*vmdevice::PioRange::create(vmdevice::PioAddress{0x60}, 5),
                                std::make_shared<Controller>(vmsuperio::I8042(ResetTrigger(guest.end())))));
    const auto ring = guest.vcpu().coalesced_ring();
    REQUIRE(ring.has_value());
    REQUIRE(guest.vm().coalesce_port(0x3F8));
    CoalescedWrites writes(*ring, guest.io(), guest.end(), guest.observer(), 0);
    guest.handler().set_coalesced_writes(writes);
    SECTION("a loop of OUT") { guest.load_long_mode(print(1000) + reset); }
    SECTION("one REP OUTSB") {
        const std::string text = printed(1000);
        REQUIRE(guest.memory().write(0x20'0000, Bytes(text.begin(), text.end())));
        guest.load_long_mode(Bytes{0x66, 0xBA, 0xF8, 0x03, 0xBE} + imm32(0x20'0000) + Bytes{0xB9} +
                             imm32(1000) + Bytes{0xFC, 0xF3, 0x6E} +
                             reset);  // mov esi; mov ecx; cld; rep outsb
    }
    CHECK(guest.run().reason == EndReason(end::Reset{}));
    CHECK(uart->with_lock([](auto& device) { return std::string(device.device().writer().text()); }) ==
          printed(1000));
    const IoMetrics& metrics = guest.observer().metrics();
    CHECK(metrics.port(0x3F8).writes == 1000);
    // 169 entries, then the write for which there is no room.
    CHECK(metrics.coalesced() == 1000 - 1000 / CoalescedRing::entry_count);
    CHECK(metrics.exits(1) == 1 + 1000 / CoalescedRing::entry_count);
}

TEST_CASE("Coalesced guest: writes of two bytes are not coalesced, and keep their order", "[kvm][coalesce]") {
    REQUIRE_COALESCING();
    SmallGuest guest;
    using Uart = vmsuperio::Serial<vmsuperio::NullTrigger, vmsuperio::NoEvents, vmsuperio::BufferWriter>;
    using Device = vmdevice::Locked<vmdevice::ByteDevice<Uart>>;
    const auto uart = std::make_shared<Device>(Uart({}, {}, {}));
    REQUIRE(guest.io().register_pio(*vmdevice::PioRange::create(vmdevice::PioAddress{0x3F8}, 8), uart));
    REQUIRE(guest.vm().coalesce_port(0x3F8));
    CoalescedWrites writes(*guest.vcpu().coalesced_ring(), guest.io(), guest.end(), guest.observer(), 0);
    guest.handler().set_coalesced_writes(writes);
    // out dx, al ('a'); out dx, ax ('b' to THR and 0 to IER); out dx, al ('c'); then a triple fault.
    guest.load_long_mode(
        stack +
        Bytes{0x66, 0xBA, 0xF8, 0x03, 0xB0, 'a', 0xEE, 0x66, 0xB8, 'b', 0x00, 0x66, 0xEF, 0xB0, 'c', 0xEE} +
        triple_fault);
    CHECK(guest.run().reason == EndReason(end::TripleFaulted{}));
    CHECK(uart->with_lock([](auto& device) { return std::string(device.device().writer().text()); }) ==
          "abc");
    CHECK(guest.observer().metrics().coalesced() == 2);
}

// --- kvm_vmm

TEST_CASE("kvm_vmm: whatever ends the VM, the guest's last output is complete", "[program][coalesce]") {
    REQUIRE_KVM();
    struct Ending {
        Bytes code;
        int exit_code;
    };
    for (const std::string coalesce : {"on", "off"}) {
        for (const Ending& ending : {Ending{reset, 10}, Ending{triple_fault, 12}, Ending{halt, 13}}) {
            for (const std::uint32_t count : {1U, 169U, 170U, 171U, 5000U}) {
                CAPTURE(coalesce, ending.exit_code, count);
                const Outcome outcome =
                    run_with_metrics(stack + print(count) + ending.code, {"--coalesce", coalesce});
                CHECK(outcome.result.exit_code == ending.exit_code);
                CHECK(outcome.result.output == printed(count));
                CHECK(outcome.metrics["ports"]["0x03f8"]["writes"] == count);
                CHECK(outcome.metrics["serial"]["COM1"]["bytes_out"] == count);
                CHECK(outcome.metrics["serial"]["COM1"]["bytes_lost"] == 0);
                const std::uint64_t coalesced = outcome.metrics["coalesced_writes"];
                const std::uint64_t writes = outcome.metrics["exits"]["port_write"];
                if (coalesce == "on" && kvm_coalesces()) {
                    CHECK(coalesced >= count - count / 100);
                    CHECK(writes <= 1 + count / 100);
                } else {
                    CHECK(coalesced == 0);
                    CHECK(writes >= count);
                }
            }
        }
    }
}

TEST_CASE("kvm_vmm: output of a guest that makes no other access arrives while it runs",
          "[program][coalesce]") {
    REQUIRE_KVM();
    for (const Bytes& after : {spin, idle}) {
        for (const int signal : {SIGTERM, SIGINT}) {
            const ScratchDirectory directory;
            Running vmm(directory, print(10) + after);
            CHECK(vmm.read(10) == printed(10));
            CHECK(vmm.end_by(signal) == 128 + signal);
            CHECK(vmm.rest().empty());
        }
    }
}

TEST_CASE("kvm_vmm: a guest that prints without end is ended by a signal, and nothing is reordered",
          "[program][coalesce]") {
    REQUIRE_KVM();
    const ScratchDirectory directory;
    Running vmm(directory, print(0));  // 2^32 times
    std::string text = vmm.read(20'000);
    CHECK(vmm.end_by(SIGKILL) == 128 + SIGKILL);
    text += vmm.rest();
    CHECK(text == printed(static_cast<std::uint32_t>(text.size())));
}

TEST_CASE("kvm_vmm: a guest that is restarted in place keeps no write of the one before",
          "[program][coalesce]") {
    REQUIRE_KVM();
    const Outcome outcome =
        run_with_metrics(print(300) + reset, {"--on-reboot", "restart", "--restart-limit", "3"});
    CHECK(outcome.result.exit_code == 10);
    CHECK(outcome.result.output == printed(300) + printed(300) + printed(300) + printed(300));
    CHECK(outcome.metrics["serial"]["COM1"]["bytes_out"] == 1200);
}

TEST_CASE("kvm_vmm: COM1 to COM4 are coalesced, each for itself", "[program][coalesce]") {
    REQUIRE_KVM();
    const ScratchDirectory directory;
    std::vector<std::string> options{"--metrics", (directory / "metrics").string()};
    for (const char* const name : {"1", "2", "3", "4"}) {
        options.insert(options.end(), {"--serial", "file=" + (directory / name).string()});
    }
    const Bytes code =
        print(100, 0x3F8) + print(50, 0x2F8) + print(20, 0x3E8) + print(10, 0x2E8) + print(5, 0x3F8) + reset;
    CHECK(run(directory, with_kernel(directory, code, options)).exit_code == 10);
    CHECK(slurp(directory / "1") == printed(100) + printed(5));
    CHECK(slurp(directory / "2") == printed(50));
    CHECK(slurp(directory / "3") == printed(20));
    CHECK(slurp(directory / "4") == printed(10));
    if (kvm_coalesces()) {
        CHECK(json::parse(slurp(directory / "metrics"))["coalesced_writes"] ==
              184);  // 1 of 185 found no room
    }
}

TEST_CASE("kvm_vmm: acknowledgements of virtio interrupts are coalesced", "[program][coalesce]") {
    REQUIRE_KVM();
    constexpr std::uint32_t count = 1000;
    // The window of the first virtio device, which the machine has without any option: mov ebx; mov ecx; then writes of 1
    // to InterruptACK; at last a read of InterruptStatus, which finds them in the ring.
    const Bytes code = Bytes{0xBB} + imm32(0xD000'0000) + Bytes{0xB9} + imm32(count) +
                       Bytes{0xC7, 0x43, 0x64, 0x01, 0x00, 0x00, 0x00, 0xFF, 0xC9, 0x75, 0xF5} +
                       Bytes{0x8B, 0x43, 0x60} + reset;
    for (const std::string coalesce : {"on", "off"}) {
        CAPTURE(coalesce);
        const Outcome outcome = run_with_metrics(code, {"--coalesce", coalesce});
        CHECK(outcome.result.exit_code == 10);
        const std::uint64_t coalesced = outcome.metrics["coalesced_writes"];
        const std::uint64_t writes = outcome.metrics["exits"]["mmio_write"];
        CHECK(coalesced + writes == count);
        // 169 entries, then the write for which there is no room.
        CHECK(writes == (coalesce == "on" && kvm_coalesces() ? count / CoalescedRing::entry_count : count));
        CHECK(outcome.metrics["exits"]["mmio_read"] == 1);
    }
}

TEST_CASE("kvm_vmm: the trace is the same with and without coalescing", "[program][coalesce]") {
    REQUIRE_KVM();
    const Bytes code{0x66, 0xBA, 0xF8, 0x03, 0xB0, 'a',  0xEE, 0xEE,        // 'a' twice to THR
                     0x66, 0xBA, 0xFB, 0x03, 0xB0, 0x83, 0xEE,              // LCR: DLAB
                     0x66, 0xBA, 0xF8, 0x03, 0xB0, 0x0C, 0xEE,              // DLL
                     0x66, 0xBA, 0xFB, 0x03, 0xB0, 0x03, 0xEE,              // LCR
                     0xB0, 0x0A, 0xE6, 0x70, 0xE4, 0x71,                    // CMOS register A
                     0x66, 0xBA, 0xF8, 0x03, 0xEE, 0xB0, 0xFE, 0xE6, 0x64,  // its value to THR; reset
                     0xF4};
    const auto trace = [&code](const std::string& coalesce) {
        const ScratchDirectory directory;
        const std::string file = (directory / "trace").string();
        CHECK(run(directory, with_kernel(directory, code, {"--trace-io", file, "--coalesce", coalesce}))
                  .exit_code == 10);
        std::istringstream lines(slurp(file));
        std::string text;
        for (std::string line; std::getline(lines, line);) {
            text += line.substr(line.find(' ')) + '\n';  // without the time
        }
        return text;
    };
    const std::string on = trace("on");
    CHECK(on == trace("off"));
    CHECK_THAT(
        on, Catch::Matchers::Contains(" 0 pio w 0x03f8 1 0x61 COM1.THR\n 0 pio w 0x03f8 1 0x61 COM1.THR\n") &&
                Catch::Matchers::Contains("0x03f8 1 0x0c COM1.DLL"));
}

TEST_CASE("kvm_vmm: several CPUs print at once, and no byte is lost", "[program][coalesce]") {
    REQUIRE_KVM();
    constexpr std::uint16_t count = 3000;
    // In real mode: mov dx, 0x3F8; mov cx, count; mov al, 'B'; out dx, al; loop; lock inc word [cs:0x1000]; cli; hlt
    const Bytes other{0xBA, 0xF8, 0x03, 0xB9, count & 0xFF, count >> 8, 0xB0, 'B',  0xEE, 0xE2,
                      0xFD, 0xF0, 0x2E, 0xFF, 0x06,         0x00,       0x10, 0xFA, 0xF4};
    Bytes code = stack + Bytes{0xBF} + imm32(0x4'0000);  // mov edi, where the other CPU starts
    for (const std::uint8_t byte : other) {
        code = code + Bytes{0xC6, 0x07, byte, 0xFF, 0xC7};  // mov byte [rdi], byte; inc edi
    }
    code = code +
           Bytes{0xBB, 0x00, 0x03, 0xE0, 0xFE, 0xC7, 0x03, 0x00, 0x45, 0x0C, 0x00,  // INIT to all others
                 0xC7, 0x03, 0x40, 0x46, 0x0C, 0x00} +                              // start-up at 0x40000
           print(count) +
           Bytes{0xBF} + imm32(0x4'1000) + Bytes{0xF3, 0x90, 0x66, 0x83, 0x3F, 0x02, 0x75, 0xF8} +
           reset;  // pause; cmp word [rdi], 2; jne
    const Outcome outcome = run_with_metrics(code, {"--cpus", "3"});
    CHECK(outcome.result.exit_code == 10);
    // 'B' is among the bytes that the first CPU sends, too: what counts is how often each byte arrives.
    CHECK(outcome.result.output.size() == 3 * count);
    std::array<int, 256> histogram{};
    for (const char c : outcome.result.output) {
        ++histogram.at(static_cast<std::uint8_t>(c));
    }
    histogram['B'] -= 2 * count;
    for (const char c : printed(count)) {
        --histogram.at(static_cast<std::uint8_t>(c));
    }
    CHECK(histogram == std::array<int, 256>{});
    CHECK(outcome.metrics["serial"]["COM1"]["bytes_lost"] == 0);
}

namespace {

// Makes the code whose address is in RAX the handler of `vector`, in an IDT at 0x6'0000, and sets the stack.
Bytes handle_vector(std::uint32_t vector) {
    return Bytes{0xBF} + imm32(0x6'0000 + vector * 16) +  // mov edi, gate of the vector
           Bytes{0x66, 0x89, 0x07, 0x8C, 0x4F, 0x02, 0x66, 0xC7, 0x47, 0x04, 0x00, 0x8E,
                 0x48, 0xC1, 0xE8, 0x10, 0x66, 0x89, 0x47, 0x06, 0x48, 0xC1, 0xE8, 0x10,
                 0x89, 0x47, 0x08, 0xC7, 0x47, 0x0C, 0x00, 0x00, 0x00, 0x00} +
           Bytes{0xBF} + imm32(0x6'1000) +  // mov edi, the IDT's descriptor
           Bytes{0x66, 0xC7, 0x07, 0xFF, 0x0F, 0x48, 0xC7, 0x47,
                 0x02, 0x00, 0x00, 0x06, 0x00, 0x0F, 0x01, 0x1F} +
           stack;
}

// An interrupt handler for THRE that reads IIR, sends 16 bytes and returns to a HLT, until `count` bytes are sent.
// With `again` it reads IIR a second time after half of the bytes.
Bytes handler_guest(std::uint32_t count, bool again) {
    const Bytes read_iir{0x66, 0xBA, 0xFA, 0x03, 0xEC};  // mov dx, 0x3FA; in al, dx
    const auto send = [](std::uint8_t bytes) {
        // mov dx, 0x3F8; mov ecx, bytes; mov al, 'x'; out dx, al; dec ecx; jnz to the out
        return Bytes{0x66, 0xBA, 0xF8, 0x03, 0xB9, bytes, 0, 0, 0, 0xB0, 'x', 0xEE, 0xFF, 0xC9, 0x75, 0xFB};
    };
    const Bytes body = again ? send(8) + read_iir + send(8) : send(16);
    const Bytes handler = read_iir +
                          Bytes{0x85, 0xDB, 0x74, static_cast<std::uint8_t>(body.size() + 9)} +  // end?
                          body + Bytes{0x83, 0xEB, 0x10, 0xB0, 0x20, 0xE6, 0x20, 0x48, 0xCF} +   // EOI; iretq
                          reset;
    const Bytes set_up =
        handle_vector(0x24) +
        Bytes{
            0xB0, 0x11, 0xE6, 0x20, 0xB0, 0x20, 0xE6, 0x21, 0xB0, 0x04, 0xE6,
            0x21, 0xB0, 0x01, 0xE6, 0x21, 0xB0, 0xEF, 0xE6, 0x21} +  // the PIC: vectors from 0x20, only IRQ 4
        Bytes{0xBB} +
        imm32(count) +                                   // mov ebx, count
        Bytes{0x66, 0xBA, 0xFA, 0x03, 0xB0, 0x01, 0xEE,  // FCR: FIFOs on
              0x66, 0xBA, 0xFC, 0x03, 0xB0, 0x0B, 0xEE,  // MCR: OUT2
              0x66, 0xBA, 0xF9, 0x03, 0xB0, 0x02, 0xEE,  // IER: THRE
              0xFB, 0xF4, 0xEB, 0xFD};                   // sti; hlt; jmp to the hlt
    return Bytes{0x48, 0x8D, 0x05} + imm32(static_cast<std::uint32_t>(set_up.size())) + set_up + handler;
}

// Halts for `ticks` interrupts of the PIT, which are 55 ms apart, and continues with interrupts off. Neither the PIT nor
// the PIC is emulated by kvm_vmm, so the CPU does not return from KVM_RUN in this time.
Bytes idle_for_ticks(std::uint32_t ticks) {
    const Bytes handler{0xB0, 0x20, 0xE6, 0x20, 0x48, 0xCF};  // EOI; iretq
    const Bytes set_up =
        handle_vector(0x20) +
        Bytes{0xB0, 0x11, 0xE6, 0x20, 0xB0, 0x20, 0xE6, 0x21, 0xB0, 0x04, 0xE6,
              0x21, 0xB0, 0x01, 0xE6, 0x21, 0xB0, 0xFE, 0xE6, 0x21,  // the PIC: vectors from 0x20, only IRQ 0
              0xB0, 0x34, 0xE6, 0x43, 0xB0, 0x00, 0xE6, 0x40, 0xE6, 0x40} +  // the PIT: mode 2, 65536 clocks
        Bytes{0xBB} +
        imm32(ticks) + Bytes{0xEB, static_cast<std::uint8_t>(handler.size())};
    return Bytes{0x48, 0x8D, 0x05} + imm32(static_cast<std::uint32_t>(set_up.size())) + set_up + handler +
           Bytes{0xFB, 0xF4, 0xFF, 0xCB, 0x75, 0xFA, 0xFA};  // sti; hlt; dec ebx; jnz to the sti; cli
}

}  // namespace

TEST_CASE("kvm_vmm: a handler that writes and halts is not slowed down to the event loop's interval",
          "[program][coalesce]") {
    REQUIRE_KVM();
    constexpr std::uint32_t count = 4096;
    for (const bool again : {false, true}) {
        for (const std::string coalesce : {"off", "on"}) {
            CAPTURE(again, coalesce);
            const auto start = Clock::now();
            const Outcome outcome = run_with_metrics(handler_guest(count, again), {"--coalesce", coalesce});
            const std::chrono::duration<double> time = Clock::now() - start;
            CHECK(outcome.result.exit_code == 10);
            CHECK(outcome.result.output == std::string(count, 'x'));
            UNSCOPED_INFO(time.count());
            // 256 interrupts. An interval of 20 ms for each would take 5.1 s.
            CHECK(time.count() < 2.5);
            const std::uint64_t coalesced = outcome.metrics["coalesced_writes"];
            if (coalesce == "on" && kvm_coalesces()) {
                CHECK(coalesced == count);
            } else {
                CHECK(coalesced == 0);
            }
        }
    }
}

// build/.../kvm_vmm_coalesce '[measure]'
TEST_CASE("Measurement: a handler that writes and halts, with coalescing and without", "[.][measure]") {
    REQUIRE_KVM();
    constexpr int rounds = 9;
    for (const bool again : {false, true}) {
        for (const std::uint32_t count : {4096U, 16'384U}) {
            std::map<std::string, std::vector<double>> times;
            for (int round = 0; round < rounds; ++round) {
                for (const std::string coalesce : {"off", "on"}) {
                    const ScratchDirectory directory;
                    const auto start = Clock::now();
                    const Result result = run(directory, with_kernel(directory, handler_guest(count, again),
                                                                     {"--coalesce", coalesce}));
                    times[coalesce].push_back(
                        std::chrono::duration<double, std::milli>(Clock::now() - start).count());
                    CHECK(result.output.size() == count);
                }
            }
            for (auto& [coalesce, values] : times) {
                std::ranges::sort(values);
            }
            const double off = times["off"][rounds / 2];
            const double on = times["on"][rounds / 2];
            std::printf("%u bytes%s: off %.1f ms, on %.1f ms, ratio of medians %.2f, of minima %.2f\n", count,
                        again ? ", IIR read twice" : "", off, on, on / off, times["on"][0] / times["off"][0]);
        }
    }
}

TEST_CASE("kvm_vmm: an idle guest causes no wake-ups, with and without coalescing", "[program][coalesce]") {
    REQUIRE_KVM();
    for (const std::string coalesce : {"off", "on"}) {
        CAPTURE(coalesce);
        const ScratchDirectory directory;
        Running vmm(directory, print(10) + idle, {"--coalesce", coalesce});
        CHECK(vmm.read(10) == printed(10));
        ::usleep(1'500'000);
        const std::uint64_t before = vmm.switches();
        ::usleep(1'500'000);
        CHECK(vmm.switches() - before <= 8);  // one look; 75 at an interval of 20 ms
        CHECK(vmm.end_by(SIGTERM) == 128 + SIGTERM);
    }
}

TEST_CASE("kvm_vmm: what a guest sends after a long rest comes at once, and so does its end",
          "[program][coalesce]") {
    REQUIRE_KVM();
    const ScratchDirectory directory;
    Running vmm(directory, idle_for_ticks(40) + print(10) + halt);
    const auto start = Clock::now();
    CHECK(vmm.read(10) == printed(10));
    const std::chrono::duration<double> time = Clock::now() - start;
    CHECK(time.count() < 3.5);  // 2.2 s of rest
    CHECK(vmm.wait() == 13);
    CHECK(std::chrono::duration<double>(Clock::now() - start).count() < 5);
}

TEST_CASE("kvm_vmm: a guest that has been at rest is restarted in place, in the sandbox",
          "[program][coalesce]") {
    REQUIRE_KVM();
    // 20 ticks are 1.1 s; the guest is at rest after 0.7 s.
    const Outcome outcome = run_with_metrics(print(3) + idle_for_ticks(20) + print(20) + reset,
                                             {"--on-reboot", "restart", "--restart-limit", "2"});
    const std::string text = printed(3) + printed(20);
    CHECK(outcome.result.exit_code == 10);
    CHECK(outcome.result.output == text + text + text);
    CHECK(outcome.metrics["vms_started"] == 3);
    CHECK(outcome.metrics["serial"]["COM1"]["bytes_lost"] == 0);
}

namespace {

Bytes set_port(std::uint16_t port) {
    return {0x66, 0xBA, static_cast<std::uint8_t>(port),
            static_cast<std::uint8_t>(port >> 8U)};  // mov dx, port
}
// The instruction with an operand of `width` bytes whose form for 4 bytes is `code`; that for one byte is one less.
Bytes sized(std::size_t width, std::uint8_t code) {
    return width == 1   ? Bytes{static_cast<std::uint8_t>(code - 1)}
           : width == 2 ? Bytes{0x66, code}
                        : Bytes{code};
}
Bytes write_port(std::uint16_t port, std::size_t width, std::uint32_t value) {
    return Bytes{0xB8} + imm32(value) + set_port(port) + sized(width, 0xEF);  // mov eax, value; out dx, eax
}
// Reads the port and sends the value to COM1, in the order of its bytes.
Bytes show_port(std::uint16_t port, std::size_t width) {
    Bytes code = Bytes{0x31, 0xC0} + set_port(port) + sized(width, 0xED) +
                 set_port(0x3F8);  // xor eax, eax; in eax, dx
    for (std::size_t i = 0; i < width; ++i) {
        code = code + Bytes{0xEE, 0xC1, 0xE8, 0x08};  // out dx, al; shr eax, 8
    }
    return code;
}

}  // namespace

TEST_CASE("kvm_vmm: there is no PCI behind ports 0xCF8 to 0xCFF, whatever is written there",
          "[program][coalesce]") {
    REQUIRE_KVM();
    const Bytes code =
        write_port(0xCF8, 4, 0x8000'0000) + show_port(0xCF8, 4) + show_port(0xCFC, 4) +
        // An address with the value in its second byte that resets the machine if it reaches port 0xCF9.
        write_port(0xCF8, 4, 0x8000'0600) + show_port(0xCFC, 2) + show_port(0xCFE, 2) + show_port(0xCFF, 1) +
        // The reset control register, in the middle of that address.
        write_port(0xCF9, 1, 0x02) + show_port(0xCF9, 1) +
        // Narrower, unaligned, and beside it.
        write_port(0xCF8, 1, 0x01) + write_port(0xCF8, 2, 0x0601) + write_port(0xCFA, 2, 0x0606) +
        write_port(0xCF9, 4, 0x0606'0606) + write_port(0xCF7, 4, 0x0606'0606) +
        write_port(0xCFC, 4, 0x0606'0606) + write_port(0xCFB, 1, 0x01) + show_port(0xCF8, 4) +
        show_port(0xCF8, 1) + show_port(0xCF9, 1) + show_port(0xCFA, 2) + reset;
    const std::string ones(4, '\xFF');
    const std::string expected =
        ones + ones + ones + '\xFF' + '\x02' + ones + '\xFF' + '\x02' + ones.substr(2);
    const ScratchDirectory directory;
    const std::string metrics = (directory / "metrics").string();
    const std::string trace = (directory / "trace").string();
    for (const std::vector<std::string>& options :
         {std::vector<std::string>{}, {"--coalesce", "off"}, {"--metrics", metrics}, {"--trace-io", trace}}) {
        CAPTURE(options);
        const Result result = run(directory, with_kernel(directory, code, options));
        CHECK(result.exit_code == 10);
        CHECK(result.output == expected);
    }
    // Each access is counted and recorded.
    const json port = json::parse(slurp(metrics))["ports"]["0x0cf8"];
    CHECK(port["writes"] == 4);
    CHECK(port["reads"] == 3);
    CHECK(port["unclaimed"] == 7);
    CHECK_THAT(slurp(trace), Catch::Matchers::Contains("pio w 0x0cf8 4 0x80000600") &&
                                 Catch::Matchers::Contains("pio w 0x0cf8 2 0x0601"));
}
