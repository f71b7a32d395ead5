// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
// A reference to events has every optional event itself, and must not hide a wrong signature.
#include <vmsuperio/serial.hpp>

struct Events : vmsuperio::NoEvents {
#if defined(REJECT)
    void break_control() {}
#else
    void break_control(bool) {}
#endif
};

using Ref = vmsuperio::EventsRef<Events>;
static_assert(sizeof(Ref) != 0);
