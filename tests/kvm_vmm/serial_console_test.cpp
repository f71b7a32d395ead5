// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
#include <algorithm>
#include <array>
#include <csignal>
#include <cstdio>
#include <fcntl.h>
#include <optional>
#include <random>
#include <span>
#include <string>
#include <string_view>
#include <sys/epoll.h>
#include <thread>
#include <unistd.h>
#include <vector>

#include "serial_console_harness.hpp"

using namespace kvm_vmm;
using namespace kvm_vmm::test;

TEST_CASE("SerialConsole: input far beyond the FIFO arrives complete and in order", "[console]") {
    const Pipe input = make_pipe();
    Harness harness(input.read_end.get(), -1);
    const std::string sent = random_text(20000);
    REQUIRE(::write(input.write_end.get(), sent.data(), sent.size()) == static_cast<ssize_t>(sent.size()));
    CHECK(harness.drain(sent.size()) == sent);
}

TEST_CASE("SerialConsole: while the guest does not read, the back end is not read", "[console]") {
    const Pipe input = make_pipe();
    Harness harness(input.read_end.get(), -1);
    const std::string sent = random_text(1000);
    REQUIRE(::write(input.write_end.get(), sent.data(), sent.size()) == static_cast<ssize_t>(sent.size()));
    for (int i = 0; i < 10; ++i) {
        harness.loop();
    }
    std::array<char, 2000> rest{};
    const ssize_t left = ::read(input.read_end.get(), rest.data(), rest.size());
    CHECK(left == 1000 - 64);
    CHECK(harness.drain(1000) == sent.substr(0, 64));
}

TEST_CASE("SerialConsole: input that arrives before the guest listens waits outside the FIFO", "[console]") {
    const Pipe input = make_pipe();
    Harness harness(input.read_end.get(), -1);
    harness.write(interrupt_enable, 0x00);
    REQUIRE(::write(input.write_end.get(), "early", 5) == 5);
    for (int i = 0; i < 5; ++i) {
        harness.loop();
    }
    CHECK((harness.read(line_status) & data_ready) == 0);
    // A driver that opens the port clears the FIFOs, reads RBR and then enables interrupts.
    harness.write(fifo_control, 0x01);
    harness.write(fifo_control, 0x07);
    (void)harness.read(data_register);
    harness.write(fifo_control, 0x00);
    harness.write(interrupt_enable, 0x05);
    harness.loop();
    harness.write(fifo_control, 0x81);  // set_termios comes later still
    CHECK(harness.drain(5) == "early");
}

TEST_CASE("SerialConsole: a guest that polls without interrupts is recognised as listening", "[console]") {
    const Pipe input = make_pipe();
    Harness harness(input.read_end.get(), -1);
    harness.write(interrupt_enable, 0x00);
    REQUIRE(::write(input.write_end.get(), "polled", 6) == 6);
    CHECK(harness.drain(6) == "polled");
}

TEST_CASE("SerialConsole: input continues after the guest cleared the FIFO through FCR", "[console]") {
    const Pipe input = make_pipe();
    Harness harness(input.read_end.get(), -1);
    const std::string sent = random_text(200);
    REQUIRE(::write(input.write_end.get(), sent.data(), sent.size()) == 200);
    harness.loop();
    harness.loop();
    harness.write(fifo_control, 0x07);
    CHECK((harness.read(line_status) & data_ready) == 0);
    CHECK(harness.drain(1000) == sent);
}

TEST_CASE("SerialConsole: input waits while the guest has the UART in loopback mode", "[console]") {
    const Pipe input = make_pipe();
    Harness harness(input.read_end.get(), -1);
    harness.write(modem_control, 0x10);
    REQUIRE(::write(input.write_end.get(), "abc", 3) == 3);
    for (int i = 0; i < 5; ++i) {
        harness.loop();
    }
    CHECK((harness.read(line_status) & data_ready) == 0);
    // The guest receives its own bytes, and after it clears them they do not come back with the host's.
    harness.write(data_register, 'L');
    harness.write(data_register, 'M');
    CHECK(harness.read(data_register) == 'L');
    harness.write(fifo_control, 0x01);
    harness.write(modem_control, 0x08);
    CHECK(harness.drain(3) == "abc");
}

TEST_CASE("SerialConsole: input raises the interrupt, even with the FIFOs on and below the trigger level",
          "[console]") {
    const Pipe input = make_pipe();
    Harness harness(input.read_end.get(), -1);
    harness.write(fifo_control, 0xC1);
    harness.write(interrupt_enable, 0x01);
    CHECK(harness.interrupts() == 0);
    REQUIRE(::write(input.write_end.get(), "a", 1) == 1);
    harness.settle();
    CHECK(harness.interrupts() == 1);
    CHECK(harness.read(data_register) == 'a');
    harness.settle();
    CHECK(harness.interrupts() == 0);
}

TEST_CASE("SerialConsole: the guest continues after the end of the input", "[console]") {
    Pipe input = make_pipe();
    Harness harness(input.read_end.get(), -1);
    REQUIRE(::write(input.write_end.get(), "last", 4) == 4);
    input.write_end.reset();
    CHECK(harness.drain(100) == "last");
    harness.loop();
    CHECK((harness.read(line_status) & thr_empty) != 0);
}

TEST_CASE("SerialConsole: a regular file and /dev/null work as input", "[console]") {
    std::FILE* const file = std::tmpfile();
    REQUIRE(file != nullptr);
    const std::string sent = random_text(500);
    REQUIRE(std::fwrite(sent.data(), 1, sent.size(), file) == sent.size());
    REQUIRE(std::fseek(file, 0, SEEK_SET) == 0);
    {
        Harness harness(::fileno(file), -1);
        CHECK(harness.drain(1000) == sent);
    }
    (void)std::fclose(file);
    const vmsuperio::UniqueFd null(::open("/dev/null", O_RDWR | O_CLOEXEC));
    Harness harness(null.get(), null.get());
    CHECK(harness.drain(10).empty());
    harness.write(data_register, 'x');
    CHECK((harness.read(line_status) & thr_empty) != 0);
}

TEST_CASE("SerialConsole: a reader that pauses stops the guest only after 1 MiB, and nothing is lost",
          "[console]") {
    const Pipe output = make_pipe();
    Harness harness(-1, output.write_end.get());
    std::string sent;
    std::size_t held_first_at = 0;
    std::string received;
    // A driver that waits for THRE before each byte; the reader reads only when the guest is stopped.
    for (std::uint32_t i = 0; sent.size() < 1'500'000; ++i) {
        REQUIRE(i < 3'000'000);
        if (i % 64 == 0) {
            harness.loop();
        }
        if ((harness.read(line_status) & thr_empty) == 0) {
            if (held_first_at == 0) {
                held_first_at = sent.size();
            }
            received += read_all(output.read_end.get());
            harness.loop();
            continue;
        }
        const auto byte = static_cast<std::uint8_t>(i * 7);
        harness.write(data_register, byte);
        sent += static_cast<char>(byte);
    }
    CHECK(harness.console().unsent() != 0);
    for (int i = 0; i < 100 && received.size() < sent.size(); ++i) {
        received += read_all(output.read_end.get());
        harness.loop();
    }
    CHECK(held_first_at > OutputQueue::capacity);
    CHECK(received == sent);
    CHECK(harness.console().unsent() == 0);
    CHECK(harness.counts().bytes_lost == 0);
}

TEST_CASE("SerialConsole: bytes kept for a reader that went away are counted as lost", "[console]") {
    std::signal(SIGPIPE, SIG_DFL);
    Pipe output = make_pipe();
    Harness harness(-1, output.write_end.get());
    for (int i = 0; i < 100'000; ++i) {
        harness.write(data_register, 'x');
    }
    const std::size_t waiting = harness.console().unsent();
    REQUIRE(waiting >= 100'000 - 65'536);
    harness.loop();
    CHECK(harness.counts().bytes_lost == 0);
    output.read_end.reset();
    harness.loop();
    CHECK(harness.console().unsent() == 0);
    CHECK(harness.counts().bytes_lost == waiting);
    CHECK((harness.read(line_status) & thr_empty) != 0);
}

namespace {

std::span<const std::uint8_t> bytes_of(std::string_view text) {
    return {reinterpret_cast<const std::uint8_t*>(text.data()), text.size()};
}

// A channel whose reader sees where each write ended.
struct Packets {
    // Returns whether the channel wants to be called at the end of the time.
    bool send(std::string_view text) {
        const auto sent = channel.send(bytes_of(text), true);
        REQUIRE(sent);
        CHECK(sent->taken == text.size());
        return sent->joins;
    }
    // What one write passed on; empty for none.
    [[nodiscard]] std::string packet() const {
        std::array<char, 4096> bytes{};
        const ssize_t count = ::read(pipe.read_end.get(), bytes.data(), bytes.size());
        return {bytes.data(), static_cast<std::size_t>(std::max<ssize_t>(count, 0))};
    }

    Pipe pipe = make_pipe(O_NONBLOCK | O_DIRECT);
    OutputChannel channel{vmsuperio::FdWriter::borrow(pipe.write_end.get())};
};

}  // namespace

TEST_CASE("OutputChannel: bytes that come one by one are written together, the first one at once",
          "[console]") {
    Packets output;
    CHECK(output.send("a"));
    CHECK(output.packet() == "a");
    // No further request for the same time.
    CHECK_FALSE(output.send("b"));
    CHECK_FALSE(output.send("c"));
    CHECK(output.packet().empty());
    CHECK(output.channel.unsent() == 2);
    CHECK_FALSE(output.channel.waiting());  // for the reader
    SECTION("up to the end of the line") {
        CHECK_FALSE(output.send("\n"));
        CHECK(output.packet() == "bc\n");
        CHECK(output.channel.unsent() == 0);
        CHECK_FALSE(output.send("d"));
        CHECK(output.packet().empty());
    }
    SECTION("up to several bytes at once, which come in order") {
        CHECK_FALSE(output.send("de"));
        CHECK(output.packet() == "bcde");
    }
    SECTION("up to the end of the time, which continues while bytes come") {
        CHECK(output.channel.end_join());
        CHECK(output.packet() == "bc");
        CHECK_FALSE(output.send("d"));
        CHECK(output.packet().empty());
        CHECK(output.channel.end_join());
        CHECK(output.packet() == "d");
        CHECK_FALSE(output.channel.end_join());
        CHECK(output.send("e"));
        CHECK(output.packet() == "e");
    }
    SECTION("up to a limit") {
        for (std::size_t i = 2; i < OutputChannel::join_limit; ++i) {
            CHECK_FALSE(output.send("x"));
        }
        CHECK(output.packet().empty());
        CHECK_FALSE(output.send("y"));
        CHECK(output.packet() == "bc" + std::string(OutputChannel::join_limit - 2, 'x') + 'y');
    }
    SECTION("up to a flush, which ends the time") {
        output.channel.flush();
        CHECK(output.packet() == "bc");
        CHECK(output.send("d"));
        CHECK(output.packet() == "d");
    }
    SECTION("not for a reader that has gone: they are counted") {
        output.channel.detach();
        CHECK(output.channel.unsent() == 0);
        CHECK(output.channel.take_dropped() == 2);
        CHECK_FALSE(output.send("d"));
        CHECK_FALSE(output.channel.end_join());
    }
}

TEST_CASE("OutputChannel: bytes that wait when the peer leaves are for the next one", "[console]") {
    std::signal(SIGPIPE, SIG_IGN);
    Packets first;
    const Packets next;
    OutputChannel channel(OutputChannel::Readers::come_and_go);
    const auto send = [&channel](std::string_view text) {
        const auto sent = channel.send(bytes_of(text), true);
        REQUIRE(sent);
        CHECK(sent->taken == text.size());
        return sent->joins;
    };
    CHECK_FALSE(send("before"));
    channel.attach(vmsuperio::FdWriter::borrow(first.pipe.write_end.get()));
    channel.flush();
    CHECK(first.packet() == "before");
    CHECK(send("a"));
    CHECK_FALSE(send("b"));
    SECTION("which is noticed") { channel.detach(); }
    SECTION("which the next line finds out") {
        first.pipe.read_end.reset();
        CHECK_FALSE(send("\n"));
    }
    SECTION("which the end of the time finds out") {
        first.pipe.read_end.reset();
        CHECK(channel.end_join());
        CHECK_FALSE(channel.end_join());
    }
    CHECK(channel.unsent() == 0);
    CHECK_FALSE(send("c"));
    channel.attach(vmsuperio::FdWriter::borrow(next.pipe.write_end.get()));
    channel.flush();
    const std::string text = next.packet();
    CHECK((text == "bc" || text == "b\nc"));
    CHECK(channel.take_dropped() == 0);
    std::signal(SIGPIPE, SIG_DFL);
}

TEST_CASE("OutputChannel: lines, several bytes at once and other writers' bytes are not held back",
          "[console]") {
    Packets output;
    for (const std::string_view text : {"\n", "ab", "\n", "cd\n"}) {
        CHECK_FALSE(output.send(text));
        CHECK(output.packet() == text);
    }
    for (const std::string_view text : {"e", "f"}) {  // without `join`
        const auto sent = output.channel.send(bytes_of(text));
        REQUIRE(sent);
        CHECK_FALSE(sent->joins);
        CHECK(output.packet() == text);
    }
}

TEST_CASE(
    "OutputChannel: bytes that wait are counted if their write fails, and the error is that of the last one",
    "[console]") {
    std::signal(SIGPIPE, SIG_IGN);
    Packets output;
    CHECK(output.send("a"));
    CHECK_FALSE(output.send("b"));
    output.pipe.read_end.reset();
    SECTION("by the end of a line") {
        CHECK_FALSE(output.channel.send(bytes_of("\n"), true));
        CHECK(output.channel.take_dropped() == 1);
    }
    SECTION("by the end of the time") {
        CHECK(output.channel.end_join());
        CHECK(output.channel.take_dropped() == 1);
        CHECK_FALSE(output.channel.end_join());
    }
    CHECK(output.channel.unsent() == 0);
    std::signal(SIGPIPE, SIG_DFL);
}

TEST_CASE("OutputChannel: bytes that wait become those of a slow reader", "[console]") {
    Packets output;
    CHECK(output.send("a"));
    CHECK_FALSE(output.send("b"));
    const std::string filling(1 << 20, 'x');
    while (::write(output.pipe.write_end.get(), filling.data(), 4096) > 0) {
    }
    const auto sent = output.channel.send(bytes_of("\n"), true);
    REQUIRE(sent);
    CHECK(sent->taken == 1);
    CHECK(sent->waiting);
    CHECK(output.channel.waiting());
    CHECK_FALSE(output.send("c"));
    std::string last;
    for (std::string packet; !(packet = output.packet()).empty(); last = packet) {
    }
    output.channel.flush();
    CHECK(output.packet() == "b\nc");
}

TEST_CASE("SerialConsole: the event loop writes bytes that wait for others, and rests after that",
          "[console]") {
    const Pipe output = make_pipe();
    Harness harness(-1, output.write_end.get());
    harness.settle();
    for (const char c : std::string("login: ")) {
        harness.write(data_register, static_cast<std::uint8_t>(c));
    }
    CHECK(read_all(output.read_end.get()) == "l");
    CHECK(harness.console().unsent() == 6);
    const auto started = std::chrono::steady_clock::now();
    REQUIRE(harness.loop(10'000) == 1);
    CHECK(std::chrono::steady_clock::now() - started < std::chrono::seconds(5));
    CHECK(read_all(output.read_end.get()) == "ogin: ");
    CHECK(harness.console().unsent() == 0);
    REQUIRE(harness.loop(10'000) == 1);  // nothing came within the time
    CHECK(harness.loop(50) == 0);
    harness.write(data_register, '#');
    harness.write(data_register, ' ');
    harness.console().end_join();  // as at the end of the VM
    CHECK(read_all(output.read_end.get()) == "# ");
    CHECK(harness.counts().bytes_lost == 0);
}

TEST_CASE("SerialConsole: the next guest on the same back end sends what waited, and its own bytes",
          "[console]") {
    const Pipe output = make_pipe();
    EventManager events;
    const auto backend = use_descriptors(-1, output.write_end.get());
    for (const std::string text : {"ab", "cd"}) {
        const auto interrupt = vmsuperio::EventFdTrigger::create();
        REQUIRE(interrupt);
        const SerialConsole console(events, *backend, *interrupt->duplicate(),
                                    vmsuperio::TransmitPolicy::back_pressure, [](ConsoleCommand) {});
        for (const char c : text) {
            const auto byte = static_cast<std::uint8_t>(c);
            console.device()->pio_write(base, data_register, {&byte, 1});
        }
    }
    CHECK(read_all(output.read_end.get()) == "abc");
    CHECK(backend->output().unsent() == 1);
}

TEST_CASE("OutputQueue: bytes come out in order, however they are added and removed, and it never overflows",
          "[console]") {
    std::mt19937 random(3);
    OutputQueue queue;
    std::uint8_t next_in = 0;
    std::uint8_t next_out = 0;
    std::size_t inside = 0;
    bool was_full = false;
    for (int step = 0; step < 300; ++step) {
        std::vector<std::uint8_t> bytes(random() % 100'000);
        for (std::uint8_t& byte : bytes) {
            byte = next_in++;
        }
        const std::size_t taken = queue.push(bytes);
        REQUIRE(taken == std::min(bytes.size(), OutputQueue::capacity - inside));
        was_full = was_full || taken < bytes.size();
        next_in = static_cast<std::uint8_t>(next_in - (bytes.size() - taken));
        inside += taken;
        REQUIRE(queue.size() == inside);
        const std::size_t out = std::min<std::size_t>(random() % 80'000, inside);
        bool in_order = true;
        for (const std::uint8_t byte : queue.bytes().first(out)) {
            in_order = in_order && byte == next_out++;
        }
        REQUIRE(in_order);
        queue.drop_front(out);
        inside -= out;
    }
    CHECK(was_full);
    queue.drop_front(inside + 1);
    CHECK(queue.empty());
}

TEST_CASE("SerialConsole: a reader that went away does not stop the guest", "[console]") {
    std::signal(SIGPIPE, SIG_DFL);
    Pipe output = make_pipe();
    Harness harness(-1, output.write_end.get());
    output.read_end.reset();
    for (int i = 0; i < 100; ++i) {
        harness.write(data_register, 'x');
        harness.loop();
        REQUIRE((harness.read(line_status) & thr_empty) != 0);
    }
}

TEST_CASE("SerialConsole: commands are found in interactive input only", "[console]") {
    const Pipe input = make_pipe();
    const std::string keys =
        "a\x01x\x01\x01"
        "b";
    REQUIRE(::write(input.write_end.get(), keys.data(), keys.size()) == 6);
    SECTION("interactive") {
        Harness harness(input.read_end.get(), -1, SerialBackend::Input::commands);
        CHECK(harness.drain(6) ==
              "a\x01"
              "b");
        CHECK(harness.commands == std::vector{ConsoleCommand::exit});
    }
    SECTION("not interactive") {
        Harness harness(input.read_end.get(), -1);
        CHECK(harness.drain(6) == keys);
        CHECK(harness.commands.empty());
    }
}

TEST_CASE("SerialConsole: a command is found while the guest reads nothing, and the input waits",
          "[console]") {
    const Pipe input = make_pipe();
    Harness harness(input.read_end.get(), -1, SerialBackend::Input::commands);
    const std::string sent(3000, 'y');
    REQUIRE(::write(input.write_end.get(), sent.data(), sent.size()) == 3000);
    REQUIRE(::write(input.write_end.get(), "\x01x", 2) == 2);
    harness.loop();
    harness.loop();
    CHECK(harness.commands == std::vector{ConsoleCommand::exit});
    CHECK(harness.drain(3000) == sent);
}

TEST_CASE("SerialConsole: the input that is read ahead for commands is bounded", "[console]") {
    const Pipe input = make_pipe();
    Harness harness(input.read_end.get(), -1, SerialBackend::Input::commands);
    const std::string chunk(4096, 'z');
    std::size_t written = 0;
    for (int i = 0; i < 2000; ++i) {
        const ssize_t count = ::write(input.write_end.get(), chunk.data(), chunk.size());
        written += count > 0 ? static_cast<std::size_t>(count) : 0;
        harness.loop();
    }
    CHECK(written <= InputQueue::capacity + 65536 + 64);
    CHECK(harness.drain(written).size() == written);
}

TEST_CASE("SerialConsole: a BREAK reaches the guest", "[console]") {
    Harness harness(-1, -1);
    harness.console().send_break();
    CHECK((harness.read(line_status) & 0x11) == 0x11);
}

TEST_CASE("SerialConsole: commands are found however much input waits, and that input is not lost",
          "[console]") {
    const Pipe input = make_pipe();
    Harness harness(input.read_end.get(), -1, SerialBackend::Input::commands);
    // More than the UART's FIFO, a page, the pipe, and an earlier limit of reading ahead.
    const std::string typed = random_text(GENERATE(63U, 65U, 4096U, 17'000U, 300'000U));
    std::string plain;
    std::size_t at = 0;
    for (int i = 0; i < 10'000 && at < typed.size(); ++i) {
        std::string chunk;
        for (const std::size_t end = std::min(typed.size(), at + 1000); at < end; ++at) {
            chunk += typed[at] == EscapeParser::escape ? "z" : std::string(1, typed[at]);
        }
        REQUIRE(::write(input.write_end.get(), chunk.data(), chunk.size()) ==
                static_cast<ssize_t>(chunk.size()));
        plain += chunk;
        harness.loop();
    }
    REQUIRE(::write(input.write_end.get(), "\x01x", 2) == 2);
    harness.settle();
    CHECK(harness.commands == std::vector{ConsoleCommand::exit});
    CHECK((harness.drain(plain.size()) == plain));
}

TEST_CASE("SerialConsole: a keyboard is never blocked: excess input is dropped, and commands are found",
          "[console]") {
    const Pipe input = make_pipe();
    Harness harness(input.read_end.get(), -1, SerialBackend::Input::keyboard);
    const std::string chunk(4096, 'k');
    for (int round = 0; round < 3; ++round) {
        for (int i = 0; i < 300; ++i) {
            REQUIRE(::write(input.write_end.get(), chunk.data(), chunk.size()) == 4096);
            harness.loop();
        }
        REQUIRE(::write(input.write_end.get(),
                        "\x01s\x01"
                        "b",
                        4) == 4);
        harness.loop();
        CHECK(harness.commands.size() == static_cast<std::size_t>(round) + 1);
    }
    CHECK(harness.backend().read_ahead().size() == InputQueue::capacity);
    // The guest reads again: first it gets what was kept, then what is typed from now on.
    CHECK(harness.drain(InputQueue::capacity + 64) == std::string(InputQueue::capacity + 64, 'k'));
    REQUIRE(::write(input.write_end.get(), "live", 4) == 4);
    CHECK(harness.drain(4) == "live");
}

TEST_CASE("SerialConsole: a BREAK keeps its position among the bytes", "[console]") {
    const Pipe input = make_pipe();
    Harness harness(input.read_end.get(), -1, SerialBackend::Input::commands);
    const auto type = [&](const std::string& keys) {
        REQUIRE(::write(input.write_end.get(), keys.data(), keys.size()) ==
                static_cast<ssize_t>(keys.size()));
    };
    const std::string send_break =
        "\x01"
        "b";
    SECTION("in one read") {
        type("abc" + send_break + "h");
        CHECK(harness.drain(100) == "abc^h");
    }
    SECTION("alone, first, last and several") {
        type(send_break + "a" + send_break + send_break + "b" + send_break);
        CHECK(harness.drain(100) == "^a^^b^");
    }
    SECTION("behind a full FIFO") {
        const std::size_t before = GENERATE(63U, 64U, 65U, 128U, 5000U);
        type(std::string(before, 'x') + send_break + "m");
        harness.settle();
        CHECK(harness.drain(10'000) == std::string(before, 'x') + "^m");
    }
    SECTION("many of them") {
        std::string keys;
        std::string expected;
        for (int i = 0; i < 200; ++i) {
            keys += send_break;
            expected += break_mark;
        }
        type(keys);
        CHECK(harness.drain(1000) == expected);
    }
    SECTION("while the guest does not listen yet") {
        harness.write(interrupt_enable, 0x00);
        type("a" + send_break + "b");
        harness.settle();
        CHECK((harness.read(line_status) & data_ready) == 0);
        harness.write(interrupt_enable, 0x01);
        CHECK(harness.drain(100) == "a^b");
    }
    SECTION("while the guest has the UART in loopback mode") {
        harness.write(modem_control, 0x18);
        type("a" + send_break + "b");
        harness.settle();
        CHECK((harness.read(line_status) & data_ready) == 0);
        harness.write(modem_control, 0x08);
        CHECK(harness.drain(100) == "a^b");
    }
    SECTION("discarded unread by a reset of the FIFO") {
        type("a" + send_break + "b");
        harness.settle();
        harness.write(fifo_control, 0x07);
        CHECK(harness.drain(100) == "a^b");
    }
    CHECK(harness.commands.empty());
}

TEST_CASE("SerialConsole: a BREAK requested through the console waits for its turn", "[console]") {
    const Pipe input = make_pipe();
    Harness harness(input.read_end.get(), -1, SerialBackend::Input::commands);
    const std::string typed(100, 't');
    REQUIRE(::write(input.write_end.get(), typed.data(), typed.size()) == 100);
    harness.settle();
    harness.console().send_break();
    CHECK(harness.drain(1000) == typed + break_mark);
}

TEST_CASE("SerialConsole: input arrives after a while at a guest that is not recognised as listening",
          "[console]") {
    const Pipe input = make_pipe();
    const auto kind = GENERATE(SerialBackend::Input::plain, SerialBackend::Input::commands);
    Harness harness(input.read_end.get(), -1, kind, std::chrono::milliseconds(20));
    harness.write(interrupt_enable, 0x00);
    const std::string sent = random_text(300);
    const std::string text = kind == SerialBackend::Input::plain ? sent : std::string(300, 'i');
    REQUIRE(::write(input.write_end.get(), text.data(), text.size()) == 300);
    std::string heard;
    SECTION("it prints after each read of LSR") {
        for (int i = 0; i < 100'000 && heard.size() < text.size(); ++i) {
            harness.loop(i % 100 == 0 ? 1 : 0);
            if ((harness.read(line_status) & data_ready) != 0) {
                heard += static_cast<char>(harness.read(data_register));
            }
            harness.write(data_register, '.');
        }
    }
    SECTION("it reads LSR seldom") {
        for (int i = 0; i < 1000 && heard.size() < text.size(); ++i) {
            harness.loop(10);
            while ((harness.read(line_status) & data_ready) != 0) {
                heard += static_cast<char>(harness.read(data_register));
            }
            harness.write(data_register, '.');
        }
    }
    SECTION("it sets up registers between the reads of LSR, but not the FIFOs") {
        for (int i = 0; i < 100'000 && heard.size() < text.size(); ++i) {
            harness.loop(i % 100 == 0 ? 1 : 0);
            harness.write(interrupt_enable, 0x00);
            harness.write(modem_control, 0x0B);
            if ((harness.read(line_status) & data_ready) != 0) {
                heard += static_cast<char>(harness.read(data_register));
            }
            harness.write(data_register, '.');
        }
    }
    SECTION("it never reads LSR") {
        // Waits until input must have arrived, and reads that many bytes.
        for (int i = 0; i < 20; ++i) {
            harness.loop(10);
        }
        while (heard.size() < text.size()) {
            harness.settle();
            heard += static_cast<char>(harness.read(data_register));
        }
    }
    CHECK((heard == text));
}

TEST_CASE("SerialConsole: input arrives at a guest that programs the FIFOs again and again", "[console]") {
    const Pipe input = make_pipe();
    Harness harness(input.read_end.get(), -1, SerialBackend::Input::plain, std::chrono::milliseconds(20));
    harness.write(interrupt_enable, 0x00);
    const std::string text = random_text(200);
    REQUIRE(::write(input.write_end.get(), text.data(), text.size()) == 200);
    std::string heard;
    // Each pause is much shorter than the patience. Bytes that a reset discards are delivered again.
    for (int i = 0; i < 20'000 && heard.size() < text.size(); ++i) {
        harness.write(fifo_control, 0x07);
        harness.loop();
        std::this_thread::sleep_for(std::chrono::milliseconds(1));
        while ((harness.read(line_status) & data_ready) != 0) {
            heard += static_cast<char>(harness.read(data_register));
        }
        harness.write(data_register, '.');
    }
    CHECK((heard == text));
}

TEST_CASE("SerialConsole: the guest's own bytes do not come back with the host's after a reset",
          "[console]") {
    const Pipe input = make_pipe();
    Harness harness(input.read_end.get(), -1);
    harness.write(fifo_control, 0x01);
    REQUIRE(::write(input.write_end.get(), "abc", 3) == 3);
    harness.settle();
    harness.write(modem_control, 0x18);
    harness.write(data_register, 'X');
    harness.write(data_register, 'Y');
    CHECK(harness.read(data_register) == 'a');
    SECTION("in loopback mode") { harness.write(fifo_control, 0x07); }
    SECTION("after it, with the host's bytes on both sides") {
        harness.write(modem_control, 0x08);
        REQUIRE(::write(input.write_end.get(), "de", 2) == 2);
        CHECK(harness.read(data_register) == 'b');
        CHECK(harness.read(data_register) == 'c');
        CHECK(harness.read(data_register) == 'X');
        harness.settle();
        harness.write(fifo_control, 0x07);
        CHECK(harness.drain(2) == "de");
        return;
    }
    SECTION("after it, unread") {
        harness.write(modem_control, 0x08);
        harness.write(fifo_control, 0x07);
    }
    harness.write(modem_control, 0x08);
    CHECK(harness.drain(2) == "bc");
}

TEST_CASE("SerialConsole: input that a guest discards when it opens the port is delivered again",
          "[console]") {
    const Pipe input = make_pipe();
    Harness harness(input.read_end.get(), -1, SerialBackend::Input::plain, std::chrono::milliseconds(20));
    harness.write(interrupt_enable, 0x00);
    REQUIRE(::write(input.write_end.get(), "early", 5) == 5);
    for (int i = 0; i < 1000 && (harness.read(line_status) & data_ready) == 0; ++i) {
        harness.write(data_register, '.');
        harness.loop(10);
    }
    CHECK((harness.read(line_status) & data_ready) != 0);
    // A driver that opens the port discards what has arrived by then.
    harness.write(fifo_control, 0x01);
    harness.write(fifo_control, 0x07);
    harness.write(fifo_control, 0x00);
    (void)harness.read(data_register);
    CHECK((harness.read(line_status) & data_ready) == 0);
    SECTION("and then listens") {
        harness.write(interrupt_enable, 0x05);
        CHECK(harness.drain(5) == "early");
    }
    SECTION("and is still not recognised as listening") {
        std::string heard;
        for (int i = 0; i < 1000 && heard.size() < 5; ++i) {
            harness.loop(10);
            if ((harness.read(line_status) & data_ready) != 0) {
                heard += static_cast<char>(harness.read(data_register));
            }
            harness.write(data_register, '.');
        }
        CHECK(heard == "early");
    }
}
