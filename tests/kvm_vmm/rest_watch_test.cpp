// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
#include "vmm/rest_watch.hpp"

#include <atomic>
#include <poll.h>
#include <thread>
#include <vector>

#include "catch.hpp"

using kvm_vmm::RestWatch;

namespace {

bool notified(const RestWatch& watch) {
    pollfd entry{.fd = watch.fd(), .events = POLLIN, .revents = 0};
    return ::poll(&entry, 1, 0) == 1;
}

}  // namespace

TEST_CASE("RestWatch: a return notifies once for each rest, and not while the guest is active", "[halt]") {
    RestWatch watch;
    watch.on_return();
    CHECK_FALSE(notified(watch));
    for (int rest = 0; rest < 3; ++rest) {
        watch.start();
        CHECK_FALSE(notified(watch));
        watch.on_return();
        CHECK(notified(watch));
        watch.on_return();
        watch.stop();  // receives the notification
        CHECK_FALSE(notified(watch));
        watch.on_return();
        CHECK_FALSE(notified(watch));
    }
}

TEST_CASE("RestWatch: a rest that ends without a return leaves no notification behind", "[halt]") {
    RestWatch watch;
    watch.start();
    watch.stop();
    watch.on_return();
    CHECK_FALSE(notified(watch));
    // A return between the end of the rest and its reception is of the rest that has ended.
    watch.start();
    watch.on_return();
    watch.stop();
    watch.start();
    CHECK_FALSE(notified(watch));
    watch.on_return();
    CHECK(notified(watch));
}

TEST_CASE("RestWatch: several CPUs that return at once notify, in each rest", "[halt]") {
    RestWatch watch;
    std::atomic<bool> done{false};
    std::atomic<int> returns{0};
    std::vector<std::jthread> cpus;
    for (int cpu = 0; cpu < 3; ++cpu) {
        cpus.emplace_back([&] {
            while (!done) {
                ++returns;
                watch.on_return();
                std::this_thread::yield();
            }
        });
    }
    for (int rest = 0; rest < 200; ++rest) {
        watch.start();
        pollfd entry{.fd = watch.fd(), .events = POLLIN, .revents = 0};
        REQUIRE(::poll(&entry, 1, 10'000) == 1);  // none is lost
        watch.stop();
    }
    done = true;
    CHECK(returns >= 200);
}
