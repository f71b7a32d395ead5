// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
#pragma once

#include <cstdint>
#include <functional>
#include <utility>

#include <vmsuperio/registers/register.hpp>

namespace kvm_vmm {

/// RST_CNT, port 0xCF9 of PC chipsets (Intel ICH9 datasheet, 13.7.5). ACPI's reset register as well.
struct ResetControlRegister : vmsuperio::Register<ResetControlRegister, std::uint8_t, 0x0E> {
    using Register::Register;
    static constexpr Bit<1> system_reset{};  // which kind of reset; both are the same here
    static constexpr Bit<2> reset_cpu{};     // a change from 0 to 1 resets
    static constexpr Bit<3> full_reset{};
};

/// The reset control port. Thread safety: none.
class ResetControl {
public:
    explicit ResetControl(std::function<void()> on_reset) : on_reset_(std::move(on_reset)) {}

    std::uint8_t read(std::uint8_t) const noexcept { return value_.value(); }

    void write(std::uint8_t, std::uint8_t value) {
        const bool before = value_[ResetControlRegister::reset_cpu];
        value_.guest_write(value);
        if (!before && value_[ResetControlRegister::reset_cpu]) {
            on_reset_();
        }
    }

private:
    std::function<void()> on_reset_;
    ResetControlRegister value_;
};

}  // namespace kvm_vmm
