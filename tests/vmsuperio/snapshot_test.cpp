// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
#include <vmsuperio/snapshot.hpp>
#include <vmsuperio/vmsuperio.hpp>

#include "catch.hpp"

using vmsuperio::SnapshotError;

namespace {

// Checks every state of the library. The check is here and not with the states, because it costs a tenth of
// the time that including the library takes.
template <class... States>
constexpr bool all_complete =
    ((vmsuperio::SnapshotState<States> && vmsuperio::visits_every_member<States>()) && ...);
static_assert(all_complete<vmsuperio::AcpiPmState, vmsuperio::DebugPortState, vmsuperio::ExitPortState,
                           vmsuperio::I8042State, vmsuperio::PvpanicState, vmsuperio::ResetControlState,
                           vmsuperio::RtcCmosState, vmsuperio::RtcPl031State, vmsuperio::SerialState,
                           vmsuperio::SystemControlPortAState>);

}  // namespace

namespace {

enum class Mode : std::uint16_t { off, on };

struct StateV1 {
    static constexpr vmsuperio::SnapshotFormat snapshot_format{
        .tag = vmsuperio::snapshot_tag("TEST"), .version = 1, .readable_since = 1};
    std::uint8_t control{};
    std::array<std::uint16_t, 3> ram{};
    bool flag{};
    Mode mode{};
    std::int64_t time{};

    template <class Self, class Archive>
    static constexpr void visit(Self& self, Archive& archive) {
        auto& [control, ram, flag, mode, time] = self;
        archive("control", control);
        archive("ram", ram);
        archive("flag", flag);
        archive("mode", mode);
        archive("time", time);
    }
    friend bool operator==(const StateV1&, const StateV1&) = default;
};

struct StateV2 {
    static constexpr vmsuperio::SnapshotFormat snapshot_format{
        .tag = vmsuperio::snapshot_tag("TEST"), .version = 2, .readable_since = 1};
    StateV1 old{};
    std::uint32_t added{42};

    template <class Self, class Archive>
    static constexpr void visit(Self& self, Archive& archive) {
        auto& [old, added] = self;
        archive("old", old);
        archive.since(2, "added", added);
    }
    friend bool operator==(const StateV2&, const StateV2&) = default;
};

struct StateV3 : StateV2 {
    static constexpr vmsuperio::SnapshotFormat snapshot_format{
        .tag = vmsuperio::snapshot_tag("TEST"), .version = 3, .readable_since = 3};
};

constexpr StateV1 sample{
    .control = 0x5A, .ram = {1, 0x203, 0xFFFF}, .flag = true, .mode = Mode::on, .time = -2};

}  // namespace

TEST_CASE("Snapshot: a decoded state equals the encoded one", "[snapshot]") {
    const auto bytes = vmsuperio::encode(sample);
    const auto back = vmsuperio::decode<StateV1>(bytes);
    REQUIRE(back.has_value());
    CHECK(*back == sample);
}

TEST_CASE("Snapshot: the bytes are as documented", "[snapshot]") {
    const std::vector<std::uint8_t> expected{
        'T',  'E',  'S',  'T',  1,    0,    1,    0,    18, 0, 0, 0,  // header
        0x5A, 1,    0,    3,    2,    0xFF, 0xFF, 1,    1,  0,        // control, ram, flag, mode
        0xFE, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF,               // time
    };
    CHECK(vmsuperio::encode(sample) == expected);
}

TEST_CASE("Snapshot: older bytes leave added fields at their default", "[snapshot]") {
    const auto back = vmsuperio::decode<StateV2>(vmsuperio::encode(sample));
    REQUIRE(back.has_value());
    CHECK(*back == StateV2{.old = sample, .added = 42});
}

TEST_CASE("Snapshot: fields that a version added are decoded with that version", "[snapshot]") {
    const StateV2 newer{.old = sample, .added = 7};
    const auto back = vmsuperio::decode<StateV2>(vmsuperio::encode(newer));
    REQUIRE(back.has_value());
    CHECK(*back == newer);
    auto bytes = vmsuperio::encode(newer);
    bytes.pop_back();
    CHECK(vmsuperio::decode<StateV2>(bytes).error() == SnapshotError::truncated);
}

TEST_CASE("Snapshot: a newer version that allows it is read, its added fields ignored", "[snapshot]") {
    const auto back = vmsuperio::decode<StateV1>(vmsuperio::encode(StateV2{sample, 7}));
    REQUIRE(back.has_value());
    CHECK(*back == sample);
}

TEST_CASE("Snapshot: a newer version that does not allow it is refused", "[snapshot]") {
    const auto back = vmsuperio::decode<StateV1>(vmsuperio::encode(StateV3{}));
    REQUIRE_FALSE(back.has_value());
    CHECK(back.error() == SnapshotError::unsupported_version);
}

TEST_CASE("Snapshot: every truncation is refused", "[snapshot]") {
    const auto bytes = vmsuperio::encode(sample);
    for (std::size_t length = 0; length < bytes.size(); ++length) {
        const auto back = vmsuperio::decode<StateV1>(std::span(bytes).first(length));
        REQUIRE_FALSE(back.has_value());
        CHECK(back.error() == SnapshotError::truncated);
    }
}

TEST_CASE("Snapshot: malformed bytes are refused with the reason", "[snapshot]") {
    auto bytes = vmsuperio::encode(sample);
    const auto error_of = [](const std::vector<std::uint8_t>& input) {
        const auto back = vmsuperio::decode<StateV1>(input);
        REQUIRE_FALSE(back.has_value());
        return back.error();
    };
    SECTION("one byte too many") {
        bytes.push_back(0);
        CHECK(error_of(bytes) == SnapshotError::trailing_bytes);
    }
    SECTION("a longer payload of the same version") {
        bytes.push_back(0);
        bytes[8] = 19;
        CHECK(error_of(bytes) == SnapshotError::trailing_bytes);
    }
    SECTION("a shorter payload of the same version") {
        bytes.pop_back();
        bytes[8] = 17;
        CHECK(error_of(bytes) == SnapshotError::truncated);
    }
    SECTION("another device") {
        bytes[0] = 'X';
        CHECK(error_of(bytes) == SnapshotError::wrong_tag);
    }
    SECTION("version 0") {
        bytes[4] = 0;
        CHECK(error_of(bytes) == SnapshotError::invalid_value);
    }
    SECTION("readable since a version newer than its own") {
        bytes[6] = 2;
        CHECK(error_of(bytes) == SnapshotError::invalid_value);
    }
    SECTION("readable since version 0") {
        bytes[6] = 0;
        CHECK(error_of(bytes) == SnapshotError::invalid_value);
    }
    SECTION("a boolean that is 2") {
        bytes[12 + 7] = 2;
        CHECK(error_of(bytes) == SnapshotError::invalid_value);
    }
}

TEST_CASE("Snapshot: every error has its own text", "[snapshot]") {
    std::vector<std::string_view> seen;
    CHECK(to_string(static_cast<SnapshotError>(0xFF)) == "unknown snapshot error");
    for (const auto error :
         {SnapshotError::truncated, SnapshotError::wrong_tag, SnapshotError::unsupported_version,
          SnapshotError::trailing_bytes, SnapshotError::invalid_value}) {
        const auto text = to_string(error);
        CHECK_FALSE(text.empty());
        CHECK(std::find(seen.begin(), seen.end(), text) == seen.end());
        seen.push_back(text);
    }
}
