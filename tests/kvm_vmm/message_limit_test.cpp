// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
#include "util/message_limit.hpp"

#include <chrono>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "catch.hpp"

using namespace std::chrono_literals;
using kvm_vmm::MessageLimit;

namespace {

struct Limited {
    MessageLimit limit;
    MessageLimit::Time now{std::chrono::hours(1)};
    std::vector<std::string> summaries;

    bool here(std::string_view message = "a message") {
        return limit.admit(std::source_location::current(), 1, message, now);
    }
    bool there() { return limit.admit(std::source_location::current(), 2, "another place", now); }
    void summarize(bool all = false) {
        limit.summarize(now, all, [this](const MessageLimit::Summary& summary) {
            summaries.push_back(std::to_string(summary.left_out) + " at level " +
                                std::to_string(summary.level) + ": " + std::string(summary.sample));
        });
    }
};

}  // namespace

TEST_CASE("Message limit: ten messages from one call pass in five seconds, and the others are counted",
          "[log]") {
    Limited log;
    for (int i = 0; i < 10; ++i) {
        CHECK(log.here());
    }
    for (int i = 0; i < 7; ++i) {
        CHECK_FALSE(log.here("the last one"));
    }
    // Another call is not affected.
    CHECK(log.there());
    log.now += 5s - 1ns;
    CHECK_FALSE(log.here());
    log.summarize();
    CHECK(log.summaries.empty());
    log.now += 1ns;
    log.summarize();
    CHECK(log.summaries == std::vector<std::string>{"8 at level 1: a message"});
    log.summarize();
    CHECK(log.summaries.size() == 1);
    // In the next window ten messages pass again.
    for (int i = 0; i < 10; ++i) {
        CHECK(log.here());
    }
    CHECK_FALSE(log.here());
}

TEST_CASE("Message limit: after a window that left messages out, no message passes before the summary",
          "[log]") {
    Limited log;
    for (int i = 0; i < 12; ++i) {
        (void)log.here();
    }
    log.now += 1h;
    CHECK_FALSE(log.here());  // it would precede the summary of earlier messages
    log.summarize();
    CHECK(log.summaries == std::vector<std::string>{"3 at level 1: a message"});
    CHECK(log.here());
}

TEST_CASE("Message limit: at the end, the messages left out in the current window are summarized too",
          "[log]") {
    Limited log;
    for (int i = 0; i < 11; ++i) {
        (void)log.here(std::string(200, 'x'));
    }
    log.summarize();
    CHECK(log.summaries.empty());
    log.summarize(true);
    REQUIRE(log.summaries.size() == 1);
    CHECK(log.summaries[0] == "1 at level 1: " + std::string(MessageLimit::sample_size, 'x'));
}

TEST_CASE("Message limit: infrequent messages are never limited, however long they continue", "[log]") {
    Limited log;
    for (int i = 0; i < 1000; ++i) {
        REQUIRE(log.here());
        log.now += 501ms;
    }
    log.summarize(true);
    CHECK(log.summaries.empty());
}

TEST_CASE("Message limit: from several threads at once, not one message is lost from the count", "[log]") {
    const auto limit = std::make_unique<MessageLimit>();
    const MessageLimit::Time now{std::chrono::hours(1)};
    std::atomic<unsigned> passed{0};
    {
        std::vector<std::jthread> threads;
        for (int t = 0; t < 4; ++t) {
            threads.emplace_back([&] {
                for (int i = 0; i < 1000; ++i) {
                    passed += limit->admit(std::source_location::current(), 0, "m", now) ? 1U : 0U;
                }
            });
        }
    }
    unsigned left_out = 0;
    limit->summarize(now, true, [&](const MessageLimit::Summary& summary) { left_out += summary.left_out; });
    CHECK(passed + left_out == 4000);
    // If two threads are first at the same time, each may open an entry; more entries are unlikely.
    CHECK(passed <= 4 * MessageLimit::most);
    CHECK(passed >= MessageLimit::most);
}
