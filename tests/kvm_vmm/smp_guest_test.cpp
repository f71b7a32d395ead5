// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
// kvm_vmm with guests of several CPUs: all CPUs start, and each way to end the guest ends the process,
// whatever the other CPUs do.
#include <algorithm>
#include <array>
#include <chrono>
#include <cstdint>
#include <cstdio>
#include <string>
#include <vector>

#include "program.hpp"

using namespace kvm_vmm::test;

namespace {

using Bytes = std::vector<std::uint8_t>;
using Clock = std::chrono::steady_clock;

constexpr std::uint32_t trampoline = 0x4'0000;  // where the other CPUs start, in real mode: SIPI vector 0x40
constexpr std::uint32_t counter = 0x4'1000;

const Bytes spinning{0xEB, 0xFE};          // jmp to itself
const Bytes halted{0xFA, 0xF4};            // cli; hlt
const Bytes idle{0xFB, 0xF4, 0xEB, 0xFD};  // sti; hlt; jmp to the hlt

void append(Bytes& code, const Bytes& more) { code.insert(code.end(), more.begin(), more.end()); }
void append32(Bytes& code, std::uint32_t value) {
    for (unsigned shift = 0; shift < 32; shift += 8) {
        code.push_back(static_cast<std::uint8_t>(value >> shift));
    }
}

enum class Addressing : std::uint8_t { all_but_self, by_apic_id };

/// 64-bit code that starts all other CPUs, which increment a counter and then run `others`. When all have
/// started, it writes '!' to COM1 and runs `act`.
Bytes guest_code(unsigned cpus, const Bytes& others, const Bytes& act,
                 Addressing addressing = Addressing::all_but_self) {
    Bytes start{0xF0, 0x2E, 0x66, 0xFF, 0x06, 0x00, 0x10};  // lock inc dword [cs:0x1000]
    append(start, others);
    Bytes code{0xBC, 0x00, 0x00, 0x06, 0x00};  // mov esp, 0x60000
    append(code, {0xBF});                      // mov edi, trampoline
    append32(code, trampoline);
    for (const std::uint8_t byte : start) {
        append(code, {0xC6, 0x07, byte, 0xFF, 0xC7});  // mov byte [rdi], byte; inc edi
    }
    append(code, {0xBB, 0x00, 0x03, 0xE0, 0xFE});  // mov ebx, 0xFEE00300: the LAPIC's command register
    const bool at_once = addressing == Addressing::all_but_self;
    const std::uint8_t shorthand = at_once ? 0x0C : 0x00;
    for (unsigned id = 1; id < (at_once ? 2 : cpus); ++id) {
        append(code, {0xC7, 0x43, 0x10});  // mov dword [rbx + 0x10], id << 24
        append32(code, id << 24U);
        append(code, {0xC7, 0x03, 0x00, 0x45, shorthand, 0x00});  // INIT
        append(code, {0xC7, 0x03, 0x40, 0x46, shorthand, 0x00});  // start-up at 0x40000
    }
    append(code, {0xBF});  // mov edi, counter
    append32(code, counter);
    append(code, {0xF3, 0x90, 0x81, 0x3F});  // pause; cmp dword [rdi], cpus - 1
    append32(code, cpus - 1);
    append(code, {0x75, 0xF6});                               // jne to the pause
    append(code, {0x66, 0xBA, 0xF8, 0x03, 0xB0, '!', 0xEE});  // mov dx, 0x3F8; mov al, '!'; out dx, al
    append(code, act);
    append(code, {0xF4, 0xEB, 0xFD});  // hlt; jmp to the hlt
    return code;
}

struct End {
    int exit_code;
    std::chrono::milliseconds after;  ///< from the guest's '!' to the end of the process
};

End run_guest(const ScratchDirectory& directory, const Bytes& code, unsigned cpus,
              const std::vector<std::string>& options = {}) {
    std::vector<std::string> arguments{"--kernel", directory.write("kernel", make_bzimage(code)).string(),
                                       "--memory", "64M",
                                       "--cpus",   std::to_string(cpus)};
    arguments.insert(arguments.end(), options.begin(), options.end());
    std::array<int, 2> pipe{};
    REQUIRE(::pipe2(pipe.data(), O_CLOEXEC) == 0);
    const pid_t child = fork_child();
    if (child == 0) {
        const int null = ::open("/dev/null", O_RDWR);
        if (null < 0) {
            ::_exit(127);
        }
        ::dup2(null, STDIN_FILENO);
        ::dup2(pipe[1], STDOUT_FILENO);
        ::dup2(STDIN_FILENO, STDERR_FILENO);
        ::alarm(30);
        exec(arguments);
    }
    ::close(pipe[1]);
    char byte = 0;
    const bool came = ::read(pipe[0], &byte, 1) == 1;
    const auto start = Clock::now();
    int status = 0;
    REQUIRE(::waitpid(child, &status, 0) == child);
    const auto after = Clock::now() - start;
    ::close(pipe[0]);
    CHECK(came);
    CHECK(byte == '!');
    return {exit_code_of(status), std::chrono::duration_cast<std::chrono::milliseconds>(after)};
}

struct Way {
    const char* name;
    int exit_code;
    Bytes act;
};

const std::vector<Way> ways{
    // mov dx, port; mov ax, value; out dx, ax
    {"power-off", 0, {0x66, 0xBA, 0x04, 0x06, 0x66, 0xB8, 0x00, 0x34, 0x66, 0xEF}},
    {"keyboard controller", 10, {0xB0, 0xFE, 0xE6, 0x64}},
    {"ACPI reset register, port 0xCF9", 10, {0xB0, 0x06, 0x66, 0xBA, 0xF9, 0x0C, 0xEE}},
    {"fast reset, port 0x92", 10, {0xB0, 0x01, 0xE6, 0x92}},
    {"pvpanic", 11, {0xB0, 0x01, 0x66, 0xBA, 0x05, 0x05, 0xEE}},
    // push 0; push 0; lidt [rsp]; ud2: no handler for the fault, nor for the fault in its delivery
    {"triple fault", 12, {0x6A, 0x00, 0x6A, 0x00, 0x0F, 0x01, 0x1C, 0x24, 0x0F, 0x0B}},
    {"exit port", 77, {0xB0, 77, 0x66, 0xBA, 0x01, 0x05, 0xEE}},
};

}  // namespace

TEST_CASE("kvm_vmm: each way to end the guest ends the process, with one CPU or four that spin, idle or halt",
          "[program][smp]") {
    REQUIRE_KVM();
    const ScratchDirectory directory;
    struct Others {
        const char* name;
        unsigned cpus;
        const Bytes& code;
    };
    for (const Others& others : {Others{"alone", 1, halted}, Others{"3 spin", 4, spinning},
                                 Others{"3 idle", 4, idle}, Others{"3 are halted", 4, halted}}) {
        for (const Way& way : ways) {
            CAPTURE(way.name, others.name);
            const End end = run_guest(directory, guest_code(others.cpus, others.code, way.act), others.cpus,
                                      {"--exit-port"});
            CHECK(end.exit_code == way.exit_code);
            std::printf("%s, %s: ended after %lld ms\n", way.name, others.name,
                        static_cast<long long>(end.after.count()));
        }
    }
}

TEST_CASE("kvm_vmm: a guest ends when all of its CPUs are halted for good, not before", "[program][smp]") {
    REQUIRE_KVM();
    const ScratchDirectory directory;
    for (const unsigned cpus : {1U, 4U}) {
        const End end = run_guest(directory, guest_code(cpus, halted, {0xFA}), cpus);
        CHECK(end.exit_code == 13);
        std::printf("halt, %u CPUs: ended after %lld ms\n", cpus, static_cast<long long>(end.after.count()));
    }
}

TEST_CASE("kvm_vmm: 64 CPUs start", "[program][smp]") {
    REQUIRE_KVM();
    const ScratchDirectory directory;
    CHECK(run_guest(directory, guest_code(64, halted, ways.front().act), 64).exit_code == 0);
}

TEST_CASE("kvm_vmm: each CPU can be addressed by its APIC id before the guest has enabled its local APIC",
          "[program][smp]") {
    REQUIRE_KVM();
    const ScratchDirectory directory;
    for (const unsigned cpus : {2U, 4U}) {
        const Bytes code = guest_code(cpus, halted, ways.front().act, Addressing::by_apic_id);
        CHECK(run_guest(directory, code, cpus).exit_code == 0);
    }
}
