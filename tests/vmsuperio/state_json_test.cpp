// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
// States as JSON: nothing is lost, and hostile values are not misinterpreted.

#if __has_include(<nlohmann/json.hpp>)

#include <array>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <random>
#include <string>
#include <string_view>
#include <type_traits>
#include <vector>

#include <vmsuperio/state_json.hpp>
#include <vmsuperio/vmsuperio.hpp>

#include "catch.hpp"

using namespace vmsuperio;
using nlohmann::json;

namespace mine {

enum class Mode : std::uint16_t { off, on };

/// A user's own state, which uses everything that a `visit` can contain.
struct TimerState {
    static constexpr SnapshotFormat snapshot_format{
        .tag = snapshot_tag("TIME"), .version = 3, .readable_since = 1};

    struct Channel {
        std::int64_t deadline{-1};
        std::array<std::uint16_t, 2> counts{7, 8};

        template <class Self, class Archive>
        static constexpr void visit(Self& self, Archive& archive) {
            auto& [deadline, counts] = self;
            archive("deadline", deadline);
            archive("counts", counts);
        }
        friend bool operator==(const Channel&, const Channel&) = default;
    };

    Mode mode{Mode::on};
    std::int8_t trim{-3};
    Channel channel{};
    std::uint64_t added{std::numeric_limits<std::uint64_t>::max()};
    std::array<std::uint8_t, 4> queue{1, 2};
    std::uint8_t queued{2};

    template <class Self, class Archive>
    static constexpr void visit(Self& self, Archive& archive) {
        auto& [mode, trim, channel, added, queue, queued] = self;
        archive("mode", mode);
        archive("trim", trim);
        archive("channel", channel);
        archive.since(2, "added", added);
        archive.bytes_since(3, "queue", queue, queued);
    }
    friend bool operator==(const TimerState&, const TimerState&) = default;
};
static_assert(SnapshotState<TimerState> && visits_every_member<TimerState>());

using vmsuperio::from_json;
using vmsuperio::to_json;

/// A state with its own JSON form, which replaces the library's.
struct OwnState {
    static constexpr SnapshotFormat snapshot_format{
        .tag = snapshot_tag("OWN "), .version = 1, .readable_since = 1};
    std::uint8_t value{};

    template <class Self, class Archive>
    static constexpr void visit(Self& self, Archive& archive) {
        archive("value", self.value);
    }
    friend bool operator==(const OwnState&, const OwnState&) = default;
};
static_assert(SnapshotState<OwnState>);
void to_json(json& own, const OwnState& state) { own = state.value; }

}  // namespace mine

namespace {

/// Sets each member to any value that its type can have. Slots beyond a count stay 0.
class Randomizer : public vmsuperio::detail::PlainArchive<Randomizer> {
public:
    explicit Randomizer(unsigned seed) : random_(seed) {}

    template <class T>
    void value(T& value) {
        if constexpr (std::same_as<T, bool>) {
            value = random_() % 2 == 0;
        } else if constexpr (std::is_enum_v<T>) {
            value = static_cast<T>(random_());
        } else {
            const std::uint64_t number = random_();
            value = random_() % 8 == 0   ? std::numeric_limits<T>::max()
                    : random_() % 8 == 0 ? std::numeric_limits<T>::min()
                                         : static_cast<T>(number);
        }
    }
    template <class T, std::size_t N>
    void value(std::array<T, N>& values) {
        for (T& element : values) {
            value(element);
        }
    }
    template <std::size_t N>
    void bytes(std::string_view, std::uint8_t& count, std::array<std::uint8_t, N>& data) {
        count = static_cast<std::uint8_t>(random_() % (N + 1));
        data = {};
        for (std::size_t i = 0; i < count; ++i) {
            value(data[i]);
        }
    }
    template <std::size_t N>
    void bytes(std::string_view name, std::array<std::uint8_t, N>& data, std::uint8_t& count) {
        bytes(name, count, data);
    }
    template <class First, class Second>
    void bytes_since(std::uint16_t, std::string_view name, First& first, Second& second) {
        bytes(name, first, second);
    }

private:
    std::mt19937_64 random_;
};

template <SnapshotState S>
S random_state(unsigned seed) {
    Randomizer randomizer(seed);
    S state{};
    S::visit(state, randomizer);
    return state;
}

template <SnapshotState S>
bool refused(const json& hostile) {
    S state = random_state<S>(1);
    const S before = state;
    try {
        from_json(hostile, state);
    } catch (const std::exception&) {
        return state == before;  // no member was changed
    }
    return false;
}

/// Calls `visit(pointer)` for each number, boolean and array in `value`, but not for the elements of arrays.
template <class Visit>
void each_member(const json& value, const json::json_pointer& at, const Visit& visit) {
    if (!value.is_object()) {
        return visit(at);
    }
    for (const auto& [name, member] : value.items()) {
        each_member(member, at / name, visit);
    }
}

// Deep enough to detect a recursion of our own. nlohmann-json itself copies values recursively, so that a
// much deeper array overflows the stack of a 32-bit build without optimization.
json deep_array() {
    std::string text(1'000, '[');
    text.append(1'000, ']');
    return json::parse(text);
}

}  // namespace

TEMPLATE_TEST_CASE("JSON: a state is the same after conversion and back", "[json][snapshot]", SerialState,
                   I8042State, RtcCmosState, RtcPl031State, AcpiPmState, DebugPortState, ExitPortState,
                   PvpanicState, ResetControlState, SystemControlPortAState, mine::TimerState) {
    const json fresh = TestType{};
    CHECK(fresh.at("version") == TestType::snapshot_format.version);
    CHECK_SAME_STATE(fresh.get<TestType>(), TestType{});
    CHECK_SAME_STATE(json::object().get<TestType>(), TestType{});
    std::size_t changed = 0;
    for (unsigned seed = 0; seed < 200; ++seed) {
        const TestType state = random_state<TestType>(seed);
        const json value = state;
        const auto restored = json::parse(value.dump()).get<TestType>();
        if (!(restored == state)) {
            CAPTURE(seed, value.dump());
            REQUIRE_SAME_STATE(restored, state);
        }
        const nlohmann::ordered_json ordered = state;
        REQUIRE(ordered.get<TestType>() == state);
        REQUIRE(json::parse(ordered.dump()) == value);
        // CBOR and similar formats are other encodings of the same values. nlohmann-json 3.11.2 needs
        // char_traits<unsigned char>, which libc++ 19 does not have.
#if !defined(_LIBCPP_VERSION)
        REQUIRE(json::from_cbor(json::to_cbor(value)).get<TestType>() == state);
#endif
        changed += state == TestType{} ? 0U : 1U;
    }
    CHECK(changed > 100);
}

TEMPLATE_TEST_CASE("JSON: each member may be missing, and unknown ones may be present", "[json][snapshot]",
                   SerialState, I8042State, RtcCmosState, RtcPl031State, AcpiPmState, DebugPortState,
                   mine::TimerState) {
    const TestType state = random_state<TestType>(7);
    const json value = state;
    const json fresh = TestType{};
    each_member(value, json::json_pointer(), [&](const json::json_pointer& at) {
        CAPTURE(at.to_string());
        json without = value;
        without.at(at.parent_pointer()).erase(at.back());
        json expected = value;
        expected[at] = fresh.at(at);
        CHECK(json(without.template get<TestType>()) == expected);
    });
    json more = value;
    more["unknown"] = deep_array();
    more["line"] = {{"line_control", -1}};
    CHECK_SAME_STATE(more.get<TestType>(), state);
}

TEMPLATE_TEST_CASE("JSON: hostile values are refused, and the state is not changed", "[json][hostile]",
                   SerialState, I8042State, RtcCmosState, RtcPl031State, AcpiPmState, DebugPortState,
                   ExitPortState, PvpanicState, ResetControlState, SystemControlPortAState,
                   mine::TimerState) {
    const json value = random_state<TestType>(3);
    const json deep = deep_array();
    for (const json& wrong : {json(), json(1), json(true), json("text"), json::array(), deep}) {
        CHECK(refused<TestType>(wrong));
    }
    std::size_t members = 0;
    each_member(value, json::json_pointer(), [&](const json::json_pointer& at) {
        const auto with = [&](const json& wrong) {
            json hostile = value;
            hostile[at] = wrong;
            return hostile;
        };
        ++members;
        CAPTURE(at.to_string());
        const json& here = value.at(at);
        for (const json& wrong : {json(), json("1"), json(1.5), json(1.0), json(-1e300), json::object(),
                                  json({{"a", 1}}), deep, json::binary({1})}) {
            CHECK(refused<TestType>(with(wrong)));
        }
        // Larger than any number of 64 bits; nlohmann-json reads it as a floating-point number.
        CHECK(refused<TestType>(with(json::parse("18446744073709551616"))));
        CHECK(refused<TestType>(with(json::parse("-9223372036854775809"))));
        if (here.is_array()) {
            CHECK(refused<TestType>(with(1)));
            CHECK(refused<TestType>(with(std::vector<int>(300, 0))));
            for (const json& element : {json(-1), json(65'536), json(1.0), json(), json("1"), json(true),
                                        json::array(), json::array({1})}) {
                json array = here;
                if (array.empty()) {
                    array.push_back(0);
                }
                array.back() = element;
                CHECK(refused<TestType>(with(array)));
            }
        } else {
            CHECK(refused<TestType>(with(json::array({1}))));
            CHECK(refused<TestType>(with(here.is_boolean() ? json(1) : json(true))));
        }
    });
    CHECK(members >= 2);
    // Objects in an object.
    for (const auto& [name, member] : value.items()) {
        if (member.is_object()) {
            CAPTURE(name);
            for (const json& wrong : {json(), json(1), json("text"), json::array(), deep}) {
                json hostile = value;
                hostile[name] = wrong;
                CHECK(refused<TestType>(hostile));
            }
        }
    }
    json newer = value;
    newer["version"] = TestType::snapshot_format.version + 1;
    CHECK(refused<TestType>(newer));
    newer["version"] = 1;
    CHECK_FALSE(refused<TestType>(newer));
}

TEST_CASE("JSON: each number has the bounds of its type", "[json][hostile]") {
    const auto takes = [](const char* text) { return !refused<mine::TimerState>(json::parse(text)); };
    CHECK(takes(R"({"mode": 65535})"));
    CHECK_FALSE(takes(R"({"mode": 65536})"));
    CHECK_FALSE(takes(R"({"mode": -1})"));
    CHECK(takes(R"({"trim": 127})"));
    CHECK_FALSE(takes(R"({"trim": 128})"));
    CHECK(takes(R"({"trim": -128})"));
    CHECK_FALSE(takes(R"({"trim": -129})"));
    CHECK(takes(R"({"channel": {"deadline": -9223372036854775808}})"));
    CHECK(takes(R"({"channel": {"deadline": 9223372036854775807}})"));
    CHECK_FALSE(takes(R"({"channel": {"deadline": 9223372036854775808}})"));
    CHECK(takes(R"({"added": 18446744073709551615})"));
    CHECK(takes(R"({"channel": {"counts": [0, 65535]}})"));
    CHECK_FALSE(takes(R"({"channel": {"counts": [0, 65536]}})"));
    CHECK_FALSE(takes(R"({"channel": {"counts": [0]}})"));
    CHECK_FALSE(takes(R"({"channel": {"counts": [0, 0, 0]}})"));
    CHECK(takes(R"({"queue": [0, 255, 0, 0]})"));
    CHECK_FALSE(takes(R"({"queue": [0, 256]})"));
    CHECK_FALSE(takes(R"({"queue": [0, 0, 0, 0, 0]})"));
    // nlohmann-json does not treat an `int` as an unsigned number.
    CHECK(json({{"mode", 5}}).get<mine::TimerState>().mode == mine::Mode{5});
    // The message names the position.
    CHECK_THROWS_WITH(json::parse(R"({"keyboard": {"leds": 256}})").get<I8042State>(),
                      Catch::Matchers::Contains("keyboard.leds"));
}

TEST_CASE("JSON: an empty queue replaces the default content of a state", "[json]") {
    const auto state = json::parse(R"({"queue": []})").get<mine::TimerState>();
    CHECK(state.queued == 0);
    CHECK(state.queue == std::array<std::uint8_t, 4>{});
}

TEST_CASE("JSON: the form of a state has not changed", "[json]") {
    SerialState state;
    state.receive_count = 2;
    state.receive_data[0] = 0x41;
    state.receive_data[1] = 0xFF;
    state.receive_data[2] = 0x77;  // beyond the count: not part of the device
    state.receive_breaks = 2;
    state.thr_empty_pending = true;
    state.receive_timeout = ReceiveTimeout::manual;
    const char* const text =
        R"({"auto_rts_held":false,"character_timeout":false,"divisor_high":0,"divisor_low":12,)"
        R"("fifo_64_allowed":false,"fifo_control":0,"interrupt_enable":0,"interrupt_gate":0,)"
        R"("line_control":3,"line_errors":0,"modem_control":8,"modem_deltas":0,"modem_inputs":176,)"
        R"("receive":[65,255],"receive_breaks":2,"receive_framing_errors":0,"receive_parity_errors":0,)"
        R"("receive_timeout":0,"scratch":0,"thr_empty_pending":true,"transmit":[],"transmit_policy":0,)"
        R"("version":2})";
    CHECK(json(state).dump() == text);
    CHECK(nlohmann::ordered_json(mine::TimerState{}).dump() ==
          R"({"version":3,"mode":1,"trim":-3,"channel":{"deadline":-1,"counts":[7,8]},)"
          R"("added":18446744073709551615,"queue":[1,2]})");
    const json keyboard = json(I8042State{}).at("keyboard");
    CHECK(keyboard.at("scan_code_set") == 2);
    CHECK(keyboard.at("modifiers") == 0);  // of version 2, in the same object
    CHECK(json(RtcCmosState{}).at("time").at("shift") == 0);
}

TEST_CASE("JSON: a type's own form has priority", "[json]") {
    mine::OwnState state;
    state.value = 9;
    CHECK(json(state) == json(9));
}

#endif
