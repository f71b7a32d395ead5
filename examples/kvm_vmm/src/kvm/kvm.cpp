// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
#include "kvm/kvm.hpp"

#include <array>
#include <fcntl.h>
#include <linux/kvm.h>

#include "kvm/coalesced_ring.hpp"
#include "kvm/counted_list.hpp"
#include "kvm/kvm_ioctl.hpp"

namespace kvm_vmm {
namespace {

struct NeededCapability {
    int number;
    const char* name;
};

constexpr std::array needed_capabilities{
    NeededCapability{KVM_CAP_USER_MEMORY, "KVM_CAP_USER_MEMORY"},
    NeededCapability{KVM_CAP_SET_TSS_ADDR, "KVM_CAP_SET_TSS_ADDR"},
    NeededCapability{KVM_CAP_SET_IDENTITY_MAP_ADDR, "KVM_CAP_SET_IDENTITY_MAP_ADDR"},
    NeededCapability{KVM_CAP_IRQCHIP, "KVM_CAP_IRQCHIP"},
    NeededCapability{KVM_CAP_PIT2, "KVM_CAP_PIT2"},
    NeededCapability{KVM_CAP_IRQFD, "KVM_CAP_IRQFD"},
    NeededCapability{KVM_CAP_IOEVENTFD, "KVM_CAP_IOEVENTFD"},
    NeededCapability{KVM_CAP_EXT_CPUID, "KVM_CAP_EXT_CPUID"},
    NeededCapability{KVM_CAP_MP_STATE, "KVM_CAP_MP_STATE"},
    NeededCapability{KVM_CAP_IMMEDIATE_EXIT, "KVM_CAP_IMMEDIATE_EXIT"},
};

std::string open_failure(const std::string& path, int error_number) {
    std::string message = errno_message("cannot open " + path, error_number);
    if (error_number == EACCES || error_number == EPERM) {
        message += " (is your user in the group 'kvm'?)";
    } else if (error_number == ENOENT || error_number == ENODEV || error_number == ENXIO) {
        message += " (is the kvm-intel or kvm-amd module loaded, and virtualisation on in the firmware?)";
    }
    return message;
}

}  // namespace

Kvm::Kvm(const std::string& path) : fd_(::open(path.c_str(), O_RDWR | O_CLOEXEC)) {
    if (!fd_) {
        throw VmmError(ExitCode::no_kvm, open_failure(path, errno));
    }
    const int version = ::ioctl(fd_.get(), KVM_GET_API_VERSION, 0);
    if (version < 0) {
        throw VmmError(ExitCode::no_kvm, path + " is not the KVM device");
    }
    if (version != KVM_API_VERSION) {
        throw VmmError(ExitCode::no_kvm, "KVM has API version " + std::to_string(version) + ", but " +
                                             std::to_string(KVM_API_VERSION) + " is needed");
    }
    for (const NeededCapability& needed : needed_capabilities) {
        if (capability(needed.number) <= 0) {
            throw VmmError(ExitCode::no_kvm, std::string("KVM lacks ") + needed.name);
        }
    }
    vcpu_mmap_size_ =
        static_cast<std::size_t>(kvm_ioctl(fd_.get(), KVM_GET_VCPU_MMAP_SIZE, 0, "KVM_GET_VCPU_MMAP_SIZE"));
}

int Kvm::capability(int number) const noexcept {
    const int value = ::ioctl(fd_.get(), KVM_CHECK_EXTENSION, number);
    return value < 0 ? 0 : value;
}

std::optional<std::size_t> Kvm::coalesced_ring_offset() const noexcept {
    const int page = capability(KVM_CAP_COALESCED_MMIO);
    if (page <= 0 || capability(KVM_CAP_COALESCED_PIO) <= 0) {
        return std::nullopt;
    }
    return static_cast<std::size_t>(page) * CoalescedRing::page_size;
}

unsigned Kvm::max_vcpus() const noexcept {
    const int maximum = capability(KVM_CAP_MAX_VCPUS);
    const int recommended = capability(KVM_CAP_NR_VCPUS);
    return static_cast<unsigned>(maximum > 0 ? maximum : (recommended > 0 ? recommended : 4));
}

std::vector<kvm_cpuid_entry2> Kvm::supported_cpuid() const {
    // The number of entries is not known in advance; KVM returns E2BIG while the room is too small.
    using List = CountedList<kvm_cpuid_entry2>;
    for (std::size_t room = 128;; room *= 2) {
        List list(room);
        if (::ioctl(fd_.get(), list_request(KVM_GET_SUPPORTED_CPUID), list.data()) == 0) {
            return list.entries();
        }
        if (errno != E2BIG || room > 4096) {
            throw VmmError(ExitCode::no_kvm, errno_message("KVM_GET_SUPPORTED_CPUID failed", errno));
        }
    }
}

vmsuperio::UniqueFd Kvm::create_vm() const {
    return vmsuperio::UniqueFd(kvm_ioctl(fd_.get(), KVM_CREATE_VM, 0, "KVM_CREATE_VM", ExitCode::no_kvm));
}

}  // namespace kvm_vmm
