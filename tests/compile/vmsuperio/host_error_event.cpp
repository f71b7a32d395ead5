// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
// An optional event with other arguments would never be called: it does not compile.
#include <vmsuperio/i8042.hpp>

struct Events {
#if defined(REJECT)
    void host_error() {}
#else
    void host_error(vmsuperio::HostErrorSource) {}
#endif
};

using vmsuperio::NullTrigger;
const vmsuperio::I8042 keyboard(NullTrigger{}, NullTrigger{}, NullTrigger{}, Events{});
