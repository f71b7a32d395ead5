// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//
// The builder of the kernel's command line, compared with the kernel's own rules (lib/cmdline.c, next_arg): a
// parser by these rules finds exactly the parameters that were added, and everything else was refused.
//
// Input: operations; text is a byte with its length modulo 32, then that many bytes:
//   0x text  append text     1x text text  add name=value     2x text  add name
//   3x text  contains(name)  others: write to guest memory with a limit of one byte * 16

#include <algorithm>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "boot/command_line.hpp"
#include "boot/layout.hpp"
#include "error.hpp"
#include "memory/guest_memory.hpp"
#include "support/target.hpp"

namespace fuzz {
namespace {

using kvm_vmm::CommandLine;
using kvm_vmm::VmmError;

std::string text_of(Input& input) {
    const auto bytes = input.bytes(input.byte() % 32U);
    return {bytes.begin(), bytes.end()};
}

// The words that the kernel sees, including the quotes: a quote anywhere in a word toggles quoting, and white
// space outside quotes ends the word.
std::vector<std::string> words_of(std::string_view text) {
    std::vector<std::string> words;
    std::string word;
    bool quoted = false;
    for (const char c : text) {
        quoted = quoted != (c == '"');
        if (!quoted && (c == ' ' || c == '\t')) {
            if (!word.empty()) {
                words.push_back(word);
            }
            word.clear();
        } else {
            word += c;
        }
    }
    if (!word.empty()) {
        words.push_back(word);
    }
    return words;
}

// A parameter as the kernel parses it. A quote before it is removed, together with one at its end; "="
// separates the value from the second character on; a quote before the value is removed, together with one at
// its end.
struct Parameter {
    std::string name;
    std::optional<std::string> value;

    bool operator==(const Parameter&) const = default;
};
Parameter parameter_of(std::string word) {
    const bool quoted = word[0] == '"';
    if (quoted) {
        word.erase(0, 1);
    }
    Parameter parameter;
    const std::size_t equals = word.find('=', 1);
    if (equals != std::string::npos) {
        parameter.value = word.substr(equals + 1);
        if (parameter.value->starts_with('"')) {
            parameter.value->erase(0, 1);
            if (parameter.value->ends_with('"')) {
                parameter.value->pop_back();
            }
        } else if (quoted && parameter.value->ends_with('"')) {
            parameter.value->pop_back();
        }
        word.resize(equals);
    } else if (quoted && word.ends_with('"')) {
        word.pop_back();
    }
    parameter.name = word;
    return parameter;
}
// The kernel's parameters: up to "--" without a value.
std::vector<Parameter> parameters_of(std::string_view text) {
    std::vector<Parameter> parameters;
    for (const std::string& word : words_of(text)) {
        parameters.push_back(parameter_of(word));
        if (parameters.back() == Parameter{"--", std::nullopt}) {
            parameters.pop_back();
            break;
        }
    }
    return parameters;
}

void check_sound(const std::string& text) {
    bool quoted = false;
    for (const char c : text) {
        check((c >= 0x20 && c <= 0x7E) || c == '\t', "printable ASCII and tabs only");
        quoted = quoted != (c == '"');
    }
    check(!quoted, "every quote is closed");
}

// Carries out `action`; returns true unless it was refused.
template <class Action>
bool accepted(Action action) {
    try {
        action();
        return true;
    } catch (const VmmError& error) {
        const std::string_view text = error.what();
        check(error.code() == kvm_vmm::ExitCode::usage, "refused as wrong usage");
        check(text.find('\n') == std::string_view::npos && text.size() < 300, "with one clear line");
        return false;
    }
}

void step(Input& input, const Trace& trace, CommandLine& line, kvm_vmm::GuestMemory& memory) {
    const std::vector<std::string> before = words_of(line.text());
    const std::string text_before = line.text();
    const Op op = next_op(input);
    bool done = true;
    switch (op.kind) {
        case OpKind::read: {
            const std::string text = text_of(input);
            trace("line.append(", Bytes{{reinterpret_cast<const std::uint8_t*>(text.data()), text.size()}},
                  ");");
            done = accepted([&] { line.append(text); });
            if (done) {
                std::vector<std::string> expected = before;
                for (const std::string& word : words_of(text)) {
                    expected.push_back(word);
                }
                check(words_of(line.text()) == expected, "append() adds its words at the end");
            }
            break;
        }
        case OpKind::write:
        case OpKind::enqueue: {
            const std::string name = text_of(input);
            const bool with_value = op.kind == OpKind::write;
            const std::string value = with_value ? text_of(input) : "";
            trace("line.add of a name of ", name.size(), " and a value of ", value.size(), " bytes");
            done = accepted([&] {
                if (with_value) {
                    line.add(name, value);
                } else {
                    line.add(name);
                }
            });
            if (done) {
                check(line.contains(name), "a parameter that was added is there");
                check_equal(words_of(line.text()).size(), before.size() + 1, "one parameter more");
                std::vector<Parameter> expected = parameters_of(text_before);
                expected.push_back({name, with_value ? std::optional(value) : std::nullopt});
                check(parameters_of(line.text()) == expected, "it is the kernel's last one, as it was given");
            }
            break;
        }
        case OpKind::tick: {
            const std::string name = text_of(input);
            const auto dashed = [](std::string text) {
                std::ranges::replace(text, '_', '-');
                return text;
            };
            const auto all = parameters_of(line.text());
            const bool there = std::ranges::any_of(
                all, [&](const Parameter& one) { return dashed(one.name) == dashed(name); });
            check(line.contains(name) == there, "contains() finds what the kernel finds");
            break;
        }
        default: {
            const std::uint32_t limit = input.byte() * 16U;
            // Makes sure that the NUL is not one that was there before.
            check(memory.write_object(kvm_vmm::layout::command_line + line.text().size(), std::uint8_t{0xFF}),
                  "there is room");
            if (accepted([&] { kvm_vmm::write_command_line(memory, line.text(), limit); })) {
                check(line.text().size() <= limit, "no longer than the kernel takes");
                std::vector<std::uint8_t> bytes(line.text().size() + 1, 0xFF);
                check(memory.read(kvm_vmm::layout::command_line, bytes), "it is in RAM");
                check(bytes.back() == 0 && std::equal(line.text().begin(), line.text().end(), bytes.begin()),
                      "as it is, with a NUL behind it");
            } else {
                check(line.text().size() > limit, "what fits is taken");
            }
            break;
        }
    }
    check(done || line.text() == text_before, "what is refused changes nothing");
    check_sound(line.text());
}

}  // namespace

void run_target(Input& input, const Trace& trace) {
    static kvm_vmm::GuestMemory memory(1U << 20U);
    CommandLine line;
    trace("CommandLine line;");
    while (!input.empty()) {
        step(input, trace, line, memory);
    }
}

}  // namespace fuzz
