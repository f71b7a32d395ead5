// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
#include "vmm/vmm.hpp"

#include <sys/epoll.h>

#include <array>
#include <string>
#include <utility>

#include "acpi/platform.hpp"
#include "kvm/boot_registers.hpp"
#include "kvm/cpu_setup.hpp"
#include "util/log.hpp"

namespace kvm_vmm {
namespace {

constexpr std::array com_ports{com1, com2, com3, com4};

I8042Profile describe(vmsuperio::I8042Profile profile) {
    switch (profile) {
        case vmsuperio::I8042Profile::full:
            return I8042Profile::keyboard_and_mouse;
        case vmsuperio::I8042Profile::minimal:
            return I8042Profile::reset_only;
        case vmsuperio::I8042Profile::absent:
            break;
    }
    return I8042Profile::absent;
}

Platform describe_platform(const VmmConfig& config) {
    Platform platform;
    platform.cpus = config.cpus;
    platform.serial_ports.clear();
    for (std::size_t i = 0; i < config.serials.size(); ++i) {
        platform.serial_ports.push_back(com_ports.at(i));
    }
    platform.i8042 = describe(config.i8042);
    return platform;
}

}  // namespace

Vmm::Vmm(const VmmConfig& config, EventManager& events, std::span<const std::unique_ptr<SerialBackend>> backends)
    : config_(config), events_(events), memory_(config.memory), vm_(kvm_), exit_handler_(io_, end_) {
    // The kernel first: most mistakes are found there.
    load_kernel();
    vm_.map_memory(memory_);
    vm_.create_interrupt_controllers();
    unsigned index = 0;
    for (const std::unique_ptr<SerialBackend>& backend : backends) {
        add_serial_console(index++, *backend);
    }
    legacy_.emplace(config_, memory_, vm_, io_, events_, end_);
    create_vcpus();
}

Vmm::~Vmm() = default;

void Vmm::load_kernel() {
    guest_ = load_guest(
        memory_, {.kernel_path = config_.kernel, .initrd_path = config_.initrd, .command_line = config_.cmdline},
        describe_platform(config_));
}

void Vmm::add_serial_console(unsigned index, SerialBackend& backend) {
    const SerialPort port = com_ports.at(index);
    auto console = std::make_unique<SerialConsole>(
        events_, backend, make_interrupt(vm_, port.irq),
        [this, index](ConsoleCommand command) { on_console_command(*consoles_.at(index), command); });
    register_port(io_, port.port, 8, console->device());
    consoles_.push_back(std::move(console));
}

void Vmm::create_vcpus() {
    if (config_.cpus > kvm_.max_vcpus()) {
        throw VmmError(ExitCode::usage,
                       "--cpus: KVM allows " + std::to_string(kvm_.max_vcpus()) + " CPUs at most on this host");
    }
    for (unsigned id = 0; id < config_.cpus; ++id) {
        vcpus_.push_back(std::make_unique<KvmVcpu>(kvm_, vm_, id));
        set_up_cpu(*vcpus_.back(), kvm_, config_.cpus);
    }
    set_boot_registers(*vcpus_.front(), guest_->boot_cpu);
}

void Vmm::on_console_command(SerialConsole& console, ConsoleCommand command) {
    switch (command) {
        case ConsoleCommand::exit:
            end_.request(ExitCode::power_off);
            break;
        case ConsoleCommand::send_break:
            console.send_break();
            break;
        case ConsoleCommand::help:
            report("Ctrl-A x: end the VM, c: Ctrl-Alt-Del, p: power button, b: BREAK, h: help, Ctrl-A: Ctrl-A");
            break;
        case ConsoleCommand::ctrl_alt_del:
            if (!legacy_->ctrl_alt_del()) {
                report("the guest has no keyboard that it reads");
            }
            break;
        case ConsoleCommand::power_button:
            legacy_->press_power_button();
            break;
        case ConsoleCommand::status:
            break;
    }
}

VmEnd Vmm::run() {
    const auto subscription = events_.add(end_.fd(), EPOLLIN, [](std::uint32_t) {});
    if (!subscription) {
        throw VmmError(ExitCode::vmm_error, "cannot wait for the end of the VM: " + subscription.error().message());
    }
    for (const std::unique_ptr<KvmVcpu>& vcpu : vcpus_) {
        threads_.push_back(std::make_unique<VcpuThread>(*vcpu, exit_handler_));
    }
    for (const std::unique_ptr<VcpuThread>& thread : threads_) {
        thread->start();
    }
    while (!end_.get()) {
        events_.run_once(-1);
    }
    for (const std::unique_ptr<VcpuThread>& thread : threads_) {
        thread->request_stop();
    }
    threads_.clear();
    events_.remove(*subscription);
    return *end_.get();
}

}  // namespace kvm_vmm
