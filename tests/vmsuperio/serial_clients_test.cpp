// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
// The accesses of systems to a 16550. Each case names the driver and the function that it follows; the cases
// were written from the published sources, not copied. The probes of Linux, FreeBSD, NetBSD and OpenBSD are
// in serial_driver_test.cpp.
#include <cstdint>
#include <deque>
#include <string>
#include <string_view>

#include <vmsuperio/serial.hpp>

#include "catch.hpp"
#include "serial_harness.hpp"

using namespace serial_test;
using vmsuperio::InterruptGate;

namespace {

// A port as a VMM creates it, with the settings of the constructor.
struct Console {
    World world;
    Serial<Edge, Events, Sink> uart{Edge{&world}, Events{&world}, Sink{&world}};

    Console() = default;
    Console(const Console&) = delete;
    Console& operator=(const Console&) = delete;

    std::uint8_t in(std::uint8_t offset) { return uart.read(offset); }
    void out(std::uint8_t offset, int value) {
        REQUIRE(uart.write(offset, static_cast<std::uint8_t>(value)).has_value());
    }
    void type(std::string_view text) { REQUIRE(uart.enqueue_raw_bytes(bytes(text)) == text.size()); }
    // Acts as an interrupt controller: whether an edge has occurred since the last call.
    bool interrupted() { return world.take_edges() != 0; }
};

// mit-pdos/xv6-riscv, kernel/uart.c. Its PLIC uses the line's level.
struct Xv6 {
    Console& c;
    bool busy{false};
    std::string got{};

    void init() {  // uartinit
        c.out(ier, 0x00);
        c.out(lcr, 0x80);
        c.out(dll, 0x03);
        c.out(dlm, 0x00);
        c.out(lcr, 0x03);
        c.out(fcr, 0x07);
        c.out(ier, 0x03);
    }
    void interrupt() {  // uartintr: one read of ISR, then everything that LSR reports
        c.in(iir);
        if ((c.in(lsr) & 0x20) != 0) {
            busy = false;
        }
        while ((c.in(lsr) & 0x01) != 0) {
            got += static_cast<char>(c.in(rbr));
        }
    }
};

}  // namespace

TEST_CASE("xv6-riscv: one byte per THRE interrupt is sent, and typing arrives", "[serial][client][xv6]") {
    Console c;
    Xv6 os{c};
    os.init();
    // uartwrite: a byte, then sleep until the interrupt has cleared tx_busy.
    for (const char letter : std::string("init: starting sh\n")) {
        int waits = 0;
        while (os.busy) {
            REQUIRE(++waits < 3);
            REQUIRE(c.interrupted());
            os.interrupt();
        }
        c.out(thr, letter);
        os.busy = true;
    }
    CHECK(c.world.output == "init: starting sh\n");
    for (const char key : std::string("ls\n")) {
        if (c.uart.interrupt_line()) {
            os.interrupt();  // the last byte is out
        }
        CHECK_FALSE(c.uart.interrupt_line());
        c.type(std::string_view(&key, 1));
        REQUIRE(c.uart.interrupt_line());  // for each key: FCR sets the trigger to one byte
        os.interrupt();
    }
    CHECK(os.got == "ls\n");
    // uartputc_sync polls LSR and does not have to wait.
    CHECK((c.in(lsr) & 0x20) != 0);
}

TEST_CASE("xv6-riscv: keys that are typed while it prints are not lost", "[serial][client][xv6]") {
    Console c;
    Xv6 os{c};
    os.init();
    std::string typed;
    for (int i = 0; i < 200; ++i) {
        const char key = static_cast<char>('a' + i % 26);
        c.type(std::string_view(&key, 1));
        typed += key;
        if (!os.busy) {
            c.out(thr, '.');
            os.busy = true;
        }
        for (int turns = 0; c.uart.interrupt_line(); ++turns) {
            REQUIRE(turns < 3);  // the handler is called again while the line is high
            os.interrupt();
        }
    }
    CHECK(os.got == typed);
}

TEST_CASE("xv6-x86: MCR 0 leaves the interrupt unconnected, as on a PC, unless the gate is off",
          "[serial][client][xv6]") {
    // mit-pdos/xv6-public, uart.c, uartinit: writes 0 to MCR and enables the receive interrupt. It was
    // developed on QEMU, which has no OUT2 gate.
    for (const InterruptGate gate : {InterruptGate::out2, InterruptGate::none}) {
        Console c;
        REQUIRE(c.uart.set_interrupt_gate(gate).has_value());
        c.out(fcr, 0x00);
        c.out(lcr, 0x80);
        c.out(dll, 12);
        c.out(dlm, 0);
        c.out(lcr, 0x03);
        c.out(mcr, 0x00);
        c.out(ier, 0x01);
        CHECK(c.in(lsr) != 0xFF);
        c.in(iir);
        c.in(rbr);
        std::string got;
        for (const char key : std::string("ls\n")) {
            c.type(std::string_view(&key, 1));
            if (c.interrupted()) {  // consoleintr(uartgetc)
                while ((c.in(lsr) & 0x01) != 0) {
                    got += static_cast<char>(c.in(rbr));
                }
            }
        }
        CHECK(got == (gate == InterruptGate::none ? "ls\n" : ""));
        for (const char letter : std::string("xv6...\n")) {  // uartputc
            REQUIRE((c.in(lsr) & 0x20) != 0);
            c.out(thr, letter);
        }
        CHECK(c.world.output == "xv6...\n");
    }
}

TEST_CASE("Zephyr: uart_ns16550 with its interrupt API echoes what is typed", "[serial][client][zephyr]") {
    // drivers/serial/uart_ns16550.c: uart_ns16550_configure (MCR OUT2|RTS|DTR, FCR with 8 bytes and both
    // resets, RDR read once, IER 0), irq_rx_enable, irq_update, irq_is_pending, irq_rx_ready, fifo_read,
    // irq_tx_enable, irq_tx_ready, fifo_fill.
    Console c;
    c.out(lcr, 0x80);
    c.out(dll, 1);
    c.out(dlm, 0);
    c.out(lcr, 0x03);
    c.out(mcr, 0x0B);
    c.out(fcr, 0x87);
    c.in(rbr);
    c.out(ier, 0x00);
    c.out(ier, c.in(ier) | 0x01);
    std::deque<std::uint8_t> echo;
    const auto isr = [&] {
        for (;;) {
            const int iirc = c.in(iir);  // irq_update stores it, because reading it clears THRE
            if ((iirc & 0x01) != 0) {    // irq_is_pending
                return;
            }
            if ((iirc & 0x06) == 0x04) {           // irq_rx_ready: RBRF and, by the mask, CTI
                while ((c.in(lsr) & 0x01) != 0) {  // fifo_read
                    echo.push_back(c.in(rbr));
                }
                c.out(ier, c.in(ier) | 0x02);                       // irq_tx_enable
            } else if ((iirc & 0x06) == 0x02) {                     // irq_tx_ready
                while (!echo.empty() && (c.in(lsr) & 0x20) != 0) {  // fifo_fill
                    c.out(thr, echo.front());
                    echo.pop_front();
                }
                if (echo.empty()) {
                    c.out(ier, c.in(ier) & ~0x02);  // irq_tx_disable
                }
            }
        }
    };
    for (const std::string_view text : {"a", "version\n", "12345678", "x"}) {
        c.type(text);
        REQUIRE(c.interrupted());
        isr();
    }
    CHECK(c.world.output == "aversion\n12345678x");
    CHECK(c.in(ier) == 0x01);
    c.interrupted();
    CHECK_FALSE(c.uart.interrupt_line());
}

TEST_CASE("Zephyr: poll_in and poll_out", "[serial][client][zephyr]") {
    // uart_ns16550_poll_in returns -1 while LSR has no data; poll_out waits for THRE.
    Console c;
    CHECK((c.in(lsr) & 0x01) == 0);
    c.type("k");
    CHECK((c.in(lsr) & 0x01) == 1);
    CHECK(c.in(rbr) == 'k');
    CHECK((c.in(lsr) & 0x01) == 0);
    REQUIRE((c.in(lsr) & 0x20) != 0);
    c.out(thr, 'k');
    CHECK(c.world.output == "k");
}

TEST_CASE("SerenityOS: SerialDevice sets up the port and polls it both ways", "[serial][client][serenity]") {
    // SerialDevice::initialize: interrupts off, the divisor, 8N1, FCR enable with both clears and a trigger
    // of 4 bytes (0x47), MCR RTS|DTR. can_read and put_char read LSR and transfer a byte at a time.
    Console c;
    c.out(ier, 0x00);
    c.out(lcr, c.in(lcr) | 0x80);
    c.out(dll, 2);
    c.out(dlm, 0);
    c.out(lcr, c.in(lcr) & ~0x80);
    c.out(lcr, 0x03);
    c.out(fcr, 0x47);
    c.out(mcr, 0x03);
    CHECK(c.uart.divisor() == 2);
    CHECK(c.in(lcr) == 0x03);
    for (const char letter : std::string("Starting SerenityOS\r\n")) {
        REQUIRE((c.in(lsr) & 0x20) != 0);
        c.out(thr, letter);
    }
    CHECK(c.world.output == "Starting SerenityOS\r\n");
    c.type("abc");
    std::string got;
    while ((c.in(lsr) & 0x01) != 0) {
        got += static_cast<char>(c.in(rbr));
    }
    CHECK(got == "abc");
    CHECK_FALSE(c.interrupted());
}

TEST_CASE("NetBSD: comintr drains the receiver, then refills the transmitter by the FIFO's length",
          "[serial][client][netbsd]") {
    // sys/dev/ic/com.c, comintr: returns at IIR_NOPEND; loops over LSR while IIR is pending; then, with
    // LSR_TXRDY and bytes to send, up to sc_fifolen of them. comparam and com_iflush before.
    Console c;
    c.out(fcr, 0x00);
    for (int left = 50000; (c.in(lsr) & 0x01) != 0 && left > 0; --left) {  // com_iflush
        c.in(rbr);
    }
    c.out(ier, 0x00);
    c.out(lcr, 0x83);
    c.out(dll, 1);
    c.out(dlm, 0);
    c.out(lcr, 0x03);
    c.out(mcr, 0x0B);
    c.out(fcr, 0x87);
    c.out(ier, 0x0D);
    std::string got;
    std::string to_send;
    const auto comintr = [&] {
        if ((c.in(iir) & 0x01) != 0) {
            return false;
        }
        do {
            const int status = c.in(lsr);
            if ((status & 0x1F) != 0) {
                int more = status;
                while ((more & 0x1F) != 0) {
                    got += static_cast<char>(c.in(rbr));
                    more = c.in(lsr);
                }
            }
            c.in(msr);
        } while ((c.in(iir) & 0x01) == 0);
        if ((c.in(lsr) & 0x20) != 0 && !to_send.empty()) {
            for (int n = 0; n < 16 && !to_send.empty(); ++n) {
                c.out(thr, to_send.front());
                to_send.erase(0, 1);
            }
            if (to_send.empty()) {
                c.out(ier, 0x0D);
            }
        }
        return true;
    };
    CHECK_FALSE(comintr());
    c.type("root\n");
    REQUIRE(c.interrupted());
    REQUIRE(comintr());
    CHECK(got == "root\n");
    // comstart: THRE is enabled, and the first part is sent at once.
    to_send = std::string(100, 'x');
    c.out(ier, 0x0F);
    for (int n = 0; n < 16; ++n) {
        c.out(thr, to_send.front());
        to_send.erase(0, 1);
    }
    for (int turns = 0; !to_send.empty(); ++turns) {
        REQUIRE(turns < 20);
        REQUIRE(c.interrupted());
        REQUIRE(comintr());
    }
    CHECK(c.world.output == std::string(100, 'x'));
    REQUIRE(c.uart.set_data_carrier_detect(false).has_value());
    REQUIRE(c.interrupted());
    REQUIRE(comintr());
    CHECK_FALSE(c.uart.interrupt_line());
}

TEST_CASE("Windows: SerialISR serves every cause that IIR identifies and leaves the line low",
          "[serial][client][windows]") {
    // Windows-driver-samples, serial/serial/isr.c, SerialISR: IIR masked to its cause, one case for each; RDA
    // and CTI read until LSR has no data; THR sends up to the FIFO's length; MS reads MSR. It asserts that
    // there is no other cause. SerialProcessLSR accumulates the errors.
    Console c;
    c.out(ier, 0x00);
    c.out(mcr, 0x0B);
    c.out(fcr, 0x00);
    c.out(fcr, 0x87);
    c.out(ier, 0x0F);
    std::string got;
    std::string to_send;
    int errors = 0;
    int modem = 0;
    const auto isr = [&] {
        int id = c.in(iir);
        if ((id & 0x01) != 0) {
            return false;
        }
        int turns = 0;
        do {
            REQUIRE(++turns < 100);
            switch (id & 0x0E) {
                case 0x06:
                    errors |= c.in(lsr) & 0x1E;
                    break;
                case 0x04:
                case 0x0C: {
                    int status = 0;
                    do {
                        got += static_cast<char>(c.in(rbr));
                        status = c.in(lsr);
                        errors |= status & 0x1E;
                    } while ((status & 0x01) != 0);
                    break;
                }
                case 0x02:
                    for (int n = 0; n < 16 && !to_send.empty(); ++n) {
                        c.out(thr, to_send.front());
                        to_send.erase(0, 1);
                    }
                    break;
                case 0x00:
                    modem |= c.in(msr) & 0x0F;
                    break;
                default:
                    FAIL("no other cause exists");
            }
            id = c.in(iir);
        } while ((id & 0x01) == 0);
        return true;
    };
    // SerialStartWrite / SerialGiveWriteToIsr: all interrupts off and on again makes THRE interrupt.
    REQUIRE(c.interrupted());
    REQUIRE(isr());
    to_send = "C:\\>dir and a line that is longer than sixteen\r\n";
    const std::string expected = to_send;
    c.out(ier, 0x00);
    c.out(ier, 0x0F);
    REQUIRE(c.interrupted());
    REQUIRE(isr());
    CHECK(c.world.output == expected);
    CHECK_FALSE(c.uart.interrupt_line());
    // Everything at once: data with an error in the middle, a break, a modem change.
    c.world.take_edges();
    c.type("ab");
    REQUIRE(c.uart.receive_with_errors('c', vmsuperio::uart16550::LineStatus(0x08)).has_value());
    REQUIRE(c.uart.send_break().has_value());
    REQUIRE(c.uart.set_clear_to_send(false).has_value());
    REQUIRE(c.interrupted());
    REQUIRE(isr());
    CHECK(got == std::string("abc\0", 4));
    CHECK(errors == 0x18);
    CHECK(modem == 0x01);
    CHECK_FALSE(c.uart.interrupt_line());
    CHECK_FALSE(isr());
}

TEST_CASE("BIOS: INT 14h initialises, sends, receives and returns the status", "[serial][client][bios]") {
    // IBM PC/AT Technical Reference, BIOS listing RS232_IO; SeaBIOS src/serial.c handle_1400 to handle_1403;
    // DOS's AUX device is on top of it.
    Console c;
    const auto status = [&] { return std::pair{c.in(lsr), c.in(msr)}; };
    // AH=0, AL=E3: 9600 baud, no parity, 8 bits.
    c.out(lcr, 0x80);
    c.out(dlm, 0);
    c.out(dll, 12);
    c.out(lcr, 0x03);
    c.out(ier, 0x00);
    CHECK(status() == std::pair<std::uint8_t, std::uint8_t>{0x60, 0xB0});
    // AH=1: sets DTR and RTS, waits for DSR and CTS, then for an empty holding register.
    for (const char letter : std::string("AUX")) {
        c.out(mcr, 0x03);
        REQUIRE((c.in(msr) & 0x30) == 0x30);
        REQUIRE((c.in(lsr) & 0x20) == 0x20);
        c.out(thr, letter);
    }
    CHECK(c.world.output == "AUX");
    // AH=2: sets only DTR, waits for DSR, then for data; AH returns the errors.
    c.type("Q");
    c.out(mcr, 0x01);
    REQUIRE((c.in(msr) & 0x20) == 0x20);
    const int line = c.in(lsr);
    REQUIRE((line & 0x01) == 0x01);
    CHECK((line & 0x1E) == 0);
    CHECK(c.in(rbr) == 'Q');
    // If the terminal is switched off, the BIOS times out on DSR.
    REQUIRE(c.uart.set_data_set_ready(false).has_value());
    CHECK((c.in(msr) & 0x20) == 0);
    CHECK_FALSE(c.interrupted());  // OUT2 is off and IER is 0
    // AH=3
    CHECK(status() == std::pair<std::uint8_t, std::uint8_t>{0x60, 0x90});
}
