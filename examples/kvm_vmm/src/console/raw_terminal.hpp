// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
#pragma once

namespace kvm_vmm {

/// Puts the terminal of a descriptor into raw mode, so that every key reaches the guest, and restores it.
///
/// A terminal belongs to its foreground process group (POSIX.1, XBD 11.1.4). So it is taken only while this
/// process is in the foreground, and restored only if it was taken. If the terminal is not the controlling
/// terminal of this process, there is no job control, and the process counts as being in the foreground.
///
/// The terminal is restored by the destructor, by exit(3), and by every signal that ends the process
/// (including real-time signals, but not SIGKILL), after which the signal terminates the process as it would
/// have without this class. Signals that end the VM in an orderly way (SIGINT, SIGTERM, ...) are blocked by
/// the event loop. There may be at most one object at a time. It does nothing if the descriptor is not a
/// terminal.
class RawTerminal {
public:
    explicit RawTerminal(int fd);
    ~RawTerminal();
    RawTerminal(const RawTerminal&) = delete;
    RawTerminal& operator=(const RawTerminal&) = delete;

    /// Whether this process may use the terminal `fd`. Returns false after the terminal has hung up.
    [[nodiscard]] static bool in_front(int fd) noexcept;

    /// Restores the terminal temporarily (when the process is stopped).
    static void suspend() noexcept;
    /// In the foreground, takes the terminal and records its present modes as those to restore; in the
    /// background, restores it. Returns whether this process is in the foreground.
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
