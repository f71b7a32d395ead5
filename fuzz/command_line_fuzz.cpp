// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//
// The kernel command line of a guest: either the text is in guest memory byte for byte, followed by a NUL, and
// nothing else has changed, or it is refused. It is refused only if it is too long or if the kernel's parser
// (lib/cmdline.c, next_arg) would misread it.
//
// Input: a byte with the size of the space in guest memory (its low 7 bits, plus 1), one with the kernel's
// limit, then the text.

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "boot/command_line.hpp"
#include "memory/guest_memory.hpp"
#include "support/target.hpp"
#include "util/error.hpp"

namespace fuzz {
namespace {

constexpr std::uint64_t address = 0x1000;
constexpr std::size_t window = 256;
constexpr std::uint8_t untouched = 0xA5;

// Whether the text has only bytes that Linux accepts, and every double quote is closed.
bool is_sound(std::string_view text) {
    bool quoted = false;
    for (const char c : text) {
        if ((c < 0x20 || c > 0x7E) && c != '\t') {
            return false;
        }
        quoted = quoted != (c == '"');
    }
    return !quoted;
}

}  // namespace

void run_target(Input& input, const Trace& trace) {
    static kvm_vmm::GuestMemory memory(1U << 20U);
    const kvm_vmm::GuestRange space{.address = address, .size = (input.byte() & 0x7FU) + std::uint64_t{1}};
    const std::uint32_t limit = input.byte();
    std::string text;
    while (!input.empty()) {
        text += static_cast<char>(input.byte());
    }
    trace("write_command_line: ", text.size(), " bytes, a limit of ", limit, ", a space of ", space.size);
    std::vector<std::uint8_t> expected(window, untouched);
    check(memory.write(address, expected), "the window is in RAM");
    const bool fits = text.size() <= limit && text.size() < space.size;
    bool accepted = true;
    try {
        check_equal(kvm_vmm::write_command_line(memory, space, text, limit), address, "the space's address");
    } catch (const kvm_vmm::VmmError& error) {
        const std::string_view message = error.what();
        check(error.code() == kvm_vmm::ExitCode::usage, "refused as wrong usage");
        check(message.find('\n') == std::string_view::npos && message.size() < 400, "with one clear line");
        accepted = false;
    }
    check_equal(accepted, is_sound(text) && fits, "refused only for its length or its bytes");
    if (accepted) {
        for (std::size_t i = 0; i < text.size(); ++i) {
            expected[i] = static_cast<std::uint8_t>(text[i]);
        }
        expected[text.size()] = 0;
    }
    std::vector<std::uint8_t> found(window);
    check(memory.read(address, found), "the window is in RAM");
    check(found == expected, "guest memory holds the text and its NUL, and nothing else has changed");
}

}  // namespace fuzz
