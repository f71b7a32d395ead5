// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
// The arguments of all devices are in the same order: trigger, events, clock.
#include <vmsuperio/rtc_pl031.hpp>

struct Events {
    void invalid_read() {}
};
const vmsuperio::ManualClock clock_of_the_test;
#if defined(REJECT)
vmsuperio::RtcPl031 rtc(Events{}, clock_of_the_test, vmsuperio::NullTrigger{});
#else
vmsuperio::RtcPl031 rtc(vmsuperio::NullTrigger{}, Events{}, clock_of_the_test);
#endif
