// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
// Declarations that the fragments of include/vmsuperio/registers/register.hpp use.
#pragma once

#include <cstdint>
#include <string_view>

#include <vmsuperio/registers/register.hpp>

using namespace vmsuperio;
