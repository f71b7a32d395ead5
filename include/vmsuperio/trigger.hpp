// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
#pragma once

#include <concepts>
#include <expected>

#include <vmsuperio/detail/config.hpp>

namespace vmsuperio {

/// How a device tells the VMM that its interrupt line rose.
///
/// A plain `Trigger` is an edge: `trigger()` is called once on every transition of the line from low to
/// high, and again where the line would fall and rise at once. It must not block and must not throw.
template <class T>
concept Trigger = requires(T t) {
    typename T::error_type;
    { t.trigger() } -> std::same_as<std::expected<void, typename T::error_type>>;
};

/// A trigger that is told the level of the line, once per change, instead of its edges.
///
/// A device given a `LevelTrigger` calls `set_level` only and never `trigger`.
template <class T>
concept LevelTrigger = Trigger<T> && requires(T t, bool asserted) {
    { t.set_level(asserted) } -> std::same_as<std::expected<void, typename T::error_type>>;
};

/// The error type of a trigger that cannot fail. No value of it is ever made by this library.
struct NoTriggerError {
    friend constexpr bool operator==(NoTriggerError, NoTriggerError) = default;
};

/// The contract of `Trigger`, doing nothing: for a device whose interrupt is not connected.
struct NullTrigger {
    using error_type = NoTriggerError;

    // NOLINTNEXTLINE(readability-convert-member-functions-to-static): the concept asks for a member
    [[nodiscard]] constexpr std::expected<void, error_type> trigger() noexcept { return {}; }
};
static_assert(Trigger<NullTrigger> && !LevelTrigger<NullTrigger>);

/// A trigger that lives elsewhere, so that a device and its owner can share it. It must outlive every copy.
template <Trigger T>
class TriggerRef {
public:
    using error_type = typename T::error_type;

    // NOLINTNEXTLINE(google-explicit-constructor): a reference to a trigger is a trigger
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

/// A pulse of the line: one edge, or high and low again for a `LevelTrigger`. What a reset line does. Errors:
/// the first that the trigger returned.
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

}  // namespace vmsuperio
