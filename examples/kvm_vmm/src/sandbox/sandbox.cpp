// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
#include "sandbox/sandbox.hpp"

#include <array>
#include <atomic>
#include <cstdlib>
#include <malloc.h>
#include <string>
#include <sys/prctl.h>
#include <unistd.h>
#include <utility>
#include <vector>

#include "sandbox/allow_list.hpp"
#include "sandbox/seccomp_filter.hpp"
#include "sandbox/violation.hpp"
#include "util/error.hpp"
#include "util/log.hpp"
#include "util/process.hpp"

namespace kvm_vmm::sandbox {
namespace {

/// What prepare() made. Not changed while there are other threads.
struct Prepared {
    Plan plan;
    Landlock landlock;
    std::array<std::optional<SeccompFilter>, role_names.size()> filters;
};
std::optional<Prepared> prepared;
// Whether close() is done, and with it what confine_thread() does, which later threads inherit.
std::atomic<bool> closed{false};

bool is_needed(Role role, FeatureSet features) {
    switch (role) {
        case Role::disk:
            return features.has(Feature::disk);
        case Role::net:
            return features.has_any({Feature::tap, Feature::stream_net});
        case Role::share:
            return features.has_any({Feature::share, Feature::writable_share});
        case Role::vsock:
            return features.has(Feature::vsock);
        case Role::set_up:
        case Role::main:
        case Role::vcpu:
        case Role::input:
            return true;
    }
    return true;
}

bool confines(Mode mode) noexcept { return mode == Mode::on || mode == Mode::required; }

// Of the calling thread.
std::optional<std::string> confine_thread(const Prepared& sandbox) {
    if (confines(sandbox.plan.mode)) {
        limit_capabilities();
    }
    if (sandbox.plan.user) {
        become_user(*sandbox.plan.user);
        set_dumpable(sandbox.plan.limits.core_dumps);
    }
    if (confines(sandbox.plan.mode)) {
        drop_capabilities();
        if (const int error = sandbox.landlock.enter(); error != 0) {
            return errno_message("Landlock refuses a thread", error);
        }
    }
    return std::nullopt;
}

[[noreturn]] void fail_thread(const std::string& reason) {
    report("sandbox: " + reason);
    std::_Exit(static_cast<int>(ExitCode::sandbox));
}

}  // namespace

void prepare(const Plan& plan) {
    if (plan.mode == Mode::off) {
        return;
    }
    // With more heaps than one, glibc opens a file in /proc when a thread's heap shrinks.
    ::mallopt(M_ARENA_MAX, 1);
    const bool confined = confines(plan.mode);
    Prepared sandbox{.plan = plan, .landlock = Landlock(plan.paths), .filters = {}};
    if (plan.mode == Mode::required && sandbox.landlock.version() == 0) {
        throw VmmError(ExitCode::vmm_error,
                       "sandbox: this kernel has no Landlock, which --sandbox required asks for");
    }
    const std::vector<AllowedCall> calls = allowed_calls(static_cast<std::uint32_t>(::getpid()));
    for (std::size_t i = 0; i < sandbox.filters.size(); ++i) {
        const auto role = static_cast<Role>(i);
        if (is_needed(role, plan.features)) {
            sandbox.filters.at(i).emplace(calls_of(role, plan.features, calls),
                                          confined ? 0 : exempt_instruction());
        }
    }
    forbid_new_privileges();
    if (plan.isolate) {
        unshare_namespaces();  // now, because only a process with one thread may
    }
    handle_violations(confined ? OnViolation::end : OnViolation::log_call);
    prepared.emplace(std::move(sandbox));
}

void close() {
    if (!prepared) {
        return;
    }
    const Plan& plan = prepared->plan;
    const bool connects_by_path = plan.features.has_any({Feature::vsock, Feature::reconnect});
    if (plan.root) {
        change_root(*plan.root);
        if (connects_by_path) {
            log(LogLevel::warning,
                "sandbox: sockets are connected to by their paths, which begin at the directory of --chroot "
                "now");
        }
    } else if (plan.isolate && connects_by_path) {
        log(LogLevel::warning,
            "sandbox: --isolate keeps the file system, because sockets are connected to by their paths");
    } else if (plan.isolate) {
        empty_file_system();
    }
    if (confines(plan.mode)) {
        limit_resources(plan.limits);
        if (prepared->landlock.version() == 0) {
            log(LogLevel::warning,
                "sandbox: this kernel has no Landlock (Linux 5.13), so system call filters alone limit which "
                "files are reached");
        }
    }
    if (const auto reason = confine_thread(*prepared)) {
        throw VmmError(ExitCode::vmm_error, "sandbox: " + *reason);
    }
    accept_violations();
    name_thread("main");
    if (const int error = prepared->filters.at(static_cast<std::size_t>(Role::set_up))->install();
        error != 0) {
        throw VmmError(
            ExitCode::vmm_error,
            errno_message("sandbox: seccomp filters are not available (--no-sandbox runs without)", error));
    }
    closed.store(true);
}

void enter(Role role, const char* name) {
    ::prctl(PR_SET_NAME, name);
    name_thread(name);
    enter(role);
}

void enter(Role role) {
    if (!prepared) {
        return;
    }
    if (!closed.load()) {
        try {
            if (const auto reason = confine_thread(*prepared)) {
                fail_thread(*reason);
            }
        } catch (const VmmError& error) {
            fail_thread(error.what());
        }
    }
    accept_violations();
    const auto& filter = prepared->filters.at(static_cast<std::size_t>(role));
    if (const int error = filter ? filter->install() : EINVAL; error != 0) {
        fail_thread(errno_message("a thread cannot be confined", error));
    }
}

}  // namespace kvm_vmm::sandbox
