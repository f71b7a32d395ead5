// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
#pragma once

#include <cstdint>
#include <string_view>

namespace kvm_vmm {

/// The state and the register with which the boot CPU enters the guest.
struct EntryPoint {
    enum class Protocol {
        linux64,  ///< long mode, RSI = zero page (Linux boot protocol, "64-bit boot protocol")
        linux32,  ///< protected mode, ESI = zero page ("32-bit boot protocol")
        pvh32,    ///< protected mode, EBX = hvm_start_info (Xen's x86/HVM direct boot ABI)
    };

    Protocol protocol{};
    std::uint64_t rip{};
    std::uint64_t boot_info{};  ///< the value of the register named above

    friend bool operator==(const EntryPoint&, const EntryPoint&) = default;
};

[[nodiscard]] constexpr std::string_view to_string(EntryPoint::Protocol protocol) noexcept {
    switch (protocol) {
        case EntryPoint::Protocol::linux64:
            return "64-bit Linux boot protocol";
        case EntryPoint::Protocol::linux32:
            return "32-bit Linux boot protocol";
        case EntryPoint::Protocol::pvh32:
            return "PVH";
    }
    return "unknown";
}

}  // namespace kvm_vmm
