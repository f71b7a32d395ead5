// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
#pragma once

#include <atomic>
#include <chrono>
#include <cstdint>
#include <functional>
#include <future>
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
#include "event/notifier.hpp"
#include "event/timer.hpp"
#include "kvm/kvm.hpp"
#include "kvm/kvm_vcpu.hpp"
#include "kvm/kvm_vm.hpp"
#include "machine/end.hpp"
#include "memory/guest_memory.hpp"
#include "observe/observer.hpp"
#include "virtio/net_target.hpp"
#include "vmm/coalesced_writes.hpp"
#include "vmm/config.hpp"
#include "vmm/exit_handler.hpp"
#include "vmm/halt_pace.hpp"
#include "vmm/machine_table.hpp"
#include "vmm/rest_watch.hpp"
#include "vmm/vcpu_thread.hpp"

namespace kvm_vmm {

/// The objects that outlive the VMs of this process and that each VM uses.
struct VmHost {
    EventManager& events;
    Observer& observer;
    Kvm& kvm;
    ImageFile& kernel;
    ImageFile* initrd;                                         ///< null for none
    std::span<const std::unique_ptr<SerialBackend>> serials;   ///< one for each serial port
    std::span<const std::unique_ptr<SerialBackend>> consoles;  ///< one for each virtio console
    SerialBackend* debug_console;                              ///< null for none
    // NOLINTBEGIN(readability-redundant-member-init): GCC warns of initializers that leave one out
    std::span<const std::unique_ptr<virtio::DiskImage>> disks{};  ///< one for each of VmmConfig::disks
    std::span<const virtio::NetTarget> nets{};                    ///< one for each of VmmConfig::nets
    std::span<const virtio::SharedRoot> shares{};                 ///< one for each of VmmConfig::shares
    // NOLINTEND(readability-redundant-member-init)
    const ListeningSocket* vsock{};  ///< null for none
};

/// One virtual machine, from power-on to its end.
///
/// After construction it has its memory, interrupt controllers, devices and CPUs, and the kernel is loaded;
/// run() starts it. All set-up errors are VmmError.
class VirtualMachine {
public:
    /// All objects to which `host` refers must outlive the VM. `battery` is the battery-backed state of the
    /// previous VM. `checkpoint` is called repeatedly while files are loaded, and may throw to abort.
    VirtualMachine(const VmmConfig& config, const VmHost& host, const Battery& battery = {},
                   const std::function<void()>& checkpoint = {});
    ~VirtualMachine();
    VirtualMachine(const VirtualMachine&) = delete;
    VirtualMachine& operator=(const VirtualMachine&) = delete;

    /// Runs the guest, and the event loop in this thread, until the VM ends.
    VmEnd run();

    /// After run(), as the last use of this VM: lets slow readers of the consoles take the guest's last
    /// output, for as long as ReaderPatience allows and the host does not request the end. Before that the
    /// guest's memory is returned to the host.
    void finish_output();

    /// Delivers the guest's writes so far to the devices. Called from the event loop's thread.
    void deliver_writes() {
        if (coalesced_) {
            coalesced_->deliver_by_host();
        }
    }

    /// After run(): the state that survives a reset, for the next VM.
    [[nodiscard]] Battery reset_battery_backed() {
        return controls_.reset_battery_backed ? controls_.reset_battery_backed() : Battery{};
    }

    /// Ends the VM from outside. May be called from any thread.
    void request_end(EndReason reason, std::string message = {}) {
        end_.request_by_host(reason, std::move(message));
    }
    /// Ends the VM because this process received a signal that requests it.
    void request_end_by_signal(int signal);

    /// Ends the VM because the sandbox has stopped one of its threads; run() does not return then.
    void request_end_by_sandbox() { end_.request(end::Failed{ExitCode::sandbox}); }

    /// The size of the terminal that this process runs in has changed. Called from the event loop's thread.
    void terminal_resized();

    /// The files of disks may have other sizes. Called from the event loop's thread.
    void check_disk_sizes();

    /// Notifies the guest that it did not run for a while. Called from the event loop's thread.
    void declare_pause();

    /// After run(): runs the event loop for `time`, or until the host requests the end; returns whether it
    /// did.
    bool wait_for_end(std::chrono::nanoseconds time);
    /// After run(): how long the guest ran.
    [[nodiscard]] std::chrono::nanoseconds run_time() const noexcept { return run_time_; }
    [[nodiscard]] VmEnd end() const { return *end_.get(); }

private:
    [[nodiscard]] LoadedGuest load_guest_files(const VmHost& host, const std::function<void()>& checkpoint);
    void create_machine(const VmHost& host, const Battery& battery);
    void log_set_up() const;
    void log_unused_root(const EndReason& reason) const;
    void create_vcpus();
    void discard_pci_addresses();
    void coalesce_writes();
    void look_for_writes();
    [[nodiscard]] std::string status() const;
    void look_for_halt();
    void look_after(std::chrono::nanoseconds time);
    void set_resting(bool resting);
    void on_return_from_rest();
    void stop_vcpus();
    void shut_down_devices();
    [[noreturn]] void leave_after_violation();
    void on_console_command(ConsoleCommand command);

    VmmConfig config_;
    EventManager& events_;
    Observer& observer_;
    Kvm& kvm_;
    GuestMemory memory_;
    KvmVm vm_;
    EndLatch end_;
    std::vector<MachineDevice> table_;
    std::atomic<bool> coalesces_{false};  // whether threads of devices may use coalesced_
    vmdevice::SystemAllocator allocator_{make_allocator()};
    vmdevice::DeviceManager devices_;
    RestWatch rest_watch_;
    ExitHandler exit_handler_;
    HostControls controls_;
    // A thread reads the files into memory_ while devices and CPUs are created. It starts after devices_ exists, which
    // registers for membarrier(2): with more than one thread, that takes milliseconds.
    std::future<LoadedGuest> loading_;
    std::optional<LoadedGuest> guest_;
    std::vector<std::unique_ptr<KvmVcpu>> vcpus_;
    std::optional<CoalescedWrites> coalesced_;  // after vcpus_, in whose memory the ring is
    std::optional<Notifier> pci_addresses_;     // of which nobody is notified
    std::vector<std::uint16_t> coalesced_ports_;
    std::optional<Timer> write_timer_;
    bool write_timer_set_{false};
    std::chrono::steady_clock::time_point started_;
    std::chrono::nanoseconds run_time_{};
    BootClock::time_point look_due_;
    std::optional<Timer> halt_timer_;
    HaltPace halt_pace_;
    bool resting_{false};
    bool settled_{false};  // the first look at the CPUs has taken place
    // The last member, so that the threads have ended before the objects that they use are destroyed.
    std::vector<std::unique_ptr<VcpuThread>> threads_;
};

}  // namespace kvm_vmm
