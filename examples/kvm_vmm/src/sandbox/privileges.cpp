// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
#include "sandbox/privileges.hpp"

#include <algorithm>
#include <array>
#include <cerrno>
#include <charconv>
#include <linux/capability.h>
#include <linux/securebits.h>
#include <optional>
#include <sched.h>
#include <string_view>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "util/error.hpp"
#include "util/quote.hpp"

namespace kvm_vmm::sandbox {
namespace {

// Means "no change" to the kernel.
constexpr std::uint32_t no_id = 0xFFFF'FFFF;

std::optional<std::uint32_t> parse_id(std::string_view text) {
    std::uint32_t id = 0;
    const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), id);
    const bool number = error == std::errc{} && end == text.data() + text.size();
    return number && id != 0 && id != no_id ? std::optional(id) : std::nullopt;
}

}  // namespace

std::expected<UserId, std::string> parse_user(const std::string& text) {
    const std::size_t colon = text.find(':');
    const auto user = parse_id(text.substr(0, colon));
    const auto group = colon == std::string::npos ? user : parse_id(text.substr(colon + 1));
    if (!user || !group) {
        return std::unexpected(in_quotes(text) + " is not UID[:GID], two numbers above 0");
    }
    return UserId{.user = *user, .group = *group};
}

void change_root(const std::string& directory) {
    if (::chroot(directory.c_str()) != 0 || ::chdir("/") != 0) {
        throw VmmError(ExitCode::bad_file, errno_message("--chroot " + in_quotes(directory), errno));
    }
}

void unshare_namespaces() {
    constexpr int wanted = CLONE_NEWNS | CLONE_NEWNET | CLONE_NEWIPC | CLONE_NEWUTS;
    if (::unshare(wanted) != 0 && ::unshare(CLONE_NEWUSER | wanted) != 0) {
        throw VmmError(ExitCode::vmm_error,
                       errno_message("--isolate: this host allows no namespaces without privileges", errno));
    }
}

void empty_file_system() {
    // Any directory serves as the place of the new root.
    constexpr const char* place = "/tmp";
    if (::mount(nullptr, "/", nullptr, MS_REC | MS_PRIVATE, nullptr) != 0 ||
        ::mount("none", place, "tmpfs", MS_NOSUID | MS_NODEV | MS_NOEXEC | MS_RDONLY, "size=4k") != 0 ||
        ::chdir(place) != 0 || ::syscall(SYS_pivot_root, ".", ".") != 0 || ::umount2(".", MNT_DETACH) != 0 ||
        ::chdir("/") != 0) {
        throw VmmError(ExitCode::vmm_error,
                       errno_message("--isolate: the file system cannot be left, which some hosts forbid "
                                     "(kernel.apparmor_restrict_unprivileged_userns)",
                                     errno));
    }
}

void become_user(UserId id) {
    if (::syscall(SYS_setgroups, 0, nullptr) != 0 ||
        ::syscall(SYS_setresgid, id.group, id.group, id.group) != 0 ||
        ::syscall(SYS_setresuid, id.user, id.user, id.user) != 0) {
        throw VmmError(ExitCode::vmm_error, errno_message("--user: the user cannot be changed", errno));
    }
}

void limit_capabilities() noexcept {
    // A process with user ID 0 gets no capabilities from that, also not when it executes a program.
    constexpr unsigned long no_root = SECBIT_NOROOT | SECBIT_NOROOT_LOCKED | SECBIT_NO_SETUID_FIXUP |
                                      SECBIT_NO_SETUID_FIXUP_LOCKED | SECBIT_KEEP_CAPS_LOCKED |
                                      SECBIT_NO_CAP_AMBIENT_RAISE | SECBIT_NO_CAP_AMBIENT_RAISE_LOCKED;
    ::prctl(PR_SET_SECUREBITS, no_root);
    ::prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0);
    for (unsigned long capability = 0; ::prctl(PR_CAPBSET_DROP, capability) == 0; ++capability) {
    }
}

void drop_capabilities() noexcept {
    __user_cap_header_struct header{.version = _LINUX_CAPABILITY_VERSION_3, .pid = 0};
    const std::array<__user_cap_data_struct, _LINUX_CAPABILITY_U32S_3> none{};
    ::syscall(SYS_capset, &header, none.data());
}

void forbid_new_privileges() {
    if (::prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0) {
        throw VmmError(ExitCode::vmm_error, errno_message("sandbox: no_new_privs cannot be set", errno));
    }
}

void limit_resources(const Limits& limits) noexcept {
    const auto lower = [](auto resource, rlim_t most, bool for_ever = true) {
        rlimit limit{};
        if (::getrlimit(resource, &limit) == 0) {
            limit.rlim_cur = std::min(limit.rlim_cur, most);
            limit.rlim_max = for_ever ? limit.rlim_cur : limit.rlim_max;
            ::setrlimit(resource, &limit);
        }
    };
    if (!limits.core_dumps) {
        lower(RLIMIT_CORE, 0);
    }
    lower(RLIMIT_NOFILE, limits.descriptors);
    if (limits.file_size) {
        lower(RLIMIT_FSIZE, *limits.file_size, false);  // the thread of a disk whose image grows raises it
    }
}

}  // namespace kvm_vmm::sandbox
