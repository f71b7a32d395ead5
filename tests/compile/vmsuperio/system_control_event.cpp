// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
// An optional event with other arguments would never be called: it does not compile.
#include <vmsuperio/reset_control.hpp>

struct Events {
#if defined(REJECT)
    void a20_changed(const char*) {}
#else
    void a20_changed(bool) {}
#endif
};

const vmsuperio::SystemControlPortA port(vmsuperio::NullTrigger{}, Events{});
