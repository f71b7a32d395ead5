// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
// A VMM from the library and KVM alone. Its guest runs in real mode: it greets on its serial port, sends back
// its input in upper case, and ends the VM through the exit port at the end of the input.
//
//     echo hello | minimal_vmm
#include <array>
#include <atomic>
#include <cerrno>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <fcntl.h>
#include <iostream>
#include <linux/kvm.h>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <system_error>
#include <unistd.h>

#include <vmdevice/byte_device.hpp>
#include <vmdevice/io_manager.hpp>
#include <vmsuperio/exit_port.hpp>
#include <vmsuperio/serial.hpp>

namespace {

constexpr std::uint16_t guest_start = 0x1000;
constexpr std::size_t memory_size = 0x10000;
constexpr std::uint16_t uart_port = 0x3F8;
constexpr std::uint8_t end_of_input = 0x04;  // as Ctrl-D on a terminal

constexpr std::array<std::uint8_t, 69> guest_code{
    0xFC,              // 1000         cld
    0xBE, 0x45, 0x10,  // 1001         mov si, greeting
    0xAC,              // 1004 greet:  lodsb
    0xE8, 0x2C, 0x00,  // 1005         call send
    0x3C, 0x0A,        // 1008         cmp al, 10
    0x75, 0xF8,        // 100A         jne greet
    0xBA, 0xFD, 0x03,  // 100C next:   mov dx, 0x3FD   ; LSR
    0xEC,              // 100F         in al, dx
    0xA8, 0x01,        // 1010         test al, 1      ; a byte received?
    0x75, 0x03,        // 1012         jnz read
    0xF4,              // 1014         hlt             ; wait for one
    0xEB, 0xF5,        // 1015         jmp next
    0xBA, 0xF8, 0x03,  // 1017 read:   mov dx, 0x3F8   ; RBR
    0xEC,              // 101A         in al, dx
    0x3C, 0x04,        // 101B         cmp al, 4
    0x74, 0x0F,        // 101D         je end
    0x3C, 0x61,        // 101F         cmp al, 'a'
    0x72, 0x06,        // 1021         jb echo
    0x3C, 0x7A,        // 1023         cmp al, 'z'
    0x77, 0x02,        // 1025         ja echo
    0x2C, 0x20,        // 1027         sub al, 0x20
    0xE8, 0x08, 0x00,  // 1029 echo:   call send
    0xEB, 0xDE,        // 102C         jmp next
    0x30, 0xC0,        // 102E end:    xor al, al
    0xBA, 0x01, 0x05,  // 1030         mov dx, 0x501   ; the exit port
    0xEE,              // 1033         out dx, al
    0x88, 0xC4,        // 1034 send:   mov ah, al
    0xBA, 0xFD, 0x03,  // 1036         mov dx, 0x3FD
    0xEC,              // 1039 wait:   in al, dx
    0xA8, 0x20,        // 103A         test al, 0x20   ; room for a byte?
    0x74, 0xFB,        // 103C         jz wait
    0xBA, 0xF8, 0x03,  // 103E         mov dx, 0x3F8   ; THR
    0x88, 0xE0,        // 1041         mov al, ah
    0xEE,              // 1043         out dx, al
    0xC3,              // 1044         ret
};  // 1045 greeting:
constexpr std::string_view greeting = "Type, and Ctrl-D to end:\n";

// Writes the guest's output to stdout. This VMM has nothing else to do, so it may block until its reader
// takes the output; a VMM with an event loop uses vmsuperio::FdWriter.
struct StdoutWriter {
    vmsuperio::WriteResult write(std::span<const std::uint8_t> bytes) const {
        const ssize_t count = ::write(STDOUT_FILENO, bytes.data(), bytes.size());
        if (count < 0 && errno != EINTR) {
            return std::unexpected(std::error_code(errno, std::generic_category()));
        }
        return count < 0 ? 0 : static_cast<std::size_t>(count);
    }
};

// The guest polls, so the interrupt leads nowhere. vmsuperio::EventFdTrigger and KVM_IRQFD would connect it.
using Uart = vmsuperio::Serial<vmsuperio::NullTrigger, vmsuperio::NoEvents, StdoutWriter>;
using UartOnBus = vmdevice::ByteDevice<Uart>;
using ExitPortOnBus = vmdevice::ByteDevice<vmsuperio::ExitPort>;

int check(int result, const char* what) {
    if (result < 0) {
        throw std::system_error(errno, std::generic_category(), what);
    }
    return result;
}

void* map(std::size_t size, int flags, int fd) {
    void* const memory = ::mmap(nullptr, size, PROT_READ | PROT_WRITE, flags, fd, 0);
    if (memory == MAP_FAILED) {
        throw std::system_error(errno, std::generic_category(), "cannot map memory");
    }
    return memory;
}

// A CPU in real mode at the guest's first instruction. Returns its descriptor.
int make_cpu(int vm) {
    auto* const memory = static_cast<std::uint8_t*>(map(memory_size, MAP_PRIVATE | MAP_ANONYMOUS, -1));
    std::memcpy(memory + guest_start, guest_code.data(), guest_code.size());
    std::memcpy(memory + guest_start + guest_code.size(), greeting.data(), greeting.size());
    kvm_userspace_memory_region region{};
    region.memory_size = memory_size;
    region.userspace_addr = reinterpret_cast<std::uintptr_t>(memory);
    check(::ioctl(vm, KVM_SET_USER_MEMORY_REGION, &region), "KVM_SET_USER_MEMORY_REGION");
    const int cpu = check(::ioctl(vm, KVM_CREATE_VCPU, 0), "KVM_CREATE_VCPU");
    kvm_sregs segments{};
    check(::ioctl(cpu, KVM_GET_SREGS, &segments), "KVM_GET_SREGS");
    segments.cs.base = 0;
    segments.cs.selector = 0;
    check(::ioctl(cpu, KVM_SET_SREGS, &segments), "KVM_SET_SREGS");
    kvm_regs registers{};
    registers.rip = guest_start;
    registers.rsp = memory_size - 0x10;
    registers.rflags = 2;
    check(::ioctl(cpu, KVM_SET_REGS, &registers), "KVM_SET_REGS");
    return cpu;
}

// Where KVM puts the guest's writes to THR, instead of returning for each of them. Declared here because the
// declaration in some versions of linux/kvm.h is 8 bytes off in C++.
struct CoalescedRing {
    struct Entry {
        std::uint64_t address;
        std::uint32_t length;
        std::uint32_t pio;
        std::array<std::uint8_t, 8> data;
    };
    std::uint32_t first;
    std::uint32_t last;
    std::array<Entry, 170> entries;
};
static_assert(sizeof(CoalescedRing) == 8 + 170 * 24);

// Returns null if KVM cannot coalesce writes to ports: then each returns from KVM_RUN, as without this.
CoalescedRing* coalesce_output(int kvm, int vm, kvm_run& run) {
    const int page = ::ioctl(kvm, KVM_CHECK_EXTENSION, KVM_CAP_COALESCED_MMIO);
    kvm_coalesced_mmio_zone zone{};
    zone.addr = uart_port;
    zone.size = 1;
    zone.pio = 1;
    if (page <= 0 || ::ioctl(kvm, KVM_CHECK_EXTENSION, KVM_CAP_COALESCED_PIO) <= 0 ||
        ::ioctl(vm, KVM_REGISTER_COALESCED_MMIO, &zone) < 0) {
        return nullptr;
    }
    constexpr std::size_t page_size = 4096;
    return reinterpret_cast<CoalescedRing*>(reinterpret_cast<std::uint8_t*>(&run) +
                                            static_cast<std::size_t>(page) * page_size);
}

// Called after every return of KVM_RUN, before the exit is handled: so every access that returns finds the UART
// as if all writes before it had returned, too.
void deliver_output(vmdevice::IoManager& bus, CoalescedRing& ring) {
    std::array<std::uint8_t, std::tuple_size_v<decltype(ring.entries)>> bytes{};
    std::size_t size = 0;
    const std::uint32_t last = std::atomic_ref(ring.last).load(std::memory_order_acquire);
    std::uint32_t next = ring.first;
    for (; next != last; next = (next + 1) % std::uint32_t{bytes.size()}) {
        bytes.at(size++) = ring.entries.at(next).data.front();
    }
    if (size != 0) {
        (void)bus.pio_write_repeated(vmdevice::PioAddress{uart_port}, 1, std::span(bytes).first(size));
        std::atomic_ref(ring.first).store(next, std::memory_order_release);
    }
}

// Called when the guest waits for input. Passes on as much as fits, or the byte that marks the end of input.
void fetch_input(Uart& uart) {
    std::array<std::uint8_t, Uart::receive_fifo_size> input{end_of_input};
    ssize_t count = 0;
    do {
        count = ::read(STDIN_FILENO, input.data(), uart.receive_fifo_room());
    } while (count < 0 && errno == EINTR);
    check(static_cast<int>(count), "cannot read the input");
    (void)uart.enqueue_raw_bytes(std::span(input).first(count == 0 ? 1 : static_cast<std::size_t>(count)));
}

// Passes a port exit to the bus: one access, or all those of a string instruction.
void access_port(vmdevice::IoManager& bus, kvm_run& run) {
    auto* const bytes = reinterpret_cast<std::uint8_t*>(&run) + run.io.data_offset;
    (void)bus.pio_exit(static_cast<vmdevice::IoDirection>(run.io.direction),
                       vmdevice::PioAddress{run.io.port}, run.io.size, run.io.count,
                       {bytes, std::size_t{run.io.size} * run.io.count});
}

int run_vm() {
    const int kvm = check(::open("/dev/kvm", O_RDWR | O_CLOEXEC), "cannot open /dev/kvm");
    const int vm = check(::ioctl(kvm, KVM_CREATE_VM, 0), "KVM_CREATE_VM");
    check(::ioctl(vm, KVM_SET_TSS_ADDR, 0xFFFBD000),
          "KVM_SET_TSS_ADDR");  // for CPUs without native real mode
    const int cpu = make_cpu(vm);
    const int run_size = check(::ioctl(kvm, KVM_GET_VCPU_MMAP_SIZE, 0), "KVM_GET_VCPU_MMAP_SIZE");
    auto& run = *static_cast<kvm_run*>(map(static_cast<std::size_t>(run_size), MAP_SHARED, cpu));

    std::error_code output_error;
    const auto uart = std::make_shared<UartOnBus>(Uart({}, {}, {}));
    uart->set_error_handler([&](const Uart::Error& error) { output_error = error.write_error(); });
    const auto exit_port = std::make_shared<ExitPortOnBus>(vmsuperio::ExitPort());
    vmdevice::IoManager bus;
    if (!bus.register_pio(*vmdevice::PioRange::create(vmdevice::PioAddress{uart_port}, 8), uart) ||
        !bus.register_pio(vmdevice::PioRange::unit(vmdevice::PioAddress{0x501}), exit_port)) {
        throw std::logic_error("two devices claim one port");
    }

    CoalescedRing* const ring = coalesce_output(kvm, vm, run);

    while (!exit_port->device().status()) {
        if (::ioctl(cpu, KVM_RUN, 0) < 0 && errno != EINTR) {
            throw std::system_error(errno, std::generic_category(), "KVM_RUN");
        }
        if (ring != nullptr) {
            deliver_output(bus, *ring);
        }
        if (run.exit_reason == KVM_EXIT_IO) {
            access_port(bus, run);
        } else if (run.exit_reason == KVM_EXIT_HLT) {
            fetch_input(uart->device());
        } else if (run.exit_reason != KVM_EXIT_INTR) {
            throw std::runtime_error("unexpected KVM exit " + std::to_string(run.exit_reason));
        }
        if (output_error) {
            throw std::system_error(output_error, "cannot write the output");
        }
    }
    return *exit_port->device().status();
}

}  // namespace

int main() {
    try {
        return run_vm();
    } catch (const std::exception& error) {
        std::cerr << "minimal_vmm: " << error.what() << '\n';
        return EXIT_FAILURE;
    }
}
