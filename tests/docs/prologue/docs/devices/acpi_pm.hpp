// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
// Declarations that the fragments of docs/devices/acpi_pm.md use.
#pragma once

#include <cstdint>

#include <vmsuperio/vmsuperio.hpp>

namespace snippets {
extern vmsuperio::NullTrigger sci;
extern vmsuperio::SteadyClock clock;
}  // namespace snippets
