// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
#pragma once

#include <vmsuperio/detail/config.hpp>

#include <cstdint>
#include <string_view>

namespace vmsuperio::inline v0_2 {

/// The part of the host's side that failed.
enum class HostErrorSource : std::uint8_t {
    interrupt,  ///< an interrupt trigger returned an error
    reset,      ///< the trigger of a reset returned an error
    output,     ///< a writer returned an error
};

[[nodiscard]] constexpr std::string_view to_string(HostErrorSource source) noexcept {
    switch (source) {
        case HostErrorSource::interrupt:
            return "the interrupt trigger failed";
        case HostErrorSource::reset:
            return "the reset trigger failed";
        case HostErrorSource::output:
            return "the writer failed";
    }
    return "unknown host error";
}

/// How often each part of the host's side failed since the device was constructed: in reads, in writes, in
/// calls of the host and in `from_state`, whether or not a caller received the error. The guest cannot see
/// this, and it is not part of the saved state. Every device has `host_errors()`;
/// an events type that the user supplies may have the member `host_error(HostErrorSource)`, which is called
/// each time.
struct HostErrors {
    std::uint64_t interrupt{};  ///< failures of interrupt triggers
    std::uint64_t reset{};      ///< failures of the trigger that resets the CPU
    std::uint64_t output{};     ///< failures of writers and sinks

    /// The sum of all.
    [[nodiscard]] constexpr std::uint64_t total() const noexcept { return interrupt + reset + output; }
    friend constexpr bool operator==(const HostErrors&, const HostErrors&) = default;
};

}  // namespace vmsuperio::inline v0_2
