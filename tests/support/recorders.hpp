// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <expected>
#include <span>
#include <string>
#include <system_error>
#include <vector>

#include <vmsuperio/host_errors.hpp>

/// The host's side of a device: triggers, a writer and events that record the device's calls and fail on
/// demand. A device owns them, so they write to objects of the test.
namespace recorders {

/// The error of a trigger that a test makes fail.
inline constexpr int failure = 7;
/// For a trigger that always fails.
inline constexpr bool always = true;

/// Counts edges. A call that fails counts as well.
struct CountingTrigger {
    using error_type = int;
    int* edges;
    const bool* fails{nullptr};

    constexpr std::expected<void, int> trigger() const {
        ++*edges;
        if (fails != nullptr && *fails) {
            return std::unexpected(failure);
        }
        return {};
    }
};

/// Records each level. A device that has a line with levels never calls `trigger`, which fails unless a test
/// counts its calls.
struct RecordingLevel {
    using error_type = int;
    std::vector<bool>* levels;
    int* edges{nullptr};
    const bool* fails{nullptr};

    constexpr std::expected<void, int> trigger() const {
        if (edges == nullptr) {
            return std::unexpected(failure);
        }
        ++*edges;
        return {};
    }
    constexpr std::expected<void, int> set_level(bool asserted) const {
        levels->push_back(asserted);
        if (fails != nullptr && *fails) {
            return std::unexpected(failure);
        }
        return {};
    }
};

/// A writer that records the bytes that it takes.
struct RecordingWriter {
    std::string output{};
    std::size_t room{SIZE_MAX};  // bytes that it takes until it is full
    std::size_t room_per_call{SIZE_MAX};
    std::error_code writer_error{};  // when set, each call fails
    int writer_calls{0};
    int empty_calls{0};

    std::expected<std::size_t, std::error_code> write(std::span<const std::uint8_t> bytes) {
        ++writer_calls;
        empty_calls += bytes.empty() ? 1 : 0;
        if (writer_error) {
            return std::unexpected(writer_error);
        }
        const std::size_t taken = std::min({bytes.size(), room, room_per_call});
        output.append(bytes.begin(), bytes.begin() + static_cast<std::ptrdiff_t>(taken));
        if (room != SIZE_MAX) {
            room -= taken;
        }
        return taken;
    }
};

/// Records the failures of triggers and writers that the device reports.
struct HostErrorEvents {
    std::vector<vmsuperio::HostErrorSource>* errors;
    constexpr void host_error(vmsuperio::HostErrorSource source) const { errors->push_back(source); }
};

}  // namespace recorders
