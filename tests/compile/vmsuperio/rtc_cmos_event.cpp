// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
// An optional event with other arguments would never be called: it does not compile.
#include <vmsuperio/rtc_cmos.hpp>

struct Events {
#if defined(REJECT)
    void shutdown_status() {}
#else
    void shutdown_status(unsigned char) {}
#endif
};

const vmsuperio::RtcCmos rtc(vmsuperio::NullTrigger{}, Events{});
