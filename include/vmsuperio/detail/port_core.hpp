// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
#pragma once

#include <vmsuperio/detail/config.hpp>

#include <cstddef>

#include <vmsuperio/interrupt_line.hpp>

namespace vmsuperio::inline v0_2::detail {

/// The common part of the cores of ports without an interrupt line, whose saved state is the live state.
template <class State>
class PortCore {
public:
    constexpr PortCore() = default;
    /// `state` must be valid.
    explicit constexpr PortCore(const State& state) : state_(state) {}

    [[nodiscard]] constexpr const State& state() const noexcept { return state_; }
    [[nodiscard]] static constexpr bool interrupt_level(std::size_t /*line*/) noexcept { return false; }

protected:
    State state_;
};

/// Base of the effects of such a core.
struct PortEffects {
    static constexpr LinePulse pulse = LinePulse::none;
};

}  // namespace vmsuperio::inline v0_2::detail
