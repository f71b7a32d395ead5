// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
#pragma once

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
/// A *core* is plain C++ without template parameters. It holds the device's saved state, knows the registers
/// and calls nobody. An access changes the state and returns its *effects*: which events happened, what the
/// interrupt lines did. What follows from the state (interrupt levels, status registers) is computed from it.
///
/// The *shell* is the device class: it adds the triggers, the events, the writer and the clock of the host.
/// After an access it calls `apply`, which acts on the effects (`Serial` has one of its own, for speed). The
/// order is: output (before `apply`, as the writer's answer changes the core), then events, then interrupt
/// lines. So an event finds the device as it is after the access.
namespace vmsuperio {

/// A core as the shell needs it.
template <class Core>
concept DeviceCore = requires(const Core& core) {
    core.state();                                                   // plain data that `inspect()` can show
    { core.interrupt_level(std::size_t{}) } -> std::same_as<bool>;  // of each line, by its number
};

/// What a core's access did.
template <class Effects, class Events>
concept DeviceEffects = requires(const Effects& effects, Events& events) {
    effects.report(events);                               // calls the events, in their order
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

    /// All that the device remembers. It may be taken at any time between two calls.
    [[nodiscard]] constexpr auto state() const { return core_.state(); }
    /// The device as text for people, see `inspect.hpp`.
    [[nodiscard]] std::string inspect() const { return vmsuperio::inspect(core_.state()); }
    /// How often the host's side failed since construction.
    [[nodiscard]] constexpr const HostErrors& host_errors() const noexcept { return host_errors_; }

    [[nodiscard]] constexpr const Events& events() const noexcept { return events_; }
    [[nodiscard]] constexpr Events& events() noexcept { return events_; }

protected:
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

    /// Acts on the effects of an access: events, then interrupt lines. Returns what the trigger of the first
    /// line returned; a read, which has nobody to return it to, leaves that out: it is counted anyway.
    template <DeviceEffects<Events> Effects>
    constexpr auto apply(const Effects& effects) {
        effects.report(events_);
        return update_interrupts(effects.pulse, std::index_sequence_for<Ts...>());
    }

    /// Brings line `Line` to the level that follows from the core.
    template <std::size_t Line = 0>
    constexpr auto update_interrupt(LinePulse pulse = LinePulse::none) {
        return checked(HostErrorSource::interrupt, line<Line>().update(core_.interrupt_level(Line), pulse));
    }

    /// Passes a result through, and counts and reports it where it is an error.
    template <class Result>
    constexpr Result checked(HostErrorSource source, Result result) {
        if (!result) [[unlikely]] {
            host_failed(source);
        }
        return result;
    }
    /// The one sink for failures on the host's side.
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

}  // namespace vmsuperio
