// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
#pragma once

#include <vmsuperio/detail/config.hpp>

#include <cstddef>
#include <cstdint>
#include <expected>
#include <optional>

#include <vmsuperio/detail/chrono.hpp>
#include <vmsuperio/interrupt_line.hpp>
#include <vmsuperio/registers/pl031.hpp>
#include <vmsuperio/rtc/device_time.hpp>
#include <vmsuperio/snapshot.hpp>
#include <vmsuperio/state_error.hpp>

namespace vmsuperio::inline v0_2 {

/// The clock as plain data. A default-constructed state is a device that was reset when its clock was at
/// 1970: once restored, it has the time of its new clock.
struct RtcPl031State {
    static constexpr SnapshotFormat snapshot_format{
        .tag = snapshot_tag("PL31"), .version = 1, .readable_since = 1};

    std::uint32_t count{};  ///< RTCDR in seconds
    // All match and load values are 0 at reset (table 3-1).
    std::uint32_t match{};        ///< RTCMR in seconds
    std::uint32_t load{};         ///< RTCLR in seconds
    bool interrupt_enabled{};     ///< RTCIMSC bit 0
    bool matched{};               ///< RTCRIS bit 0
    std::int64_t second_start{};  ///< device time of the last second's start, in ns
    DeviceTimeState time;         ///< the device's own time

    template <class Self, class Archive>
    static constexpr void visit(Self& self, Archive& archive) {
        auto& [count, match, load, interrupt_enabled, matched, second_start, time] = self;
        archive("count", count);
        archive("match", match);
        archive("load", load);
        archive("interrupt_enabled", interrupt_enabled);
        archive("matched", matched);
        archive("second_start", second_start);
        archive("time", time);
    }
    friend constexpr bool operator==(const RtcPl031State&, const RtcPl031State&) = default;
};

/// Checks whether a clock can be in this state; the error names the first invalid member.
[[nodiscard]] constexpr std::expected<void, StateError> validate(const RtcPl031State& state) {
    return detail::validate_time(state);  // every value of the registers is possible
}

namespace detail {

/// The effects of an access outside the clock. The interrupt line follows from the state; it never rises
/// again within one access.
struct RtcPl031Effects {
    bool time_changed{};  // by the guest; the device is now `ahead` of the host's clock
    bool invalid_read{};
    bool invalid_write{};
    std::chrono::seconds ahead{};
    static constexpr LinePulse pulse = LinePulse::none;

    template <class Events>
    constexpr void report(Events& events) const {
        if constexpr (requires { events.time_changed(ahead); }) {
            if (time_changed) {
                events.time_changed(ahead);
            }
        }
        if constexpr (requires { events.invalid_read(); }) {
            if (invalid_read) {
                events.invalid_read();
            }
        }
        if constexpr (requires { events.invalid_write(); }) {
            if (invalid_write) {
                events.invalid_write();
            }
        }
    }
};

/// The chip without connections: `RtcPl031` connects it to a trigger, events and a clock. `now` is the time
/// of that clock, in ns since its epoch; the registers are at the offsets 0 to 0xFFF.
class RtcPl031Core : public SecondsCore<RtcPl031State> {
public:
    using options_type = NoRtcOptions;

    explicit constexpr RtcPl031Core(std::int64_t now, NoRtcOptions = {}) noexcept : SecondsCore(now) {
        state_.count = static_cast<std::uint32_t>(state_.second_start / ns_per_second);
    }
    [[nodiscard]] static constexpr std::expected<void, StateError> validate(const RtcPl031State& state,
                                                                            NoRtcOptions) {
        return vmsuperio::validate(state);
    }

    /// RTCMIS, and the level of RTCINTR.
    [[nodiscard]] constexpr bool interrupt_level(std::size_t = 0) const noexcept {
        return state_.matched && state_.interrupt_enabled;
    }

    /// Updates the state to `now`. O(1) in the time passed.
    constexpr void advance(std::int64_t now) noexcept {
        look(now);
        const std::uint64_t seconds = seconds_passed();
        state_.matched = state_.matched || seconds >= seconds_to_match();
        state_.count += static_cast<std::uint32_t>(seconds);
        count_seconds(seconds);
    }

    /// The reset line of the bus (PRESETn): RTCMR, RTCLR, RTCIMSC and RTCRIS return to 0 (DDI 0224, table
    /// 3-1). The counter is in the domain of the 1 Hz clock, which a battery supplies: it continues with the
    /// time that the guest has set.
    constexpr void reset(std::int64_t now) noexcept {
        advance(now);
        state_ = {.count = state_.count, .second_start = state_.second_start, .time = state_.time};
    }

    /// The register at an offset as of the last `advance`, or nothing if no register can be read there.
    [[nodiscard]] constexpr std::optional<std::uint32_t> peek(std::uint64_t offset) const noexcept {
        switch (offset) {
            case pl031::data:
                return state_.count;
            case pl031::match:
                return state_.match;
            case pl031::load:
                return state_.load;
            case pl031::control:
                return pl031::Control().set(pl031::Control::start).value();
            case pl031::interrupt_mask:
                return interrupt_mask().value();
            case pl031::raw_interrupt:
                return pl031::InterruptStatus().set(pl031::InterruptStatus::match, state_.matched).value();
            case pl031::masked_interrupt:
                return pl031::MaskedInterruptStatus()
                    .set(pl031::MaskedInterruptStatus::match, interrupt_level())
                    .value();
            default:
                return pl031::is_id(offset)
                           ? std::optional<std::uint32_t>(pl031::ids[(offset - pl031::first_id) / 4U])
                           : std::nullopt;
        }
    }

    struct Read {
        std::optional<std::uint32_t> value;
        RtcPl031Effects effects;
    };
    /// A read of `size` bytes. Nothing is read if no register has that offset and width.
    constexpr Read read(std::int64_t now, std::uint64_t offset, std::size_t size) noexcept {
        advance(now);
        Read result{.value = size == register_width ? peek(offset) : std::nullopt, .effects = {}};
        result.effects.invalid_read = !result.value;
        return result;
    }

    /// A write of `value` with `size` bytes. Nothing is written if no register has that offset and width.
    constexpr RtcPl031Effects write(std::int64_t now, std::uint64_t offset, std::size_t size,
                                    std::uint32_t value) noexcept {
        advance(now);
        RtcPl031Effects effects;
        if (size != register_width) {
            effects.invalid_write = true;
            return effects;
        }
        switch (offset) {
            case pl031::match:
                state_.match = value;
                compare();
                break;
            case pl031::load:
                state_.load = value;
                state_.count = value;
                compare();
                effects.time_changed = true;
                effects.ahead = time_offset();
                break;
            case pl031::control:
                break;  // once started, only a reset stops the clock
            case pl031::interrupt_mask: {
                pl031::InterruptMask mask = interrupt_mask();
                mask.guest_write(value);
                state_.interrupt_enabled = mask[pl031::InterruptMask::match];
                break;
            }
            case pl031::interrupt_clear: {
                pl031::InterruptClear clear;
                clear.set(pl031::InterruptClear::match, state_.matched).guest_write(value);
                state_.matched = clear[pl031::InterruptClear::match];
                break;
            }
            default:
                effects.invalid_write = true;
                break;
        }
        return effects;
    }

    /// The time on the clock at which the line will next rise without an access, as of the last `advance`.
    [[nodiscard]] constexpr std::optional<std::chrono::nanoseconds> next_deadline() const noexcept {
        if (state_.matched || !state_.interrupt_enabled) {
            return std::nullopt;
        }
        return on_clock(from_second_start(static_cast<std::int64_t>(seconds_to_match()) * ns_per_second));
    }

    /// The shorter distance around the 32-bit counter.
    [[nodiscard]] constexpr std::chrono::seconds time_offset() const noexcept {
        return std::chrono::seconds(
            static_cast<std::int32_t>(state_.count - static_cast<std::uint32_t>(clock_seconds())));
    }

private:
    /// The width of every register in bytes: accesses are whole and aligned, as on the APB bus.
    static constexpr std::size_t register_width = 4;

    [[nodiscard]] constexpr pl031::InterruptMask interrupt_mask() const noexcept {
        return pl031::InterruptMask().set(pl031::InterruptMask::match, state_.interrupt_enabled);
    }
    /// The seconds until the counter next equals the match value, 1 to 2^32.
    [[nodiscard]] constexpr std::uint64_t seconds_to_match() const noexcept {
        const std::uint32_t distance = state_.match - state_.count;
        return distance == 0 ? std::uint64_t{1} << 32U : distance;
    }
    /// Sets the match if a write has made the counter and the match value equal.
    constexpr void compare() noexcept { state_.matched = state_.matched || state_.count == state_.match; }
};

}  // namespace detail
}  // namespace vmsuperio::inline v0_2
