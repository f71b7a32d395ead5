// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
#include "util/process.hpp"

#include <algorithm>
#include <array>
#include <bit>
#include <charconv>
#include <csignal>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <dirent.h>
#include <fcntl.h>
#include <link.h>
#include <memory>
#include <pthread.h>
#include <span>
#include <string_view>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>
#include <vector>

namespace kvm_vmm {
namespace {

constexpr std::size_t stack_size = 8UL << 20U;
constexpr unsigned first_other_fd = STDERR_FILENO + 1;

// If descriptor 0, 1 or 2 were closed, the next file that is opened would get its number, and the console
// would write into that file.
void keep_standard_descriptors_open() {
    for (const int fd : {STDIN_FILENO, STDOUT_FILENO, STDERR_FILENO}) {
        if (::fcntl(fd, F_GETFD) < 0) {
            [[maybe_unused]] const int opened = ::open("/dev/null", O_RDWR);
        }
    }
}

/// The descriptors that an argument names, in ascending order.
std::vector<unsigned> named_descriptors(std::span<const char* const> arguments) {
    std::vector<unsigned> named;
    for (const std::string_view argument : arguments) {
        for (const std::string_view prefix : {std::string_view("fd/"), std::string_view("fd=")}) {
            for (std::size_t at = argument.find(prefix); at != std::string_view::npos;
                 at = argument.find(prefix, at + 1)) {
                const char* const begin = argument.data() + at + prefix.size();
                unsigned fd = 0;
                const auto [end, error] = std::from_chars(begin, argument.data() + argument.size(), fd);
                if (error == std::errc{} && fd >= first_other_fd) {
                    named.push_back(fd);
                }
            }
        }
    }
    std::ranges::sort(named);
    return named;
}

// For kernels before 5.9, which have no close_range(2).
void close_one_by_one(unsigned first, unsigned last) {
    const std::unique_ptr<DIR, int (*)(DIR*)> directory(::opendir("/proc/self/fd"), ::closedir);
    if (!directory) {
        return;
    }
    std::vector<int> open;
    while (const dirent* const entry = ::readdir(directory.get())) {
        const std::string_view name(static_cast<const char*>(entry->d_name));
        unsigned fd = 0;
        if (std::from_chars(name.data(), name.data() + name.size(), fd).ec == std::errc{} && fd >= first &&
            fd <= last && static_cast<int>(fd) != ::dirfd(directory.get())) {
            open.push_back(static_cast<int>(fd));
        }
    }
    std::ranges::for_each(open, [](int fd) { ::close(fd); });
}

void close_descriptors(unsigned first, unsigned last) {
    if (first <= last && ::syscall(SYS_close_range, first, last, 0U) != 0) {
        close_one_by_one(first, last);
    }
}

void close_other_descriptors(std::span<const char* const> arguments) {
    unsigned first = first_other_fd;
    for (const unsigned fd : named_descriptors(arguments)) {
        if (fd >= first) {
            close_descriptors(first, fd - 1);
            first = fd + 1;
        }
    }
    close_descriptors(first, ~0U);
}

/// Signals by which a user or a shell ends or stops a job. If the parent ignores them, they stay ignored.
bool may_stay_ignored(int signal) {
    constexpr std::array job_signals{SIGHUP, SIGINT, SIGQUIT, SIGTSTP, SIGTTOU};
    return std::ranges::find(job_signals, signal) != job_signals.end();
}

void own_signals() {
    for (int signal = 1; signal <= SIGRTMAX; ++signal) {
        struct sigaction action{};
        // A handler cannot have been inherited: it belongs to a sanitizer's run-time library.
        if (::sigaction(signal, nullptr, &action) == 0 && action.sa_handler == SIG_IGN &&
            !may_stay_ignored(signal)) {
            std::signal(signal, SIG_DFL);
        }
    }
    // If the reader of the console closes it, the write returns an error, and the VM does not end.
    std::signal(SIGPIPE, SIG_IGN);
    // The same applies to a file that reaches the size limit of this process.
    std::signal(SIGXFSZ, SIG_IGN);
    // The same applies to a terminal that another job got just before it is read: the read fails with EIO.
    std::signal(SIGTTIN, SIG_IGN);
    // Requests for the metrics and for a look at the disks' sizes stay pending until the event loop waits for them,
    // instead of ending the process.
    sigset_t blocked{};
    sigemptyset(&blocked);
    sigaddset(&blocked, SIGUSR1);
    sigaddset(&blocked, SIGUSR2);
    pthread_sigmask(SIG_SETMASK, &blocked, nullptr);
}

void own_limits() {
    rlimit files{};
    if (::getrlimit(RLIMIT_NOFILE, &files) == 0) {
        // Directories that a guest shares need a descriptor for each file that it knows. A privileged process may have
        // more than the kernel's own limit, which is still there if no init system or administrator has chosen one.
        constexpr rlim_t kernel_default = 4096;
        constexpr rlim_t most = rlim_t{1} << 20U;  // the default of fs.nr_open
        const rlimit raised{.rlim_cur = most, .rlim_max = most};
        if (files.rlim_max != kernel_default || ::setrlimit(RLIMIT_NOFILE, &raised) != 0) {
            files.rlim_cur = files.rlim_max;
            ::setrlimit(RLIMIT_NOFILE, &files);
        }
    }
    // The main thread's stack grows up to the current limit; other threads get the size from libc, which read
    // it from the limit that was set before main().
    rlimit stack{};
    if (::getrlimit(RLIMIT_STACK, &stack) == 0 && stack.rlim_cur < stack_size) {
        stack.rlim_cur = std::min<rlim_t>(stack_size, stack.rlim_max);
        ::setrlimit(RLIMIT_STACK, &stack);
    }
    pthread_attr_t attributes{};
    if (pthread_attr_init(&attributes) == 0) {
        pthread_attr_setstacksize(&attributes, stack_size);
        pthread_setattr_default_np(&attributes);
        pthread_attr_destroy(&attributes);
    }
}

}  // namespace

void take_over_process(std::span<const char* const> arguments) {
    keep_standard_descriptors_open();
    close_other_descriptors(arguments);
    own_signals();
    own_limits();
    ::umask(077);
    set_dumpable(false);
}

void set_dumpable(bool dumpable) noexcept { ::prctl(PR_SET_DUMPABLE, dumpable ? 1 : 0); }

void return_program_pages() noexcept {
    const auto return_read_only = [](dl_phdr_info* object, std::size_t, void*) {
        static const auto page_size = static_cast<std::uintptr_t>(::sysconf(_SC_PAGESIZE));
        for (const ElfW(Phdr) & part : std::span(object->dlpi_phdr, object->dlpi_phnum)) {
            if (part.p_type == PT_LOAD && (part.p_flags & PF_W) == 0) {
                const std::uintptr_t start = (object->dlpi_addr + part.p_vaddr) & ~(page_size - 1);
                const std::uintptr_t end = object->dlpi_addr + part.p_vaddr + part.p_memsz;
                ::madvise(std::bit_cast<void*>(start), end - start, MADV_DONTNEED);
            }
        }
        return 0;
    };
    ::dl_iterate_phdr(return_read_only, nullptr);
}

void end_by_signal(int signal) noexcept {
    std::signal(signal, SIG_DFL);
    sigset_t set{};
    sigemptyset(&set);
    sigaddset(&set, signal);
    ::raise(signal);
    pthread_sigmask(SIG_UNBLOCK, &set, nullptr);
}

}  // namespace kvm_vmm
