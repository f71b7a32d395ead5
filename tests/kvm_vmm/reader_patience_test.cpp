// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
#include "console/reader_patience.hpp"

#include <chrono>
#include <cstddef>

#include "catch.hpp"

using kvm_vmm::ReaderPatience;
using namespace std::chrono_literals;

TEST_CASE("ReaderPatience: without remaining output there is no wait", "[console]") {
    const ReaderPatience::Time start{};
    ReaderPatience patience(100, start);
    CHECK(patience.waits_for(100, start));
    CHECK_FALSE(patience.waits_for(0, start + 1s));
}

TEST_CASE("ReaderPatience: a reader that takes nothing is waited for 30 seconds", "[console]") {
    const ReaderPatience::Time start{};
    ReaderPatience patience(100, start);
    CHECK(patience.waits_for(100, start + 29'999ms));
    CHECK_FALSE(patience.waits_for(100, start + 30s));
}

TEST_CASE("ReaderPatience: each byte taken starts the 30 seconds again", "[console]") {
    const ReaderPatience::Time start{};
    ReaderPatience patience(100, start);
    CHECK(patience.waits_for(99, start + 29s));
    CHECK(patience.waits_for(99, start + 58s));
    CHECK(patience.waits_for(98, start + 58'900ms));
    CHECK(patience.waits_for(98, start + 88s));
    CHECK_FALSE(patience.waits_for(98, start + 88'900ms));
}

TEST_CASE("ReaderPatience: a reader that takes a little now and then is waited for 2 minutes in all",
          "[console]") {
    const ReaderPatience::Time start{};
    std::size_t left = 1'000'000;
    ReaderPatience patience(left, start);
    std::chrono::seconds waited{0};
    while (patience.waits_for(left, start + waited)) {
        REQUIRE(waited < 10min);
        waited += 8s;
        left -= 4096;
    }
    CHECK(waited == 120s);
}
