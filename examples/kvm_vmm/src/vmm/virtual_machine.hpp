// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
#pragma once

#include <chrono>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include <vmdevice/allocator.hpp>
#include <vmdevice/device_manager.hpp>

#include "arch/x86_64/loader.hpp"
#include "console/serial_backend.hpp"
#include "devices/battery.hpp"
#include "devices/host_controls.hpp"
#include "devices/machine_device.hpp"
#include "devices/oscillator.hpp"
#include "event/event_manager.hpp"
#include "event/timer.hpp"
#include "kvm/kvm.hpp"
#include "kvm/kvm_vcpu.hpp"
#include "kvm/kvm_vm.hpp"
#include "machine/end.hpp"
#include "memory/guest_memory.hpp"
#include "observe/observer.hpp"
#include "vmm/config.hpp"
#include "vmm/exit_handler.hpp"
#include "vmm/machine_table.hpp"
#include "vmm/vcpu_thread.hpp"

namespace kvm_vmm {

/// What outlives the VMs of this process and is used by each.
struct VmHost {
    EventManager& events;
    Observer& observer;
    Kvm& kvm;
    ImageFile& kernel;
    ImageFile* initrd;                                        ///< null for none
    std::span<const std::unique_ptr<SerialBackend>> serials;  ///< one for each serial port
    SerialBackend* debug_console;                             ///< null for none
};

/// One virtual machine, from power-on to its end.
///
/// Made, it has its memory, interrupt controllers, devices and CPUs, and the kernel is loaded; run() starts
/// it. All set-up errors are VmmError.
class VirtualMachine {
public:
    /// All that `host` refers to must outlive the VM. `battery` is what a VM before this one left.
    /// `checkpoint` is called again and again while files are loaded, and may throw to give up.
    VirtualMachine(const VmmConfig& config, const VmHost& host, const Battery& battery = {},
                   const std::function<void()>& checkpoint = {});
    ~VirtualMachine();
    VirtualMachine(const VirtualMachine&) = delete;
    VirtualMachine& operator=(const VirtualMachine&) = delete;

    /// Runs the guest, and the event loop in this thread, until something ends the VM.
    VmEnd run();

    /// After run(), as the last use of this VM: lets slow readers of the serial ports take what the guest
    /// sent last, for as long as ReaderPatience allows and the host does not ask for the end. The guest's
    /// memory is given back to the host before that.
    void finish_output();

    /// After run(): what survives a reset, for the VM that follows.
    [[nodiscard]] Battery reset_battery_backed() { return controls_.reset_battery_backed(); }

    /// Ends the VM from outside. From any thread.
    void request_end(EndReason reason, std::string message = {}) {
        end_.request_by_host(reason, std::move(message));
    }
    /// Ends the VM because this process got a signal that asks for it.
    void request_end_by_signal(int signal);

    /// Tells the guest that it did not run for a while. From the event loop's thread.
    void declare_pause();

    /// After run(): the event loop goes on for `time`, or until the host asks for the end; whether it did.
    bool wait_for_end(std::chrono::nanoseconds time);
    /// After run(): how long the guest ran.
    [[nodiscard]] std::chrono::nanoseconds run_time() const noexcept { return run_time_; }
    [[nodiscard]] VmEnd end() const { return *end_.get(); }

private:
    void load_guest_files(const VmHost& host, const std::function<void()>& checkpoint);
    void log_set_up() const;
    void create_vcpus();
    [[nodiscard]] std::string status() const;
    void look_for_halt();
    void stop_vcpus();
    void on_console_command(std::size_t port, ConsoleCommand command);

    VmmConfig config_;
    EventManager& events_;
    Observer& observer_;
    Kvm& kvm_;
    GuestMemory memory_;
    KvmVm vm_;
    EndLatch end_;
    std::vector<MachineDevice> table_;
    vmdevice::SystemAllocator allocator_{make_allocator()};
    vmdevice::DeviceManager devices_;
    ExitHandler exit_handler_;
    HostControls controls_;
    std::optional<LoadedGuest> guest_;
    std::vector<std::unique_ptr<KvmVcpu>> vcpus_;
    std::chrono::steady_clock::time_point started_;
    std::chrono::nanoseconds run_time_{};
    BootClock::time_point looked_at_;
    std::optional<Timer> halt_timer_;
    std::chrono::nanoseconds cpu_time_seen_{};
    bool halt_check_due_{true};
    bool halt_checked_{false};
    // Last, so that the threads have ended before anything that they use goes away.
    std::vector<std::unique_ptr<VcpuThread>> threads_;
};

}  // namespace kvm_vmm
