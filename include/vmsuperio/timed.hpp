// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
#pragma once

#include <concepts>
#include <optional>

#include <vmsuperio/detail/chrono.hpp>

namespace vmsuperio::inline v0_2 {

/// A device with time. It is passive: it owns no thread and no timer.
///
/// `next_deadline()` returns the time on the device's own clock at which the next event will occur without an
/// access (its interrupt line rises, a byte arrives), or nothing if none can occur. It changes nothing, and
/// it is exact: no event occurs earlier. The owner arms a timer for that time and then calls `tick()`, which
/// updates the device to its clock and is harmless at any other time. Call `next_deadline()` again after
/// every access, every `tick()` and every other call of the host that changes the device.
template <class D>
concept Timed = requires(D& device, const D& constant) {
    { constant.next_deadline() } -> std::same_as<std::optional<std::chrono::nanoseconds>>;
    device.tick();
};

}  // namespace vmsuperio::inline v0_2
