// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
// An optional event with other arguments would never be called: it does not compile.
#include <vmsuperio/reset_control.hpp>

struct Events {
#if defined(REJECT)
    void reset_requested() {}
#else
    void reset_requested(vmsuperio::ResetKind) {}
#endif
};

const vmsuperio::ResetControl port(vmsuperio::NullTrigger{}, Events{});
