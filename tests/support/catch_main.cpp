// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
#if !__has_include(<catch2/catch_all.hpp>)
#define CATCH_CONFIG_RUNNER
#endif
#include "catch.hpp"
#include "inherited_state.hpp"

int main(int argc, char** argv) {
    test_support::forget_inherited_state();
    return Catch::Session().run(argc, argv);
}
