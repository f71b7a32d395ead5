// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
#pragma once

#include <cstdint>
#include <optional>

#include "support/world.hpp"

/// A second PL031, written from ARM DDI 0224 to be simple and slow: it counts every second individually. It
/// follows the choices that the library states (runs from reset, loads and matches at once).
namespace fuzz::model {

class Pl031Model {
public:
    /// `start`: nanoseconds since 1970.
    Pl031Model(World& world, std::int64_t start)
        : world_(world),
          count_(static_cast<std::uint32_t>(start / 1'000'000'000)),
          part_(start % 1'000'000'000) {}

    void elapse(std::int64_t ns) {
        part_ += ns;
        while (part_ >= 1'000'000'000) {
            part_ -= 1'000'000'000;
            ++count_;
            matched_ = matched_ || count_ == match_;
        }
        wire();
    }

    /// Returns nothing if the register cannot be read.
    [[nodiscard]] std::optional<std::uint32_t> read(std::uint64_t offset) const {
        switch (offset) {
            case 0x000:
                return count_;
            case 0x004:
                return match_;
            case 0x008:
                return load_;
            case 0x00C:
                return 1;
            case 0x010:
                return masked_in_ ? 1 : 0;
            case 0x014:
                return matched_ ? 1 : 0;
            case 0x018:
                return matched_ && masked_in_ ? 1 : 0;
            case 0xFE0:
                return 0x31;
            case 0xFE4:
                return 0x10;
            case 0xFE8:
                return 0x04;
            case 0xFEC:
                return 0x00;
            case 0xFF0:
                return 0x0D;
            case 0xFF4:
                return 0xF0;
            case 0xFF8:
                return 0x05;
            case 0xFFC:
                return 0xB1;
            default:
                return std::nullopt;
        }
    }

    /// Returns false if the register cannot be written.
    bool write(std::uint64_t offset, std::uint32_t value) {
        switch (offset) {
            case 0x004:
                match_ = value;
                matched_ = matched_ || count_ == match_;
                break;
            case 0x008:
                load_ = value;
                count_ = value;
                matched_ = matched_ || count_ == match_;
                break;
            case 0x00C:
                break;
            case 0x010:
                masked_in_ = (value & 1) != 0;
                break;
            case 0x01C:
                matched_ = matched_ && (value & 1) == 0;
                break;
            default:
                return false;
        }
        wire();
        return true;
    }

    void restore() {
        level_ = false;
        wire();
    }
    [[nodiscard]] bool level() const { return level_; }
    /// Nanoseconds until the line rises without an access.
    [[nodiscard]] std::optional<std::uint64_t> to_interrupt() const {
        if (matched_ || !masked_in_) {
            return std::nullopt;
        }
        const std::uint64_t seconds =
            match_ == count_ ? 0x1'0000'0000U : static_cast<std::uint32_t>(match_ - count_);
        return seconds * 1'000'000'000U - static_cast<std::uint64_t>(part_);
    }

private:
    void wire() {
        const bool level = matched_ && masked_in_;
        world_.edges += level && !level_ ? 1U : 0U;
        level_ = level;
    }

    World& world_;
    std::uint32_t count_;
    std::int64_t part_;  // of the running second, in ns
    std::uint32_t match_{0};
    std::uint32_t load_{0};
    bool masked_in_{false};
    bool matched_{false};
    bool level_{false};
};

}  // namespace fuzz::model
