// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
#include "vmm/halt_pace.hpp"

#include <algorithm>
#include <chrono>
#include <utility>
#include <vector>

#include "catch.hpp"

using kvm_vmm::HaltPace;
using namespace std::chrono_literals;

namespace {

/// Follows the pace with a guest that uses `share` of the time, and for each check 50 us.
class Guest {
public:
    HaltPace::Look look(double share) {
        used_ += std::chrono::duration_cast<HaltPace::Time>(share * next_);
        now_ += next_;
        const HaltPace::Look look = pace.look(used_);
        used_ += look.check ? HaltPace::Time(50us) : HaltPace::Time{};
        next_ = look.next;
        looks += 1;
        checks += look.check ? 1 : 0;
        return look;
    }
    void run(HaltPace::Time time, double share) {
        for (const HaltPace::Time end = now_ + time; now_ + next_ < end;) {
            (void)look(share);
        }
    }
    void wake() {
        pace.wake();
        next_ = HaltPace::shortest;
    }

    HaltPace pace;
    int looks{0};
    int checks{0};

private:
    HaltPace::Time now_{};
    HaltPace::Time used_{};
    HaltPace::Time next_{HaltPace::shortest};
};

}  // namespace

TEST_CASE("Halt pace: a busy guest is looked at every 20 ms, never checked, and never at rest", "[halt]") {
    Guest guest;
    guest.run(10s, 0.9);
    CHECK(guest.looks >= 499);
    CHECK(guest.checks == 0);
    CHECK_FALSE(guest.pace.resting());
}

TEST_CASE("Halt pace: a guest that halts after it was busy is checked at the next look", "[halt]") {
    Guest guest;
    guest.run(1s, 1);
    CHECK_FALSE(guest.look(0.5).check);
    const HaltPace::Look look = guest.look(0);
    CHECK(look.check);
    CHECK(look.next == HaltPace::answer_time);
    CHECK_FALSE(guest.look(0).check);
}

TEST_CASE("Halt pace: a guest that is idle from the start is checked once, and soon not looked at any more",
          "[halt]") {
    Guest guest;
    guest.run(11s, 0);
    CHECK(guest.checks == 1);
    CHECK(guest.looks <= 12);
    CHECK(guest.pace.resting());
    const int before = guest.looks;
    guest.run(100s, 0);
    CHECK(guest.looks - before <= 11);
    CHECK(guest.checks == 1);
}

TEST_CASE("Halt pace: a guest that idles with a periodic timer comes to rest too", "[halt]") {
    Guest guest;
    guest.run(10s, 0.01);
    CHECK(guest.pace.resting());
    const int before = guest.looks;
    guest.run(100s, 0.01);
    CHECK(guest.looks - before <= 22);
}

TEST_CASE("Halt pace: a guest that halts at rest is checked within the longest interval", "[halt]") {
    Guest guest;
    guest.run(60s, 0.01);
    REQUIRE(guest.checks == 0);
    (void)guest.look(0.01);
    int looks = 0;
    while (!guest.look(0).check) {
        REQUIRE(++looks <= 1);
    }
}

TEST_CASE("Halt pace: the return of a CPU ends the rest", "[halt]") {
    Guest guest;
    guest.run(60s, 0);
    REQUIRE(guest.pace.resting());
    guest.wake();
    CHECK_FALSE(guest.pace.resting());
    CHECK_FALSE(guest.look(0.001).check);
    CHECK(guest.look(0).check);
    CHECK_FALSE(guest.pace.resting());
}

TEST_CASE("Halt pace: a guest that becomes busy in a long interval is looked at every 20 ms again",
          "[halt]") {
    Guest guest;
    guest.run(60s, 0);
    CHECK(guest.look(0.5).next == HaltPace::shortest);
    CHECK_FALSE(guest.pace.resting());
}

TEST_CASE("Halt pace: a guest that runs while it is checked is checked again", "[halt]") {
    Guest guest;
    guest.run(1s, 1);
    REQUIRE(guest.look(0).check);
    CHECK_FALSE(guest.look(0.9).check);
    CHECK(guest.look(0).check);
}

TEST_CASE(
    "Halt pace: the guest is at rest from the interval of 320 ms on, and looks are never more than 10.24 s "
    "apart",
    "[halt]") {
    HaltPace pace;
    HaltPace::Time now{};
    HaltPace::Time next = HaltPace::shortest;
    std::vector<HaltPace::Time> intervals;
    bool rested = false;
    for (int i = 0; i < 20; ++i) {
        now += next;
        const HaltPace::Look look = pace.look({});
        next = look.next;
        if (look.check) {
            continue;
        }
        // At rest exactly if the interval says so.
        CHECK(pace.resting() == (look.next >= HaltPace::rest_after));
        if (pace.resting() && !rested) {
            rested = true;
            CHECK(look.next == HaltPace::rest_after);
            CHECK(now <= 700ms);  // 20 + 40 + ... + 320 ms, and the check
        }
        intervals.push_back(look.next);
    }
    CHECK(rested);
    CHECK(std::ranges::is_sorted(intervals));
    CHECK(intervals.back() == HaltPace::longest);
    CHECK(intervals.back() == 10'240ms);
}

TEST_CASE("Halt pace: an eighth of the time is busy, a little less is not", "[halt]") {
    for (const bool busy : {false, true}) {
        HaltPace pace;
        HaltPace::Time used{};
        HaltPace::Time next = HaltPace::shortest;
        for (int i = 0; i < 100; ++i) {
            used += next / 8 - (busy ? 0ns : 1ns);
            const HaltPace::Look look = pace.look(used);
            CHECK_FALSE(look.check);
            next = look.next;
            if (busy) {
                REQUIRE(next == HaltPace::shortest);
            }
        }
        CHECK(pace.resting() == !busy);
    }
}

TEST_CASE("Halt pace: the time that a check takes causes no other one, but more than that does", "[halt]") {
    for (const auto& [used_by_check, again] : {std::pair{499us, false}, std::pair{500us, true}}) {
        HaltPace pace;
        (void)pace.look(20ms);
        REQUIRE(pace.look(20ms).check);
        CHECK_FALSE(pace.look(20ms + used_by_check).check);
        CHECK(pace.look(20ms + used_by_check).check == again);
    }
}
