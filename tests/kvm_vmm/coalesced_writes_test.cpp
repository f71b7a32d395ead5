// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
// Coalesced writes against a UART that receives every write at once: the guest must read the same from both.
#include "vmm/coalesced_writes.hpp"

#include <array>
#include <atomic>
#include <cstdint>
#include <cstdlib>
#include <map>
#include <memory>
#include <mutex>
#include <random>
#include <string>
#include <thread>
#include <vector>

#include <vmdevice/byte_device.hpp>
#include <vmdevice/io_manager.hpp>
#include <vmdevice/locked.hpp>
#include <vmsuperio/rtc_cmos.hpp>
#include <vmsuperio/serial.hpp>
#include <vmsuperio/serial_metrics.hpp>

#include "catch.hpp"
#include "kernel_ring.hpp"

using namespace kvm_vmm;
using namespace kvm_vmm::test;

namespace {

using vmdevice::PioAddress;

constexpr std::uint16_t com1 = 0x3F8;
constexpr std::uint16_t com2 = 0x2F8;
constexpr std::uint16_t cmos = 0x70;

// A sink that takes at most `room` more bytes.
struct Sink {
    std::string text;
    std::size_t room{SIZE_MAX};
    std::size_t calls{0};
};
struct SinkWriter {
    Sink* sink;
    vmsuperio::WriteResult write(std::span<const std::uint8_t> bytes) {
        const std::size_t count = std::min(bytes.size(), sink->room);
        sink->text.append(bytes.begin(), bytes.begin() + static_cast<std::ptrdiff_t>(count));
        sink->room -= count;
        ++sink->calls;
        return count;
    }
};
struct CountingTrigger {
    using error_type = std::error_code;
    std::uint64_t* count;
    std::expected<void, std::error_code> trigger() {
        ++*count;
        return {};
    }
};

// A machine with two UARTs and the CMOS.
class Machine {
public:
    using Uart =
        vmsuperio::Serial<CountingTrigger, vmsuperio::EventsRef<vmsuperio::SerialMetrics>, SinkWriter>;
    using OnBus = vmdevice::Locked<vmdevice::ByteDevice<Uart>>;
    using Clock =
        vmsuperio::RtcCmos<vmsuperio::NullTrigger, vmsuperio::NoRtcCmosEvents, vmsuperio::ManualClock>;

    Machine() {
        for (const std::uint16_t port : {com1, com2}) {
            Port& uart = ports[port];
            uart.device = std::make_shared<OnBus>(
                Uart(CountingTrigger{&uart.interrupts}, uart.metrics, SinkWriter{&uart.sink}));
            REQUIRE(io.register_pio(*vmdevice::PioRange::create(PioAddress{port}, 8), uart.device));
        }
        REQUIRE(io.register_pio(*vmdevice::PioRange::create(PioAddress{cmos}, 2),
                                std::make_shared<vmdevice::Locked<vmdevice::ByteDevice<Clock>>>(Clock())));
    }

    std::uint8_t in(std::uint16_t port) {
        std::uint8_t value = 0xEE;
        CHECK(io.pio_read(PioAddress{port}, {&value, 1}));
        return value;
    }
    void out(std::uint16_t port, std::uint8_t value) { CHECK(io.pio_write(PioAddress{port}, {&value, 1})); }
    template <class F>
    auto with(std::uint16_t port, F&& f) {
        return ports.at(port).device->with_lock([&](auto& device) { return f(device.device()); });
    }

    struct Port {
        Sink sink;
        std::uint64_t interrupts{0};
        vmsuperio::SerialMetrics metrics;
        std::shared_ptr<OnBus> device;
    };
    std::map<std::uint16_t, Port> ports;
    vmdevice::IoManager io;
};

// The same machine whose writes to THR and to the CMOS index are coalesced.
class CoalescedMachine : public Machine {
public:
    std::uint8_t in(std::uint16_t port) {
        writes.deliver();
        return Machine::in(port);
    }
    void out(std::uint16_t port, std::uint8_t value) {
        if ((port == com1 || port == com2 || port == cmos) && kernel.write_port(port, value)) {
            return;
        }
        writes.deliver();
        Machine::out(port, value);
    }

    KernelRing kernel;
    EndLatch end;
    Observer observer;
    CoalescedWrites writes{kernel.ring(), io, end, observer, 0};
};

std::size_t steps() {
    const char* const text = std::getenv("VMSUPERIO_COALESCE_STEPS");
    return text == nullptr ? 300'000 : std::strtoull(text, nullptr, 10);
}

}  // namespace

TEST_CASE("Coalesced writes: random accesses read the same as without", "[coalesce]") {
    Machine direct;
    CoalescedMachine coalesced;
    std::mt19937 random(12);
    const auto pick = [&random](unsigned below) { return static_cast<unsigned>(random() % below); };
    const auto check_sinks = [&] {
        coalesced.writes.deliver();
        for (const std::uint16_t port : {com1, com2}) {
            REQUIRE(coalesced.ports.at(port).sink.text == direct.ports.at(port).sink.text);
            direct.ports.at(port).sink.text.clear();
            coalesced.ports.at(port).sink.text.clear();
        }
    };
    const std::size_t count = steps();
    for (std::size_t step = 0; step < count; ++step) {
        const std::uint16_t uart = pick(4) == 0 ? com2 : com1;
        const unsigned what = pick(100);
        if (what < 60) {  // a burst, at times longer than the ring
            const unsigned size = pick(50) == 0 ? pick(400) : pick(20);
            for (unsigned i = 0; i < size; ++i) {
                const auto byte = static_cast<std::uint8_t>(random());
                direct.out(uart, byte);
                coalesced.out(uart, byte);
            }
        } else if (what < 80) {
            const auto offset = static_cast<std::uint16_t>(pick(8));
            REQUIRE(coalesced.in(uart + offset) == direct.in(uart + offset));
        } else if (what < 90) {
            const auto offset = static_cast<std::uint16_t>(1 + pick(7));
            auto value = static_cast<std::uint8_t>(random());
            if (offset == 3 && pick(3) != 0) {
                value &= 0x7F;  // DLAB is not on most of the time
            } else if (offset == 4 && pick(3) != 0) {
                value &= 0x0F;  // likewise loopback
            }
            direct.out(uart + offset, value);
            coalesced.out(uart + offset, value);
        } else if (what < 94) {
            const auto index = static_cast<std::uint8_t>(0x10 + pick(0x70));
            direct.out(cmos, index);
            coalesced.out(cmos, index);
            if (pick(2) == 0) {
                const auto value = static_cast<std::uint8_t>(random());
                direct.out(cmos + 1, value);
                coalesced.out(cmos + 1, value);
            }
            REQUIRE(coalesced.in(cmos + 1) == direct.in(cmos + 1));
        } else if (what < 97) {  // the host's input
            const std::array<std::uint8_t, 3> typed{1, 2, static_cast<std::uint8_t>(random())};
            coalesced.writes.deliver_by_host();  // loopback decides whether input arrives at all
            const auto type = [&typed](auto& serial) { return serial.enqueue_raw_bytes(typed).value_or(99); };
            REQUIRE(coalesced.with(uart, type) == direct.with(uart, type));
        } else {
            (void)coalesced.writes.look();
        }
        if (step % 1000 == 0) {
            check_sinks();
        }
    }
    check_sinks();
    CHECK(coalesced.observer.metrics().coalesced() > count);
    for (const std::uint16_t port : {com1, com2}) {
        const auto expected = direct.ports.at(port).metrics.counts();
        const auto counts = coalesced.ports.at(port).metrics.counts();
        CHECK(counts.bytes_written == expected.bytes_written);
        CHECK(counts.bytes_lost == 0);
        CHECK(counts.fifo_resets == expected.fifo_resets);
        CHECK(counts.overruns == expected.overruns);
    }
    CHECK_FALSE(coalesced.end.requested());
}

TEST_CASE("Coalesced writes: a run reaches the writer and the interrupt line as one", "[coalesce]") {
    CoalescedMachine machine;
    machine.out(com1 + 4, 0x08);  // OUT2, which connects the interrupt
    machine.out(com1 + 1, 0x02);  // THRE interrupt, which is pending at once
    Machine::Port& port = machine.ports.at(com1);
    CHECK(machine.in(com1 + 2) == 0x02);  // acknowledged
    const std::uint64_t before = port.interrupts;
    const std::size_t calls = port.sink.calls;
    for (const char c : std::string("0123456789abcdef")) {
        machine.out(com1, static_cast<std::uint8_t>(c));
    }
    CHECK(port.interrupts == before);
    CHECK(port.sink.text.empty());
    machine.writes.deliver_by_host();
    CHECK(port.sink.text == "0123456789abcdef");
    CHECK(port.sink.calls == calls + 1);
    CHECK(port.interrupts == before + 1);
    CHECK(machine.in(com1 + 2) == 0x02);  // THRE
}

TEST_CASE("Coalesced writes: offset 0 is the divisor while DLAB is set", "[coalesce]") {
    CoalescedMachine machine;
    machine.out(com1, 'a');
    machine.out(com1 + 3, 0x83);
    machine.out(com1, 0x12);
    machine.out(com1 + 1, 0);
    machine.out(com1 + 3, 0x03);
    machine.out(com1, 'b');
    machine.writes.deliver();
    CHECK(machine.ports.at(com1).sink.text == "ab");
    CHECK(machine.with(com1, [](auto& serial) { return serial.divisor(); }) == 0x12);
}

TEST_CASE("Coalesced writes: loopback receives what is written while it is on", "[coalesce]") {
    CoalescedMachine machine;
    machine.out(com1 + 2, 0x01);
    machine.out(com1, 'a');
    machine.out(com1 + 4, 0x10);
    for (unsigned i = 0; i < 256; ++i) {  // Linux's size_fifo()
        machine.out(com1, static_cast<std::uint8_t>(i));
    }
    unsigned received = 0;
    for (; (machine.in(com1 + 5) & 1) != 0 && received < 300; ++received) {
        CHECK(machine.in(com1) == received);
    }
    CHECK(received == 16);
    machine.out(com1, 'l');
    machine.out(com1 + 4, 0x00);
    machine.out(com1, 'b');
    machine.writes.deliver();
    CHECK(machine.ports.at(com1).sink.text == "ab");
}

TEST_CASE("Coalesced writes: LSR promises only the room that there is", "[coalesce]") {
    CoalescedMachine machine;
    Machine::Port& port = machine.ports.at(com1);
    CHECK(machine.with(com1, [](auto& serial) {
        return serial.set_transmit_policy(vmsuperio::TransmitPolicy::back_pressure).has_value();
    }));
    machine.out(com1 + 2, 0x01);  // FIFOs on
    port.sink.room = 100;
    // A driver that fills the FIFO of 16 bytes whenever THRE is set.
    std::string sent;
    while ((machine.in(com1 + 5) & 0x20) != 0) {
        for (int i = 0; i < 16; ++i) {
            sent += static_cast<char>('A' + sent.size() % 26);
            machine.out(com1, static_cast<std::uint8_t>(sent.back()));
        }
        REQUIRE(sent.size() < 200);
    }
    CHECK(sent.size() == 112);  // the sink's 100, and 12 more in the FIFO
    CHECK(port.sink.text == sent.substr(0, 100));
    CHECK(port.metrics.counts().bytes_lost == 0);
    port.sink.room = SIZE_MAX;
    CHECK(machine.with(com1, [](auto& serial) { return serial.resume_transmit().has_value(); }));
    CHECK(port.sink.text == sent);
    CHECK((machine.in(com1 + 5) & 0x20) != 0);

    // One that never looks loses bytes, and each of them is counted.
    port.sink.room = 0;
    port.sink.text.clear();
    for (int i = 0; i < 1000; ++i) {
        machine.out(com1, static_cast<std::uint8_t>(i));
    }
    CHECK((machine.in(com1 + 5) & 0x20) == 0);
    port.sink.room = SIZE_MAX;
    CHECK(machine.with(com1, [](auto& serial) { return serial.resume_transmit().has_value(); }));
    CHECK(port.sink.text.size() == 16);
    CHECK(port.metrics.counts().bytes_lost == 1000 - 16);
}

TEST_CASE("Coalesced writes: each is counted as an access, and none as an exit", "[coalesce]") {
    CoalescedMachine machine;
    for (int i = 0; i < 5; ++i) {
        machine.out(com1, 'x');
    }
    machine.out(cmos, 0x0A);
    machine.writes.deliver();
    const IoMetrics& metrics = machine.observer.metrics();
    CHECK(metrics.port(com1).writes == 5);
    CHECK(metrics.port(com1).unclaimed == 0);
    CHECK(metrics.port(cmos).writes == 1);
    CHECK(metrics.coalesced() == 6);
    for (std::size_t kind = 0; kind < IoMetrics::exit_kinds; ++kind) {
        CHECK(metrics.exits(kind) == 0);
    }
    // A port without a device: a write has no effect, and is counted as unclaimed.
    CHECK(machine.kernel.write_port(0x99, 1));
    CHECK(machine.kernel.write_port(0x99, 1));
    machine.writes.deliver();
    CHECK(metrics.port(0x99).unclaimed == 2);
}

TEST_CASE("Coalesced writes: an invalid ring ends the VM and is not used any more", "[coalesce]") {
    CoalescedMachine machine;
    machine.kernel.page.last = CoalescedRing::entry_count;
    machine.writes.deliver();
    REQUIRE(machine.end.requested());
    CHECK(machine.end.get()->reason == EndReason(end::Failed{ExitCode::unhandled_exit}));
    machine.kernel.page.last = 1;
    machine.writes.deliver();
    (void)machine.writes.look();
    CHECK(machine.observer.metrics().coalesced() == 0);
}

TEST_CASE("Coalesced writes: several CPUs that print and access registers, with the event loop's looks",
          "[coalesce]") {
    CoalescedMachine machine;
    constexpr unsigned cpus = 3;
    constexpr unsigned rounds = 3000;
    std::atomic<unsigned> running{cpus};
    {
        std::vector<std::jthread> threads;
        for (unsigned cpu = 0; cpu < cpus; ++cpu) {
            threads.emplace_back([&machine, &running, cpu] {
                std::mt19937 random(cpu);
                for (unsigned round = 0; round < rounds; ++round) {
                    // Each CPU sends bytes of its own, which count up.
                    machine.out(com1, static_cast<std::uint8_t>(cpu << 6U | (round & 0x3FU)));
                    if (random() % 8 == 0) {
                        (void)machine.in(com1 + 5);
                    }
                    if (random() % 32 == 0) {
                        machine.out(com1 + 7, static_cast<std::uint8_t>(round));
                    }
                }
                --running;
            });
        }
        while (running != 0) {
            (void)machine.writes.look();
            std::this_thread::yield();
        }
    }
    machine.writes.deliver_by_host();
    std::array<unsigned, cpus> next{};
    const std::string& text = machine.ports.at(com1).sink.text;
    REQUIRE(text.size() == std::size_t{cpus} * rounds);
    for (const char c : text) {
        const auto byte = static_cast<std::uint8_t>(c);
        unsigned& expected = next.at(byte >> 6U);
        REQUIRE((byte & 0x3FU) == (expected++ & 0x3FU));
    }
}

TEST_CASE("Coalesced writes: no register write of another CPU overtakes a delivery", "[coalesce]") {
    // One thread delivers; the other, which has seen that its bytes were written to the ring, sets loopback. If that
    // overtook the bytes, they would be received instead of sent.
    CoalescedMachine machine;
    std::atomic<bool> done{false};
    std::jthread host([&] {
        while (!done) {
            (void)machine.writes.look();
            machine.writes.deliver_by_host();
        }
    });
    for (unsigned round = 0; round < 5000; ++round) {
        for (unsigned i = 0; i < 10; ++i) {
            machine.out(com1, 's');
        }
        machine.out(com1 + 4, 0x10);
        machine.out(com1, 'l');
        machine.out(com1 + 4, 0x00);
        REQUIRE((machine.in(com1 + 5) & 1) == 1);
        REQUIRE(machine.in(com1) == 'l');
        REQUIRE((machine.in(com1 + 5) & 1) == 0);
    }
    done = true;
    host.join();
    CHECK(machine.ports.at(com1).sink.text == std::string(50'000, 's'));
}
