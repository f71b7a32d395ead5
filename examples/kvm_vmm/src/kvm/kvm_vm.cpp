// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
#include "kvm/kvm_vm.hpp"

#include <bit>
#include <linux/kvm.h>

#include "kvm/kvm_ioctl.hpp"

namespace kvm_vmm {
namespace {

// Intel CPUs without unrestricted guest mode need one page for a real-mode identity map and three for a TSS;
// these are in the MMIO gap, just below the address of the firmware ROM.
constexpr std::uint64_t identity_map_address = 0xFFFB'C000;
constexpr unsigned long tss_address = 0xFFFB'D000;

kvm_coalesced_mmio_zone port_zone(std::uint16_t port) {
    kvm_coalesced_mmio_zone zone{};
    zone.addr = port;
    zone.size = 1;
    zone.pio = 1;
    return zone;
}

}  // namespace

KvmVm::KvmVm(const Kvm& kvm) : fd_(kvm.create_vm()) {
    std::uint64_t identity_map = identity_map_address;
    kvm_ioctl(fd(), KVM_SET_IDENTITY_MAP_ADDR, &identity_map, "KVM_SET_IDENTITY_MAP_ADDR");
    kvm_ioctl(fd(), KVM_SET_TSS_ADDR, tss_address, "KVM_SET_TSS_ADDR");
}

void KvmVm::map_memory(const GuestMemory& memory) {
    __u32 slot = 0;
    for (const GuestMemory::Region& region : memory.regions()) {
        kvm_userspace_memory_region kvm_region{};
        kvm_region.slot = slot++;
        kvm_region.guest_phys_addr = region.guest_address;
        kvm_region.memory_size = region.host.size();
        kvm_region.userspace_addr = std::bit_cast<std::uintptr_t>(region.host.data());
        kvm_ioctl(fd(), KVM_SET_USER_MEMORY_REGION, &kvm_region, "KVM_SET_USER_MEMORY_REGION");
    }
}

void KvmVm::create_interrupt_controllers() {
    kvm_ioctl(fd(), KVM_CREATE_IRQCHIP, 0, "KVM_CREATE_IRQCHIP");
    // The speaker port 0x61 shows the PIT's channel 2; without it the guest's TSC calibration never ends.
    kvm_pit_config pit{};
    pit.flags = KVM_PIT_SPEAKER_DUMMY;
    kvm_ioctl(fd(), KVM_CREATE_PIT2, &pit, "KVM_CREATE_PIT2");
}

void KvmVm::register_irqfd(int event_fd, std::uint32_t gsi) {
    kvm_irqfd irqfd{};
    irqfd.fd = static_cast<__u32>(event_fd);
    irqfd.gsi = gsi;
    kvm_ioctl(fd(), KVM_IRQFD, &irqfd, "KVM_IRQFD");
}

void KvmVm::register_ioeventfd(int event_fd, std::uint64_t address, std::uint32_t value) {
    kvm_ioeventfd ioeventfd{};
    ioeventfd.datamatch = value;
    ioeventfd.addr = address;
    ioeventfd.len = sizeof(value);
    ioeventfd.fd = event_fd;
    ioeventfd.flags = KVM_IOEVENTFD_FLAG_DATAMATCH;
    kvm_ioctl(fd(), KVM_IOEVENTFD, &ioeventfd, "KVM_IOEVENTFD");
}

bool KvmVm::signal_port_writes(int event_fd, std::uint16_t port) noexcept {
    kvm_ioeventfd ioeventfd{};
    ioeventfd.addr = port;
    ioeventfd.len = sizeof(std::uint32_t);
    ioeventfd.fd = event_fd;
    ioeventfd.flags = KVM_IOEVENTFD_FLAG_PIO;
    return ::ioctl(fd(), KVM_IOEVENTFD, &ioeventfd) == 0;
}

bool KvmVm::coalesce_port(std::uint16_t port) noexcept {
    kvm_coalesced_mmio_zone zone = port_zone(port);
    return ::ioctl(fd(), KVM_REGISTER_COALESCED_MMIO, &zone) == 0;
}

bool KvmVm::coalesce_register(std::uint64_t address) noexcept {
    kvm_coalesced_mmio_zone zone{};
    zone.addr = address;
    zone.size = sizeof(std::uint32_t);
    return ::ioctl(fd(), KVM_REGISTER_COALESCED_MMIO, &zone) == 0;
}

void KvmVm::stop_coalescing_port(std::uint16_t port) noexcept {
    kvm_coalesced_mmio_zone zone = port_zone(port);
    ::ioctl(fd(), KVM_UNREGISTER_COALESCED_MMIO, &zone);
}

void KvmVm::set_irq_line(std::uint32_t gsi, bool level) {
    kvm_irq_level line{};
    line.irq = gsi;
    line.level = level ? 1 : 0;
    kvm_ioctl(fd(), KVM_IRQ_LINE, &line, "KVM_IRQ_LINE");
}

vmsuperio::UniqueFd KvmVm::create_vcpu(unsigned id) const {
    return vmsuperio::UniqueFd(
        kvm_ioctl(fd(), KVM_CREATE_VCPU, static_cast<unsigned long>(id), "KVM_CREATE_VCPU"));
}

}  // namespace kvm_vmm
