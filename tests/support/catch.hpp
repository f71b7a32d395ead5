// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
#pragma once

/// The test framework: Catch2 2.13, or 3 where that is installed.

#if __has_include(<catch2/catch_all.hpp>)
#include <catch2/catch_all.hpp>
#else
#include <catch2/catch.hpp>
#endif

#include <cstdio>

#include "states.hpp"

/// Ends the test case as skipped, saying why (Catch2 2 has no SKIP of its own; CTest reads the line).
#define VMSUPERIO_SKIP(reason)                    \
    do {                                          \
        std::printf("\nSKIPPED: %s\n", (reason)); \
        std::fflush(stdout);                      \
        return;                                   \
    } while (false)
