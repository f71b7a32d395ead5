// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
// An optional event with other arguments would never be called: it does not compile.
#include <vmsuperio/rtc_pl031.hpp>

struct Events {
#if defined(REJECT)
    void time_changed() {}
#else
    void time_changed(std::chrono::seconds) {}
#endif
};

const vmsuperio::RtcPl031 rtc(vmsuperio::NullTrigger{}, Events{});
