// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
// An optional event with other arguments would never be called: it does not compile.
#include <vmsuperio/acpi_pm.hpp>

struct Events {
    void power_off() {}
#if defined(REJECT)
    void sleep() {}
#else
    void sleep(std::uint8_t) {}
#endif
};

vmsuperio::AcpiPm pm(vmsuperio::NullTrigger{}, Events{});
