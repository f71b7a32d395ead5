// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
#include "console/raw_terminal.hpp"

#include <array>
#include <atomic>
#include <cerrno>
#include <csignal>
#include <cstdlib>
#include <sys/mman.h>
#include <termios.h>
#include <unistd.h>

namespace kvm_vmm {
namespace {

constexpr std::array crash_signals{SIGSEGV, SIGBUS, SIGILL, SIGFPE, SIGABRT, SIGTRAP, SIGSYS};
constexpr std::size_t signal_stack_size = 64UL * 1024;

// What a signal handler needs lives outside any object. Written before `raw` becomes true.
int terminal_fd = -1;
termios cooked_mode{};
termios raw_mode{};
std::atomic<bool> raw{false};
static_assert(std::atomic<bool>::is_always_lock_free);

void apply(const termios& mode) noexcept {
    // In the background, setting the terminal would stop this process with SIGTTOU.
    sigset_t background{};
    sigset_t previous{};
    sigemptyset(&background);
    sigaddset(&background, SIGTTOU);
    pthread_sigmask(SIG_BLOCK, &background, &previous);
    while (::tcsetattr(terminal_fd, TCSANOW, &mode) != 0 && errno == EINTR) {
    }
    pthread_sigmask(SIG_SETMASK, &previous, nullptr);
}

void restore() noexcept {
    if (raw.exchange(false)) {
        apply(cooked_mode);
    }
}

extern "C" void restore_and_die(int signal) {
    restore();
    // SA_RESETHAND has put the default action back. A fault would come again by itself, but a signal
    // sent by another process would not.
    ::raise(signal);
}

void install_handlers() {
    struct sigaction action{};
    action.sa_handler = restore_and_die;
    action.sa_flags = static_cast<int>(SA_RESETHAND | SA_NODEFER | SA_ONSTACK);
    sigemptyset(&action.sa_mask);
    for (const int signal : crash_signals) {
        ::sigaction(signal, &action, nullptr);
    }
    [[maybe_unused]] static const int registered = std::atexit([] { restore(); });
}

}  // namespace

RawTerminal::RawTerminal(int fd) {
    termios mode{};
    if (::isatty(fd) == 0 || ::tcgetattr(fd, &mode) != 0) {
        return;
    }
    terminal_fd = fd;
    cooked_mode = mode;
    raw_mode = mode;
    ::cfmakeraw(&raw_mode);
    install_handlers();
    resume();
}

RawTerminal::~RawTerminal() {
    restore();
    terminal_fd = -1;
}

void RawTerminal::suspend() noexcept { restore(); }

void RawTerminal::resume() noexcept {
    if (terminal_fd >= 0) {
        // Before the mode changes: a crash in between restores what is in force anyway.
        raw.store(true);
        apply(raw_mode);
    }
}

bool RawTerminal::active() noexcept { return raw.load(std::memory_order_relaxed); }

AlternateSignalStack::AlternateSignalStack()
    : stack_(::mmap(nullptr, signal_stack_size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0)) {
    if (stack_ == MAP_FAILED) {
        stack_ = nullptr;
        return;
    }
    stack_t stack{};
    stack.ss_sp = stack_;
    stack.ss_size = signal_stack_size;
    ::sigaltstack(&stack, nullptr);
}

AlternateSignalStack::~AlternateSignalStack() {
    if (stack_ != nullptr) {
        stack_t stack{};
        stack.ss_flags = SS_DISABLE;
        ::sigaltstack(&stack, nullptr);
        ::munmap(stack_, signal_stack_size);
    }
}

}  // namespace kvm_vmm
