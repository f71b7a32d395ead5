// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
// The accesses of systems to the MC146818. Each case names the driver and the function that it follows; the
// cases were written from the published sources, not copied.
#include <array>
#include <chrono>
#include <cstdint>

#include <vmsuperio/rtc_cmos.hpp>

#include "catch.hpp"
#include "recorders.hpp"

using namespace std::chrono_literals;
using recorders::CountingTrigger;
using std::chrono::seconds;
using vmsuperio::ClockRef;
using vmsuperio::ManualClock;
using vmsuperio::RtcCmos;

namespace {

// 2024-06-11 13:45:30
constexpr seconds start{1'718'113'530};

struct Pc {
    int irqs{};
    ManualClock clock{start};
    RtcCmos<CountingTrigger, vmsuperio::NoRtcCmosEvents, ClockRef<ManualClock>> dev{CountingTrigger{&irqs},
                                                                                    ClockRef(clock)};

    Pc() = default;
    Pc(const Pc&) = delete;
    Pc& operator=(const Pc&) = delete;

    // Each access of a guest takes about a microsecond.
    std::uint8_t get(int index) {
        clock.advance(1us);
        CHECK(dev.write(0, static_cast<std::uint8_t>(index)));
        return dev.read(1);
    }
    void put(int index, int value) {
        clock.advance(1us);
        CHECK(dev.write(0, static_cast<std::uint8_t>(index)));
        CHECK(dev.write(1, static_cast<std::uint8_t>(value)));
    }
    static int from_bcd(int value) { return value / 16 * 10 + value % 16; }
};

}  // namespace

TEST_CASE("SerenityOS: the RTC timer sets its rate with the NMI masked and gets 1024 interrupts a second",
          "[rtc_cmos][client][serenity]") {
    // Kernel/Arch/x86_64/Time/RTC.cpp: RealTimeClock::RealTimeClock, try_to_set_frequency, handle_irq. The
    // indices carry bit 7, 0x8A to 0x8C.
    Pc pc;
    pc.put(0x8B, pc.get(0x0B) | 0x40);
    CHECK(pc.dev.nmi_masked());
    pc.put(0x8A, (pc.get(0x8A) & 0xF0) | 6);
    CHECK(pc.get(0x0A) == 0x26);
    int interrupts = 0;
    const auto until = pc.clock.now().time_since_epoch() + 1s;
    while (const auto deadline = pc.dev.next_deadline()) {
        if (*deadline > until) {
            break;
        }
        pc.clock.set(*deadline);
        CHECK(pc.dev.tick());
        ++interrupts;
        CHECK(pc.irqs == interrupts);
        CHECK((pc.get(0x8C) & 0xC0) == 0xC0);  // the handler: acknowledges
    }
    CHECK(interrupts >= 1023);
    CHECK(interrupts <= 1024);
    // An unserved interrupt keeps the line high: there is no further interrupt, and none is lost permanently.
    pc.clock.advance(10s);
    CHECK(pc.dev.tick());
    CHECK(pc.irqs == interrupts + 1);
    pc.clock.advance(10s);
    CHECK(pc.dev.tick());
    CHECK(pc.irqs == interrupts + 1);
}

TEST_CASE("SerenityOS: the boot time is read between updates", "[rtc_cmos][client][serenity]") {
    // Kernel/Arch/x86_64/RTC.cpp: update_in_progress, read_registers: waits while UIP is set, reads, and
    // decodes according to register B.
    Pc pc;
    pc.clock.set(start + 1s - 100us);  // within the window
    unsigned looks = 0;
    while ((pc.get(0x0A) & 0x80) != 0) {
        REQUIRE(++looks < 1000);
    }
    CHECK(looks > 0);
    const int status = pc.get(0x0B);
    CHECK((status & 0x04) == 0);
    CHECK((status & 0x02) != 0);
    CHECK(Pc::from_bcd(pc.get(0x09)) == 24);
    CHECK(Pc::from_bcd(pc.get(0x08)) == 6);
    CHECK(Pc::from_bcd(pc.get(0x07)) == 11);
    CHECK(Pc::from_bcd(pc.get(0x04)) == 13);
    CHECK(Pc::from_bcd(pc.get(0x02)) == 45);
    CHECK(Pc::from_bcd(pc.get(0x00)) == 31);
}

TEST_CASE("NetBSD: mc146818_gettime sees UIP within its million reads, mc146818_settime keeps the second",
          "[rtc_cmos][client][netbsd]") {
    // sys/dev/ic/mc146818.c, mc146818_gettime and mc146818_settime as of 2006: both wait until UIP rises,
    // because 244 us are left then, and give up after 1,000,000 reads.
    Pc pc;
    const auto wait = [&pc] {
        int left = 1'000'000;
        while ((pc.get(0x0A) & 0x80) == 0 && left > 0) {
            --left;
        }
        return left > 0;
    };
    REQUIRE(wait());
    CHECK(Pc::from_bcd(pc.get(0x00)) == 30);
    CHECK(Pc::from_bcd(pc.get(0x02)) == 45);
    CHECK(Pc::from_bcd(pc.get(0x04)) == 13);
    CHECK(Pc::from_bcd(pc.get(0x06)) == 3);  // Tuesday
    CHECK(Pc::from_bcd(pc.get(0x07)) == 11);
    CHECK(Pc::from_bcd(pc.get(0x08)) == 6);
    CHECK(Pc::from_bcd(pc.get(0x09)) == 24);

    pc.clock.advance(1s);
    REQUIRE(wait());
    const std::array<std::array<int, 2>, 7> time{
        {{0x00, 0x58}, {0x02, 0x59}, {0x04, 0x23}, {0x06, 0x03}, {0x07, 0x31}, {0x08, 0x12}, {0x09, 0x24}}};
    for (const auto& [index, value] : time) {
        pc.put(index, value);
    }
    pc.clock.advance(3s);
    CHECK(pc.get(0x00) == 0x01);
    CHECK(pc.get(0x04) == 0x00);
    CHECK(pc.get(0x07) == 0x01);
    CHECK(pc.get(0x08) == 0x01);
    CHECK(pc.get(0x09) == 0x25);
    CHECK(pc.get(0x06) == 0x04);
    CHECK(pc.get(0x32) == 0x20);
}

TEST_CASE("NetBSD: rtcinit and the valid bit", "[rtc_cmos][client][netbsd]") {
    // sys/arch/x86/isa/clock.c: rtcinit writes A with the 32 kHz base and 1024 Hz, B with 24 hours; rtcget
    // refuses a clock whose register D has no VRT.
    Pc pc;
    pc.put(0x0A, 0x26);
    pc.put(0x0B, 0x02);
    CHECK((pc.get(0x0D) & 0x80) != 0);
    CHECK_FALSE(pc.dev.next_deadline().has_value());
}

TEST_CASE("Linux: mc146818_get_time reads a second that does not change under it",
          "[rtc_cmos][client][linux]") {
    // drivers/rtc/rtc-mc146818-lib.c, mc146818_avoid_UIP: reads seconds, UIP, the rest, UIP and seconds, and
    // tries again if UIP was set or the seconds changed; a clock with which it never succeeds is refused.
    Pc pc;
    for (int round = 0; round < 5000; ++round) {
        pc.clock.advance(777us);
        int tries = 0;
        for (;; ++tries) {
            REQUIRE(tries < 10);
            const int before = pc.get(0x00);
            if ((pc.get(0x0A) & 0x80) != 0) {
                pc.clock.advance(1ms);
                continue;
            }
            if (before != pc.get(0x00)) {
                continue;
            }
            const int minute = pc.get(0x02);
            const int hour = pc.get(0x04);
            if ((pc.get(0x0A) & 0x80) != 0) {
                pc.clock.advance(1ms);
                continue;
            }
            if (before != pc.get(0x00)) {
                continue;
            }
            const auto host = std::chrono::duration_cast<seconds>(pc.clock.now().time_since_epoch());
            REQUIRE(Pc::from_bcd(before) == host.count() % 60);
            REQUIRE(Pc::from_bcd(minute) == host.count() / 60 % 60);
            REQUIRE(Pc::from_bcd(hour) == host.count() / 3600 % 24);
            break;
        }
    }
}

TEST_CASE("Linux: update interrupts without an HPET occur once a second and are acknowledged by register C",
          "[rtc_cmos][client][linux]") {
    // drivers/rtc/rtc-cmos.c: cmos_irq_enable reads C after it has set the bit in B; cmos_interrupt reads C
    // and keeps the enabled flags.
    Pc pc;
    pc.put(0x0B, pc.get(0x0B) | 0x10);
    pc.get(0x0C);
    pc.irqs = 0;
    for (int i = 1; i <= 10; ++i) {
        const auto deadline = pc.dev.next_deadline();
        REQUIRE(deadline.has_value());
        CHECK(*deadline == start + seconds(i));
        pc.clock.set(*deadline);
        CHECK(pc.dev.tick());
        CHECK(pc.irqs == i);
        CHECK((pc.get(0x0C) & 0x90) == 0x90);
        CHECK(pc.get(0x0C) == 0);
    }
}
