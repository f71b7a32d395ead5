// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
#pragma once

#include <vmsuperio/detail/config.hpp>

#include <concepts>
#include <cstddef>
#include <cstdint>
#include <expected>
#include <optional>
#include <string>
#include <utility>

#include <vmsuperio/clock.hpp>
#include <vmsuperio/detail/chrono.hpp>
#include <vmsuperio/device_shell.hpp>
#include <vmsuperio/host_errors.hpp>
#include <vmsuperio/i8042_state.hpp>
#include <vmsuperio/inspect.hpp>
#include <vmsuperio/keys.hpp>
#include <vmsuperio/ps2/i8042_core.hpp>
#include <vmsuperio/registers/i8042.hpp>
#include <vmsuperio/state_error.hpp>
#include <vmsuperio/trigger.hpp>

/// The PS/2 controller of a PC (8042) with its keyboard and mouse.
///
/// Models: the controller of IBM's PS/2 Hardware Interface Technical Reference (status, command byte, 32
/// bytes of RAM, self and interface tests, output port with A20 and CPU reset, loop-back commands 0xD2 and
/// 0xD3, pulse commands), a 101/102-key keyboard with scan code sets 1 to 3 and the controller's translation
/// of set 2 to set 1, and a mouse with wheel and five buttons.
///
/// | port | offset | read | write |
/// |---|---|---|---|
/// | 0x60 | 0 | output buffer | data: to the keyboard, or the data byte of the last command |
/// | 0x64 | 4 | status | command |
///
/// Not modelled: passwords (0xA5, 0xA6), the diagnostic dump (0xAC), the input port polls (0xC1, 0xC2), the
/// multiplexing extension, time except for the hold-off: each command is carried out before the write
/// returns, so IBF reads 0.
/// Ignored bits: output port bits 4 and 5 (they follow the output buffer), pulse bits 1 to 3, command byte
/// bit 7. Thread safety: none; one lock around the device, or one thread.
namespace vmsuperio::inline v0_2 {

/// The default events type of the controller, which ignores all events. Each member of an events type is
/// optional: `a20_changed(bool enabled)`, `leds_changed(std::uint8_t leds)` (see `ps2::Leds`: bit 0 Scroll
/// Lock, 1 Num Lock, 2 Caps Lock), `host_error(HostErrorSource)`.
struct NoI8042Events {};

/// Counters since construction. They are not part of the saved state.
struct I8042Counters {
    std::uint64_t interrupt_errors{};   ///< `host_errors().interrupt`: keyboard and mouse interrupt triggers
    std::uint64_t keyboard_overruns{};  ///< key movements that did not fit the keyboard's buffer
    std::uint64_t unknown_commands{};   ///< guest commands that the controller does not know
};

/// Errors: `write` returns only the result of the reset trigger, because neither the guest nor the code that
/// dispatches its writes could act on an error of the keyboard's and mouse's triggers. All errors are counted
/// in `host_errors()` and reported to the event `host_error`.
///
/// With `I8042Options::hold_off`, a device's next byte arrives that time after the last one was read,
/// measured with `C`; until then port 0x60 shows the old byte. `next_deadline()` returns the time at which to
/// call `tick()`; guest accesses update the device implicitly. Without a hold-off, which is the default, `C`
/// is never read.
template <Trigger T, Trigger KeyboardTrigger = NullTrigger, Trigger AuxTrigger = NullTrigger,
          class Events = NoI8042Events, Clock C = SteadyClock>
class I8042 : public DeviceShell<detail::I8042Core, Events, KeyboardTrigger, AuxTrigger> {
    using Core = detail::I8042Core;
    using Shell = DeviceShell<Core, Events, KeyboardTrigger, AuxTrigger>;
    static_assert(
        !requires { &Events::a20_changed; } || requires(Events& events) { events.a20_changed(true); },
        "the event a20_changed must take a bool");
    static_assert(
        !requires { &Events::leds_changed; } ||
            requires(Events& events) { events.leds_changed(std::uint8_t{}); },
        "the event leds_changed must take a std::uint8_t");

public:
    using error_type = typename T::error_type;
    /// Offsets 0 to 4; 1 to 3 do not belong to the controller and read 0.
    static constexpr std::size_t register_count = 5;

    /// `reset_evt` is triggered when the guest resets the CPU.
    explicit constexpr I8042(T reset_evt, I8042Options options = {})
        requires std::default_initializable<KeyboardTrigger> && std::default_initializable<AuxTrigger> &&
                 std::default_initializable<Events> && std::default_initializable<C>
        : I8042(std::move(reset_evt), KeyboardTrigger(), AuxTrigger(), Events(), options) {}

    /// With interrupts: `keyboard_interrupt` is IRQ 1, `aux_interrupt` IRQ 12 of a PC.
    constexpr I8042(T reset_evt, KeyboardTrigger keyboard_interrupt, AuxTrigger aux_interrupt = AuxTrigger(),
                    Events events = Events(), I8042Options options = {})
        requires std::default_initializable<C>
        : I8042(Core(options), std::move(reset_evt), std::move(keyboard_interrupt), std::move(aux_interrupt),
                std::move(events), C()) {}

    /// With a clock for the hold-off that `options` sets.
    constexpr I8042(T reset_evt, KeyboardTrigger keyboard_interrupt, AuxTrigger aux_interrupt, Events events,
                    C clock, I8042Options options)
        : I8042(Core(options), std::move(reset_evt), std::move(keyboard_interrupt), std::move(aux_interrupt),
                std::move(events), std::move(clock)) {}

    /// Restores a saved device with its options, except the hold-off, which the new owner specifies. An
    /// interrupt line that was high is raised again. A hold-off in progress continues with the remaining time
    /// as of the last access or `tick()`.
    [[nodiscard]] static constexpr std::expected<I8042, StateError> from_state(
        const I8042State& state, T reset_evt, KeyboardTrigger keyboard_interrupt = KeyboardTrigger(),
        AuxTrigger aux_interrupt = AuxTrigger(), Events events = Events(), C clock = C(),
        std::chrono::nanoseconds hold_off = {}) {
        if (const auto valid = validate(state); !valid) {
            return std::unexpected(valid.error());
        }
        return I8042(Core(state, hold_off), std::move(reset_evt), std::move(keyboard_interrupt),
                     std::move(aux_interrupt), std::move(events), std::move(clock));
    }

    /// A read by the guest. Offsets other than 0 and 4 return 0 (0xFF if the controller is absent).
    constexpr std::uint8_t read(std::uint8_t offset) {
        tick();
        const std::uint8_t value = peek(offset);
        if (profile() == I8042Profile::full && offset == i8042::data_offset) {
            const auto effects = this->core().take_output();
            start_hold();
            act(effects);
        }
        return value;
    }

    /// The result of `read` without its effects, as of the last access or `tick()`.
    [[nodiscard]] constexpr std::uint8_t peek(std::uint8_t offset) const noexcept {
        return this->core().peek(offset);
    }

    /// A write by the guest. Fails only if it resets the CPU and the reset trigger fails.
    constexpr std::expected<void, error_type> write(std::uint8_t offset, std::uint8_t value) {
        tick();
        const auto effects = this->core().write(offset, value);
        act(effects);
        if (!effects.resets_cpu) {
            return {};
        }
        return this->checked(HostErrorSource::reset, pulse(reset_evt_));
    }

    /// Presses or releases a key of the keyboard. Returns false if it was lost because the guest does not
    /// read the keyboard; the guest then finds an overrun code.
    constexpr bool key(Key key, bool down) {
        if (!this->core().has_keyboard()) {
            return true;
        }
        tick();
        const auto effects = this->core().key(key, down);
        act(effects);
        counters_.keyboard_overruns += effects.key_lost ? 1U : 0U;
        return !effects.key_lost;
    }
    /// Presses a key, as key(k, true).
    constexpr bool press(Key k) { return key(k, true); }
    /// Releases a key, as key(k, false).
    constexpr bool release(Key k) { return key(k, false); }

    /// Presses and releases Ctrl-Alt-Del. Queues all codes, or returns false and queues none if the
    /// keyboard's buffer has no room for them.
    [[nodiscard]] constexpr bool ctrl_alt_del() {
        if (!this->core().has_keyboard()) {
            return true;
        }
        tick();
        const auto effects = this->core().ctrl_alt_del();
        act(effects);
        return !effects.key_lost;
    }

    /// Moves the mouse or changes its buttons. Motion that the guest has not read yet adds up.
    constexpr void move_mouse(const MouseMotion& motion) {
        if (this->core().has_mouse()) {
            tick();
            act(this->core().move_mouse(motion));
        }
    }

    /// Updates the device to its clock: if the hold-off has passed, the next byte arrives.
    constexpr void tick() {
        if (!holding()) {
            return;
        }
        const std::int64_t before = std::exchange(looked_, clock_ns());
        // If the clock was set back, no time has passed. The distance is in two's complement, so no sum
        // overflows.
        act(this->core().advance(looked_ > before ? static_cast<std::uint64_t>(looked_) -
                                                        static_cast<std::uint64_t>(before)
                                                  : 0U));
    }
    /// The time on the device's clock at which to call `tick()`, or nothing while no byte is held back. Call
    /// it again after every access, every `tick()`, and every key and movement.
    [[nodiscard]] constexpr std::optional<std::chrono::nanoseconds> next_deadline() const noexcept {
        if (!this->core().held_back()) {
            return std::nullopt;
        }
        const auto left = static_cast<std::int64_t>(this->core().state().hold_left);
        return std::chrono::nanoseconds(detail::saturating_add(looked_, left));
    }

    /// Restores the state after power-on, as when the machine is reset. Triggers and options stay.
    constexpr void reset() { act(this->core().reset()); }

    /// The device as text for people: the status register as the guest reads it, then a line for each member
    /// of the state (see `inspect.hpp`).
    [[nodiscard]] std::string inspect() const {
        return vmsuperio::inspect(i8042::Status(peek(i8042::command_offset))) + "\n" + Shell::inspect();
    }
    /// Which controller the device pretends to be.
    [[nodiscard]] constexpr I8042Profile profile() const noexcept { return this->core().state().profile; }
    /// Host errors, lost keys and unknown commands since construction.
    [[nodiscard]] constexpr I8042Counters counters() const noexcept {
        I8042Counters counters = counters_;
        counters.interrupt_errors = this->host_errors().interrupt;
        return counters;
    }
    /// Whether address line 20 reaches the memory.
    [[nodiscard]] constexpr bool a20_enabled() const noexcept { return this->core().a20(); }
    /// Bit 0 Scroll Lock, 1 Num Lock, 2 Caps Lock: see `ps2::Leds`.
    [[nodiscard]] constexpr std::uint8_t leds() const noexcept { return this->core().state().keyboard.leds; }

    [[nodiscard]] constexpr const T& reset_evt() const noexcept { return reset_evt_; }
    [[nodiscard]] constexpr T& reset_evt() noexcept { return reset_evt_; }
    [[nodiscard]] constexpr const KeyboardTrigger& keyboard_interrupt() const noexcept {
        return this->template line<Core::keyboard_line>().trigger();
    }
    [[nodiscard]] constexpr KeyboardTrigger& keyboard_interrupt() noexcept {
        return this->template line<Core::keyboard_line>().trigger();
    }
    [[nodiscard]] constexpr const AuxTrigger& aux_interrupt() const noexcept {
        return this->template line<Core::aux_line>().trigger();
    }
    [[nodiscard]] constexpr AuxTrigger& aux_interrupt() noexcept {
        return this->template line<Core::aux_line>().trigger();
    }
    [[nodiscard]] constexpr const C& clock() const noexcept { return clock_; }
    [[nodiscard]] constexpr C& clock() noexcept { return clock_; }

private:
    constexpr I8042(const Core& core, T reset_evt, KeyboardTrigger keyboard_interrupt,
                    AuxTrigger aux_interrupt, Events events, C clock)
        : Shell(core, std::move(events), std::move(keyboard_interrupt), std::move(aux_interrupt)),
          reset_evt_(std::move(reset_evt)),
          clock_(std::move(clock)) {
        start_hold();
        act({});
    }

    constexpr void act(const Core::Effects& effects) {
        counters_.unknown_commands += effects.unknown_command ? 1U : 0U;
        static_cast<void>(this->apply(effects));
    }

    [[nodiscard]] constexpr bool holding() const noexcept { return this->core().state().hold_left != 0; }
    [[nodiscard]] constexpr std::int64_t clock_ns() const { return time_since_epoch(clock_).count(); }
    /// Starts the hold-off at the present time.
    constexpr void start_hold() {
        if (holding()) {
            looked_ = clock_ns();
        }
    }

    T reset_evt_;
    [[no_unique_address]] C clock_;
    std::int64_t looked_{};  ///< the clock's time when it was last read; used while a hold-off runs
    I8042Counters counters_;
};

template <Trigger T>
I8042(T) -> I8042<T>;
template <Trigger T>
I8042(T, I8042Options) -> I8042<T>;

}  // namespace vmsuperio::inline v0_2
