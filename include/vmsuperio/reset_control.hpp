// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
#pragma once

#include <concepts>
#include <cstddef>
#include <cstdint>
#include <expected>
#include <utility>

#include <vmsuperio/registers/reset_control.hpp>
#include <vmsuperio/snapshot.hpp>
#include <vmsuperio/state_error.hpp>
#include <vmsuperio/trigger.hpp>

/// The two ports of a PC's chipset that reset it: RST_CNT at port 0xCF9, which is also what the FADT of most
/// machines names as ACPI's reset register, and system control port A at port 0x92, which gates A20 as well.
///
/// Sources: Intel ICH9 datasheet, 13.7.5 (RST_CNT) and 13.7.2 (PORT92); IBM PS/2 Hardware Interface Technical
/// Reference, "System Control Port A". Ignored bits: all that the registers do not name read 0. Not
/// modelled: the lock of the power-on password and the disk light of port 0x92. Thread safety: none.
namespace vmsuperio {

/// What the guest asked RST_CNT for.
enum class ResetKind : std::uint8_t {
    soft,  ///< INIT of the CPUs alone
    hard,  ///< the platform's reset line
    full,  ///< the power goes off and on again
};

/// The events of a reset port that nobody listens to. Optional member, called before the trigger:
/// `reset_requested(ResetKind kind)`.
struct NoResetControlEvents {};

struct ResetControlState {
    static constexpr SnapshotFormat snapshot_format{
        .tag = snapshot_tag("CF9 "), .version = 1, .readable_since = 1};

    std::uint8_t value{};  ///< RST_CNT as it reads

    template <class Self, class Archive>
    static constexpr void visit(Self& self, Archive& archive) {
        auto& [value] = self;
        archive("value", value, as<ResetControlRegister>);
    }
    friend constexpr bool operator==(const ResetControlState&, const ResetControlState&) = default;
};
static_assert(SnapshotState<ResetControlState> && visits_every_member<ResetControlState>());

/// RST_CNT, one port. A change of RST_CPU from 0 to 1 resets: first SYS_RST is set, then both, as drivers do.
///
/// Arguments: the trigger of the reset, events. `write` returns what the trigger returned.
template <Trigger T = NullTrigger, class Events = NoResetControlEvents>
    requires(!Trigger<Events>)
class ResetControl {
public:
    using error_type = typename T::error_type;
    using trigger_type = T;
    using events_type = Events;
    static constexpr std::size_t register_count = 1;

    constexpr ResetControl()
        requires std::default_initializable<T> && std::default_initializable<Events>
        : ResetControl(T(), Events()) {}
    explicit constexpr ResetControl(T reset_evt)
        requires std::default_initializable<Events>
        : ResetControl(std::move(reset_evt), Events()) {}
    constexpr ResetControl(T reset_evt, Events events)
        : reset_evt_(std::move(reset_evt)), events_(std::move(events)) {}
    /// The port as it was saved; nothing is triggered.
    [[nodiscard]] static constexpr std::expected<ResetControl, StateError> from_state(
        const ResetControlState& state, T reset_evt = T(), Events events = Events()) {
        if ((state.value & ~unsigned{ResetControlRegister::guest_mask()}) != 0) {
            return std::unexpected(StateError{"value"});
        }
        ResetControl device(std::move(reset_evt), std::move(events));
        device.value_ = ResetControlRegister(state.value);
        return device;
    }

    [[nodiscard]] constexpr std::uint8_t read(std::uint8_t offset = 0) const noexcept { return peek(offset); }
    [[nodiscard]] constexpr std::uint8_t peek(std::uint8_t offset = 0) const noexcept {
        return offset == 0 ? value_.value() : std::uint8_t{0xFF};
    }
    constexpr std::expected<void, error_type> write(std::uint8_t offset, std::uint8_t value) {
        if (offset != 0) {
            return {};
        }
        using Bits = ResetControlRegister;
        const bool before = value_[Bits::reset_cpu];
        value_.guest_write(value);
        if (before || !value_[Bits::reset_cpu]) {
            return {};
        }
        if constexpr (requires { events_.reset_requested(ResetKind::hard); }) {
            events_.reset_requested(!value_[Bits::system_reset] ? ResetKind::soft
                                    : value_[Bits::full_reset]  ? ResetKind::full
                                                                : ResetKind::hard);
        }
        return pulse(reset_evt_);
    }

    /// The chipset's reset: the register is 0 again. Nothing is triggered.
    constexpr void reset() noexcept { value_ = ResetControlRegister(); }

    [[nodiscard]] constexpr ResetControlState state() const noexcept { return {.value = value_.value()}; }
    [[nodiscard]] constexpr const T& reset_evt() const noexcept { return reset_evt_; }
    [[nodiscard]] constexpr T& reset_evt() noexcept { return reset_evt_; }
    [[nodiscard]] constexpr const Events& events() const noexcept { return events_; }
    [[nodiscard]] constexpr Events& events() noexcept { return events_; }

    /// A reset is a pulse, for a `LevelTrigger` as well.
    [[nodiscard]] static constexpr std::expected<void, error_type> pulse(T& trigger) {
        if constexpr (LevelTrigger<T>) {
            auto up = trigger.set_level(true);
            auto down = trigger.set_level(false);
            return up ? down : up;
        } else {
            return trigger.trigger();
        }
    }

private:
    T reset_evt_;
    [[no_unique_address]] Events events_;
    ResetControlRegister value_;
};

/// The events of system control port A that nobody listens to. Optional member: `a20_changed(bool enabled)`:
/// the gate was switched, by the guest or by a reset.
struct NoSystemControlEvents {};

struct SystemControlPortAState {
    static constexpr SnapshotFormat snapshot_format{
        .tag = snapshot_tag("PT92"), .version = 1, .readable_since = 1};

    std::uint8_t value{};  ///< as it reads

    template <class Self, class Archive>
    static constexpr void visit(Self& self, Archive& archive) {
        auto& [value] = self;
        archive("value", value, as<SystemControlA>);
    }
    friend constexpr bool operator==(const SystemControlPortAState&,
                                     const SystemControlPortAState&) = default;
};
static_assert(SnapshotState<SystemControlPortAState> && visits_every_member<SystemControlPortAState>());

/// System control port A, one port. Bit 1 gates A20; the chipset enables it where this port or the keyboard
/// controller does. A change of bit 0 from 0 to 1 resets the CPUs (INIT), which "fast reset" programs use.
///
/// A20 is off after a reset, as on the hardware. A VMM that does not model the gate may leave its CPUs with
/// A20 on: guests test memory before they switch it.
///
/// Arguments: the trigger of the reset, events. `write` returns what the trigger returned.
template <Trigger T = NullTrigger, class Events = NoSystemControlEvents>
    requires(!Trigger<Events>)
class SystemControlPortA {
public:
    using error_type = typename T::error_type;
    using trigger_type = T;
    using events_type = Events;
    static constexpr std::size_t register_count = 1;

    constexpr SystemControlPortA()
        requires std::default_initializable<T> && std::default_initializable<Events>
        : SystemControlPortA(T(), Events()) {}
    explicit constexpr SystemControlPortA(T reset_evt)
        requires std::default_initializable<Events>
        : SystemControlPortA(std::move(reset_evt), Events()) {}
    constexpr SystemControlPortA(T reset_evt, Events events)
        : reset_evt_(std::move(reset_evt)), events_(std::move(events)) {}
    /// The port as it was saved; nothing is triggered and no event is sent.
    [[nodiscard]] static constexpr std::expected<SystemControlPortA, StateError> from_state(
        const SystemControlPortAState& state, T reset_evt = T(), Events events = Events()) {
        if ((state.value & ~unsigned{SystemControlA::guest_mask()}) != 0) {
            return std::unexpected(StateError{"value"});
        }
        SystemControlPortA device(std::move(reset_evt), std::move(events));
        device.value_ = SystemControlA(state.value);
        return device;
    }

    [[nodiscard]] constexpr std::uint8_t read(std::uint8_t offset = 0) const noexcept { return peek(offset); }
    [[nodiscard]] constexpr std::uint8_t peek(std::uint8_t offset = 0) const noexcept {
        return offset == 0 ? value_.value() : std::uint8_t{0xFF};
    }
    constexpr std::expected<void, error_type> write(std::uint8_t offset, std::uint8_t value) {
        if (offset != 0) {
            return {};
        }
        const SystemControlA before = value_;
        value_.guest_write(value);
        report_a20(before);
        if (before[SystemControlA::fast_reset] || !value_[SystemControlA::fast_reset]) {
            return {};
        }
        return ResetControl<T>::pulse(reset_evt_);
    }

    /// The chipset's reset: the register is 0 again. Nothing is triggered; a gate that was on is reported.
    constexpr void reset() {
        const SystemControlA before = value_;
        value_ = SystemControlA();
        report_a20(before);
    }

    [[nodiscard]] constexpr bool a20_enabled() const noexcept { return value_[SystemControlA::a20_gate]; }
    [[nodiscard]] constexpr SystemControlPortAState state() const noexcept {
        return {.value = value_.value()};
    }
    [[nodiscard]] constexpr const T& reset_evt() const noexcept { return reset_evt_; }
    [[nodiscard]] constexpr T& reset_evt() noexcept { return reset_evt_; }
    [[nodiscard]] constexpr const Events& events() const noexcept { return events_; }
    [[nodiscard]] constexpr Events& events() noexcept { return events_; }

private:
    constexpr void report_a20(SystemControlA before) {
        if constexpr (requires { events_.a20_changed(true); }) {
            if (before[SystemControlA::a20_gate] != a20_enabled()) {
                events_.a20_changed(a20_enabled());
            }
        }
    }

    T reset_evt_;
    [[no_unique_address]] Events events_;
    SystemControlA value_;
};

}  // namespace vmsuperio
