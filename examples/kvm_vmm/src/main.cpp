// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
#include <cstddef>
#include <cstdlib>
#include <exception>
#include <iostream>
#include <string>
#include <utility>
#include <variant>

#include "console/raw_terminal.hpp"
#include "observe/observer.hpp"
#include "util/log.hpp"
#include "util/process.hpp"
#include "vmm/opened_files.hpp"
#include "vmm/options.hpp"
#include "vmm/session.hpp"

namespace {

kvm_vmm::VmEnd run(const kvm_vmm::VmmConfig& config, kvm_vmm::OpenedFiles& files,
                   kvm_vmm::Observer& observer) {
    try {
        return kvm_vmm::run_session(config, files, observer);
    } catch (const kvm_vmm::StoppedBySignal& stop) {
        return {kvm_vmm::end::Signal{stop.signal()}, {}};
    } catch (const kvm_vmm::VmmError& error) {
        return {kvm_vmm::end::Failed{error.code()}, error.what()};
    } catch (const std::exception& error) {
        return {kvm_vmm::end::Failed{kvm_vmm::ExitCode::vmm_error}, error.what()};
    }
}

}  // namespace

int main(int argc, char** argv) {
    kvm_vmm::take_over_process({argv, static_cast<std::size_t>(argc)});
    const kvm_vmm::AlternateSignalStack signal_stack;
    try {
        const auto parsed = kvm_vmm::parse_options(argc, argv);
        if (const auto* const print = std::get_if<kvm_vmm::PrintAndExit>(&parsed)) {
            std::cout << print->text << std::flush;
            return std::cout ? EXIT_SUCCESS : static_cast<int>(kvm_vmm::ExitCode::vmm_error);
        }
        const auto& config = std::get<kvm_vmm::VmmConfig>(parsed);
        if (config.core_dumps) {
            kvm_vmm::set_dumpable(true);
        }
        kvm_vmm::OpenedFiles files = kvm_vmm::open_files(config);
        kvm_vmm::Observer observer(std::move(files.observe), config.observe.log_level);
        const kvm_vmm::VmEnd end = run(config, files, observer);
        const int status = kvm_vmm::exit_status(end.reason);
        observer.flush(status);
        if (!end.message.empty()) {
            kvm_vmm::report(end.message);
        }
        kvm_vmm::summarize_log(true);
        kvm_vmm::log(kvm_vmm::LogLevel::info, kvm_vmm::to_string(end.reason));
        kvm_vmm::log(kvm_vmm::LogLevel::info, "ended with exit code " + std::to_string(status));
        if (const auto* const signal = std::get_if<kvm_vmm::end::Signal>(&end.reason)) {
            kvm_vmm::end_by_signal(signal->number);
        }
        return status;
    } catch (const kvm_vmm::VmmError& error) {
        kvm_vmm::report(error.what());
        return static_cast<int>(error.code());
    } catch (const std::exception& error) {
        kvm_vmm::report(error.what());
        return static_cast<int>(kvm_vmm::ExitCode::vmm_error);
    }
}
