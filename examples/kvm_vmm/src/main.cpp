// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
#include <fcntl.h>
#include <unistd.h>

#include <csignal>
#include <cstdlib>
#include <exception>
#include <iostream>
#include <variant>

#include "console/raw_terminal.hpp"
#include "util/log.hpp"
#include "vmm/options.hpp"
#include "vmm/session.hpp"

namespace {

// A descriptor 0, 1 or 2 that is closed would be given to the next file opened, and the console would
// write into that.
void keep_standard_descriptors_open() {
    for (const int fd : {STDIN_FILENO, STDOUT_FILENO, STDERR_FILENO}) {
        if (::fcntl(fd, F_GETFD) < 0) {
            [[maybe_unused]] const int opened = ::open("/dev/null", O_RDWR);
        }
    }
}

}  // namespace

int main(int argc, char** argv) {
    keep_standard_descriptors_open();
    // A reader of the console that goes away is an error of that write, not the end of the VM.
    std::signal(SIGPIPE, SIG_IGN);
    const kvm_vmm::AlternateSignalStack signal_stack;
    try {
        const auto parsed = kvm_vmm::parse_options(argc, argv);
        if (const auto* const print = std::get_if<kvm_vmm::PrintAndExit>(&parsed)) {
            std::cout << print->text << std::flush;
            return std::cout ? EXIT_SUCCESS : static_cast<int>(kvm_vmm::ExitCode::vmm_error);
        }
        const kvm_vmm::VmEnd end = kvm_vmm::run_session(std::get<kvm_vmm::VmmConfig>(parsed));
        if (!end.message.empty()) {
            kvm_vmm::report(end.message);
        }
        return static_cast<int>(end.code);
    } catch (const kvm_vmm::VmmError& error) {
        kvm_vmm::report(error.what());
        return static_cast<int>(error.code());
    } catch (const std::exception& error) {
        kvm_vmm::report(error.what());
        return static_cast<int>(kvm_vmm::ExitCode::vmm_error);
    }
}
