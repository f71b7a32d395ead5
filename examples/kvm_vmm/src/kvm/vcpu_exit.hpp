// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

struct kvm_run;  // NOLINT(readability-identifier-naming): the kernel's name

namespace kvm_vmm {

/// Why a vCPU stopped running, in terms that need no KVM header. The spans point into the vCPU's shared
/// page: an answer is written there, and they are valid until the vCPU runs again.
namespace exits {

/// IN or INS: `data` holds one or more accesses of `width` bytes, all to be read from the same port.
struct PortRead {
    std::uint16_t port;
    std::size_t width;
    std::span<std::uint8_t> data;
};
/// OUT or OUTS.
struct PortWrite {
    std::uint16_t port;
    std::size_t width;
    std::span<std::uint8_t> data;
};
struct MmioRead {
    std::uint64_t address;
    std::span<std::uint8_t> data;
};
struct MmioWrite {
    std::uint64_t address;
    std::span<std::uint8_t> data;
};
/// The caller only has to run the vCPU again: a signal, a window for interrupts, an AP that is not started
/// yet.
struct Resume {};
/// HLT without an in-kernel interrupt controller.
struct Halt {};
/// Triple fault.
struct Shutdown {};
/// The guest requested one of these through a paravirtual call.
struct SystemEvent {
    enum class Kind : std::uint8_t { power_off, reset, crash, other } kind;
    std::uint32_t type;
};
/// The CPU refused to enter the guest.
struct FailEntry {
    std::uint64_t hardware_reason;
};
/// KVM cannot continue, most often because it cannot emulate an instruction.
struct InternalError {
    std::uint32_t suberror;
    std::vector<std::uint64_t> data;
};
/// Any other exit.
struct Unknown {
    std::uint32_t reason;
    std::string_view name;
};

}  // namespace exits

using VcpuExit = std::variant<exits::PortRead, exits::PortWrite, exits::MmioRead, exits::MmioWrite,
                              exits::Resume, exits::Halt, exits::Shutdown, exits::SystemEvent,
                              exits::FailEntry, exits::InternalError, exits::Unknown>;

/// Reads the exit from the shared page. `run_size` limits the offsets in it that are accepted.
[[nodiscard]] VcpuExit decode_exit(kvm_run& run, std::size_t run_size);

/// The name of a KVM exit reason, "KVM_EXIT_..." without the prefix.
[[nodiscard]] std::string_view exit_reason_name(std::uint32_t reason) noexcept;

}  // namespace kvm_vmm
