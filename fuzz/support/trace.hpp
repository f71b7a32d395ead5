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

/// A number or bytes that a trace prints as C++ source.
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
    if constexpr (std::is_unsigned_v<T> && sizeof(T) == sizeof(std::uint64_t)) {
        text += value > INT64_MAX ? "U" : "";  // no signed type can represent it
    }
}

}  // namespace detail

/// Prints the operations of a test case as the C++ calls of a regression test, each before it is made, so
/// that the last line is the call that did not return. When disabled it costs a branch.
class Trace {
public:
    explicit Trace(bool on) : on_(on) {}

    [[nodiscard]] bool on() const noexcept { return on_; }

    /// Prints the parts as one line.
    template <class... Parts>
    void operator()(const Parts&... parts) const {
        if (on_) [[unlikely]] {
            print('\n', parts...);
        }
    }
    /// Prints the parts as the beginning of a line, before a call whose result is printed at its end. If the
    /// call does not return, finish_line() completes the line, which must then be valid C++; an example is
    /// `CHECK(device.read(0) == `.
    template <class... Parts>
    void call(const Parts&... parts) const {
        if (on_) [[unlikely]] {
            line_is_open = true;
            print('\0', parts...);
        }
    }
    /// Prints the end of the line that call() began.
    template <class... Parts>
    void result(const Parts&... parts) const {
        if (on_) [[unlikely]] {
            line_is_open = false;
            print('\n', parts...);
        }
    }
    /// Called if the program ends inside a call that has a result.
    static void finish_line() {
        if (line_is_open) {
            line_is_open = false;
            std::fputs("0);  // did not return\n", stdout);
        }
    }

private:
    template <class... Parts>
    static void print(char end, const Parts&... parts) {
        std::string text;
        (detail::append(text, parts), ...);
        if (end != '\0') {
            text += end;
        }
        std::fputs(text.c_str(), stdout);
        // Flush, because the output may be a pipe and the next call may crash.
        std::fflush(stdout);
    }

    static inline bool line_is_open = false;

    bool on_;
};

}  // namespace fuzz
