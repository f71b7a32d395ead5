// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
#pragma once

#include <concepts>
#include <cstddef>
#include <cstdint>
#include <expected>
#include <limits>
#include <optional>
#include <string>
#include <utility>

#include <vmsuperio/clock.hpp>
#include <vmsuperio/detail/chrono.hpp>
#include <vmsuperio/inspect.hpp>
#include <vmsuperio/interrupt_line.hpp>
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
/// | 0x60 | 0 | output buffer | data: to the keyboard, or what the last command waits for |
/// | 0x64 | 4 | status | command |
///
/// Not modelled: passwords (0xA5, 0xA6), the diagnostic dump (0xAC), the input port polls (0xC1, 0xC2), the
/// multiplexing extension, time but for the hold-off: each command is carried out before the write returns,
/// so IBF reads 0.
/// Ignored bits: output port bits 4 and 5 (they follow the output buffer), pulse bits 1 to 3, command byte
/// bit 7. Thread safety: none; one lock around the device, or one thread.
namespace vmsuperio {

/// What else the controller can tell its owner; each member is optional:
/// `a20_changed(bool enabled)`, `leds_changed(std::uint8_t leds)` (bit 0 Scroll Lock, 1 Num Lock, 2 Caps
/// Lock).
struct NoI8042Events {};

/// How often things went wrong, since construction. Not part of the saved state.
struct I8042Counters {
    std::uint64_t interrupt_errors{};   ///< a keyboard or mouse interrupt trigger reported an error
    std::uint64_t keyboard_overruns{};  ///< key movements that did not fit the keyboard's buffer
    std::uint64_t unknown_commands{};   ///< guest commands that the controller does not know
};

/// Errors: `write` returns what the reset trigger returned and nothing else. The keyboard and mouse triggers'
/// errors are counted (`counters()`), as neither the guest nor the code that dispatches its writes could act
/// on them.
///
/// With `I8042Options::hold_off` a device's next byte comes that long after the last one was read, as `C`
/// tells; until then port 0x60 shows the old byte. An access by the guest brings the device up to date by
/// itself, `next_deadline()` tells when to call `tick()`. Without it, which is the default, `C` is never
/// asked.
template <Trigger T, Trigger KeyboardTrigger = NullTrigger, Trigger AuxTrigger = NullTrigger,
          class Events = NoI8042Events, Clock C = SteadyClock>
class I8042 {
public:
    using error_type = typename T::error_type;
    /// Offsets 0 to 4; 1 to 3 are not the controller's and read 0.
    static constexpr std::size_t register_count = 5;

    /// `reset_evt` is triggered when the guest resets the CPU.
    explicit I8042(T reset_evt, I8042Options options = {})
        requires std::default_initializable<KeyboardTrigger> && std::default_initializable<AuxTrigger> &&
                 std::default_initializable<Events> && std::default_initializable<C>
        : I8042(std::move(reset_evt), KeyboardTrigger(), AuxTrigger(), Events(), options) {}

    /// With interrupts: `keyboard_interrupt` is IRQ 1, `aux_interrupt` IRQ 12 of a PC.
    I8042(T reset_evt, KeyboardTrigger keyboard_interrupt, AuxTrigger aux_interrupt = AuxTrigger(),
          Events events = Events(), I8042Options options = {})
    requires std::default_initializable<C> : I8042(detail::I8042Core(options), std::move(reset_evt),
                                                   std::move(keyboard_interrupt), std::move(aux_interrupt),
                                                   std::move(events), C()) {
        settle();
    }

    /// With a clock for the hold-off that `options` sets.
    I8042(T reset_evt, KeyboardTrigger keyboard_interrupt, AuxTrigger aux_interrupt, Events events, C clock,
          I8042Options options)
        : I8042(detail::I8042Core(options), std::move(reset_evt), std::move(keyboard_interrupt),
                std::move(aux_interrupt), std::move(events), std::move(clock)) {
        settle();
    }

    /// The device as it was saved, with the options it had but for the hold-off, which is the new owner's
    /// choice. An interrupt line that was high is raised again. A hold-off that was running goes on from
    /// where the last access or `tick()` left it.
    [[nodiscard]] static std::expected<I8042, StateError> from_state(
        const I8042State& state, T reset_evt, KeyboardTrigger keyboard_interrupt = KeyboardTrigger(),
        AuxTrigger aux_interrupt = AuxTrigger(), Events events = Events(), C clock = C(),
        std::chrono::nanoseconds hold_off = {}) {
        if (const char* field = detail::I8042Core::first_invalid(state); field != nullptr) {
            return std::unexpected(StateError{field});
        }
        I8042 device(detail::I8042Core(state, hold_off), std::move(reset_evt), std::move(keyboard_interrupt),
                     std::move(aux_interrupt), std::move(events), std::move(clock));
        device.start_hold();
        device.settle();
        return device;
    }

    /// A read by the guest. Offsets other than 0 and 4 give 0 (0xFF when absent).
    std::uint8_t read(std::uint8_t offset) {
        tick();
        const std::uint8_t value = peek(offset);
        if (profile() == I8042Profile::full && offset == i8042::data_offset) {
            core_.read_data();
            start_hold();
            settle();
        }
        return value;
    }

    /// What `read` would give, without its effects, as of the last access or `tick()`.
    [[nodiscard]] std::uint8_t peek(std::uint8_t offset) const noexcept {
        switch (profile()) {
            case I8042Profile::full:
                break;
            case I8042Profile::minimal:
                return 0;
            case I8042Profile::absent:
                return 0xFF;
        }
        if (offset == i8042::data_offset) {
            return core_.output();
        }
        return offset == i8042::command_offset ? core_.status() : std::uint8_t{0};
    }

    /// A write by the guest. Fails only where the CPU was to be reset and the reset trigger failed.
    std::expected<void, error_type> write(std::uint8_t offset, std::uint8_t value) {
        tick();
        bool reset = false;
        if (profile() == I8042Profile::minimal) {
            reset = offset == i8042::command_offset && value == i8042::reset_cpu;
        } else if (profile() == I8042Profile::full) {
            const bool a20 = core_.a20();
            const std::uint8_t leds = core_.keyboard().state().leds;
            if (offset == i8042::data_offset) {
                reset = core_.write_data(value);
            } else if (offset == i8042::command_offset) {
                reset = core_.write_command(value);
            }
            settle();
            report(a20, leds);
        }
        if (reset) {
            return reset_evt_.trigger();
        }
        return {};
    }

    /// A key of the keyboard goes down or up. False when it was lost because the guest does not read its
    /// keyboard: it then finds an overrun code.
    bool key(Key key, bool down) {
        if (!has_keyboard()) {
            return true;
        }
        tick();
        const bool sent = core_.key(key, down);
        counters_.keyboard_overruns += sent ? 0U : 1U;
        settle();
        return sent;
    }
    bool press(Key k) { return key(k, true); }
    bool release(Key k) { return key(k, false); }

    /// Ctrl-Alt-Del, pressed and released. All of it, or (false) nothing where the keyboard's buffer has no
    /// room for it now.
    [[nodiscard]] bool ctrl_alt_del() {
        if (!has_keyboard()) {
            return true;
        }
        tick();
        const bool sent = core_.ctrl_alt_del();
        settle();
        return sent;
    }

    /// The mouse moves, or its buttons change. What the guest has not yet read adds up.
    void move_mouse(const MouseMotion& motion) {
        if (profile() == I8042Profile::full && core_.mouse_present()) {
            tick();
            core_.move_mouse(motion);
            settle();
        }
    }

    /// Brings the device up to its clock: where the hold-off is over, the next byte comes.
    void tick() {
        if (core_.hold_left() == 0) {
            return;
        }
        const std::int64_t now = clock_ns();
        // Where the clock was set back nothing has passed. Two's complement distance: no sum overflows.
        const std::uint64_t passed =
            now > looked_ ? static_cast<std::uint64_t>(now) - static_cast<std::uint64_t>(looked_) : 0U;
        looked_ = now;
        core_.advance(passed);
        settle();
    }
    /// When `tick()` is to be called, on the clock's own time line; nothing while no byte is held back. To be
    /// asked again after every access, every `tick()` and everything that the host types or moves.
    [[nodiscard]] std::optional<std::chrono::nanoseconds> next_deadline() const noexcept {
        if (!core_.held_back()) {
            return std::nullopt;
        }
        const auto left = static_cast<std::int64_t>(core_.hold_left());
        constexpr std::int64_t latest = std::numeric_limits<std::int64_t>::max();
        return std::chrono::nanoseconds(looked_ > latest - left ? latest : looked_ + left);
    }

    /// Back to the state after power-on, as when the machine is reset. Triggers and options stay.
    void reset() {
        const bool a20 = core_.a20();
        const std::uint8_t leds = this->leds();
        core_.reset();
        settle();
        report(a20, leds);
    }

    [[nodiscard]] I8042State state() const { return core_.state(); }
    /// The device as text for people: the status register as the guest reads it, then a line for each member
    /// of the state (see `inspect.hpp`).
    [[nodiscard]] std::string inspect() const {
        return vmsuperio::inspect(i8042::Status(peek(i8042::command_offset))) + "\n" +
               vmsuperio::inspect(state());
    }
    [[nodiscard]] I8042Profile profile() const noexcept { return core_.profile(); }
    [[nodiscard]] I8042Counters counters() const noexcept {
        I8042Counters counters = counters_;
        counters.unknown_commands = core_.unknown_commands();
        return counters;
    }
    /// Whether address line 20 reaches the memory.
    [[nodiscard]] bool a20_enabled() const noexcept { return core_.a20(); }
    /// Bit 0 Scroll Lock, 1 Num Lock, 2 Caps Lock.
    [[nodiscard]] std::uint8_t leds() const noexcept { return core_.keyboard().state().leds; }

    [[nodiscard]] const T& reset_evt() const noexcept { return reset_evt_; }
    [[nodiscard]] T& reset_evt() noexcept { return reset_evt_; }
    [[nodiscard]] const KeyboardTrigger& keyboard_interrupt() const noexcept {
        return keyboard_line_.trigger();
    }
    [[nodiscard]] KeyboardTrigger& keyboard_interrupt() noexcept { return keyboard_line_.trigger(); }
    [[nodiscard]] const AuxTrigger& aux_interrupt() const noexcept { return aux_line_.trigger(); }
    [[nodiscard]] AuxTrigger& aux_interrupt() noexcept { return aux_line_.trigger(); }
    [[nodiscard]] const Events& events() const noexcept { return events_; }
    [[nodiscard]] Events& events() noexcept { return events_; }
    [[nodiscard]] const C& clock() const noexcept { return clock_; }
    [[nodiscard]] C& clock() noexcept { return clock_; }

private:
    I8042(const detail::I8042Core& core, T reset_evt, KeyboardTrigger keyboard_interrupt,
          AuxTrigger aux_interrupt, Events events, C clock)
        : core_(core),
          reset_evt_(std::move(reset_evt)),
          keyboard_line_(std::move(keyboard_interrupt)),
          aux_line_(std::move(aux_interrupt)),
          events_(std::move(events)),
          clock_(std::move(clock)) {}

    [[nodiscard]] bool has_keyboard() const noexcept {
        return profile() == I8042Profile::full && core_.keyboard_present();
    }

    [[nodiscard]] std::int64_t clock_ns() const { return time_since_epoch(clock_).count(); }
    /// The hold-off is counted from now on.
    void start_hold() {
        if (core_.hold_left() != 0) {
            looked_ = clock_ns();
        }
    }

    /// Brings the interrupt lines to what the registers say.
    void settle() {
        const bool edge = core_.take_new_byte();
        drive(keyboard_line_, core_.keyboard_line(), edge);
        drive(aux_line_, core_.aux_line(), edge);
    }
    /// `edge`: a byte has come into the output buffer, perhaps right after another one was read. The line is
    /// the buffer's "full" and falls with each byte that is read; drivers read one for each interrupt.
    template <class Line>
    void drive(Line& line, bool level, bool edge) {
        if (edge && level && !line.update(false)) {
            ++counters_.interrupt_errors;
        }
        if (!line.update(level)) {
            ++counters_.interrupt_errors;
        }
    }

    void report(bool a20_before, std::uint8_t leds_before) {
        if constexpr (requires { events_.a20_changed(true); }) {
            if (a20_before != core_.a20()) {
                events_.a20_changed(core_.a20());
            }
        }
        if constexpr (requires { events_.leds_changed(std::uint8_t{}); }) {
            if (leds_before != leds()) {
                events_.leds_changed(leds());
            }
        }
    }

    detail::I8042Core core_;
    T reset_evt_;
    InterruptLine<KeyboardTrigger> keyboard_line_;
    InterruptLine<AuxTrigger> aux_line_;
    [[no_unique_address]] Events events_;
    [[no_unique_address]] C clock_;
    std::int64_t looked_{};  ///< the clock's time at the last look; matters while a hold-off runs
    I8042Counters counters_;
};

template <Trigger T>
I8042(T) -> I8042<T>;
template <Trigger T>
I8042(T, I8042Options) -> I8042<T>;

}  // namespace vmsuperio
