// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
#include "console/raw_terminal.hpp"

#include <algorithm>
#include <array>
#include <atomic>
#include <cerrno>
#include <csignal>
#include <cstdlib>
#include <cstring>
#include <ctime>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <termios.h>
#include <unistd.h>

#include "util/terminal_mode.hpp"

namespace kvm_vmm {
namespace {

constexpr std::size_t signal_stack_size = 64UL * 1024;

// Signals that have no effect by default, that stop the process, that cannot be caught, or that this program
// ignores (util/process). All others end the process by default.
constexpr std::array harmless_signals{SIGCHLD, SIGCONT, SIGURG,  SIGWINCH, SIGTSTP, SIGTTIN,
                                      SIGTTOU, SIGKILL, SIGSTOP, SIGPIPE,  SIGXFSZ};

// The data that a signal handler needs is outside any object. The modes are written only while
// `terminal_is_raw` is false.
int terminal_fd = -1;
termios cooked_mode{};
termios raw_mode{};
// The thread that is putting the terminal into raw mode, or 0 for none.
std::atomic<pid_t> taker{0};
static_assert(std::atomic<pid_t>::is_always_lock_free);

pid_t this_thread() noexcept { return static_cast<pid_t>(::syscall(SYS_gettid)); }

bool same_mode(const termios& a, const termios& b) noexcept {
    return a.c_iflag == b.c_iflag && a.c_oflag == b.c_oflag && a.c_cflag == b.c_cflag &&
           a.c_lflag == b.c_lflag && std::memcmp(a.c_cc, b.c_cc, sizeof(a.c_cc)) == 0;
}

void apply(const termios& mode) noexcept {
    // Another job may have come to the foreground at this moment. Setting the terminal would then stop this
    // process with SIGTTOU.
    sigset_t background{};
    sigset_t previous{};
    sigemptyset(&background);
    sigaddset(&background, SIGTTOU);
    pthread_sigmask(SIG_BLOCK, &background, &previous);
    while (::tcsetattr(terminal_fd, TCSANOW, &mode) != 0 && errno == EINTR) {
    }
    pthread_sigmask(SIG_SETMASK, &previous, nullptr);
}

/// Restores the modes if take() has changed them. In the background the terminal belongs to another job,
/// which usually has set its own modes; they are then restored only if they are still exactly those set here.
void give_back() noexcept {
    if (!terminal_is_raw.exchange(false)) {
        return;
    }
    if (!RawTerminal::in_front(terminal_fd)) {
        termios now{};
        if (::tcgetattr(terminal_fd, &now) != 0 || !same_mode(now, raw_mode)) {
            return;
        }
    }
    apply(cooked_mode);
}

void take() noexcept {
    termios now{};
    if (::tcgetattr(terminal_fd, &now) != 0) {
        return;
    }
    if (terminal_is_raw.load()) {
        if (same_mode(now, raw_mode)) {
            return;
        }
        terminal_is_raw.store(false);  // a shell has changed the modes while this process was stopped
    }
    // A shell may restore the modes that were set when the job was stopped; then the terminal is still raw.
    if (!same_mode(now, raw_mode)) {
        cooked_mode = now;
        raw_mode = now;
        ::cfmakeraw(&raw_mode);
    }
    taker.store(this_thread());
    // Set this before the mode changes: a crash in between restores the present modes.
    terminal_is_raw.store(true);
    apply(raw_mode);
    // Read the modes back as the driver has set them, to recognise them later.
    if (::tcgetattr(terminal_fd, &now) == 0) {
        raw_mode = now;
    }
    taker.store(0);
    if (!RawTerminal::in_front(terminal_fd)) {
        give_back();
    }
}

extern "C" void restore_and_die(int signal) {
    // If one thread faults while another one puts the terminal into raw mode, this one must set it last.
    constexpr int patience = 1000;
    for (int i = 0; i < patience && taker.load() != 0 && taker.load() != this_thread(); ++i) {
        const timespec pause{.tv_sec = 0, .tv_nsec = 100'000};
        ::nanosleep(&pause, nullptr);
    }
    give_back();
    // SA_RESETHAND has restored the default action. A fault would recur, but a signal that another process
    // sent would not.
    ::raise(signal);
    // raise(3) needs an entry in the queue of real-time signals, and refuses the two that libc reserves.
    ::kill(::getpid(), signal);
}

#ifdef __x86_64__
/// The kernel's form of struct sigaction. libc's functions refuse signals 32 and 33, which it uses itself.
struct KernelAction {
    void (*handler)(int);
    unsigned long flags;
    void (*restorer)();
    unsigned long mask;
};

void install_for_signals_of_libc() {
    KernelAction ours{};
    if (::syscall(SYS_rt_sigaction, SIGTERM, nullptr, &ours, sizeof(ours.mask)) != 0 ||
        ours.handler != restore_and_die) {
        return;
    }
    for (int signal = __SIGRTMIN; signal < SIGRTMIN; ++signal) {
        KernelAction action{};
        if (::syscall(SYS_rt_sigaction, signal, nullptr, &action, sizeof(action.mask)) == 0 &&
            action.handler == SIG_DFL) {
            ::syscall(SYS_rt_sigaction, signal, &ours, nullptr, sizeof(ours.mask));
        }
    }
}
#endif

void install_handlers() {
    struct sigaction action{};
    action.sa_handler = restore_and_die;
    action.sa_flags = static_cast<int>(SA_RESETHAND | SA_NODEFER | SA_ONSTACK);
    sigemptyset(&action.sa_mask);
    for (int signal = 1; signal <= SIGRTMAX; ++signal) {
        struct sigaction before{};
        if (std::ranges::find(harmless_signals, signal) != harmless_signals.end() ||
            ::sigaction(signal, nullptr, &before) != 0 || before.sa_handler == SIG_IGN) {
            continue;
        }
        // The sandbox has a handler of its own, which restores the terminal too.
        if (signal != SIGSYS || before.sa_handler == SIG_DFL) {
            ::sigaction(signal, &action, nullptr);
        }
    }
#ifdef __x86_64__
    install_for_signals_of_libc();
#endif
    [[maybe_unused]] static const int registered = std::atexit([] { give_back(); });
}

}  // namespace

RawTerminal::RawTerminal(int fd) {
    if (::isatty(fd) == 0) {
        return;
    }
    terminal_fd = fd;
    install_handlers();
    resume();
}

RawTerminal::~RawTerminal() {
    give_back();
    terminal_fd = -1;
}

bool RawTerminal::in_front(int fd) noexcept {
    unsigned number = 0;
    if (::ioctl(fd, TIOCGPTN, &number) == 0) {
        return true;  // the master of a pseudo-terminal: its foreground job is on the other side
    }
    const pid_t front = ::tcgetpgrp(fd);
    return front < 0 ? errno == ENOTTY : front == ::getpgrp();
}

void RawTerminal::suspend() noexcept { give_back(); }

bool RawTerminal::resume() noexcept {
    if (terminal_fd < 0) {
        return true;
    }
    const bool front = in_front(terminal_fd);
    if (front) {
        take();
    } else {
        give_back();
    }
    return front;
}

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
