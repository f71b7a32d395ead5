// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
#pragma once

#include <vmsuperio/detail/config.hpp>

#include <cstdint>
#include <expected>
#include <utility>

#include <vmsuperio/trigger.hpp>

namespace vmsuperio::inline v0_2 {

/// The behaviour of a device's interrupt line within one access, in addition to its level at the end.
enum class LinePulse : std::uint8_t {
    none,   ///< nothing else
    again,  ///< another cause occurred while the line stayed high: an edge trigger sees another edge, a level
            ///< trigger nothing
    dropped,  ///< the line was low in between: both kinds of trigger see it fall and rise
};

/// One interrupt line of a device: stores its level and calls the trigger with edges or levels, depending on
/// its type. This class is for authors of devices; call `update` after each access with the level that
/// follows from the registers.
template <Trigger T>
class InterruptLine {
public:
    using error_type = typename T::error_type;

    /// A line that is low.
    explicit constexpr InterruptLine(T trigger) : trigger_(std::move(trigger)) {}

    /// The present level.
    [[nodiscard]] constexpr bool level() const noexcept { return level_; }
    [[nodiscard]] constexpr T& trigger() noexcept { return trigger_; }
    [[nodiscard]] constexpr const T& trigger() const noexcept { return trigger_; }

    /// Sets the line to `level`; a pulse has an effect only if the level is high. The line takes the level
    /// even if the trigger fails. Returns the result of the trigger, or its first error if it was called
    /// twice.
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

}  // namespace vmsuperio::inline v0_2
