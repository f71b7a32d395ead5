// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
// Part of each program with threads, also of those for platforms that emulate thread-local variables.
#include <cstddef>
#include <thread>

#include <vmdevice/io_manager.hpp>

#include "bus_devices.hpp"
#include "catch.hpp"

using namespace vmdevice;
using namespace bus_tests;

TEST_CASE("IoManager: later threads reuse the records of threads that have ended", "[vmdevice][io_manager]") {
    IoManager manager;
    REQUIRE(manager.register_pio(pio(1, 1), hook([] {})));
    const auto records = [] {
        std::size_t count = 0;
        for (const detail::ReaderRecord* record = detail::reader_records.head; record != nullptr;
             record = record->next) {
            ++count;
        }
        return count;
    };
    std::thread([&] { read(manager, 1); }).join();
    const std::size_t before = records();
    for (int i = 0; i < 1000; ++i) {
        std::thread([&] { read(manager, 1); }).join();
    }
    CHECK(records() == before);
    // A removal looks at no thread that has ended.
    CHECK_FALSE(detail::other_readers_exist());
}
