// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
#pragma once

#include <cstdint>
#include <optional>

namespace kvm_vmm {

/// The commands that the user gives with Ctrl-A and a key.
enum class ConsoleCommand : std::uint8_t { exit, ctrl_alt_del, power_button, send_break, status, help };

/// Recognises the Ctrl-A commands in the input.
///
/// Ctrl-A Ctrl-A sends one Ctrl-A. Ctrl-A and a key that is not a command are dropped together. Each input
/// byte yields at most one output byte, so a reader never needs more room than it has bytes.
class EscapeParser {
public:
    static constexpr std::uint8_t escape = 0x01;

    struct Result {
        std::optional<std::uint8_t> byte;
        std::optional<ConsoleCommand> command;
    };

    [[nodiscard]] constexpr Result feed(std::uint8_t typed) noexcept {
        if (!escaped_) {
            escaped_ = typed == escape;
            return escaped_ ? Result{} : Result{.byte = typed, .command = {}};
        }
        escaped_ = false;
        switch (typed) {
            case escape:
                return {.byte = escape, .command = {}};
            case 'x':
            case 'X':
                return {.byte = {}, .command = ConsoleCommand::exit};
            case 'c':
                return {.byte = {}, .command = ConsoleCommand::ctrl_alt_del};
            case 'p':
                return {.byte = {}, .command = ConsoleCommand::power_button};
            case 'b':
                return {.byte = {}, .command = ConsoleCommand::send_break};
            case 's':
                return {.byte = {}, .command = ConsoleCommand::status};
            case 'h':
            case '?':
                return {.byte = {}, .command = ConsoleCommand::help};
            default:
                return {};
        }
    }

private:
    bool escaped_{false};
};

}  // namespace kvm_vmm
