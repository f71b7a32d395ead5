// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
#pragma once

#include <concepts>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <utility>

#include <vmsuperio/detail/config.hpp>

namespace vmsuperio::detail {

/// A state as text for people: a line "name: value" for each member. Bytes are hexadecimal, other numbers
/// decimal.
class StateText {
public:
    void add(std::string_view name, std::string_view value) {
        text_.append(name).append(": ").append(value).append("\n");
    }
    void add(std::string_view name, const char* value) { add(name, std::string_view(value)); }
    void add(std::string_view name, bool value) { add(name, value ? "yes" : "no"); }
    void add(std::string_view name, std::uint8_t value) { add(name, hex(value)); }
    template <std::integral T>
    void add(std::string_view name, T value) {
        add(name, std::string_view(std::to_string(value)));
    }
    void add(std::string_view name, std::span<const std::uint8_t> bytes) {
        std::string value;
        for (const std::uint8_t byte : bytes) {
            value.append(value.empty() ? "" : " ").append(hex(byte), 2, 2);
        }
        add(name, value.empty() ? "none" : std::string_view(value));
    }

    [[nodiscard]] std::string take() && { return std::move(text_); }

private:
    [[nodiscard]] static std::string hex(std::uint8_t byte) {
        constexpr std::string_view digits = "0123456789ABCDEF";
        return {'0', 'x', digits[byte >> 4U], digits[byte & 0x0FU]};
    }

    std::string text_;
};

}  // namespace vmsuperio::detail
