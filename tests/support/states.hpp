// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
#pragma once

/// Prints states and registers of failing tests as text, and as differences. Included by catch.hpp, so that a
/// state has the same text in all files of a test program.

#include <concepts>
#include <string>

#include <vmsuperio/inspect.hpp>

namespace Catch {

template <vmsuperio::SnapshotState S>
struct StringMaker<S> {
    static std::string convert(const S& state) { return "\n" + vmsuperio::inspect(state); }
};

template <class R>
    requires std::derived_from<R, vmsuperio::Register<R, typename R::value_type>>
struct StringMaker<R> {
    static std::string convert(const R& reg) { return vmsuperio::inspect(reg); }
};

}  // namespace Catch

namespace test_support {

/// The difference, a line for each member; empty if the states are equal.
template <vmsuperio::SnapshotState S>
[[nodiscard]] std::string state_difference(const S& first, const S& second) {
    if (first == second) {
        return {};
    }
    const std::string text = vmsuperio::difference(first, second);
    return text.empty() ? "bytes behind a count differ, which the text does not show\n" : text;
}

}  // namespace test_support

/// Prints only the difference, while CHECK(first == second) would print both states.
#define CHECK_SAME_STATE(first, second) \
    CHECK(::test_support::state_difference((first), (second)) == std::string())
#define REQUIRE_SAME_STATE(first, second) \
    REQUIRE(::test_support::state_difference((first), (second)) == std::string())
