// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
// Declarations that the fragments of examples/kvm_vmm/src/acpi/aml.hpp use.
#pragma once

#include "acpi/aml.hpp"

using namespace kvm_vmm;
