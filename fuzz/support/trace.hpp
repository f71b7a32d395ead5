// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <span>
#include <string>
#include <string_view>
#include <type_traits>

namespace fuzz {

/// How numbers and bytes are written in a trace: as C++ source.
struct Hex {
    std::uint64_t value;
};
struct Bytes {
    std::span<const std::uint8_t> bytes;
};

namespace detail {

inline void append(std::string& text, std::string_view part) { text += part; }
inline void append(std::string& text, const char* part) { text += part; }
inline void append(std::string& text, bool value) { text += value ? "true" : "false"; }
inline void append(std::string& text, Hex number) {
    char digits[24];
    std::snprintf(digits, sizeof digits, "0x%02llX", static_cast<unsigned long long>(number.value));
    text += digits;
}
inline void append(std::string& text, Bytes data) {
    text += "std::vector<std::uint8_t>{";
    for (std::size_t i = 0; i < data.bytes.size(); ++i) {
        text += i == 0 ? "" : ", ";
        append(text, Hex{data.bytes[i]});
    }
    text += '}';
}
template <class T>
    requires std::is_arithmetic_v<T>
void append(std::string& text, T value) {
    text += std::to_string(value);
}

}  // namespace detail

/// Prints what a test case does as the C++ calls of a regression test. Switched off it costs a branch.
class Trace {
public:
    explicit Trace(bool on) : on_(on) {}

    [[nodiscard]] bool on() const noexcept { return on_; }

    /// Prints the parts as one line.
    template <class... Parts>
    void operator()(const Parts&... parts) const {
        if (!on_) [[likely]] {
            return;
        }
        std::string text;
        (detail::append(text, parts), ...);
        std::puts(text.c_str());
    }

private:
    bool on_;
};

}  // namespace fuzz
