// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//
// RtcPl031 compared with the model of fuzz/model/pl031_model.hpp.
//
// Input: one byte of options (bit 0: a level trigger; bit 1: wild clock, without the model), with a wild
// clock 8 bytes of start time, then operations:
//   0o        read register o, 4 bytes       4x  save, encode, decode and restore
//   1o v*4    write register o, 4 bytes      5n  odd: the trigger fails from now on; even: it works
//   2n        write the counter plus n       6x o*8 n  read n modulo 16 bytes at any offset
//             to the match register          7x o*8 n v*n  write them
//   3n        the clock moves by step n; with a wild clock: 3n t*8 sets it to t
// Register o is at 4o for o < 8; 8 to 15 are the identification registers.

#include <algorithm>
#include <array>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <type_traits>
#include <utility>

#include <vmsuperio/clock.hpp>
#include <vmsuperio/rtc_pl031.hpp>
#include <vmsuperio/snapshot.hpp>

#include "model/pl031_model.hpp"
#include "support/check_state.hpp"
#include "support/target.hpp"
#include "support/world.hpp"

namespace fuzz {
namespace {

using vmsuperio::ManualClock;
using vmsuperio::RtcPl031State;
using ClockRef = vmsuperio::ClockRef<ManualClock>;

struct RtcEvents {
    std::uint64_t* invalid;

    void invalid_read() const { ++*invalid; }
    void invalid_write() const { ++*invalid; }
};

template <class Trigger>
class Pl031Target {
    using Device = vmsuperio::RtcPl031<Trigger, RtcEvents, ClockRef>;
    static constexpr std::int64_t start = 1'700'000'000'250'000'000;

public:
    Pl031Target(const Trace& trace, bool wild, std::int64_t at)
        : trace_(trace), wild_(wild), clock_(std::chrono::nanoseconds(wild ? at : start)) {
        trace_("fuzz::World world;");
        trace_("vmsuperio::ManualClock clock{std::chrono::nanoseconds(", wild ? at : start, ")};");
        trace_("using Rtc = vmsuperio::RtcPl031<", name(),
               ", vmsuperio::NoRtcPl031Events, vmsuperio::ClockRef<vmsuperio::ManualClock>>;");
        trace_("std::optional<Rtc> rtc(std::in_place, ", name(), "{&world}, clock);");
        trace_("std::array<std::uint8_t, 16> bytes{};");
    }

    void step(Input& input) {
        const Op op = next_op(input);
        const std::uint64_t offset = op.detail < 8 ? op.detail * 4U : 0xFE0U + (op.detail - 8U) * 4U;
        switch (op.kind) {
            case OpKind::read:
                read(offset, 4);
                break;
            case OpKind::write:
                write(offset, input.bytes(4));
                break;
            case OpKind::enqueue: {
                const std::uint32_t match = device_->peek(0).value_or(0) + op.detail;
                const std::array bytes{
                    static_cast<std::uint8_t>(match), static_cast<std::uint8_t>(match >> 8U),
                    static_cast<std::uint8_t>(match >> 16U), static_cast<std::uint8_t>(match >> 24U)};
                write(4, bytes);
                break;
            }
            case OpKind::tick:
                tick(op.detail, input);
                break;
            case OpKind::snapshot:
                snapshot();
                break;
            case OpKind::sink:
                world_.trigger_fails = op.detail % 2 != 0;
                trace_("world.trigger_fails = ", world_.trigger_fails, ";");
                break;
            case OpKind::host: {
                const std::uint64_t any = input.u64();
                read(any, input.byte() % 16U);
                break;
            }
            case OpKind::other: {
                const std::uint64_t any = input.u64();
                write(any, input.bytes(input.byte() % 16U));
                break;
            }
        }
        compare();
    }

private:
    static constexpr const char* name() {
        return std::is_same_v<Trigger, Edge> ? "fuzz::Edge" : "fuzz::Level";
    }

    void read(std::uint64_t offset, std::size_t size) {
        std::array<std::uint8_t, 16> bytes{};
        bytes.fill(0xA5);
        const std::uint64_t invalid = invalid_;
        trace_("rtc->read(", Hex{offset}, ", std::span(bytes).first(", size, "));");
        {
            const NoAllocation none;
            device_->read(offset, std::span(bytes).first(size));
        }
        std::uint64_t value = 0;
        for (std::size_t i = 0; i < size && i < 8; ++i) {
            value |= std::uint64_t{bytes[i]} << (8U * i);
        }
        for (std::size_t i = size; i < bytes.size(); ++i) {
            check_equal(bytes[i], 0xA5, "nothing is written behind the buffer");
        }
        const auto expected = size == 4 ? model_.read(offset) : std::nullopt;
        check_equal(invalid_ - invalid, expected ? 0 : 1, "an invalid access is reported");
        if (!wild_ || !expected) {
            check_equal(value, expected.value_or(0), "a register reads as the model's");
        }
    }
    void write(std::uint64_t offset, std::span<const std::uint8_t> bytes) {
        trace_("(void)rtc->write(", Hex{offset}, ", ", Bytes{bytes}, ");");
        bool exists = false;
        if (bytes.size() == 4) {
            exists = model_.write(offset, static_cast<std::uint32_t>(bytes[0]) |
                                              static_cast<std::uint32_t>(bytes[1]) << 8U |
                                              static_cast<std::uint32_t>(bytes[2]) << 16U |
                                              static_cast<std::uint32_t>(bytes[3]) << 24U);
        }
        const std::uint64_t invalid = invalid_;
        const NoAllocation none;
        const auto written = device_->write(offset, bytes);
        check(written || world_.trigger_fails, "a write fails only with the trigger");
        check_equal(invalid_ - invalid, exists ? 0 : 1, "an invalid access is reported");
    }
    void tick(std::uint8_t step, Input& input) {
        static constexpr std::array<std::int64_t, 16> steps{0,
                                                            1,
                                                            1'000'000,
                                                            250'000'000,
                                                            500'000'000,
                                                            749'999'999,
                                                            999'999'999,
                                                            1'000'000'000,
                                                            2'000'000'000,
                                                            7'000'000'000,
                                                            60'000'000'000,
                                                            3'600'000'000'000,
                                                            -1,
                                                            -5'000'000'000,
                                                            333'333'333,
                                                            10'000'000'000};
        if (wild_) {
            const auto to = static_cast<std::int64_t>(input.u64());
            clock_.set(std::chrono::nanoseconds(to));
            trace_("clock.set(std::chrono::nanoseconds(", to, "));");
        } else {
            clock_.advance(std::chrono::nanoseconds(steps[step]));
            trace_("clock.advance(std::chrono::nanoseconds(", steps[step], "));");
            model_.elapse(std::max<std::int64_t>(steps[step], 0));
        }
        trace_("(void)rtc->tick();");
        const auto ticked = device_->tick();
        check(ticked || world_.trigger_fails, "tick fails only with the trigger");
        passed_ += std::max<std::int64_t>(steps[step], 0);
    }
    void snapshot() {
        trace_("world.level = false;");
        trace_("{");
        trace_(
            "    const auto state = "
            "vmsuperio::decode<vmsuperio::RtcPl031State>(vmsuperio::encode(rtc->state()));");
        trace_("    REQUIRE(state);");
        trace_("    auto restored = Rtc::from_state(*state, ", name(), "{&world}, {}, clock);");
        trace_("    REQUIRE(restored);");
        trace_("    rtc.emplace(std::move(*restored));");
        trace_("}");
        const RtcPl031State state = device_->state();
        const auto decoded = vmsuperio::decode<RtcPl031State>(vmsuperio::encode(state));
        check(decoded.has_value(), "encoded bytes can be decoded");
        check_same_state(*decoded, state, "a state survives encode and decode");
        world_.level = false;
        auto restored =
            Device::from_state(*decoded, Trigger{&world_}, RtcEvents{&invalid_}, ClockRef(clock_));
        check(restored.has_value(), "a saved state can be restored");
        device_.emplace(std::move(*restored));
        check_same_state(device_->state(), state, "the restored device has the state that was saved");
        model_.restore();
    }

    void compare() const {
        const RtcPl031State state = device_->state();
        check(state.second_start <= state.time.seen &&
                  vmsuperio::detail::elapsed(state.second_start, state.time.seen) < 1'000'000'000U,
              "the running second has begun and has not ended");
        check_equal(device_->peek(0x018).value_or(9),
                    device_->peek(0x014).value_or(9) & device_->peek(0x010).value_or(9), "RTCMIS");
        const auto deadline = device_->next_deadline();
        check(!deadline || device_->peek(0x018) == 0U, "no deadline while the line is high");
        if (wild_) {
            static_cast<void>(device_->time_offset());
            return;
        }
        for (std::uint64_t offset = 0; offset < 0x20; offset += 4) {
            check(device_->peek(static_cast<std::uint16_t>(offset)) == model_.read(offset),
                  "every register is as the model's");
        }
        if (std::is_same_v<Trigger, Edge>) {
            check_equal(world_.edges, model_world_.edges, "as many edges as the model");
        } else {
            check_equal(world_.level, model_.level(), "the trigger knows the line's level");
        }
        const auto expected = model_.to_interrupt();
        check_equal(deadline.has_value(), expected.has_value(), "whether there is a deadline");
        if (expected) {
            // The clock may have been set back, which the device does not follow.
            const std::int64_t behind = start + passed_ - vmsuperio::time_since_epoch(clock_).count();
            check_equal(static_cast<std::uint64_t>(deadline->count()),
                        static_cast<std::uint64_t>(start + passed_ - behind) + *expected,
                        "the deadline is when the model's line rises");
        }
    }

    const Trace& trace_;
    bool wild_;
    World world_;
    World model_world_;
    std::uint64_t invalid_{0};
    std::int64_t passed_{0};
    ManualClock clock_;
    std::optional<Device> device_{std::in_place, Trigger{&world_}, RtcEvents{&invalid_}, ClockRef(clock_)};
    model::Pl031Model model_{model_world_, start};
};

template <class Trigger>
void run(Input& input, const Trace& trace, bool wild) {
    Pl031Target<Trigger> target(trace, wild, wild ? static_cast<std::int64_t>(input.u64()) : 0);
    while (!input.empty()) {
        target.step(input);
    }
}

}  // namespace

void run_target(Input& input, const Trace& trace) {
    const std::uint8_t options = input.byte();
    const bool wild = (options & 2) != 0;
    if ((options & 1) != 0) {
        run<Level>(input, trace, wild);
    } else {
        run<Edge>(input, trace, wild);
    }
}

}  // namespace fuzz
