// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
#include "vmm/session.hpp"

#include <algorithm>
#include <csignal>
#include <memory>
#include <optional>
#include <unistd.h>
#include <utility>
#include <vector>

#include "console/raw_terminal.hpp"
#include "console/serial_backend.hpp"
#include "event/event_manager.hpp"
#include "event/signals.hpp"
#include "kvm/kvm.hpp"
#include "util/log.hpp"
#include "vmm/vmm.hpp"

namespace kvm_vmm {
namespace {

bool uses_stdio(const VmmConfig& config) {
    return std::ranges::any_of(
        config.serials, [](const SerialConfig& serial) { return serial.kind == SerialConfig::Kind::stdio; });
}

ExitCode ended_by(int signal) {
    return static_cast<ExitCode>(static_cast<int>(ExitCode::signal_base) + signal);
}

// Loading a large kernel again takes a while, in which the event loop does not hear a signal.
void give_up_on_signal() {
    if (const int signal = pending_signal({SIGTSTP, SIGCONT, SIGUSR1}); signal != 0) {
        throw VmmError(ended_by(signal), "");
    }
}

void on_signal(int signal, Vmm& vmm, Observer& observer) {
    switch (signal) {
        case SIGTSTP:
            RawTerminal::suspend();
            ::raise(SIGSTOP);
            RawTerminal::resume();
            break;
        case SIGCONT:
            RawTerminal::resume();  // whoever stopped us may have changed the terminal
            break;
        case SIGUSR1:
            observer.flush();
            break;
        default:
            vmm.request_end(ended_by(signal));
            break;
    }
}

}  // namespace

VmEnd run_session(const VmmConfig& config, OpenedFiles& files, Observer& observer) {
    if (files.error) {
        throw VmmError(*files.error);
    }
    EventManager events;
    Kvm kvm;
    std::vector<std::unique_ptr<SerialBackend>> backends;
    for (SerialTarget& serial : files.serials) {
        backends.push_back(open_serial_backend(std::move(serial), events));
    }
    std::unique_ptr<SerialBackend> debug_console;
    if (files.debug_console) {
        debug_console = open_serial_backend(std::move(*files.debug_console), events);
    }
    const VmHost host{.events = events,
                      .observer = observer,
                      .kvm = kvm,
                      .kernel = *files.kernel,
                      .initrd = files.initrd ? &*files.initrd : nullptr,
                      .serials = backends,
                      .debug_console = debug_console.get()};
    auto vmm = std::make_unique<Vmm>(config, host, Battery{}, give_up_on_signal);
    const SignalEvents signals(events, {SIGINT, SIGTERM, SIGHUP, SIGQUIT, SIGTSTP, SIGCONT, SIGUSR1},
                               [&](int signal) { on_signal(signal, *vmm, observer); });
    // As late as possible, so that set-up errors find the terminal as it was.
    std::optional<RawTerminal> terminal;
    if (uses_stdio(config)) {
        terminal.emplace(STDIN_FILENO);
    }
    for (;;) {
        VmEnd end = vmm->run();
        if (end.code != ExitCode::guest_reset || !config.restart_on_reboot) {
            vmm->finish_output();
            return end;
        }
        log(LogLevel::info, "the guest is restarted");
        // A new machine in the same process: of the old one's state only what a battery keeps is left.
        const Battery battery = vmm->reset_battery_backed();
        vmm.reset();
        vmm = std::make_unique<Vmm>(config, host, battery, give_up_on_signal);
    }
}

}  // namespace kvm_vmm
