// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
#include "vmm/virtual_machine.hpp"

#include <array>
#include <cerrno>
#include <cstdlib>
#include <string>
#include <sys/epoll.h>
#include <utility>

#include "arch/x86_64/boot_registers.hpp"
#include "arch/x86_64/cpu_setup.hpp"
#include "console/raw_terminal.hpp"
#include "console/reader_patience.hpp"
#include "sandbox/sandbox.hpp"
#include "sandbox/violation.hpp"
#include "util/log.hpp"
#include "util/process.hpp"
#include "vmm/command_line_hints.hpp"

namespace kvm_vmm {
namespace {

// In parts, so that a time during which this process itself is stopped counts for at most one of them.
constexpr std::chrono::milliseconds stop_timeout{100};
constexpr int stop_attempts = 20;
// Much longer than a look at the CPUs is late on a busy host.
constexpr std::chrono::seconds noticeable_pause{1};

}  // namespace

VirtualMachine::VirtualMachine(const VmmConfig& config, const VmHost& host, const Battery& battery,
                               const std::function<void()>& checkpoint)
    : config_(config),
      events_(host.events),
      observer_(host.observer),
      kvm_(host.kvm),
      memory_(config.memory, config.huge_pages),
      vm_(kvm_),
      table_(machine_table(config)),
      devices_(allocator_),
      exit_handler_(devices_.io_manager(), end_, host.observer, rest_watch_),
      // In this thread, by get(), if the system allows no more threads.
      loading_(std::async(std::launch::async | std::launch::deferred,
                          [&] { return load_guest_files(host, checkpoint); })) {
    observer_.vm_starts();
    try {
        create_machine(host, battery);
    } catch (...) {
        guest_ = loading_.get();  // most mistakes are found there, so its error is the one that is reported
        throw;
    }
    guest_ = loading_.get();
    set_boot_registers(*vcpus_.front(), guest_->boot_cpu);
    if (observer_.vms_started() == 1) {
        log_set_up();  // not for a restarted guest, whose set-up is the same
    }
}

VirtualMachine::~VirtualMachine() {
    // run() has done this, unless it has thrown: CPUs and devices use members that are destroyed before them.
    threads_.clear();
    shut_down_devices();
    coalesces_ = false;
}

void VirtualMachine::shut_down_devices() {
    for (const std::function<void()>& shut_down : std::exchange(controls_.shut_down, {})) {
        shut_down();
    }
}

void VirtualMachine::create_machine(const VmHost& host, const Battery& battery) {
    vm_.map_memory(memory_);
    vm_.create_interrupt_controllers();
    create_devices(table_, devices_,
                   {.vm = vm_,
                    .events = events_,
                    .end = end_,
                    .memory = memory_,
                    .battery = battery,
                    .serials = host.serials,
                    .consoles = host.consoles,
                    .debug_console = host.debug_console,
                    .disks = host.disks,
                    .nets = host.nets,
                    .shares = host.shares,
                    .vsock = host.vsock,
                    .on_command = [this](ConsoleCommand command) { on_console_command(command); },
                    .writes_on_their_way = [this] { return coalesces_ && !coalesced_->has_delivered(); },
                    .observer = observer_,
                    .controls = controls_});
    create_vcpus();
    if (config_.coalesce) {
        discard_pci_addresses();
        coalesce_writes();
    }
}

void VirtualMachine::log_set_up() const {
    log(LogLevel::info, "a VM with " + std::to_string(config_.cpus) + " CPU(s) and " +
                            std::to_string(memory_.size() >> 20U) + " MiB, kernel " + config_.kernel +
                            " (entered by " + std::string(to_string(guest_->entry.protocol)) + "), initrd " +
                            config_.initrd.value_or("none") + ", command line: " + guest_->command_line);
    std::string devices;
    for (const ObservedDevice& device : observer_.devices().devices()) {
        devices += ' ' + device.name;
    }
    log(LogLevel::info, "devices:" + devices);
    for (const std::string& line : missing_devices(config_)) {
        log(LogLevel::warning, line);
    }
}

// Runs in a thread of its own: it writes nothing but guest memory.
LoadedGuest VirtualMachine::load_guest_files(const VmHost& host, const std::function<void()>& checkpoint) {
    host.kernel.set_checkpoint(checkpoint);
    if (host.initrd != nullptr) {
        host.initrd->set_checkpoint(checkpoint);
    }
    return load_guest(memory_, {host.kernel, host.initrd},
                      {.kernel_path = {},
                       .initrd_path = {},
                       .command_line = config_.cmdline,
                       .protocol = config_.protocol,
                       .checkpoint = checkpoint},
                      platform_of(config_, table_));
}

void VirtualMachine::create_vcpus() {
    if (config_.cpus > kvm_.max_vcpus()) {
        throw VmmError(ExitCode::usage, "--cpus: KVM allows " + std::to_string(kvm_.max_vcpus()) +
                                            " CPUs at most on this host");
    }
    for (unsigned id = 0; id < config_.cpus; ++id) {
        vcpus_.push_back(std::make_unique<KvmVcpu>(kvm_, vm_, id));
        set_up_cpu(*vcpus_.back(), kvm_, config_.cpus);
    }
}

// The machine has no PCI, but Linux selects some fifty configuration registers there before it knows that. Nothing
// answers, so KVM may discard these writes; the reads that follow them return. Not if accesses are counted or recorded.
void VirtualMachine::discard_pci_addresses() {
    constexpr std::uint16_t config_address = 0xCF8;
    if (!config_.observe.metrics && !config_.observe.trace_io) {
        pci_addresses_.emplace();
        (void)vm_.signal_port_writes(pci_addresses_->fd(), config_address);  // if KVM refuses, they return
    }
}

void VirtualMachine::coalesce_writes() {
    const std::optional<CoalescedRing> ring = vcpus_.front()->coalesced_ring();
    if (!ring) {
        return;
    }
    coalesced_.emplace(*ring, devices_.io_manager(), end_, observer_,
                       config_.cpus == 1 ? std::optional(0U) : std::nullopt);
    exit_handler_.set_coalesced_writes(*coalesced_);
    for (const MachineDevice& device : table_) {
        const auto report_refusal = [&device] {
            log(LogLevel::debug, device.description.name + ": KVM does not coalesce writes to it");
        };
        for (const std::uint16_t port : device.coalesced_ports) {
            if (vm_.coalesce_port(port)) {
                coalesced_ports_.push_back(port);
            } else {
                report_refusal();
            }
        }
        // Not stopped while the guest is at rest: the event loop does not look for these writes at all.
        for (const std::uint64_t address : device.coalesced_registers) {
            if (!vm_.coalesce_register(address)) {
                report_refusal();
            }
        }
    }
    coalesces_ = true;
}

// Delivers the writes of CPUs that do not return from KVM_RUN.
void VirtualMachine::look_for_writes() {
    if (!coalesced_) {
        return;
    }
    const auto next = coalesced_->look();
    write_timer_set_ = next.has_value();
    if (next) {
        write_timer_->set_after(*next);
    }
}

void VirtualMachine::on_console_command(ConsoleCommand command) {
    switch (command) {
        case ConsoleCommand::exit:
            request_end(end::PoweredOff{});
            break;
        case ConsoleCommand::send_break:
            // A serial port sends the BREAK itself.
            report("a virtio console has no BREAK; Linux takes Ctrl-O there as SysRq if it is its console");
            break;
        case ConsoleCommand::help:
            report(
                "Ctrl-A x: end the VM, c: Ctrl-Alt-Del, p: power button, b: BREAK, s: status, h: help, "
                "Ctrl-A: Ctrl-A");
            break;
        case ConsoleCommand::ctrl_alt_del:
            if (!controls_.ctrl_alt_del || !controls_.ctrl_alt_del()) {
                report("the guest has no keyboard that it reads");
            }
            break;
        case ConsoleCommand::power_button:
            if (controls_.press_power_button) {
                controls_.press_power_button();
            }
            break;
        case ConsoleCommand::status:
            deliver_writes();
            report(status());
            break;
    }
}

std::string VirtualMachine::status() const {
    using std::chrono::duration_cast;
    using std::chrono::milliseconds;
    const auto up = duration_cast<milliseconds>(std::chrono::steady_clock::now() - started_);
    std::string text = "running for " + std::to_string(up.count()) + " ms with " +
                       std::to_string(memory_.size() >> 20U) + " MiB; CPU time used:";
    for (const std::unique_ptr<VcpuThread>& thread : threads_) {
        text += ' ' + std::to_string(duration_cast<milliseconds>(thread->cpu_time()).count()) + " ms";
    }
    return text;
}

void VirtualMachine::look_for_halt() {
    if (!std::exchange(settled_, true) && !config_.core_dumps) {
        return_program_pages();  // now, when the CPUs run: it takes no time of the start
    }
    summarize_log(false);
    if (write_timer_set_) {
        halt_pace_.wake();  // the guest writes without returning from KVM_RUN
    } else {
        look_for_writes();
    }
    // Also detects pauses without a signal: suspend of the host, or a debugger.
    if (BootClock::now() - look_due_ >= noticeable_pause) {
        declare_pause();
    }
    std::chrono::nanoseconds cpu_time{};
    bool all_halted = true;
    for (const std::unique_ptr<VcpuThread>& thread : threads_) {
        cpu_time += thread->cpu_time();
        all_halted = all_halted && thread->halted();
    }
    if (all_halted) {
        end_.request(end::Halted{}, "all CPUs of the guest are halted");
    }
    const HaltPace::Look look = halt_pace_.look(cpu_time);
    if (look.check) {
        for (const std::unique_ptr<VcpuThread>& thread : threads_) {
            thread->request_halt_check();
        }
    }
    set_resting(halt_pace_.resting());
    look_after(look.next);
}

void VirtualMachine::look_after(std::chrono::nanoseconds time) {
    look_due_ = BootClock::now() + time;
    halt_timer_->set_after(time);
}

// While the guest is at rest, its writes return from KVM_RUN, because the event loop does not look for them: so the first
// one after the rest is delivered at once.
void VirtualMachine::set_resting(bool resting) {
    if (resting == std::exchange(resting_, resting)) {
        return;
    }
    for (const std::uint16_t port : coalesced_ports_) {
        if (resting) {
            vm_.stop_coalescing_port(port);
        } else {
            (void)vm_.coalesce_port(port);  // if KVM has no memory, each write returns
        }
    }
    if (resting) {
        deliver_writes();
        rest_watch_.start();
    } else {
        rest_watch_.stop();
    }
}

void VirtualMachine::on_return_from_rest() {
    halt_pace_.wake();
    set_resting(false);
    look_after(HaltPace::shortest);
}

void VirtualMachine::request_end_by_signal(int signal) { end_.request_by_host(end::Signal{signal}); }

void VirtualMachine::terminal_resized() {
    for (const std::shared_ptr<virtio::Console>& console : controls_.virtio_consoles) {
        console->terminal_resized();
    }
}

void VirtualMachine::check_disk_sizes() {
    for (const std::function<void()>& check : controls_.check_disk_sizes) {
        check();
    }
}

void VirtualMachine::declare_pause() {
    for (const std::unique_ptr<VcpuThread>& thread : threads_) {
        thread->request_pause_notice();
    }
}

bool VirtualMachine::wait_for_end(std::chrono::nanoseconds time) {
    using std::chrono::steady_clock;
    const auto deadline = steady_clock::now() + time;
    while (!end_.requested_by_host()) {
        const auto left = std::chrono::ceil<std::chrono::milliseconds>(deadline - steady_clock::now());
        if (left.count() <= 0) {
            return false;
        }
        events_.run_once(static_cast<int>(left.count()));
    }
    return true;
}

void VirtualMachine::stop_vcpus() {
    for (const std::unique_ptr<VcpuThread>& thread : threads_) {
        thread->request_stop();
    }
    for (const std::unique_ptr<VcpuThread>& thread : threads_) {
        bool stopped = false;
        for (int attempt = 0; attempt < stop_attempts && !stopped; ++attempt) {
            stopped = thread->wait_stopped(stop_timeout);
        }
        if (!stopped) {
            // The objects that the thread uses must not be destroyed, so the process ends at once.
            RawTerminal::suspend();
            report("a vCPU thread does not stop");
            const int status = exit_status(end_.get()->reason);
            observer_.flush(status);
            std::_Exit(status);
        }
    }
    threads_.clear();
}

// The thread that was stopped passes output on and ends the process, at the latest when this has taken too long: it may
// hold a lock that is needed here. Its state cannot be trusted, so nothing is destroyed.
void VirtualMachine::leave_after_violation() {
    for (const std::unique_ptr<VcpuThread>& thread : threads_) {
        thread->request_stop();
    }
    observer_.flush(static_cast<int>(ExitCode::sandbox));  // takes no lock of a device
    if (coalesced_) {
        coalesced_->try_to_deliver();
    }
    sandbox::wait_for_end();
}

VmEnd VirtualMachine::run() {
    const auto subscription =
        events_.subscribe(end_.fd(), EPOLLIN, "the end of the VM", [](std::uint32_t) {});
    for (const std::unique_ptr<KvmVcpu>& vcpu : vcpus_) {
        threads_.push_back(std::make_unique<VcpuThread>(*vcpu, exit_handler_));
    }
    started_ = std::chrono::steady_clock::now();
    for (const std::unique_ptr<VcpuThread>& thread : threads_) {
        thread->start();
    }
    // To make another VM, the main thread has to be able to do again what it did for this one.
    if (!config_.restart_on_reboot) {
        sandbox::enter(sandbox::Role::main);
    }
    halt_timer_.emplace(events_, CLOCK_MONOTONIC, [this] { look_for_halt(); });
    look_after(HaltPace::shortest);
    const auto rest_subscription = events_.subscribe(rest_watch_.fd(), EPOLLIN, "the end of the guest's rest",
                                                     [this](std::uint32_t) { on_return_from_rest(); });
    write_timer_.emplace(events_, CLOCK_MONOTONIC, [this] { look_for_writes(); });
    // Run it at least once, so that requests of the host are handled however fast the guest ends.
    do {
        events_.run_once(-1);
    } while (!end_.requested());
    if (sandbox::is_violated()) {
        leave_after_violation();
    }
    stop_vcpus();
    deliver_writes();  // those of CPUs that did not return from KVM_RUN by themselves
    // Now, because finish_output() returns guest memory to the host: a disk must not be written from that.
    shut_down_devices();
    run_time_ = std::chrono::steady_clock::now() - started_;
    halt_timer_.reset();
    write_timer_.reset();
    events_.remove(rest_subscription);
    events_.remove(subscription);
    VmEnd end = *end_.get();
    log_unused_root(end.reason);
    return end;
}

// The commonest reason why a guest cannot mount its root file system, of which its kernel reports the consequence only.
void VirtualMachine::log_unused_root(const EndReason& reason) const {
    const auto disk = root_disk(config_);
    if (disk && !std::holds_alternative<end::Signal>(reason) &&
        !std::holds_alternative<end::Failed>(reason) &&
        observer_.counters("disk" + std::to_string(*disk))["requests"].value() == 0) {
        log(LogLevel::warning, unused_root(config_, *disk));
    }
}

void VirtualMachine::finish_output() {
    for (const std::unique_ptr<SerialConsole>& console : controls_.consoles) {
        console->end_join();
    }
    const auto unsent = [this] {
        std::size_t bytes = 0;
        for (const std::unique_ptr<SerialConsole>& console : controls_.consoles) {
            bytes += console->unsent();
        }
        for (const std::shared_ptr<virtio::Console>& console : controls_.virtio_consoles) {
            bytes += console->unsent();
        }
        return bytes;
    };
    const auto now = [] { return std::chrono::steady_clock::now(); };
    std::size_t left = unsent();
    if (left == 0) {
        return;
    }
    // The guest has ended: its memory must not be kept while a reader is waited for.
    if (!memory_.give_back()) {
        log(LogLevel::warning, errno_message("cannot give the guest's memory back", errno));
    }
    ReaderPatience patience(left, now());
    while (!end_.requested_by_host() && patience.waits_for(left, now())) {
        events_.run_once(100);
        left = unsent();
    }
    if (left != 0 && !end_.requested_by_host()) {
        report("the reader of a console does not take the guest's last " + std::to_string(left) + " bytes");
    }
}

}  // namespace kvm_vmm
