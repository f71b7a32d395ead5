// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
#pragma once

/// The test framework: Catch2 2.13, or 3 if that is installed.

#if __has_include(<catch2/catch_all.hpp>)
#include <catch2/catch_all.hpp>
#else
#include <catch2/catch.hpp>
#endif

#include <cstdio>

#include "states.hpp"

/// Ends the test case as skipped and prints the reason (Catch2 2 has no SKIP; CTest reads the line).
#define VMSUPERIO_SKIP(reason)                    \
    do {                                          \
        std::printf("\nSKIPPED: %s\n", (reason)); \
        std::fflush(stdout);                      \
        return;                                   \
    } while (false)
