// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//
// A main() for fuzz targets that are linked without a fuzzing engine, for example with GCC: it runs the given
// inputs and a number of random ones. It accepts the few options of libFuzzer that the tests use, so that
// both builds are called in the same way, and ignores the others.

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <filesystem>
#include <optional>
#include <random>
#include <string>
#include <string_view>
#include <system_error>
#include <vector>

#include "support/report.hpp"

namespace {

struct Options {
    std::uint64_t runs{0};
    std::uint64_t seed{1};
    std::size_t max_len{512};
    std::vector<std::string> files;
};

bool add_files(Options& options, const std::string& path) {
    std::error_code error;
    if (!std::filesystem::is_directory(path, error)) {
        options.files.push_back(path);
        return std::filesystem::exists(path, error);
    }
    for (const auto& entry : std::filesystem::directory_iterator(path)) {
        options.files.push_back(entry.path().string());
    }
    std::ranges::sort(options.files);
    return true;
}

// A random input, or one of the corpus with a few bytes changed, without guidance.
std::vector<std::uint8_t> random_input(std::mt19937_64& random,
                                       const std::vector<std::vector<std::uint8_t>>& corpus,
                                       std::size_t max_len) {
    if (corpus.empty() || random() % 2 == 0) {
        std::vector<std::uint8_t> bytes(random() % (max_len + 1));
        std::ranges::generate(bytes, [&] { return static_cast<std::uint8_t>(random()); });
        return bytes;
    }
    std::vector<std::uint8_t> bytes = corpus[random() % corpus.size()];
    for (std::uint64_t changes = 1 + random() % 8; changes != 0; --changes) {
        const auto at = static_cast<std::ptrdiff_t>(random() % (bytes.size() + 1));
        const auto value = static_cast<std::uint8_t>(random());
        const std::uint64_t what = random() % 3;
        if (what == 0 || at == std::ssize(bytes)) {
            bytes.insert(bytes.begin() + at, value);
        } else if (what == 1) {
            bytes.erase(bytes.begin() + at);
        } else {
            bytes[static_cast<std::size_t>(at)] = value;
        }
    }
    return bytes;
}

}  // namespace

int main(int argc, char** argv) {
    Options options;
    for (int i = 1; i < argc; ++i) {
        const std::string argument = argv[i];
        const auto value_of = [&](std::string_view name) -> std::optional<std::string> {
            return argument.starts_with(name) ? std::optional(argument.substr(name.size())) : std::nullopt;
        };
        if (argument == "--replay" && i + 1 < argc) {
            return fuzz::replay(argv[i + 1]);
        }
        if (const auto runs = value_of("-runs=")) {
            options.runs = std::stoull(*runs);
        } else if (const auto seed = value_of("-seed=")) {
            options.seed = std::stoull(*seed);
        } else if (const auto max_len = value_of("-max_len=")) {
            options.max_len = std::stoull(*max_len);
        } else if (const auto list = value_of("-seed_inputs=")) {
            for (std::size_t at = 0; at < list->size();) {
                const std::size_t end = std::min(list->find(',', at), list->size());
                options.files.push_back(list->substr(at, end - at));
                at = end + 1;
            }
        } else if (!argument.starts_with("-") && !add_files(options, argument)) {
            std::fprintf(stderr, "cannot read %s\n", argument.c_str());
            return 1;
        }
    }
    std::vector<std::vector<std::uint8_t>> corpus;
    for (const std::string& file : options.files) {
        auto bytes = fuzz::file_bytes(file);
        if (!bytes) {
            std::fprintf(stderr, "cannot read %s\n", file.c_str());
            return 1;
        }
        fuzz::run(*bytes, false);
        corpus.push_back(std::move(*bytes));
    }
    std::mt19937_64 random(options.seed);
    for (std::uint64_t i = 0; i < options.runs; ++i) {
        const auto bytes = random_input(random, corpus, options.max_len);
        fuzz::run(bytes, false);
    }
    std::printf("%zu files and %llu random inputs: nothing found\n", corpus.size(),
                static_cast<unsigned long long>(options.runs));
    return 0;
}
