// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
#pragma once

#include <vmsuperio/detail/config.hpp>

#include <concepts>
#include <expected>

namespace vmsuperio::inline v0_2 {

/// The interface through which a device reports that its interrupt line rose.
///
/// A plain `Trigger` receives edges: `trigger()` is called once per rising edge of the line, and once more
/// when a single operation deasserts and reasserts the line. It must not block and must not throw.
template <class T>
concept Trigger = requires(T t) {
    typename T::error_type;
    { t.trigger() } -> std::same_as<std::expected<void, typename T::error_type>>;
};

/// A trigger that receives the level of the line, once per change, instead of its edges.
///
/// A device with a `LevelTrigger` calls only `set_level` and never `trigger`.
template <class T>
concept LevelTrigger = Trigger<T> && requires(T t, bool asserted) {
    { t.set_level(asserted) } -> std::same_as<std::expected<void, typename T::error_type>>;
};

/// The error type of a trigger that cannot fail. This library never creates a value of it.
struct NoTriggerError {
    friend constexpr bool operator==(NoTriggerError, NoTriggerError) = default;
};

/// A `Trigger` that does nothing, for a device whose interrupt is not connected.
struct NullTrigger {
    using error_type = NoTriggerError;

    // NOLINTNEXTLINE(readability-convert-member-functions-to-static): the concept requires a member
    [[nodiscard]] constexpr std::expected<void, error_type> trigger() noexcept { return {}; }
};
static_assert(Trigger<NullTrigger> && !LevelTrigger<NullTrigger>);

/// A reference to a trigger, so that a device and its owner can share it. The trigger must outlive every copy
/// of the reference.
template <Trigger T>
class TriggerRef {
public:
    using error_type = typename T::error_type;

    // NOLINTNEXTLINE(google-explicit-constructor): a reference to a trigger is a trigger
    /// Refers to a trigger, which must outlive this object.
    constexpr TriggerRef(T& trigger) noexcept : trigger_(&trigger) {}

    [[nodiscard]] constexpr std::expected<void, error_type> trigger() { return trigger_->trigger(); }
    [[nodiscard]] constexpr std::expected<void, error_type> set_level(bool asserted)
        requires LevelTrigger<T>
    {
        return trigger_->set_level(asserted);
    }

private:
    T* trigger_;
};
static_assert(Trigger<TriggerRef<NullTrigger>> && !LevelTrigger<TriggerRef<NullTrigger>>);

/// Pulses the line, as for a reset: one edge, or high and low again for a `LevelTrigger`. Returns the first
/// error of the trigger.
template <Trigger T>
[[nodiscard]] constexpr std::expected<void, typename T::error_type> pulse(T& trigger) {
    if constexpr (LevelTrigger<T>) {
        auto rose = trigger.set_level(true);
        auto fell = trigger.set_level(false);
        return rose ? fell : rose;
    } else {
        return trigger.trigger();
    }
}

}  // namespace vmsuperio::inline v0_2
