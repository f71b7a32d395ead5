// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
// The virtio console (VIRTIO 1.2, 5.3) with its back ends: pipes, files, sockets and pseudo-terminals.
#include <array>
#include <cstdint>
#include <fcntl.h>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <termios.h>
#include <unistd.h>
#include <utility>
#include <vector>

#include "catch.hpp"
#include "console/pty_backend.hpp"
#include "console/unix_socket_backend.hpp"
#include "scratch_directory.hpp"
#include "serial_console_harness.hpp"
#include "virtio/console.hpp"
#include "virtio_mmio_driver.hpp"

using namespace kvm_vmm;
using namespace kvm_vmm::virtio;
using kvm_vmm::test::as_bytes;
using kvm_vmm::test::DeviceRig;
using kvm_vmm::test::make_pipe;
using kvm_vmm::test::Pipe;
using kvm_vmm::test::random_text;
using kvm_vmm::test::read_all;

namespace {

constexpr std::uint32_t receive = Console::receive_queue;
constexpr std::uint32_t transmit = Console::transmit_queue;
constexpr std::uint64_t emergency_register = mmio::config + 8;
/// What waits in the channel at most before the driver's buffers wait.
constexpr std::size_t queue_capacity = OutputQueue::capacity;

/// A machine with a console. The driver is not started.
class ConsoleRig {
public:
    using MakeBackend = std::function<std::unique_ptr<SerialBackend>(EventManager&)>;

    explicit ConsoleRig(const MakeBackend& make)
        : rig([this, &make](DeviceRig& r) {
              backend = make(r.events);
              return console = std::make_shared<Console>(
                         "console0", r.counters, r.events, *backend,
                         [this](ConsoleCommand command) { commands.push_back(command); });
          }) {}
    ConsoleRig(int input, int output, SerialBackend::Input kind = SerialBackend::Input::plain)
        : ConsoleRig([=](EventManager&) { return use_descriptors(input, output, kind); }) {}
    ~ConsoleRig() {
        console.reset();
        rig.transport.reset();  // before its back end
    }
    ConsoleRig(const ConsoleRig&) = delete;
    ConsoleRig& operator=(const ConsoleRig&) = delete;

    DeviceRig* operator->() { return &rig; }

    /// Another device takes the place of the console, with its state, the same memory and the same back end.
    void save_and_restore() {
        const MmioState saved = rig.transport->state();
        console.reset();
        rig.transport.reset();
        console = std::make_shared<Console>("console0", rig.counters, rig.events, *backend,
                                            [this](ConsoleCommand command) { commands.push_back(command); });
        rig.transport =
            std::make_unique<MmioTransport>(rig.memory, console, vmsuperio::EventFdTrigger::create().value());
        REQUIRE(rig.transport->restore(saved));
    }

    /// Offers a buffer for input.
    void offer_room(std::uint32_t size) {
        const std::array<std::uint32_t, 1> sizes{size};
        rig.offer(receive, {}, sizes);
        rooms.push_back(rig.last_writable.front());
        rig.notify(receive);
    }
    /// The input in the buffers that the device has returned since the last call.
    std::string take_input() {
        rig.run_events();
        std::string text;
        while (const auto used = rig.queues.at(receive)->take_used()) {
            const GuestRange room = rooms.at(next_room++);
            REQUIRE(used->written <= room.size);
            std::vector<std::uint8_t> bytes(used->written);
            REQUIRE(rig.memory.read(room.address, bytes));
            text.append(bytes.begin(), bytes.end());
        }
        return text;
    }
    /// Offers a buffer of output, and notifies the device.
    void send(std::string_view text) {
        rig.offer(transmit, as_bytes(text), {});
        rig.notify(transmit);
    }
    /// How many buffers of output the device has returned since the last call; none may be "written".
    std::size_t sent() {
        std::size_t count = 0;
        while (const auto used = rig.queues.at(transmit)->take_used()) {
            CHECK(used->written == 0);
            ++count;
        }
        return count;
    }
    std::uint64_t counter(std::string_view name) { return rig.counters[name].value(); }

    std::vector<ConsoleCommand> commands;
    std::unique_ptr<SerialBackend> backend;
    std::shared_ptr<Console> console;
    DeviceRig rig;
    std::vector<GuestRange> rooms;
    std::size_t next_room{0};
};

void write_all(int fd, std::string_view text) {
    REQUIRE(::write(fd, text.data(), text.size()) == static_cast<ssize_t>(text.size()));
}

vmsuperio::UniqueFd connect_to(const std::string& path) {
    vmsuperio::UniqueFd fd(::socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0));
    sockaddr_un address{};
    address.sun_family = AF_UNIX;
    path.copy(address.sun_path, sizeof(address.sun_path) - 1);
    REQUIRE(::connect(fd.get(), reinterpret_cast<const sockaddr*>(&address), sizeof(address)) == 0);
    return fd;
}

/// A pseudo-terminal in raw mode, whose slave is the back end's terminal.
struct Terminal {
    vmsuperio::UniqueFd master{::posix_openpt(O_RDWR | O_NOCTTY | O_NONBLOCK | O_CLOEXEC)};
    vmsuperio::UniqueFd slave;

    Terminal() {
        REQUIRE(::grantpt(master.get()) == 0);
        REQUIRE(::unlockpt(master.get()) == 0);
        slave = vmsuperio::UniqueFd(::open(::ptsname(master.get()), O_RDWR | O_NOCTTY | O_CLOEXEC));
        REQUIRE(slave);
        termios mode{};
        REQUIRE(::tcgetattr(slave.get(), &mode) == 0);
        ::cfmakeraw(&mode);
        REQUIRE(::tcsetattr(slave.get(), TCSANOW, &mode) == 0);
        resize(80, 25);
    }
    void resize(std::uint16_t columns, std::uint16_t rows) const {
        const winsize size{.ws_row = rows, .ws_col = columns, .ws_xpixel = 0, .ws_ypixel = 0};
        REQUIRE(::ioctl(slave.get(), TIOCSWINSZ, &size) == 0);
    }
};

}  // namespace

TEST_CASE("virtio console: it has one port, whose size is offered for a terminal only", "[virtio][hvc]") {
    const Pipe output = make_pipe();
    ConsoleRig rig(-1, output.write_end.get());
    CHECK(rig->read(mmio::device_id) == 3);
    CHECK((rig->device_features() & 0xFF'FFFFU) == Console::feature_emergency_write);
    CHECK(rig->config<std::uint32_t>(0) == 0);
    rig->write(mmio::queue_sel, 2);
    CHECK(rig->read(mmio::queue_num_max) == 0);

    const Terminal terminal;
    ConsoleRig with_terminal(-1, terminal.slave.get());
    CHECK((with_terminal->device_features() & 0xFF'FFFFU) ==
          (Console::feature_emergency_write | Console::feature_size));
    CHECK(with_terminal->config<std::uint16_t>(0) == 80);
    CHECK(with_terminal->config<std::uint16_t>(2) == 25);
}

TEST_CASE("virtio console: a buffer of any size takes one notification, and leaves as a whole",
          "[virtio][hvc]") {
    const Pipe output = make_pipe();
    ConsoleRig rig(-1, output.write_end.get());
    rig->start();
    const std::uint64_t before = rig.counter("notifications");
    const std::string text = random_text(4096);
    rig.send(text);
    rig->run_events();
    CHECK(read_all(output.read_end.get()) == text);
    CHECK(rig.sent() == 1);
    CHECK(rig.counter("notifications") == before + 1);
    CHECK(rig.counter("bytes_sent") == 4096);
    CHECK(rig->interrupts() == 1);
}

TEST_CASE("virtio console: buffers of several descriptors and empty ones are output in order",
          "[virtio][hvc]") {
    const Pipe output = make_pipe();
    ConsoleRig rig(-1, output.write_end.get());
    rig->start();
    const std::array<std::uint32_t, 1> writable{16};
    rig->offer(transmit, as_bytes("one "), writable);  // the writable part is not output
    rig->offer(transmit, {}, writable);                // nothing to send
    rig->offer(transmit, as_bytes("two"), {});
    rig->notify(transmit);
    rig->run_events();
    CHECK(read_all(output.read_end.get()) == "one two");
    CHECK(rig.sent() == 3);
    CHECK_FALSE(rig->needs_reset());
}

TEST_CASE("virtio console: input that comes before the driver waits for it, in order", "[virtio][hvc]") {
    const bool commands = GENERATE(false, true);
    const Pipe input = make_pipe();
    ConsoleRig rig(input.read_end.get(), -1,
                   commands ? SerialBackend::Input::commands : SerialBackend::Input::plain);
    write_all(input.write_end.get(), "typed early, ");
    rig->run_events();
    rig->start();
    rig->run_events();
    write_all(input.write_end.get(), "and late");
    rig->run_events();
    rig.offer_room(5);
    CHECK(rig.take_input() == "typed");
    rig.offer_room(100);
    // Without commands the second part is read after the first one has been delivered.
    std::string rest = rig.take_input();
    rig.offer_room(100);
    rest += rig.take_input();
    CHECK(rest == " early, and late");
    CHECK(rig.counter("bytes_received") == 21);
    write_all(input.write_end.get(), "!");
    if (rig.next_room == rig.rooms.size()) {
        rig.offer_room(100);
    }
    CHECK(rig.take_input() == "!");
}

TEST_CASE("virtio console: a plain sender waits while the driver offers no room", "[virtio][hvc]") {
    const Pipe input = make_pipe();
    ConsoleRig rig(input.read_end.get(), -1);
    rig->start();
    const std::string text = random_text(60'000);
    write_all(input.write_end.get(), text);
    rig->run_events();
    int unread = 0;
    REQUIRE(::ioctl(input.read_end.get(), FIONREAD, &unread) == 0);
    CHECK(unread == 60'000);
    std::string got;
    for (int i = 0; i < 100 && got.size() < text.size(); ++i) {
        rig.offer_room(1000);
        got += rig.take_input();
    }
    CHECK(got == text);
}

TEST_CASE("virtio console: the guest continues after the end of the input", "[virtio][hvc]") {
    Pipe input = make_pipe();
    const Pipe output = make_pipe();
    ConsoleRig rig(input.read_end.get(), output.write_end.get());
    rig->start();
    write_all(input.write_end.get(), "last");
    input.write_end.reset();
    rig.offer_room(10);
    CHECK(rig.take_input() == "last");
    rig.offer_room(10);
    CHECK(rig.take_input().empty());
    // Nothing is ready any more, as the end is not waited for.
    CHECK(rig->events.run_once(0) == 0);
    rig.send("on");
    rig->run_events();
    CHECK(read_all(output.read_end.get()) == "on");
}

TEST_CASE("virtio console: a saved state has the bytes of a buffer that were sent, and the terminal's size",
          "[virtio][hvc][state]") {
    SECTION("output continues within the buffer") {
        const Pipe output = make_pipe();
        ConsoleRig rig(-1, output.write_end.get());
        rig->start();
        const std::string text = random_text(256 * 1024);
        std::string all;
        for (int i = 0; i < 7; ++i) {
            rig.send(text);
            all += text;
            rig->run_events();
        }
        rig.save_and_restore();
        std::string got;
        CHECK(rig->run_until([&] { return (got += read_all(output.read_end.get())).size() >= all.size(); }));
        rig->run_events();
        CHECK(got + read_all(output.read_end.get()) == all);
    }
    SECTION("a size that has changed since is announced") {
        const bool changed = GENERATE(false, true);
        const Terminal terminal;
        ConsoleRig rig(-1, terminal.slave.get());
        rig->start();
        if (changed) {
            terminal.resize(100, 40);
        }
        rig.save_and_restore();
        CHECK(rig->config<std::uint16_t>(0) == (changed ? 100 : 80));
        CHECK(rig->config<std::uint16_t>(2) == (changed ? 40 : 25));
        CHECK(rig->read(mmio::interrupt_status) == (changed ? interrupt_status::configuration_change : 0U));
    }
}

TEST_CASE("virtio console: a reader that pauses stops the driver only after 1 MiB, and nothing is lost",
          "[virtio][hvc]") {
    const Pipe output = make_pipe();
    ConsoleRig rig(-1, output.write_end.get());
    rig->start();
    const std::string text = random_text(256 * 1024);
    std::string all;
    std::size_t returned = 0;
    for (int i = 0; i < 7; ++i) {
        rig.send(text);
        all += text;
        rig->run_events();
        returned += rig.sent();
    }
    // 64 KiB are in the pipe, 1 MiB in the channel, and the rest with the driver.
    CHECK(returned == 4);
    CHECK(rig.backend->output().unsent() == queue_capacity);
    CHECK(rig.counter("waits_for_reader") == 1);
    // Further notifications do not send a part of the buffer twice.
    rig->notify(transmit);
    rig->run_events();
    std::string read;
    CHECK(rig->run_until([&] {
        read += read_all(output.read_end.get());
        return read.size() >= all.size();
    }));
    rig->run_events();
    CHECK(read == all);
    CHECK(rig.sent() == 3);
    CHECK(rig.counter("bytes_lost") == 0);
    CHECK(rig.counter("bytes_sent") == all.size());
}

TEST_CASE("virtio console: one driver's output does not keep the event loop", "[virtio][hvc]") {
    ConsoleRig rig(-1, -1);
    rig->start();
    // 64 chains of the same 8 MiB.
    for (std::uint16_t i = 0; i < 64; ++i) {
        rig->queues.at(transmit)->set(i, {.address = 0x40'0000, .length = 8U << 20U});
        rig->queues.at(transmit)->offer(i);
    }
    rig->notify(transmit);
    rig->events.run_once(0);
    CHECK(rig.counter("bytes_sent") <= 256UL * 1024);
    rig->run_events();
    CHECK(rig.sent() == 64);
    CHECK(rig.counter("bytes_sent") == 64ULL * (8U << 20U));
}

TEST_CASE("virtio console: the null back end, and one whose reader is gone, complete the buffers",
          "[virtio][hvc]") {
    ConsoleRig rig(-1, -1);
    rig->start();
    rig.send(random_text(2 << 20));
    rig->run_events();
    CHECK(rig.sent() == 1);

    Pipe output = make_pipe();
    ConsoleRig broken(-1, output.write_end.get());
    broken->start();
    output.read_end.reset();
    broken.send("lost");
    broken->run_events();
    CHECK(broken.sent() == 1);
    CHECK(broken.counter("bytes_lost") == 4);
    CHECK(broken.counter("bytes_sent") == 0);
    CHECK_FALSE(broken->needs_reset());
}

TEST_CASE("virtio console: a full device of the host loses output, which is counted", "[virtio][hvc]") {
    const vmsuperio::UniqueFd full(::open("/dev/full", O_WRONLY | O_CLOEXEC));
    ConsoleRig rig(-1, full.get());
    rig->start();
    rig.send("lost");
    rig->run_events();
    CHECK(rig.sent() == 1);
    CHECK(rig.counter("bytes_lost") == 4);
}

TEST_CASE("virtio console: commands are found, and a BREAK is not put into the input", "[virtio][hvc]") {
    const Pipe input = make_pipe();
    ConsoleRig rig(input.read_end.get(), -1, SerialBackend::Input::commands);
    rig->start();
    write_all(input.write_end.get(),
              "a\x01"
              "bb\x01"
              "xc\x01\x01"
              "d\x01s");
    rig->run_events();
    CHECK(rig.commands ==
          std::vector{ConsoleCommand::send_break, ConsoleCommand::exit, ConsoleCommand::status});
    rig.offer_room(100);
    CHECK(rig.take_input() ==
          "abc\x01"
          "d");
}

TEST_CASE("virtio console: an emergency write needs no driver", "[virtio][hvc]") {
    const Pipe output = make_pipe();
    ConsoleRig rig(-1, output.write_end.get());
    rig->write(emergency_register, 'a');
    rig->write_as<std::uint8_t>(emergency_register, 'b');
    rig->write_as<std::uint16_t>(emergency_register, 0x100 + 'c');
    // These do not write the register's low byte.
    rig->write_as<std::uint8_t>(emergency_register + 1, 'x');
    rig->write(mmio::config + 4, 0x78787878);
    rig->write(mmio::config + 12, 'x');
    rig->write(mmio::config, 0x78787878);
    CHECK(read_all(output.read_end.get()) == "abc");
    CHECK(rig->config<std::uint32_t>(8) == 0);
    rig->start();
    rig->write(emergency_register, 'd');
    CHECK(read_all(output.read_end.get()) == "d");
}

TEST_CASE("virtio console: emergency output that waits is sent by the event loop; beyond 1 MiB it is lost",
          "[virtio][hvc]") {
    const Pipe output = make_pipe();
    ConsoleRig rig(-1, output.write_end.get());
    rig->start();
    const std::string text = random_text(queue_capacity + 65536 - 1);
    rig.send(text);
    rig->run_events();
    REQUIRE(rig.sent() == 1);
    rig->write(emergency_register, 'y');
    rig->write(emergency_register, 'z');
    CHECK(rig.counter("bytes_lost") == 1);
    std::string read;
    CHECK(rig->run_until([&] {
        read += read_all(output.read_end.get());
        return read.size() > text.size();
    }));
    CHECK(read == text + 'y');

    const Pipe second = make_pipe();
    ConsoleRig idle(-1, second.write_end.get());
    REQUIRE(::fcntl(second.write_end.get(), F_SETPIPE_SZ, 4096) == 4096);
    for (int i = 0; i < 5000; ++i) {
        idle->write(emergency_register, 'e');
    }
    CHECK(idle->run_until(
        [&, n = std::size_t{0}]() mutable { return (n += read_all(second.read_end.get()).size()) == 5000; }));
}

TEST_CASE("virtio console: a resized terminal is announced if the driver knows sizes", "[virtio][hvc]") {
    const Terminal terminal;
    ConsoleRig rig(terminal.slave.get(), terminal.slave.get(), SerialBackend::Input::keyboard);
    const bool accepted = GENERATE(true, false);
    CAPTURE(accepted);
    rig->start(accepted ? ~std::uint64_t{0} : ~Console::feature_size);
    (void)rig->interrupts();
    const std::uint32_t generation = rig->read(mmio::config_generation);
    rig.console->terminal_resized();  // to the same size
    CHECK(rig->interrupts() == 0);
    terminal.resize(132, 43);
    rig.console->terminal_resized();
    CHECK(rig->take_interrupt_status() == (accepted ? interrupt_status::configuration_change : 0));
    CHECK(rig->interrupts() == (accepted ? 1 : 0));
    CHECK((rig->read(mmio::config_generation) != generation) == accepted);
    CHECK(rig->config<std::uint16_t>(0) == 132);
    CHECK(rig->config<std::uint16_t>(2) == 43);
    // Before the driver is there, nobody is interrupted.
    rig->reset();
    terminal.resize(80, 25);
    rig.console->terminal_resized();
    CHECK(rig->read(mmio::interrupt_status) == 0);
    CHECK(rig->config<std::uint16_t>(0) == 80);
}

TEST_CASE("virtio console: the size of a pseudo-terminal is read again with its input", "[virtio][hvc]") {
    ConsoleRig rig([](EventManager& events) { return std::make_unique<PtyBackend>(events, "console"); });
    rig->start();
    auto& pty = dynamic_cast<PtyBackend&>(*rig.backend);
    CHECK(pty.input_fd() == -1);
    CHECK((rig->device_features() & Console::feature_size) != 0);
    // The name is that of the newest pseudo-terminal of this process: found through its descriptors.
    std::string name;
    for (int fd = 3; fd < 256; ++fd) {
        std::array<char, 64> text{};
        if (::ptsname_r(fd, text.data(), text.size()) == 0) {
            name = text.data();
        }
    }
    REQUIRE_FALSE(name.empty());
    const vmsuperio::UniqueFd program(::open(name.c_str(), O_RDWR | O_NOCTTY | O_NONBLOCK | O_CLOEXEC));
    REQUIRE(program);
    REQUIRE(rig->run_until([&] { return pty.input_fd() >= 0; }));
    const winsize size{.ws_row = 50, .ws_col = 100, .ws_xpixel = 0, .ws_ypixel = 0};
    REQUIRE(::ioctl(program.get(), TIOCSWINSZ, &size) == 0);
    rig.offer_room(10);
    write_all(program.get(), "k");
    REQUIRE(rig->run_until([&] { return rig.counter("bytes_received") == 1; }));
    CHECK(rig->config<std::uint16_t>(0) == 100);
    CHECK(rig->config<std::uint16_t>(2) == 50);
    CHECK((rig->take_interrupt_status() & interrupt_status::configuration_change) != 0);
}

TEST_CASE("virtio console: clients of a socket come and go while the driver runs", "[virtio][hvc]") {
    const test::ScratchDirectory directory;
    const std::string path = (directory / "socket").string();
    ConsoleRig rig([&](EventManager& events) { return std::make_unique<UnixSocketBackend>(path, events); });
    rig->start();
    rig.send("while nobody listens, ");
    rig->run_events();
    CHECK(rig.sent() == 1);
    {
        const vmsuperio::UniqueFd client = connect_to(path);
        rig->run_events();
        rig.send("hello");
        rig->run_events();
        CHECK(read_all(client.get()) == "while nobody listens, hello");
        rig.offer_room(10);
        write_all(client.get(), "one");
        CHECK(rig.take_input() == "one");
    }
    rig->run_events();
    const vmsuperio::UniqueFd client = connect_to(path);
    rig->run_events();
    rig.offer_room(10);
    write_all(client.get(), "two");
    CHECK(rig.take_input() == "two");
}

TEST_CASE("virtio console: a client that leaves without reading frees the driver's buffers",
          "[virtio][hvc]") {
    const test::ScratchDirectory directory;
    const std::string path = (directory / "socket").string();
    ConsoleRig rig([&](EventManager& events) { return std::make_unique<UnixSocketBackend>(path, events); });
    rig->start();
    vmsuperio::UniqueFd client = connect_to(path);
    rig->run_events();
    rig.send(random_text(2 << 20));
    rig->run_events();
    CHECK(rig.sent() == 0);
    client.reset();
    rig->run_events();
    CHECK(rig.sent() == 1);
    CHECK(rig.counter("bytes_lost") != 0);
}

TEST_CASE("virtio console: a reset while output waits forgets the buffer, and the next driver starts afresh",
          "[virtio][hvc]") {
    const Pipe output = make_pipe();
    ConsoleRig rig(-1, output.write_end.get());
    rig->start();
    const std::string text = random_text(queue_capacity + 65536);
    rig.send(text);
    rig.send("never");
    rig->run_events();
    REQUIRE(rig.sent() == 1);
    rig->start();
    CHECK(rig->queues.at(transmit)->used_index() == 0);
    rig.send("next");
    rig->run_events();
    CHECK(rig.sent() == 0);
    std::string read;
    CHECK(rig->run_until([&] {
        read += read_all(output.read_end.get());
        return read.size() >= text.size() + 4;
    }));
    CHECK(read == text + "next");
    CHECK(rig.sent() == 1);
}

TEST_CASE(
    "virtio console: the buffer behind one that was sent in part, and is refused then, is sent as a whole",
    "[virtio][hvc]") {
    const Pipe output = make_pipe();
    ConsoleRig rig(-1, output.write_end.get());
    rig->start();
    const std::string text = random_text(queue_capacity + 4 * 65536);
    const std::uint16_t head = rig->offer(transmit, as_bytes(text), {});
    rig->notify(transmit);
    rig->run_events();
    REQUIRE(rig.sent() == 0);
    const std::uint64_t taken = rig.counter("bytes_sent");
    REQUIRE(taken > 65536);
    rig->queues.at(transmit)->set(head, {.address = 0xD000'0000, .length = 64});  // no RAM
    const std::string next = random_text(8000);
    rig->offer(transmit, as_bytes(next), {});
    const bool at_the_end = GENERATE(false, true);
    if (at_the_end) {
        rig.console->take_last_output();
    }
    std::string read;
    CHECK(rig->run_until([&] {
        read += read_all(output.read_end.get());
        return read.size() >= taken + next.size();
    }));
    CHECK((read == text.substr(0, taken) + next));
    CHECK(rig.counter("requests") == 2);
    CHECK(rig.counter("driver_errors") == 1);
    CHECK_FALSE(rig->needs_reset());
}

TEST_CASE("virtio console: a writable buffer in the output is one error, however often its chain waits",
          "[virtio][hvc]") {
    const Pipe output = make_pipe();
    ConsoleRig rig(-1, output.write_end.get());
    rig->start();
    std::string text = random_text(queue_capacity + 65536);
    rig.send(text);  // from now on there is no room for a single byte
    const std::array<std::uint32_t, 1> writable{16};
    rig->offer(transmit, as_bytes("waits"), writable);
    for (int i = 0; i < 5; ++i) {
        rig->notify(transmit);
        rig->run_events();
    }
    REQUIRE(rig.sent() == 1);
    CHECK(rig.counter("driver_errors") == 0);
    text += "waits";
    std::string read;
    CHECK(rig->run_until([&] { return (read += read_all(output.read_end.get())).size() >= text.size(); }));
    CHECK((read == text));
    CHECK(rig.sent() == 1);
    CHECK(rig.counter("driver_errors") == 1);
}

TEST_CASE("virtio console: the input queue of a driver that was reset is not written", "[virtio][hvc]") {
    const Pipe input = make_pipe();
    ConsoleRig rig(input.read_end.get(), -1);
    rig->start();
    rig.offer_room(10);
    rig->run_events();
    rig->reset();
    write_all(input.write_end.get(), "for the next");
    rig->run_events();
    std::vector<std::uint8_t> room(10);
    REQUIRE(rig->memory.read(rig.rooms.at(0).address, room));
    CHECK(room == std::vector<std::uint8_t>(10));
    rig.rooms.clear();
    rig->start();
    rig.offer_room(20);
    CHECK(rig.take_input() == "for the next");
}

TEST_CASE("virtio console: the last output is taken when the guest has ended, notified or not",
          "[virtio][hvc]") {
    const Pipe output = make_pipe();
    ConsoleRig rig(-1, output.write_end.get());
    rig->start();
    const std::string text = random_text(queue_capacity + 65536);
    rig.send(text);
    rig->run_events();
    rig->offer(transmit, as_bytes("last words"), {});  // without a notification
    rig.console->take_last_output();
    rig->transport->shut_down();
    CHECK(rig.console->unsent() == queue_capacity + 10);
    REQUIRE(rig->memory.give_back());
    std::string read;
    CHECK(rig->run_until([&] {
        read += read_all(output.read_end.get());
        return rig.console->unsent() == 0;
    }));
    read += read_all(output.read_end.get());
    CHECK(read == text + "last words");
    CHECK(rig.counter("bytes_lost") == 0);
    // The guest's memory is not used any more.
    rig->notify(transmit);
    rig->notify(receive);
    rig->run_events();
    CHECK_FALSE(rig->needs_reset());
}

TEST_CASE("virtio console: what a guest offers in the end is bounded", "[virtio][hvc]") {
    const Pipe output = make_pipe();
    ConsoleRig rig(-1, output.write_end.get());
    rig->start();
    for (std::uint16_t i = 0; i < 64; ++i) {
        rig->queues.at(transmit)->set(i, {.address = 0x40'0000, .length = 8U << 20U});
        rig->queues.at(transmit)->offer(i);
    }
    rig.console->take_last_output();
    CHECK(rig.console->unsent() == 2 * queue_capacity);
    CHECK(rig.counter("bytes_lost") == 64ULL * (8U << 20U) - 2 * queue_capacity - 65536);
}

TEST_CASE("virtio console: a broken ring needs a reset, and the back end stays usable", "[virtio][hvc]") {
    const Pipe input = make_pipe();
    const Pipe output = make_pipe();
    ConsoleRig rig(input.read_end.get(), output.write_end.get());
    rig->start();
    const std::uint32_t broken = GENERATE(receive, transmit);
    rig->queues.at(broken)->set_available_index(1000);
    rig->notify(broken);
    rig->run_events();
    CHECK(rig->needs_reset());
    write_all(input.write_end.get(), "kept");
    rig->run_events();
    CHECK(rig->events.run_once(0) == 0);
    rig->start();
    rig.rooms.clear();
    rig.offer_room(10);
    CHECK(rig.take_input() == "kept");
    rig.send("works");
    rig->run_events();
    CHECK(read_all(output.read_end.get()) == "works");
}
