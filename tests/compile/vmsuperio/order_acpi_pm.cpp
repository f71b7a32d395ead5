// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
// The arguments of all devices are in the same order: trigger, events, clock, options.
#include <vmsuperio/acpi_pm.hpp>

struct Events {
    void power_off() {}
};
const vmsuperio::ManualClock clock_of_the_test;
#if defined(REJECT)
vmsuperio::AcpiPm pm(vmsuperio::NullTrigger{}, clock_of_the_test, Events{});
#else
vmsuperio::AcpiPm pm(vmsuperio::NullTrigger{}, Events{}, clock_of_the_test);
#endif
