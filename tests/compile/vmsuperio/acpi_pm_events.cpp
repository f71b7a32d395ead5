// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
// power_off is required, so that a guest's request is not lost.
#include <vmsuperio/acpi_pm.hpp>

struct Events {
#if defined(REJECT)
    void poweroff() {}
#else
    void power_off() {}
#endif
};

using Power = vmsuperio::AcpiPm<vmsuperio::NullTrigger, Events>;
static_assert(sizeof(Power) != 0);
