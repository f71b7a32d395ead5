// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
// The template's parameters are in the order of the constructor's.
#include <vmsuperio/rtc_cmos.hpp>

#if defined(REJECT)
using Rtc = vmsuperio::RtcCmos<vmsuperio::NullTrigger, vmsuperio::ManualClock>;
#else
using Rtc = vmsuperio::RtcCmos<vmsuperio::NullTrigger, vmsuperio::NoRtcCmosEvents, vmsuperio::ManualClock>;
#endif
static_assert(sizeof(Rtc) != 0);
