// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
#pragma once

// What the devices save beside their queues and the registers of the transport: what the driver has set, and what it
// believes of the device. See vmsuperio/snapshot.hpp for the encoding.
#include <array>
#include <cstdint>
#include <expected>
#include <span>
#include <string_view>

#include <vmsuperio/snapshot.hpp>

namespace kvm_vmm::virtio {

struct BlockState {
    static constexpr vmsuperio::SnapshotFormat snapshot_format{
        .tag = vmsuperio::snapshot_tag("VBLK"), .version = 1, .readable_since = 1};

    std::uint64_t capacity{0};  ///< in sectors of 512 bytes
    std::uint32_t block_size{0};
    bool writeback{true};  ///< the cache mode that the driver has chosen

    template <class Self, class Archive>
    static constexpr void visit(Self& self, Archive& archive) {
        auto& [capacity, block_size, writeback] = self;
        archive("capacity", capacity);
        archive("block_size", block_size);
        archive("writeback", writeback);
    }
    friend bool operator==(const BlockState&, const BlockState&) = default;
};

struct NetState {
    static constexpr vmsuperio::SnapshotFormat snapshot_format{
        .tag = vmsuperio::snapshot_tag("VNET"), .version = 1, .readable_since = 1};

    std::array<std::uint8_t, 6> mac{};
    std::uint16_t mtu{0};  ///< 0 for none
    bool link_up{true};

    template <class Self, class Archive>
    static constexpr void visit(Self& self, Archive& archive) {
        auto& [mac, mtu, link_up] = self;
        archive("mac", mac);
        archive("mtu", mtu);
        archive("link_up", link_up);
    }
    friend bool operator==(const NetState&, const NetState&) = default;
};

struct ConsoleState {
    static constexpr vmsuperio::SnapshotFormat snapshot_format{
        .tag = vmsuperio::snapshot_tag("VCON"), .version = 1, .readable_since = 1};

    std::uint16_t columns{0};
    std::uint16_t rows{0};
    std::uint32_t sent_of_chain{0};  ///< bytes of the next chain of output that were sent already

    template <class Self, class Archive>
    static constexpr void visit(Self& self, Archive& archive) {
        auto& [columns, rows, sent_of_chain] = self;
        archive("columns", columns);
        archive("rows", rows);
        archive("sent_of_chain", sent_of_chain);
    }
    friend bool operator==(const ConsoleState&, const ConsoleState&) = default;
};

struct BalloonState {
    static constexpr vmsuperio::SnapshotFormat snapshot_format{
        .tag = vmsuperio::snapshot_tag("VBAL"), .version = 1, .readable_since = 1};

    std::uint32_t target_pages{0};
    std::uint32_t actual_pages{0};
    std::array<std::uint64_t, 16> statistics{};  ///< by tag

    template <class Self, class Archive>
    static constexpr void visit(Self& self, Archive& archive) {
        auto& [target_pages, actual_pages, statistics] = self;
        archive("target_pages", target_pages);
        archive("actual_pages", actual_pages);
        archive("statistics", statistics);
    }
    friend bool operator==(const BalloonState&, const BalloonState&) = default;
};

/// No connection is saved.
struct VsockState {
    static constexpr vmsuperio::SnapshotFormat snapshot_format{
        .tag = vmsuperio::snapshot_tag("VSOC"), .version = 1, .readable_since = 1};

    std::uint64_t guest_cid{0};
    std::uint32_t next_host_port{0};

    template <class Self, class Archive>
    static constexpr void visit(Self& self, Archive& archive) {
        auto& [guest_cid, next_host_port] = self;
        archive("guest_cid", guest_cid);
        archive("next_host_port", next_host_port);
    }
    friend bool operator==(const VsockState&, const VsockState&) = default;
};

/// The files that the guest knows are descriptors of this process, so a share is restored only if it is not mounted.
struct FileSystemState {
    static constexpr vmsuperio::SnapshotFormat snapshot_format{
        .tag = vmsuperio::snapshot_tag("VFS "), .version = 1, .readable_since = 1};

    std::array<char, 36> tag{};
    bool mounted{false};

    template <class Self, class Archive>
    static constexpr void visit(Self& self, Archive& archive) {
        auto& [tag, mounted] = self;
        archive("tag", tag);
        archive("mounted", mounted);
    }
    friend bool operator==(const FileSystemState&, const FileSystemState&) = default;
};

template <class... States>
inline constexpr bool valid_states =
    ((vmsuperio::SnapshotState<States> && vmsuperio::visits_every_member<States>()) && ...);
static_assert(valid_states<BlockState, NetState, ConsoleState, BalloonState, VsockState, FileSystemState>);

/// The state, or what is wrong with the bytes.
template <vmsuperio::SnapshotState State>
[[nodiscard]] std::expected<State, std::string_view> decode_state(std::span<const std::uint8_t> bytes) {
    auto state = vmsuperio::decode<State>(bytes);
    if (!state) {
        return std::unexpected(vmsuperio::to_string(state.error()));
    }
    return *state;
}

}  // namespace kvm_vmm::virtio
