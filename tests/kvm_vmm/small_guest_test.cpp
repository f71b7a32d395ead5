// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
#include "small_guest.hpp"

#include <atomic>
#include <chrono>
#include <csignal>
#include <functional>
#include <mutex>
#include <thread>

#include <vmdevice/byte_device.hpp>
#include <vmdevice/locked.hpp>
#include <vmsuperio/i8042.hpp>
#include <vmsuperio/linux/eventfd.hpp>
#include <vmsuperio/serial.hpp>
#include <vmsuperio/writer.hpp>

#include "devices/reset_trigger.hpp"

using namespace kvm_vmm;
using namespace kvm_vmm::test;

namespace {

using Bytes = std::vector<std::uint8_t>;
using Uart = vmsuperio::Serial<vmsuperio::NullTrigger, vmsuperio::NoEvents, vmsuperio::BufferWriter>;

/// Records accesses and answers reads with a counter.
class Recorder final : public vmdevice::DevicePio, public vmdevice::DeviceMmio {
public:
    struct Access {
        bool write;
        std::uint64_t offset;
        Bytes data;
        friend bool operator==(const Access&, const Access&) = default;
    };

    void pio_read(vmdevice::PioAddress, vmdevice::PioOffset offset, std::span<std::uint8_t> data) override {
        read(offset, data);
    }
    void pio_write(vmdevice::PioAddress, vmdevice::PioOffset offset,
                   std::span<const std::uint8_t> data) override {
        write(offset, data);
    }
    void mmio_read(vmdevice::MmioAddress, vmdevice::MmioOffset offset,
                   std::span<std::uint8_t> data) override {
        read(offset, data);
    }
    void mmio_write(vmdevice::MmioAddress, vmdevice::MmioOffset offset,
                    std::span<const std::uint8_t> data) override {
        write(offset, data);
    }

    std::vector<Access> accesses() const {
        const std::lock_guard lock(mutex_);
        return accesses_;
    }

private:
    void read(std::uint64_t offset, std::span<std::uint8_t> data) {
        const std::lock_guard lock(mutex_);
        for (std::uint8_t& byte : data) {
            byte = next_++;
        }
        accesses_.push_back({false, offset, Bytes(data.begin(), data.end())});
    }
    void write(std::uint64_t offset, std::span<const std::uint8_t> data) {
        const std::lock_guard lock(mutex_);
        accesses_.push_back({true, offset, Bytes(data.begin(), data.end())});
    }

    mutable std::mutex mutex_;
    std::uint8_t next_{0x10};
    std::vector<Access> accesses_;
};

/// Counts accesses.
struct WriteCounter final : vmdevice::DevicePio {
    void pio_read(vmdevice::PioAddress, vmdevice::PioOffset, std::span<std::uint8_t>) override { ++count; }
    void pio_write(vmdevice::PioAddress, vmdevice::PioOffset, std::span<const std::uint8_t>) override {
        ++count;
    }
    std::atomic<std::uint64_t> count{0};
};

void add_reset_port(SmallGuest& guest) {
    using Controller = vmdevice::ByteDevice<vmsuperio::I8042<ResetTrigger>>;
    const auto range = vmdevice::PioRange::create(vmdevice::PioAddress{0x60}, 5);
    REQUIRE(guest.io().register_pio(
        *range, std::make_shared<Controller>(vmsuperio::I8042(ResetTrigger(guest.end())))));
}

template <class Device>
void add_pio(SmallGuest& guest, std::uint16_t port, std::uint16_t size, std::shared_ptr<Device> device) {
    REQUIRE(guest.io().register_pio(*vmdevice::PioRange::create(vmdevice::PioAddress{port}, size), device));
}

// mov al, 0xFE; out 0x64, al; hlt
const Bytes reset_code{0xB0, 0xFE, 0xE6, 0x64, 0xF4};

Bytes operator+(Bytes left, const Bytes& right) {
    left.insert(left.end(), right.begin(), right.end());
    return left;
}

}  // namespace

TEST_CASE("Small guest: OUT and REP OUTSB reach the UART, the i8042 reset ends the VM", "[kvm]") {
    REQUIRE_KVM();
    SmallGuest guest;
    using Device = vmdevice::Locked<vmdevice::ByteDevice<Uart>>;
    const auto uart = std::make_shared<Device>(Uart({}, {}, {}));
    add_pio(guest, 0x3F8, 8, uart);
    add_reset_port(guest);
    const std::string text = "Hello from real mode, in one instruction";
    guest.load_real_mode(Bytes{
                             0xBA, 0xF8, 0x03,                                 // mov dx, 0x3F8
                             0xB0, '>', 0xEE,                                  // mov al, '>'; out dx, al
                             0xBE, 0x00, 0x20,                                 // mov si, 0x2000
                             0xB9, static_cast<std::uint8_t>(text.size()), 0,  // mov cx, size
                             0xFC, 0xF3, 0x6E,                                 // cld; rep outsb
                         } +
                         reset_code);
    REQUIRE(guest.memory().write(0x2000, Bytes(text.begin(), text.end())));
    CHECK(guest.run().reason == EndReason(end::Reset{}));
    CHECK(uart->with_lock([](auto& device) { return std::string(device.device().writer().text()); }) ==
          ">" + text);
}

TEST_CASE("Small guest: IN and REP INSB read the UART's FIFO in order", "[kvm]") {
    REQUIRE_KVM();
    SmallGuest guest;
    using Device = vmdevice::Locked<vmdevice::ByteDevice<Uart>>;
    const auto uart = std::make_shared<Device>(Uart({}, {}, {}));
    const Bytes input{'a', 'b', 'c', 'd', 'e'};
    CHECK(uart->with_lock([&](auto& device) { return *device.device().enqueue_raw_bytes(input); }) == 5);
    add_pio(guest, 0x3F8, 8, uart);
    add_reset_port(guest);
    guest.load_real_mode(Bytes{
                             0xBA, 0xF8, 0x03,        // mov dx, 0x3F8
                             0xEC, 0xA2, 0x00, 0x20,  // in al, dx; mov [0x2000], al
                             0xBF, 0x01, 0x20,        // mov di, 0x2001
                             0xB9, 0x04, 0x00,        // mov cx, 4
                             0xFC, 0xF3, 0x6C,        // cld; rep insb
                         } +
                         reset_code);
    CHECK(guest.run().reason == EndReason(end::Reset{}));
    Bytes read(5);
    REQUIRE(guest.memory().read(0x2000, read));
    CHECK(read == input);
}

TEST_CASE("Small guest: unclaimed ports read as all ones, whatever the width", "[kvm]") {
    REQUIRE_KVM();
    SmallGuest guest;
    add_reset_port(guest);
    guest.load_real_mode(Bytes{
                             0xBA, 0x00, 0x05,                    // mov dx, 0x500
                             0x66, 0xB8, 0x78, 0x56, 0x34, 0x12,  // mov eax, 0x12345678
                             0xEC, 0xA2, 0x00, 0x20,              // in al, dx; mov [0x2000], al
                             0xED, 0xA3, 0x02, 0x20,              // in ax, dx; mov [0x2002], ax
                             0x66, 0xED, 0x66, 0xA3, 0x04, 0x20,  // in eax, dx; mov [0x2004], eax
                             0xEE,                                // out dx, al
                         } +
                         reset_code);
    CHECK(guest.run().reason == EndReason(end::Reset{}));
    CHECK(guest.memory().read_object<std::uint8_t>(0x2000) == 0xFFU);
    CHECK(guest.memory().read_object<std::uint16_t>(0x2002) == 0xFFFFU);
    CHECK(guest.memory().read_object<std::uint32_t>(0x2004) == 0xFFFFFFFFU);
}

TEST_CASE("Small guest: wide port accesses reach the device as one, string I/O as repetitions", "[kvm]") {
    REQUIRE_KVM();
    SmallGuest guest;
    const auto recorder = std::make_shared<Recorder>();
    add_pio(guest, 0x500, 8, recorder);
    add_reset_port(guest);
    guest.load_real_mode(Bytes{
                             0xBA, 0x02, 0x05,                    // mov dx, 0x502
                             0x66, 0xB8, 0x78, 0x56, 0x34, 0x12,  // mov eax, 0x12345678
                             0x66, 0xEF,                          // out dx, eax
                             0xBE, 0x00, 0x20,                    // mov si, 0x2000
                             0xB9, 0x02, 0x00,                    // mov cx, 2
                             0xFC, 0xF3, 0x6F,                    // cld; rep outsw
                         } +
                         reset_code);
    REQUIRE(guest.memory().write(0x2000, Bytes{1, 2, 3, 4}));
    CHECK(guest.run().reason == EndReason(end::Reset{}));
    const std::vector<Recorder::Access> expected{
        {true, 2, {0x78, 0x56, 0x34, 0x12}}, {true, 2, {1, 2}}, {true, 2, {3, 4}}};
    CHECK(recorder->accesses() == expected);
}

TEST_CASE("Small guest: a port access that runs past the device reaches no device", "[kvm]") {
    REQUIRE_KVM();
    SmallGuest guest;
    const auto recorder = std::make_shared<Recorder>();
    add_pio(guest, 0x500, 2, recorder);
    add_reset_port(guest);
    guest.load_real_mode(Bytes{
                             0xBA, 0x01, 0x05,        // mov dx, 0x501
                             0xEF,                    // out dx, ax
                             0xED, 0xA3, 0x00, 0x20,  // in ax, dx; mov [0x2000], ax
                         } +
                         reset_code);
    CHECK(guest.run().reason == EndReason(end::Reset{}));
    CHECK(recorder->accesses().empty());
    CHECK(guest.memory().read_object<std::uint16_t>(0x2000) == 0xFFFFU);
}

TEST_CASE("Small guest: MMIO from long mode, in every width", "[kvm]") {
    REQUIRE_KVM();
    SmallGuest guest;
    const auto recorder = std::make_shared<Recorder>();
    REQUIRE(guest.io().register_mmio(*vmdevice::MmioRange::create(vmdevice::MmioAddress{0xD000'0000}, 0x1000),
                                     recorder));
    add_reset_port(guest);
    guest.load_long_mode(Bytes{
                             0xBB, 0x00, 0x00, 0x00, 0xD0,                    // mov ebx, 0xD0000000
                             0xC6, 0x03, 0x5A,                                // mov byte [rbx], 0x5A
                             0x66, 0xC7, 0x43, 0x02, 0x34, 0x12,              // mov word [rbx+2], 0x1234
                             0xC7, 0x43, 0x04, 0x78, 0x56, 0x34, 0x12,        // mov dword [rbx+4], 0x12345678
                             0x48, 0x8B, 0x43, 0x10,                          // mov rax, [rbx+0x10]
                             0x48, 0x89, 0x04, 0x25, 0x00, 0x20, 0x00, 0x00,  // mov [0x2000], rax
                             0x8B, 0x83, 0x00, 0x10, 0x00, 0x00,  // mov eax, [rbx+0x1000]: nothing there
                             0x89, 0x04, 0x25, 0x08, 0x20, 0x00, 0x00,  // mov [0x2008], eax
                         } +
                         reset_code);
    CHECK(guest.run().reason == EndReason(end::Reset{}));
    const std::vector<Recorder::Access> expected{
        {true, 0, {0x5A}},
        {true, 2, {0x34, 0x12}},
        {true, 4, {0x78, 0x56, 0x34, 0x12}},
        {false, 0x10, {0x10, 0x11, 0x12, 0x13, 0x14, 0x15, 0x16, 0x17}},
    };
    CHECK(recorder->accesses() == expected);
    CHECK(guest.memory().read_object<std::uint64_t>(0x2000) == 0x1716151413121110U);
    CHECK(guest.memory().read_object<std::uint32_t>(0x2008) == 0xFFFFFFFFU);
}

TEST_CASE("Small guest: an interrupt through irqfd runs the guest's handler", "[kvm]") {
    REQUIRE_KVM();
    SmallGuest guest;
    const auto recorder = std::make_shared<Recorder>();
    add_pio(guest, 0x500, 1, recorder);
    add_reset_port(guest);
    auto event_fd = vmsuperio::EventFdTrigger::create();
    REQUIRE(event_fd.has_value());
    guest.vm().register_irqfd(event_fd->fd(), 4);
    // Handler at 0x1800 for vector 0x0C (IRQ 4): out 0x500, EOI to the PIC, and reset after the third.
    const Bytes handler =
        Bytes{
            0xBA, 0x00, 0x05, 0xB0, 0x77, 0xEE,  // mov dx, 0x500; mov al, 0x77; out dx, al
            0xB0, 0x20, 0xE6, 0x20,              // mov al, 0x20; out 0x20, al (EOI)
            0xFE, 0x06, 0x00, 0x20,              // inc byte [0x2000]
            0x80, 0x3E, 0x00, 0x20, 0x03,        // cmp byte [0x2000], 3
            0x74, 0x01, 0xCF,                    // je +1; iret
        } +
        reset_code;
    REQUIRE(guest.memory().write(0x1800, handler));
    REQUIRE(guest.memory().write(0x0C * 4, Bytes{0x00, 0x18, 0x00, 0x00}));
    guest.load_real_mode(Bytes{
        0xB0, 0x11, 0xE6, 0x20,              // PIC: ICW1
        0xB0, 0x08, 0xE6, 0x21,              // ICW2: vectors from 8
        0xB0, 0x04, 0xE6, 0x21,              // ICW3
        0xB0, 0x01, 0xE6, 0x21,              // ICW4
        0xB0, 0xEF, 0xE6, 0x21,              // mask all but IRQ 4
        0xBA, 0x00, 0x05, 0xB0, 0x01, 0xEE,  // ready: out 0x500, 1
        0xFB, 0xF4, 0xEB, 0xFD,              // sti; hlt; jmp to the hlt
    });
    VcpuThread thread(guest.vcpu(), guest.handler());
    thread.start();
    // Each edge is sent only after the guest has handled the one before.
    const auto wait_for = [&](std::size_t count) {
        const auto deadline = std::chrono::steady_clock::now() + std::chrono::seconds(20);
        while (recorder->accesses().size() < count && std::chrono::steady_clock::now() < deadline) {
            std::this_thread::sleep_for(std::chrono::milliseconds(1));
        }
        REQUIRE(recorder->accesses().size() == count);
    };
    for (std::size_t i = 1; i <= 3; ++i) {
        wait_for(i);
        REQUIRE(event_fd->trigger().has_value());
    }
    wait_for(4);
    thread.join();
    REQUIRE(guest.end().get().has_value());
    CHECK(guest.end().get()->reason == EndReason(end::Reset{}));
    CHECK(guest.memory().read_object<std::uint8_t>(0x2000) == 3U);
}

TEST_CASE("Small guest: a triple fault ends the VM with its own exit code and a message with the address",
          "[kvm]") {
    REQUIRE_KVM();
    SmallGuest guest;
    // lidt [0x3000] with limit 0, then ud2: no handler for the fault, nor for the fault in that.
    guest.load_long_mode(Bytes{0x0F, 0x01, 0x1C, 0x25, 0x00, 0x30, 0x00, 0x00, 0x0F, 0x0B});
    const VmEnd end = guest.run();
    CHECK(end.reason == EndReason(end::TripleFaulted{}));
    CHECK_THAT(end.message, Catch::Matchers::Contains("rip="));
}

TEST_CASE("Small guest: an instruction that cannot be emulated ends the VM with a report, not in a loop",
          "[kvm]") {
    REQUIRE_KVM();
    SmallGuest guest;
    add_reset_port(guest);
    // Fetching instructions from a device's addresses cannot be emulated.
    guest.load_long_mode(Bytes{0xB8, 0x00, 0x00, 0x00, 0xD0, 0xFF, 0xE0});  // mov eax, 0xD0000000; jmp rax
    const VmEnd end = guest.run();
    CHECK((end.reason == EndReason(end::Failed{ExitCode::unhandled_exit}) ||
           end.reason == EndReason(end::TripleFaulted{})));
    CHECK_FALSE(end.message.empty());
}

TEST_CASE("VcpuThread: a spinning guest is stopped, and a halted one, as often as asked", "[kvm]") {
    REQUIRE_KVM();
    for (const Bytes& code : {Bytes{0xEB, 0xFE}, Bytes{0xFA, 0xF4}, Bytes{0xFB, 0xF4, 0xEB, 0xFD}}) {
        SmallGuest guest;
        guest.load_real_mode(code);
        for (int round = 0; round < 20; ++round) {
            VcpuThread thread(guest.vcpu(), guest.handler());
            thread.start();
            if (round % 2 == 0) {
                std::this_thread::sleep_for(std::chrono::milliseconds(1));
            }
            thread.request_stop();
            thread.join();
            guest.vcpu().clear_exit_request();
        }
        CHECK_FALSE(guest.end().get().has_value());
    }
}

TEST_CASE("VcpuThread: repeated halt checks do not stop a running guest", "[kvm]") {
    REQUIRE_KVM();
    SmallGuest guest;
    const auto device = std::make_shared<WriteCounter>();
    add_pio(guest, 0x500, 1, device);
    // mov dx, 0x500; out dx, al; jmp to the out
    guest.load_real_mode(Bytes{0xBA, 0x00, 0x05, 0xEE, 0xEB, 0xFD});
    VcpuThread thread(guest.vcpu(), guest.handler());
    thread.start();
    for (int round = 0; round < 2000; ++round) {
        // Each kick arrives at a different point: in the guest, about to enter it, or in the device.
        thread.request_halt_check();
        const std::uint64_t before = device->count.load();
        const auto deadline = std::chrono::steady_clock::now() + std::chrono::seconds(20);
        while (device->count.load() < before + 3 && std::chrono::steady_clock::now() < deadline) {
            std::this_thread::yield();
        }
        REQUIRE(device->count.load() >= before + 3);
    }
    CHECK_FALSE(thread.halted());
}

namespace {

/// Calls a function in the vCPU's own thread, out of the guest, when the guest writes to it.
struct Hook final : vmdevice::DevicePio {
    void pio_read(vmdevice::PioAddress, vmdevice::PioOffset, std::span<std::uint8_t>) override {}
    void pio_write(vmdevice::PioAddress, vmdevice::PioOffset, std::span<const std::uint8_t>) override {
        on_write();
    }
    std::function<void()> on_write;
};

bool eventually(const std::function<bool()>& condition) {
    const auto deadline = std::chrono::steady_clock::now() + std::chrono::seconds(20);
    while (!condition()) {
        if (std::chrono::steady_clock::now() > deadline) {
            return false;
        }
        std::this_thread::sleep_for(std::chrono::milliseconds(1));
    }
    return true;
}

}  // namespace

TEST_CASE("VcpuThread: a request to stop that arrives while the thread is in a device is not lost", "[kvm]") {
    REQUIRE_KVM();
    SmallGuest guest;
    const auto hook = std::make_shared<Hook>();
    add_pio(guest, 0x500, 1, hook);
    // mov dx, 0x500; out dx, al; jmp to itself: the signal alone would arrive before the guest spins
    guest.load_real_mode(Bytes{0xBA, 0x00, 0x05, 0xEE, 0xEB, 0xFE});
    VcpuThread thread(guest.vcpu(), guest.handler());
    hook->on_write = [&] { thread.request_stop(); };
    thread.start();
    CHECK(thread.wait_stopped(std::chrono::seconds(20)));
}

TEST_CASE(
    "VcpuThread: a halt check requested while the thread is in a device is done, and the guest continues",
    "[kvm]") {
    REQUIRE_KVM();
    SmallGuest guest;
    const auto hook = std::make_shared<Hook>();
    const auto counter = std::make_shared<WriteCounter>();
    add_pio(guest, 0x500, 1, hook);
    add_pio(guest, 0x501, 1, counter);
    // mov dx, 0x500; out dx, al; inc dx; out dx, al; cli; hlt
    guest.load_real_mode(Bytes{0xBA, 0x00, 0x05, 0xEE, 0x42, 0xEE, 0xFA, 0xF4});
    VcpuThread thread(guest.vcpu(), guest.handler());
    hook->on_write = [&] { thread.request_halt_check(); };
    thread.start();
    REQUIRE(eventually([&] { return counter->count.load() == 1; }));
    CHECK_FALSE(thread.halted());
    // The CPU has halted by now or soon will; a halt check detects that.
    CHECK(eventually([&] {
        thread.request_halt_check();
        std::this_thread::sleep_for(std::chrono::milliseconds(10));
        return thread.halted();
    }));
}

TEST_CASE("VcpuThread: an idle CPU with interrupts on is not reported as halted", "[kvm]") {
    REQUIRE_KVM();
    SmallGuest guest;
    const auto hook = std::make_shared<Hook>();
    add_pio(guest, 0x500, 1, hook);
    // sti; hlt; jmp to the hlt, with IRQs masked: the CPU could still run again, because interrupts are on
    guest.load_real_mode(Bytes{0xB0, 0xFF, 0xE6, 0x21, 0xFB, 0xF4, 0xEB, 0xFD});
    VcpuThread thread(guest.vcpu(), guest.handler());
    thread.start();
    for (int i = 0; i < 20; ++i) {
        thread.request_halt_check();
        std::this_thread::sleep_for(std::chrono::milliseconds(5));
        CHECK_FALSE(thread.halted());
    }
}

TEST_CASE("VcpuThread: it is stopped in a process that blocks or ignores every signal", "[kvm]") {
    REQUIRE_KVM();
    sigset_t all{};
    sigset_t before{};
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    SmallGuest guest;
    guest.load_real_mode(Bytes{0xEB, 0xFE});
    VcpuThread thread(guest.vcpu(), guest.handler());
    thread.start();
    std::this_thread::sleep_for(std::chrono::milliseconds(50));
    thread.request_stop();
    CHECK(thread.wait_stopped(std::chrono::seconds(20)));
    pthread_sigmask(SIG_SETMASK, &before, nullptr);
}
