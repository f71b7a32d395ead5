// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
// kvm_vmm and the peers of its serial ports: readers that leave, terminals that other processes read too.
// Each test has less time than kvm_vmm's patience with a reader, so that waiting for nobody is a failure.
#include <algorithm>
#include <array>
#include <csignal>
#include <fcntl.h>
#include <poll.h>
#include <string>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>
#include <vector>

#include <vmsuperio/linux/unique_fd.hpp>

#include "program.hpp"

using namespace kvm_vmm::test;
using vmsuperio::UniqueFd;

namespace {

void append32(std::vector<std::uint8_t>& code, std::uint32_t value) {
    for (const unsigned shift : {0U, 8U, 16U, 24U}) {
        code.push_back(static_cast<std::uint8_t>(value >> shift));
    }
}

/// Sends `size` bytes and resets. Before that, it writes to `dirty_pages` pages from 32 MiB up.
std::vector<std::uint8_t> flood_code(std::uint32_t size, std::uint32_t dirty_pages = 0) {
    std::vector<std::uint8_t> code;
    if (dirty_pages != 0) {
        code = {0xBF, 0x00, 0x00, 0x00, 0x02, 0xB9};  // mov edi, 32 MiB; mov ecx, dirty_pages
        append32(code, dirty_pages);
        // mov byte [rdi], 1; add rdi, 4096; dec ecx; jnz back
        code.insert(code.end(),
                    {0xC6, 0x07, 0x01, 0x48, 0x81, 0xC7, 0x00, 0x10, 0x00, 0x00, 0xFF, 0xC9, 0x75, 0xF2});
    }
    // mov dx, 0x3F8; lea rsi, [rip]; mov ecx, size; cld; rep outsb; mov al, 0xFE; out 0x64, al; hlt
    code.insert(code.end(), {0x66, 0xBA, 0xF8, 0x03, 0x48, 0x8D, 0x35, 0, 0, 0, 0, 0xB9});
    append32(code, size);
    code.insert(code.end(), {0xFC, 0xF3, 0x6E, 0xB0, 0xFE, 0xE6, 0x64, 0xF4});
    return code;
}

/// kvm_vmm with nothing on stdin, its errors in a file.
class Program {
public:
    Program(const ScratchDirectory& directory, const std::vector<std::string>& arguments, int output = -1,
            int error_output = -1)
        : errors_(directory / "errors"), child_(fork_child()) {
        if (child_ == 0) {
            // The state that a shell leaves, whatever the test's parent did.
            std::signal(SIGPIPE, SIG_DFL);
            ::dup2(::open("/dev/null", O_RDONLY), STDIN_FILENO);
            ::dup2(output >= 0 ? output : ::open("/dev/null", O_WRONLY), STDOUT_FILENO);
            ::dup2(error_output >= 0 ? error_output
                                     : ::open(errors_.c_str(), O_WRONLY | O_CREAT | O_TRUNC, 0600),
                   STDERR_FILENO);
            // No copies of descriptors that the test closes.
            ::close_range(3, ~0U, 0);
            ::alarm(25);
            exec(arguments);
        }
    }
    ~Program() {
        if (child_ > 0) {
            ::kill(child_, SIGKILL);
            ::waitpid(child_, nullptr, 0);
        }
    }
    Program(const Program&) = delete;
    Program& operator=(const Program&) = delete;

    [[nodiscard]] std::string errors() const { return slurp(errors_); }
    [[nodiscard]] pid_t id() const { return child_; }
    /// The status is SIGALRM if the 25 seconds have passed.
    [[nodiscard]] int wait() {
        int status = 0;
        REQUIRE(::waitpid(child_, &status, 0) == child_);
        child_ = -1;
        return exit_code_of(status);
    }
    /// Waits until the guest has ended and only its output, of which `reader` has a part, keeps the process alive.
    void wait_until_no_vcpu(int reader) const {
        INFO(errors());
        // A vCPU has run once there is output. Its thread may already have ended by then.
        pollfd output{.fd = reader, .events = POLLIN, .revents = 0};
        REQUIRE(::poll(&output, 1, 20'000) == 1);
        REQUIRE((output.revents & POLLIN) != 0);
        for (int i = 0; i < 2000 && threads() != 1; ++i) {
            ::usleep(10'000);
        }
        REQUIRE(threads() == 1);
    }
    [[nodiscard]] long resident_kib() const { return status_field("VmRSS:"); }
    [[nodiscard]] long peak_resident_kib() const { return status_field("VmHWM:"); }

private:
    // Does not count the kernel's thread (kvm-nx-lpage-recovery), which exists as long as the VM's
    // descriptor.
    [[nodiscard]] std::ptrdiff_t threads() const {
        std::error_code gone;
        const fs::directory_iterator tasks("/proc/" + std::to_string(child_) + "/task", gone);
        return std::count_if(begin(tasks), end(tasks), [](const fs::directory_entry& task) {
            return !slurp(task.path() / "comm").starts_with("kvm-");
        });
    }
    [[nodiscard]] long status_field(const std::string& name) const {
        const std::string text = slurp("/proc/" + std::to_string(child_) + "/status");
        const std::size_t at = text.find('\n' + name);
        return at == std::string::npos ? -1 : std::stol(text.substr(at + 1 + name.size()));
    }

    fs::path errors_;
    pid_t child_;
};

vmsuperio::UniqueFd connect_to(const std::string& path) {
    sockaddr_un address{};
    address.sun_family = AF_UNIX;
    path.copy(address.sun_path, sizeof(address.sun_path) - 1);
    vmsuperio::UniqueFd fd(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
    for (int i = 0; i < 1000; ++i) {
        if (::connect(fd.get(), reinterpret_cast<const sockaddr*>(&address), sizeof(address)) == 0) {
            return fd;
        }
        ::usleep(10'000);
    }
    FAIL("no socket at " << path);
    return fd;
}

std::string terminal_of(const Program& program) {
    for (int i = 0; i < 1000; ++i) {
        const std::string text = program.errors();
        const std::size_t at = text.find("/dev/pts/");
        const std::size_t end = text.find('\n', at);
        if (at != std::string::npos && end != std::string::npos) {
            return text.substr(at, end - at);
        }
        ::usleep(10'000);
    }
    FAIL("no terminal");
    return {};
}

std::array<vmsuperio::UniqueFd, 2> make_pipe() {
    std::array<int, 2> ends{};
    REQUIRE(::pipe2(ends.data(), O_CLOEXEC) == 0);
    return {vmsuperio::UniqueFd(ends[0]), vmsuperio::UniqueFd(ends[1])};
}

}  // namespace

TEST_CASE("kvm_vmm: it does not wait for a reader that leaves while the output of an ended guest waits",
          "[program]") {
    REQUIRE_KVM();
    const ScratchDirectory directory;
    const std::string kernel = directory.write("kernel", make_bzimage(flood_code(150'000))).string();
    const std::vector<std::string> arguments{"--kernel", kernel, "--memory", "64M", "--serial"};
    const auto with = [&](const std::string& serial) {
        std::vector<std::string> all = arguments;
        all.push_back(serial);
        return all;
    };
    SECTION("of a pipe") {
        auto [reader, writer] = make_pipe();
        Program program(directory, with("stdio"), writer.get());
        writer.reset();
        program.wait_until_no_vcpu(reader.get());
        reader.reset();
        CHECK(program.wait() == 10);
    }
    SECTION("of a socket as standard output") {
        std::array<int, 2> ends{};
        REQUIRE(::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends.data()) == 0);
        vmsuperio::UniqueFd reader(ends[0]);
        vmsuperio::UniqueFd writer(ends[1]);
        Program program(directory, with("stdio"), writer.get());
        writer.reset();
        program.wait_until_no_vcpu(reader.get());
        reader.reset();
        CHECK(program.wait() == 10);
    }
    SECTION("a client of a socket, connected while the guest was running") {
        const std::string path = (directory / "socket").string();
        // The guest first waits for a byte (LSR.DR).
        std::vector<std::uint8_t> code{0x66, 0xBA, 0xFD, 0x03, 0xEC, 0xA8, 0x01, 0x74, 0xFB};
        const std::vector<std::uint8_t> flood = flood_code(150'000);
        code.insert(code.end(), flood.begin(), flood.end());
        (void)directory.write("kernel", make_bzimage(code));
        Program program(directory, with("unix=" + path));
        vmsuperio::UniqueFd client = connect_to(path);
        REQUIRE(::send(client.get(), "!", 1, MSG_NOSIGNAL) == 1);
        program.wait_until_no_vcpu(client.get());
        client.reset();
        CHECK(program.wait() == 10);
    }
    SECTION("a program at a pseudo-terminal") {
        std::vector<std::uint8_t> code{0x66, 0xBA, 0xFD, 0x03, 0xEC, 0xA8, 0x01, 0x74, 0xFB};
        const std::vector<std::uint8_t> flood = flood_code(150'000);
        code.insert(code.end(), flood.begin(), flood.end());
        (void)directory.write("kernel", make_bzimage(code));
        Program program(directory, with("pty"));
        vmsuperio::UniqueFd reader(::open(terminal_of(program).c_str(), O_RDWR | O_NOCTTY | O_CLOEXEC));
        REQUIRE(reader);
        ::usleep(300'000);  // so that the client is noticed before it writes
        REQUIRE(::write(reader.get(), "!", 1) == 1);
        program.wait_until_no_vcpu(reader.get());
        reader.reset();
        CHECK(program.wait() == 10);
    }
    SECTION("a socket or a pseudo-terminal without any peer so far") {
        for (const std::string& serial : {std::string("pty"), "unix=" + (directory / "socket").string()}) {
            Program program(directory, with(serial));
            CHECK(program.wait() == 10);
        }
    }
    SECTION("the reader of a FIFO") {
        const std::string path = (directory / "fifo").string();
        REQUIRE(::mkfifo(path.c_str(), 0600) == 0);
        vmsuperio::UniqueFd reader(::open(path.c_str(), O_RDONLY | O_NONBLOCK | O_CLOEXEC));
        Program program(directory, with("file=" + path));
        program.wait_until_no_vcpu(reader.get());
        reader.reset();
        CHECK(program.wait() == 10);
    }
}

TEST_CASE("kvm_vmm: the memory of an ended guest is freed without waiting for a reader", "[program]") {
    REQUIRE_KVM();
    const ScratchDirectory directory;
    constexpr std::uint32_t pages = 7000;
    const std::string kernel = directory.write("kernel", make_bzimage(flood_code(300'000, pages))).string();
    auto [reader, writer] = make_pipe();
    Program program(directory, {"--kernel", kernel, "--memory", "64M"}, writer.get());
    writer.reset();
    // The kernel keeps the peak, so it does not matter how long the guest has run.
    long peak = 0;
    for (int i = 0; i < 2000; ++i) {
        peak = program.peak_resident_kib();
        if (peak > 4 * static_cast<long>(pages) &&
            program.resident_kib() < peak - 3 * static_cast<long>(pages)) {
            break;
        }
        ::usleep(10'000);
    }
    CHECK(peak > 4 * static_cast<long>(pages));
    CHECK(program.resident_kib() < peak - 3 * static_cast<long>(pages));
    std::array<char, 20'000> buffer{};
    std::size_t received = 0;
    for (ssize_t count = 0; (count = ::read(reader.get(), buffer.data(), buffer.size())) > 0;) {
        received += static_cast<std::size_t>(count);
    }
    CHECK(received == 300'000);
    CHECK(program.wait() == 10);
}

TEST_CASE("kvm_vmm: with a closed pipe as stdout or stderr it ends with its own exit code, not by SIGPIPE",
          "[program]") {
    REQUIRE_KVM();
    const ScratchDirectory directory;
    // mov dx, 0x3F8; mov al, '!'; out dx, al; cli; hlt; jmp back
    const std::string kernel =
        directory
            .write("kernel", make_bzimage({0x66, 0xBA, 0xF8, 0x03, 0xB0, '!', 0xEE, 0xFA, 0xF4, 0xEB, 0xFC}))
            .string();
    auto [reader, writer] = make_pipe();
    reader.reset();
    Program program(directory, {"--kernel", kernel, "--memory", "64M"}, writer.get(), writer.get());
    CHECK(program.wait() == 13);
}

TEST_CASE("kvm_vmm: Ctrl-A x ends it, whatever was typed before that the guest does not read", "[program]") {
    REQUIRE_KVM();
    const ScratchDirectory directory;
    const std::string spin = directory.write("spin", make_bzimage(spin_code)).string();
    Terminal terminal({"--kernel", spin, "--memory", "64M"});
    terminal.wait_until_raw();
    const std::size_t size = GENERATE(17'000U, 1'500'000U);
    const std::string chunk(1000, 'y');
    for (std::size_t typed = 0; typed < size; typed += chunk.size()) {
        terminal.type(chunk);
    }
    terminal.type("\x01x");
    CHECK(terminal.wait() == 0);
    CHECK(terminal.restored());
}

TEST_CASE("kvm_vmm: SIGTERM ends it while other processes read the same terminal, and they see no change",
          "[program]") {
    REQUIRE_KVM();
    const ScratchDirectory directory;
    const std::string spin = directory.write("spin", make_bzimage(spin_code)).string();
    Terminal terminal({"--kernel", spin, "--memory", "64M"});
    terminal.wait_until_raw();
    const int slave = terminal.descriptor();
    CHECK((::fcntl(slave, F_GETFL) & O_NONBLOCK) == 0);
    const pid_t other = fork_child();
    if (other == 0) {
        ::alarm(60);
        for (char byte = 0; ::read(slave, &byte, 1) >= 0;) {
        }
        ::_exit(0);
    }
    for (int i = 0; i < 500; ++i) {
        terminal.type("k");
        ::usleep(200);
    }
    terminal.send(SIGTERM);
    for (int i = 0; i < 1000 && !terminal.ended(); ++i) {
        ::usleep(10'000);
    }
    CHECK(terminal.ended());
    ::kill(other, SIGKILL);
    ::waitpid(other, nullptr, 0);
    CHECK(terminal.wait() == 128 + SIGTERM);
}

TEST_CASE("kvm_vmm: input reaches a guest that prints after each check for input", "[program]") {
    REQUIRE_KVM();
    const ScratchDirectory directory;
    // Read LSR; with data ready, reset; otherwise print a dot and read LSR again.
    // 0: mov dx, 0x3FD; in al, dx; test al, 1; jnz 19; mov dx, 0x3F8; mov al, '.'; out dx, al; jmp 0
    // 19: mov al, 0xFE; out 0x64, al; hlt
    const std::string kernel =
        directory
            .write("kernel",
                   make_bzimage({0x66, 0xBA, 0xFD, 0x03, 0xEC, 0xA8, 0x01, 0x75, 0x09, 0x66, 0xBA, 0xF8,
                                 0x03, 0xB0, '.',  0xEE, 0xEB, 0xEE, 0xB0, 0xFE, 0xE6, 0x64, 0xF4}))
            .string();
    Terminal terminal({"--kernel", kernel, "--memory", "64M"});
    terminal.wait_until_raw();
    terminal.type("q");
    for (int i = 0; i < 2000 && !terminal.ended(); ++i) {
        (void)terminal.output();
        ::usleep(10'000);
    }
    REQUIRE(terminal.ended());
    CHECK(terminal.wait() == 10);
}
