// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
#pragma once

#include <source_location>
#include <string>
#include <string_view>

#include <vmsuperio/inspect.hpp>

#include "support/check.hpp"

namespace fuzz {

/// Checks that the two states are equal; otherwise prints a line for each member that differs, `is` before
/// `should_be`.
template <vmsuperio::SnapshotState S>
void check_same_state(const S& is, const S& should_be, std::string_view what,
                      std::source_location where = std::source_location::current()) {
    if (!(is == should_be)) [[unlikely]] {
        std::string text{what};
        text.append(", but it is -> should be:\n").append(vmsuperio::difference(is, should_be));
        fail(text, where);
    }
}

}  // namespace fuzz
