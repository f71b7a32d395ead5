// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
// The accesses of real drivers: their probes as sequences of accesses, and interrupt-driven drivers with an
// interrupt controller that sees only edges.
#include <array>
#include <deque>
#include <functional>
#include <random>
#include <string>

#include <vmsuperio/serial.hpp>

#include "catch.hpp"
#include "serial_harness.hpp"

using namespace serial_test;
using vmsuperio::ReceiveTimeout;

namespace {

// --- Linux, drivers/tty/serial/8250/8250_port.c (6.1 to 6.12)

void linux_clear_fifos(auto& m) {
    m.out(fcr, 0x01);
    m.out(fcr, 0x07);
    m.out(fcr, 0x00);
}

// size_fifo(): counts the bytes that return through loopback.
unsigned linux_fifo_size(auto& m) {
    m.out(lcr, 0x00);
    const std::uint8_t old_fcr = 0x00;
    const std::uint8_t old_mcr = m.in(mcr);
    m.out(fcr, 0x07);
    m.out(mcr, loop);
    m.out(lcr, 0x80);
    const std::uint8_t old_dll = m.in(dll);
    const std::uint8_t old_dlm = m.in(dlm);
    m.out(dll, 0x01);
    m.out(dlm, 0x00);
    m.out(lcr, 0x03);
    for (unsigned count = 0; count < 256; ++count) {
        m.out(thr, static_cast<std::uint8_t>(count));
    }
    unsigned count = 0;
    while (count < 256 && (m.in(lsr) & 0x01) != 0) {
        static_cast<void>(m.in(rbr));
        ++count;
    }
    m.out(fcr, old_fcr);
    m.out(mcr, old_mcr);
    m.out(lcr, 0x80);
    m.out(dll, old_dll);
    m.out(dlm, old_dlm);
    m.out(lcr, 0x00);
    return count;
}

// autoconfig() with all variants probed: returns Linux' name for the port.
std::string linux_autoconfig(auto& m) {
    const std::uint8_t old_ier = m.in(ier);
    m.out(ier, 0x00);
    const std::uint8_t ier_clear = m.in(ier) & 0x0F;
    m.out(ier, 0x0F);
    const std::uint8_t ier_set = m.in(ier) & 0x0F;
    m.out(ier, old_ier);
    if (ier_clear != 0x00 || ier_set != 0x0F) {
        return "nothing: IER";
    }
    const std::uint8_t old_mcr = m.in(mcr);
    const std::uint8_t old_lcr = m.in(lcr);
    m.out(mcr, 0x1A);
    const std::uint8_t looped = m.in(msr) & 0xF0;
    m.out(mcr, old_mcr);
    if (looped != 0x90) {
        return "nothing: loopback";
    }
    m.out(lcr, 0xBF);
    m.out(fcr, 0x00);  // EFR on other chips
    m.out(lcr, 0x00);
    m.out(fcr, 0x01);
    std::string name = "16550A";
    switch (m.in(iir) >> 6) {
        case 0: {
            const std::uint8_t old_scr = m.in(scr);
            m.out(scr, 0xA5);
            const bool kept = m.in(scr) == 0xA5;
            m.out(scr, 0x5A);
            name = kept && m.in(scr) == 0x5A ? "16450" : "8250";
            m.out(scr, old_scr);
            break;
        }
        case 3: {
            m.out(lcr, 0x80);
            if (m.in(2) == 0x00) {
                return "16650";
            }
            m.out(lcr, 0xBF);
            if (m.in(2) == 0x00) {
                return "16650V2";
            }
            m.out(lcr, 0x00);
            const std::uint8_t status1 = m.in(mcr);
            m.out(lcr, 0xE0);
            if (((m.in(2) ^ status1) & 0x10) == 0) {
                m.out(lcr, 0x00);
                m.out(mcr, status1 ^ 0x10);
                m.out(lcr, 0xE0);
                const std::uint8_t status2 = m.in(2);
                m.out(lcr, 0x00);
                m.out(mcr, status1);
                if (((status2 ^ status1) & 0x10) != 0) {
                    return "NS16550A";
                }
            }
            m.out(lcr, 0x00);
            m.out(fcr, 0x21);
            const std::uint8_t without = m.in(iir) & 0xE0;
            m.out(fcr, 0x01);
            m.out(lcr, 0x80);
            m.out(fcr, 0x21);
            const std::uint8_t with = m.in(iir) & 0xE0;
            m.out(fcr, 0x01);
            m.out(lcr, 0x00);
            if (without == 0xC0 && with == 0xE0) {
                name = "TI16750";
                break;
            }
            const std::uint8_t saved = m.in(ier);
            m.out(ier, saved & 0xBF);
            m.out(ier, saved | 0x40);
            if ((m.in(ier) & 0x40) != 0) {
                return "XScale";
            }
            m.out(ier, saved);
            if (linux_fifo_size(m) == 64) {
                name = "U6_16550A";
            }
            break;
        }
        default:
            return "unknown";
    }
    m.out(lcr, old_lcr);
    m.out(mcr, old_mcr);
    linux_clear_fifos(m);
    static_cast<void>(m.in(rbr));
    m.out(ier, 0x00);
    return name;
}

struct LinuxBugs {
    bool thre{false};  // UART_BUG_THRE
    bool txen{false};  // UART_BUG_TXEN
};

// serial8250_do_startup()
LinuxBugs linux_startup(auto& m) {
    LinuxBugs bugs;
    const auto clear = [&m] {
        for (const std::uint8_t offset : {lsr, rbr, iir, msr}) {
            static_cast<void>(m.in(offset));
        }
    };
    linux_clear_fifos(m);
    clear();
    REQUIRE(m.in(lsr) != 0xFF);
    REQUIRE((m.in(lsr) & 0x20) != 0);
    m.out(ier, 0x02);
    const std::uint8_t first = m.in(iir);
    m.out(ier, 0x00);
    m.out(ier, 0x02);
    const std::uint8_t second = m.in(iir);
    m.out(ier, 0x00);
    bugs.thre = (first & 0x01) == 0 && (second & 0x01) != 0;
    m.out(lcr, 0x03);
    m.out(mcr, 0x08);
    m.out(ier, 0x02);
    const std::uint8_t status = m.in(lsr);
    const std::uint8_t id = m.in(iir);
    m.out(ier, 0x00);
    bugs.txen = (status & 0x40) != 0 && (id & 0x01) != 0;
    clear();
    // set_termios(): 8N1, 115200, FIFOs with trigger level 8; then the interrupts.
    m.out(lcr, 0x93);
    m.out(dll, 0x01);
    m.out(dlm, 0x00);
    m.out(lcr, 0x13);
    m.out(fcr, 0x01);
    m.out(fcr, 0x81);
    m.out(mcr, 0x0B);
    m.out(ier, 0x05);
    return bugs;
}

// --- FreeBSD, sys/dev/uart/uart_dev_ns8250.c

struct FreeBsdProbe {
    bool present{false};
    bool fifo{false};
    bool stuck{false};
    unsigned depth{0};
};

FreeBsdProbe freebsd_probe(auto& m) {
    FreeBsdProbe probe;
    if ((m.in(iir) & 0x30) != 0 || (m.in(mcr) & 0xE0) != 0) {
        return probe;
    }
    const std::uint8_t old_lcr = m.in(lcr);
    m.out(lcr, old_lcr & 0x7F);
    if ((m.in(ier) & 0xF0) != 0) {
        return probe;
    }
    m.out(lcr, old_lcr);
    probe.present = true;
    m.out(lcr, 0x83);
    m.out(dll, 0x0C);
    m.out(dlm, 0x00);
    m.out(lcr, 0x03);
    m.out(ier, 0x00);
    m.out(fcr, 0x00);
    m.out(mcr, 0x0B);
    for (int i = 0; (m.in(iir) & 0x01) == 0; ++i) {
        REQUIRE(i < 100);
        for (const std::uint8_t offset : {lsr, rbr, msr}) {
            static_cast<void>(m.in(offset));
        }
    }
    m.out(mcr, 0x1B);
    m.out(fcr, 0x01);
    probe.fifo = (m.in(iir) & 0xC0) != 0;
    m.out(fcr, 0x07);
    for (int i = 0; (m.in(lsr) & 0x01) != 0; ++i) {
        REQUIRE(i < 4096);
        static_cast<void>(m.in(rbr));
    }
    std::uint8_t status = 0;
    do {
        m.out(thr, 0x00);
        ++probe.depth;
        status = 0;
        int limit = 30;
        while (((status |= m.in(lsr)) & 0x40) == 0 && --limit > 0) {
        }
        probe.stuck = probe.stuck || limit == 0;
    } while ((status & 0x02) == 0 && probe.depth < 130);
    --probe.depth;
    m.out(mcr, 0x0B);
    m.out(fcr, 0x07);
    return probe;
}

// --- NetBSD, sys/dev/ic/com.c, with COM_16650 and COM_16750

bool netbsd_probe(auto& m) {
    m.out(lcr, 0x03);
    m.out(fcr, 0x00);
    return m.in(lcr) == 0x03 && (m.in(iir) & 0x38) == 0;
}

std::string netbsd_attach(auto& m) {
    std::string name = "8250";
    m.out(ier, 0x00);
    m.out(fcr, 0xC7);
    if ((m.in(iir) & 0xC0) == 0xC0) {
        name = "16550, broken";
        if ((m.in(fcr) & 0xC0) == 0xC0) {
            name = "16550A";
            const std::uint8_t old_lcr = m.in(lcr);
            m.out(lcr, 0xBF);
            m.out(2, 0x00);
            if (m.in(2) == 0x00) {
                name = "16650";
            }
            m.out(lcr, old_lcr & 0x7F);
            m.out(fcr, 0xE1);
            const std::uint8_t without = m.in(iir) & 0x20;
            m.out(fcr, 0xC1);
            m.out(lcr, old_lcr | 0x80);
            m.out(fcr, 0xE1);
            const std::uint8_t with = m.in(iir) & 0x20;
            m.out(lcr, old_lcr);
            if (without == 0 && with != 0) {
                name = "16750";
            } else {
                m.out(fcr, 0xC1);
            }
        }
    }
    m.out(fcr, 0x00);
    return name;
}

// --- OpenBSD, sys/dev/ic/com.c

std::string openbsd_attach(auto& m) {
    m.out(ier, 0x00);
    const std::uint8_t old_lcr = m.in(lcr);
    m.out(lcr, 0xBF);
    m.out(2, 0x00);
    m.out(lcr, 0x00);
    m.out(fcr, 0x01);
    constexpr std::array<const char*, 4> names{"16450", "unknown", "16550", "16550A"};
    std::string name = names.at(m.in(iir) >> 6);
    if (name == "16550A") {
        m.out(lcr, old_lcr | 0x80);
        if (m.in(2) == 0x00) {
            name = "16650";
        } else {
            m.out(lcr, 0xBF);
            name = m.in(2) == 0x00 ? "16650V2" : name;
        }
    }
    if (name == "16550A") {
        m.out(lcr, old_lcr | 0x80);
        m.out(fcr, 0x21);
        name = (m.in(iir) >> 5) == 7 ? "16750" : name;
        m.out(fcr, 0x01);
    }
    m.out(lcr, old_lcr);
    m.out(fcr, 0x06);
    static_cast<void>(m.in(rbr));
    m.out(fcr, 0x00);
    m.out(mcr, 0x00);
    return name;
}

// com_fifo_probe(): counts how many of 256 bytes return in order.
unsigned openbsd_fifo_depth(auto& m, bool large) {
    m.out(ier, 0x00);
    m.out(lcr, 0x80);
    m.out(dll, 0x03);
    m.out(dlm, 0x00);
    m.out(lcr, 0x03);
    m.out(mcr, loop);
    m.out(fcr, large ? 0x27 : 0x07);
    for (unsigned i = 0; i < 256; ++i) {
        m.out(thr, static_cast<std::uint8_t>(i + 1));
        REQUIRE((m.in(lsr) & 0x20) != 0);
    }
    unsigned depth = 0;
    while (depth < 256 && (m.in(lsr) & 0x01) != 0 && m.in(rbr) == static_cast<std::uint8_t>(depth + 1)) {
        ++depth;
    }
    return depth;
}

}  // namespace

TEST_CASE("Serial: Linux identifies the port as a plain 16550A", "[serial][linux][peers]") {  // PEERS 1.4
    Machine m;
    CHECK(linux_autoconfig(m) == "16550A");
    CHECK(m.world.output.empty());
    CHECK(m.world.lost_bytes == 0);
    CHECK(m.in(lsr) == 0x60);
    CHECK(linux_fifo_size(m) == 16);
}

TEST_CASE("Serial: Linux identifies the 64-byte mode as a TI16750", "[serial][linux]") {
    Machine m;
    REQUIRE(m.uart.allow_64_byte_fifo(true).has_value());
    CHECK(linux_autoconfig(m) == "TI16750");
}

TEST_CASE("Serial: Linux finds no bugs at start-up", "[serial][linux][peers]") {  // PEERS 1.4
    Machine m;
    static_cast<void>(linux_autoconfig(m));
    for (int opened = 0; opened < 3; ++opened) {
        m.type("typed ahead");
        const LinuxBugs bugs = linux_startup(m);
        CHECK_FALSE(bugs.thre);
        CHECK_FALSE(bugs.txen);
        CHECK(m.in(lsr) == 0x60);
        CHECK(m.in(iir) == 0xC1);
        // serial8250_do_shutdown()
        m.out(ier, 0x00);
        m.out(mcr, 0x00);
        m.out(lcr, m.in(lcr) & 0xBF);
        linux_clear_fifos(m);
        static_cast<void>(m.in(rbr));
    }
    CHECK(m.world.output.empty());
}

TEST_CASE("Serial: FreeBSD finds a 16550 with FIFOs of 16 bytes", "[serial][freebsd][peers]") {
    // PEERS 1.6, 1.7, 1.8
    Machine m;
    m.type("typed ahead");
    const FreeBsdProbe probe = freebsd_probe(m);
    CHECK(probe.present);
    CHECK(probe.fifo);
    CHECK_FALSE(probe.stuck);
    CHECK(probe.depth == 16);  // uart(4) names 14 to 16 a 16550
    CHECK(m.in(lsr) == 0x60);  // and its flush leaves no NULs behind
    CHECK(m.world.output.empty());
}

TEST_CASE("Serial: NetBSD finds a 16550A, and a 16750 if that is allowed", "[serial][netbsd]") {
    Machine m;
    m.type("typed ahead");
    CHECK(netbsd_probe(m));
    CHECK(netbsd_attach(m) == "16550A");
    CHECK(m.world.output.empty());
    Machine large;
    REQUIRE(large.uart.allow_64_byte_fifo(true).has_value());
    CHECK(netbsd_probe(large));
    CHECK(netbsd_attach(large) == "16750");
}

TEST_CASE("Serial: OpenBSD finds a 16550A with 16 bytes, and a 16750 if that is allowed",
          "[serial][openbsd]") {
    Machine m;
    m.type("typed ahead");
    CHECK(openbsd_attach(m) == "16550A");
    CHECK(openbsd_fifo_depth(m, false) == 16);
    CHECK(m.world.output.empty());
    Machine large;
    REQUIRE(large.uart.allow_64_byte_fifo(true).has_value());
    CHECK(openbsd_attach(large) == "16750");
    // It requests 64 bytes without DLAB, which the chip ignores, so it must find 16.
    CHECK(openbsd_fifo_depth(large, true) == 16);
}

TEST_CASE("Serial: FreeBSD's transmitter continues after the first 16 bytes", "[serial][freebsd][peers]") {
    Machine m;  // PEERS 1.1, 1.3
    static_cast<void>(freebsd_probe(m));
    m.out(fcr, 0x81);
    m.out(ier, 0x0D);
    std::string text(100, 'x');
    text += "\n";
    std::size_t sent = 0;
    const auto transmit = [&] {
        REQUIRE((m.in(lsr) & 0x20) != 0);
        m.out(ier, 0x0F);
        for (int i = 0; i < 16 && sent < text.size(); ++i) {
            m.out(thr, static_cast<std::uint8_t>(text[sent++]));
        }
    };
    m.world.edges = 0;
    transmit();
    for (int interrupts = 0; sent < text.size(); ++interrupts) {
        REQUIRE(interrupts < 20);
        REQUIRE(m.world.take_edges() > 0);
        if (interrupts == 2) {
            m.type("abcdefgh");  // RDA together with THRE must not hide it
        }
        bool idle = false;
        for (std::uint8_t id = m.in(iir); (id & 0x01) == 0; id = m.in(iir)) {
            if ((id & 0x04) != 0) {
                while ((m.in(lsr) & 0x01) != 0) {
                    static_cast<void>(m.in(rbr));
                }
            } else if ((id & 0x02) != 0) {
                m.out(ier, 0x0D);
                idle = true;
            } else {
                static_cast<void>(m.in(msr));
            }
        }
        REQUIRE(idle);
        m.world.edges = 0;
        transmit();
    }
    CHECK(m.world.output == text);
}

namespace {

// A guest with an interrupt-driven driver: the handler runs once per latched edge, as with an 8259 or an
// IO-APIC in edge mode. If an edge is lost, the guest hangs.
struct Guest {
    Machine<>& m;
    std::function<void(Guest&)> handler;
    std::deque<std::uint8_t> to_send;
    std::string received;
    int interrupts{0};

    void run() {
        while (m.world.take_edges() > 0) {
            ++interrupts;
            REQUIRE(interrupts < 200'000);
            handler(*this);
        }
    }
    void receive_one() { received += static_cast<char>(m.in(rbr)); }
    void receive_all() {
        while ((m.in(lsr) & 0x01) != 0) {
            receive_one();
        }
    }
    void send(std::size_t count) {
        for (; count != 0 && !to_send.empty(); --count) {
            m.out(thr, to_send.front());
            to_send.pop_front();
        }
    }
};

// serial8250_handle_irq(), until no interrupt is left.
void linux_handler(Guest& guest) {
    while ((guest.m.in(iir) & 0x01) == 0) {
        std::uint8_t status = guest.m.in(lsr);
        for (int i = 0; i < 256 && (status & 0x11) != 0; ++i) {
            guest.receive_one();
            status = guest.m.in(lsr);
        }
        static_cast<void>(guest.m.in(msr));
        if ((status & 0x20) != 0 && (guest.m.uart.state().interrupt_enable & 0x02) != 0) {
            guest.send((guest.m.uart.state().fifo_control & 0x01) != 0 ? 16 : 1);
            if (guest.to_send.empty()) {
                guest.m.out(ier, 0x05);
            }
        }
    }
}

// One source and one byte per reading of IIR, until none is left.
void windows_handler(Guest& guest) {
    for (std::uint8_t id = guest.m.in(iir) & 0x0F; id != 0x01; id = guest.m.in(iir) & 0x0F) {
        switch (id) {
            case 0x06:
                static_cast<void>(guest.m.in(lsr));
                break;
            case 0x04:
            case 0x0C:
                guest.receive_one();
                break;
            case 0x02:
                guest.send(1);
                break;
            case 0x00:
                static_cast<void>(guest.m.in(msr));
                break;
            default:
                FAIL("IIR names no source: " << int{id});
        }
    }
}

// One source and one byte per interrupt, without reading IIR again.
void one_byte_handler(Guest& guest) {
    switch (guest.m.in(iir) & 0x0F) {
        case 0x04:
        case 0x0C:
            guest.receive_one();
            break;
        case 0x02:
            guest.send(1);
            break;
        default:
            break;
    }
}

// On "data available" it reads as many bytes as the trigger level without checking LSR; on the timeout, all
// bytes.
void fifo_handler(Guest& guest) {
    for (std::uint8_t id = guest.m.in(iir) & 0x0F; id != 0x01; id = guest.m.in(iir) & 0x0F) {
        if (id == 0x04) {
            for (int i = 0; i < 8; ++i) {
                guest.receive_one();
            }
        } else if (id == 0x0C) {
            guest.receive_all();
        } else {
            guest.send(16);
        }
    }
}

struct Driver {
    const char* name;
    void (*handler)(Guest&);
    std::uint8_t fifo_control;
    ReceiveTimeout timeout;
    bool full_duplex;  // whether it can serve two sources that share one edge
};

constexpr Driver drivers[] = {
    {"Linux", linux_handler, 0x81, ReceiveTimeout::manual, true},
    {"Linux, immediate timeout", linux_handler, 0x81, ReceiveTimeout::immediate, true},
    {"Linux without FIFOs", linux_handler, 0x00, ReceiveTimeout::manual, true},
    {"Windows", windows_handler, 0x81, ReceiveTimeout::manual, true},
    {"Windows, immediate timeout", windows_handler, 0xC1, ReceiveTimeout::immediate, true},
    {"Windows without FIFOs", windows_handler, 0x00, ReceiveTimeout::manual, true},
    {"FIFO bursts", fifo_handler, 0x81, ReceiveTimeout::manual, true},
    {"FIFO bursts, immediate timeout", fifo_handler, 0x81, ReceiveTimeout::immediate, true},
    {"one byte per interrupt", one_byte_handler, 0x00, ReceiveTimeout::manual, false},
};

std::string random_text(std::mt19937& random, std::size_t size) {
    std::string text(size, '\0');
    for (char& c : text) {
        c = static_cast<char>(random());
    }
    return text;
}

}  // namespace

TEST_CASE("Serial: interrupt-driven drivers receive every byte", "[serial][driver]") {
    for (const Driver& driver : drivers) {
        CAPTURE(driver.name);
        Machine m;
        REQUIRE(m.uart.set_receive_timeout(driver.timeout).has_value());
        Guest guest{m, driver.handler, {}, {}};
        m.out(fcr, driver.fifo_control);
        m.out(ier, 0x05);
        std::mt19937 random(1);
        const std::string typed = random_text(random, 5000);
        for (std::size_t at = 0; at < typed.size();) {
            const std::size_t size = 1 + (random() % (random() % 4 == 0 ? 80 : 3));
            at += m.type(std::string_view(typed).substr(at, size));
            // Below the trigger level one byte at a time may need the timeout more than once.
            do {
                guest.run();
                REQUIRE(m.uart.character_timeout().has_value());
            } while (m.world.edges != 0);
            REQUIRE(m.uart.receive_fifo_room() == 64);
        }
        CHECK(guest.received == typed);
        CHECK(m.world.overruns == 0);
    }
}

TEST_CASE("Serial: interrupt-driven drivers send every byte, whatever the sink does", "[serial][driver]") {
    for (const Driver& driver : drivers) {
        CAPTURE(driver.name);
        Machine m;
        Guest guest{m, driver.handler, {}, {}};
        m.out(fcr, driver.fifo_control);
        std::mt19937 random(2);
        const std::string text = random_text(random, 3000);
        guest.to_send.assign(text.begin(), text.end());
        m.world.room = 0;
        m.world.edges = 0;
        m.out(ier, 0x07);
        for (int round = 0; m.world.output.size() < text.size(); ++round) {
            REQUIRE(round < 10'000);
            guest.run();
            m.world.room = random() % 40;
            REQUIRE(m.uart.resume_transmit().has_value());
        }
        CHECK(m.world.output == text);
        CHECK(m.world.lost_bytes == 0);
        CHECK_FALSE(m.uart.transmit_pending());
    }
}

TEST_CASE("Serial: drivers send and receive at once", "[serial][driver][peers]") {  // PEERS 1.1, 1.2, 1.3
    for (const Driver& driver : drivers) {
        if (!driver.full_duplex) {
            continue;
        }
        CAPTURE(driver.name);
        Machine m;
        REQUIRE(m.uart.set_receive_timeout(driver.timeout).has_value());
        Guest guest{m, driver.handler, {}, {}};
        m.out(fcr, driver.fifo_control);
        std::mt19937 random(3);
        const std::string text = random_text(random, 3000);
        const std::string typed = random_text(random, 3000);
        guest.to_send.assign(text.begin(), text.end());
        m.world.edges = 0;
        m.out(ier, 0x07);
        std::size_t at = 0;
        for (int round = 0; m.world.output.size() < text.size() || guest.received.size() < typed.size();
             ++round) {
            REQUIRE(round < 20'000);
            m.world.room = random() % 20;
            REQUIRE(m.uart.resume_transmit().has_value());
            if (random() % 3 != 0) {
                guest.run();
            }
            at += m.type(std::string_view(typed).substr(at, random() % 20));
            if (random() % 3 == 0) {
                REQUIRE(m.uart.character_timeout().has_value());
            }
        }
        CHECK(m.world.output == text);
        CHECK(guest.received == typed);
        CHECK(m.world.lost_bytes == 0);
    }
}

TEST_CASE("Serial: there is no interrupt storm in any driver", "[serial][driver][peers]") {  // PEERS 1.5
    for (const Driver& driver : drivers) {
        CAPTURE(driver.name);
        Machine m;
        REQUIRE(m.uart.set_receive_timeout(driver.timeout).has_value());
        Guest guest{m, driver.handler, {}, {}};
        m.out(fcr, driver.fifo_control);
        m.world.edges = 0;
        m.out(ier, 0x0F);  // THRE enabled with nothing to send
        guest.run();
        CHECK(guest.interrupts <= 1);
        guest.interrupts = 0;
        for (int i = 0; i < 100; ++i) {
            m.out(ier, 0x0F);
            m.type("x");
            guest.run();
            REQUIRE(m.uart.character_timeout().has_value());
            guest.run();
        }
        CHECK(guest.received == std::string(100, 'x'));
        CHECK(guest.interrupts <= 100);
    }
}

TEST_CASE("Serial: Linux input survives a printk flood", "[serial][linux][peers]") {  // PEERS 1.3
    Machine m;
    REQUIRE(m.uart.set_receive_timeout(ReceiveTimeout::immediate).has_value());
    static_cast<void>(linux_autoconfig(m));
    static_cast<void>(linux_startup(m));
    Guest guest{m, linux_handler, {}, {}};
    std::string typed;
    std::string printed;
    for (int command = 0; command < 1000; ++command) {
        // serial8250_console_write(): interrupts off, poll, interrupts back on.
        const std::uint8_t old_ier = m.in(ier);
        m.out(ier, 0x00);
        for (const char c : std::string_view("[   12.345678] printk\n")) {
            while ((m.in(lsr) & 0x20) == 0) {
            }
            m.out(thr, static_cast<std::uint8_t>(c));
            printed += c;
            if (c == ']') {
                typed += "ls\n";
                REQUIRE(m.type("ls\n") == 3);
            }
        }
        while ((m.in(lsr) & 0x60) != 0x60) {
        }
        m.out(ier, old_ier);
        guest.run();
    }
    CHECK(guest.received == typed);
    CHECK(m.world.output == printed);
}

TEST_CASE("Serial: TIOCM_LOOP returns random data through Linux' driver", "[serial][linux][loopback]") {
    Machine m;
    static_cast<void>(linux_autoconfig(m));
    static_cast<void>(linux_startup(m));
    m.out(mcr, 0x1B);
    static_cast<void>(m.in(msr));
    m.world.overruns = 0;  // the probe counts the FIFO's bytes that way
    Guest guest{m, linux_handler, {}, {}};
    std::mt19937 random(4);
    const std::string text = random_text(random, 65536);
    guest.to_send.assign(text.begin(), text.end());
    m.world.edges = 0;
    m.out(ier, 0x07);
    guest.run();
    REQUIRE(m.uart.character_timeout().has_value());
    guest.run();
    CHECK(guest.received == text);
    CHECK(m.world.overruns == 0);
    CHECK(m.world.output.empty());
}
