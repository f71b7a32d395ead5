// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
#include "vmm/vmm.hpp"

#include <vmdevice/byte_device.hpp>
#include <vmdevice/locked.hpp>
#include <vmsuperio/i8042.hpp>
#include <vmsuperio/linux/eventfd.hpp>

#include <sys/epoll.h>

#include <array>
#include <string>
#include <utility>

#include "acpi/platform.hpp"
#include "devices/port_view.hpp"
#include "devices/reset_trigger.hpp"
#include "kvm/boot_registers.hpp"
#include "kvm/cpu_setup.hpp"
#include "util/log.hpp"

namespace kvm_vmm {
namespace {

constexpr std::array com_ports{com1, com2, com3, com4};

vmsuperio::EventFdTrigger make_event_fd() {
    auto event_fd = vmsuperio::EventFdTrigger::create();
    if (!event_fd) {
        throw VmmError(ExitCode::vmm_error, "cannot create an eventfd: " + event_fd.error().message());
    }
    return std::move(*event_fd);
}

void register_port(vmdevice::IoManager& io, std::uint16_t port, std::uint16_t size,
                   std::shared_ptr<vmdevice::DevicePio> device) {
    const auto range = vmdevice::PioRange::create(vmdevice::PioAddress{port}, size);
    if (!range || !io.register_pio(*range, std::move(device))) {
        throw VmmError(ExitCode::vmm_error, "two devices claim port " + std::to_string(port));
    }
}

Platform describe_platform(const VmmConfig& config) {
    Platform platform;
    platform.cpus = config.cpus;
    platform.serial_ports.clear();
    for (std::size_t i = 0; i < config.serials.size(); ++i) {
        platform.serial_ports.push_back(com_ports.at(i));
    }
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
    add_i8042_device();
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
    vmsuperio::EventFdTrigger interrupt = make_event_fd();
    vm_.register_irqfd(interrupt.fd(), port.irq);
    auto console = std::make_unique<SerialConsole>(
        events_, backend, std::move(interrupt),
        [this, index](ConsoleCommand command) { on_console_command(*consoles_.at(index), command); });
    register_port(io_, port.port, 8, console->device());
    consoles_.push_back(std::move(console));
}

void Vmm::add_i8042_device() {
    using Controller = vmdevice::Locked<vmdevice::ByteDevice<vmsuperio::I8042<ResetTrigger>>>;
    constexpr vmdevice::PioAddress data_port{0x60};
    constexpr vmdevice::PioAddress command_port{0x64};
    const auto controller = std::make_shared<Controller>(vmsuperio::I8042(ResetTrigger(end_)));
    // Port 0x61 between the two belongs to the PIT.
    const auto view = std::make_shared<PortView>(data_port, controller);
    register_port(io_, data_port.value, 1, view);
    register_port(io_, command_port.value, 1, view);
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
            report("Ctrl-A x: end the VM, Ctrl-A b: send a BREAK, Ctrl-A Ctrl-A: send Ctrl-A");
            break;
        case ConsoleCommand::ctrl_alt_del:
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
