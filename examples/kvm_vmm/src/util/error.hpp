// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
#pragma once

#include <cerrno>
#include <exception>
#include <stdexcept>
#include <string>
#include <system_error>

namespace kvm_vmm {

/// The exit codes of the process. Documented in examples/kvm_vmm/README.md; scripts rely on the numbers.
enum class ExitCode : int {
    power_off = 0,        ///< the guest powered off, or the user left with Ctrl-A x
    vmm_error = 1,        ///< something failed at run time (a KVM call, memory, a thread)
    usage = 2,            ///< a wrong option or value
    bad_file = 3,         ///< a file that cannot be read, or is not what it should be
    no_kvm = 4,           ///< /dev/kvm is missing, forbidden, or lacks a required feature
    sandbox = 5,          ///< this program made a system call that its sandbox does not allow
    guest_reset = 10,     ///< the guest rebooted
    guest_panic = 11,     ///< the guest reported a panic
    triple_fault = 12,    ///< the guest shut its CPU down with a triple fault
    guest_halted = 13,    ///< every CPU halted with interrupts off
    unhandled_exit = 14,  ///< KVM returned an exit after which the guest cannot continue
    signal_base = 128,    ///< + the number of the signal that ended it
};

[[nodiscard]] constexpr ExitCode ended_by(int signal) noexcept {
    return static_cast<ExitCode>(static_cast<int>(ExitCode::signal_base) + signal);
}

/// Stops the set-up of a VM: what() is the one line that the user sees.
class VmmError : public std::runtime_error {
public:
    VmmError(ExitCode code, const std::string& message) : std::runtime_error(message), code_(code) {}

    [[nodiscard]] ExitCode code() const noexcept { return code_; }

private:
    ExitCode code_;
};

/// Stops the set-up of a VM because of a signal to this process.
class StoppedBySignal : public std::exception {
public:
    explicit StoppedBySignal(int signal) noexcept : signal_(signal) {}

    [[nodiscard]] int signal() const noexcept { return signal_; }
    [[nodiscard]] const char* what() const noexcept override { return "stopped by a signal"; }

private:
    int signal_;
};

/// "what: Reason" for a failed system call; for a name that is too long, with the limits (Linux, limits.h).
[[nodiscard]] inline std::string errno_message(const std::string& what, int error_number) {
    const char* const limits =
        error_number == ENAMETOOLONG ? " (a path has at most 4095 bytes, each name in it at most 255)" : "";
    return what + ": " + std::generic_category().message(error_number) + limits;
}

}  // namespace kvm_vmm
