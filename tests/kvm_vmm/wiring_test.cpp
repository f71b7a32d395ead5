// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
// kvm_vmm with guests that check how the machine is wired: which device is on which interrupt line, what the
// CMOS contains about memory, which writes end the VM and which do not.
#include <cstdint>
#include <string>
#include <vector>

#include "program.hpp"

using namespace kvm_vmm::test;

namespace {

/// The addresses of the guest's devices.
namespace pc {

constexpr std::uint16_t pm_block_port = 0x600;
constexpr std::uint16_t pm1a_control_port = 0x604;
constexpr std::uint8_t sci_irq = 9;
constexpr std::uint8_t sleep_type_s5 = 5;
constexpr std::uint16_t pvpanic_port = 0x505;

}  // namespace pc

using Bytes = std::vector<std::uint8_t>;

constexpr std::uint16_t com1 = 0x3F8;
constexpr std::uint16_t pic1 = 0x20;
constexpr std::uint16_t pic2 = 0xA0;

/// 64-bit code composed of port accesses.
class Code {
public:
    Code() {
        // Reading the PICs' command ports now returns the requested interrupts (IRR; 8259A, OCW3).
        out(pic1, 0x0A).out(pic2, 0x0A);
    }
    Code& out(std::uint16_t port, std::uint8_t value) {
        set_dx(port);
        return add({0xB0, value, 0xEE});  // mov al, value; out dx, al
    }
    Code& out16(std::uint16_t port, std::uint16_t value) {
        set_dx(port);
        return add({0x66, 0xB8, low(value), high(value), 0x66, 0xEF});  // mov ax, value; out dx, ax
    }
    Code& in(std::uint16_t port) {
        set_dx(port);
        return add({0xEC});  // in al, dx
    }
    /// Reads `port` and sends the value to COM1.
    Code& show(std::uint16_t port) {
        in(port);
        set_dx(com1);
        return add({0xEE});  // out dx, al
    }
    Code& print(char c) { return out(com1, static_cast<std::uint8_t>(c)); }
    /// Waits until a bit of `mask` is set at `port`.
    Code& wait_for(std::uint16_t port, std::uint8_t mask) {
        in(port);
        return add({0xA8, mask, 0x74, 0xFB});  // test al, mask; jz back to the in
    }
    /// Reads a byte of the CMOS and sends it to COM1.
    Code& show_cmos(std::uint8_t index) { return out(0x70, index).show(0x71); }
    Code& show_requests() { return show(pic1).show(pic2); }
    Code& power_off() {
        return out16(pc::pm1a_control_port,
                     static_cast<std::uint16_t>((pc::sleep_type_s5 << 10U) | (1U << 13U)));
    }
    /// Runs `then` if AL is `value`.
    Code& if_equal(std::uint8_t value, const Code& then) {
        const auto length = static_cast<std::uint32_t>(then.code_.size());
        // cmp al, value; jne over it
        add({0x3C, value, 0x0F, 0x85, low(static_cast<std::uint16_t>(length)),
             high(static_cast<std::uint16_t>(length)), 0, 0});
        return add(then.code_);
    }
    Code& write_cmos(std::uint8_t index, std::uint8_t value) { return out(0x70, index).out(0x71, value); }
    Code& read_cmos(std::uint8_t index) { return out(0x70, index).in(0x71); }
    /// The image. Its code ends with the CPU halted and interrupts off, which ends the VM.
    [[nodiscard]] std::string image() const {
        Bytes all = code_;
        all.insert(all.end(), {0xFA, 0xF4});
        REQUIRE(all.size() < 3000);
        return make_bzimage(all);
    }

private:
    static std::uint8_t low(std::uint16_t value) { return static_cast<std::uint8_t>(value); }
    static std::uint8_t high(std::uint16_t value) { return static_cast<std::uint8_t>(value >> 8U); }
    void set_dx(std::uint16_t port) { add({0x66, 0xBA, low(port), high(port)}); }
    Code& add(const Bytes& bytes) {
        code_.insert(code_.end(), bytes.begin(), bytes.end());
        return *this;
    }

    Bytes code_;
};

Result run_guest(const Code& code, std::vector<std::string> options = {}) {
    const ScratchDirectory directory;
    const fs::path kernel = directory.write("kernel", code.image());
    options.insert(options.begin(), {"--kernel", kernel.string()});
    return run(directory, options);
}

/// The interrupt lines that a guest has shown with show_requests(), without the timer and the cascade.
unsigned requested(const std::string& output, std::size_t at) {
    REQUIRE(output.size() >= at + 2);
    const auto byte = [&](std::size_t i) {
        return static_cast<unsigned>(static_cast<std::uint8_t>(output[i]));
    };
    return (byte(at) & ~0x05U) | byte(at + 1) << 8U;
}

}  // namespace

TEST_CASE("Wiring: each device raises the interrupt line that the tables name, and no other line",
          "[program][wiring]") {
    REQUIRE_KVM();
    struct Case {
        const char* what;
        Code code;
        unsigned line;
    };
    const auto serial = [](std::uint16_t port) {
        // Enables the PC's gate of the interrupt (OUT2) and the interrupt of an empty transmitter.
        Code code;
        code.out(static_cast<std::uint16_t>(port + 4), 0x08).out(static_cast<std::uint16_t>(port + 1), 0x02);
        return code;
    };
    Code keyboard;
    keyboard.out(0x64, 0xAD).out(0x64, 0xA7);  // both ports off
    keyboard.out(0x64, 0x60).out(0x60, 0x01);  // both ports on, the keyboard's interrupt only
    keyboard.out(0x60, 0xEE);                  // echo, which the keyboard answers
    Code mouse;
    mouse.out(0x64, 0x60).out(0x60, 0x02);  // the mouse's interrupt only
    mouse.out(0x64, 0xD4).out(0x60, 0xF4);  // to the mouse: enable, which it acknowledges
    Code clock;
    clock.out(0x70, 0x0A).out(0x71, 0x26).out(0x70, 0x0B).out(0x71, 0x42);  // periodic, every 976 us
    for (const Case& c : {Case{"COM1", serial(0x3F8), 4}, Case{"COM2", serial(0x2F8), 3},
                          Case{"COM3", serial(0x3E8), 4}, Case{"COM4", serial(0x2E8), 3},
                          Case{"keyboard", keyboard, 1}, Case{"mouse", mouse, 12}, Case{"clock", clock, 8}}) {
        CAPTURE(c.what);
        Code code = c.code;
        code.wait_for(c.line < 8 ? pic1 : pic2, static_cast<std::uint8_t>(1U << (c.line % 8)));
        code.print('>').show_requests().power_off();
        const Result result = run_guest(
            code, {"--serial", "stdio", "--serial", "null", "--serial", "null", "--serial", "null"});
        CHECK(result.exit_code == 0);
        REQUIRE(result.output.size() == 3);
        CHECK(requested(result.output, 1) == 1U << c.line);
    }
}

TEST_CASE("Wiring: Ctrl-A p presses the power button, which raises the SCI", "[program][wiring]") {
    REQUIRE_KVM();
    const ScratchDirectory directory;
    Code code;
    code.out(pc::pm_block_port + 3, 0x01);  // PWRBTN_EN, bit 8
    code.show(pc::pm_block_port + 1).print('R');
    code.wait_for(pic2, 1U << (pc::sci_irq - 8U));
    code.show_requests().show(pc::pm_block_port + 1);
    code.out(pc::pm_block_port + 1, 0x01).show(pc::pm_block_port + 1);  // PWRBTN_STS cleared
    code.print('.').power_off();
    const fs::path kernel = directory.write("kernel", code.image());
    Terminal terminal({"--kernel", kernel.string()});
    terminal.wait_until_raw();
    for (int i = 0; i < 1000 && terminal.output().find('R') == std::string::npos; ++i) {
        ::usleep(10'000);
    }
    // The button has not been pressed before.
    REQUIRE(terminal.output() == std::string("\0R", 2));
    terminal.type("\x01p");
    CHECK(terminal.wait() == 0);
    const std::string output = terminal.output();
    REQUIRE(output.size() == 7);
    CHECK(requested(output, 2) == 1U << pc::sci_irq);
    CHECK(output.substr(4) == std::string("\x01\0.", 3));
}

TEST_CASE("Wiring: port 0x92 gates A20 without a reset, and resets where bit 0 rises", "[program][wiring]") {
    REQUIRE_KVM();
    Code gate;
    gate.show(0x92).out(0x92, 0x02).show(0x92).out(0x92, 0xFC).show(0x92).print('.');
    Code never = gate;
    const Result ended = run_guest(never.power_off());
    CHECK(ended.exit_code == 0);
    CHECK(ended.output == std::string("\0\2\0.", 4));
    const Result reset = run_guest(gate.out(0x92, 0x03).print('x'));
    CHECK(reset.exit_code == 10);
    CHECK(reset.output == std::string("\0\2\0.", 4));
}

TEST_CASE("Wiring: the second bank of the CMOS is at ports 0x72 and 0x73", "[program][wiring]") {
    REQUIRE_KVM();
    Code code;
    code.write_cmos(0x40, 0x11).out(0x72, 0x40).out(0x73, 0x22).show(0x73).show_cmos(0x40);
    const Result result = run_guest(code.power_off());
    CHECK(result.exit_code == 0);
    CHECK(result.output == "\x22\x11");
}

TEST_CASE("Wiring: the CMOS contains the memory below and above 4 GiB, each in its own registers",
          "[program][wiring]") {
    REQUIRE_KVM();
    // 0x34 and 0x35: 64 KiB units above 16 MiB and below 4 GiB; 0x5B to 0x5D: 64 KiB units above 4 GiB;
    // 0x17 and 0x18: KiB above 1 MiB, at most 63 MiB (as firmware for PCs reads them).
    const auto show = [](const char* memory) {
        Code code;
        for (const std::uint8_t index : Bytes{0x34, 0x35, 0x5B, 0x5C, 0x5D, 0x17, 0x18}) {
            code.show_cmos(index);
        }
        code.power_off();
        const Result result = run_guest(code, {"--memory", memory});
        CHECK(result.exit_code == 0);
        REQUIRE(result.output.size() == 7);
        return result.output;
    };
    CHECK(show("5G") == std::string("\x00\xBF\x00\x80\x00\xFF\xFF", 7));
    CHECK(show("64M") == std::string("\x00\x03\x00\x00\x00\x00\xFC", 7));
}

TEST_CASE("Wiring: port 0xCF9 resets where bit 2 rises, and with no other write", "[program][wiring]") {
    REQUIRE_KVM();
    Code harmless;
    for (const std::uint8_t value : Bytes{0x00, 0x01, 0x02, 0x08, 0x0A, 0xFB, 0x00}) {
        harmless.out(0xCF9, value);
    }
    harmless.show(0xCF9).print('.');
    Code never = harmless;
    const Result ended = run_guest(never.power_off());
    CHECK(ended.exit_code == 0);
    CHECK(ended.output == std::string("\0.", 2));
    for (const std::uint8_t value : Bytes{0x06, 0x0E}) {
        CAPTURE(value);
        Code code = harmless;
        const Result reset = run_guest(code.out(0xCF9, 0x02).out(0xCF9, value).print('x'));
        CHECK(reset.exit_code == 10);
        CHECK(reset.output == std::string("\0.", 2));  // and no code behind it has run
    }
}

TEST_CASE("Wiring: of pvpanic's events only a panic ends the VM", "[program][wiring]") {
    REQUIRE_KVM();
    Code others;
    // The supported events; then a loaded crash kernel, an orderly shutdown, and unassigned bits.
    others.show(pc::pvpanic_port);
    others.out(pc::pvpanic_port, 0x02).out(pc::pvpanic_port, 0x04).out(pc::pvpanic_port, 0xF8);
    others.out(pc::pvpanic_port, 0x00).print('.');
    Code goes_on = others;
    const Result ended = run_guest(goes_on.power_off());
    CHECK(ended.exit_code == 0);
    CHECK(ended.output == "\x07.");
    CHECK_THAT(ended.errors, Catch::Matchers::Contains("the guest panicked, and its crash kernel continues"));
    CHECK(line_count(ended.errors) == 1);
    for (const std::uint8_t value : Bytes{0x01, 0x03, 0xFF}) {
        CAPTURE(value);
        Code code = others;
        const Result panicked = run_guest(code.out(pc::pvpanic_port, value).print('x'));
        CHECK(panicked.exit_code == 11);
        CHECK(panicked.output == "\x07.");
    }
}

TEST_CASE("Wiring: no sleep type except S5 powers off", "[program][wiring]") {
    REQUIRE_KVM();
    Code code;
    for (unsigned type = 0; type < 8; ++type) {
        code.out16(pc::pm1a_control_port, static_cast<std::uint16_t>(type << 10U));  // without SLP_EN
        if (type != pc::sleep_type_s5) {
            code.out16(pc::pm1a_control_port, static_cast<std::uint16_t>((type << 10U) | (1U << 13U)));
        }
    }
    code.print('.').power_off();
    const Result result = run_guest(code.print('x'));
    CHECK(result.exit_code == 0);
    CHECK(result.output == ".");
}

TEST_CASE("Wiring: a restart in place keeps the CMOS and the guest's time, and resets the clock's interrupts",
          "[program][wiring][battery]") {
    REQUIRE_KVM();
    constexpr std::uint8_t mark = 0x50;  // a byte that no one else uses
    Code second;
    second.show_cmos(mark).show_cmos(0x7F).show_cmos(0x2E);  // memory
    second.show_cmos(0x09).show_cmos(0x32).show_cmos(0x08);  // year, century, month
    second.show_cmos(0x01).show_cmos(0x03).show_cmos(0x05);  // alarm
    second.show_cmos(0x0B).show_cmos(0x0C).show_requests();
    // The third start reads what the second one wrote.
    second.write_cmos(mark, 0xA6).out(0xCF9, 0x02).out(0xCF9, 0x06);
    Code third;
    third.show_cmos(0x09).power_off();
    Code first;
    first.read_cmos(mark).if_equal(0xA5, second);
    first.read_cmos(mark).if_equal(0xA6, third);
    first.write_cmos(0x0B, 0x82);  // SET, 24 hours
    first.write_cmos(0x00, 0x00).write_cmos(0x02, 0x30).write_cmos(0x04, 0x12);
    first.write_cmos(0x07, 0x15).write_cmos(0x08, 0x06).write_cmos(0x09, 0x47).write_cmos(0x32, 0x20);
    first.write_cmos(0x01, 0x11).write_cmos(0x03, 0x22).write_cmos(0x05, 0x23);
    first.write_cmos(mark, 0xA5).write_cmos(0x7F, 0x3C).write_cmos(0x2E, 0x77);
    // All interrupts and the square wave are on, and one interrupt is pending when it resets.
    first.write_cmos(0x0A, 0x26).write_cmos(0x0B, 0x7A).wait_for(pic2, 0x01);
    first.print('1').out(0xCF9, 0x02).out(0xCF9, 0x06);
    const Result result = run_guest(first, {"--on-reboot", "restart", "--memory", "64M"});
    CHECK(result.exit_code == 0);
    REQUIRE(result.output.size() == 15);
    CHECK(result.output[0] == '1');
    CHECK(result.output.substr(1, 3) == "\xA5\x3C\x77");
    CHECK(result.output.substr(4, 3) == "\x47\x20\x06");
    CHECK(result.output.substr(7, 3) == "\x11\x22\x23");
    // The 24-hour mode stays; PIE, AIE, UIE and SQWE are cleared, and no interrupt is requested (MC146818A,
    // RESET). The periodic flag is set again within a millisecond, because it does not depend on PIE.
    CHECK(result.output[10] == '\x02');
    CHECK((static_cast<std::uint8_t>(result.output[11]) & 0x80U) == 0);
    CHECK(requested(result.output, 12) == 0);
    CHECK(result.output[14] == '\x47');
}

TEST_CASE("Wiring: a new process starts with the host's time and a CMOS of its own",
          "[program][wiring][battery]") {
    REQUIRE_KVM();
    Code code;
    code.show_cmos(0x50).write_cmos(0x50, 0x5A).power_off();
    for (int i = 0; i < 2; ++i) {
        CHECK(run_guest(code).output == std::string("\0", 1));
    }
}

TEST_CASE("Wiring: a guest that floods the log gets ten lines in it, and one line that counts the others",
          "[program][wiring][log]") {
    REQUIRE_KVM();
    Code code;
    for (int i = 0; i < 200; ++i) {
        code.out(pc::pvpanic_port, 0x02);
    }
    const Result result = run_guest(code.power_off());
    CHECK(result.exit_code == 0);
    CHECK(line_count(result.errors) == 11);
    CHECK_THAT(result.errors, Catch::Matchers::EndsWith(
                                  "kvm_vmm: warning: 190 more like this left out: the guest panicked, and "
                                  "its crash kernel continues\n"));
}
