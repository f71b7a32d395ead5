// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//
// The entry points that a fuzzing engine calls: libFuzzer, or another one that knows its interface. Besides
// the engine's own options a target takes `--replay FILE`. Without an engine, link replay_main.cpp as well.

#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <string_view>

#include "support/report.hpp"

// libFuzzer's names.
// NOLINTBEGIN(readability-identifier-naming)
extern "C" int LLVMFuzzerInitialize(int* argc, char*** argv);
extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size);

extern "C" int LLVMFuzzerInitialize(int* argc, char*** argv) {
    if (*argc == 3 && std::string_view((*argv)[1]) == "--replay") {
        std::exit(fuzz::replay((*argv)[2]));
    }
    return 0;
}

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    fuzz::run({data, size}, false);
    return 0;
}
// NOLINTEND(readability-identifier-naming)
