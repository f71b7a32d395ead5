// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
#pragma once

#include <vmsuperio/detail/config.hpp>

#include <concepts>
#include <cstddef>
#include <cstdint>
#include <expected>
#include <type_traits>
#include <utility>

#include <vmsuperio/detail/port_core.hpp>
#include <vmsuperio/device_shell.hpp>
#include <vmsuperio/host_errors.hpp>
#include <vmsuperio/registers/reset_control.hpp>
#include <vmsuperio/snapshot.hpp>
#include <vmsuperio/state_error.hpp>
#include <vmsuperio/trigger.hpp>

/// The two ports of a PC's chipset that reset it: RST_CNT at port 0xCF9, which the FADT of most machines also
/// names as ACPI's reset register, and system control port A at port 0x92, which gates A20 as well.
///
/// Sources: Intel ICH9 datasheet, 13.7.5 (RST_CNT) and 13.7.2 (PORT92); IBM PS/2 Hardware Interface Technical
/// Reference, "System Control Port A". Ignored bits: all bits that the registers do not name; they read 0.
/// Not modelled: the lock of the power-on password and the disk light of port 0x92. Thread safety: none.
namespace vmsuperio::inline v0_2 {

/// The kind of reset that the guest requested through RST_CNT.
enum class ResetKind : std::uint8_t {
    soft,  ///< INIT of the CPUs alone
    hard,  ///< the platform's reset line
    full,  ///< a power cycle
};

/// The default events type of RST_CNT, which ignores all events. An events type may have the members
/// `reset_requested(ResetKind kind)`, which is called before the trigger, and `host_error(HostErrorSource)`.
struct NoResetControlEvents {};

/// Everything that a ResetControl remembers.
struct ResetControlState {
    static constexpr SnapshotFormat snapshot_format{
        .tag = snapshot_tag("CF9 "), .version = 1, .readable_since = 1};

    std::uint8_t value{};  ///< RST_CNT as the guest reads it

    template <class Self, class Archive>
    static constexpr void visit(Self& self, Archive& archive) {
        auto& [value] = self;
        archive("value", value, as<ResetControlRegister>);
    }
    friend constexpr bool operator==(const ResetControlState&, const ResetControlState&) = default;
};

/// Checks whether RST_CNT can have this value. The error names "value" if a bit is set that always reads 0.
[[nodiscard]] constexpr std::expected<void, StateError> validate(const ResetControlState& state) {
    if ((state.value & ~unsigned{ResetControlRegister::guest_mask()}) != 0) {
        return std::unexpected(StateError{"value"});
    }
    return {};
}

/// The default events type of system control port A, which ignores all events. An events type may have the
/// members `a20_changed(bool enabled)`, which is called when the guest or a reset switches the gate, and
/// `host_error(HostErrorSource)`.
struct NoSystemControlEvents {};

/// Everything that a SystemControlPortA remembers.
struct SystemControlPortAState {
    static constexpr SnapshotFormat snapshot_format{
        .tag = snapshot_tag("PT92"), .version = 1, .readable_since = 1};

    std::uint8_t value{};  ///< the port as the guest reads it

    template <class Self, class Archive>
    static constexpr void visit(Self& self, Archive& archive) {
        auto& [value] = self;
        archive("value", value, as<SystemControlA>);
    }
    friend constexpr bool operator==(const SystemControlPortAState&,
                                     const SystemControlPortAState&) = default;
};

/// Checks whether the port can have this value. The error names "value" if a bit is set that always reads 0.
[[nodiscard]] constexpr std::expected<void, StateError> validate(const SystemControlPortAState& state) {
    if ((state.value & ~unsigned{SystemControlA::guest_mask()}) != 0) {
        return std::unexpected(StateError{"value"});
    }
    return {};
}

namespace detail {

class ResetControlCore : public PortCore<ResetControlState> {
public:
    using PortCore::PortCore;

    struct Effects : PortEffects {
        bool resets{};
        ResetKind kind{};

        template <class Events>
        constexpr void report(Events& events) const {
            if constexpr (requires { events.reset_requested(ResetKind::hard); }) {
                if (resets) {
                    events.reset_requested(kind);
                }
            }
        }
    };

    [[nodiscard]] constexpr Effects write(std::uint8_t value) noexcept {
        using Bits = ResetControlRegister;
        ResetControlRegister reg(state_.value);
        const bool before = reg[Bits::reset_cpu];
        reg.guest_write(value);
        state_.value = reg.value();
        Effects effects;
        effects.resets = !before && reg[Bits::reset_cpu];
        effects.kind = !reg[Bits::system_reset] ? ResetKind::soft
                       : reg[Bits::full_reset]  ? ResetKind::full
                                                : ResetKind::hard;
        return effects;
    }
    [[nodiscard]] constexpr Effects reset() noexcept {
        state_ = {};
        return {};
    }
};

class SystemControlPortACore : public PortCore<SystemControlPortAState> {
public:
    using PortCore::PortCore;

    struct Effects : PortEffects {
        bool resets{};
        bool gate_switched{};
        bool gate{};  // whether A20 is enabled now

        template <class Events>
        constexpr void report(Events& events) const {
            if constexpr (requires { events.a20_changed(true); }) {
                if (gate_switched) {
                    events.a20_changed(gate);
                }
            }
        }
    };

    [[nodiscard]] constexpr bool a20_enabled() const noexcept {
        return SystemControlA(state_.value)[SystemControlA::a20_gate];
    }
    [[nodiscard]] constexpr Effects write(std::uint8_t value) noexcept {
        SystemControlA reg(state_.value);
        reg.guest_write(value);
        return change_to(reg);
    }
    [[nodiscard]] constexpr Effects reset() noexcept { return change_to(SystemControlA()); }

private:
    constexpr Effects change_to(SystemControlA reg) noexcept {
        using Bits = SystemControlA;
        const SystemControlA before(std::exchange(state_.value, reg.value()));
        Effects effects;
        effects.resets = !before[Bits::fast_reset] && reg[Bits::fast_reset];
        effects.gate = reg[Bits::a20_gate];
        effects.gate_switched = before[Bits::a20_gate] != effects.gate;
        return effects;
    }
};

/// The shell of a port that resets. `Device` is the device class, which derives from it.
template <class Device, class Core, Trigger T, class Events>
class ResetPort : public DeviceShell<Core, Events> {
    using State = std::remove_cvref_t<decltype(std::declval<const Core&>().state())>;

public:
    using error_type = typename T::error_type;
    using trigger_type = T;
    static constexpr std::size_t register_count = 1;

    constexpr ResetPort()
        requires std::default_initializable<T> && std::default_initializable<Events>
        : ResetPort(T(), Events()) {}
    explicit constexpr ResetPort(T reset_evt)
        requires std::default_initializable<Events>
        : ResetPort(std::move(reset_evt), Events()) {}
    constexpr ResetPort(T reset_evt, Events events)
        : ResetPort(Core(), std::move(reset_evt), std::move(events)) {}

    /// Restores a saved port without calling the trigger or an event.
    [[nodiscard]] static constexpr std::expected<Device, StateError> from_state(const State& state,
                                                                                T reset_evt = T(),
                                                                                Events events = Events()) {
        if (const auto valid = validate(state); !valid) {
            return std::unexpected(valid.error());
        }
        return Device(Core(state), std::move(reset_evt), std::move(events));
    }

    /// A read by the guest. Offsets other than 0 read 0xFF.
    [[nodiscard]] constexpr std::uint8_t read(std::uint8_t offset = 0) const noexcept { return peek(offset); }
    [[nodiscard]] constexpr std::uint8_t peek(std::uint8_t offset = 0) const noexcept {
        return offset == 0 ? this->core().state().value : std::uint8_t{0xFF};
    }
    /// A write by the guest: reports events, then triggers the reset. Returns the result of the trigger.
    constexpr std::expected<void, error_type> write(std::uint8_t offset, std::uint8_t value) {
        if (offset != 0) {
            return {};
        }
        const auto effects = this->core().write(value);
        this->apply(effects);
        return effects.resets ? this->checked(HostErrorSource::reset, pulse(reset_evt_))
                              : std::expected<void, error_type>{};
    }

    /// The chipset's reset: sets the register to 0. The trigger is not called.
    constexpr void reset() { this->apply(this->core().reset()); }

    [[nodiscard]] constexpr const T& reset_evt() const noexcept { return reset_evt_; }
    [[nodiscard]] constexpr T& reset_evt() noexcept { return reset_evt_; }

protected:
    constexpr ResetPort(const Core& core, T reset_evt, Events events)
        : DeviceShell<Core, Events>(core, std::move(events)), reset_evt_(std::move(reset_evt)) {}

private:
    T reset_evt_;
};

}  // namespace detail

/// RST_CNT, one port. A change of RST_CPU from 0 to 1 causes a reset: drivers first set SYS_RST alone, then
/// both.
///
/// Arguments: the trigger of the reset, events. `write` returns the result of the trigger.
template <Trigger T = NullTrigger, class Events = NoResetControlEvents>
    requires(!Trigger<Events>)
class ResetControl : public detail::ResetPort<ResetControl<T, Events>, detail::ResetControlCore, T, Events> {
    static_assert(
        !requires { &Events::reset_requested; } ||
            requires(Events& events) { events.reset_requested(ResetKind::hard); },
        "the event reset_requested must take a ResetKind");

public:
    using ResetControl::ResetPort::ResetPort;
};

ResetControl() -> ResetControl<>;
template <Trigger T>
ResetControl(T) -> ResetControl<T>;
template <Trigger T, class Events>
ResetControl(T, Events) -> ResetControl<T, Events>;

/// System control port A, one port. Bit 1 gates A20; the chipset enables A20 if this port or the keyboard
/// controller does. A change of bit 0 from 0 to 1 resets the CPUs (INIT), which "fast reset" programs use.
///
/// A20 is off after a reset, as on the hardware: `reset()` reports the change if the gate was on. A VMM that
/// does not model the gate may leave A20 of its CPUs on, because guests test memory before they switch the
/// gate.
///
/// Arguments: the trigger of the reset, events. `write` returns the result of the trigger.
template <Trigger T = NullTrigger, class Events = NoSystemControlEvents>
    requires(!Trigger<Events>)
class SystemControlPortA
    : public detail::ResetPort<SystemControlPortA<T, Events>, detail::SystemControlPortACore, T, Events> {
    static_assert(
        !requires { &Events::a20_changed; } || requires(Events& events) { events.a20_changed(true); },
        "the event a20_changed must take a bool");

public:
    using SystemControlPortA::ResetPort::ResetPort;

    /// Whether ALT_A20_GATE is set: address line 20 is on.
    [[nodiscard]] constexpr bool a20_enabled() const noexcept { return this->core().a20_enabled(); }
};

SystemControlPortA() -> SystemControlPortA<>;
template <Trigger T>
SystemControlPortA(T) -> SystemControlPortA<T>;
template <Trigger T, class Events>
SystemControlPortA(T, Events) -> SystemControlPortA<T, Events>;

}  // namespace vmsuperio::inline v0_2
