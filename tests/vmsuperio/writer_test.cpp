// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
#include <chrono>
#include <numeric>
#include <random>
#include <string>
#include <string_view>

#include <vmsuperio/writer.hpp>

#include "catch.hpp"
#include "recorders.hpp"

using namespace std::chrono_literals;
using recorders::RecordingWriter;
using vmsuperio::RateLimit;
using vmsuperio::RateLimitMode;
using vmsuperio::WriteResult;

namespace {

std::vector<std::uint8_t> bytes(std::string_view text) { return {text.begin(), text.end()}; }
std::string text(const std::vector<std::uint8_t>& data) { return {data.begin(), data.end()}; }

const std::error_code io_error = std::make_error_code(std::errc::io_error);

}  // namespace

// Not in the header, where each user would compile them.
static_assert(vmsuperio::Writer<vmsuperio::RateLimitedWriter<vmsuperio::NullWriter>>);
static_assert(vmsuperio::Writer<vmsuperio::TeeWriter<vmsuperio::NullWriter, vmsuperio::BufferWriter>>);

TEST_CASE("NullWriter: it takes everything", "[writer]") {
    vmsuperio::NullWriter writer;
    CHECK(writer.write(bytes("abc")) == std::size_t{3});
    CHECK(writer.write({}) == std::size_t{0});
}

TEST_CASE("BufferWriter: it keeps everything", "[writer]") {
    vmsuperio::BufferWriter writer;
    CHECK(writer.write(bytes("abc")) == std::size_t{3});
    CHECK(writer.write({}) == std::size_t{0});
    CHECK(writer.write(bytes("de")) == std::size_t{2});
    CHECK(writer.text() == "abcde");
    CHECK(writer.bytes() == bytes("abcde"));
    writer.clear();
    CHECK(writer.text().empty());
}

TEST_CASE("RingWriter: it keeps the newest bytes and counts the others", "[writer][ring]") {
    vmsuperio::RingWriter ring(4);
    CHECK(ring.capacity() == 4);
    CHECK(ring.write(bytes("abc")) == std::size_t{3});
    CHECK(text(ring.bytes()) == "abc");
    CHECK(ring.dropped() == 0);
    CHECK(ring.write(bytes("de")) == std::size_t{2});
    CHECK(text(ring.bytes()) == "bcde");
    CHECK(ring.dropped() == 1);
    CHECK(ring.write(bytes("0123456789")) == std::size_t{10});
    CHECK(text(ring.bytes()) == "6789");
    CHECK(ring.dropped() == 11);
    CHECK(ring.size() == 4);
    ring.clear();
    CHECK(ring.bytes().empty());
    CHECK(ring.dropped() == 11);
    CHECK(ring.write({}) == std::size_t{0});

    vmsuperio::RingWriter none(0);
    CHECK(none.write(bytes("abc")) == std::size_t{3});
    CHECK(none.bytes().empty());
    CHECK(none.dropped() == 3);
}

TEST_CASE("RingWriter: after any sequence of writes it contains the end of all bytes",
          "[writer][ring][property]") {
    std::mt19937 random(1);
    for (const std::size_t capacity : {1U, 2U, 7U, 64U}) {
        vmsuperio::RingWriter ring(capacity);
        std::string whole;
        for (int i = 0; i < 500; ++i) {
            std::string part(random() % (2 * capacity + 2), '\0');
            for (char& c : part) {
                c = static_cast<char>(random());
            }
            REQUIRE(ring.write(bytes(part)) == part.size());
            whole += part;
            const std::size_t kept = std::min(whole.size(), capacity);
            REQUIRE(text(ring.bytes()) == whole.substr(whole.size() - kept));
            REQUIRE(ring.dropped() == whole.size() - kept);
        }
    }
}

TEST_CASE("WriterRef: it writes to the writer it refers to", "[writer]") {
    RecordingWriter sink{.room = 2};
    vmsuperio::WriterRef writer(sink);
    auto copy = writer;
    CHECK(writer.write(bytes("abc")) == std::size_t{2});
    CHECK(copy.write(bytes("c")) == std::size_t{0});
    CHECK(sink.output == "ab");
}

TEST_CASE("TeeWriter: the first writer leads and the others follow", "[writer][tee]") {
    vmsuperio::TeeWriter tee(RecordingWriter{.room = 5}, RecordingWriter{.room = 3},
                             vmsuperio::BufferWriter{});
    CHECK(tee.write(bytes("abcd")) == std::size_t{4});
    CHECK(tee.write(bytes("efg")) == std::size_t{1});
    CHECK(tee.write(bytes("fg")) == std::size_t{0});
    CHECK(tee.get<0>().output == "abcde");
    CHECK(tee.get<1>().output == "abc");
    CHECK(tee.get<2>().text() == "abcde");  // no byte twice
    CHECK(tee.dropped(0) == 0);
    CHECK(tee.dropped(1) == 2);
    CHECK(tee.dropped(2) == 0);
    CHECK(tee.dropped(3) == 0);
    const auto& fixed = tee;
    CHECK(&fixed.get<0>() == &tee.get<0>());
    CHECK(&fixed.get<1>() == &tee.get<1>());
    CHECK(&fixed.get<2>() == &tee.get<2>());
}

TEST_CASE("TeeWriter: only the leader's error counts", "[writer][tee]") {
    vmsuperio::TeeWriter tee(RecordingWriter{}, RecordingWriter{.writer_error = io_error});
    CHECK(tee.write(bytes("abc")) == std::size_t{3});
    CHECK(tee.dropped(1) == 3);
    tee.get<0>().writer_error = io_error;
    tee.get<1>().writer_error.clear();
    const auto failed = tee.write(bytes("de"));
    REQUIRE_FALSE(failed.has_value());
    CHECK(failed.error() == std::errc::io_error);
    CHECK(tee.get<1>().output.empty());
    CHECK(tee.dropped(1) == 3);
    vmsuperio::TeeWriter alone(RecordingWriter{.room = 1});
    CHECK(alone.write(bytes("ab")) == std::size_t{1});
}

TEST_CASE("RateLimitedWriter: a burst passes, then the rate applies; the excess is counted",
          "[writer][rate]") {
    vmsuperio::ManualClock clock;
    vmsuperio::RateLimitedWriter writer(RecordingWriter{}, RateLimit{.bytes_per_second = 10, .burst = 5},
                                        vmsuperio::ClockRef(clock));
    CHECK(writer.write(bytes("abcdefgh")) == std::size_t{8});
    CHECK(writer.inner().output == "abcde");
    CHECK(writer.dropped() == 3);
    CHECK(writer.ready_in() == 100ms);
    clock.advance(99ms);
    CHECK(writer.write(bytes("i")) == std::size_t{1});
    CHECK(writer.dropped() == 4);
    CHECK(writer.ready_in() == 1ms);
    clock.advance(1ms);
    CHECK(writer.ready_in() == 0ns);
    CHECK(writer.write(bytes("jk")) == std::size_t{2});
    CHECK(writer.inner().output == "abcdej");
    clock.advance(1h);  // the bucket is full: no more than a burst
    CHECK(writer.write(bytes("0123456789")) == std::size_t{10});
    CHECK(writer.inner().output == "abcdej01234");
    CHECK(writer.dropped() == 10);
}

TEST_CASE("RateLimitedWriter: no byte is written a nanosecond too early", "[writer][rate]") {
    vmsuperio::ManualClock clock;
    vmsuperio::RateLimitedWriter writer(
        RecordingWriter{}, RateLimit{.bytes_per_second = 3, .burst = 1, .mode = RateLimitMode::hold},
        vmsuperio::ClockRef(clock));
    CHECK(writer.write(bytes("abc")) == std::size_t{1});
    CHECK(writer.ready_in() == 333'333'334ns);
    clock.advance(333'333'333ns);
    CHECK(writer.write(bytes("bc")) == std::size_t{0});
    CHECK(writer.ready_in() == 1ns);
    clock.advance(1ns);
    CHECK(writer.write(bytes("bc")) == std::size_t{1});
}

TEST_CASE("RateLimitedWriter: holding takes nothing beyond the rate and loses nothing", "[writer][rate]") {
    vmsuperio::ManualClock clock;
    vmsuperio::RateLimitedWriter writer(
        RecordingWriter{}, RateLimit{.bytes_per_second = 10, .burst = 5, .mode = RateLimitMode::hold},
        vmsuperio::ClockRef(clock));
    std::string_view rest = "abcdefghijklmnopqrstuvwxyz";
    int waits = 0;
    while (!rest.empty()) {
        const auto taken = writer.write(bytes(rest));
        REQUIRE(taken.has_value());
        rest.remove_prefix(*taken);
        if (*taken == 0) {
            clock.advance(writer.ready_in());
            ++waits;
        }
    }
    CHECK(writer.inner().output == "abcdefghijklmnopqrstuvwxyz");
    CHECK(writer.dropped() == 0);
    CHECK(waits == 21);
    CHECK(clock.now().time_since_epoch() == 2100ms);
}

TEST_CASE("RateLimitedWriter: bytes that the inner writer does not take cost nothing", "[writer][rate]") {
    const vmsuperio::ManualClock clock;
    vmsuperio::RateLimitedWriter writer(
        RecordingWriter{.room = 2}, RateLimit{.bytes_per_second = 1, .burst = 5}, vmsuperio::ClockRef(clock));
    CHECK(writer.write(bytes("abcdefgh")) == std::size_t{2});  // full, so the bytes are held, not dropped
    CHECK(writer.dropped() == 0);
    writer.inner().writer_error = io_error;
    CHECK_FALSE(writer.write(bytes("c")).has_value());
    writer.inner().writer_error.clear();
    writer.inner().room = 10;
    CHECK(writer.write(bytes("cdef")) == std::size_t{4});
    CHECK(writer.inner().output == "abcde");
    CHECK(writer.dropped() == 1);
}

TEST_CASE("RateLimitedWriter: it works with any clock and any limit", "[writer][rate][hostile]") {
    constexpr auto most = std::numeric_limits<std::uint32_t>::max();
    const std::chrono::nanoseconds times[] = {0ns,
                                              1ns,
                                              -1ns,
                                              std::chrono::nanoseconds::max(),
                                              std::chrono::nanoseconds::min(),
                                              1s,
                                              -1s,
                                              std::chrono::nanoseconds::max(),
                                              0ns};
    for (const std::uint32_t rate :
         {std::uint32_t{0}, std::uint32_t{1}, std::uint32_t{1'000'000'000}, most}) {
        for (const std::uint32_t burst : {std::uint32_t{0}, std::uint32_t{1}, most}) {
            vmsuperio::ManualClock clock;
            vmsuperio::RateLimitedWriter writer(RecordingWriter{.room = 1000},
                                                RateLimit{rate, burst, RateLimitMode::hold},
                                                vmsuperio::ClockRef(clock));
            for (const auto time : times) {
                clock.set(time);
                const auto taken = writer.write(bytes("abc"));
                REQUIRE(taken.has_value());
                REQUIRE(*taken <= std::min<std::size_t>(3, burst));
                REQUIRE(writer.ready_in() >= 0ns);
            }
            if (burst == 0 || (rate == 0 && burst == 1)) {
                CHECK(writer.ready_in() == std::chrono::nanoseconds::max());
            }
        }
    }
    // A clock that goes backwards adds nothing.
    vmsuperio::ManualClock clock(10s);
    vmsuperio::RateLimitedWriter writer(
        RecordingWriter{}, RateLimit{.bytes_per_second = 1, .burst = 1, .mode = RateLimitMode::hold},
        vmsuperio::ClockRef(clock));
    CHECK(writer.write(bytes("ab")) == std::size_t{1});
    clock.set(0s);
    CHECK(writer.write(bytes("b")) == std::size_t{0});
    clock.set(1s);
    CHECK(writer.write(bytes("b")) == std::size_t{1});
}

TEST_CASE("RateLimitedWriter: it runs on the steady clock by default", "[writer][rate]") {
    vmsuperio::RateLimitedWriter writer(vmsuperio::NullWriter{},
                                        RateLimit{.bytes_per_second = 1, .burst = 3});
    static_assert(
        std::is_same_v<decltype(writer),
                       vmsuperio::RateLimitedWriter<vmsuperio::NullWriter, vmsuperio::SteadyClock>>);
    CHECK(writer.write(bytes("abcdef")) == std::size_t{6});
    CHECK(writer.dropped() == 3);
}
