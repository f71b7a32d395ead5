// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
#include "sandbox/violation.hpp"

#include <algorithm>
#include <array>
#include <atomic>
#include <cerrno>
#include <csignal>
#include <cstddef>
#include <ctime>
#include <fcntl.h>
#include <string_view>
#include <sys/eventfd.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <ucontext.h>
#include <unistd.h>

#include "sandbox/call_names.hpp"
#include "util/error.hpp"
#include "util/file_identity.hpp"
#include "util/log.hpp"
#include "util/log_line.hpp"

#ifndef __x86_64__
#error "the system calls of a thread are known here for x86-64 only"
#endif

// long kvm_vmm_system_call(long number, const long arguments[6])
asm(R"(
    .pushsection .text
    .globl kvm_vmm_system_call
    .hidden kvm_vmm_system_call
    .globl kvm_vmm_after_system_call
    .hidden kvm_vmm_after_system_call
    .type kvm_vmm_system_call, @function
kvm_vmm_system_call:
    endbr64
    movq %rdi, %rax
    movq (%rsi), %rdi
    movq 16(%rsi), %rdx
    movq 24(%rsi), %r10
    movq 32(%rsi), %r8
    movq 40(%rsi), %r9
    movq 8(%rsi), %rsi
    syscall
kvm_vmm_after_system_call:
    ret
    .size kvm_vmm_system_call, . - kvm_vmm_system_call
    .popsection
)");
extern "C" long kvm_vmm_system_call(long number, const long* arguments);
extern "C" const char kvm_vmm_after_system_call;

namespace kvm_vmm::sandbox {
namespace {

// si_code of a SIGSYS that a filter caused (asm-generic/siginfo.h).
constexpr int sys_seccomp = 1;

using Arguments = std::array<long, 6>;

std::atomic<void (*)() noexcept> restore_terminal{nullptr};
std::atomic<OutputLeft (*)() noexcept> flush_output{nullptr};
std::atomic<OnViolation> on_violation{OnViolation::end};
thread_local std::array<char, 16> thread_name{};

void add_hex(LogLine& line, unsigned long number) noexcept {
    constexpr std::string_view digits = "0123456789abcdef";
    std::array<char, 18> text{'0', 'x'};
    std::size_t length = 2;
    for (int shift = 60; shift >= 0; shift -= 4) {
        const unsigned long digit = number >> static_cast<unsigned>(shift) & 0xFU;
        if (digit != 0 || length > 2 || shift == 0) {
            text.at(length++) = digits[digit];
        }
    }
    line.add(std::string_view(text.data(), length));
}

void add_call(LogLine& line, int number, const Arguments& arguments) noexcept {
    const std::string_view name = call_name(number);
    if (name.empty()) {
        line.add("system call ").add_number(static_cast<unsigned>(number));
    } else {
        line.add(name);
    }
    std::string_view separator = "(";
    for (std::size_t i = 0; i < 4; ++i) {
        line.add(separator);
        add_hex(line, static_cast<unsigned long>(arguments.at(i)));
        separator = ", ";
    }
    line.add(", ...)");
}

// What the first argument is, if it is a descriptor.
void add_descriptor(LogLine& line, long argument) noexcept {
    struct stat status{};
    if (argument < 0 || argument > INT32_MAX || ::fstat(static_cast<int>(argument), &status) != 0) {
        line.add("no open descriptor");
    } else {
        line.add("descriptor ").add_number(static_cast<unsigned long>(argument)).add(" is ");
        line.add(file_kind(status.st_mode));
    }
}

void report_violation(std::string_view what, int number, const Arguments& arguments) noexcept {
    LogLine line;
    line.add(what);
    add_call(line, number, arguments);
    line.add(" in the thread ").add(thread_name[0] == '\0' ? "main" : thread_name.data()).add(" (");
    add_descriptor(line, arguments[0]);
    line.add(")");
    report(line.finish(""));
}

/// Remembers what was reported, without a lock.
class Seen {
public:
    /// Returns whether `key`, which is not 0, is new. A full table says so of every key.
    bool add(std::uint64_t key) noexcept {
        for (std::atomic<std::uint64_t>& slot : slots_) {
            std::uint64_t present = 0;
            if (slot.compare_exchange_strong(present, key)) {
                return true;
            }
            if (present == key) {
                return false;
            }
        }
        return true;
    }

private:
    std::array<std::atomic<std::uint64_t>, 256> slots_{};
};
Seen seen;

std::uint64_t key_of(int number, const Arguments& arguments) noexcept {
    std::uint64_t hash = 0xCBF2'9CE4'8422'2325;  // FNV-1a
    for (const char c : thread_name) {
        hash = (hash ^ static_cast<unsigned char>(c)) * 0x100'0000'01B3;
    }
    const bool by_request = number == SYS_ioctl || number == SYS_fcntl;
    hash = (hash ^ static_cast<std::uint64_t>(number)) * 0x100'0000'01B3;
    hash = (hash ^ static_cast<std::uint64_t>(by_request ? arguments[1] : 0)) * 0x100'0000'01B3;
    return hash | 1U;
}

// A new task would continue on a stack that is in use, or in this handler.
bool makes_task(int number) noexcept {
    return number == SYS_clone || number == SYS_clone3 || number == SYS_fork || number == SYS_vfork;
}

// The descriptor's owner is the process.
std::atomic<int> violation_event{-1};
std::atomic<bool> violated{false};
std::atomic<bool> main_thread_done{false};

// Long enough to pass a console's output on, and short enough for a user who waits.
constexpr timespec patience{.tv_sec = 5, .tv_nsec = 0};
constexpr timespec pause_between_rounds{.tv_sec = 0, .tv_nsec = 10'000'000};
// A lock that a running thread holds is free within so many rounds.
constexpr int rounds_for_locks = 10;

bool is_past(const timespec& end) noexcept {
    timespec now{};
    ::clock_gettime(CLOCK_MONOTONIC, &now);
    return now.tv_sec > end.tv_sec || (now.tv_sec == end.tv_sec && now.tv_nsec >= end.tv_nsec);
}

// Has the main thread called, unless this is it. Returns whether it will do something.
bool call_main_thread() noexcept {
    const int event = violation_event.load();
    if (event < 0 || ::syscall(SYS_gettid) == ::getpid()) {
        return false;
    }
    if (!violated.exchange(true)) {
        const std::uint64_t one = 1;
        [[maybe_unused]] const ssize_t written = ::write(event, &one, sizeof(one));
    }
    return true;
}

// In the thread that was stopped, because it depends on no lock: the main thread may wait for one that this
// thread holds.
void pass_output_on() noexcept {
    timespec end{};
    ::clock_gettime(CLOCK_MONOTONIC, &end);
    end.tv_sec += patience.tv_sec;
    const bool main_thread_acts = call_main_thread();
    const auto flush = flush_output.load();
    int locked = 0;
    do {
        const OutputLeft left = flush != nullptr ? flush() : OutputLeft::none;
        locked = left == OutputLeft::locked ? locked + 1 : 0;
        const bool passed_on = left == OutputLeft::none || locked > rounds_for_locks;
        if (passed_on && (!main_thread_acts || main_thread_done.load())) {
            return;
        }
        ::clock_nanosleep(CLOCK_MONOTONIC, 0, &pause_between_rounds, nullptr);
    } while (!is_past(end));
}

[[noreturn]] void end_process() noexcept {
    pass_output_on();
    for (;;) {
        ::_exit(static_cast<int>(ExitCode::sandbox));
    }
}

void end_by_default_action(int signal) noexcept {
    if (const auto restore = restore_terminal.load()) {
        restore();
    }
    std::signal(signal, SIG_DFL);
    ::raise(signal);
}

extern "C" void on_sigsys(int signal, siginfo_t* info, void* context) {
    const int saved_errno = errno;
    if (info->si_code != sys_seccomp) {
        end_by_default_action(signal);
        return;
    }
    auto& registers = static_cast<ucontext_t*>(context)->uc_mcontext.gregs;
    const Arguments arguments{registers[REG_RDI], registers[REG_RSI], registers[REG_RDX],
                              registers[REG_R10], registers[REG_R8],  registers[REG_R9]};
    const int number = info->si_syscall;
    if (on_violation.load() == OnViolation::end) {
        if (const auto restore = restore_terminal.load()) {
            restore();
        }
        report_violation("the sandbox stopped ", number, arguments);
        end_process();
    }
    if (seen.add(key_of(number, arguments))) {
        report_violation("the sandbox would stop ", number, arguments);
    }
    registers[REG_RAX] = makes_task(number) ? -EPERM : kvm_vmm_system_call(number, arguments.data());
    errno = saved_errno;
}

}  // namespace

void handle_violations(OnViolation action) {
    on_violation.store(action);
    struct sigaction handler{};
    handler.sa_sigaction = on_sigsys;
    handler.sa_flags = SA_SIGINFO | SA_NODEFER | SA_ONSTACK;
    sigemptyset(&handler.sa_mask);
    ::sigaction(SIGSYS, &handler, nullptr);
}

void set_terminal_restorer(void (*restore)() noexcept) noexcept { restore_terminal.store(restore); }

void set_output_flusher(OutputLeft (*flush)() noexcept) noexcept { flush_output.store(flush); }

int watch_violations() noexcept {
    if (violation_event.load() < 0) {
        violation_event.store(::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK));
    }
    return violation_event.load();
}

bool is_violated() noexcept { return violated.load(); }

void wait_for_end() noexcept {
    main_thread_done.store(true);
    for (;;) {
        ::clock_nanosleep(CLOCK_MONOTONIC, 0, &patience, nullptr);
    }
}

void accept_violations() noexcept {
    sigset_t set{};
    sigemptyset(&set);
    sigaddset(&set, SIGSYS);
    pthread_sigmask(SIG_UNBLOCK, &set, nullptr);
}

void name_thread(const char* name) noexcept {
    const std::string_view text(name);
    thread_name = {};
    std::ranges::copy(text.substr(0, thread_name.size() - 1), thread_name.begin());
}

std::uintptr_t exempt_instruction() noexcept {
    return reinterpret_cast<std::uintptr_t>(&kvm_vmm_after_system_call);
}

}  // namespace kvm_vmm::sandbox
