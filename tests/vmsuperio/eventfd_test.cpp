// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
#include <fcntl.h>
#include <sys/resource.h>
#include <unistd.h>
#include <utility>

#include <vmsuperio/linux/eventfd.hpp>
#include <vmsuperio/serial.hpp>

#include "catch.hpp"

using vmsuperio::EventFdTrigger;

TEST_CASE("EventFdTrigger: each trigger counts once", "[eventfd]") {
    auto event = EventFdTrigger::create();
    REQUIRE(event.has_value());
    CHECK(event->take() == std::uint64_t{0});
    REQUIRE(event->trigger().has_value());
    REQUIRE(event->trigger().has_value());
    CHECK(event->take() == std::uint64_t{2});
    CHECK(event->take() == std::uint64_t{0});
}

TEST_CASE("EventFdTrigger: the descriptor is non-blocking and closed on exec", "[eventfd]") {
    const auto event = EventFdTrigger::create();
    REQUIRE(event.has_value());
    CHECK((::fcntl(event->fd(), F_GETFL) & O_NONBLOCK) != 0);
    CHECK((::fcntl(event->fd(), F_GETFD) & FD_CLOEXEC) != 0);
    const auto copy = event->duplicate();
    REQUIRE(copy.has_value());
    CHECK((::fcntl(copy->fd(), F_GETFD) & FD_CLOEXEC) != 0);
}

TEST_CASE("EventFdTrigger: a counter at its maximum is not an error", "[eventfd]") {
    const auto event = EventFdTrigger::create();
    REQUIRE(event.has_value());
    const std::uint64_t most = 0xFFFF'FFFF'FFFF'FFFE;
    REQUIRE(::write(event->fd(), &most, sizeof most) == sizeof most);
    CHECK(event->trigger().has_value());
    CHECK(event->take() == most);
}

TEST_CASE("EventFdTrigger: a duplicate signals the same event and outlives the first", "[eventfd]") {
    auto event = EventFdTrigger::create();
    REQUIRE(event.has_value());
    auto copy = event->duplicate();
    REQUIRE(copy.has_value());
    CHECK(copy->fd() != event->fd());
    REQUIRE(copy->trigger().has_value());
    CHECK(event->take() == std::uint64_t{1});
    {
        const EventFdTrigger gone = std::move(*event);
    }
    REQUIRE(copy->trigger().has_value());
    CHECK(copy->take() == std::uint64_t{1});
}

TEST_CASE("EventFdTrigger: errors are returned", "[eventfd]") {
    const auto broken = EventFdTrigger::adopt(-1);
    CHECK(broken.trigger().error() == std::errc::bad_file_descriptor);
    CHECK(broken.take().error() == std::errc::bad_file_descriptor);
    CHECK(broken.duplicate().error() == std::errc::bad_file_descriptor);

    rlimit old{};
    REQUIRE(::getrlimit(RLIMIT_NOFILE, &old) == 0);
    rlimit none = old;
    none.rlim_cur = 0;
    REQUIRE(::setrlimit(RLIMIT_NOFILE, &none) == 0);
    const auto refused = EventFdTrigger::create();
    REQUIRE(::setrlimit(RLIMIT_NOFILE, &old) == 0);
    REQUIRE_FALSE(refused.has_value());
    CHECK(refused.error() == std::errc::too_many_files_open);
}

TEST_CASE("EventFdTrigger: moving leaves nothing behind to be closed twice", "[eventfd]") {
    auto first = EventFdTrigger::create();
    auto second = EventFdTrigger::create();
    REQUIRE((first.has_value() && second.has_value()));
    const int kept = first->fd();
    const int closed = second->fd();
    *second = std::move(*first);
    CHECK(second->fd() == kept);
    CHECK(first->fd() == -1);
    CHECK(::fcntl(closed, F_GETFD) == -1);
    CHECK(::fcntl(kept, F_GETFD) != -1);
}

TEST_CASE("EventFdTrigger: it carries a serial port's interrupt", "[eventfd][serial]") {
    auto event = EventFdTrigger::create();
    REQUIRE(event.has_value());
    auto other_end = event->duplicate();
    REQUIRE(other_end.has_value());
    vmsuperio::Serial uart(std::move(*event), vmsuperio::NullWriter{});
    CHECK(other_end->take() == std::uint64_t{0});
    REQUIRE(uart.write(1, 0x02).has_value());
    CHECK(other_end->take() == std::uint64_t{1});
    CHECK(uart.interrupt_evt().fd() >= 0);
}

TEST_CASE("UniqueFd: no descriptor is -1, before and after", "[eventfd]") {
    using vmsuperio::UniqueFd;
    CHECK(UniqueFd().get() == -1);
    UniqueFd released(::dup(1));
    UniqueFd other(released.release());
    CHECK(released.get() == -1);
    other.reset();
    CHECK(other.get() == -1);
}

TEST_CASE("EventFdTrigger: descriptor 0 is a descriptor like the others, and -1 is none", "[eventfd]") {
    using vmsuperio::UniqueFd;
    const auto is_open = [](int fd) { return ::fcntl(fd, F_GETFD) != -1; };
    const UniqueFd standard_input(::fcntl(0, F_DUPFD_CLOEXEC, 10));
    const auto any = EventFdTrigger::create();
    REQUIRE(any.has_value());
    // Number 0 is free, so the next descriptor gets it.
    ::close(0);
    {
        const auto event = EventFdTrigger::create();
        CHECK((event.has_value() && event->fd() == 0));
        {
            const UniqueFd none;
        }
        CHECK(is_open(0));
    }
    CHECK_FALSE(is_open(0));
    {
        const auto copy = UniqueFd::duplicate(any->fd());
        CHECK((copy.has_value() && copy->get() == 0));
    }
    CHECK_FALSE(is_open(0));
    if (standard_input.get() >= 0) {
        ::dup2(standard_input.get(), 0);
    }
}
