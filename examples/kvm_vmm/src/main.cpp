// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
#include <csignal>
#include <cstdlib>
#include <exception>
#include <fcntl.h>
#include <iostream>
#include <string>
#include <unistd.h>
#include <utility>
#include <variant>

#include "console/raw_terminal.hpp"
#include "observe/observer.hpp"
#include "util/log.hpp"
#include "vmm/opened_files.hpp"
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

// Until the event loop waits for it, a request for the metrics stays pending instead of ending the process.
void hold_metrics_signal() {
    sigset_t set{};
    sigemptyset(&set);
    sigaddset(&set, SIGUSR1);
    pthread_sigmask(SIG_BLOCK, &set, nullptr);
}

kvm_vmm::VmEnd run(const kvm_vmm::VmmConfig& config, kvm_vmm::OpenedFiles& files,
                   kvm_vmm::Observer& observer) {
    try {
        return kvm_vmm::run_session(config, files, observer);
    } catch (const kvm_vmm::VmmError& error) {
        return {error.code(), error.what()};
    } catch (const std::exception& error) {
        return {kvm_vmm::ExitCode::vmm_error, error.what()};
    }
}

}  // namespace

int main(int argc, char** argv) {
    keep_standard_descriptors_open();
    // A reader of the console that goes away is an error of that write, not the end of the VM.
    std::signal(SIGPIPE, SIG_IGN);
    // Likewise a file that grows to the limit of this process.
    std::signal(SIGXFSZ, SIG_IGN);
    hold_metrics_signal();
    const kvm_vmm::AlternateSignalStack signal_stack;
    try {
        const auto parsed = kvm_vmm::parse_options(argc, argv);
        if (const auto* const print = std::get_if<kvm_vmm::PrintAndExit>(&parsed)) {
            std::cout << print->text << std::flush;
            return std::cout ? EXIT_SUCCESS : static_cast<int>(kvm_vmm::ExitCode::vmm_error);
        }
        const auto& config = std::get<kvm_vmm::VmmConfig>(parsed);
        kvm_vmm::OpenedFiles files = kvm_vmm::open_files(config);
        kvm_vmm::Observer observer(std::move(files.observe), config.observe.log_level);
        const kvm_vmm::VmEnd end = run(config, files, observer);
        observer.flush(end.code);
        if (!end.message.empty()) {
            kvm_vmm::report(end.message);
        }
        kvm_vmm::summarize_log(true);
        kvm_vmm::log(kvm_vmm::LogLevel::info,
                     "ended with exit code " + std::to_string(static_cast<int>(end.code)));
        return static_cast<int>(end.code);
    } catch (const kvm_vmm::VmmError& error) {
        kvm_vmm::report(error.what());
        return static_cast<int>(error.code());
    } catch (const std::exception& error) {
        kvm_vmm::report(error.what());
        return static_cast<int>(kvm_vmm::ExitCode::vmm_error);
    }
}
