// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
#pragma once

namespace kvm_vmm {

/// Puts the terminal of a descriptor into raw mode, so that every key reaches the guest, and back.
///
/// A terminal belongs to the process group in front of it (POSIX.1, XBD 11.1.4). So it is taken only while
/// this process is there, and given back only where it was taken. Where the terminal is not the controlling
/// terminal of this process, there is no job control, and it counts as being in front.
///
/// The terminal is given back by the destructor, by exit(3), and by every signal that ends the process
/// (real-time signals too, but not SIGKILL), after which the process dies of the signal as it would have
/// without us. Signals whose end is to be an orderly one (SIGINT, SIGTERM, ...) are blocked by the event
/// loop. At most one object at a time. Does nothing where the descriptor is no terminal.
class RawTerminal {
public:
    explicit RawTerminal(int fd);
    ~RawTerminal();
    RawTerminal(const RawTerminal&) = delete;
    RawTerminal& operator=(const RawTerminal&) = delete;

    /// Whether this process may use the terminal `fd`. False once the terminal has hung up.
    [[nodiscard]] static bool in_front(int fd) noexcept;

    /// Gives the terminal back for a while (when the process is stopped).
    static void suspend() noexcept;
    /// Takes the terminal where this process is in front of it, with the modes in force as those to give
    /// back; gives it back where another job is in front. Returns whether this process is in front.
    static bool resume() noexcept;
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
