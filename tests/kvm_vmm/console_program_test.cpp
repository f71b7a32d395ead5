// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
// kvm_vmm with virtio consoles, as a user sees it. The guests write to the console's emergency register, which
// needs no driver.
#include <chrono>
#include <csignal>
#include <string>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <thread>
#include <vector>

#include "program.hpp"

using namespace kvm_vmm::test;

namespace {

constexpr std::uint32_t first_window = 0xD000'0000;
constexpr std::uint32_t window_size = 0x1000;

/// Writes 'V' to the emergency register of virtio console `index`.
std::vector<std::uint8_t> emergency_write(std::uint32_t index) {
    const std::uint32_t at = first_window + index * window_size + 0x108;
    std::vector<std::uint8_t> code{0xBF};  // mov edi, at
    for (const unsigned shift : {0U, 8U, 16U, 24U}) {
        code.push_back(static_cast<std::uint8_t>(at >> shift));
    }
    code.insert(code.end(), {0xC7, 0x07, 'V', 0, 0, 0});  // mov dword [rdi], 'V'
    return code;
}

std::vector<std::uint8_t> then(std::vector<std::uint8_t> code, const std::vector<std::uint8_t>& rest) {
    code.insert(code.end(), rest.begin(), rest.end());
    return code;
}

// mov dx, 0x3F8; mov al, '!'; out dx, al
const std::vector<std::uint8_t> serial_write{0x66, 0xBA, 0xF8, 0x03, 0xB0, '!', 0xEE};

template <class Condition>
bool eventually(const Condition& condition) {
    for (int i = 0; i < 1500; ++i) {
        if (condition()) {
            return true;
        }
        std::this_thread::sleep_for(std::chrono::milliseconds(10));
    }
    return false;
}

}  // namespace

TEST_CASE("kvm_vmm: each --console is a virtio console, in their order", "[program]") {
    REQUIRE_KVM();
    const ScratchDirectory directory;
    const std::string kernel =
        directory.write("kernel", make_bzimage(then(emergency_write(1), reset_code))).string();
    const Result result = run(directory, {"--kernel", kernel, "--memory", "64M", "--serial", "null",
                                          "--console", "file=" + (directory / "first, with a comma").string(),
                                          "--console", "file=" + (directory / "second").string()});
    CHECK(result.exit_code == 10);
    CHECK(result.errors.empty());
    CHECK(slurp(directory / "first, with a comma").empty());
    CHECK(slurp(directory / "second") == "V");
}

TEST_CASE("kvm_vmm: with --console stdio alone, COM1 writes to stdout too", "[program]") {
    REQUIRE_KVM();
    const ScratchDirectory directory;
    const std::string kernel =
        directory.write("kernel", make_bzimage(then(then(serial_write, emergency_write(0)), reset_code)))
            .string();
    CHECK(run(directory, {"--kernel", kernel, "--memory", "64M", "--console", "stdio"}).output == "!V!");
    CHECK(run(directory, {"--kernel", kernel, "--memory", "64M", "--console", "stdio", "--serial", "null"})
              .output == "V");
    CHECK(run(directory, {"--kernel", kernel, "--memory", "64M", "--console", "null"}).output == "!!");
}

TEST_CASE("kvm_vmm: the terminal of a virtio console obeys Ctrl-A, and can be resized", "[program]") {
    REQUIRE_KVM();
    const ScratchDirectory directory;
    const std::string kernel =
        directory.write("kernel", make_bzimage(then(emergency_write(0), spin_code))).string();
    Terminal terminal({"--kernel", kernel, "--memory", "64M", "--console", "stdio"});
    terminal.wait_until_raw();
    const auto shows = [&](const std::string& text) {
        return eventually([&] { return terminal.output().find(text) != std::string::npos; });
    };
    CHECK(shows("V"));
    const winsize size{.ws_row = 50, .ws_col = 100, .ws_xpixel = 0, .ws_ypixel = 0};
    REQUIRE(::ioctl(terminal.descriptor(), TIOCSWINSZ, &size) == 0);
    terminal.send(SIGWINCH);
    terminal.type(
        "\x01"
        "b");
    CHECK(shows("a virtio console has no BREAK"));
    terminal.type("\x01s");
    CHECK(shows("running for"));
    terminal.type("\x01h");
    CHECK(shows("Ctrl-A x: end the VM"));
    terminal.type("\x01x");
    CHECK(terminal.wait() == 0);
    CHECK(terminal.restored());
}

TEST_CASE("kvm_vmm: the socket of a virtio console outlives the guest's restarts, and is removed",
          "[program]") {
    REQUIRE_KVM();
    const ScratchDirectory directory;
    const std::string kernel =
        directory.write("kernel", make_bzimage(then(emergency_write(0), reset_code))).string();
    const std::string socket = (directory / "socket").string();
    const Result result =
        run(directory, {"--kernel", kernel, "--memory", "64M", "--serial", "null", "--console",
                        "unix=" + socket, "--console", "file=" + (directory / "file").string(), "--on-reboot",
                        "restart", "--restart-limit", "2"});
    CHECK(result.exit_code == 10);
    CHECK(::access(socket.c_str(), F_OK) != 0);
}

TEST_CASE("kvm_vmm: a virtio console's file is refused if it belongs to another option", "[program]") {
    const ScratchDirectory directory;
    const std::string kernel = directory.write("kernel", make_bzimage(spin_code)).string();
    const std::string path = directory.write("file", "kept").string();
    const Result result =
        run(directory, {"--kernel", kernel, "--serial", "file=" + path, "--console", "file=" + path});
    CHECK(result.exit_code == 3);
    CHECK_THAT(result.errors, Catch::Matchers::Contains("--serial (COM1) file=") &&
                                  Catch::Matchers::Contains("--console (hvc0) file="));
    CHECK(slurp(path) == "kept");
    const std::string socket = (directory / "socket").string();
    const Result sockets =
        run(directory, {"--kernel", kernel, "--serial", "unix=" + socket, "--console", "unix=" + socket});
    CHECK(sockets.exit_code == 3);
    CHECK_THAT(sockets.errors, Catch::Matchers::Contains("--console (hvc0) unix="));
    const Result missing =
        run(directory, {"--kernel", kernel, "--console", "unix=" + (directory / "no/x").string()});
    CHECK(missing.exit_code == 3);
    CHECK_THAT(missing.errors, Catch::Matchers::Contains("console socket"));
}
