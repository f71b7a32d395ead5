// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
#include "sandbox/allow_list.hpp"

#include <algorithm>
#include <asm/ioctls.h>
#include <asm/termbits.h>
#include <fcntl.h>
#include <linux/fs.h>
#include <linux/if_tun.h>
#include <linux/kvm.h>
#include <linux/seccomp.h>
#include <linux/sockios.h>
#include <sched.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <utility>

#include "util/list_request.hpp"

namespace kvm_vmm::sandbox {
namespace {

constexpr std::uint32_t whole = 0xFFFF'FFFF;

constexpr RoleSet every{Role::set_up, Role::main,  Role::vcpu,  Role::disk,
                        Role::net,    Role::share, Role::vsock, Role::input};
// Those that have an event loop.
constexpr RoleSet loops{Role::main, Role::disk, Role::net, Role::share, Role::vsock};
constexpr FeatureSet always{};

// The requests of glibc 2.42 and later, which linux/termios.h of older systems has under the same numbers.
constexpr std::uint32_t tcgets2 = 0x802C542A;
constexpr std::uint32_t tcsets2 = 0x402C542B;

class Table {
public:
    explicit Table(std::uint32_t process) : process_(process) {
        add_memory();
        add_threads();
        add_time();
        add_signals();
        add_descriptors();
        add_terminals();
        add_sockets();
        add_kvm();
        add_disk();
        add_net();
        add_share();
        add_files();
    }

    std::vector<AllowedCall> take() { return std::move(rows_); }

private:
    void add(int number, RoleSet roles, FeatureSet features, std::string_view why,
             std::vector<ArgumentCheck> checks = {}) {
        rows_.push_back({.number = number,
                         .checks = std::move(checks),
                         .roles = roles,
                         .features = features,
                         .why = why});
    }

    void add_ioctl(std::uint64_t request, std::string_view name, RoleSet roles, FeatureSet features,
                   std::string_view why) {
        add(SYS_ioctl, roles, features, why,
            {{.argument = 1, .mask = whole, .value = static_cast<std::uint32_t>(request), .meaning = name}});
    }

    void add_fcntl(std::uint32_t command, std::string_view name, RoleSet roles, FeatureSet features,
                   std::string_view why) {
        add(SYS_fcntl, roles, features, why,
            {{.argument = 1, .mask = whole, .value = command, .meaning = name}});
    }

    void add_memory() {
        const auto no_code = [](std::string_view meaning) {
            return std::vector<ArgumentCheck>{
                {.argument = 2, .mask = PROT_EXEC, .value = 0, .meaning = meaning}};
        };
        add(SYS_brk, every, always, "malloc");
        add(SYS_mmap, every, always, "malloc, stacks of threads, guest memory", no_code("no PROT_EXEC"));
        add(SYS_mprotect, every, always, "malloc's arenas, guard pages of stacks", no_code("no PROT_EXEC"));
        add(SYS_munmap, every, always, "malloc, stacks of threads");
        add(SYS_mremap, every, always, "realloc of large blocks");
        add(SYS_madvise, every, always, "stacks of ended threads; the balloon's pages");
    }

    void add_threads() {
        add(SYS_futex, every, always, "locks");
        add(SYS_sched_yield, every, always, "waits for another thread");
        add(SYS_gettid, every, always, "which thread this is (locks, abort)");
        add(SYS_getpid, every, always, "raise, abort");
        add(SYS_restart_syscall, every, always, "the kernel continues a call after a stop");
        add(SYS_exit, every, always, "the end of a thread");
        add(SYS_exit_group, every, always, "the end of the process");
        add(SYS_membarrier, {Role::set_up, Role::main}, always, "removal of devices from a bus");
        // What pthread_create() of glibc and musl asks for; clone3() is answered with ENOSYS, because its
        // flags are in memory.
        add(SYS_clone, {Role::set_up}, always, "threads, no processes",
            {{.argument = 0,
              .mask = CLONE_THREAD | CLONE_VM | CLONE_NEWNS | CLONE_NEWUTS | CLONE_NEWIPC | CLONE_NEWUSER |
                      CLONE_NEWPID | CLONE_NEWNET,
              .value = CLONE_THREAD | CLONE_VM,
              .meaning = "CLONE_THREAD, no new namespace"}});
        add(SYS_set_robust_list, {Role::set_up}, always, "the start of a thread");
        add(SYS_rseq, {Role::set_up}, always, "the start and the end of a thread");
        add(SYS_prctl, {Role::set_up}, always, "names of threads",
            {{.argument = 0, .mask = whole, .value = PR_SET_NAME, .meaning = "PR_SET_NAME"}});
        add(SYS_seccomp, {Role::set_up}, always, "the filter of a thread",
            {{.argument = 0,
              .mask = whole,
              .value = SECCOMP_SET_MODE_FILTER,
              .meaning = "SECCOMP_SET_MODE_FILTER"}});
    }

    void add_time() {
        add(SYS_clock_gettime, every, always, "clocks that the vDSO does not serve");
        add(SYS_clock_nanosleep, every, always, "short waits");
        add(SYS_nanosleep, every, always, "waits until the terminal may be restored");
        add(SYS_timerfd_create, {Role::set_up, Role::main}, always, "timers");
        add(SYS_timerfd_settime, {Role::set_up, Role::main, Role::vcpu, Role::disk, Role::net, Role::vsock},
            always, "timers");
    }

    void add_signals() {
        const std::vector<ArgumentCheck> itself{
            {.argument = 0, .mask = whole, .value = process_, .meaning = "this process"}};
        add(SYS_rt_sigprocmask, every, always, "blocking of signals");
        add(SYS_rt_sigreturn, every, always, "the end of a signal's handler");
        add(SYS_sigaltstack, every, always, "the stack of signal handlers");
        add(SYS_rt_sigaction, every, always, "default action of the signal that ends the process");
        add(SYS_rt_sigpending, {Role::set_up, Role::main}, always, "signals during the set-up, job control");
        add(SYS_tgkill, every, always, "kicks of CPUs, raise, abort", itself);
        add(SYS_kill, every, always, "a signal that the process forwards to itself", itself);
        add(SYS_signalfd4, {Role::set_up}, always, "signals of the event loop");
    }

    void add_descriptors() {
        add(SYS_read, every, always, "consoles, eventfds, timers");
        add(SYS_write, every, always, "consoles, log, trace, eventfds");
        add(SYS_close, every, always, "descriptors");
        add(SYS_poll, every, always, "whether a console can be written");
        add(SYS_epoll_wait, loops, always, "event loops");
        add(SYS_epoll_pwait, loops, always, "event loops");
        add(SYS_epoll_ctl, {Role::set_up, Role::main, Role::vcpu, Role::net, Role::vsock}, always,
            "sources of the event loops");
        add(SYS_epoll_create1, {Role::set_up}, always, "event loops");
        add(SYS_eventfd2, {Role::set_up}, always, "notifications between threads and KVM");
        add(SYS_fstat, every, always, "what kind of file a descriptor is");
        add(SYS_newfstatat, every, always, "what kind of file a descriptor is (fstat of glibc)",
            {{.argument = 3, .mask = whole, .value = AT_EMPTY_PATH, .meaning = "AT_EMPTY_PATH"}});
        add_fcntl(F_GETFL, "F_GETFL", every, always, "whether a descriptor blocks");
        add_fcntl(F_DUPFD_CLOEXEC, "F_DUPFD_CLOEXEC", {Role::set_up, Role::main, Role::share}, always,
                  "copies of descriptors");
        add(SYS_getrandom, {Role::set_up, Role::main}, always, "the entropy device, names of files");
    }

    void add_terminals() {
        // By every thread, because each restores the terminal if it is stopped.
        constexpr std::string_view restore = "the terminal is restored when the process ends";
        add_ioctl(TCGETS, "TCGETS", every, always, restore);
        add_ioctl(TCSETS, "TCSETS", every, always, restore);
        add_ioctl(tcgets2, "TCGETS2", every, always, restore);
        add_ioctl(tcsets2, "TCSETS2", every, always, restore);
        add_ioctl(TIOCGPGRP, "TIOCGPGRP", every, always, "whether this process is in the foreground");
        add_ioctl(TIOCGPTN, "TIOCGPTN", every, always, "whether a terminal is a master");
        add(SYS_getpgrp, every, always, "whether this process is in the foreground");
        add_ioctl(TIOCGWINSZ, "TIOCGWINSZ", {Role::set_up, Role::main}, always, "size of a virtio console");
        add_ioctl(TCFLSH, "TCFLSH", {Role::main}, {Feature::pty},
                  "output that the last program did not read");
        add_ioctl(TIOCGPTPEER, "TIOCGPTPEER", {Role::main}, {Feature::pty},
                  "output that the last program did not read");
    }

    void add_sockets() {
        add(SYS_sendto, every, always, "consoles that are sockets, network");
        add(SYS_recvfrom, {Role::main, Role::net, Role::vsock}, always, "consoles that are sockets, network");
        add(SYS_accept4, {Role::main, Role::vsock}, {Feature::unix_console, Feature::vsock}, "clients");
        add(SYS_sendmsg, {Role::net, Role::vsock}, {Feature::stream_net, Feature::vsock}, "frames, packets");
        add(SYS_recvmsg, {Role::vsock}, {Feature::vsock}, "packets");
        add(SYS_shutdown, {Role::vsock}, {Feature::vsock}, "half-closed connections");
        add_ioctl(SIOCOUTQ, "SIOCOUTQ", {Role::vsock}, {Feature::vsock}, "whether a slow program reads");
        const std::vector<ArgumentCheck> local{
            {.argument = 0, .mask = whole, .value = AF_UNIX, .meaning = "AF_UNIX"}};
        add(SYS_socket, {Role::vsock}, {Feature::vsock}, "connections of the guest to PATH_port", local);
        add(SYS_connect, {Role::vsock}, {Feature::vsock}, "connections of the guest to PATH_port");
        add(SYS_socket, {Role::net}, {Feature::reconnect}, "a new connection to passt", local);
        add(SYS_connect, {Role::net}, {Feature::reconnect}, "a new connection to passt");
        add(SYS_setsockopt, {Role::net}, {Feature::reconnect, Feature::helper}, "buffers of a new connection",
            {{.argument = 1, .mask = whole, .value = SOL_SOCKET, .meaning = "SOL_SOCKET"},
             {.argument = 2, .mask = whole, .value = SO_SNDBUF, .meaning = "SO_SNDBUF"}});
    }

    void add_kvm() {
        const RoleSet making{Role::set_up};
        add_ioctl(KVM_RUN, "KVM_RUN", {Role::vcpu}, always, "runs the guest");
        add_ioctl(KVM_KVMCLOCK_CTRL, "KVM_KVMCLOCK_CTRL", {Role::vcpu}, always, "the guest was paused");
        add_ioctl(KVM_GET_MP_STATE, "KVM_GET_MP_STATE", {Role::vcpu}, always, "whether a CPU is halted");
        add_ioctl(KVM_GET_REGS, "KVM_GET_REGS", {Role::set_up, Role::vcpu}, always,
                  "whether a CPU is halted for good; where it failed");
        add_ioctl(KVM_IRQ_LINE, "KVM_IRQ_LINE", {Role::set_up, Role::main, Role::vcpu}, always, "interrupts");
        add_ioctl(KVM_IRQFD, "KVM_IRQFD", making, always, "interrupts");
        add_ioctl(KVM_IOEVENTFD, "KVM_IOEVENTFD", making, always, "notifications of virtio queues");
        add_ioctl(KVM_CREATE_VM, "KVM_CREATE_VM", making, always, "the VM");
        add_ioctl(KVM_CREATE_VCPU, "KVM_CREATE_VCPU", making, always, "CPUs");
        add_ioctl(KVM_CREATE_IRQCHIP, "KVM_CREATE_IRQCHIP", making, always, "interrupt controllers");
        add_ioctl(KVM_CREATE_PIT2, "KVM_CREATE_PIT2", making, always, "the timer");
        add_ioctl(KVM_SET_TSS_ADDR, "KVM_SET_TSS_ADDR", making, always, "the VM");
        add_ioctl(KVM_SET_IDENTITY_MAP_ADDR, "KVM_SET_IDENTITY_MAP_ADDR", making, always, "the VM");
        add_ioctl(KVM_SET_USER_MEMORY_REGION, "KVM_SET_USER_MEMORY_REGION", making, always, "guest memory");
        add_ioctl(KVM_CHECK_EXTENSION, "KVM_CHECK_EXTENSION", making, always, "what KVM can do");
        add_ioctl(KVM_GET_VCPU_MMAP_SIZE, "KVM_GET_VCPU_MMAP_SIZE", making, always, "CPUs");
        add_ioctl(list_request(KVM_GET_SUPPORTED_CPUID), "KVM_GET_SUPPORTED_CPUID", making, always, "CPUs");
        add_ioctl(list_request(KVM_SET_CPUID2), "KVM_SET_CPUID2", making, always, "CPUs");
        add_ioctl(list_request(KVM_SET_MSRS), "KVM_SET_MSRS", making, always, "CPUs");
        add_ioctl(KVM_GET_SREGS, "KVM_GET_SREGS", {Role::set_up, Role::vcpu}, always, "where a CPU failed");
        add_ioctl(KVM_SET_SREGS, "KVM_SET_SREGS", making, always, "CPUs");
        add_ioctl(KVM_SET_REGS, "KVM_SET_REGS", making, always, "CPUs");
        add_ioctl(KVM_SET_FPU, "KVM_SET_FPU", making, always, "CPUs");
        add_ioctl(KVM_GET_LAPIC, "KVM_GET_LAPIC", making, always, "CPUs");
        add_ioctl(KVM_SET_LAPIC, "KVM_SET_LAPIC", making, always, "CPUs");
        add_ioctl(KVM_GET_TSC_KHZ, "KVM_GET_TSC_KHZ", making, always, "CPUs");
        // Also while the guest runs: not while it is at rest.
        add_ioctl(KVM_REGISTER_COALESCED_MMIO, "KVM_REGISTER_COALESCED_MMIO", {Role::set_up, Role::main},
                  always, "writes that KVM keeps in its ring");
        add_ioctl(KVM_UNREGISTER_COALESCED_MMIO, "KVM_UNREGISTER_COALESCED_MMIO", {Role::set_up, Role::main},
                  always, "writes that KVM keeps in its ring");
    }

    void add_disk() {
        const FeatureSet disk{Feature::disk};
        const RoleSet disks{Role::disk};
        add(SYS_io_uring_setup, {Role::set_up}, disk, "rings of disks");
        add(SYS_io_uring_register, {Role::set_up}, disk, "files and limits of the rings");
        // A CPU that resets the device, and the end of the VM, wait for the requests in progress themselves.
        add(SYS_io_uring_enter, {Role::main, Role::vcpu, Role::disk}, disk, "requests");
        add(SYS_preadv2, disks, disk, "requests where io_uring is not available");
        add(SYS_pwritev2, disks, disk, "requests where io_uring is not available");
        add(SYS_fdatasync, disks, disk, "flush");
        add(SYS_fallocate, disks, disk, "discard, write zeroes");
        add_ioctl(BLKDISCARD, "BLKDISCARD", disks, disk, "discard");
        add_ioctl(BLKZEROOUT, "BLKZEROOUT", disks, disk, "write zeroes");
        add_ioctl(BLKGETSIZE64, "BLKGETSIZE64", disks, disk, "a new size (SIGUSR2)");
        add_fcntl(F_OFD_SETLK, "F_OFD_SETLK", disks, disk, "a new size (SIGUSR2)");
        add(SYS_prlimit64, disks, disk, "a new size (SIGUSR2): files may grow to it",
            {{.argument = 0, .mask = whole, .value = 0, .meaning = "of this process"},
             {.argument = 1, .mask = whole, .value = RLIMIT_FSIZE, .meaning = "RLIMIT_FSIZE"}});
    }

    void add_net() {
        const FeatureSet tap{Feature::tap};
        add(SYS_readv, {Role::net}, tap, "frames");
        add(SYS_writev, {Role::net}, tap, "frames");
        add_ioctl(TUNSETOFFLOAD, "TUNSETOFFLOAD", {Role::net, Role::vcpu, Role::main}, tap,
                  "what the guest's driver takes off the host");
        add(SYS_recvmsg, {Role::set_up, Role::main, Role::net}, {Feature::helper},
            "passt, from its launcher");
    }

    void add_share() {
        const FeatureSet share{Feature::share, Feature::writable_share};
        const FeatureSet writable{Feature::writable_share};
        const RoleSet server{Role::share};
        add(SYS_prlimit64, {Role::set_up}, share, "how many files the guest may have open",
            {{.argument = 2, .mask = ~std::uint64_t{0}, .value = 0, .meaning = "no new limit"}});
        add(SYS_openat2, server, share, "files of the shared directory");
        add(SYS_openat, server, share, "an opened file again, with other rights");
        add(SYS_newfstatat, server, share, "attributes",
            {{.argument = 3, .mask = whole, .value = AT_SYMLINK_NOFOLLOW, .meaning = "AT_SYMLINK_NOFOLLOW"}});
        add(SYS_fstatfs, server, share, "size of the file system");
        add(SYS_readlinkat, server, share, "symbolic links");
        add(SYS_getdents64, server, share, "directories");
        add(SYS_lseek, server, share, "directories, holes");
        add(SYS_preadv, server, share, "reads");
        add(SYS_faccessat2, server, share, "access");
        add(SYS_pwritev2, server, writable, "writes");
        add(SYS_mkdirat, server, writable, "new directories");
        add(SYS_symlinkat, server, writable, "new symbolic links");
        add(SYS_linkat, server, writable, "new hard links");
        add(SYS_unlinkat, server, writable, "removal");
        add(SYS_renameat, server, writable, "renaming (renameat2 of glibc without flags)");
        add(SYS_renameat2, server, writable, "renaming");
        add(SYS_fchmodat, server, writable, "modes");
        add(SYS_fchmod, server, writable, "modes");
        add(SYS_fchownat, server, writable, "owners");
        add(SYS_utimensat, server, writable, "times");
        add(SYS_ftruncate, server, writable, "sizes");
        add(SYS_fallocate, server, writable, "room for a file");
        add(SYS_copy_file_range, server, writable, "copies");
        add(SYS_fsync, server, writable, "synchronization");
        add(SYS_fdatasync, server, writable, "synchronization");
        add(SYS_syncfs, server, writable, "synchronization");
    }

    void add_files() {
        const FeatureSet metrics{Feature::metrics};
        add(SYS_openat, {Role::main}, metrics, "the metrics file, which is replaced",
            {{.argument = 2,
              .mask = whole,
              .value = O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC,
              .meaning = "O_CREAT | O_EXCL | O_NOFOLLOW"}});
        add(SYS_newfstatat, {Role::main}, {Feature::metrics, Feature::unix_console, Feature::vsock},
            "whether a path is still that of the file or socket that was made",
            {{.argument = 3, .mask = whole, .value = AT_SYMLINK_NOFOLLOW, .meaning = "AT_SYMLINK_NOFOLLOW"}});
        add(SYS_fchmod, {Role::main}, metrics, "the mode of the metrics file");
        add(SYS_renameat, {Role::main}, metrics, "the metrics file, which is replaced");
        add(SYS_unlinkat, {Role::main}, {Feature::metrics, Feature::unix_console, Feature::vsock},
            "a metrics file that was not finished; sockets that this program made");
        add(SYS_flock, {Role::main}, {Feature::unix_console, Feature::vsock}, "removal of its sockets");
        add(SYS_pread64, {Role::set_up}, always, "kernel and initrd");
        add(SYS_lseek, {Role::set_up, Role::main}, always, "whether the log is a terminal");
    }

    std::uint32_t process_;
    std::vector<AllowedCall> rows_;
};

}  // namespace

std::vector<AllowedCall> allowed_calls(std::uint32_t process) { return Table(process).take(); }

std::vector<AllowedCall> calls_of(Role role, FeatureSet features, std::vector<AllowedCall> calls) {
    std::erase_if(calls, [&](const AllowedCall& call) {
        const bool present = call.features.empty() || call.features.has_any(features);
        return !present || (role != Role::set_up && !call.roles.has(role));
    });
    return calls;
}

}  // namespace kvm_vmm::sandbox
