// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
#include "devices/serial_console.hpp"

#include <algorithm>
#include <array>
#include <csignal>
#include <cstdio>
#include <fcntl.h>
#include <optional>
#include <random>
#include <string>
#include <sys/epoll.h>
#include <unistd.h>
#include <vector>

#include "catch.hpp"

using namespace kvm_vmm;

namespace {

constexpr vmdevice::PioAddress base{0x3F8};
constexpr vmdevice::PioOffset data_register = 0;
constexpr vmdevice::PioOffset interrupt_enable = 1;
constexpr vmdevice::PioOffset fifo_control = 2;
constexpr vmdevice::PioOffset modem_control = 4;
constexpr vmdevice::PioOffset line_status = 5;
constexpr std::uint8_t data_ready = 0x01;
constexpr std::uint8_t thr_empty = 0x20;

struct Pipe {
    FileDescriptor read_end;
    FileDescriptor write_end;
};

Pipe make_pipe() {
    std::array<int, 2> fds{};
    REQUIRE(::pipe2(fds.data(), O_CLOEXEC | O_NONBLOCK) == 0);
    return {FileDescriptor(fds[0]), FileDescriptor(fds[1])};
}

class Harness {
public:
    Harness(int input_fd, int output_fd, bool interactive = false)
        : backend_(use_descriptors(input_fd, output_fd, interactive)),
          interrupt_(vmsuperio::EventFdTrigger::create()),
          console_(
              events_, *backend_, *interrupt_->duplicate(), vmsuperio::TransmitPolicy::back_pressure,
              [this](ConsoleCommand command) { commands.push_back(command); }, metrics_),
          device_(console_.device()) {
        write(interrupt_enable, 0x01);  // the guest listens
    }

    std::uint8_t read(vmdevice::PioOffset offset) {
        std::uint8_t value = 0xEE;
        device_->pio_read(base, offset, {&value, 1});
        return value;
    }
    void write(vmdevice::PioOffset offset, std::uint8_t value) {
        device_->pio_write(base, offset, {&value, 1});
    }
    void loop() { events_.run_once(0); }
    std::uint64_t interrupts() { return *interrupt_->take(); }
    SerialConsole& console() { return console_; }
    [[nodiscard]] vmsuperio::SerialCounts counts() const { return metrics_->counts(); }

    /// Reads as a polling driver does, giving the event loop its turn, until nothing more comes.
    std::string drain(std::size_t wanted) {
        std::string text;
        for (std::size_t idle = 0; idle < 50 && text.size() < wanted;) {
            loop();
            ++idle;
            while ((read(line_status) & data_ready) != 0) {
                text += static_cast<char>(read(data_register));
                idle = 0;
            }
        }
        return text;
    }

    std::vector<ConsoleCommand> commands;

private:
    EventManager events_;
    std::unique_ptr<SerialBackend> backend_;
    std::expected<vmsuperio::EventFdTrigger, std::error_code> interrupt_;
    std::shared_ptr<vmsuperio::SerialMetrics> metrics_ = std::make_shared<vmsuperio::SerialMetrics>();
    SerialConsole console_;
    std::shared_ptr<vmdevice::DevicePio> device_;
};

std::string random_text(std::size_t size) {
    std::mt19937 random(7);
    std::string text(size, '\0');
    for (char& c : text) {
        c = static_cast<char>(random());
    }
    return text;
}

std::string read_all(int fd) {
    std::string text;
    std::array<char, 4096> buffer{};
    for (ssize_t count = 0; (count = ::read(fd, buffer.data(), buffer.size())) > 0;) {
        text.append(buffer.data(), static_cast<std::size_t>(count));
    }
    return text;
}

}  // namespace

TEST_CASE("SerialConsole: input far beyond the FIFO arrives complete and in order", "[console]") {
    const Pipe input = make_pipe();
    Harness harness(input.read_end.get(), -1);
    const std::string sent = random_text(20000);
    REQUIRE(::write(input.write_end.get(), sent.data(), sent.size()) == static_cast<ssize_t>(sent.size()));
    CHECK(harness.drain(sent.size()) == sent);
}

TEST_CASE("SerialConsole: while the guest does not read, the back end is left unread", "[console]") {
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

TEST_CASE("SerialConsole: input that comes before the guest listens waits outside the FIFO", "[console]") {
    const Pipe input = make_pipe();
    Harness harness(input.read_end.get(), -1);
    harness.write(interrupt_enable, 0x00);
    REQUIRE(::write(input.write_end.get(), "early", 5) == 5);
    for (int i = 0; i < 5; ++i) {
        harness.loop();
    }
    CHECK((harness.read(line_status) & data_ready) == 0);
    // What a driver does when it opens the port: clear the FIFOs, read RBR, then listen.
    harness.write(fifo_control, 0x01);
    harness.write(fifo_control, 0x07);
    (void)harness.read(data_register);
    harness.write(fifo_control, 0x00);
    harness.write(interrupt_enable, 0x05);
    harness.loop();
    harness.write(fifo_control, 0x81);  // set_termios comes later still
    CHECK(harness.drain(5) == "early");
}

TEST_CASE("SerialConsole: a guest that polls without interrupts is heard to listen", "[console]") {
    const Pipe input = make_pipe();
    Harness harness(input.read_end.get(), -1);
    harness.write(interrupt_enable, 0x00);
    REQUIRE(::write(input.write_end.get(), "polled", 6) == 6);
    CHECK(harness.drain(6) == "polled");
}

TEST_CASE("SerialConsole: input goes on after the guest emptied the FIFO through FCR", "[console]") {
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
    // The guest's own bytes come back, and clearing them away does not bring them among the host's.
    harness.write(data_register, 'L');
    harness.write(data_register, 'M');
    CHECK(harness.read(data_register) == 'L');
    harness.write(fifo_control, 0x01);
    harness.write(modem_control, 0x08);
    CHECK(harness.drain(3) == "abc");
}

TEST_CASE("SerialConsole: input raises the interrupt, with the FIFOs on and below the trigger level too",
          "[console]") {
    const Pipe input = make_pipe();
    Harness harness(input.read_end.get(), -1);
    harness.write(fifo_control, 0xC1);
    harness.write(interrupt_enable, 0x01);
    CHECK(harness.interrupts() == 0);
    REQUIRE(::write(input.write_end.get(), "a", 1) == 1);
    harness.loop();
    CHECK(harness.interrupts() == 1);
    CHECK(harness.read(data_register) == 'a');
    harness.loop();
    CHECK(harness.interrupts() == 0);
}

TEST_CASE("SerialConsole: the end of the input leaves the guest running", "[console]") {
    Pipe input = make_pipe();
    Harness harness(input.read_end.get(), -1);
    REQUIRE(::write(input.write_end.get(), "last", 4) == 4);
    input.write_end.reset();
    CHECK(harness.drain(100) == "last");
    harness.loop();
    CHECK((harness.read(line_status) & thr_empty) != 0);
}

TEST_CASE("SerialConsole: a regular file and /dev/null are input like any other", "[console]") {
    std::FILE* const file = std::tmpfile();
    REQUIRE(file != nullptr);
    const std::string sent = random_text(500);
    REQUIRE(std::fwrite(sent.data(), 1, sent.size(), file) == sent.size());
    std::rewind(file);
    {
        Harness harness(::fileno(file), -1);
        CHECK(harness.drain(1000) == sent);
    }
    (void)std::fclose(file);
    const FileDescriptor null(::open("/dev/null", O_RDWR | O_CLOEXEC));
    Harness harness(null.get(), null.get());
    CHECK(harness.drain(10).empty());
    harness.write(data_register, 'x');
    CHECK((harness.read(line_status) & thr_empty) != 0);
}

TEST_CASE("SerialConsole: a reader that pauses holds the guest only after a MiB, and nothing is lost",
          "[console]") {
    const Pipe output = make_pipe();
    Harness harness(-1, output.write_end.get());
    std::string sent;
    std::size_t held_first_at = 0;
    std::string received;
    // A driver that waits for THRE before each byte; the reader comes to life only when the guest is held.
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

TEST_CASE("SerialConsole: what was kept for a reader that went away is counted as lost", "[console]") {
    std::signal(SIGPIPE, SIG_IGN);
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

TEST_CASE("OutputQueue: bytes come out in order however they are put in and taken, never more than fit",
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
    std::signal(SIGPIPE, SIG_IGN);
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
        Harness harness(input.read_end.get(), -1, true);
        CHECK(harness.drain(6) ==
              "a\x01"
              "b");
        CHECK(harness.commands == std::vector{ConsoleCommand::exit});
    }
    SECTION("not interactive") {
        Harness harness(input.read_end.get(), -1, false);
        CHECK(harness.drain(6) == keys);
        CHECK(harness.commands.empty());
    }
}

TEST_CASE("SerialConsole: a command is found while the guest reads nothing, and the input waits",
          "[console]") {
    const Pipe input = make_pipe();
    Harness harness(input.read_end.get(), -1, true);
    const std::string sent(3000, 'y');
    REQUIRE(::write(input.write_end.get(), sent.data(), sent.size()) == 3000);
    REQUIRE(::write(input.write_end.get(), "\x01x", 2) == 2);
    harness.loop();
    harness.loop();
    CHECK(harness.commands == std::vector{ConsoleCommand::exit});
    CHECK(harness.drain(3000) == sent);
}

TEST_CASE("SerialConsole: what is read ahead for commands is bounded", "[console]") {
    const Pipe input = make_pipe();
    Harness harness(input.read_end.get(), -1, true);
    const std::string chunk(4096, 'z');
    std::size_t written = 0;
    for (int i = 0; i < 1000; ++i) {
        const ssize_t count = ::write(input.write_end.get(), chunk.data(), chunk.size());
        written += count > 0 ? static_cast<std::size_t>(count) : 0;
        harness.loop();
    }
    CHECK(written <= 16384 + 65536 + 64);
    CHECK(harness.drain(written).size() == written);
}

TEST_CASE("SerialConsole: a BREAK reaches the guest", "[console]") {
    Harness harness(-1, -1);
    harness.console().send_break();
    CHECK((harness.read(line_status) & 0x11) == 0x11);
}
