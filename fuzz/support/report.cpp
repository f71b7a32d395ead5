// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//
// Carries out inputs, tells what failed, and counts allocations.

#include "support/report.hpp"

#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <iterator>
#include <new>
#include <source_location>
#include <string>
#include <string_view>

#include "support/target.hpp"

namespace fuzz {
namespace {

// What runs now, for the trace of a failure.
std::span<const std::uint8_t> current_input;
bool tracing = false;
// Of the thread that runs the inputs: libFuzzer has others, which allocate at their own pace.
thread_local constinit std::size_t allocations = 0;

[[noreturn]] void stop(std::string_view what, const std::string& values, std::source_location where) {
    if (!tracing) {
        std::printf("\n--- the sequence that fails, as C++:\n");
        run(current_input, true);
        std::printf("--- it did not fail again\n");
    }
    std::fflush(stdout);
    std::fprintf(stderr, "%s:%u: does not hold: %.*s%s\n", where.file_name(),
                 static_cast<unsigned>(where.line()), static_cast<int>(what.size()), what.data(),
                 values.c_str());
    std::abort();
}

}  // namespace

void run(std::span<const std::uint8_t> bytes, bool traced) {
    set_current_input(bytes);
    tracing = traced;
    Input input(bytes);
    run_target(input, Trace(traced));
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
    std::printf("// %s, %zu bytes\n", path.c_str(), bytes->size());
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

// The allocations of each thread are counted; see NoAllocation.
#if defined(__has_feature)
#if __has_feature(address_sanitizer) || __has_feature(memory_sanitizer) || __has_feature(thread_sanitizer)
#define VMSUPERIO_SANITIZER_HOOKS
#endif
#elif defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define VMSUPERIO_SANITIZER_HOOKS
#endif

#ifdef VMSUPERIO_SANITIZER_HOOKS
// Sanitizers want operator new for themselves, and tell of each allocation instead.
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
