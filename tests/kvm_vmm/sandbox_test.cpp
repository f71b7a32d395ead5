// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
// What a thread can still do in the sandbox. Each attempt runs in a process of its own, which the sandbox ends.
#include "sandbox/sandbox.hpp"

#include <algorithm>
#include <array>
#include <cerrno>
#include <chrono>
#include <csignal>
#include <cstdlib>
#include <fcntl.h>
#include <fstream>
#include <functional>
#include <linux/filter.h>
#include <linux/kvm.h>
#include <linux/seccomp.h>
#include <map>
#include <memory>
#include <netinet/in.h>
#include <seccomp.h>
#include <set>
#include <string>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <thread>
#include <unistd.h>
#include <vector>

#include <vmsuperio/linux/unique_fd.hpp>

#include "catch.hpp"
#include "child.hpp"
#include "console/raw_terminal.hpp"
#include "program.hpp"
#include "sandbox/allow_list.hpp"
#include "sandbox/call_names.hpp"
#include "sandbox/landlock.hpp"
#include "sandbox/launcher_filter.hpp"
#include "sandbox/seccomp_filter.hpp"
#include "sandbox/violation.hpp"
#include "scratch_directory.hpp"
#include "util/error.hpp"
#include "util/log.hpp"

/// Skips the test case, before its first check, for an ordinary user.
#define REQUIRE_ROOT()                                              \
    do {                                                            \
        if (::geteuid() != 0) {                                     \
            VMSUPERIO_SKIP("only root can change to another user"); \
        }                                                           \
    } while (false)

using namespace kvm_vmm;
using namespace kvm_vmm::test;
using sandbox::Feature;
using sandbox::FeatureSet;
using sandbox::Mode;
using sandbox::Role;

namespace {

constexpr FeatureSet every_feature{Feature::pty,    Feature::unix_console, Feature::disk,
                                   Feature::tap,    Feature::stream_net,   Feature::reconnect,
                                   Feature::helper, Feature::share,        Feature::writable_share,
                                   Feature::vsock,  Feature::metrics};

constexpr std::array roles{Role::set_up, Role::main,  Role::vcpu,  Role::disk,
                           Role::net,    Role::share, Role::vsock, Role::input};

constexpr int survived = 77;

struct Ended {
    int status;
    std::string errors;
};

// The process that attacks are made on: the parent, with signal 0, which would do it no harm.
pid_t other_process{0};

/// Runs `body` in a process of its own, whose stderr is returned.
Ended in_process(const std::function<void()>& body) {
    std::array<int, 2> ends{};
    REQUIRE(::pipe2(ends.data(), O_CLOEXEC) == 0);
    const pid_t child = fork_child();
    if (child == 0) {
        ::dup2(ends[1], STDERR_FILENO);
        ::alarm(20);
        other_process = ::getppid();
        std::signal(SIGABRT, SIG_DFL);  // not that of the test's framework
        try {
            body();
        } catch (const std::exception& error) {
            report(error.what());
            ::_exit(1);
        }
        ::_exit(survived);
    }
    ::close(ends[1]);
    const vmsuperio::UniqueFd errors(ends[0]);
    std::string text;
    std::array<char, 4096> buffer{};
    for (ssize_t count = 0; (count = ::read(errors.get(), buffer.data(), buffer.size())) > 0;) {
        text.append(buffer.data(), static_cast<std::size_t>(count));
    }
    int status = 0;
    REQUIRE(::waitpid(child, &status, 0) == child);
    return {exit_code_of(status), text};
}

/// Closes a sandbox, and performs `act` in a thread of `role`.
Ended in_sandbox(Role role, const sandbox::Plan& plan, const std::function<void()>& act) {
    return in_process([&] {
        keep_stderr_open();
        sandbox::prepare(plan);
        sandbox::close();
        if (role == Role::set_up) {
            act();
            return;
        }
        if (role == Role::main) {
            sandbox::enter(Role::main);
            act();
            return;
        }
        std::thread([&] {
            sandbox::enter(role, std::string(sandbox::role_name(role)).c_str());
            act();
        }).join();
    });
}

sandbox::Plan plan_of(std::vector<sandbox::PathRule> paths = {}) {
    return {.mode = Mode::on,
            .features = every_feature,
            .paths = std::move(paths),
            .limits = {.descriptors = 256, .file_size = {}, .core_dumps = false},
            .root = {},
            .user = {},
            .isolate = false};
}

struct Attack {
    std::string call;  ///< the name in the message
    std::function<void()> act;
    std::vector<Role> except;  ///< roles whose filter cannot stop it (Landlock does, see below)
};

// i386 calls from a 64-bit process have the numbers of the other architecture: 11 is execve there.
void call_as_i386() {
    long result = 11;
    asm volatile("int $0x80" : "+a"(result) : "b"(0L), "c"(0L), "d"(0L) : "memory", "r8", "r9", "r10", "r11");
}

const std::vector<Attack> attacks{
    {"execve", [] { ::execl("/bin/true", "true", nullptr); }, {}},
    {"execveat", [] { ::syscall(SYS_execveat, AT_FDCWD, "/bin/true", nullptr, nullptr, 0); }, {}},
    {"fork", [] { ::syscall(SYS_fork); }, {}},
    {"vfork", [] { ::syscall(SYS_vfork); }, {}},
    {"clone", [] { ::syscall(SYS_clone, SIGCHLD, nullptr, nullptr, nullptr, nullptr); }, {}},
    {"clone",  // a thread
     [] {
         ::syscall(SYS_clone, CLONE_VM | CLONE_THREAD | CLONE_SIGHAND, nullptr, nullptr, nullptr, nullptr);
     },
     {Role::set_up}},
    {"openat", [] { ::open("/etc/passwd", O_RDONLY); }, {Role::share, Role::set_up}},
    {"openat",
     [] { ::open("/tmp/kvm_vmm_sandbox_new", O_WRONLY | O_CREAT, 0600); },
     {Role::share, Role::set_up}},
    {"open", [] { ::syscall(SYS_open, "/etc/passwd", O_RDONLY); }, {}},
    {"creat", [] { ::syscall(SYS_creat, "/tmp/kvm_vmm_sandbox_new", 0600); }, {}},
    {"socket", [] { ::socket(AF_INET, SOCK_STREAM, 0); }, {}},
    {"socket", [] { ::socket(AF_INET6, SOCK_DGRAM, 0); }, {}},
    {"socket", [] { ::socket(AF_NETLINK, SOCK_RAW, 0); }, {}},
    {"bind", [] { ::bind(0, nullptr, 0); }, {}},
    {"listen", [] { ::listen(0, 1); }, {}},
    {"ptrace", [] { ::ptrace(PTRACE_ATTACH, other_process, nullptr, nullptr); }, {}},
    {"process_vm_readv", [] { ::process_vm_readv(1, nullptr, 0, nullptr, 0, 0); }, {}},
    {"process_vm_writev", [] { ::process_vm_writev(1, nullptr, 0, nullptr, 0, 0); }, {}},
    {"mmap",
     [] { ::mmap(nullptr, 4096, PROT_READ | PROT_WRITE | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0); },
     {}},
    {"mmap", [] { ::mmap(nullptr, 4096, PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0); }, {}},
    {"mprotect",
     [] {
         void* const page = ::mmap(nullptr, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
         ::mprotect(page, 4096, PROT_READ | PROT_EXEC);
     },
     {}},
    {"pkey_mprotect", [] { ::syscall(SYS_pkey_mprotect, nullptr, 4096, PROT_EXEC, -1); }, {}},
    {"memfd_create", [] { ::syscall(SYS_memfd_create, "code", 0); }, {}},
    {"ioctl", [] { ::ioctl(0, TIOCSTI, "x"); }, {}},
    {"ioctl", [] { ::ioctl(0, TIOCLINUX, 0); }, {}},
    {"ioctl", [] { ::ioctl(0, KVM_SET_USER_MEMORY_REGION, 0); }, {Role::set_up}},
    {"ioctl", [] { ::ioctl(0, KVM_CREATE_VM, 0); }, {Role::set_up}},
    {"ioctl", [] { ::ioctl(0, KVM_RUN, 0); }, {Role::set_up, Role::vcpu}},
    {"kill", [] { ::kill(other_process, 0); }, {}},
    {"kill", [] { ::kill(-1, 0); }, {}},
    {"tgkill", [] { ::syscall(SYS_tgkill, other_process, other_process, 0); }, {}},
    {"tkill", [] { ::syscall(SYS_tkill, other_process, 0); }, {}},
    {"pidfd_open", [] { ::syscall(SYS_pidfd_open, other_process, 0); }, {}},
    {"pidfd_getfd", [] { ::syscall(SYS_pidfd_getfd, 0, 0, 0); }, {}},
    {"unshare", [] { ::unshare(CLONE_NEWUSER); }, {}},
    {"setns", [] { ::setns(0, 0); }, {}},
    {"mount", [] { ::syscall(SYS_mount, "none", "/", "tmpfs", 0, nullptr); }, {}},
    {"chroot", [] { [[maybe_unused]] const int result = ::chroot("/"); }, {}},
    {"setuid", [] { ::syscall(SYS_setuid, 0); }, {}},
    {"capset", [] { ::syscall(SYS_capset, nullptr, nullptr); }, {}},
    {"prctl", [] { ::prctl(PR_SET_DUMPABLE, 1); }, {}},
    {"prctl", [] { ::prctl(PR_SET_PTRACER, -1); }, {}},
    {"fcntl", [] { ::fcntl(0, F_SETOWN, other_process); }, {}},
    {"fcntl", [] { ::fcntl(0, F_SETSIG, SIGKILL); }, {}},
    {"bpf", [] { ::syscall(SYS_bpf, 0, nullptr, 0); }, {}},
    {"perf_event_open", [] { ::syscall(SYS_perf_event_open, nullptr, 0, 0, 0, 0); }, {}},
    {"userfaultfd", [] { ::syscall(SYS_userfaultfd, 0); }, {}},
    {"keyctl", [] { ::syscall(SYS_keyctl, 0); }, {}},
    {"add_key", [] { ::syscall(SYS_add_key, nullptr, nullptr, nullptr, 0, 0); }, {}},
    {"init_module", [] { ::syscall(SYS_init_module, nullptr, 0, nullptr); }, {}},
    {"personality", [] { ::syscall(SYS_personality, 0); }, {}},
    {"io_uring_setup", [] { ::syscall(SYS_io_uring_setup, 1, nullptr); }, {Role::set_up}},
    {"shmat", [] { ::syscall(SYS_shmat, 0, nullptr, 0); }, {}},
    {"rename", [] { ::syscall(SYS_rename, "/tmp/a", "/tmp/b"); }, {}},
    {"unlink", [] { ::syscall(SYS_unlink, "/tmp/a"); }, {}},
    {"chmod", [] { ::syscall(SYS_chmod, "/tmp/a", 0777); }, {}},
    {"setxattr", [] { ::syscall(SYS_setxattr, "/tmp/a", "user.a", "", 0, 0); }, {}},
    {"execve", call_as_i386, {}},
};

bool has(const std::vector<Role>& list, Role role) { return std::ranges::find(list, role) != list.end(); }

int open_directory(const std::filesystem::path& path) {
    return ::open(path.c_str(), O_PATH | O_DIRECTORY | O_CLOEXEC);
}

/// The error number of opening `path`, or 0.
int error_of_open(const std::string& path, int flags) {
    const int fd = ::open(path.c_str(), flags, 0600);
    const int error = fd < 0 ? errno : 0;
    ::close(fd);
    return error;
}

std::string status_field(const std::string& text, const std::string& name) {
    const std::size_t at = text.find("\n" + name + ":");
    if (at == std::string::npos) {
        return {};
    }
    const std::size_t start = text.find_first_not_of(" \t", at + name.size() + 2);
    return text.substr(start, text.find('\n', start) - start);
}

/// The status of each thread of a process, by the thread's name.
std::map<std::string, std::string> threads_of(pid_t process) {
    std::map<std::string, std::string> threads;
    for (const auto& entry :
         std::filesystem::directory_iterator("/proc/" + std::to_string(process) + "/task")) {
        const std::string status = slurp(entry.path() / "status");
        threads.emplace(status.substr(6, status.find('\n') - 6), status);
    }
    return threads;
}

}  // namespace

TEST_CASE("Sandbox: no thread can make a system call that it does not need", "[sandbox]") {
    for (const Role role : roles) {
        for (std::size_t i = 0; i < attacks.size(); ++i) {
            const Attack& attack = attacks.at(i);
            if (has(attack.except, role)) {
                continue;
            }
            const Ended end = in_sandbox(role, plan_of(), attack.act);
            CAPTURE(sandbox::role_name(role), attack.call, i, end.errors);
            CHECK(end.status == static_cast<int>(ExitCode::sandbox));
            // The number of a call of i386 has another name here.
            const bool foreign = i + 1 == attacks.size();
            CHECK_THAT(end.errors,
                       Catch::Matchers::StartsWith("kvm_vmm: the sandbox stopped " +
                                                   (foreign ? std::string() : attack.call + "(")));
            const std::string thread(role == Role::set_up ? "main" : sandbox::role_name(role));
            CHECK_THAT(end.errors, Catch::Matchers::Contains("in the thread " + thread + " ("));
            CHECK(line_count(end.errors) == 1);
        }
    }
}

TEST_CASE("Sandbox: a thread keeps the calls that every thread needs", "[sandbox]") {
    for (const Role role : roles) {
        const Ended end = in_sandbox(role, plan_of(), [] {
            std::vector<std::vector<char>> blocks;
            for (std::size_t size = 16; size <= (std::size_t{8} << 20U); size *= 2) {
                blocks.emplace_back(size, 'x');
                blocks.back().resize(size * 2);
            }
            blocks.clear();
            std::mutex mutex;
            const std::lock_guard lock(mutex);
            std::this_thread::sleep_for(std::chrono::milliseconds(1));
            std::this_thread::yield();
            try {
                throw std::runtime_error("x");
            } catch (const std::exception& error) {
                report(error.what());
            }
            log(LogLevel::warning, "a warning");
            if (const int pending = ::isatty(STDERR_FILENO); pending != 0) {
                ::_exit(3);
            }
        });
        CAPTURE(sandbox::role_name(role), end.errors);
        CHECK(end.status == survived);
        CHECK(end.errors == "kvm_vmm: x\nkvm_vmm: warning: a warning\n");
    }
}

TEST_CASE("Sandbox: a thread can abort, and the process ends by that signal", "[sandbox]") {
    for (const Role role : roles) {
        const Ended end = in_sandbox(role, plan_of(), [] { std::abort(); });
        CAPTURE(sandbox::role_name(role), end.errors);
        CHECK(end.status == 128 + SIGABRT);
        CHECK(end.errors.empty());
    }
}

TEST_CASE("Sandbox: the line says what kind of file the first argument is", "[sandbox]") {
    const Ended file = in_sandbox(Role::main, plan_of(), [] { ::fchdir(STDERR_FILENO); });
    CHECK_THAT(file.errors, Catch::Matchers::Contains("fchdir(0x2, "));
    CHECK_THAT(file.errors, Catch::Matchers::Contains("(descriptor 2 is a FIFO or pipe)"));
    const Ended none = in_sandbox(Role::main, plan_of(), [] { ::fchdir(250); });
    CHECK_THAT(none.errors, Catch::Matchers::Contains("(no open descriptor)"));
}

TEST_CASE("Sandbox: a terminal is restored before the process ends", "[sandbox]") {
    int master = -1;
    int slave = -1;
    REQUIRE(::openpty(&master, &slave, nullptr, nullptr, nullptr) == 0);
    termios before{};
    REQUIRE(::tcgetattr(slave, &before) == 0);
    const Ended end = in_process([&] {
        ::setsid();
        ::ioctl(slave, TIOCSCTTY, 0);
        keep_stderr_open();
        sandbox::set_terminal_restorer(&RawTerminal::suspend);
        sandbox::prepare(plan_of());
        const RawTerminal raw(slave);
        termios now{};
        if (::tcgetattr(slave, &now) != 0 || (now.c_lflag & ICANON) != 0) {
            ::_exit(1);
        }
        sandbox::close();
        std::thread([] {
            sandbox::enter(Role::vcpu, "vcpu0");
            ::socket(AF_INET, SOCK_STREAM, 0);
        }).join();
    });
    CAPTURE(end.errors);
    CHECK(end.status == static_cast<int>(ExitCode::sandbox));
    termios after{};
    REQUIRE(::tcgetattr(slave, &after) == 0);
    CHECK(after.c_lflag == before.c_lflag);
    CHECK(after.c_iflag == before.c_iflag);
    CHECK(after.c_oflag == before.c_oflag);
    ::close(master);
    ::close(slave);
}

TEST_CASE("Sandbox: SIGSYS from another process has its default action", "[sandbox]") {
    const Ended end = in_sandbox(Role::main, plan_of(), [] { ::raise(SIGSYS); });
    CHECK(end.status == 128 + SIGSYS);
    CHECK(end.errors.empty());
}

TEST_CASE("Sandbox: a thread that was started with SIGSYS blocked is stopped with the line too",
          "[sandbox]") {
    for (const Role role : roles) {
        const Ended end = in_process([&] {
            sigset_t all{};
            sigfillset(&all);
            sigprocmask(SIG_BLOCK, &all, nullptr);
            std::signal(SIGSYS, SIG_IGN);
            keep_stderr_open();
            sandbox::prepare(plan_of());
            sandbox::close();
            const auto act = [] { ::socket(AF_INET, SOCK_STREAM, 0); };
            if (role == Role::set_up) {
                act();
                return;
            }
            if (role == Role::main) {
                sandbox::enter(role);
                act();
                return;
            }
            std::thread([&] {
                sigprocmask(SIG_BLOCK, &all, nullptr);
                sandbox::enter(role, std::string(sandbox::role_name(role)).c_str());
                act();
            }).join();
        });
        CAPTURE(sandbox::role_name(role), end.errors);
        CHECK(end.status == static_cast<int>(ExitCode::sandbox));
        CHECK_THAT(end.errors, Catch::Matchers::StartsWith("kvm_vmm: the sandbox stopped socket("));
    }
}

TEST_CASE("Sandbox: in the mode log a call is reported once, and made", "[sandbox]") {
    sandbox::Plan plan = plan_of();
    plan.mode = Mode::log;
    const ScratchDirectory directory;
    const std::string path = directory.write("file", "text").string();
    const Ended end = in_sandbox(Role::vcpu, plan, [&] {
        for (int i = 0; i < 3; ++i) {
            const int fd = ::open(path.c_str(), O_RDONLY);
            std::array<char, 4> text{};
            if (fd < 0 || ::read(fd, text.data(), text.size()) != 4 || text[0] != 't') {
                ::_exit(1);
            }
            ::close(fd);
        }
        if (::open("/nonexistent/file", O_RDONLY) != -1 || errno != ENOENT) {
            ::_exit(2);
        }
        if (::syscall(SYS_fork) != -1 || errno != EPERM) {
            ::_exit(3);  // a new process cannot start in a signal's handler
        }
    });
    CAPTURE(end.errors);
    CHECK(end.status == survived);
    CHECK(line_count(end.errors) == 2);
    CHECK_THAT(end.errors, Catch::Matchers::StartsWith("kvm_vmm: the sandbox would stop openat("));
    CHECK_THAT(end.errors, Catch::Matchers::Contains("\nkvm_vmm: the sandbox would stop fork("));
}

TEST_CASE("Sandbox: without one, threads do what they like", "[sandbox]") {
    sandbox::Plan plan = plan_of();
    plan.mode = Mode::off;
    const Ended end = in_sandbox(Role::vcpu, plan, [] {
        if (::open("/etc/passwd", O_RDONLY) < 0 || ::prctl(PR_GET_SECCOMP) != 0 ||
            ::prctl(PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0) != 0) {
            ::_exit(1);
        }
    });
    CHECK(end.status == survived);
}

TEST_CASE("Sandbox: the file system ends at the directories of the plan", "[sandbox][landlock]") {
    if (sandbox::landlock_version() == 0) {
        WARN("this kernel has no Landlock");
        return;
    }
    const ScratchDirectory directory;
    for (const char* const name : {"read", "write", "replace", "remove", "other"}) {
        std::filesystem::create_directory(directory / name);
        std::ofstream(directory / name / "file") << name;
    }
    std::filesystem::create_symlink("../other/file", directory / "read" / "link");
    const auto path = [&](const std::string& name) { return (directory / name).string(); };
    const sandbox::Plan plan =
        plan_of({{.directory = open_directory(directory / "read"), .use = sandbox::PathUse::read},
                 {.directory = open_directory(directory / "write"), .use = sandbox::PathUse::write},
                 {.directory = open_directory(directory / "replace"), .use = sandbox::PathUse::replace},
                 {.directory = open_directory(directory / "remove"), .use = sandbox::PathUse::remove}});
    const auto check = [](bool condition, const std::string& what) {
        if (!condition) {
            report(what + ": error " + std::to_string(errno));
        }
    };
    // The filter of this role allows files to be opened: only Landlock is in the way.
    const Ended end = in_sandbox(Role::share, plan, [&] {
        check(error_of_open(path("read/file"), O_RDONLY) == 0, "read");
        check(error_of_open(path("read/file"), O_WRONLY) == EACCES, "write to what may be read");
        check(error_of_open(path("read/new"), O_WRONLY | O_CREAT) == EACCES, "create where one may read");
        check(error_of_open(path("read/link"), O_RDONLY) == EACCES, "a link that leads out");
        check(error_of_open(path("read/../other/file"), O_RDONLY) == EACCES, "out with ..");
        check(error_of_open(path("other/file"), O_RDONLY) == EACCES, "another directory");
        check(error_of_open("/etc/passwd", O_RDONLY) == EACCES, "/etc/passwd");
        check(error_of_open("/proc/self/mem", O_RDWR) == EACCES, "/proc/self/mem");
        check(error_of_open("/dev/null", O_RDWR) == EACCES, "/dev/null");
        check(error_of_open(path("write/file"), O_RDWR | O_TRUNC) == 0, "change");
        check(error_of_open(path("write/new"), O_WRONLY | O_CREAT) == 0, "create");
        check(::unlinkat(AT_FDCWD, path("write/new").c_str(), 0) == 0, "remove");
        check(::renameat(AT_FDCWD, path("write/file").c_str(), AT_FDCWD, path("other/moved").c_str()) != 0,
              "move out");
        check(::linkat(AT_FDCWD, path("other/file").c_str(), AT_FDCWD, path("write/linked").c_str(), 0) != 0,
              "link what is outside");
        check(error_of_open(path("replace/file"), O_RDONLY) == EACCES, "read what is replaced");
        check(error_of_open(path("replace/new"), O_WRONLY | O_CREAT | O_EXCL) == 0, "create to replace");
        check(::renameat(AT_FDCWD, path("replace/new").c_str(), AT_FDCWD, path("replace/file").c_str()) == 0,
              "replace");
        check(error_of_open(path("remove/new"), O_WRONLY | O_CREAT) == EACCES, "create where one may remove");
        check(::unlinkat(AT_FDCWD, path("remove/file").c_str(), 0) == 0, "remove only");
        check(::unlinkat(AT_FDCWD, path("other/file").c_str(), 0) != 0, "remove elsewhere");
    });
    CHECK(end.status == survived);
    CHECK(end.errors.empty());
}

TEST_CASE("Sandbox: a thread that was started before the sandbox is closed is confined too", "[sandbox]") {
    const Ended end = in_process([] {
        keep_stderr_open();
        sandbox::prepare(plan_of());
        int error = 0;
        std::thread([&] {
            sandbox::enter(Role::share, "early");
            error = error_of_open("/etc/passwd", O_RDONLY);
        }).join();
        if (sandbox::landlock_version() != 0 && error != EACCES) {
            ::_exit(1);
        }
        sandbox::close();
    });
    CAPTURE(end.errors);
    CHECK(end.status == survived);
}

TEST_CASE("Sandbox: no capability is left, and no open file above the limit", "[sandbox]") {
    const Ended end = in_process([] {
        keep_stderr_open();
        const int status = ::open("/proc/self/status", O_RDONLY);
        const bool root = ::geteuid() == 0;
        sandbox::Plan plan = plan_of();
        plan.limits.descriptors = 32;
        sandbox::prepare(plan);
        sandbox::close();
        std::array<char, 8192> text{};
        [[maybe_unused]] const ssize_t got = ::read(status, text.data(), text.size() - 1);
        for (const char* const field : {"CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"}) {
            const std::string value = status_field(text.data(), field);
            const bool bounding_kept = std::string(field) == "CapBnd" && !root;
            if (value != "0000000000000000" && !bounding_kept) {
                report(std::string(field) + ' ' + value);
            }
        }
        if (::fcntl(0, F_DUPFD_CLOEXEC, 32) != -1 || errno != EINVAL) {
            report("a descriptor above the limit");
        }
    });
    CAPTURE(end.errors);
    CHECK(end.errors.empty());
    CHECK(end.status == survived);
}

TEST_CASE("Sandbox: a role has no call that the set-up lacks, and each row says why", "[sandbox]") {
    for (const sandbox::AllowedCall& call : sandbox::allowed_calls(1)) {
        CAPTURE(call.number);
        CHECK_FALSE(call.why.empty());
        CHECK_FALSE(call.roles.empty());
    }
    // Whatever a thread may do, it could not do more than the process: filters add up.
    const auto number_of = [](Role role) {
        return sandbox::calls_of(role, every_feature, sandbox::allowed_calls(1)).size();
    };
    for (const Role role : roles) {
        CHECK(number_of(role) <= number_of(Role::set_up));
        CHECK(sandbox::calls_of(role, {}, sandbox::allowed_calls(1)).size() <= number_of(role));
    }
    CHECK(number_of(Role::input) < number_of(Role::vcpu));
}

TEST_CASE("Sandbox: calls that gain rights are in no list", "[sandbox]") {
    const std::set<int> never{SYS_execve,
                              SYS_execveat,
                              SYS_fork,
                              SYS_vfork,
                              SYS_ptrace,
                              SYS_bpf,
                              SYS_mount,
                              SYS_unshare,
                              SYS_setns,
                              SYS_setuid,
                              SYS_setresuid,
                              SYS_setgid,
                              SYS_capset,
                              SYS_chroot,
                              SYS_pivot_root,
                              SYS_init_module,
                              SYS_finit_module,
                              SYS_kexec_load,
                              SYS_keyctl,
                              SYS_add_key,
                              SYS_userfaultfd,
                              SYS_perf_event_open,
                              SYS_open,
                              SYS_creat,
                              SYS_bind,
                              SYS_listen,
                              SYS_pidfd_getfd,
                              SYS_process_vm_readv,
                              SYS_process_vm_writev,
                              SYS_memfd_create,
                              SYS_open_by_handle_at,
                              SYS_pkey_mprotect,
                              SYS_iopl,
                              SYS_ioperm};
    for (const sandbox::AllowedCall& call : sandbox::allowed_calls(1)) {
        CAPTURE(call.number);
        CHECK(never.count(call.number) == 0);
        if (call.number == SYS_ioctl || call.number == SYS_fcntl || call.number == SYS_prctl ||
            call.number == SYS_mmap || call.number == SYS_mprotect || call.number == SYS_clone ||
            call.number == SYS_socket || call.number == SYS_kill || call.number == SYS_tgkill) {
            CHECK_FALSE(call.checks.empty());
        }
    }
}

TEST_CASE("Sandbox: the launcher of a helper can start programs, but not reach other processes",
          "[sandbox]") {
    const sandbox::SeccompFilter filter = sandbox::launcher_filter();
    const Ended end = in_process([&] {
        ::prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
        if (filter.install() != 0) {
            ::_exit(1);
        }
        // With these arguments, the kernel would find another mistake than EPERM.
        const auto refused = [](long result, const char* call) {
            if (result != -1 || errno != EPERM) {
                report(std::string(call) + ": error " + std::to_string(errno));
            }
        };
        refused(::syscall(SYS_io_uring_setup, 1, nullptr), "io_uring_setup");
        refused(::syscall(SYS_ptrace, PTRACE_CONT, other_process, nullptr, nullptr), "ptrace");
        refused(::syscall(SYS_process_vm_readv, ::getpid(), nullptr, 0, nullptr, 0, 1), "process_vm_readv");
        refused(::syscall(SYS_pidfd_getfd, -1, 0, 0), "pidfd_getfd");
        refused(::syscall(SYS_keyctl, -1), "keyctl");
        refused(::syscall(SYS_bpf, -1, nullptr, 0), "bpf");
        refused(::syscall(SYS_finit_module, -1, nullptr, 0), "finit_module");
        const pid_t child = ::fork();
        if (child == 0) {
            ::execl("/bin/sh", "sh", "-c", "exit 3", nullptr);
            ::_exit(127);
        }
        int status = 0;
        if (::waitpid(child, &status, 0) != child || exit_code_of(status) != 3) {
            report("a program: " + std::to_string(status));
        }
        if (::unshare(CLONE_NEWNS) != 0 && ::geteuid() == 0) {
            report("a namespace: error " + std::to_string(errno));  // which passt makes
        }
    });
    CHECK(end.errors.empty());
    CHECK(end.status == survived);
}

TEST_CASE("Sandbox: each system call has the name that libseccomp knows", "[sandbox]") {
    int known = 0;
    for (int number = -1; number < 1024; ++number) {
        const std::unique_ptr<char, void (*)(void*)> name(
            ::seccomp_syscall_resolve_num_arch(SCMP_ARCH_X86_64, number), std::free);
        const std::string_view ours = sandbox::call_name(number);
        CAPTURE(number, std::string(ours));
        if (name) {
            CHECK(ours == name.get());
            ++known;
        }
        CHECK(ours.find(' ') == std::string_view::npos);
    }
    CHECK(known > 350);
    CHECK(sandbox::call_name(SYS_execve) == "execve");
    for (const int unknown : {-1, 336, 400, 423, 470, 100'000, INT32_MAX}) {
        CHECK(sandbox::call_name(unknown).empty());
    }
}

TEST_CASE("Sandbox: a user is two numbers above 0", "[sandbox]") {
    CHECK(sandbox::parse_user("1000")->user == 1000);
    CHECK(sandbox::parse_user("1000")->group == 1000);
    CHECK(sandbox::parse_user("1000:20")->group == 20);
    for (const char* const text : {"", "0", "1000:0", "root", "-1", "4294967295", "4294967296",
                                   "1000:", ":1000", "1 ", "0x10", "1000:20:3"}) {
        CAPTURE(text);
        CHECK_FALSE(sandbox::parse_user(text).has_value());
    }
}

namespace {

std::string_view feature_name(Feature feature) {
    switch (feature) {
        case Feature::pty:
            return "pty console";
        case Feature::unix_console:
            return "unix console";
        case Feature::disk:
            return "disk";
        case Feature::tap:
            return "tap";
        case Feature::stream_net:
            return "net on a socket";
        case Feature::reconnect:
            return "passt=SOCKET";
        case Feature::helper:
            return "passt";
        case Feature::share:
            return "share";
        case Feature::writable_share:
            return "writable share";
        case Feature::vsock:
            return "vsock";
        case Feature::metrics:
            return "metrics";
    }
    return "";
}

// "a, b".
void append(std::string& list, std::string_view item) {
    list += (list.empty() ? "" : ", ") + std::string(item);
}

std::string thread_names(sandbox::RoleSet set) {
    std::string names;
    for (const Role role : roles) {
        if (set.has(role)) {
            append(names, sandbox::role_name(role));
        }
    }
    return set == sandbox::RoleSet{Role::set_up, Role::main,  Role::vcpu,  Role::disk,
                                   Role::net,    Role::share, Role::vsock, Role::input}
               ? "all"
               : names;
}

/// The table in docs/threat-model.md.
std::string table_of_calls() {
    std::string text = "| Call | Arguments | Threads | Only with | Why |\n|---|---|---|---|---|\n";
    for (const sandbox::AllowedCall& call : sandbox::allowed_calls(1)) {
        std::string arguments;
        for (const sandbox::ArgumentCheck& check : call.checks) {
            append(arguments, check.meaning);
        }
        std::string features;
        for (unsigned i = 0; i <= static_cast<unsigned>(Feature::metrics); ++i) {
            if (call.features.has(static_cast<Feature>(i))) {
                append(features, feature_name(static_cast<Feature>(i)));
            }
        }
        text += "| " + std::string(sandbox::call_name(call.number)) + " | " + arguments + " | " +
                thread_names(call.roles) + " | " + features + " | " + std::string(call.why) + " |\n";
    }
    return text;
}

/// The table of how many calls each role has.
std::string table_of_numbers() {
    std::string text =
        "| Thread | System calls | of these, `ioctl` requests | with every device |\n|---|---|---|---|\n";
    for (const Role role : roles) {
        const auto count = [&](FeatureSet features, bool requests) {
            std::set<std::pair<int, std::uint64_t>> found;
            for (const sandbox::AllowedCall& call :
                 sandbox::calls_of(role, features, sandbox::allowed_calls(1))) {
                if (requests) {
                    if (call.number == SYS_ioctl) {
                        found.emplace(call.number, call.checks.front().value);
                    }
                } else {
                    found.emplace(call.number, 0);
                }
            }
            return std::to_string(found.size());
        };
        text += "| " + std::string(sandbox::role_name(role)) + " | " + count({}, false) + " | " +
                count({}, true) + " | " + count(every_feature, false) + " |\n";
    }
    return text;
}

}  // namespace

TEST_CASE("Sandbox: docs/threat-model.md has the tables of system calls", "[sandbox][docs]") {
    const std::string document = slurp(VMSUPERIO_SOURCE_DIR "/docs/threat-model.md");
    for (const std::string& table : {table_of_numbers(), table_of_calls()}) {
        INFO("The document must contain this:\n" << table);
        CHECK(document.find(table) != std::string::npos);
    }
}

// mov dx, 0x3F8; mov al, '!'; out dx, al; jmp to itself
const std::vector<std::uint8_t> say_and_spin{0x66, 0xBA, 0xF8, 0x03, 0xB0, '!', 0xEE, 0xEB, 0xFE};

TEST_CASE("kvm_vmm: each of its threads is in the sandbox while the guest runs", "[sandbox][program]") {
    REQUIRE_KVM();
    const ScratchDirectory directory;
    std::filesystem::create_directory(directory / "shared");
    const std::string disk = directory.write("disk", std::string(65536, '\0')).string();
    const std::vector<std::string> devices{"--cpus",    "2",
                                           "--disk",    disk,
                                           "--share",   (directory / "shared").string(),
                                           "--vsock",   "cid=3,path=" + (directory / "vsock").string(),
                                           "--metrics", (directory / "metrics").string(),
                                           "--balloon", "--console",
                                           "pty"};
    for (const char* const mode : {"on", "off"}) {
        for (const char* const reboot : {"exit", "restart"}) {
            std::vector<std::string> options = devices;
            options.insert(options.end(), {"--sandbox", mode, "--on-reboot", reboot});
            const bool on = std::string(mode) == "on";
            {
                CAPTURE(mode, reboot);
                const vmsuperio::UniqueFd errors(
                    ::open((directory / "errors").c_str(), O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600));
                const Job job(with_kernel(directory, say_and_spin, options), {}, errors.get());
                CHECK(job.next_byte() == '!');
                INFO(slurp(directory / "errors"));
                const auto threads = threads_of(job.pid());
                CHECK(threads.count("vcpu1") == 1);
                CHECK(threads.count("disk0") == 1);
                CHECK(threads.count("vsock0") == 1);
                for (const auto& [name, status] : threads) {
                    if (name.starts_with("iou-")) {
                        continue;  // of the kernel
                    }
                    CAPTURE(name, status);
                    CHECK(status_field(status, "Seccomp") == (on ? "2" : "0"));
                    CHECK(status_field(status, "NoNewPrivs") == (on ? "1" : "0"));
                    if (on) {
                        CHECK(status_field(status, "CapEff") == "0000000000000000");
                        CHECK(status_field(status, "CapPrm") == "0000000000000000");
                        // That of the process, and that of the thread; the main thread has one if it has to make
                        // another VM.
                        const bool only_one = name == "kvm_vmm" && std::string(reboot) == "restart";
                        CHECK(status_field(status, "Seccomp_filters") == (only_one ? "1" : "2"));
                    }
                }
            }
        }
    }
}

TEST_CASE("kvm_vmm: with --user and --chroot it has another user and an empty root", "[sandbox][program]") {
    REQUIRE_KVM();
    REQUIRE_ROOT();
    const ScratchDirectory directory;
    std::filesystem::create_directory(directory / "empty");
    const std::string root = (directory / "empty").string();
    const Job job(with_kernel(directory, say_and_spin, {"--user", "12345:23456", "--chroot", root}));
    CHECK(job.next_byte() == '!');
    for (const auto& [name, status] : threads_of(job.pid())) {
        CAPTURE(name);
        CHECK(status_field(status, "Uid") == "12345\t12345\t12345\t12345");
        CHECK(status_field(status, "Gid") == "23456\t23456\t23456\t23456");
        CHECK(status_field(status, "Groups").find_first_not_of(' ') == std::string::npos);
    }
    CHECK(std::filesystem::read_symlink("/proc/" + std::to_string(job.pid()) + "/root") == root);
    const Result missing =
        run(directory, with_kernel(directory, reset_code, {"--chroot", (directory / "none").string()}));
    CHECK(missing.exit_code == 3);
    CHECK_THAT(missing.errors, Catch::Matchers::Contains("--chroot"));
    CHECK(line_count(missing.errors) == 1);
}

TEST_CASE("kvm_vmm: an ordinary user needs no right for the sandbox", "[sandbox][program]") {
    REQUIRE_KVM();
    const ScratchDirectory directory;
    const Result result = run(directory, with_kernel(directory, reset_code, {"--sandbox", "on"}));
    CHECK(result.exit_code == 10);
    CHECK(result.output == "!");
    CHECK(result.errors.empty());
}

namespace {

/// As a container does: this process and what it executes get `error` from a system call.
void refuse_call(unsigned number, unsigned error) {
    std::array<sock_filter, 4> filter{
        sock_filter{.code = BPF_LD | BPF_W | BPF_ABS, .jt = 0, .jf = 0, .k = offsetof(seccomp_data, nr)},
        sock_filter{.code = BPF_JMP | BPF_JEQ | BPF_K, .jt = 0, .jf = 1, .k = number},
        sock_filter{.code = BPF_RET | BPF_K, .jt = 0, .jf = 0, .k = SECCOMP_RET_ERRNO | error},
        sock_filter{.code = BPF_RET | BPF_K, .jt = 0, .jf = 0, .k = SECCOMP_RET_ALLOW}};
    const sock_fprog program{.len = filter.size(), .filter = filter.data()};
    ::prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
    ::prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program);
}

}  // namespace

TEST_CASE("kvm_vmm: it runs where the kernel has no Landlock, and says so", "[sandbox][program]") {
    REQUIRE_KVM();
    const ScratchDirectory directory;
    const auto arguments = with_kernel(directory, reset_code);
    for (const unsigned error : {unsigned{ENOSYS}, unsigned{EOPNOTSUPP}}) {
        const auto without = [error] { refuse_call(SYS_landlock_create_ruleset, error); };
        const Result result = run(directory, arguments, "/dev/null", without);
        CHECK(result.exit_code == 10);
        CHECK(result.output == "!");
        CHECK_THAT(result.errors,
                   Catch::Matchers::StartsWith("kvm_vmm: warning: sandbox: this kernel has no Landlock"));
        CHECK(line_count(result.errors) == 1);
        const Result required = run(directory, with_kernel(directory, reset_code, {"--sandbox", "required"}),
                                    "/dev/null", without);
        CHECK(required.exit_code == 1);
        CHECK(required.output.empty());
        CHECK_THAT(required.errors, Catch::Matchers::Contains("no Landlock"));
        CHECK(line_count(required.errors) == 1);
    }
}

TEST_CASE("kvm_vmm: where filters are refused it ends with a line, unless it needs none",
          "[sandbox][program]") {
    REQUIRE_KVM();
    const ScratchDirectory directory;
    const auto without = [] { refuse_call(SYS_seccomp, EPERM); };
    const Result result = run(directory, with_kernel(directory, reset_code), "/dev/null", without);
    CHECK(result.exit_code == 1);
    CHECK(result.output.empty());
    CHECK_THAT(result.errors, Catch::Matchers::Contains("--no-sandbox"));
    CHECK(line_count(result.errors) == 1);
    const Result off =
        run(directory, with_kernel(directory, reset_code, {"--no-sandbox"}), "/dev/null", without);
    CHECK(off.exit_code == 10);
    CHECK(off.errors.empty());
}

TEST_CASE("kvm_vmm: the sandbox works inside another filter, and without /proc", "[sandbox][program]") {
    REQUIRE_KVM();
    const ScratchDirectory directory;
    const auto arguments = with_kernel(directory, reset_code, {"--cpus", "2"});
    const Result inside = run(directory, arguments, "/dev/null", [] { refuse_call(SYS_keyctl, EPERM); });
    CHECK(inside.exit_code == 10);
    CHECK(inside.errors.empty());
    if (::geteuid() != 0) {
        WARN("only root can hide /proc");
        return;
    }
    const Result without_proc = run(directory, arguments, "/dev/null", [] {
        if (::unshare(CLONE_NEWNS) != 0 || ::mount("none", "/", nullptr, MS_REC | MS_PRIVATE, nullptr) != 0 ||
            ::mount("none", "/proc", "tmpfs", 0, nullptr) != 0) {
            ::_exit(126);
        }
    });
    CHECK(without_proc.exit_code == 10);
    CHECK(without_proc.output == "!");
    CHECK(without_proc.errors.empty());
}

TEST_CASE("kvm_vmm: a process that it did not start gets no signal, and its log can be moved",
          "[sandbox][program]") {
    REQUIRE_KVM();
    const ScratchDirectory directory;
    const std::string log = (directory / "log").string();
    const std::string moved = (directory / "moved").string();
    const std::string metrics = (directory / "metrics").string();
    Job job(with_kernel(directory, say_and_spin, {"--log", log, "--metrics", metrics}));
    CHECK(job.next_byte() == '!');
    std::filesystem::rename(log, moved);
    job.send(SIGUSR1);
    for (int i = 0; i < 500 && slurp(metrics).empty(); ++i) {
        ::usleep(10'000);
    }
    CHECK_THAT(slurp(metrics), Catch::Matchers::Contains("\"exit_code\": null"));
    job.send(SIGTERM);
    CHECK(job.wait() == 128 + SIGTERM);
    CHECK_THAT(slurp(moved), Catch::Matchers::Contains("ended with exit code 143"));
    CHECK_FALSE(std::filesystem::exists(log));
    CHECK_THAT(slurp(metrics), Catch::Matchers::Contains("\"exit_code\": 143"));
}

TEST_CASE("kvm_vmm: with --isolate it has namespaces of its own and an empty root", "[sandbox][program]") {
    REQUIRE_KVM();
    const ScratchDirectory directory;
    std::filesystem::create_directory(directory / "shared");
    std::ofstream(directory / "shared" / "file") << "x";
    const std::string disk = directory.write("disk", std::string(65536, '\0')).string();
    const std::string metrics = (directory / "metrics").string();
    const auto namespaces = [](pid_t process) {
        std::map<std::string, std::string> links;
        for (const char* const name : {"mnt", "net", "ipc", "uts"}) {
            links[name] =
                std::filesystem::read_symlink("/proc/" + std::to_string(process) + "/ns/" + name).string();
        }
        return links;
    };
    Job job(with_kernel(directory, say_and_spin,
                        {"--isolate", "--disk", disk, "--share", (directory / "shared").string(), "--metrics",
                         metrics, "--console", "pty"}));
    CHECK(job.next_byte() == '!');
    const auto ours = namespaces(::getpid());
    for (const auto& [name, link] : namespaces(job.pid())) {
        CAPTURE(name);
        CHECK(link != ours.at(name));
    }
    const std::filesystem::path root = "/proc/" + std::to_string(job.pid()) + "/root";
    CHECK(std::filesystem::directory_iterator(root) == std::filesystem::directory_iterator());
    job.send(SIGTERM);
    CHECK(job.wait() == 128 + SIGTERM);
    CHECK_THAT(slurp(metrics), Catch::Matchers::Contains("\"exit_code\": 143"));
}

TEST_CASE("kvm_vmm: what --chroot and --isolate mean for sockets that are connected to is said",
          "[sandbox][program]") {
    REQUIRE_KVM();
    const ScratchDirectory directory;
    const std::string vsock = "cid=3,path=" + (directory / "vsock").string();
    const Result isolated =
        run(directory, with_kernel(directory, reset_code, {"--isolate", "--vsock", vsock}));
    CHECK(isolated.exit_code == 10);
    CHECK_THAT(isolated.errors, Catch::Matchers::Contains("--isolate keeps the file system"));
    CHECK(line_count(isolated.errors) == 1);
    if (::geteuid() != 0) {
        WARN("only root can change the root directory");
        return;
    }
    const std::string root = directory.write("x", "").parent_path().string();
    const Result changed =
        run(directory, with_kernel(directory, reset_code, {"--chroot", root, "--vsock", vsock}));
    CHECK(changed.exit_code == 10);
    CHECK_THAT(changed.errors, Catch::Matchers::Contains("begin at the directory of --chroot"));
    CHECK(line_count(changed.errors) == 1);
}

TEST_CASE("kvm_vmm: where no namespaces are allowed, --isolate ends with a line", "[sandbox][program]") {
    REQUIRE_KVM();
    const ScratchDirectory directory;
    const Result result = run(directory, with_kernel(directory, reset_code, {"--isolate"}), "/dev/null",
                              [] { refuse_call(SYS_unshare, EPERM); });
    CHECK(result.exit_code == 1);
    CHECK(result.output.empty());
    CHECK_THAT(result.errors, Catch::Matchers::StartsWith("kvm_vmm: --isolate: "));
    CHECK(line_count(result.errors) == 1);
}

TEST_CASE("kvm_vmm: it can make no file larger than its largest disk", "[sandbox][program]") {
    REQUIRE_KVM();
    const ScratchDirectory directory;
    const std::string disk = directory.write("disk", std::string(65536, '\0')).string();
    const auto file_limit = [](pid_t process) {
        const std::string limits = slurp("/proc/" + std::to_string(process) + "/limits");
        const std::string name = "Max file size";
        const std::size_t start = limits.find_first_not_of(' ', limits.find(name) + name.size());
        return limits.substr(start, limits.find(' ', start) - start);
    };
    const Job with_disk(with_kernel(directory, say_and_spin, {"--disk", disk}));
    CHECK(with_disk.next_byte() == '!');
    CHECK(file_limit(with_disk.pid()) == "65536");
    const Job with_log(with_kernel(directory, say_and_spin, {"--log", (directory / "log").string()}));
    CHECK(with_log.next_byte() == '!');
    CHECK(file_limit(with_log.pid()) == "unlimited");
}

TEST_CASE("kvm_vmm: an exploit in a device reaches no file, no network and no code", "[sandbox][program]") {
    REQUIRE_KVM();
    const ScratchDirectory directory;
    const std::string secret = directory.write("secret", "text").string();
    const vmsuperio::UniqueFd listener(::socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0));
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    socklen_t size = sizeof(address);
    REQUIRE(::bind(listener.get(), reinterpret_cast<const sockaddr*>(&address), size) == 0);
    REQUIRE(::listen(listener.get(), 1) == 0);
    REQUIRE(::getsockname(listener.get(), reinterpret_cast<sockaddr*>(&address), &size) == 0);
    const std::string port = std::to_string(ntohs(address.sin_port));

    const auto run_planted = [&](char attack, const std::vector<std::string>& options) {
        // mov dx, 0x3F8; mov al, attack; out dx, al; mov al, 0xFE; out 0x64, al; hlt
        const std::vector<std::uint8_t> code{0x66, 0xBA, 0xF8, 0x03, 0xB0, static_cast<std::uint8_t>(attack),
                                             0xEE, 0xB0, 0xFE, 0xE6, 0x64, 0xF4};
        const std::vector<std::string> arguments = with_kernel(directory, code, options);
        return run(directory, arguments, "/dev/null", [&] {
            ::setenv("PLANTED_FILE", secret.c_str(), 1);
            ::setenv("PLANTED_PORT", port.c_str(), 1);
            exec(arguments, KVM_VMM_PLANTED);
        });
    };
    constexpr std::array calls{"openat(", "openat(", "socket(", "execve(", "mprotect("};
    for (std::size_t i = 0; i < calls.size(); ++i) {
        const auto attack = static_cast<char>('0' + i);
        // In the thread of the CPU, and with the writes that KVM collects.
        for (const char* const coalesce : {"off", "on"}) {
            const Result result = run_planted(attack, {"--coalesce", coalesce});
            CAPTURE(calls.at(i), coalesce, result.errors);
            CHECK(result.exit_code == 5);
            CHECK_THAT(result.errors, Catch::Matchers::StartsWith("kvm_vmm: the sandbox stopped " +
                                                                  std::string(calls.at(i))));
            CHECK(line_count(result.errors) == 1);
            CHECK_FALSE(std::filesystem::exists(secret + ".new"));
            CHECK(::accept(listener.get(), nullptr, nullptr) == -1);
        }
    }
    // Without the sandbox the same exploit works: the test would notice.
    CHECK(run_planted('1', {"--no-sandbox"}).exit_code == 10);
    CHECK(std::filesystem::exists(secret + ".new"));
    (void)run_planted('2', {"--no-sandbox"});
    CHECK(vmsuperio::UniqueFd(::accept(listener.get(), nullptr, nullptr)).get() >= 0);
}

namespace {

constexpr std::size_t sent_before_attack = 200'000;  // more than a pipe holds

// The guest sends so many bytes to `to`, then the attack to `attacked`, and spins.
std::vector<std::uint8_t> send_and_attack(std::uint16_t to, std::uint16_t attacked) {
    const auto low = [](std::size_t value) { return static_cast<std::uint8_t>(value & 0xFFU); };
    constexpr std::size_t sent = sent_before_attack;
    // mov al, 'x'; mov dx, to; mov ecx, sent; again: out dx, al; loop again;
    // mov dx, attacked; mov al, '2'; out dx, al; jmp to itself
    return {0xB0,
            'x',
            0x66,
            0xBA,
            low(to),
            low(to >> 8U),
            0xB9,
            low(sent),
            low(sent >> 8U),
            low(sent >> 16U),
            0x00,
            0xEE,
            0xE2,
            0xFD,
            0x66,
            0xBA,
            low(attacked),
            low(attacked >> 8U),
            0xB0,
            '2',
            0xEE,
            0xEB,
            0xFE};
}

constexpr std::uint16_t com1 = 0x3F8;
constexpr std::uint16_t com2 = 0x2F8;

}  // namespace

TEST_CASE("kvm_vmm: a reader gets what the guest sent before the sandbox ends it", "[sandbox][program]") {
    REQUIRE_KVM();
    const ScratchDirectory directory;
    const std::string metrics = (directory / "metrics").string();
    const std::string file = "file=" + (directory / "other").string();
    // The console of the attack, whose locks the stopped thread holds, is before or after the one that is read.
    for (const bool attacked_first : {false, true}) {
        // With writes that KVM collects, the main thread delivers the last ones, and is the one that is stopped.
        for (const char* const coalesce : {"off", "on"}) {
            CAPTURE(attacked_first, coalesce);
            const auto code = attacked_first ? send_and_attack(com2, com1) : send_and_attack(com1, com2);
            std::vector<std::string> arguments =
                with_kernel(directory, code, {"--metrics", metrics, "--coalesce", coalesce});
            for (const bool read : {!attacked_first, attacked_first}) {
                arguments.insert(arguments.end(), {"--serial", read ? "stdio" : file});
            }
            const vmsuperio::UniqueFd errors(
                ::open((directory / "errors").c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600));
            Job job(arguments, [&] { exec(arguments, KVM_VMM_PLANTED); }, errors.get());
            ::usleep(1'000'000);  // the reader is slow
            CHECK(job.rest() == std::string(sent_before_attack, 'x'));
            CHECK(job.wait() == 5);
            // Not only when the time is up.
            CHECK(std::filesystem::file_time_type::clock::now() -
                      std::filesystem::last_write_time(directory / "errors") <
                  std::chrono::seconds(4));
            const bool by_main = slurp(directory / "errors").find("in the thread main") != std::string::npos;
            const bool by_cpu = slurp(directory / "errors").find("in the thread vcpu0") != std::string::npos;
            CHECK(by_main != by_cpu);
            if (by_cpu) {
                CHECK_THAT(slurp(metrics), Catch::Matchers::Contains("\"exit_code\": 5"));
            }
        }
    }
}

TEST_CASE("kvm_vmm: a reader that takes nothing does not keep a violation from ending it",
          "[sandbox][program]") {
    REQUIRE_KVM();
    const ScratchDirectory directory;
    const auto arguments = with_kernel(
        directory, send_and_attack(com1, com2),
        {"--serial", "stdio", "--serial", "file=" + (directory / "com2").string(), "--coalesce", "off"});
    const vmsuperio::UniqueFd errors(
        ::open((directory / "errors").c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600));
    Job job(arguments, [&] { exec(arguments, KVM_VMM_PLANTED); }, errors.get());
    CHECK(job.wait() == 5);
    CHECK(line_count(slurp(directory / "errors")) == 1);
    // 5 s, if the host is not busy.
    CHECK(std::filesystem::file_time_type::clock::now() -
              std::filesystem::last_write_time(directory / "errors") <
          std::chrono::seconds(10));
}

TEST_CASE("kvm_vmm: a parent that blocks or ignores SIGSYS does not hide a violation", "[sandbox][program]") {
    REQUIRE_KVM();
    const ScratchDirectory directory;
    // mov dx, 0x3F8; mov al, '2'; out dx, al; jmp to itself
    const std::vector<std::uint8_t> code{0x66, 0xBA, 0xF8, 0x03, 0xB0, '2', 0xEE, 0xEB, 0xFE};
    for (const char* const coalesce : {"off", "on"}) {  // in a CPU's thread, and in the main thread
        for (const bool ignored : {false, true}) {
            const auto arguments = with_kernel(directory, code, {"--coalesce", coalesce});
            const Result result = run(directory, arguments, "/dev/null", [&] {
                sigset_t set{};
                sigemptyset(&set);
                sigaddset(&set, SIGSYS);
                sigprocmask(SIG_BLOCK, &set, nullptr);
                if (ignored) {
                    std::signal(SIGSYS, SIG_IGN);
                }
                exec(arguments, KVM_VMM_PLANTED);
            });
            CAPTURE(coalesce, ignored);
            CHECK(result.exit_code == 5);
            CHECK_THAT(result.errors, Catch::Matchers::StartsWith("kvm_vmm: the sandbox stopped socket("));
            CHECK(line_count(result.errors) == 1);
        }
    }
}

TEST_CASE("kvm_vmm: a thread that was started before the sandbox is closed changes its user too",
          "[sandbox][program]") {
    REQUIRE_KVM();
    REQUIRE_ROOT();
    const ScratchDirectory directory;
    // The master of a pseudo-terminal cannot be opened again, so a thread reads it.
    int master = -1;
    int slave = -1;
    REQUIRE(::openpty(&master, &slave, nullptr, nullptr, nullptr) == 0);
    const std::array ends{vmsuperio::UniqueFd(master), vmsuperio::UniqueFd(slave)};
    for (const char* const mode : {"on", "log"}) {
        for (const bool core_dumps : {false, true}) {
            std::vector<std::string> options{"--sandbox", mode, "--user", "12345"};
            if (core_dumps) {
                options.emplace_back("--core-dumps");
            }
            const Job job(with_kernel(directory, say_and_spin, options),
                          [&] { ::dup2(master, STDIN_FILENO); });
            CAPTURE(mode, core_dumps);
            CHECK(job.next_byte() == '!');
            const auto threads = threads_of(job.pid());
            CHECK(threads.count("input") == 1);
            for (const auto& [name, status] : threads) {
                CAPTURE(name);
                CHECK(status_field(status, "Uid") == "12345\t12345\t12345\t12345");
                CHECK(status_field(status, "CapEff") == "0000000000000000");
                if (std::string(mode) == "on") {
                    CHECK(status_field(status, "CapBnd") == "0000000000000000");
                }
            }
            // The files of a process that is not dumpable belong to root.
            struct stat file{};
            REQUIRE(::stat(("/proc/" + std::to_string(job.pid()) + "/maps").c_str(), &file) == 0);
            CHECK(file.st_uid == (core_dumps ? 12345U : 0U));
        }
    }
}

TEST_CASE("kvm_vmm: with --sandbox log, --user, --chroot and --isolate have their effect",
          "[sandbox][program]") {
    REQUIRE_KVM();
    REQUIRE_ROOT();
    const ScratchDirectory directory;
    std::filesystem::create_directory(directory / "empty");
    const std::string root = (directory / "empty").string();
    const Job job(with_kernel(directory, say_and_spin,
                              {"--sandbox", "log", "--user", "12345", "--chroot", root, "--isolate"}));
    CHECK(job.next_byte() == '!');
    const std::string process = "/proc/" + std::to_string(job.pid());
    CHECK(status_field(slurp(process + "/status"), "Uid") == "12345\t12345\t12345\t12345");
    CHECK(std::filesystem::read_symlink(process + "/root").filename() == "empty");
    CHECK(std::filesystem::read_symlink(process + "/ns/net") !=
          std::filesystem::read_symlink("/proc/self/ns/net"));
}

namespace {

/// A program in the place of passt, which is first in PATH: writes its process ID into a file, and reads what it is
/// sent.
class FakePasst {
public:
    FakePasst() {
        std::ofstream(directory_ / "passt")
            << "#!/bin/sh\nexec >/dev/null\necho $$ >>" << (directory_ / "pids").string()
            << "\nexec head -c 1000000 <&3\n";
        std::filesystem::permissions(directory_ / "passt", std::filesystem::perms::owner_all);
    }
    void put_into_path() const {
        ::setenv("PATH", ((directory_ / "passt").parent_path().string() + ":/bin:/usr/bin").c_str(), 1);
    }
    /// The process IDs of those that were started, once there are `count`.
    [[nodiscard]] std::vector<pid_t> started(std::size_t count) const {
        std::vector<pid_t> pids;
        for (int i = 0; i < 1000 && pids.size() < count; ++i) {
            ::usleep(10'000);
            pids.clear();
            std::ifstream file(directory_ / "pids");
            for (pid_t pid = 0; file >> pid;) {
                pids.push_back(pid);
            }
        }
        return pids;
    }

private:
    ScratchDirectory directory_;
};

bool has_ended(pid_t process) {
    for (int i = 0; i < 500; ++i) {
        const std::string status = slurp("/proc/" + std::to_string(process) + "/status");
        if (status.empty() || status_field(status, "State").starts_with("Z")) {
            return true;
        }
        ::usleep(10'000);
    }
    return false;
}

// What the launcher of passt has open besides the socket of the requests, which is 3, and /dev/null. It also has
// passt's ends of a socket and of a pipe while it starts passt.
std::string surplus_descriptors(pid_t launcher) {
    std::string surplus;
    for (const auto& entry :
         std::filesystem::directory_iterator("/proc/" + std::to_string(launcher) + "/fd")) {
        std::error_code closed;
        const std::string target = std::filesystem::read_symlink(entry.path(), closed).string();
        const bool expected =
            entry.path().filename() == "3" ? target.starts_with("socket:") : target == "/dev/null";
        surplus += expected || closed ? "" : entry.path().string() + " is " + target + "; ";
    }
    return surplus;
}

}  // namespace

TEST_CASE("kvm_vmm: a passt that ends is started again, inside the sandbox", "[sandbox][program]") {
    REQUIRE_KVM();
    const ScratchDirectory directory;
    const std::string log = (directory / "log").string();
    // As process 1 would not, this one waits for orphans, whose end is seen then.
    ::prctl(PR_SET_CHILD_SUBREAPER, 1);
    for (const char* const mode : {"on", "off"}) {
        for (const bool killed : {false, true}) {
            CAPTURE(mode, killed);
            const FakePasst passt;
            Job job(with_kernel(directory, say_and_spin, {"--net", "passt", "--sandbox", mode, "--log", log}),
                    [&] { passt.put_into_path(); });
            CHECK(job.next_byte() == '!');
            auto pids = passt.started(1);
            REQUIRE(pids.size() == 1);
            const pid_t launcher =
                std::stoi(status_field(slurp("/proc/" + std::to_string(pids.back()) + "/status"), "PPid"));
            for (std::size_t more = 2; more <= 3; ++more) {
                REQUIRE(::kill(pids.back(), SIGKILL) == 0);
                pids = passt.started(more);
                REQUIRE(pids.size() == more);
            }
            const std::string status = slurp("/proc/" + std::to_string(launcher) + "/status");
            CHECK(status.starts_with("Name:\tpasst-launcher\n"));
            CHECK(status_field(status, "PPid") == std::to_string(job.pid()));
            CHECK(status_field(status, "NoNewPrivs") == "1");
            CHECK(status_field(status, "Seccomp") == "2");
            CHECK(status_field(slurp("/proc/" + std::to_string(pids.back()) + "/status"), "Seccomp") == "2");
            // Between two requests it has nothing but the request socket and /dev/null.
            std::string surplus = surplus_descriptors(launcher);
            for (int i = 0; i < 500 && !surplus.empty(); ++i) {
                ::usleep(10'000);
                surplus = surplus_descriptors(launcher);
            }
            CHECK(surplus.empty());
            job.send(killed ? SIGKILL : SIGTERM);
            CHECK(job.wait() == 128 + (killed ? SIGKILL : SIGTERM));
            CHECK(has_ended(launcher));
            CHECK(has_ended(pids.back()));
            CHECK(pids.size() == 3);
        }
    }
    CHECK_THAT(slurp(log), Catch::Matchers::Contains("there is a new connection"));
    ::prctl(PR_SET_CHILD_SUBREAPER, 0);
    while (::waitpid(-1, nullptr, WNOHANG) > 0) {
    }
}
