// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
// Each allocation of each operation of the buses fails in turn: the operation is done or not, nothing is
// lost, and if it is not done the guest sees no change. The device tree has its own tests of this kind.
#include <array>
#include <atomic>
#include <condition_variable>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <latch>
#include <memory>
#include <mutex>
#include <new>
#include <optional>
#include <span>
#include <thread>
#include <utility>
#include <vector>

#include <vmdevice/vmdevice.hpp>

#include "bus_devices.hpp"
#include "catch.hpp"
#include "failing_allocations.hpp"

using namespace vmdevice;
using namespace bus_tests;
using test_support::allocations;

namespace {

/// The tables get zeroed memory from calloc, which fails as well once this thread has a reader record.
template <class Operation, class Unchanged>
std::uint64_t fail_each_allocation(Operation operation, Unchanged unchanged) {
    allocations.calloc_fails = true;
    const std::uint64_t failures = test_support::fail_each_allocation(operation, unchanged);
    allocations.calloc_fails = false;
    return failures;
}

}  // namespace

namespace {

struct Silent : DevicePio, DeviceMmio {
    void pio_read(PioAddress, PioOffset, std::span<std::uint8_t>) override {}
    void pio_write(PioAddress, PioOffset, std::span<const std::uint8_t>) override {}
    void mmio_read(MmioAddress, MmioOffset, std::span<std::uint8_t>) override {}
    void mmio_write(MmioAddress, MmioOffset, std::span<const std::uint8_t>) override {}
};

// Ranges of every size class that the table of memory can have, and ports.
DeviceResources many_resources(std::uint64_t memory_base) {
    DeviceResources resources;
    for (std::uint16_t i = 0; i < 20; ++i) {
        resources.append(PioResource{
            PioRange::create(PioAddress{static_cast<std::uint16_t>(0x2000 + (i * 16))}, 8).value()});
    }
    for (unsigned shift = 0; shift < 40; shift += 4) {
        const MmioAddress base{memory_base + (std::uint64_t{1} << (shift + 1))};
        resources.append(MmioResource{MmioRange::create(base, std::uint64_t{1} << shift).value()});
    }
    return resources;
}

std::size_t answering(IoManager& manager, const DeviceResources& resources) {
    std::array<std::uint8_t, 1> data{};
    std::size_t count = 0;
    for (const PioRange& range : resources.get_pio_address_ranges()) {
        count += manager.pio_read(range.base(), data).has_value() ? 1U : 0U;
        count += manager.pio_read(range.last(), data).has_value() ? 1U : 0U;
    }
    for (const MmioRange& range : resources.get_mmio_address_ranges()) {
        count += manager.mmio_read(range.base(), data).has_value() ? 1U : 0U;
        count += manager.mmio_read(range.last(), data).has_value() ? 1U : 0U;
    }
    return count;
}

}  // namespace

TEST_CASE("IoManager: if memory runs out, a device has all of its ranges or none", "[vmdevice][io_manager]") {
    IoManager manager;
    const auto other = std::make_shared<Silent>();
    const DeviceResources others = many_resources(std::uint64_t{1} << 44U);
    const auto device = std::make_shared<Silent>();
    const DeviceResources resources = many_resources(std::uint64_t{1} << 50U);
    // The other device has only memory ranges, because the ports are the same.
    for (const MmioRange& range : others.get_mmio_address_ranges()) {
        REQUIRE(manager.register_mmio(range, other));
    }
    const std::size_t others_answer = others.get_mmio_address_ranges().size() * 2;
    const std::size_t all_answer =
        (resources.get_pio_address_ranges().size() + resources.get_mmio_address_ranges().size()) * 2;
    REQUIRE(answering(manager, others) == others_answer);
    for (int round = 0; round < 3; ++round) {
        const auto registering =
            fail_each_allocation([&] { return manager.register_resources(resources, device).has_value(); },
                                 [&] {
                                     REQUIRE(answering(manager, resources) == 0);
                                     REQUIRE(answering(manager, others) == others_answer);
                                     REQUIRE(device.use_count() == 1);
                                 });
        CHECK(registering > 20);
        CHECK(answering(manager, resources) == all_answer);
        const auto removing =
            fail_each_allocation([&] { return manager.deregister_resources(resources).has_value(); },
                                 [&] { REQUIRE(answering(manager, resources) == all_answer); });
        CHECK(removing > 20);
        CHECK(answering(manager, resources) == 0);
        CHECK(device.use_count() == 1);
        CHECK(answering(manager, others) == others_answer);
    }
}

TEST_CASE("IoManager: if memory runs out, a single registration, move or removal is done or not",
          "[vmdevice][io_manager]") {
    IoManager manager;
    const auto device = std::make_shared<Silent>();
    const auto here = MmioRange::create(MmioAddress{0x1000}, 0x1000).value();
    const auto there = MmioRange::create(MmioAddress{0x10'0000}, 0x10000).value();
    std::array<std::uint8_t, 1> data{};
    const auto answers = [&](const MmioRange& range) {
        return manager.mmio_read(range.base(), data).has_value();
    };
    const auto registering =
        fail_each_allocation([&] { return manager.register_mmio(here, device).has_value(); },
                             [&] { REQUIRE_FALSE(answers(here)); });
    CHECK(registering > 1);
    CHECK(answers(here));
    const auto moving =
        fail_each_allocation([&] { return manager.move_mmio(here.base(), there).has_value(); },
                             [&] {
                                 REQUIRE(answers(here));
                                 REQUIRE_FALSE(answers(there));
                             });
    CHECK(moving > 0);
    CHECK(answers(there));
    CHECK_FALSE(answers(here));
    const auto removing = fail_each_allocation(
        [&] { return manager.deregister_mmio(there.base()).has_value(); }, [&] { REQUIRE(answers(there)); });
    CHECK(removing > 0);
    CHECK_FALSE(answers(there));
    CHECK(device.use_count() == 1);
}

namespace {

/// What the guest sees: which device answers at the first and the last address of each range.
struct View {
    std::vector<PioRange> ports;
    std::vector<MmioRange> memory;
    std::vector<bool> answers;
    std::vector<const void*> owners;
    friend bool operator==(const View&, const View&) = default;
};

View view(IoManager& manager) {
    View seen;
    seen.ports = manager.pio_ranges();
    seen.memory = manager.mmio_ranges();
    // The ports at which there is a device or one may be registered.
    for (std::size_t port = 0; port < 0x400; ++port) {
        seen.answers.push_back(read(manager, port));
    }
    for (std::uint64_t address = 0; address < 0x40'0000; address += 0x800) {
        seen.answers.push_back(read_memory(manager, address));
    }
    for (const PioRange& range : seen.ports) {
        seen.owners.push_back(manager.pio_owner(range.base())->second.get());
    }
    for (const MmioRange& range : seen.memory) {
        seen.owners.push_back(manager.mmio_owner(range.base())->second.get());
    }
    return seen;
}

DeviceResources both(std::size_t port, std::uint64_t address) {
    return {PioResource{pio(port, 4)}, PioResource{pio(port + 4, 2)}, MmioResource{mmio(address, 0x1000)},
            MmioResource{mmio(address + 0x10000, 0x10000)}};
}

/// Registers so many devices that the next registration splits a node of the index, grows a pool or creates a
/// new table.
void fill(IoManager& manager, const std::shared_ptr<Hook>& device, std::size_t count) {
    for (std::size_t i = 0; i < count; ++i) {
        REQUIRE(manager.register_pio(pio(i * 4, 1), device));
        REQUIRE(manager.register_mmio(mmio(i * 0x2000, 0x1000), device));
    }
}

using Operation = std::function<bool(IoManager&, const std::shared_ptr<Hook>&)>;
struct Named {
    const char* name;
    Operation run;
};

/// Every operation that changes a bus, on buses that fill() has filled.
std::vector<Named> operations() {
    return {
        {"register_pio",
         [](auto& manager, const auto& device) {
             return manager.register_pio(pio(0x301, 2), device).has_value();
         }},
        {"register_mmio",
         [](auto& manager, const auto& device) {
             return manager.register_mmio(mmio(0x30'0000, 0x8'0000), device).has_value();
         }},
        {"register_resources",
         [](auto& manager, const auto& device) {
             return manager.register_resources(both(0x310, 0x30'0000), device).has_value();
         }},
        {"move_pio", [](auto& manager,
                        const auto&) { return manager.move_pio(PioAddress{8}, pio(0x331, 7)).has_value(); }},
        {"move_pio onto itself",
         [](auto& manager, const auto&) { return manager.move_pio(PioAddress{8}, pio(7, 3)).has_value(); }},
        {"move_mmio",
         [](auto& manager, const auto&) {
             return manager.move_mmio(MmioAddress{0x4000}, mmio(0x30'0000, 0x8'0000)).has_value();
         }},
        {"move_mmio onto itself",
         [](auto& manager, const auto&) {
             return manager.move_mmio(MmioAddress{0x4000}, mmio(0x3800, 0x1000)).has_value();
         }},
        {"deregister_pio",
         [](auto& manager, const auto&) { return manager.deregister_pio(PioAddress{12}).has_value(); }},
        {"deregister_mmio",
         [](auto& manager, const auto&) { return manager.deregister_mmio(MmioAddress{0x6FFF}).has_value(); }},
        {"deregister_resources",
         [](auto& manager, const auto&) {
             return manager
                 .deregister_resources({PioResource{pio(16, 1)}, PioResource{pio(20, 1)},
                                        MmioResource{mmio(0x8000, 0x1000)},
                                        MmioResource{mmio(0xA000, 0x1000)}})
                 .has_value();
         }},
        {"the rest of what can be asked",
         [](auto& manager, const auto&) {
             return manager.pio_ranges().size() == manager.pio_size() &&
                    manager.mmio_ranges().size() == manager.mmio_size();
         }},
    };
}

}  // namespace

TEST_CASE("IoManager: if memory runs out, each operation is done or not, whatever the buses contain",
          "[vmdevice][io_manager][memory]") {
    for (const bool from_handler : {false, true}) {
        for (const std::size_t count :
             {std::size_t{6}, std::size_t{16}, std::size_t{21}, std::size_t{64}, std::size_t{128}}) {
            const auto neighbour = hook([] {});
            const auto device = hook([] {});
            for (const Named& operation : operations()) {
                INFO(operation.name << ", " << count << " neighbours, from a handler: " << from_handler);
                const std::int64_t before = allocations.outstanding;
                {
                    IoManager manager;
                    fill(manager, neighbour, count);
                    const auto run = [&] {
                        const View seen = view(manager);
                        static_cast<void>(fail_each_allocation([&] { return operation.run(manager, device); },
                                                               [&] {
                                                                   REQUIRE(view(manager) == seen);
                                                                   REQUIRE(device.use_count() == 1);
                                                               }));
                    };
                    if (from_handler) {
                        REQUIRE(manager.register_pio(pio(0x3F00, 1), hook(run)));
                        CHECK(read(manager, 0x3F00));
                    } else {
                        run();
                    }
                }
                CHECK(device.use_count() == 1);
                CHECK(neighbour.use_count() == 1);
                CHECK(allocations.outstanding == before);
            }
        }
    }
}

TEST_CASE("IoManager: several failures in a row leak no more memory than one",
          "[vmdevice][io_manager][memory]") {
    IoManager manager;
    const auto neighbour = hook([] {});
    fill(manager, neighbour, 64);
    CHECK(read(manager, 0));
    for (const Named& operation : operations()) {
        for (std::uint64_t n = 1; n < 12; ++n, allocations.calloc_fails = false) {
            const auto fail = [&] {
                allocations.calloc_fails = true;
                allocations.failing = n;
                try {
                    static_cast<void>(operation.run(manager, neighbour));
                } catch (const std::bad_alloc&) {
                    allocations.failing = 0;
                    return true;
                }
                allocations.failing = 0;
                return false;
            };
            // The first failures may leave capacity behind, so that later attempts get further.
            bool failed = true;
            std::int64_t before = 0;
            for (int i = 0; failed && i < 1000; ++i) {
                failed = fail();
                before = i < 10 ? allocations.outstanding : before;
            }
            if (!failed) {
                break;  // it succeeded: it needs no further allocation than this
            }
            CHECK(allocations.outstanding == before);
        }
    }
}

TEST_CASE("IoManager: its constructor needs memory, and its destructor none",
          "[vmdevice][io_manager][memory]") {
    const std::int64_t before = allocations.outstanding;
    std::optional<IoManager> manager;
    const std::uint64_t failures = fail_each_allocation(
        [&] {
            manager.emplace();
            return true;
        },
        [&] { REQUIRE_FALSE(manager.has_value()); });
    CHECK(failures >= 3);
    fill(*manager, hook([] {}), 100);
    const std::uint64_t made = allocations.made;
    manager.reset();
    CHECK(allocations.made == made);
    CHECK(allocations.outstanding == before);
}

TEST_CASE("Dispatch: a thread for which there is no memory gets an exception, and ends like any other",
          "[vmdevice][io_manager][memory]") {
    // The records of 64 threads need no memory.
    IoManager manager;
    std::mutex mutex;
    std::condition_variable changed;
    std::size_t inside = 0;
    bool leave = false;
    REQUIRE(manager.register_pio(pio(1, 1), hook([&] {
                                     std::unique_lock lock(mutex);
                                     ++inside;
                                     changed.notify_all();
                                     changed.wait(lock, [&] { return leave; });
                                 })));
    std::atomic<int> calls = 0;
    REQUIRE(manager.register_pio(pio(2, 1), hook([&] { ++calls; })));
    std::vector<std::thread> threads;
    for (std::size_t i = 0; i < detail::ReaderRecordList::static_count; ++i) {
        threads.emplace_back([&] { read(manager, 1); });
    }
    {
        std::unique_lock lock(mutex);
        changed.wait(lock, [&] { return inside == detail::ReaderRecordList::static_count; });
    }
    // The thread ends without a record, with one after a failure, and with one at once.
    for (const int failures : {3, 1, 0}) {
        const int before = calls;
        bool thrown = failures == 0;
        std::thread([&] {
            for (int i = 0; i < failures; ++i) {
                allocations.failing = 1;
                try {
                    read(manager, 2);
                } catch (const std::bad_alloc&) {
                    thrown = true;
                }
                allocations.failing = 0;
            }
            if (failures != 3) {
                read(manager, 2);
            }
        }).join();
        // If an earlier thread has released a record, no memory is needed.
        CHECK((thrown || calls > before));
        CHECK(calls - before <= failures + 1);
    }
    CHECK(calls > 0);
    {
        const std::lock_guard lock(mutex);
        leave = true;
    }
    changed.notify_all();
    for (std::thread& thread : threads) {
        thread.join();
    }
    deregister(manager, 1);
    deregister(manager, 2);
}

TEST_CASE("Bus: if memory runs out, a registration or a move is done or not", "[vmdevice][bus][memory]") {
    for (const std::size_t count :
         {std::size_t{0}, std::size_t{1}, std::size_t{63}, std::size_t{64}, std::size_t{129}}) {
        const std::int64_t before = allocations.outstanding;
        {
            PioBus<std::unique_ptr<int>> bus;
            for (std::size_t i = 0; i < count; ++i) {
                REQUIRE(bus.register_device(pio(i * 8, 4), std::make_unique<int>(static_cast<int>(i))));
            }
            const auto content = [&] {
                std::vector<std::pair<PioRange, int>> all;
                for (const auto& entry : bus) {
                    all.emplace_back(entry.range, *entry.device);
                }
                return all;
            };
            auto seen = content();
            auto device = std::make_unique<int>(-1);
            // The caller keeps the device if the bus has no memory for it.
            fail_each_allocation(
                [&] { return bus.register_device(pio(0x1004, 4), std::move(device)).has_value(); },
                [&] {
                    REQUIRE(content() == seen);
                    REQUIRE(device != nullptr);
                    REQUIRE(*device == -1);
                });
            seen = content();
            CHECK(seen.size() == count + 1);
            fail_each_allocation([&] { return bus.move_range(PioAddress{0x1004}, pio(4, 1)).has_value(); },
                                 [&] { REQUIRE(content() == seen); });
            CHECK(bus.device(PioAddress{4}).has_value());
            CHECK(bus.size() == count + 1);
        }
        CHECK(allocations.outstanding == before);
    }
}
