// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
// The template's parameters are in the order of the constructor's.
#include <vmsuperio/rtc_pl031.hpp>

#if defined(REJECT)
using Rtc = vmsuperio::RtcPl031<vmsuperio::NoRtcPl031Events, vmsuperio::ManualClock, vmsuperio::NullTrigger>;
#else
using Rtc = vmsuperio::RtcPl031<vmsuperio::NullTrigger, vmsuperio::NoRtcPl031Events, vmsuperio::ManualClock>;
#endif
static_assert(sizeof(Rtc) != 0);
