// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
#include "vmm/session.hpp"

#include <algorithm>
#include <csignal>
#include <memory>
#include <optional>
#include <string>
#include <sys/epoll.h>
#include <unistd.h>
#include <utility>
#include <variant>
#include <vector>

#include "console/job_terminal.hpp"
#include "console/raw_terminal.hpp"
#include "console/serial_backend.hpp"
#include "event/event_manager.hpp"
#include "event/signals.hpp"
#include "kvm/kvm.hpp"
#include "sandbox/sandbox.hpp"
#include "sandbox/violation.hpp"
#include "util/log.hpp"
#include "vmm/restart_pace.hpp"
#include "vmm/sandbox_plan.hpp"
#include "vmm/virtual_machine.hpp"

namespace kvm_vmm {
namespace {

bool may_restart(const RestartPace& pace, const VmmConfig& config) {
    return !config.restart_limit || pace.in_a_row() <= *config.restart_limit;
}

// Loading a large kernel again takes a while, during which the event loop does not receive signals.
void give_up_on_signal() {
    if (const int signal = pending_signal({SIGTSTP, SIGCONT, SIGUSR1, SIGUSR2, SIGWINCH}); signal != 0) {
        throw StoppedBySignal(signal);
    }
}

using Backends = std::vector<std::unique_ptr<SerialBackend>>;

Backends open_backends(std::vector<SerialTarget>& targets, EventManager& events) {
    Backends backends;
    for (SerialTarget& target : targets) {
        backends.push_back(open_serial_backend(std::move(target), events));
    }
    return backends;
}

// The back end that is connected to stdin; null for none.
SerialBackend* on_terminal(const std::vector<SerialConfig>& configs, const Backends& backends) {
    const auto found = std::ranges::find(configs, SerialConfig::Kind::stdio, &SerialConfig::kind);
    return found == configs.end() ? nullptr
                                  : backends.at(static_cast<std::size_t>(found - configs.begin())).get();
}

/// The sources of the event loop that outlive a VM: signals, and the terminal under job control.
class HostEvents {
public:
    HostEvents(EventManager& events, Observer& observer, std::unique_ptr<VirtualMachine>& vmm)
        : observer_(observer),
          vmm_(vmm),
          signals_(events, {SIGINT, SIGTERM, SIGHUP, SIGQUIT, SIGTSTP, SIGCONT, SIGUSR1, SIGUSR2, SIGWINCH},
                   [this](int signal) { on_signal(signal); }) {
        if (const int violation = sandbox::watch_violations(); violation >= 0) {
            [[maybe_unused]] const auto subscription = events.subscribe(
                violation, EPOLLIN, "the sandbox", [this](std::uint32_t) { vmm_->request_end_by_sandbox(); });
        }
    }

    void open_terminal(EventManager& events, SerialBackend& console) {
        const auto follow = [&console](bool in_front) { console.set_in_front(in_front); };
        terminal_.emplace(events, STDIN_FILENO, follow);
        terminal_->look();
    }

private:
    void on_signal(int signal) {
        switch (signal) {
            case SIGTSTP:
                stop_this_process(signals_.sent_by_process());
                on_continue();
                break;
            case SIGCONT:
                on_continue();
                break;
            case SIGUSR1:
                vmm_->deliver_writes();  // so that they are counted
                observer_.flush();
                break;
            case SIGUSR2:
                vmm_->check_disk_sizes();
                break;
            case SIGWINCH:
                vmm_->terminal_resized();
                break;
            default:
                vmm_->request_end_by_signal(signal);
                break;
        }
    }

    void on_continue() {
        vmm_->declare_pause();
        if (terminal_) {
            terminal_->look();  // the program that stopped this process may have changed the terminal
        }
    }

    Observer& observer_;
    std::unique_ptr<VirtualMachine>& vmm_;
    SignalEvents signals_;
    std::optional<JobTerminal> terminal_;
};

}  // namespace

VmEnd run_session(const VmmConfig& config, OpenedFiles& files, Observer& observer) {
    if (files.error) {
        throw VmmError(*files.error);
    }
    EventManager events;
    Kvm kvm;
    keep_stderr_open();
    sandbox::set_terminal_restorer(&RawTerminal::suspend);
    sandbox::set_output_flusher(&OutputChannel::flush_all);
    sandbox::prepare(sandbox_plan(config, files, observer));
    const auto serials = open_backends(files.serials, events);
    const auto consoles = open_backends(files.consoles, events);
    std::unique_ptr<SerialBackend> debug_console;
    if (files.debug_console) {
        debug_console = open_serial_backend(std::move(*files.debug_console), events);
    }
    // All that needs rights is open. From here on, first the kernel's file and then the guest decide what is done.
    sandbox::close();
    const VmHost host{.events = events,
                      .observer = observer,
                      .kvm = kvm,
                      .kernel = *files.kernel,
                      .initrd = files.initrd ? &*files.initrd : nullptr,
                      .serials = serials,
                      .consoles = consoles,
                      .debug_console = debug_console.get(),
                      .disks = files.disks,
                      .nets = files.nets,
                      .shares = files.shares,
                      .vsock = files.vsock ? &*files.vsock : nullptr};
    auto vmm = std::make_unique<VirtualMachine>(config, host, Battery{}, give_up_on_signal);
    HostEvents host_events(events, observer, vmm);
    // As late as possible, so that set-up errors occur before the terminal is changed.
    for (SerialBackend* const console :
         {on_terminal(config.serials, serials), on_terminal(config.consoles, consoles)}) {
        if (console != nullptr) {
            host_events.open_terminal(events, *console);
        }
    }
    RestartPace pace;
    for (;;) {
        VmEnd end = vmm->run();
        if (!std::holds_alternative<end::Reset>(end.reason) || !config.restart_on_reboot) {
            vmm->finish_output();
            return end;
        }
        const auto delay = pace.next(vmm->run_time());
        if (!may_restart(pace, config)) {
            vmm->finish_output();
            end.message = "the guest rebooted " + std::to_string(pace.in_a_row()) +
                          " times in a row; it is not restarted any more";
            return end;
        }
        log(LogLevel::info, "the guest is restarted in " + std::to_string(delay.count()) + " ms");
        if (vmm->wait_for_end(delay)) {
            vmm->finish_output();
            return vmm->end();
        }
        // A new machine in the same process keeps only the battery-backed state of the old one.
        const Battery battery = vmm->reset_battery_backed();
        vmm.reset();
        vmm = std::make_unique<VirtualMachine>(config, host, battery, give_up_on_signal);
    }
}

}  // namespace kvm_vmm
