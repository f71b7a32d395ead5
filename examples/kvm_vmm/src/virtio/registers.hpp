// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

/// Names of VIRTIO 1.2 (https://docs.oasis-open.org/virtio/virtio/v1.2/virtio-v1.2.html).
namespace kvm_vmm::virtio {

/// Section 5.
enum class DeviceType : std::uint32_t {
    network = 1,
    block = 2,
    console = 3,
    entropy = 4,
    balloon = 5,
    vsock = 19,
    file_system = 26,
};

/// Feature bits that do not belong to one type of device (section 6).
namespace feature {
inline constexpr std::uint64_t indirect_descriptors = 1ULL << 28U;  ///< VIRTIO_F_INDIRECT_DESC
inline constexpr std::uint64_t event_index = 1ULL << 29U;           ///< VIRTIO_F_EVENT_IDX
inline constexpr std::uint64_t version_1 = 1ULL << 32U;             ///< VIRTIO_F_VERSION_1
inline constexpr std::uint64_t ring_reset = 1ULL << 40U;            ///< VIRTIO_F_RING_RESET
}  // namespace feature

/// Bits of the device status (2.1).
namespace status {
inline constexpr std::uint32_t acknowledge = 1;
inline constexpr std::uint32_t driver = 2;
inline constexpr std::uint32_t driver_ok = 4;
inline constexpr std::uint32_t features_ok = 8;
inline constexpr std::uint32_t needs_reset = 64;
inline constexpr std::uint32_t failed = 128;
}  // namespace status

/// Bits of InterruptStatus (4.2.2).
namespace interrupt_status {
inline constexpr std::uint32_t used_buffer = 1;
inline constexpr std::uint32_t configuration_change = 2;
}  // namespace interrupt_status

/// Registers of the MMIO transport, by their offsets (4.2.2).
namespace mmio {
inline constexpr std::uint64_t magic_value = 0x000;
inline constexpr std::uint64_t version = 0x004;
inline constexpr std::uint64_t device_id = 0x008;
inline constexpr std::uint64_t vendor_id = 0x00C;
inline constexpr std::uint64_t device_features = 0x010;
inline constexpr std::uint64_t device_features_sel = 0x014;
inline constexpr std::uint64_t driver_features = 0x020;
inline constexpr std::uint64_t driver_features_sel = 0x024;
inline constexpr std::uint64_t queue_sel = 0x030;
inline constexpr std::uint64_t queue_num_max = 0x034;
inline constexpr std::uint64_t queue_num = 0x038;
inline constexpr std::uint64_t queue_ready = 0x044;
inline constexpr std::uint64_t queue_notify = 0x050;
inline constexpr std::uint64_t interrupt_status = 0x060;
inline constexpr std::uint64_t interrupt_ack = 0x064;
inline constexpr std::uint64_t status = 0x070;
inline constexpr std::uint64_t queue_desc_low = 0x080;
inline constexpr std::uint64_t queue_desc_high = 0x084;
inline constexpr std::uint64_t queue_driver_low = 0x090;
inline constexpr std::uint64_t queue_driver_high = 0x094;
inline constexpr std::uint64_t queue_device_low = 0x0A0;
inline constexpr std::uint64_t queue_device_high = 0x0A4;
inline constexpr std::uint64_t shm_sel = 0x0AC;
inline constexpr std::uint64_t shm_len_low = 0x0B0;
inline constexpr std::uint64_t shm_len_high = 0x0B4;
inline constexpr std::uint64_t shm_base_low = 0x0B8;
inline constexpr std::uint64_t shm_base_high = 0x0BC;
inline constexpr std::uint64_t queue_reset = 0x0C0;
inline constexpr std::uint64_t config_generation = 0x0FC;
inline constexpr std::uint64_t config = 0x100;

/// The size of the window: the registers, and a configuration space of up to 0xF00 bytes.
inline constexpr std::uint64_t window_size = 0x1000;

inline constexpr std::uint32_t magic = 0x7472'6976;  ///< "virt"
inline constexpr std::uint32_t version_number = 2;
}  // namespace mmio

/// The name of the register at `offset`: "QueueNotify"; "config+0x08" in the configuration space; empty if
/// there is none.
[[nodiscard]] std::string mmio_register_name(std::uint64_t offset);

}  // namespace kvm_vmm::virtio
