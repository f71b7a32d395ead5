// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
#include "sandbox/seccomp_filter.hpp"

#include <cerrno>
#include <cstddef>
#include <linux/seccomp.h>
#include <memory>
#include <seccomp.h>
#include <string>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <vmsuperio/linux/unique_fd.hpp>

#include "util/error.hpp"

namespace kvm_vmm::sandbox {
namespace {

struct Release {
    void operator()(void* filter) const noexcept { seccomp_release(filter); }
};
using Filter = std::unique_ptr<void, Release>;

[[noreturn]] void fail(const std::string& what, int error_number) {
    throw VmmError(ExitCode::vmm_error, errno_message("sandbox: " + what, error_number));
}

// libseccomp returns negative error numbers.
void expect(int result, const char* what) {
    if (result < 0) {
        fail(what, -result);
    }
}

// `otherwise`: for a call without a rule. `foreign`: for one of another architecture (int 0x80) or of the x32 ABI.
Filter make_filter(std::uint32_t otherwise, std::uint32_t foreign) {
    Filter filter(seccomp_init(otherwise));
    if (!filter) {
        fail("seccomp_init", ENOMEM);
    }
    expect(seccomp_attr_set(filter.get(), SCMP_FLTATR_ACT_BADARCH, foreign), "seccomp_attr_set");
    return filter;
}

void add_rule(const Filter& filter, const AllowedCall& call) {
    std::vector<scmp_arg_cmp> conditions;
    for (const ArgumentCheck& check : call.checks) {
        conditions.push_back(
            {.arg = check.argument, .op = SCMP_CMP_MASKED_EQ, .datum_a = check.mask, .datum_b = check.value});
    }
    expect(seccomp_rule_add_array(filter.get(), SCMP_ACT_ALLOW, call.number,
                                  static_cast<unsigned>(conditions.size()), conditions.data()),
           "a system call cannot be added to a filter");
}

std::vector<sock_filter> program_of(const Filter& filter) {
    const vmsuperio::UniqueFd file(::memfd_create("seccomp filter", MFD_CLOEXEC));
    if (!file) {
        fail("memfd_create", errno);
    }
    expect(seccomp_export_bpf(filter.get(), file.get()), "a filter cannot be made");
    const off_t bytes = ::lseek(file.get(), 0, SEEK_END);
    std::vector<sock_filter> program(static_cast<std::size_t>(bytes) / sizeof(sock_filter));
    if (bytes <= 0 || ::pread(file.get(), program.data(), static_cast<std::size_t>(bytes), 0) != bytes) {
        fail("a filter cannot be read", EIO);
    }
    return program;
}

// Before the filter: allows every call of the instruction that ends at `address`.
std::vector<sock_filter> exemption(std::uintptr_t address) {
    constexpr std::uint32_t low = offsetof(seccomp_data, instruction_pointer);
    constexpr std::uint32_t high = low + sizeof(std::uint32_t);
    constexpr auto load = static_cast<std::uint16_t>(BPF_LD | BPF_W | BPF_ABS);
    constexpr auto jump_if_equal = static_cast<std::uint16_t>(BPF_JMP | BPF_JEQ | BPF_K);
    constexpr auto result = static_cast<std::uint16_t>(BPF_RET | BPF_K);
    return {
        {.code = load, .jt = 0, .jf = 0, .k = low},
        {.code = jump_if_equal, .jt = 0, .jf = 3, .k = static_cast<std::uint32_t>(address)},
        {.code = load, .jt = 0, .jf = 0, .k = high},
        {.code = jump_if_equal,
         .jt = 0,
         .jf = 1,
         .k = static_cast<std::uint32_t>(static_cast<std::uint64_t>(address) >> 32U)},
        {.code = result, .jt = 0, .jf = 0, .k = SECCOMP_RET_ALLOW},
    };
}

}  // namespace

SeccompFilter::SeccompFilter(std::span<const AllowedCall> calls, std::uintptr_t exempt) {
    const Filter filter = make_filter(SCMP_ACT_TRAP, SCMP_ACT_TRAP);
    for (const AllowedCall& call : calls) {
        add_rule(filter, call);
    }
    expect(seccomp_rule_add(filter.get(), SCMP_ACT_ERRNO(ENOSYS), SYS_clone3, 0), "clone3");
    // Checked first: a CPU makes this call for each exit of the guest.
    expect(seccomp_syscall_priority(filter.get(), SYS_ioctl, UINT8_MAX), "seccomp_syscall_priority");
    if (exempt != 0) {
        program_ = exemption(exempt);
    }
    const std::vector<sock_filter> checks = program_of(filter);
    program_.insert(program_.end(), checks.begin(), checks.end());
}

SeccompFilter::SeccompFilter(std::span<const int> refused) {
    const Filter filter = make_filter(SCMP_ACT_ALLOW, SCMP_ACT_ERRNO(EPERM));
    for (const int number : refused) {
        expect(seccomp_rule_add(filter.get(), SCMP_ACT_ERRNO(EPERM), number, 0),
               "a system call cannot be added to a filter");
    }
    program_ = program_of(filter);
}

int SeccompFilter::install() const noexcept {
    const sock_fprog program{
        .len = static_cast<unsigned short>(program_.size()),
        .filter = const_cast<sock_filter*>(program_.data())};  // the kernel only reads it
    return ::syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, 0U, &program) == 0 ? 0 : errno;
}

}  // namespace kvm_vmm::sandbox
