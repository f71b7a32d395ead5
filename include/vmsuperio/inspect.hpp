// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
#pragma once

#include <array>
#include <concepts>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <type_traits>
#include <utility>
#include <vector>

#include <vmsuperio/registers/register.hpp>
#include <vmsuperio/snapshot.hpp>

/// States and registers as text for people: for debuggers, logs and failing tests.
///
/// A register is "NAME=0xVALUE [fields]": each bit that is set by its name, each wider field that is not 0
/// as "name=value". A command is "0xVALUE name". A state is a line "name=value" for each member under the
/// name that its `visit` gives it; the members of a state within it are "outer.inner". Bytes are hexadecimal,
/// other numbers decimal.
namespace vmsuperio::inline v0_2 {

namespace detail {

// All functions are templates over the string type, so that a program that includes a device without using
// its text instantiates no part of std::string and std::vector.

template <class Text>
[[nodiscard]] Text hexadecimal(std::uint64_t value, std::size_t digits) {
    constexpr std::string_view digit = "0123456789ABCDEF";
    Text text("0x");
    for (std::size_t i = digits; i-- != 0;) {
        text += digit[(value >> (4U * i)) & 0x0FU];
    }
    return text;
}

/// The fields of a register that are not 0, each with a space before it.
template <class Text>
[[nodiscard]] Text describe_fields(std::span<const FieldInfo> fields, std::uint64_t value,
                                   std::uint64_t whole) {
    Text text;
    for (const FieldInfo& field : fields) {
        if (field.value_in(value) == 0 || field.mask == whole) {
            continue;
        }
        text.append(text.empty() ? "" : " ").append(field.name);
        if (!field.is_bit()) {
            text.append("=").append(std::to_string(field.value_in(value)));
        }
    }
    return text.empty() ? text : Text(" [").append(text).append("]");
}

template <class Text, class R>
[[nodiscard]] Text register_value(R reg) {
    using Value = typename R::value_type;
    return hexadecimal<Text>(reg.value(), 2 * sizeof(Value))
        .append(describe_fields<Text>(R::fields, reg.value(), static_cast<Value>(~Value{0})));
}

template <class Text>
[[nodiscard]] Text bytes_text(std::span<const std::uint8_t> bytes) {
    Text text;
    for (const std::uint8_t byte : bytes) {
        text.append(text.empty() ? "" : " ").append(hexadecimal<Text>(byte, 2), 2, 2);
    }
    return text.empty() ? Text("none") : text;
}

template <class Text, class T>
[[nodiscard]] Text number_text(T value) {
    if constexpr (std::same_as<T, bool>) {
        return Text(value ? "yes" : "no");
    } else if constexpr (std::is_enum_v<T>) {
        if constexpr (requires { std::string_view(to_string(value)); }) {
            return Text(to_string(value));
        } else {
            return std::to_string(std::to_underlying(value));
        }
    } else if constexpr (std::same_as<T, std::uint8_t>) {
        return hexadecimal<Text>(value, 2);
    } else {
        return std::to_string(value);
    }
}

template <class Text, class T, std::size_t N>
[[nodiscard]] Text number_text(const std::array<T, N>& values) {
    Text text;
    for (const T& value : values) {
        text.append(text.empty() ? "" : " ").append(number_text<Text>(value));
    }
    return text;
}

/// Collects the members of a state as names and texts.
template <class Text>
class TextArchive : public NamedArchive<TextArchive<Text>> {
public:
    struct Entry {
        Text name;
        Text value;
        friend bool operator==(const Entry&, const Entry&) = default;
    };

    template <class T>
    void operator()(std::string_view name, const T& value) {
        if constexpr (requires { T::visit(value, *this); }) {
            nested(name, [&](TextArchive& archive) { T::visit(value, archive); });
        } else {
            add(Text(name), number_text<Text>(value));
        }
    }
    template <class T, class R>
    void operator()(std::string_view name, const T& value, AsRegister<R>) {
        add(Text(name), register_value<Text>(R(value)));
    }
    template <std::integral T, class Command>
    void operator()(std::string_view name, T value, AsCommand<Command>) {
        const std::string_view command = to_string(static_cast<Command>(value));
        add(Text(name),
            number_text<Text>(value).append(command.empty() || value == 0 ? "" : " ").append(command));
    }
    template <std::integral T>
    void operator()(std::string_view name, T value, AsDecimal) {
        add(Text(name), std::to_string(value));
    }
    template <std::size_t N>
    void operator()(std::string_view name, const std::array<std::uint8_t, N>& value) {
        add(Text(name), bytes_text<Text>(value));
    }
    template <std::size_t N>
    void bytes(std::string_view name, std::uint8_t count, const std::array<std::uint8_t, N>& data) {
        add(Text(name), bytes_text<Text>(std::span(data).first(count < N ? count : N)));
    }
    template <std::size_t N>
    void bytes(std::string_view name, const std::array<std::uint8_t, N>& data, std::uint8_t count) {
        bytes(name, count, data);
    }
    template <class Visitor>
    void nested(std::string_view name, Visitor&& visitor) {
        const std::size_t length = prefix_.size();
        prefix_.append(name).append(".");
        std::forward<Visitor>(visitor)(*this);
        prefix_.resize(length);
    }

    [[nodiscard]] std::vector<Entry> take() && { return std::move(entries_); }

private:
    void add(const Text& name, Text value) { entries_.push_back({prefix_ + name, std::move(value)}); }

    Text prefix_;
    std::vector<Entry> entries_;
};

template <class Text, SnapshotState S>
[[nodiscard]] auto text_of(const S& state) {
    TextArchive<Text> archive;
    S::visit(state, archive);
    return std::move(archive).take();
}

}  // namespace detail

/// "IER=0x05 [received_data line_status]".
template <class R>
    requires std::derived_from<R, Register<R, typename R::value_type>>
[[nodiscard]] std::string inspect(R reg) {
    return std::string(R::name).append("=").append(detail::register_value<std::string>(reg));
}

/// A line for each member of the state.
template <SnapshotState S>
[[nodiscard]] std::string inspect(const S& state) {
    std::string text;
    for (const auto& [name, value] : detail::text_of<std::string>(state)) {
        text.append(name).append("=").append(value).append("\n");
    }
    return text;
}

/// A line "name: value -> value" for each member that differs; empty if none does.
template <SnapshotState S>
[[nodiscard]] std::string difference(const S& before, const S& after) {
    const auto old_text = detail::text_of<std::string>(before);
    const auto new_text = detail::text_of<std::string>(after);
    std::string text;
    for (std::size_t i = 0; i < old_text.size(); ++i) {
        const auto& [name, value] = old_text[i];
        if (value != new_text[i].value) {
            text.append(name).append(": ").append(value).append(" -> ");
            text.append(new_text[i].value).append("\n");
        }
    }
    return text;
}

}  // namespace vmsuperio::inline v0_2
