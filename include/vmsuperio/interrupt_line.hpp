// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
#pragma once

#include <cstdint>
#include <expected>
#include <utility>

#include <vmsuperio/trigger.hpp>

namespace vmsuperio {

/// What a device's interrupt line did within one access, beside the level that it has at the end.
enum class LinePulse : std::uint8_t {
    none,   ///< nothing else
    again,  ///< another cause came up while the line stayed high: an edge trigger sees another edge, a level
            ///< trigger nothing
    dropped,  ///< the line was low in between: both see it fall and rise
};

/// One interrupt line of a device: remembers its level and calls the trigger in the trigger's own terms. For
/// authors of devices; call `update` after each access with the level that follows from the registers.
template <Trigger T>
class InterruptLine {
public:
    using error_type = typename T::error_type;

    explicit constexpr InterruptLine(T trigger) : trigger_(std::move(trigger)) {}

    [[nodiscard]] constexpr bool level() const noexcept { return level_; }
    [[nodiscard]] constexpr T& trigger() noexcept { return trigger_; }
    [[nodiscard]] constexpr const T& trigger() const noexcept { return trigger_; }

    /// Moves the line to `level`; a pulse counts only where that is high. The line takes the level even where
    /// the trigger fails. Errors: what the trigger returned, the first where it was called twice.
    [[nodiscard]] constexpr std::expected<void, error_type> update(bool level,
                                                                   LinePulse pulse = LinePulse::none) {
        const bool was = std::exchange(level_, level);
        if constexpr (LevelTrigger<T>) {
            if (level && was && pulse == LinePulse::dropped) {
                auto fell = trigger_.set_level(false);
                auto rose = trigger_.set_level(true);
                return fell ? rose : fell;
            }
            return level == was ? std::expected<void, error_type>{} : trigger_.set_level(level);
        } else {
            return level && (!was || pulse != LinePulse::none) ? trigger_.trigger()
                                                               : std::expected<void, error_type>{};
        }
    }

private:
    T trigger_;
    bool level_{false};
};

}  // namespace vmsuperio
