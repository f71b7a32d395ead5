// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
#pragma once

#include <cstddef>
#include <cstdint>
#include <source_location>
#include <string_view>

namespace fuzz {

/// Ends the program after printing the sequence that led here, `what` and `where`.
[[noreturn]] void fail(std::string_view what, std::source_location where);
[[noreturn]] void fail(std::string_view what, std::uint64_t is, std::uint64_t should_be,
                       std::source_location where);

/// Checks a condition that must hold; `what` describes it.
inline void check(bool holds, std::string_view what,
                  std::source_location where = std::source_location::current()) {
    if (!holds) [[unlikely]] {
        fail(what, where);
    }
}
/// The same for numbers, which are printed if they differ.
inline void check_equal(std::uint64_t is, std::uint64_t should_be, std::string_view what,
                        std::source_location where = std::source_location::current()) {
    if (is != should_be) [[unlikely]] {
        fail(what, is, should_be, where);
    }
}

/// How often the calling thread has allocated memory.
[[nodiscard]] std::size_t allocation_count() noexcept;

/// Checks that the calls of a device between construction and destruction of this object do not allocate.
class NoAllocation {
public:
    NoAllocation() = default;
    NoAllocation(const NoAllocation&) = delete;
    NoAllocation& operator=(const NoAllocation&) = delete;
    ~NoAllocation() { check_equal(allocation_count(), before_, "the device does not allocate"); }

private:
    std::size_t before_{allocation_count()};
};

}  // namespace fuzz
