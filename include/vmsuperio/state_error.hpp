// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
#pragma once

#include <vmsuperio/detail/config.hpp>

#include <string>
#include <string_view>

namespace vmsuperio::inline v0_2 {

/// A saved state that no device can be in. `field` names the first invalid member; it refers to a string
/// literal.
struct StateError {
    std::string_view field;  ///< the member that is wrong

    friend constexpr bool operator==(const StateError&, const StateError&) = default;
};

/// One line for a log, which names the field.
[[nodiscard]] inline std::string to_string(const StateError& error) {
    return std::string("the saved state holds a value that the device cannot have: ").append(error.field);
}

}  // namespace vmsuperio::inline v0_2
