// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
#pragma once

#include <CLI/CLI.hpp>
#include <cstddef>
#include <map>
#include <span>
#include <string>
#include <vector>

namespace kvm_vmm {

/// Checks the words of the command line before CLI11 parses their values, so that unknown options and missing
/// or repeated values are reported in the order of the words, and before a value that is wrong as a
/// consequence.
class WordCheck {
public:
    /// `app` must outlive this object.
    explicit WordCheck(const CLI::App& app);

    /// Returns the words in CLI11's order (the last one first), with each value as a separate word; throws
    /// VmmError(usage). The result is only "--help" if the user asks for it, whatever the other words are.
    [[nodiscard]] std::vector<std::string> check(std::span<const char* const> arguments);

private:
    std::size_t take(const std::vector<std::string>& words, std::size_t i, std::vector<std::string>& result);
    [[nodiscard]] const CLI::Option* find(const std::string& name) const;
    [[noreturn]] void refuse_word(const std::vector<std::string>& words, std::size_t i) const;
    void refuse_option_as_value(const CLI::Option& option, const std::string& name,
                                const std::string& value) const;
    void refuse_second(const CLI::Option& option, const std::string& name, const std::string& value);

    const CLI::App& app_;
    std::vector<std::string> names_;
    std::map<const CLI::Option*, std::string> given_;
};

}  // namespace kvm_vmm
