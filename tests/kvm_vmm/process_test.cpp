// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
// kvm_vmm as a process: what it inherits, how it ends, and how it handles time in which it did not run.
#include <array>
#include <chrono>
#include <cstdint>
#include <sstream>
#include <string>
#include <sys/ioctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>
#include <vector>

#include <vmsuperio/linux/unique_fd.hpp>

#include "program.hpp"

using namespace kvm_vmm::test;
using vmsuperio::UniqueFd;

namespace {

using Bytes = std::vector<std::uint8_t>;

// mov dx, 0x3F8; mov al, '!'; out dx, al; jmp to itself
const Bytes say_and_spin{0x66, 0xBA, 0xF8, 0x03, 0xB0, '!', 0xEE, 0xEB, 0xFE};

void block_all_signals() {
    sigset_t all{};
    sigfillset(&all);
    sigprocmask(SIG_SETMASK, &all, nullptr);
}

void ignore_all_signals() {
    for (int signal = 1; signal <= SIGRTMAX; ++signal) {
        std::signal(signal, SIG_IGN);
    }
}

int seconds_since(std::chrono::steady_clock::time_point start) {
    return static_cast<int>(
        std::chrono::duration_cast<std::chrono::seconds>(std::chrono::steady_clock::now() - start).count());
}

}  // namespace

TEST_CASE("kvm_vmm: signals that its parent blocked or ignored, and its limits, have no effect",
          "[program]") {
    REQUIRE_KVM();
    const ScratchDirectory directory;
    struct Parent {
        const char* name;
        std::function<void()> prepare;
    };
    const auto set_limit = [](auto resource, rlim_t soft, rlim_t hard) {
        const rlimit limit{soft, hard};
        ::setrlimit(resource, &limit);
    };
    const std::vector<Parent> parents{
        {"blocks all", block_all_signals},
        {"ignores all", ignore_all_signals},
        {"has no room for queued signals", [&] { set_limit(RLIMIT_SIGPENDING, 0, 0); }},
        {"has a low soft limit of files", [&] { set_limit(RLIMIT_NOFILE, 16, 256); }},
        {"has a small stack", [&] { set_limit(RLIMIT_STACK, 64UL << 10U, RLIM_INFINITY); }},
        {"has an unlimited stack", [&] { set_limit(RLIMIT_STACK, RLIM_INFINITY, RLIM_INFINITY); }},
        {"lets nobody use its files", [] { ::umask(0777); }},
    };
    for (const Parent& parent : parents) {
        INFO("a parent that " << parent.name);
        const std::string metrics = (directory / "metrics").string();
        {
            Job job(with_kernel(directory, say_and_spin, {"--cpus", "2", "--metrics", metrics}),
                    parent.prepare);
            CHECK(job.next_byte() == '!');
            const auto start = std::chrono::steady_clock::now();
            job.send(SIGTERM);
            const int status = job.wait_status();
            CHECK(WIFSIGNALED(status));
            CHECK(exit_code_of(status) == 128 + SIGTERM);
            CHECK(seconds_since(start) < 2);
        }
        CHECK_THAT(slurp(metrics), Catch::Matchers::Contains("\"exit_code\": 143"));
        struct stat file{};
        CHECK(::stat(metrics.c_str(), &file) == 0);
        CHECK((file.st_mode & 0777) == 0600);
        ::unlink(metrics.c_str());
        {
            // The guest is halted for good, which a kick detects.
            Job job(with_kernel(directory, {0xFA, 0xF4}), parent.prepare);
            CHECK(job.wait() == 13);
        }
        {
            Job job(with_kernel(directory, say_and_spin, {"--metrics", metrics}), parent.prepare);
            CHECK(job.next_byte() == '!');
            ::unlink(metrics.c_str());
            job.send(SIGUSR1);
            for (int i = 0; i < 1000 && !fs::exists(metrics); ++i) {
                ::usleep(10'000);
            }
            CHECK(fs::exists(metrics));
        }
    }
}

TEST_CASE("kvm_vmm: hangups and interrupts that its parent ignored stay ignored", "[program]") {
    REQUIRE_KVM();
    const ScratchDirectory directory;
    Job job(with_kernel(directory, say_and_spin), [] {
        for (const int signal : {SIGHUP, SIGINT, SIGQUIT}) {
            std::signal(signal, SIG_IGN);
        }
    });
    CHECK(job.next_byte() == '!');
    for (const int signal : {SIGHUP, SIGINT, SIGQUIT}) {
        job.send(signal);
    }
    ::usleep(200'000);
    CHECK(::waitpid(job.pid(), nullptr, WNOHANG) == 0);
    job.send(SIGTERM);
    CHECK(job.wait() == 128 + SIGTERM);
}

TEST_CASE("kvm_vmm: it keeps no descriptor of its parent open, except for those that an argument names",
          "[program]") {
    REQUIRE_KVM();
    const ScratchDirectory directory;
    std::array<int, 2> unnamed{};
    REQUIRE(::pipe2(unnamed.data(), O_CLOEXEC) == 0);
    const std::string kernel = directory.write("kernel", make_bzimage(say_and_spin)).string();
    const vmsuperio::UniqueFd image(::open(kernel.c_str(), O_RDONLY | O_CLOEXEC));
    std::string argument;
    SECTION("/dev/fd") { argument = "/dev/fd/77"; }
    SECTION("/proc/self/fd") { argument = "/proc/self/fd/77"; }
    Job job({"--kernel", argument, "--memory", "64M"}, [&] {
        ::dup2(unnamed[1], 50);
        ::dup2(unnamed[1], 100);
        ::dup2(unnamed[1], 3);
        // The descriptors next to it are open too.
        ::dup2(unnamed[1], 76);
        ::dup2(unnamed[1], 78);
        ::dup2(image.get(), 77);
    });
    ::close(unnamed[1]);
    CHECK(job.next_byte() == '!');
    // No process has the other end of the pipe open any more.
    char byte = 0;
    pollfd entry{.fd = unnamed[0], .events = POLLIN, .revents = 0};
    CHECK(::poll(&entry, 1, 0) == 1);
    CHECK(::read(unnamed[0], &byte, 1) == 0);
    ::close(unnamed[0]);
    job.send(SIGTERM);
    CHECK(job.wait() == 128 + SIGTERM);
}

TEST_CASE("kvm_vmm: an alarm that was set before it started ends it", "[program]") {
    REQUIRE_KVM();
    const ScratchDirectory directory;
    Job job(with_kernel(directory, say_and_spin), [] { ::alarm(1); });
    const int status = job.wait_status();
    CHECK(WIFSIGNALED(status));
    CHECK(WTERMSIG(status) == SIGALRM);
}

TEST_CASE(
    "kvm_vmm: a stderr that is full, closed or broken blocks no thread and does not change the exit code",
    "[program]") {
    REQUIRE_KVM();
    const ScratchDirectory directory;
    // kvm_vmm writes a message when this guest ends.
    const std::vector<std::string> arguments = with_kernel(directory, {0xFA, 0xF4});
    std::array<int, 2> pipe{};
    REQUIRE(::pipe2(pipe.data(), O_CLOEXEC) == 0);
    const auto start = std::chrono::steady_clock::now();
    SECTION("a full pipe") {
        REQUIRE(::fcntl(pipe[1], F_SETFL, O_NONBLOCK) == 0);
        const std::string page(4096, 'x');
        while (::write(pipe[1], page.data(), page.size()) > 0) {
        }
        REQUIRE(::fcntl(pipe[1], F_SETFL, 0) == 0);
        Job job(arguments, {}, pipe[1]);
        CHECK(job.wait() == 13);
    }
    SECTION("a pipe that nobody reads") {
        ::close(pipe[0]);
        Job job(arguments, {}, pipe[1]);
        CHECK(job.wait() == 13);
    }
    SECTION("closed") {
        Job job(arguments, [] { ::close(STDERR_FILENO); });
        CHECK(job.wait() == 13);
    }
    SECTION("a full disk") {
        const vmsuperio::UniqueFd full(::open("/dev/full", O_WRONLY | O_CLOEXEC));
        Job job(arguments, {}, full.get());
        CHECK(job.wait() == 13);
    }
    SECTION("a terminal whose output is stopped") {
        int master = -1;
        int slave = -1;
        REQUIRE(::openpty(&master, &slave, nullptr, nullptr, nullptr) == 0);
        REQUIRE(::tcflow(slave, TCOOFF) == 0);
        Job job(arguments, {}, slave);
        CHECK(job.wait() == 13);
        ::close(master);
        ::close(slave);
    }
    CHECK(seconds_since(start) < 15);
    ::close(pipe[1]);
}

TEST_CASE("kvm_vmm: control characters in a name that the user gives do not reach the terminal",
          "[program]") {
    const ScratchDirectory directory;
    const std::string wild =
        "/no/such\x1B[2J\r\a\x7F\xC2\x9B"
        "31m\x9B\n2";
    const std::vector<std::vector<std::string>> commands{
        {"--kernel", wild},
        {"--kernel", "/dev/null", "--log", wild},
        {"--kernel", "/dev/null", "--metrics", wild},
        {"--kernel", "/dev/null", "--trace-io", wild},
        {"--kernel", "/dev/null", "--serial", "file=" + wild},
        {"--kernel", "/dev/null", "--serial", "unix=" + wild},
        {"--kernel", "/dev/null", "--debug-console", "file=" + wild},
        {"--kernel", "/dev/null", "--initrd", wild},
        {"--kernel", "/dev/null", "--serial", wild},
        {wild},
    };
    for (const std::vector<std::string>& command : commands) {
        CAPTURE(command);
        const Result result = run(directory, command);
        CHECK(result.exit_code != 0);
        REQUIRE_FALSE(result.errors.empty());
        CHECK(line_count(result.errors) == 1);
        for (const char c : result.errors.substr(0, result.errors.size() - 1)) {
            const auto byte = static_cast<unsigned char>(c);
            CHECK((byte >= 0x20 && byte < 0x7F));
        }
    }
}

TEST_CASE("kvm_vmm: a crash leaves a core file only with --core-dumps", "[program]") {
    REQUIRE_KVM();
    const ScratchDirectory directory;
    const auto allow = [&directory] {
        const rlimit unlimited{RLIM_INFINITY, RLIM_INFINITY};
        ::setrlimit(RLIMIT_CORE, &unlimited);
        [[maybe_unused]] const int changed = ::chdir((directory / ".").c_str());
    };
    SECTION("not by default") {
        Job job(with_kernel(directory, say_and_spin), allow);
        CHECK(job.next_byte() == '!');
        job.send(SIGABRT);
        const int status = job.wait_status();
        CHECK(WTERMSIG(status) == SIGABRT);
        CHECK_FALSE(WCOREDUMP(status));
    }
    SECTION("with --core-dumps, without guest RAM") {
        Job job(with_kernel(directory, say_and_spin, {"--core-dumps"}), allow);
        CHECK(job.next_byte() == '!');
        job.send(SIGABRT);
        const int status = job.wait_status();
        CHECK(WTERMSIG(status) == SIGABRT);
        if (!WCOREDUMP(status)) {
            WARN("this computer writes no core files");
        }
        for (const fs::directory_entry& entry : fs::directory_iterator(directory / ".")) {
            if (entry.path().filename().string().starts_with("core")) {
                CHECK(entry.file_size() < (48UL << 20U));
            }
        }
    }
}

namespace {

/// 64-bit code that registers KVM's clock (KVM's documentation, MSR_KVM_SYSTEM_TIME_NEW) and then reads the
/// time stamp counter in a loop. It first writes 'S'. After a gap it writes 'P' if the host declared a pause
/// before the guest continued (PVCLOCK_GUEST_STOPPED, bit 1 of the flags), otherwise 'X', and clears the
/// flag.
Bytes pause_watcher(bool with_io) {
    Bytes code{
        0xB9, 0x01, 0x4D, 0x56, 0x4B,              // mov ecx, 0x4B564D01
        0xB8, 0x01, 0x00, 0x04, 0x00,              // mov eax, 0x40001: the structure is at 0x40000, enabled
        0x31, 0xD2, 0x0F, 0x30,                    // xor edx, edx; wrmsr
        0xBF, 0x00, 0x00, 0x04, 0x00,              // mov edi, 0x40000
        0x66, 0xBA, 0xF8, 0x03, 0xB0, 'S',  0xEE,  // mov dx, 0x3F8; mov al, 'S'; out dx, al
        0x0F, 0x31, 0x48, 0xC1, 0xE2, 0x20,        // rdtsc; shl rdx, 32
        0x48, 0x09, 0xD0, 0x48, 0x89, 0xC3,        // or rax, rdx; mov rbx, rax
    };
    const std::size_t loop = code.size();
    if (with_io) {
        code.insert(code.end(), {0xE6, 0x80});  // out 0x80, al
    }
    const Bytes body{
        0x0F, 0x31, 0x48, 0xC1, 0xE2, 0x20,        // rdtsc; shl rdx, 32
        0x48, 0x09, 0xD0, 0x48, 0x89, 0xC1,        // or rax, rdx; mov rcx, rax
        0x48, 0x29, 0xD9, 0x48, 0x89, 0xC3,        // sub rcx, rbx; mov rbx, rax
        0x48, 0xC1, 0xE9, 0x1F,                    // shr rcx, 31: 2.1e9 ticks, about a second
        0x85, 0xC9, 0x74, 0x00,                    // test ecx, ecx; jz to the loop (patched)
        0xB0, 'X',                                 // mov al, 'X'
        0xF6, 0x47, 0x1D, 0x02, 0x74, 0x02,        // test byte [rdi + 29], 2; jz +2
        0xB0, 'P',                                 // mov al, 'P'
        0x80, 0x67, 0x1D, 0xFD,                    // and byte [rdi + 29], ~2
        0x66, 0xBA, 0xF8, 0x03, 0xEE, 0xEB, 0x00,  // mov dx, 0x3F8; out dx, al; jmp to the loop (patched)
    };
    const std::size_t start = code.size();
    code.insert(code.end(), body.begin(), body.end());
    const auto patch = [&](std::size_t at) {
        code[at] = static_cast<std::uint8_t>(static_cast<int>(loop) - static_cast<int>(at) - 1);
    };
    patch(start + 25);
    patch(code.size() - 1);
    return code;
}

}  // namespace

TEST_CASE("kvm_vmm: a guest that did not run for a while is notified before it continues", "[program]") {
    REQUIRE_KVM();
    const ScratchDirectory directory;
    struct Stop {
        bool with_io;
        int signal;
    };
    for (const Stop& stop : {Stop{false, SIGSTOP}, Stop{true, SIGSTOP}, Stop{true, SIGTSTP}}) {
        INFO((stop.with_io ? "out of the guest most of the time, " : "in the guest, ")
             << "signal " << stop.signal);
        Job job(with_kernel(directory, pause_watcher(stop.with_io)));
        REQUIRE(job.next_byte() == 'S');
        for (int round = 0; round < 2; ++round) {
            ::usleep(100'000);
            job.send(stop.signal);
            int status = 0;
            REQUIRE(::waitpid(job.pid(), &status, WUNTRACED) == job.pid());
            REQUIRE(WIFSTOPPED(status));
            ::usleep(2'500'000);
            job.send(SIGCONT);
            CHECK(job.next_byte() == 'P');
        }
        CHECK(job.next_byte(300) == '\0');
    }
}

TEST_CASE("kvm_vmm: a guest that reboots at once is restarted more and more slowly, and logged in few lines",
          "[program]") {
    REQUIRE_KVM();
    const ScratchDirectory directory;
    const std::string log = (directory / "log").string();
    Job job(with_kernel(directory, reset_code, {"--on-reboot", "restart", "--log", log}));
    ::usleep(4'000'000);
    // The delays between the starts are 0.1, 0.2, 0.4, 0.8 and 1.6 seconds.
    job.send(SIGTERM);
    CHECK(job.wait() == 128 + SIGTERM);
    const std::string starts = job.rest();
    CHECK(starts.size() >= 2);
    CHECK(starts.size() <= 6);
    const std::string text = slurp(log);
    const auto count = [&text](const std::string& what) {
        std::size_t found = 0;
        for (std::size_t at = text.find(what); at != std::string::npos; at = text.find(what, at + 1)) {
            ++found;
        }
        return found;
    };
    CHECK(count("a VM with 1 CPU(s)") == 1);
    CHECK(count("devices:") == 1);
    CHECK(line_count(text) <= 6 + 4);
}

TEST_CASE("kvm_vmm: restarts can be limited", "[program]") {
    REQUIRE_KVM();
    const ScratchDirectory directory;
    for (const std::size_t limit : {0U, 2U}) {
        const Result result =
            run(directory, with_kernel(directory, reset_code,
                                       {"--on-reboot", "restart", "--restart-limit", std::to_string(limit)}));
        CHECK(result.exit_code == 10);
        CHECK(result.output == std::string(limit + 1, '!'));
        CHECK(line_count(result.errors) == 1);
    }
    CHECK(run(directory, with_kernel(directory, reset_code, {"--restart-limit", "-1"})).exit_code == 2);
    CHECK(run(directory, with_kernel(directory, reset_code, {"--restart-limit", "many"})).exit_code == 2);
}

TEST_CASE("kvm_vmm: signals are handled during the delay before a restart", "[program]") {
    REQUIRE_KVM();
    const ScratchDirectory directory;
    Job job(with_kernel(directory, reset_code, {"--on-reboot", "restart"}));
    for (int start = 0; start < 5; ++start) {
        REQUIRE(job.next_byte() == '!');
    }
    // The next start is due in 1.6 seconds.
    const auto before = std::chrono::steady_clock::now();
    job.send(SIGINT);
    CHECK(job.wait() == 128 + SIGINT);
    CHECK(std::chrono::steady_clock::now() - before < std::chrono::milliseconds(1400));
}

TEST_CASE("kvm_vmm: the memory of the program that only the start needed is returned, except for debuggers",
          "[program]") {
    REQUIRE_KVM();
    // Pages of files that are mapped, after the start.
    const auto file_pages = [](const std::vector<std::string>& options) {
        const ScratchDirectory directory;
        const Job vmm(with_kernel(directory, say_and_spin, options));
        CHECK(vmm.next_byte() == '!');
        ::usleep(300'000);
        std::istringstream statm(slurp("/proc/" + std::to_string(vmm.pid()) + "/statm"));
        std::uint64_t size = 0;
        std::uint64_t resident = 0;
        std::uint64_t of_files = 0;
        statm >> size >> resident >> of_files;
        return of_files;
    };
    const std::uint64_t kept = file_pages({"--core-dumps"});
    const std::uint64_t returned = file_pages({});
    CAPTURE(kept, returned);
    CHECK(returned > 0);
    CHECK(returned < kept * 9 / 10);
}
