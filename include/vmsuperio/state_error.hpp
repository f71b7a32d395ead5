// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
#pragma once

#include <string_view>

#include <vmsuperio/detail/config.hpp>

namespace vmsuperio {

/// A saved state that no device can be in. `field` names the first member found wrong, for a log line.
struct StateError {
    std::string_view field;

    friend constexpr bool operator==(const StateError&, const StateError&) = default;
};

[[nodiscard]] constexpr std::string_view to_string(const StateError&) noexcept {
    return "the saved state holds a value that the device cannot have";
}

}  // namespace vmsuperio
