// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
// The small parts that decide when a VM ends, restarts and is kicked.
#include <array>
#include <chrono>
#include <string>

#include "catch.hpp"
#include "machine/end.hpp"
#include "vmm/restart_pace.hpp"
#include "vmm/vcpu_requests.hpp"

using namespace kvm_vmm;
using namespace std::chrono_literals;

TEST_CASE("EndLatch: the guest's first request counts, but a request by the host takes precedence", "[vmm]") {
    EndLatch end;
    CHECK_FALSE(end.requested());
    CHECK_FALSE(end.get().has_value());
    end.request(end::Reset{}, "first");
    end.request(end::Panicked{}, "second");
    CHECK(end.requested());
    CHECK_FALSE(end.requested_by_host());
    CHECK(end.get()->reason == EndReason(end::Reset{}));
    CHECK(end.get()->message == "first");
    end.request_by_host(end::Signal{15});
    CHECK(end.requested_by_host());
    CHECK(end.get()->reason == EndReason(end::Signal{15}));
    CHECK(end.get()->message.empty());
    end.request(end::Reset{}, "too late");
    CHECK(end.get()->reason == EndReason(end::Signal{15}));
    end.request_by_host(end::PoweredOff{});
    CHECK(end.get()->reason == EndReason(end::PoweredOff{}));
}

TEST_CASE("EndReason: each reason has its exit status, and two with the same status remain distinct",
          "[vmm]") {
    CHECK(exit_status(end::PoweredOff{}) == 0);
    CHECK(exit_status(end::Reset{}) == 10);
    CHECK(exit_status(end::Panicked{}) == 11);
    CHECK(exit_status(end::TripleFaulted{}) == 12);
    CHECK(exit_status(end::Halted{}) == 13);
    CHECK(exit_status(end::Failed{ExitCode::unhandled_exit}) == 14);
    CHECK(exit_status(end::Failed{ExitCode::no_kvm}) == 4);
    CHECK(exit_status(end::Signal{15}) == 143);
    for (unsigned status = 0; status < 256; ++status) {
        const end::ExitPort port{static_cast<std::uint8_t>(status)};
        CHECK(exit_status(port) == static_cast<int>(status));
        CHECK(to_string(EndReason(port)) ==
              "the guest wrote " + std::to_string(status) + " to the exit port");
    }
    CHECK(EndReason(end::ExitPort{10}) != EndReason(end::Reset{}));
    CHECK(to_string(EndReason(end::ExitPort{10})) != to_string(EndReason(end::Reset{})));
}

namespace {

/// A vCPU's immediate_exit.
struct Exit {
    bool requested{false};
    auto request() {
        return [this] { requested = true; };
    }
    auto clear() {
        return [this] { requested = false; };
    }
};

}  // namespace

TEST_CASE("VcpuRequests: each request makes the vCPU leave the guest and is taken once", "[vmm]") {
    VcpuRequests requests;
    Exit exit;
    CHECK_FALSE(requests.take(exit.clear()).any);
    requests.request_halt_check(exit.request());
    CHECK(exit.requested);
    VcpuRequests::Taken taken = requests.take(exit.clear());
    CHECK_FALSE(exit.requested);
    CHECK((taken.any && taken.halt_check && !taken.pause_notice));
    CHECK_FALSE(requests.take(exit.clear()).any);
    requests.request_pause_notice(exit.request());
    CHECK(exit.requested);
    taken = requests.take(exit.clear());
    CHECK((taken.any && !taken.halt_check && taken.pause_notice));
    CHECK_FALSE(requests.stop_requested());
    requests.request_stop(exit.request());
    CHECK(exit.requested);
    CHECK(requests.stop_requested());
    CHECK(requests.take(exit.clear()).any);
    CHECK(requests.stop_requested());
}

TEST_CASE("VcpuRequests: a request is visible before the vCPU is asked to leave the guest", "[vmm]") {
    // The vCPU leaves the guest at once and checks its requests.
    VcpuRequests requests;
    bool seen = false;
    const auto look = [&] { seen = requests.take([] {}).any; };
    requests.request_halt_check(look);
    CHECK(seen);
    requests.request_pause_notice(look);
    CHECK(seen);
    requests.request_stop([&] { seen = requests.stop_requested(); });
    CHECK(seen);
}

TEST_CASE("VcpuRequests: a request that arrives while the exit request is withdrawn is not lost", "[vmm]") {
    const auto not_lost = [](auto make) {
        // Whether it arrives just before or just after, it is taken at once or the vCPU leaves the guest
        // again.
        for (const bool before : {true, false}) {
            VcpuRequests requests;
            Exit exit;
            const VcpuRequests::Taken taken = requests.take([&] {
                if (before) {
                    make(requests, exit);
                }
                exit.requested = false;
                if (!before) {
                    make(requests, exit);
                }
            });
            CHECK((taken.halt_check || taken.pause_notice || exit.requested));
            CHECK((taken.any || exit.requested));
        }
    };
    not_lost([](VcpuRequests& requests, Exit& exit) { requests.request_halt_check(exit.request()); });
    not_lost([](VcpuRequests& requests, Exit& exit) { requests.request_pause_notice(exit.request()); });
}

TEST_CASE("RestartPace: the delay doubles with each restart in a row, up to a limit", "[vmm]") {
    RestartPace pace;
    auto expected = RestartPace::first_delay;
    for (unsigned i = 1; i <= 100; ++i) {
        CHECK(pace.next(0s) == expected);
        CHECK(pace.in_a_row() == i);
        expected = std::min(2 * expected, RestartPace::longest_delay);
    }
    CHECK(expected == RestartPace::longest_delay);
}

TEST_CASE("RestartPace: after a guest has run for a while, the delay starts again", "[vmm]") {
    RestartPace pace;
    (void)pace.next(1s);
    (void)pace.next(RestartPace::settled - 1ns);
    CHECK(pace.in_a_row() == 2);
    CHECK(pace.next(RestartPace::settled) == RestartPace::first_delay);
    CHECK(pace.in_a_row() == 1);
    CHECK(pace.next(0s) == 2 * RestartPace::first_delay);
}
