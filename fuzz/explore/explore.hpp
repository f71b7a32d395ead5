// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <string>
#include <string_view>
#include <unordered_set>
#include <utility>
#include <vector>

#include "support/input.hpp"
#include "support/report.hpp"
#include "support/trace.hpp"

namespace fuzz {

/// Runs all sequences of the operations in `alphabet` up to a depth, breadth first, without continuing from a
/// state that has been seen. A state is identified by a 64-bit hash of its fingerprint; the target's checks
/// run after every operation. Each sequence is replayed from the start, together with the model if there is
/// one. The model's state is part of the fingerprint: otherwise a state in which a wrong step has made device
/// and model differ would be skipped as already seen, before the difference becomes observable.
template <class Target>
class Explorer {
public:
    using Operation = std::vector<std::uint8_t>;  // in the encoding of the target

    /// `options`: the first byte of an input.
    Explorer(std::uint8_t options, std::vector<Operation> alphabet)
        : options_(options), alphabet_(std::move(alphabet)) {}

    /// Runs until `depth` is reached, no new state is found or there are `most` states. `make` creates a
    /// target.
    template <class Make>
    void run(std::size_t depth, std::size_t most, Make make) {
        std::vector<std::vector<std::uint8_t>> frontier{{}};
        seen_.insert(fingerprint_of(frontier.front(), make));
        for (std::size_t level = 1; level <= depth && !frontier.empty(); ++level) {
            std::vector<std::vector<std::uint8_t>> next;
            for (const auto& sequence : frontier) {
                for (std::size_t i = 0; i < alphabet_.size() && seen_.size() < most; ++i) {
                    std::vector<std::uint8_t> longer = sequence;
                    longer.push_back(static_cast<std::uint8_t>(i));
                    ++sequences_;
                    if (seen_.insert(fingerprint_of(longer, make)).second) {
                        next.push_back(std::move(longer));
                    }
                }
            }
            frontier = std::move(next);
            std::printf("depth %zu: %zu states, %zu new, %zu sequences\n", level, seen_.size(),
                        frontier.size(), sequences_);
            if (seen_.size() >= most) {
                std::printf("stopped at %zu states\n", most);
                return;
            }
        }
        std::printf("%s: %zu states, %zu sequences\n", frontier.empty() ? "complete" : "done", seen_.size(),
                    sequences_);
    }
    [[nodiscard]] std::size_t states() const { return seen_.size(); }

private:
    template <class Make>
    std::uint64_t fingerprint_of(const std::vector<std::uint8_t>& sequence, Make make) {
        bytes_.assign(1, options_);
        for (const std::uint8_t index : sequence) {
            bytes_.insert(bytes_.end(), alphabet_[index].begin(), alphabet_[index].end());
        }
        set_current_input(bytes_);
        Input input(bytes_);
        input.byte();
        Target target = make();
        while (!input.empty()) {
            target.step(input);
        }
        // FNV-1a, with a final mix so that all bits are significant.
        std::uint64_t hash = 0xCBF29CE484222325U;
        for (const std::uint8_t byte : target.fingerprint()) {
            hash = (hash ^ byte) * 0x100000001B3U;
        }
        return (hash ^ (hash >> 32U)) * 0x9E3779B97F4A7C15U;
    }

    std::uint8_t options_;
    std::vector<Operation> alphabet_;
    std::unordered_set<std::uint64_t> seen_{};
    std::vector<std::uint8_t> bytes_{};
    std::size_t sequences_{0};
};

/// The arguments of an explorer: [DEPTH [MOST_STATES]], or --replay FILE as for a fuzz target.
struct ExploreLimits {
    std::size_t depth;
    std::size_t states;
};
inline ExploreLimits explore_limits(int argc, char** argv, ExploreLimits limits) {
    if (argc == 3 && std::string_view(argv[1]) == "--replay") {
        std::exit(replay(argv[2]));
    }
    if (argc > 1) {
        limits.depth = std::strtoul(argv[1], nullptr, 10);
    }
    if (argc > 2) {
        limits.states = std::strtoul(argv[2], nullptr, 10);
    }
    return limits;
}

}  // namespace fuzz
