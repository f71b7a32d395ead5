// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
// The arguments of all devices are in the same order: trigger, events, clock, options.
#include <vmsuperio/rtc_cmos.hpp>

struct Events {
    void shutdown_status(unsigned char) {}
};
const vmsuperio::ManualClock clock_of_the_test;
#if defined(REJECT)
vmsuperio::RtcCmos rtc(vmsuperio::NullTrigger{}, clock_of_the_test, Events{});
#else
vmsuperio::RtcCmos rtc(vmsuperio::NullTrigger{}, Events{}, clock_of_the_test);
#endif
