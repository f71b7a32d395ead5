// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
#include "sandbox/landlock.hpp"

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstddef>
#include <sys/syscall.h>
#include <unistd.h>

#include "util/error.hpp"

namespace kvm_vmm::sandbox {
namespace {

// The interface of the kernel (Documentation/userspace-api/landlock.rst). The headers of the oldest supported
// system do not have all of it.
struct RulesetAttributes {
    std::uint64_t handled_access_fs;
    std::uint64_t handled_access_net;  // from version 4 on
    std::uint64_t scoped;              // from version 6 on
};

struct [[gnu::packed]] PathBeneathAttributes {
    std::uint64_t allowed_access;
    std::int32_t parent_fd;
};
static_assert(sizeof(PathBeneathAttributes) == 12);

constexpr unsigned create_ruleset_version = 1;
constexpr int rule_path_beneath = 1;

constexpr std::uint64_t bit(unsigned number) { return std::uint64_t{1} << number; }
constexpr std::uint64_t execute = bit(0);
constexpr std::uint64_t write_file = bit(1);
constexpr std::uint64_t read_file = bit(2);
constexpr std::uint64_t read_dir = bit(3);
constexpr std::uint64_t remove_dir = bit(4);
constexpr std::uint64_t remove_file = bit(5);
constexpr std::uint64_t make_char = bit(6);
constexpr std::uint64_t make_dir = bit(7);
constexpr std::uint64_t make_reg = bit(8);
constexpr std::uint64_t make_sock = bit(9);
constexpr std::uint64_t make_fifo = bit(10);
constexpr std::uint64_t make_block = bit(11);
constexpr std::uint64_t make_sym = bit(12);
constexpr std::uint64_t refer = bit(13);      // version 2
constexpr std::uint64_t truncate = bit(14);   // version 3
constexpr std::uint64_t ioctl_dev = bit(15);  // version 5

constexpr std::uint64_t bind_tcp = bit(0);
constexpr std::uint64_t connect_tcp = bit(1);

constexpr std::uint64_t abstract_unix_socket = bit(0);
constexpr std::uint64_t other_signals = bit(1);

/// The rights to files that each version can control.
std::uint64_t controlled_rights(int version) {
    std::uint64_t rights = execute | write_file | read_file | read_dir | remove_dir | remove_file |
                           make_char | make_dir | make_reg | make_sock | make_fifo | make_block | make_sym;
    rights |= version >= 2 ? refer : 0;
    rights |= version >= 3 ? truncate : 0;
    rights |= version >= 5 ? ioctl_dev : 0;
    return rights;
}

std::uint64_t rights_for(PathUse use) {
    constexpr std::uint64_t reading = read_file | read_dir;
    switch (use) {
        case PathUse::read:
            return reading;
        case PathUse::write:
            return reading | write_file | remove_dir | remove_file | make_dir | make_reg | make_sock |
                   make_fifo | make_sym | refer | truncate;
        case PathUse::replace:
            return write_file | make_reg | remove_file;
        case PathUse::remove:
            return remove_file;
    }
    return 0;
}

/// The size of RulesetAttributes as the version knows it: an older kernel refuses a larger one.
std::size_t attributes_size(int version) {
    const std::size_t fields = version >= 6 ? 3 : version >= 4 ? 2 : 1;
    return fields * sizeof(std::uint64_t);
}

}  // namespace

int landlock_version() noexcept {
    const long version = ::syscall(SYS_landlock_create_ruleset, nullptr, 0, create_ruleset_version);
    return version < 0 ? 0 : static_cast<int>(version);
}

Landlock::Landlock(std::span<const PathRule> rules) : version_(landlock_version()) {
    if (version_ == 0) {
        return;
    }
    const std::uint64_t controlled = controlled_rights(version_);
    const RulesetAttributes attributes{.handled_access_fs = controlled,
                                       .handled_access_net = bind_tcp | connect_tcp,
                                       .scoped = abstract_unix_socket | other_signals};
    ruleset_ = vmsuperio::UniqueFd(
        static_cast<int>(::syscall(SYS_landlock_create_ruleset, &attributes, attributes_size(version_), 0U)));
    if (!ruleset_) {
        throw VmmError(ExitCode::vmm_error, errno_message("sandbox: Landlock makes no ruleset", errno));
    }
    for (const PathRule& rule : rules) {
        const PathBeneathAttributes beneath{.allowed_access = rights_for(rule.use) & controlled,
                                            .parent_fd = rule.directory};
        if (::syscall(SYS_landlock_add_rule, ruleset_.get(), rule_path_beneath, &beneath, 0U) != 0) {
            throw VmmError(ExitCode::vmm_error,
                           errno_message("sandbox: Landlock refuses a directory", errno));
        }
    }
}

int Landlock::enter() const noexcept {
    return version_ == 0 || ::syscall(SYS_landlock_restrict_self, ruleset_.get(), 0U) == 0 ? 0 : errno;
}

}  // namespace kvm_vmm::sandbox
