// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <initializer_list>
#include <string_view>

namespace kvm_vmm::sandbox {

/// What a thread does, which decides the system calls that it may make.
enum class Role : std::uint8_t {
    set_up,  ///< the main thread while it makes a VM
    main,    ///< the main thread while the guest runs: the event loop with the consoles and small devices
    vcpu,    ///< runs a CPU of the guest
    disk,    ///< the event loop or a worker of a disk
    net,     ///< the event loop of a network interface
    share,   ///< serves a shared directory
    vsock,   ///< the event loop of the socket device
    input,   ///< reads an input descriptor that cannot be read without blocking
};

inline constexpr std::array role_names{std::string_view("set-up"), std::string_view("main"),
                                       std::string_view("vcpu"),   std::string_view("disk"),
                                       std::string_view("net"),    std::string_view("share"),
                                       std::string_view("vsock"),  std::string_view("input")};

[[nodiscard]] constexpr std::string_view role_name(Role role) noexcept {
    return role_names.at(static_cast<std::size_t>(role));
}

/// A set of the values of an enumeration with at most 16 values.
template <class Enum>
class EnumSet {
public:
    constexpr EnumSet() noexcept = default;
    constexpr EnumSet(std::initializer_list<Enum> values) noexcept {
        for (const Enum value : values) {
            add(value);
        }
    }

    constexpr void add(Enum value) noexcept {
        bits_ = static_cast<std::uint16_t>(bits_ | 1U << static_cast<unsigned>(value));
    }
    [[nodiscard]] constexpr bool has(Enum value) const noexcept {
        return (bits_ >> static_cast<unsigned>(value) & 1U) != 0;
    }
    [[nodiscard]] constexpr bool has_any(EnumSet others) const noexcept {
        return (bits_ & others.bits_) != 0;
    }
    [[nodiscard]] constexpr bool empty() const noexcept { return bits_ == 0; }
    friend constexpr bool operator==(EnumSet, EnumSet) noexcept = default;

private:
    std::uint16_t bits_{0};
};

using RoleSet = EnumSet<Role>;

/// What this process was configured for, as far as that decides which system calls and files it needs.
enum class Feature : std::uint8_t {
    pty,             ///< a console on a pseudo-terminal
    unix_console,    ///< a console on a listening socket
    disk,            ///< a disk
    tap,             ///< a network interface on a tap
    stream_net,      ///< a network interface on a stream socket
    reconnect,       ///< a stream socket that is connected again when its peer has gone
    helper,          ///< a child process (passt)
    share,           ///< a shared directory
    writable_share,  ///< a shared directory that the guest may write to
    vsock,           ///< the socket device
    metrics,         ///< a metrics file
};

using FeatureSet = EnumSet<Feature>;

}  // namespace kvm_vmm::sandbox
