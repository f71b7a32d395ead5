// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
#include "sandbox/launcher_filter.hpp"

#include <array>
#include <sys/syscall.h>

namespace kvm_vmm::sandbox {
namespace {

constexpr std::array refused{
    // Other processes.
    SYS_ptrace, SYS_process_vm_readv, SYS_process_vm_writev, SYS_process_madvise, SYS_pidfd_getfd, SYS_kcmp,
    SYS_perf_event_open, SYS_tkill,
    // The kernel and the machine.
    SYS_init_module, SYS_finit_module, SYS_delete_module, SYS_kexec_load, SYS_kexec_file_load, SYS_reboot,
    SYS_bpf, SYS_iopl, SYS_ioperm, SYS_swapon, SYS_swapoff, SYS_acct, SYS_quotactl, SYS_settimeofday,
    SYS_clock_settime, SYS_adjtimex, SYS_clock_adjtime, SYS_syslog, SYS_lookup_dcookie,
    // Parts of the kernel that a network helper does not need.
    SYS_io_uring_setup, SYS_io_uring_enter, SYS_io_uring_register, SYS_userfaultfd, SYS_add_key,
    SYS_request_key, SYS_keyctl, SYS_modify_ldt, SYS_personality, SYS_vmsplice, SYS_migrate_pages,
    SYS_move_pages, SYS_mbind, SYS_set_mempolicy, SYS_open_by_handle_at, SYS_name_to_handle_at,
    SYS_fanotify_init, SYS_memfd_secret};

}  // namespace

SeccompFilter launcher_filter() { return SeccompFilter(refused); }

}  // namespace kvm_vmm::sandbox
