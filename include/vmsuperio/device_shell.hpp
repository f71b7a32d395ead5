// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
#pragma once

#include <vmsuperio/detail/config.hpp>

#include <array>
#include <concepts>
#include <cstddef>
#include <cstdint>
#include <expected>
#include <string>
#include <utility>

#include <vmsuperio/host_errors.hpp>
#include <vmsuperio/inspect.hpp>
#include <vmsuperio/interrupt_line.hpp>
#include <vmsuperio/trigger.hpp>

/// The shape of every device: a core and a shell.
///
/// A *core* is plain C++ without template parameters. It holds the device's saved state, implements the
/// registers and makes no calls to the host. An access changes the state and returns its *effects*: the
/// events that happened and the pulses of the interrupt lines. Values that follow from the state (interrupt
/// levels, status registers) are computed from it.
///
/// The *shell* is the device class: it adds the triggers, the events, the writer and the clock of the host.
/// After an access it calls `apply`, which acts on the effects (`Serial` has its own version, for speed). The
/// order is: output (before `apply`, because the writer's result changes the core), then events, then
/// interrupt lines. So an event handler sees the state after the access.
namespace vmsuperio::inline v0_2 {

/// The requirements of the shell on a core.
template <class Core>
concept DeviceCore = requires(const Core& core) {
    core.state();                                                   // plain data that `inspect()` can show
    { core.interrupt_level(std::size_t{}) } -> std::same_as<bool>;  // of each line, by its number
};

/// The effects of an access to a core.
template <class Effects, class Events>
concept DeviceEffects = requires(const Effects& effects, Events& events) {
    effects.report(events);                               // calls the events, in order
    { effects.pulse } -> std::convertible_to<LinePulse>;  // of each line that is high at the end
};

namespace detail {

/// The interrupt lines of a device by their numbers. A std::tuple would keep devices from being trivially
/// copyable, and costs more to compile.
template <std::size_t Number, class T>
struct NumberedLine {
    InterruptLine<T> line;
};
template <class Numbers, class... Ts>
struct NumberedLines;
template <std::size_t... Numbers, class... Ts>
struct NumberedLines<std::index_sequence<Numbers...>, Ts...> : NumberedLine<Numbers, Ts>... {};

template <std::size_t Number, class T>
[[nodiscard]] constexpr InterruptLine<T>& line_of(NumberedLine<Number, T>& lines) noexcept {
    return lines.line;
}
template <std::size_t Number, class T>
[[nodiscard]] constexpr const InterruptLine<T>& line_of(const NumberedLine<Number, T>& lines) noexcept {
    return lines.line;
}

}  // namespace detail

/// The part that is the same in all devices. `Ts` are the triggers of the interrupt lines, in the core's
/// numbering.
template <DeviceCore Core, class Events, Trigger... Ts>
class DeviceShell {
    static_assert(
        !requires { &Events::host_error; } ||
            requires(Events& events) { events.host_error(HostErrorSource::output); },
        "the event host_error must take a HostErrorSource");

public:
    using events_type = Events;

    /// The complete state of the device. It may be read at any time between two calls.
    [[nodiscard]] constexpr auto state() const { return core_.state(); }
    /// The device as text for people, see `inspect.hpp`.
    [[nodiscard]] std::string inspect() const { return vmsuperio::inspect(core_.state()); }
    /// How often the host's side failed since construction.
    [[nodiscard]] constexpr const HostErrors& host_errors() const noexcept { return host_errors_; }

    [[nodiscard]] constexpr const Events& events() const noexcept { return events_; }
    [[nodiscard]] constexpr Events& events() noexcept { return events_; }

protected:
    /// A shell around `core` with a trigger for each of its lines.
    constexpr DeviceShell(const Core& core, Events events, Ts... triggers)
        : core_(core), lines_{{InterruptLine<Ts>(std::move(triggers))}...}, events_(std::move(events)) {}

    [[nodiscard]] constexpr Core& core() noexcept { return core_; }
    [[nodiscard]] constexpr const Core& core() const noexcept { return core_; }
    template <std::size_t Line = 0>
    [[nodiscard]] constexpr auto& line() noexcept {
        return detail::line_of<Line>(lines_);
    }
    template <std::size_t Line = 0>
    [[nodiscard]] constexpr const auto& line() const noexcept {
        return detail::line_of<Line>(lines_);
    }

    /// Acts on the effects of an access: events, then interrupt lines. Returns the result of the first line's
    /// trigger. A read cannot return it to its caller and ignores it; it is counted in any case.
    template <DeviceEffects<Events> Effects>
    constexpr auto apply(const Effects& effects) {
        effects.report(events_);
        return update_interrupts(effects.pulse, std::index_sequence_for<Ts...>());
    }

    /// Sets line `Line` to the level that follows from the core's state.
    template <std::size_t Line = 0>
    constexpr auto update_interrupt(LinePulse pulse = LinePulse::none) {
        return checked(HostErrorSource::interrupt, line<Line>().update(core_.interrupt_level(Line), pulse));
    }

    /// Returns `result`, and counts and reports it if it is an error.
    template <class Result>
    constexpr Result checked(HostErrorSource source, Result result) {
        if (!result) [[unlikely]] {
            host_failed(source);
        }
        return result;
    }
    /// Counts and reports every failure on the host's side.
    constexpr void host_failed(HostErrorSource source) {
        switch (source) {
            case HostErrorSource::interrupt:
                ++host_errors_.interrupt;
                break;
            case HostErrorSource::reset:
                ++host_errors_.reset;
                break;
            case HostErrorSource::output:
                ++host_errors_.output;
                break;
        }
        if constexpr (requires { events_.host_error(source); }) {
            events_.host_error(source);
        }
    }

private:
    constexpr void update_interrupts(LinePulse, std::index_sequence<>) noexcept {}
    template <std::size_t... Rest>
    constexpr auto update_interrupts(LinePulse pulse, std::index_sequence<0, Rest...>) {
        auto result = update_interrupt<0>(pulse);
        (static_cast<void>(update_interrupt<Rest>(pulse)), ...);
        return result;
    }

    Core core_;
    [[no_unique_address]] detail::NumberedLines<std::index_sequence_for<Ts...>, Ts...> lines_;
    [[no_unique_address]] Events events_;
    HostErrors host_errors_;
};

}  // namespace vmsuperio::inline v0_2
