// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "observe/device_directory.hpp"
#include "observe/io_access.hpp"

namespace kvm_vmm {

/// Names the register that an access went to, as "COM1.LSR".
///
/// What a UART's or a CMOS clock's ports mean depends on what was written before (DLAB, the index), so
/// accesses have to be shown in the order in which they happened. Thread safety: none.
class RegisterNames {
public:
    /// The first register of the access; "-" where no device owns all of it.
    [[nodiscard]] std::string name(const ObservedDevice* device, const IoAccess& access);

    /// All devices were reset.
    void forget() noexcept { latches_.clear(); }

private:
    [[nodiscard]] std::uint8_t& latch(const ObservedDevice& device);
    void note(const ObservedDevice& device, std::uint64_t offset, const IoAccess& access);

    std::vector<std::uint8_t> latches_;  // by the device's index: LCR of a UART, index of a CMOS clock
};

}  // namespace kvm_vmm
