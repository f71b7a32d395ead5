// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
#include "vmm/word_check.hpp"

#include <algorithm>
#include <array>
#include <string_view>

#include "vmm/option_hints.hpp"
#include "vmm/usage_error.hpp"

namespace kvm_vmm {

WordCheck::WordCheck(const CLI::App& app) : app_(app) {
    for (const CLI::Option* const option : app.get_options()) {
        for (const std::string& name : option->get_lnames()) {
            names_.push_back("--" + name);
        }
    }
}

std::vector<std::string> WordCheck::check(std::span<const char* const> arguments) {
    std::vector<std::string> words(arguments.begin(), arguments.end());
    if (std::ranges::any_of(words,
                            [](const std::string& word) { return word == "--help" || word == "-h"; })) {
        return {"--help"};
    }
    std::vector<std::string> result;
    for (std::size_t i = 0; i < words.size(); ++i) {
        i += take(words, i, result);
    }
    std::ranges::reverse(result);
    return result;
}

// Takes the option at `i`; returns how many words its value had.
std::size_t WordCheck::take(const std::vector<std::string>& words, std::size_t i,
                            std::vector<std::string>& result) {
    const std::string& word = words[i];
    const std::size_t equals = word.find('=');
    const std::string name = word.substr(0, equals);
    const CLI::Option* const option = find(name);
    if (option == nullptr) {
        refuse_word(words, i);
    }
    if (option->get_items_expected_max() == 0) {
        if (equals != std::string::npos) {
            refuse(name + " takes no value");
        }
        result.push_back(name);
        return 0;
    }
    std::size_t taken = 0;
    std::string value;
    if (equals != std::string::npos) {
        value = word.substr(equals + 1);
    } else if (option->get_items_expected_min() == 0 &&
               (i + 1 == words.size() || words[i + 1].starts_with('-'))) {
        // The value may be absent.
    } else if (i + 1 < words.size()) {
        value = words[i + 1];
        refuse_option_as_value(*option, name, value);
        taken = 1;
    } else {
        refuse(name + " needs a value: " + name + ' ' + option->get_type_name());
    }
    refuse_second(*option, name, value);
    result.push_back(name);
    result.push_back(value);
    return taken;
}

const CLI::Option* WordCheck::find(const std::string& name) const {
    return name.starts_with('-') ? app_.get_option_no_throw(name) : nullptr;
}

void WordCheck::refuse_word(const std::vector<std::string>& words, std::size_t i) const {
    const std::string& word = words[i];
    if (word.size() > 1 && word.starts_with('-') && word != "--") {
        const std::vector<std::string_view> names(names_.begin(), names_.end());
        refuse(explain_unknown_option(word, names));
    }
    const std::string reason = quote(word) + " is not understood: ";
    const std::string before = i >= 2 ? words[i - 2] : "";
    if (before == "--cmdline") {
        refuse(reason + "a command line with spaces is one word: --cmdline " +
               quote(words[i - 1] + ' ' + word));
    }
    if (i >= 1 && find(words[i - 1]) != nullptr && words[i - 1].find('=') == std::string::npos &&
        find(words[i - 1])->get_items_expected_max() == 0) {
        refuse(reason + words[i - 1] + " takes no value");
    }
    const auto is_kernel = [](const std::string& other) {
        return other == "--kernel" || other.starts_with("--kernel=");
    };
    if (!word.empty() && std::ranges::none_of(words, is_kernel)) {
        refuse(reason + "did you mean --kernel " + word.substr(0, 80) + '?');
    }
    refuse(reason + "it is no option, and belongs to none");
}

// The user forgot the value, and the next option would be used as the value.
void WordCheck::refuse_option_as_value(const CLI::Option& option, const std::string& name,
                                       const std::string& value) const {
    const bool ours = find(value.substr(0, value.find('='))) != nullptr;
    const bool dashed = value.size() > 1 && value[0] == '-' && (value[1] < '0' || value[1] > '9');
    if (ours || (dashed && name != "--cmdline")) {
        refuse(name + " needs a value, and " + quote(value) + " looks like an option: " + name + ' ' +
               option.get_type_name() + ", or " + name + "=" + value.substr(0, 80) + " if that is meant");
    }
}

void WordCheck::refuse_second(const CLI::Option& option, const std::string& name, const std::string& value) {
    constexpr std::array<std::string_view, 5> repeated{"--serial", "--console", "--disk", "--net", "--share"};
    if (std::ranges::find(repeated, name) != repeated.end()) {
        return;
    }
    const auto [first, added] = given_.emplace(&option, value);
    if (!added) {
        refuse(name + " is given twice: " + quote(first->second) + " and " + quote(value));
    }
}

}  // namespace kvm_vmm
