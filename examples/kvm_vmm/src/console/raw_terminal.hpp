// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
#pragma once

namespace kvm_vmm {

/// Puts the terminal of a descriptor into raw mode, so that every key reaches the guest, and back.
///
/// The terminal is restored by the destructor, by exit(3), and by the crash signals (SIGSEGV, SIGBUS, SIGILL,
/// SIGFPE, SIGABRT, SIGTRAP, SIGSYS), after which the process dies of the signal as it would have without us.
/// Signals that end the process in an orderly way (SIGINT, SIGTERM, ...) have to be handled by the event
/// loop. At most one object at a time. Does nothing where the descriptor is no terminal.
class RawTerminal {
public:
    explicit RawTerminal(int fd);
    ~RawTerminal();
    RawTerminal(const RawTerminal&) = delete;
    RawTerminal& operator=(const RawTerminal&) = delete;

    /// Gives the terminal back for a while (when the process is stopped) and takes it again.
    static void suspend() noexcept;
    static void resume() noexcept;

    /// Whether lines on this process's terminal need a carriage return of their own.
    [[nodiscard]] static bool active() noexcept;
};

/// A stack for signal handlers, so that even a stack overflow in this thread restores the terminal.
class AlternateSignalStack {
public:
    AlternateSignalStack();
    ~AlternateSignalStack();
    AlternateSignalStack(const AlternateSignalStack&) = delete;
    AlternateSignalStack& operator=(const AlternateSignalStack&) = delete;

private:
    void* stack_;
};

}  // namespace kvm_vmm
