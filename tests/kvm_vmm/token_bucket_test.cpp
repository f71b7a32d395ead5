// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
#include "util/token_bucket.hpp"

#include <chrono>
#include <cstdint>
#include <random>

#include "catch.hpp"

using kvm_vmm::TokenBucket;
using namespace std::chrono_literals;

TEST_CASE("Token bucket: the burst is there at once, then the rate", "[token_bucket]") {
    TokenBucket bucket(10, 3, 100s);
    CHECK(bucket.try_take(1, 100s));
    CHECK(bucket.try_take(1, 100s));
    CHECK(bucket.try_take(1, 100s));
    CHECK_FALSE(bucket.try_take(1, 100s));
    CHECK_FALSE(bucket.try_take(1, 100s + 99ms));
    CHECK(bucket.try_take(1, 100s + 100ms));
    CHECK_FALSE(bucket.try_take(1, 100s + 199ms));
    CHECK(bucket.try_take(1, 100s + 200ms));
}

TEST_CASE("Token bucket: idle time fills it up to the burst and not further", "[token_bucket]") {
    TokenBucket bucket(1000, 5, 0s);
    CHECK(bucket.try_take(5, 0s));
    for (int i = 0; i < 5; ++i) {
        CHECK(bucket.try_take(1, 24h));
    }
    CHECK_FALSE(bucket.try_take(1, 24h));
}

TEST_CASE("Token bucket: what is larger than the burst passes, and is paid for", "[token_bucket]") {
    TokenBucket bucket(100, 10, 0s);
    CHECK(bucket.try_take(1010, 0s));
    CHECK_FALSE(bucket.try_take(1, 10s));  // the debt of 1000 is just paid
    CHECK(bucket.next(5s) > 10s);
    CHECK(bucket.next(5s) <= 10s + 10ms + 1us);
    CHECK(bucket.try_take(1, 10s + 10ms));
}

TEST_CASE("Token bucket: the time of the next token is neither too early nor late", "[token_bucket]") {
    for (const std::uint64_t rate : {1ULL, 3ULL, 7ULL, 999'999'937ULL, 1ULL << 30U, 1ULL << 31U}) {
        CAPTURE(rate);
        TokenBucket bucket(rate, 1, 0s);
        CHECK(bucket.next(0s) == 0s);
        CHECK(bucket.try_take(rate * 2, 0s));
        const auto when = bucket.next(0s);
        CHECK(when >= 2s);
        CHECK(when <= 3s + 2ns);
        CHECK_FALSE(bucket.try_take(1, 1s + 900ms));
        CHECK(bucket.try_take(1, when));
    }
}

TEST_CASE("Token bucket: tokens that were not used are returned", "[token_bucket]") {
    TokenBucket bucket(10, 4, 0s);
    CHECK(bucket.try_take(4, 0s));
    CHECK_FALSE(bucket.try_take(1, 0s));
    bucket.give_back(2);
    CHECK(bucket.try_take(2, 0s));
    CHECK_FALSE(bucket.try_take(1, 0s));
    bucket.give_back(100);
    CHECK(bucket.try_take(4, 0s));
    CHECK_FALSE(bucket.try_take(1, 0s));
}

TEST_CASE("Token bucket: a clock that steps back neither fills nor blocks it", "[token_bucket]") {
    TokenBucket bucket(10, 1, 100s);
    CHECK(bucket.try_take(1, 100s));
    CHECK_FALSE(bucket.try_take(1, 50s));
    CHECK(bucket.try_take(1, 100s + 100ms));
    CHECK_FALSE(bucket.try_take(1, 100s + 100ms));
}

TEST_CASE("Token bucket: the average is the rate, however often it is asked", "[token_bucket]") {
    constexpr std::uint64_t rate = 1'000'003;
    TokenBucket bucket(rate, 1, 0s);
    std::mt19937 random(1);  // NOLINT(cert-msc32-c,cert-msc51-cpp): the same in each run
    std::uint64_t taken = 0;
    std::chrono::nanoseconds now{};
    while (now < 10s) {
        now += std::chrono::nanoseconds(1 + random() % 2000);
        taken += bucket.try_take(1, now) ? 1U : 0U;
    }
    CHECK(taken <= 10 * rate + 2);
    // With one token of burst, what falls due while the bucket is full is lost; the steps are short enough.
    TokenBucket with_burst(rate, 1000, 0s);
    taken = 0;
    for (now = 0s; now < 10s;) {
        now += std::chrono::nanoseconds(1 + random() % 2000);
        while (with_burst.try_take(1, now)) {
            ++taken;
        }
    }
    CHECK(taken >= 10 * rate);
    CHECK(taken <= 10 * rate + 1005);
}

TEST_CASE("Token bucket: the extremes do not overflow", "[token_bucket]") {
    constexpr std::uint64_t most = 1ULL << 60U;
    TokenBucket bucket(most, most, 0s);
    CHECK(bucket.try_take(most, 0s));
    CHECK(bucket.try_take(1, 1'000'000h));
    TokenBucket slow(1, 1, 0s);
    CHECK(slow.try_take(1ULL << 32U, 0s));
    CHECK_FALSE(slow.try_take(1, 24h));
    CHECK(slow.next(24h) > 24h);
}
