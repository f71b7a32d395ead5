// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
#pragma once

/// Stops compilation with a readable message if the compiler or its standard library is too old. A compiler
/// continues after #error, and would report hundreds of errors that follow from it; it stops at an #include of a
/// file that does not exist.

#if !defined(__cplusplus) || __cplusplus < 202100L
#error "vmdevice needs C++23: compile with -std=c++23 (GCC 12 or later, Clang 19 or later)"
#include <vmdevice/needs_cxx23>
#else
#include <version>
#if !defined(__cpp_lib_expected)
#error "vmdevice needs std::expected: use GCC 12 or later, or Clang 19 or later with libstdc++ 12 or later"
#include <vmdevice/needs_std_expected>
#endif
#endif
