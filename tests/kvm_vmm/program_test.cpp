// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
// kvm_vmm as a user sees it: run as a process, if necessary in a terminal of its own.
#include "program.hpp"

#include <array>
#include <set>
#include <string>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <vector>

using namespace kvm_vmm::test;

TEST_CASE("kvm_vmm: a wrong option results in one line and exit code 2", "[program]") {
    const ScratchDirectory directory;
    const Result result = run(directory, {"--kernel", "x", "--colour"});
    CHECK(result.exit_code == 2);
    CHECK(result.output.empty());
    CHECK(line_count(result.errors) == 1);
    CHECK_THAT(result.errors, Catch::Matchers::Contains("--colour"));
}

TEST_CASE("kvm_vmm: --help goes to stdout with exit code 0", "[program]") {
    const ScratchDirectory directory;
    const Result result = run(directory, {"--help"});
    CHECK(result.exit_code == 0);
    CHECK(result.errors.empty());
    CHECK_THAT(result.output, Catch::Matchers::Contains("--kernel"));
}

TEST_CASE("kvm_vmm: a file that is not a kernel results in one line and exit code 3", "[program]") {
    REQUIRE_KVM();
    const ScratchDirectory directory;
    const std::vector<std::string> kernels{
        (directory / "missing").string(),
        directory.write("text", "this is not a kernel\n").string(),
        directory.write("empty", "").string(),
        directory.write("truncated", make_bzimage(spin_code).substr(0, 3000)).string(),
        (directory / ".").string(),
        "/dev/zero",
    };
    for (const std::string& kernel : kernels) {
        INFO(kernel);
        const Result result = run(directory, {"--kernel", kernel});
        CHECK(result.exit_code == 3);
        CHECK(result.output.empty());
        CHECK(line_count(result.errors) == 1);
        CHECK_THAT(result.errors, Catch::Matchers::Contains(kernel));
    }
}

TEST_CASE("kvm_vmm: too little memory for the kernel results in one line", "[program]") {
    REQUIRE_KVM();
    const ScratchDirectory directory;
    const fs::path kernel = directory.write("kernel", make_bzimage(spin_code));
    const Result result = run(directory, {"--kernel", kernel.string(), "--memory", "1M"});
    CHECK((result.exit_code == 2 || result.exit_code == 3));
    CHECK(line_count(result.errors) == 1);
    CHECK_THAT(result.errors, Catch::Matchers::Contains("1 MiB"));
}

TEST_CASE("kvm_vmm: the guest's output is written and its reset ends with 10, whatever stdin is",
          "[program]") {
    REQUIRE_KVM();
    const ScratchDirectory directory;
    const fs::path kernel = directory.write("kernel", make_bzimage(reset_code));
    const fs::path file = directory.write("input", "typed before the guest looks");
    for (const std::string& input : {std::string("/dev/null"), std::string("-"), file.string()}) {
        INFO(input);
        const Result result = run(directory, {"--kernel", kernel.string(), "--memory", "64M"}, input);
        CHECK(result.exit_code == 10);
        CHECK(result.output == "!");
        CHECK(result.errors.empty());
    }
}

TEST_CASE(
    "kvm_vmm: what the command line names and the machine lacks is in the log, and why a root is missing",
    "[program]") {
    REQUIRE_KVM();
    const ScratchDirectory directory;
    // mov al, 0xFE; out 0x64, al; hlt: a guest without drivers resets the machine
    const std::string kernel =
        directory.write("kernel", make_bzimage({0xB0, 0xFE, 0xE6, 0x64, 0xF4})).string();
    const std::string disk = directory.write("disk", std::string(4096, 'd')).string();
    const auto errors = [&](const std::string& cmdline, std::vector<std::string> more = {}) {
        std::vector<std::string> arguments{"--kernel", kernel, "--memory",  "64M",
                                           "--serial", "null", "--cmdline", cmdline};
        arguments.insert(arguments.end(), more.begin(), more.end());
        const Result result = run(directory, arguments);
        CHECK(result.exit_code == 10);
        return result.errors;
    };
    CHECK(errors("console=ttyS0 root=/dev/ram0").empty());
    CHECK(errors("root=/dev/vda console=hvc0") ==
          "kvm_vmm: warning: root=/dev/vda names a disk that this machine does not have; it has no --disk\n"
          "kvm_vmm: warning: console=hvc0 names a virtio console that this machine does not have; it has 0 "
          "(--console)\n");
    CHECK(errors("root=/dev/vda1", {"--disk", disk}) ==
          "kvm_vmm: warning: the guest has not used its root disk0 (/dev/vda): its kernel needs the drivers "
          "virtio_mmio and virtio_blk, built in or as modules that an initramfs loads (there is no "
          "--initrd)\n");
    CHECK(errors("root=UUID=1234", {"--disk", disk}).empty());
}

TEST_CASE("kvm_vmm: output can be written to a file or discarded", "[program]") {
    REQUIRE_KVM();
    const ScratchDirectory directory;
    const fs::path kernel = directory.write("kernel", make_bzimage(reset_code));
    const std::string file = (directory / "console").string();
    Result result =
        run(directory, {"--kernel", kernel.string(), "--memory", "64M", "--serial", "file=" + file});
    CHECK(result.exit_code == 10);
    CHECK(result.output.empty());
    CHECK(slurp(file) == "!");
    result = run(directory, {"--kernel", kernel.string(), "--memory", "64M", "--serial", "null"});
    CHECK(result.exit_code == 10);
    CHECK(result.output.empty());
    result =
        run(directory, {"--kernel", kernel.string(), "--serial", "file=" + (directory / "no/such").string()});
    CHECK(result.exit_code == 3);
    CHECK(line_count(result.errors) == 1);
}

TEST_CASE("kvm_vmm: the terminal is restored, however kvm_vmm ends", "[program]") {
    REQUIRE_KVM();
    const ScratchDirectory directory;
    const std::string spin = directory.write("spin", make_bzimage(spin_code)).string();
    const std::string reset = directory.write("reset", make_bzimage(reset_code)).string();

    SECTION("the guest's reset") {
        Terminal terminal({"--kernel", reset, "--memory", "64M"});
        CHECK(terminal.wait() == 10);
        CHECK(terminal.restored());
    }
    SECTION("Ctrl-A x") {
        Terminal terminal({"--kernel", spin, "--memory", "64M"});
        terminal.wait_until_raw();
        terminal.type("\x01x");
        CHECK(terminal.wait() == 0);
        CHECK(terminal.restored());
    }
    SECTION("signals that end it in an orderly way") {
        for (const int signal : {SIGTERM, SIGINT, SIGHUP, SIGQUIT}) {
            INFO(signal);
            Terminal terminal({"--kernel", spin, "--memory", "64M"});
            terminal.wait_until_raw();
            terminal.send(signal);
            const int status = terminal.wait_status();
            CHECK(WIFSIGNALED(status));
            CHECK(exit_code_of(status) == 128 + signal);
            CHECK(terminal.restored());
        }
    }
    SECTION("every other signal that ends a process") {
        // Signals that are ignored or have another purpose (SIGUSR1: the metrics, SIGUSR2: sizes of disks).
        const std::set<int> others{SIGCHLD, SIGCONT, SIGURG,  SIGWINCH, SIGTSTP, SIGTTIN, SIGTTOU,
                                   SIGKILL, SIGSTOP, SIGPIPE, SIGXFSZ,  SIGUSR1, SIGUSR2, 33};
        for (int signal = 1; signal <= SIGRTMAX; ++signal) {
            if (others.contains(signal)) {
                continue;
            }
            INFO(signal);
            Terminal terminal({"--kernel", spin, "--memory", "64M"});
            terminal.wait_until_raw();
            terminal.send(signal);
            const int status = terminal.wait_status();
            REQUIRE(WIFSIGNALED(status));
            CHECK(WTERMSIG(status) == signal);
            CHECK_FALSE(WCOREDUMP(status));
            CHECK(terminal.restored());
        }
    }
    SECTION("crashes") {
        for (const int signal : {SIGSEGV, SIGBUS, SIGILL, SIGFPE, SIGABRT}) {
            INFO(signal);
            Terminal terminal({"--kernel", spin, "--memory", "64M"});
            terminal.wait_until_raw();
            terminal.send(signal);
            CHECK(terminal.wait() == 128 + signal);
            CHECK(terminal.restored());
        }
    }
    SECTION("a set-up error") {
        Terminal terminal({"--kernel", "/dev/null"});
        CHECK(terminal.wait() == 3);
        CHECK(terminal.restored());
    }
}

TEST_CASE("kvm_vmm: a stopped process restores the terminal, and sets it again when it continues",
          "[program]") {
    REQUIRE_KVM();
    const ScratchDirectory directory;
    const std::string spin = directory.write("spin", make_bzimage(spin_code)).string();
    Terminal terminal({"--kernel", spin, "--memory", "64M"});
    terminal.wait_until_raw();
    terminal.send(SIGTSTP);
    for (int i = 0; i < 1000 && !terminal.restored(); ++i) {
        ::usleep(10'000);
    }
    CHECK(terminal.restored());
    terminal.send(SIGCONT);
    terminal.wait_until_raw();
    terminal.type("\x01x");
    CHECK(terminal.wait() == 0);
    CHECK(terminal.restored());
}

TEST_CASE("kvm_vmm: with a guest halted for good it ends with 13; with an idle guest it continues",
          "[program]") {
    REQUIRE_KVM();
    const ScratchDirectory directory;
    SECTION("halted") {
        const std::vector<std::uint8_t> halt_code{0xFA, 0xF4, 0xEB, 0xFC};  // cli; hlt; jmp back
        const fs::path kernel = directory.write("halt", make_bzimage(halt_code));
        const Result result = run(directory, {"--kernel", kernel.string(), "--memory", "64M"});
        CHECK(result.exit_code == 13);
        CHECK(line_count(result.errors) == 1);
    }
    SECTION("idle") {
        // sti; hlt; jmp back, after masking all interrupts of the PICs
        const std::vector<std::uint8_t> idle_code{0xB0, 0xFF, 0xE6, 0x21, 0xE6, 0xA1, 0xFB, 0xF4, 0xEB, 0xFC};
        const fs::path kernel = directory.write("idle", make_bzimage(idle_code));
        Terminal terminal({"--kernel", kernel.string(), "--memory", "64M"});
        terminal.wait_until_raw();
        ::usleep(300'000);
        CHECK_FALSE(terminal.ended());
        terminal.type("\x01s\x01x");
        CHECK(terminal.wait() == 0);
        CHECK_THAT(terminal.output(), Catch::Matchers::Contains("running for"));
        CHECK(terminal.restored());
    }
}

TEST_CASE("kvm_vmm: --on-reboot restart starts the guest again in the same process", "[program]") {
    REQUIRE_KVM();
    const ScratchDirectory directory;
    const fs::path kernel = directory.write("reset", make_bzimage(reset_code));
    const std::string console = (directory / "console").string();
    Terminal terminal({"--kernel", kernel.string(), "--memory", "64M", "--on-reboot", "restart"});
    terminal.wait_until_raw();
    for (int i = 0; i < 2000 && terminal.output().size() < 3; ++i) {
        ::usleep(10'000);
    }
    terminal.type("\x01x");
    CHECK(terminal.wait() == 0);
    CHECK_THAT(terminal.output(), Catch::Matchers::StartsWith("!!!"));
    CHECK(terminal.restored());
}

TEST_CASE("kvm_vmm: the guest can set the exit code with the exit port", "[program]") {
    REQUIRE_KVM();
    const ScratchDirectory directory;
    // mov dx, 0x501; mov al, 77; out dx, al; hlt
    const fs::path kernel =
        directory.write("exit", make_bzimage({0x66, 0xBA, 0x01, 0x05, 0xB0, 77, 0xEE, 0xFA, 0xF4}));
    CHECK(run(directory, {"--kernel", kernel.string(), "--memory", "64M", "--exit-port"}).exit_code == 77);
    CHECK(run(directory, {"--kernel", kernel.string(), "--memory", "64M"}).exit_code == 13);
}

TEST_CASE("kvm_vmm: a status of the exit port is not taken for a reset, panic or signal, whatever its number",
          "[program]") {
    REQUIRE_KVM();
    const ScratchDirectory directory;
    for (const int status : {0, 10, 11, 12, 13, 128 + SIGKILL, 255}) {
        CAPTURE(status);
        const fs::path kernel =
            directory.write("exit", make_bzimage({0x66, 0xBA, 0x01, 0x05, 0xB0,
                                                  static_cast<std::uint8_t>(status), 0xEE, 0xFA, 0xF4}));
        const Result result = run(directory, {"--kernel", kernel.string(), "--memory", "64M", "--exit-port",
                                              "--on-reboot", "restart", "--log-level", "info"});
        CHECK(result.exit_code == status);
        CHECK_THAT(result.errors, Catch::Matchers::Contains("the guest wrote " + std::to_string(status) +
                                                            " to the exit port"));
        CHECK_THAT(result.errors, !Catch::Matchers::Contains("restarted"));
    }
}

TEST_CASE("kvm_vmm: a panic reported to pvpanic ends it with 11, power-off with 0, port 0xCF9 with 10",
          "[program]") {
    REQUIRE_KVM();
    const ScratchDirectory directory;
    const auto ends_with = [&](const std::vector<std::uint8_t>& code) {
        const fs::path kernel = directory.write("kernel", make_bzimage(code));
        return run(directory, {"--kernel", kernel.string(), "--memory", "64M"}).exit_code;
    };
    CHECK(ends_with({0x66, 0xBA, 0x05, 0x05, 0xB0, 0x01, 0xEE, 0xFA, 0xF4}) == 11);
    // mov dx, 0x604; mov ax, 0x3400 (S5, SLP_EN); out dx, ax
    CHECK(ends_with({0x66, 0xBA, 0x04, 0x06, 0x66, 0xB8, 0x00, 0x34, 0x66, 0xEF, 0xFA, 0xF4}) == 0);
    CHECK(ends_with({0x66, 0xBA, 0xF9, 0x0C, 0xB0, 0x02, 0xEE, 0xB0, 0x06, 0xEE, 0xFA, 0xF4}) == 10);
}

namespace {

/// kvm_vmm with a guest that sends `size` bytes and resets. Only the test reads the pipe.
class Flood {
public:
    Flood(const ScratchDirectory& directory, std::uint32_t size) {
        // mov dx, 0x3F8; lea rsi, [rip]; mov ecx, size; cld; rep outsb; mov al, 0xFE; out 0x64, al; hlt
        std::vector<std::uint8_t> code{0x66, 0xBA, 0xF8, 0x03, 0x48, 0x8D, 0x35, 0, 0, 0, 0, 0xB9};
        for (const unsigned shift : {0U, 8U, 16U, 24U}) {
            code.push_back(static_cast<std::uint8_t>(size >> shift));
        }
        code.insert(code.end(), {0xFC, 0xF3, 0x6E, 0xB0, 0xFE, 0xE6, 0x64, 0xF4});
        expected.assign(code.begin() + 11, code.end());
        expected.resize(size, '\0');
        const std::string kernel = directory.write("kernel", make_bzimage(code)).string();
        std::array<int, 2> ends{};
        REQUIRE(::pipe(ends.data()) == 0);
        child = fork_child();
        if (child == 0) {
            ::dup2(::open("/dev/null", O_RDONLY), STDIN_FILENO);
            ::dup2(ends[1], STDOUT_FILENO);
            ::close(ends[0]);
            ::close(ends[1]);
            ::alarm(25);  // less than the patience of kvm_vmm
            exec({"--kernel", kernel, "--memory", "64M"});
        }
        ::close(ends[1]);
        pipe = ends[0];
    }
    ~Flood() { ::close(pipe); }
    Flood(const Flood&) = delete;
    Flood& operator=(const Flood&) = delete;

    [[nodiscard]] bool ended() const {
        siginfo_t info{};
        REQUIRE(::waitid(P_PID, static_cast<id_t>(child), &info, WEXITED | WNOHANG | WNOWAIT) == 0);
        return info.si_pid != 0;
    }
    /// Waits until the pipe is full.
    void wait_until_full() const {
        for (int before = -1, queued = 0; queued != before || queued == 0;) {
            REQUIRE_FALSE(ended());
            before = queued;
            ::usleep(500'000);
            REQUIRE(::ioctl(pipe, FIONREAD, &queued) == 0);
        }
    }
    [[nodiscard]] int wait() const {
        int status = 0;
        REQUIRE(::waitpid(child, &status, 0) == child);
        return exit_code_of(status);
    }

    std::string expected;
    pid_t child;
    int pipe;
};

}  // namespace

TEST_CASE("kvm_vmm: it waits for a reader that pauses, even if the guest has ended", "[program]") {
    REQUIRE_KVM();
    const ScratchDirectory directory;
    const Flood flood(directory, 300'000);
    flood.wait_until_full();
    CHECK_FALSE(flood.ended());
    std::string received;
    std::array<char, 20'000> buffer{};
    for (ssize_t count = 0; (count = ::read(flood.pipe, buffer.data(), buffer.size())) > 0;) {
        received.append(buffer.data(), static_cast<std::size_t>(count));
    }
    CHECK(flood.wait() == 10);
    CHECK((received == flood.expected));
}

TEST_CASE("kvm_vmm: a signal ends it while it waits for a reader that takes nothing", "[program]") {
    REQUIRE_KVM();
    const ScratchDirectory directory;
    const Flood flood(directory, 300'000);
    flood.wait_until_full();
    REQUIRE(::kill(flood.child, SIGTERM) == 0);
    // The code is that of the guest's end, unless the signal came before it.
    const int code = flood.wait();
    CHECK((code == 10 || code == 128 + SIGTERM));
}

TEST_CASE("kvm_vmm: a serial port can be a Unix socket, for one client after the other", "[program]") {
    REQUIRE_KVM();
    const ScratchDirectory directory;
    // Echoes in a loop: wait for LSR.DR, read, write back.
    const fs::path kernel =
        directory.write("echo", make_bzimage({0x66, 0xBA, 0xFD, 0x03, 0xEC, 0xA8, 0x01, 0x74, 0xFB, 0x66,
                                              0xBA, 0xF8, 0x03, 0xEC, 0xEE, 0xEB, 0xEF}));
    const std::string path = (directory / "socket").string();
    // A socket that an ended process left behind does not matter.
    const auto make_address = [&] {
        sockaddr_un address{};
        address.sun_family = AF_UNIX;
        std::strncpy(address.sun_path, path.c_str(), sizeof(address.sun_path) - 1);
        return address;
    };
    {
        const vmsuperio::UniqueFd stale(::socket(AF_UNIX, SOCK_STREAM, 0));
        const sockaddr_un address = make_address();
        REQUIRE(::bind(stale.get(), reinterpret_cast<const sockaddr*>(&address), sizeof(address)) == 0);
    }
    const pid_t child = fork_child();
    if (child == 0) {
        ::alarm(30);
        exec({"--kernel", kernel.string(), "--memory", "64M", "--serial", "unix=" + path});
    }
    for (int client = 0; client < 3; ++client) {
        const vmsuperio::UniqueFd fd(::socket(AF_UNIX, SOCK_STREAM, 0));
        const sockaddr_un address = make_address();
        int connected = -1;
        for (int i = 0; i < 500 && connected != 0; ++i) {
            connected = ::connect(fd.get(), reinterpret_cast<const sockaddr*>(&address), sizeof(address));
            ::usleep(connected == 0 ? 0 : 10'000);
        }
        REQUIRE(connected == 0);
        const std::string sent = "hello " + std::to_string(client);
        REQUIRE(::send(fd.get(), sent.data(), sent.size(), 0) == static_cast<ssize_t>(sent.size()));
        std::string back;
        std::array<char, 64> buffer{};
        while (back.size() < sent.size()) {
            const ssize_t count = ::recv(fd.get(), buffer.data(), buffer.size(), 0);
            REQUIRE(count > 0);
            back.append(buffer.data(), static_cast<std::size_t>(count));
        }
        CHECK(back == sent);
    }
    // A path in use and one that is not a socket are left alone, and the messages say which it is.
    Result refused = run(directory, {"--kernel", kernel.string(), "--serial", "unix=" + path});
    CHECK(refused.exit_code == 3);
    CHECK_THAT(refused.errors, Catch::Matchers::Contains("another program listens there"));
    CHECK(fs::is_socket(path));
    const std::string image = slurp(kernel);
    const fs::path precious = directory.write("precious", "not a socket's place");
    for (const fs::path& taken : {kernel, precious}) {
        refused = run(directory, {"--kernel", kernel.string(), "--serial", "unix=" + taken.string()});
        CHECK(refused.exit_code == 3);
        CHECK(line_count(refused.errors) == 1);
        CHECK_THAT(refused.errors, Catch::Matchers::Contains(taken == kernel ? "same file" : "not a socket"));
    }
    CHECK(slurp(precious) == "not a socket's place");
    CHECK((slurp(kernel) == image));
    ::kill(child, SIGTERM);
    int status = 0;
    REQUIRE(::waitpid(child, &status, 0) == child);
    CHECK(exit_code_of(status) == 128 + SIGTERM);
    CHECK_FALSE(fs::exists(path));
}

TEST_CASE("kvm_vmm: a serial port can be a pseudo-terminal, which may be opened late and repeatedly",
          "[program]") {
    REQUIRE_KVM();
    const ScratchDirectory directory;
    const fs::path kernel =
        directory.write("echo", make_bzimage({0x66, 0xBA, 0xFD, 0x03, 0xEC, 0xA8, 0x01, 0x74, 0xFB, 0x66,
                                              0xBA, 0xF8, 0x03, 0xEC, 0xEE, 0xEB, 0xEF}));
    const pid_t child = fork_child();
    if (child == 0) {
        ::alarm(30);
        ::dup2(::open((directory / "err").c_str(), O_WRONLY | O_CREAT | O_TRUNC, 0600), STDERR_FILENO);
        exec({"--kernel", kernel.string(), "--memory", "64M", "--serial", "pty"});
    }
    std::string name;
    for (int i = 0; i < 500 && name.empty(); ++i) {
        const std::string text = slurp(directory / "err");
        const std::size_t at = text.find("/dev/pts/");
        if (at != std::string::npos && text.back() == '\n') {
            name = text.substr(at, text.size() - at - 1);
        }
        ::usleep(10'000);
    }
    REQUIRE_FALSE(name.empty());
    for (int round = 0; round < 2; ++round) {
        const vmsuperio::UniqueFd fd(::open(name.c_str(), O_RDWR | O_NOCTTY));
        REQUIRE(fd);
        const std::string sent = "round " + std::to_string(round);
        REQUIRE(::write(fd.get(), sent.data(), sent.size()) == static_cast<ssize_t>(sent.size()));
        std::string back;
        std::array<char, 64> buffer{};
        while (back.size() < sent.size()) {
            const ssize_t count = ::read(fd.get(), buffer.data(), buffer.size());
            REQUIRE(count > 0);
            back.append(buffer.data(), static_cast<std::size_t>(count));
        }
        CHECK(back == sent);
    }
    ::kill(child, SIGTERM);
    int status = 0;
    REQUIRE(::waitpid(child, &status, 0) == child);
    CHECK(exit_code_of(status) == 128 + SIGTERM);
}
