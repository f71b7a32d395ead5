// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//
// Runs inputs, reports failures, and counts allocations.

#include "support/report.hpp"

#include <array>
#include <csignal>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <fcntl.h>
#include <fstream>
#include <iterator>
#include <new>
#include <optional>
#include <source_location>
#include <span>
#include <spawn.h>
#include <string>
#include <string_view>
#include <sys/wait.h>
#include <unistd.h>
#include <utility>

#include "support/target.hpp"

namespace fuzz {
namespace {

// The input that is running, for the trace of a failure.
std::optional<std::span<const std::uint8_t>> current_input;
bool tracing = false;
bool sequence_shown = false;
// Those of the thread that runs the inputs: libFuzzer has other threads, which allocate as well.
thread_local constinit std::size_t allocations = 0;

// The program may be in any state by now, so another process runs the input once more. That process fails in
// the same way, which has been reported already.
void trace_in_another_process() {
    std::FILE* const file = std::tmpfile();
    if (file == nullptr) {
        return;
    }
    std::fwrite(current_input->data(), 1, current_input->size(), file);
    std::fflush(file);
    std::string path = "/proc/" + std::to_string(::getpid()) + "/fd/" + std::to_string(::fileno(file));
    std::string program = "/proc/self/exe";
    std::string option = "--replay";
    const std::array<char*, 4> arguments{program.data(), option.data(), path.data(), nullptr};
    posix_spawn_file_actions_t actions;
    posix_spawn_file_actions_init(&actions);
    posix_spawn_file_actions_addopen(&actions, STDERR_FILENO, "/dev/null", O_WRONLY, 0);
    // In a signal handler that signal is blocked, but the other process must be able to handle it.
    posix_spawnattr_t attributes;
    posix_spawnattr_init(&attributes);
    sigset_t none;
    sigemptyset(&none);
    posix_spawnattr_setsigmask(&attributes, &none);
    posix_spawnattr_setflags(&attributes, POSIX_SPAWN_SETSIGMASK);
    pid_t child = 0;
    if (::posix_spawn(&child, program.c_str(), &actions, &attributes, arguments.data(), environ) == 0) {
        int status = 0;
        ::waitpid(child, &status, 0);
    }
    posix_spawnattr_destroy(&attributes);
    posix_spawn_file_actions_destroy(&actions);
    std::fclose(file);
}

// Prints once the sequence that led to a crash.
void show_sequence_of_crash() {
    if (std::exchange(sequence_shown, true) || !current_input) {
        return;
    }
    if (tracing) {
        Trace::finish_line();
    } else {
        std::printf("\n--- the sequence that crashes, as C++:\n");
        std::fflush(stdout);
        trace_in_another_process();
    }
    std::fflush(stdout);
}

[[noreturn]] void stop(std::string_view what, const std::string& values, std::source_location where) {
    if (tracing) {
        Trace::finish_line();
    } else {
        std::printf("\n--- the sequence that fails, as C++:\n");
        run(*current_input, true);
        std::printf("--- it did not fail again\n");
    }
    sequence_shown = true;
    std::fflush(stdout);
    std::fprintf(stderr, "%s:%u: does not hold: %.*s%s\n", where.file_name(),
                 static_cast<unsigned>(where.line()), static_cast<int>(what.size()), what.data(),
                 values.c_str());
    std::abort();
}

// The signals of a crash, and their earlier handlers: those of a sanitizer or of libFuzzer, if any.
constexpr std::array crash_signals{SIGSEGV, SIGBUS, SIGILL, SIGFPE, SIGABRT};
std::array<struct sigaction, crash_signals.size()> earlier_handlers;

extern "C" void on_crash(int signal) {
    for (std::size_t i = 0; i < crash_signals.size(); ++i) {
        ::sigaction(crash_signals[i], &earlier_handlers[i], nullptr);
    }
    show_sequence_of_crash();
    // A fault recurs when this returns, with its own address. A signal that was sent has to be sent again.
    if (signal == SIGABRT) {
        static_cast<void>(::raise(signal));
    }
}

void watch_for_crashes() {
    struct sigaction action{};
    action.sa_handler = on_crash;
    action.sa_flags = SA_ONSTACK;
    sigemptyset(&action.sa_mask);
    for (std::size_t i = 0; i < crash_signals.size(); ++i) {
        ::sigaction(crash_signals[i], &action, &earlier_handlers[i]);
    }
}

}  // namespace

void run(std::span<const std::uint8_t> bytes, bool traced) {
    [[maybe_unused]] static const bool watched = (watch_for_crashes(), true);
    set_current_input(bytes);
    tracing = traced;
    Input input(bytes);
    run_target(input, Trace(traced));
    current_input.reset();
}

void set_current_input(std::span<const std::uint8_t> bytes) { current_input = bytes; }

std::optional<std::vector<std::uint8_t>> file_bytes(const std::string& path) {
    std::ifstream file(path, std::ios::binary);
    if (!file) {
        return std::nullopt;
    }
    return std::vector<std::uint8_t>(std::istreambuf_iterator<char>(file), {});
}

int replay(const std::string& path) {
    const auto bytes = file_bytes(path);
    if (!bytes) {
        std::fprintf(stderr, "cannot read %s\n", path.c_str());
        return 1;
    }
    std::printf("// %zu bytes\n", bytes->size());
    run(*bytes, true);
    return 0;
}

void fail(std::string_view what, std::source_location where) { stop(what, "", where); }
void fail(std::string_view what, std::uint64_t is, std::uint64_t should_be, std::source_location where) {
    std::string values = " (is ";
    detail::append(values, Hex{is});
    values += ", should be ";
    detail::append(values, Hex{should_be});
    stop(what, values + ")", where);
}

std::size_t allocation_count() noexcept { return allocations; }

}  // namespace fuzz

// AddressSanitizer and UndefinedBehaviorSanitizer call this when they have found an error.
// NOLINTBEGIN(bugprone-reserved-identifier,readability-identifier-naming)
extern "C" void __asan_on_error();
extern "C" void __asan_on_error() { fuzz::show_sequence_of_crash(); }
extern "C" void __ubsan_on_report();
extern "C" void __ubsan_on_report() { fuzz::show_sequence_of_crash(); }
// NOLINTEND(bugprone-reserved-identifier,readability-identifier-naming)

// The allocations of each thread are counted; see NoAllocation.
#if defined(__has_feature)
#if __has_feature(address_sanitizer) || __has_feature(memory_sanitizer) || __has_feature(thread_sanitizer)
#define VMSUPERIO_SANITIZER_HOOKS
#endif
#elif defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define VMSUPERIO_SANITIZER_HOOKS
#endif

#ifdef VMSUPERIO_SANITIZER_HOOKS
// Sanitizers replace operator new themselves, and call hooks for each allocation instead.
// NOLINTNEXTLINE(bugprone-reserved-identifier,readability-identifier-naming)
extern "C" int __sanitizer_install_malloc_and_free_hooks(void (*on_malloc)(const volatile void*, std::size_t),
                                                         void (*on_free)(const volatile void*));
namespace {
[[maybe_unused]] const int hooks_installed = __sanitizer_install_malloc_and_free_hooks(
    [](const volatile void*, std::size_t) { ++fuzz::allocations; }, [](const volatile void*) {});
}  // namespace
#else
void* operator new(std::size_t size) {
    ++fuzz::allocations;
    if (void* const memory = std::malloc(size == 0 ? 1 : size); memory != nullptr) {
        return memory;
    }
    throw std::bad_alloc();
}
void* operator new[](std::size_t size) { return operator new(size); }
void* operator new(std::size_t size, const std::nothrow_t&) noexcept {
    ++fuzz::allocations;
    return std::malloc(size == 0 ? 1 : size);
}
void operator delete(void* memory) noexcept { std::free(memory); }
void operator delete[](void* memory) noexcept { std::free(memory); }
void operator delete(void* memory, std::size_t) noexcept { std::free(memory); }
void operator delete[](void* memory, std::size_t) noexcept { std::free(memory); }
#endif
