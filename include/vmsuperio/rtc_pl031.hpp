// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
#pragma once

#include <concepts>
#include <cstddef>
#include <cstdint>
#include <expected>
#include <optional>
#include <span>
#include <utility>

#include <vmsuperio/clock.hpp>
#include <vmsuperio/detail/chrono.hpp>
#include <vmsuperio/interrupt_line.hpp>
#include <vmsuperio/registers/pl031.hpp>
#include <vmsuperio/rtc/device_time.hpp>
#include <vmsuperio/snapshot.hpp>
#include <vmsuperio/state_error.hpp>
#include <vmsuperio/trigger.hpp>

/// The real-time clock of ARM machines: PrimeCell PL031 (ARM DDI 0224).
///
/// | offset | register | read | write |
/// |---|---|---|---|
/// | 0x000 | RTCDR | seconds counter | invalid |
/// | 0x004 | RTCMR | match value | match value |
/// | 0x008 | RTCLR | last load value | sets the counter |
/// | 0x00C | RTCCR | 1 | no effect |
/// | 0x010 | RTCIMSC | bit 0: interrupt enabled | the same |
/// | 0x014 | RTCRIS | bit 0: matched | invalid |
/// | 0x018 | RTCMIS | RTCRIS and RTCIMSC | invalid |
/// | 0x01C | RTCICR | invalid | bit 0 clears the match |
/// | 0xFE0-0xFFC | ids | one byte each | invalid |
///
/// Accesses are 4 bytes wide and aligned, as the APB bus makes them. Any other access, and any not in the
/// table, is invalid: it changes nothing, reads give 0, and the events hear of it.
///
/// Deviations: the counter runs from reset and starts with the clock's time (firmware would have set both),
/// so RTCCR reads 1 at once; a load or a match value takes effect at once and not at the next 1 Hz edge, as
/// drivers read back what they wrote; a match that a jump of the clock passed over counts as met.
/// Not modelled: the test registers (0x080-0x08C), reset through RTCCR.
/// Thread safety: none; one lock around the device, or one thread.
namespace vmsuperio {

/// The events of a clock that nobody listens to. Each member of an events type is optional:
/// `invalid_read()`, `invalid_write()`: the guest made an access that the device does not have;
/// `time_changed(std::chrono::seconds ahead)`: the guest set the time, `ahead` of the clock that the device
/// was given.
struct NoRtcPl031Events {};

/// The clock as plain data.
struct RtcPl031State {
    static constexpr SnapshotFormat snapshot_format{
        .tag = snapshot_tag("PL31"), .version = 1, .readable_since = 1};

    std::uint32_t count{};
    std::uint32_t match{};
    std::uint32_t load{};
    bool interrupt_enabled{};
    bool matched{};
    std::int64_t second_start{};  ///< device time of the last second's start, in ns
    detail::DeviceTimeState time;

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
static_assert(SnapshotState<RtcPl031State> && visits_every_member<RtcPl031State>());

/// The device is passive: it owns no thread and no timer. `next_deadline()` returns the time at which the
/// interrupt line will next rise; call `tick()` then. Guest accesses update the device implicitly. The epoch
/// of `C` is the Unix epoch in UTC.
///
/// Arguments come in one order, as for every device: trigger, events, clock. Each may be left out where its
/// type has a default.
///
/// Errors: `write`, `tick` and `reset` return what the interrupt trigger returned; a read counts it instead
/// (`interrupt_errors()`).
template <Trigger T = NullTrigger, detail::RtcEvents Events = NoRtcPl031Events, Clock C = SystemClock>
class RtcPl031 {
public:
    using error_type = typename T::error_type;
    using trigger_type = T;
    using events_type = Events;
    using clock_type = C;

    RtcPl031()
        requires std::default_initializable<T> && std::default_initializable<Events> &&
                 std::default_initializable<C>
        : RtcPl031(T(), Events(), C()) {}
    explicit RtcPl031(T interrupt)
        requires std::default_initializable<Events> && std::default_initializable<C>
        : RtcPl031(std::move(interrupt), Events(), C()) {}
    explicit RtcPl031(C clock)
        requires std::default_initializable<T> && std::default_initializable<Events>
        : RtcPl031(T(), Events(), std::move(clock)) {}
    RtcPl031(T interrupt, C clock)
        requires std::default_initializable<Events>
        : RtcPl031(std::move(interrupt), Events(), std::move(clock)) {}
    RtcPl031(T interrupt, Events events)
        requires std::default_initializable<C>
        : RtcPl031(std::move(interrupt), std::move(events), C()) {}
    RtcPl031(T interrupt, Events events, C clock)
        : line_(std::move(interrupt)), events_(std::move(events)), time_(std::move(clock)) {
        second_start_ = detail::floor_second(time_.seen());
        count_ = static_cast<std::uint32_t>(second_start_ / detail::ns_per_second);
    }

    /// The device as it was saved; the time that passed on `clock` since then has passed for it too. An
    /// interrupt line that was high is raised again. A default-constructed state is a device just reset whose
    /// clock stood at 1970: restored, it has the time of `clock`.
    [[nodiscard]] static std::expected<RtcPl031, StateError> from_state(const RtcPl031State& state,
                                                                        T interrupt = T(),
                                                                        Events events = Events(),
                                                                        C clock = C()) {
        if (!detail::DeviceTime<C>::valid(state.time)) {
            return std::unexpected(StateError{"time"});
        }
        if (state.second_start > state.time.seen ||
            detail::elapsed(state.second_start, state.time.seen) >= detail::ns_per_second) {
            return std::unexpected(StateError{"second_start"});
        }
        RtcPl031 device(state, std::move(interrupt), std::move(events), std::move(clock));
        device.count_error(device.drive_line());
        return device;
    }

    /// The reset line of the bus (PRESETn): RTCMR, RTCLR, RTCIMSC and RTCRIS are 0 again (DDI 0224, table
    /// 3-1) and the interrupt line falls. The counter is in the domain of the 1 Hz clock, which a battery
    /// keeps: it runs on with the time that the guest has set. For its power-on reset (nPOR) make a new
    /// device.
    std::expected<void, error_type> reset() {
        advance();
        match_ = 0;
        load_ = 0;
        mask_ = pl031::InterruptMask();
        matched_ = false;
        return drive_line();
    }

    /// A read by the guest.
    void read(std::uint64_t offset, std::span<std::uint8_t> bytes) {
        count_error(tick());
        std::optional<std::uint32_t> value;
        if (valid_access(offset, bytes.size())) {
            value = peek(static_cast<std::uint16_t>(offset));
        }
        if (!value) {
            if constexpr (requires { events_.invalid_read(); }) {
                events_.invalid_read();
            }
        }
        for (std::size_t i = 0; i < bytes.size(); ++i) {
            bytes[i] = value ? static_cast<std::uint8_t>(*value >> (8U * i)) : std::uint8_t{0};
        }
    }

    /// The register at `offset`, without bringing it up to date; nothing where none can be read.
    [[nodiscard]] std::optional<std::uint32_t> peek(std::uint16_t offset) const noexcept {
        if (offset >= pl031::first_id && offset <= pl031::first_id + 0x1CU && offset % 4 == 0) {
            return pl031::ids[(offset - pl031::first_id) / 4U];
        }
        switch (offset) {
            case pl031::data:
                return count_;
            case pl031::match:
                return match_;
            case pl031::load:
                return load_;
            case pl031::control:
                return pl031::Control().set(pl031::Control::start).value();
            case pl031::interrupt_mask:
                return mask_.value();
            case pl031::raw_interrupt:
                return status(matched_);
            case pl031::masked_interrupt:
                return status(line_level());
            default:
                return std::nullopt;
        }
    }

    /// A write by the guest.
    std::expected<void, error_type> write(std::uint64_t offset, std::span<const std::uint8_t> bytes) {
        advance();
        if (!valid_access(offset, bytes.size()) ||
            !write_register(static_cast<std::uint16_t>(offset), bytes)) {
            if constexpr (requires { events_.invalid_write(); }) {
                events_.invalid_write();
            }
        }
        return drive_line();
    }

    /// Brings the device up to date with its clock. To be called at the deadline; harmless at any other time.
    std::expected<void, error_type> tick() {
        advance();
        return drive_line();
    }

    /// When the interrupt line will next rise by itself, on the clock's own time line; nothing while no event
    /// can raise it. To be asked again after every access and every `tick()`.
    [[nodiscard]] std::optional<std::chrono::nanoseconds> next_deadline() const {
        if (matched_ || !mask_[pl031::InterruptMask::match]) {
            return std::nullopt;
        }
        return time_.on_clock(detail::saturating_add(
            second_start_, static_cast<std::int64_t>(seconds_to_match()) * detail::ns_per_second));
    }

    /// How far the guest's clock is ahead of the clock that the device was given, as of the last access; by
    /// the nearest way around the 32-bit counter.
    [[nodiscard]] std::chrono::seconds time_offset() const noexcept {
        const auto host = time_.on_clock(second_start_);
        const std::int64_t host_seconds = detail::floor_div(host ? host->count() : 0, detail::ns_per_second);
        return std::chrono::seconds(
            static_cast<std::int32_t>(count_ - static_cast<std::uint32_t>(host_seconds)));
    }
    /// How often the interrupt trigger failed during a read.
    [[nodiscard]] std::uint64_t interrupt_errors() const noexcept { return interrupt_errors_; }

    [[nodiscard]] RtcPl031State state() const noexcept {
        return {.count = count_,
                .match = match_,
                .load = load_,
                .interrupt_enabled = mask_[pl031::InterruptMask::match],
                .matched = matched_,
                .second_start = second_start_,
                .time = time_.state()};
    }

    [[nodiscard]] const T& interrupt_evt() const noexcept { return line_.trigger(); }
    [[nodiscard]] T& interrupt_evt() noexcept { return line_.trigger(); }
    [[nodiscard]] const C& clock() const noexcept { return time_.clock(); }
    [[nodiscard]] C& clock() noexcept { return time_.clock(); }
    [[nodiscard]] const Events& events() const noexcept { return events_; }
    [[nodiscard]] Events& events() noexcept { return events_; }

private:
    RtcPl031(const RtcPl031State& state, T interrupt, Events events, C clock)
        : line_(std::move(interrupt)),
          events_(std::move(events)),
          time_(state.time, std::move(clock)),
          count_(state.count),
          match_(state.match),
          load_(state.load),
          mask_(pl031::InterruptMask().set(pl031::InterruptMask::match, state.interrupt_enabled)),
          matched_(state.matched),
          second_start_(state.second_start) {}

    [[nodiscard]] static constexpr bool valid_access(std::uint64_t offset, std::size_t size) noexcept {
        return size == 4 && offset % 4 == 0 && offset < 0x1000;
    }
    [[nodiscard]] static constexpr std::uint32_t status(bool match) noexcept {
        return pl031::InterruptStatus().set(pl031::InterruptStatus::match, match).value();
    }
    /// Seconds until the counter next becomes the match value, 1 to 2^32.
    [[nodiscard]] std::uint64_t seconds_to_match() const noexcept {
        const std::uint32_t distance = match_ - count_;
        return distance == 0 ? std::uint64_t{1} << 32U : distance;
    }

    /// False for a register that cannot be written.
    [[nodiscard]] bool write_register(std::uint16_t offset, std::span<const std::uint8_t> bytes) {
        std::uint32_t value = 0;
        for (std::size_t i = 0; i < 4; ++i) {
            value |= static_cast<std::uint32_t>(bytes[i]) << (8U * i);
        }
        switch (offset) {
            case pl031::match:
                match_ = value;
                matched_ = matched_ || count_ == match_;
                return true;
            case pl031::load:
                load_ = value;
                count_ = value;
                matched_ = matched_ || count_ == match_;
                if constexpr (requires { events_.time_changed(std::chrono::seconds{}); }) {
                    events_.time_changed(time_offset());
                }
                return true;
            case pl031::control:
                return true;  // once started, the clock stops only with a reset
            case pl031::interrupt_mask:
                mask_.guest_write(value);
                return true;
            case pl031::interrupt_clear:
                if (pl031::InterruptStatus(value)[pl031::InterruptStatus::match]) {
                    matched_ = false;
                }
                return true;
            default:
                return false;
        }
    }

    /// Counts the seconds that passed since the last look. O(1) in the time passed.
    void advance() {
        const std::uint64_t seconds = detail::elapsed(second_start_, time_.now()) / detail::ns_per_second;
        matched_ = matched_ || seconds >= seconds_to_match();
        count_ += static_cast<std::uint32_t>(seconds);
        second_start_ = detail::seconds_after(second_start_, seconds);
    }

    [[nodiscard]] bool line_level() const noexcept { return matched_ && mask_[pl031::InterruptMask::match]; }
    std::expected<void, error_type> drive_line() { return line_.update(line_level()); }
    void count_error(const std::expected<void, error_type>& result) noexcept {
        if (!result) {
            ++interrupt_errors_;
        }
    }

    InterruptLine<T> line_;
    [[no_unique_address]] Events events_;
    detail::DeviceTime<C> time_;
    std::uint32_t count_{};
    // All match and load values are 0 at reset (table 3-1).
    std::uint32_t match_{};
    std::uint32_t load_{};
    pl031::InterruptMask mask_{};
    bool matched_{};
    std::int64_t second_start_{};
    std::uint64_t interrupt_errors_{};
};

RtcPl031() -> RtcPl031<>;
template <Trigger T>
RtcPl031(T) -> RtcPl031<T>;
template <Clock C>
RtcPl031(C) -> RtcPl031<NullTrigger, NoRtcPl031Events, C>;
template <Trigger T, Clock C>
RtcPl031(T, C) -> RtcPl031<T, NoRtcPl031Events, C>;
template <Trigger T, detail::RtcEvents Events>
RtcPl031(T, Events) -> RtcPl031<T, Events>;
template <Trigger T, detail::RtcEvents Events, Clock C>
RtcPl031(T, Events, C) -> RtcPl031<T, Events, C>;

}  // namespace vmsuperio
