// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
#pragma once

#include <cstddef>
#include <optional>
#include <string>
#include <vector>

#include <vmsuperio/linux/unique_fd.hpp>

struct kvm_cpuid_entry2;  // NOLINT(readability-identifier-naming): the kernel's name

namespace kvm_vmm {

/// The KVM subsystem: /dev/kvm, opened and checked.
class Kvm {
public:
    /// Opens the device and checks the API version and every capability that this program needs. Throws
    /// VmmError(no_kvm), which names what is missing and what may help.
    explicit Kvm(const std::string& path = "/dev/kvm");

    [[nodiscard]] int fd() const noexcept { return fd_.get(); }

    /// The value of an optional capability, or 0 if it is missing.
    [[nodiscard]] int capability(int number) const noexcept;

    /// The offset of the ring of coalesced writes in the memory that is mapped for each vCPU, in bytes; nothing if
    /// KVM cannot coalesce writes to ports.
    [[nodiscard]] std::optional<std::size_t> coalesced_ring_offset() const noexcept;

    /// Bytes to map for each vCPU.
    [[nodiscard]] std::size_t vcpu_mmap_size() const noexcept { return vcpu_mmap_size_; }

    /// The largest number of vCPUs of one VM.
    [[nodiscard]] unsigned max_vcpus() const noexcept;

    /// The features that the host CPU and KVM can offer a guest.
    [[nodiscard]] std::vector<kvm_cpuid_entry2> supported_cpuid() const;

    /// A new VM's file descriptor.
    [[nodiscard]] vmsuperio::UniqueFd create_vm() const;

private:
    vmsuperio::UniqueFd fd_;
    std::size_t vcpu_mmap_size_{0};
};

}  // namespace kvm_vmm
