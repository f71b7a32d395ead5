// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
// Declarations that the fragments of docs/tutorials/add-a-device.md use.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include <vmsuperio/vmsuperio.hpp>
