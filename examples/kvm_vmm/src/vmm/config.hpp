// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include <vmsuperio/i8042.hpp>
#include <vmsuperio/serial.hpp>

#include "arch/x86_64/kernel_image.hpp"
#include "console/serial_config.hpp"
#include "observe/config.hpp"
#include "sandbox/sandbox.hpp"
#include "virtio/balloon_config.hpp"
#include "virtio/disk_config.hpp"
#include "virtio/net_config.hpp"

namespace kvm_vmm {

/// A directory of the host that the guest can mount.
struct ShareConfig {
    std::string path;
    std::string tag;  ///< by which the guest mounts it
    bool writable{false};
};

/// The socket device, --vsock.
struct VsockConfig {
    std::uint64_t cid{0};  ///< the guest's: 3 to 2^32 - 2
    std::string path;      ///< of the socket that programs on the host connect to
};

/// Everything that the user can configure.
struct VmmConfig {
    std::string kernel;
    std::optional<std::string> initrd;
    std::string cmdline{"console=ttyS0"};
    BootProtocol protocol{BootProtocol::automatic};
    std::uint64_t memory{512ULL << 20U};  ///< bytes
    unsigned cpus{1};
    std::vector<SerialConfig> serials{SerialConfig{}};  ///< COM1, COM2, ...
    std::vector<SerialConfig> consoles;                 ///< virtio consoles: hvc0, hvc1, ...
    vmsuperio::TransmitPolicy serial_overflow{vmsuperio::TransmitPolicy::back_pressure};
    vmsuperio::I8042Profile i8042{vmsuperio::I8042Profile::full};
    std::optional<SerialConfig> debug_console;  ///< of ports 0xE9 and 0x402
    std::vector<virtio::DiskConfig> disks;
    std::vector<virtio::NetConfig> nets;  ///< net0, net1, ...
    std::optional<virtio::BalloonConfig> balloon;
    std::vector<ShareConfig> shares;
    bool huge_pages{true};  ///< whether the guest's RAM is in pages of 2 MiB if the host has some
    bool coalesce{true};    ///< whether KVM may keep writes to devices in its ring
    bool rng{true};         ///< whether there is a virtio entropy device
    std::optional<VsockConfig> vsock;
    bool restart_on_reboot{false};
    std::optional<unsigned> restart_limit;  ///< restarts in a row (see RestartPace)
    bool core_dumps{false};
    sandbox::Mode sandbox{sandbox::default_mode};
    bool isolate{false};                  ///< in namespaces of its own
    std::optional<std::string> chroot;    ///< becomes the root directory
    std::optional<sandbox::UserId> user;  ///< whom this process becomes
    bool exit_port{false};  ///< the exit port (0x501): the first byte that the guest writes is the exit code
    ObserveConfig observe;
};

inline constexpr unsigned max_cpus = 64;
inline constexpr std::size_t max_serials = 4;
inline constexpr std::size_t max_disks = 26;  // /dev/vda to /dev/vdz
inline constexpr std::size_t max_consoles = 4;

}  // namespace kvm_vmm
