// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
#pragma once

#include <concepts>
#include <optional>

#include <vmsuperio/detail/chrono.hpp>

namespace vmsuperio {

/// A device with time. It is passive: it owns no thread and no timer.
///
/// `next_deadline()` returns when something will next happen by itself (its interrupt line rises, a byte
/// arrives), on the time line of the device's own clock; nothing while nothing can. It changes nothing, and
/// it is exact: nothing happens before it. The owner arms a timer for it and then calls `tick()`, which
/// brings the device up to its clock and is harmless at any other time. Ask again after every access, every
/// `tick()` and everything that the host does to the device.
template <class D>
concept Timed = requires(D& device, const D& constant) {
    { constant.next_deadline() } -> std::same_as<std::optional<std::chrono::nanoseconds>>;
    device.tick();
};

}  // namespace vmsuperio
