// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
// This program is compiled without NDEBUG.
#include <array>
#include <atomic>
#include <chrono>
#include <csignal>
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <sys/wait.h>
#include <thread>
#include <unistd.h>
#include <vector>

#include <vmdevice/vmdevice.hpp>

#include "catch.hpp"

using namespace vmdevice;

// The type is the same in a part of the program that is compiled with NDEBUG.
static_assert(sizeof(detail::DeviceLock) == sizeof(void*));

namespace {

struct Model {
    static constexpr std::size_t register_count = 1;
    int value = 7;
    IoManager* bus = nullptr;

    std::uint8_t read(std::uint8_t) const { return static_cast<std::uint8_t>(value); }
    void write(std::uint8_t, std::uint8_t) const {
        std::array<std::uint8_t, 1> data{};
        (void)bus->pio_read({0x100}, data);
    }
};

/// What the function prints on stderr in a child process that SIGABRT ends. A child that waits for itself is ended
/// by SIGALRM.
template <class F>
std::string last_words(F&& function) {
    std::array<int, 2> ends{};
    REQUIRE(::pipe(ends.data()) == 0);
    const pid_t child = ::fork();
    if (child == 0) {
        ::dup2(ends[1], STDERR_FILENO);
        // Catch2's handlers of the signals would report the test as failed.
        (void)::signal(SIGABRT, SIG_DFL);
        ::alarm(20);
        function();
        ::_exit(0);
    }
    ::close(ends[1]);
    std::string text;
    std::array<char, 512> part{};
    for (ssize_t size = 0; (size = ::read(ends[0], part.data(), part.size())) > 0;) {
        text.append(part.data(), static_cast<std::size_t>(size));
    }
    ::close(ends[0]);
    int status = 0;
    REQUIRE(::waitpid(child, &status, 0) == child);
    INFO(text);
    REQUIRE(WIFSIGNALED(status));
    REQUIRE(WTERMSIG(status) == SIGABRT);
    return text;
}

constexpr std::string_view message = "it would wait for itself";

}  // namespace

TEST_CASE("Locked: without NDEBUG, a thread that locks a device twice is stopped by an assertion",
          "[vmdevice][locked]") {
    IoManager bus;
    const auto device = share(Model{});
    REQUIRE(bus.register_pio(pio_range(0x100, 1), device));

    SECTION("two guards in one statement") {
        CHECK_THAT(last_words([&] { return device->lock()->value + device->lock()->value; }),
                   Catch::Matchers::Contains(std::string(message)));
    }
    SECTION("a function under the lock, with a guard in scope") {
        CHECK_THAT(last_words([&] {
                       const auto guard = device->lock();
                       device->with_lock([](auto&) {});
                   }),
                   Catch::Matchers::Contains(std::string(message)));
    }
    SECTION("a guard in scope, and an access by the bus") {
        CHECK_THAT(last_words([&] {
                       const auto guard = device->lock();
                       std::array<std::uint8_t, 1> data{};
                       (void)bus.pio_read({0x100}, data);
                   }),
                   Catch::Matchers::Contains(std::string(message)));
    }
    SECTION("a device that accesses itself") {
        device->lock()->bus = &bus;
        CHECK_THAT(last_words([&] {
                       const std::array<std::uint8_t, 1> data{};
                       (void)bus.pio_write({0x100}, data);
                   }),
                   Catch::Matchers::Contains(std::string(message)));
    }
}

TEST_CASE("Locked: the assertion accepts locks that do not wait for themselves", "[vmdevice][locked]") {
    const auto one = share(Model{});
    const auto two = share(Model{});

    SECTION("two devices in one statement, and the same one in the next") {
        CHECK(one->lock()->value + two->lock()->value == 14);
        CHECK(two->lock()->value + one->lock()->value == 14);
    }
    SECTION("guards that are destroyed in the order of their creation") {
        // NOLINTNEXTLINE(modernize-make-unique): a guard cannot be moved
        std::unique_ptr<const LockedModel<SharedDevice<Model>>> first(new auto(one->lock()));
        const auto second = two->lock();
        first.reset();
        CHECK(one->lock()->value == 7);
    }
    SECTION("another thread that waits") {
        std::atomic<bool> waiting = false;
        std::thread other;
        {
            const auto guard = one->lock();
            other = std::thread([&] {
                waiting = true;
                one->lock()->value = 8;
            });
            while (!waiting) {
                std::this_thread::yield();
            }
            CHECK(guard->value == 7);
        }
        other.join();
        CHECK(one->lock()->value == 8);
    }
    SECTION("an entry of a lock that a part of the program with NDEBUG has released") {
        detail::Mutex mutex;
        detail::lock_checked(mutex);
        mutex.unlock();
        std::atomic<bool> locked = false;
        std::thread other([&] {
            const detail::DeviceLock lock(mutex);
            locked = true;
            std::this_thread::sleep_for(std::chrono::milliseconds(50));
        });
        while (!locked) {
            std::this_thread::yield();
        }
        {
            const detail::DeviceLock lock(mutex);
        }
        other.join();
    }
    SECTION("more devices than it counts") {
        std::vector<std::unique_ptr<detail::DeviceLock>> guards;
        std::vector<detail::Mutex> mutexes(40);
        for (detail::Mutex& mutex : mutexes) {
            guards.push_back(std::make_unique<detail::DeviceLock>(mutex));
        }
        CHECK(one->lock()->value == 7);
        guards.clear();
        for (const detail::Mutex* const held : detail::held_mutexes) {
            CHECK(held == nullptr);
        }
        CHECK(detail::held_device_locks == 0);
    }
}
