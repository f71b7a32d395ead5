// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>

namespace kvm_vmm::virtio {

/// Whether the host's page cache is used for a disk. In both cases a flush of the guest reaches the storage.
enum class DiskCache : std::uint8_t { writeback, direct };
/// What performs the requests: io_uring where the host allows it, otherwise threads.
enum class DiskEngineKind : std::uint8_t { automatic, io_uring, threads };

// NOLINTBEGIN(readability-redundant-member-init): GCC warns of initializers that leave a member without one out

/// A disk as the user has configured it.
struct DiskConfig {
    std::string path;
    bool read_only{false};
    /// Whether the content is not looked at for the formats of other programs.
    bool raw{false};
    std::string id{};  ///< serial number: 1 to 20 bytes
    DiskCache cache{DiskCache::writeback};
    DiskEngineKind engine{DiskEngineKind::automatic};
    std::size_t queues{1};
    std::optional<std::uint64_t> bytes_per_second{};
    std::optional<std::uint64_t> requests_per_second{};
};

// NOLINTEND(readability-redundant-member-init)

inline constexpr std::size_t max_disk_queues = 16;
inline constexpr std::size_t max_disk_id = 20;

}  // namespace kvm_vmm::virtio
