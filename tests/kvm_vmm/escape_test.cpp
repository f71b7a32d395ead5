// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
#include "console/escape.hpp"

#include <string>
#include <vector>

#include "catch.hpp"

using kvm_vmm::ConsoleCommand;
using kvm_vmm::EscapeParser;

namespace {

struct Outcome {
    std::string bytes;
    std::vector<ConsoleCommand> commands;
};

Outcome type(const std::string& keys) {
    EscapeParser parser;
    Outcome outcome;
    for (const char key : keys) {
        const auto result = parser.feed(static_cast<std::uint8_t>(key));
        if (result.byte) {
            outcome.bytes += static_cast<char>(*result.byte);
        }
        if (result.command) {
            outcome.commands.push_back(*result.command);
        }
        CHECK_FALSE((result.byte && result.command));
    }
    return outcome;
}

}  // namespace

TEST_CASE("EscapeParser: every byte except Ctrl-A passes unchanged", "[console]") {
    std::string all;
    for (int byte = 0; byte < 256; ++byte) {
        if (byte != 1) {
            all += static_cast<char>(byte);
        }
    }
    const Outcome outcome = type(all);
    CHECK(outcome.bytes == all);
    CHECK(outcome.commands.empty());
}

TEST_CASE("EscapeParser: Ctrl-A Ctrl-A sends one Ctrl-A", "[console]") {
    CHECK(type("a\x01\x01"
               "b")
              .bytes ==
          "a\x01"
          "b");
    CHECK(type("\x01\x01\x01\x01").bytes == "\x01\x01");
}

TEST_CASE("EscapeParser: Ctrl-A and a command key result in the command and no byte", "[console]") {
    const Outcome outcome = type(
        "\x01x\x01"
        "c\x01"
        "b\x01s\x01h");
    CHECK(outcome.bytes.empty());
    CHECK(outcome.commands == std::vector{ConsoleCommand::exit, ConsoleCommand::ctrl_alt_del,
                                          ConsoleCommand::send_break, ConsoleCommand::status,
                                          ConsoleCommand::help});
}

TEST_CASE("EscapeParser: Ctrl-A and any other key are both dropped", "[console]") {
    const Outcome outcome = type("1\x01q2");
    CHECK(outcome.bytes == "12");
    CHECK(outcome.commands.empty());
}

TEST_CASE("EscapeParser: a key after Ctrl-A Ctrl-A is not a command", "[console]") {
    const Outcome outcome = type("\x01\x01x");
    CHECK(outcome.bytes == "\x01x");
    CHECK(outcome.commands.empty());
}
