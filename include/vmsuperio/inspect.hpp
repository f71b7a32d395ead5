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
namespace vmsuperio {

namespace detail {

[[nodiscard]] inline std::string hexadecimal(std::uint64_t value, std::size_t digits) {
    constexpr std::string_view digit = "0123456789ABCDEF";
    std::string text = "0x";
    for (std::size_t i = digits; i-- != 0;) {
        text += digit[(value >> (4U * i)) & 0x0FU];
    }
    return text;
}

/// The fields of a register that are not 0, each with a space before it.
[[nodiscard]] inline std::string describe_fields(std::span<const FieldInfo> fields, std::uint64_t value,
                                                 std::uint64_t whole) {
    std::string text;
    for (const FieldInfo& field : fields) {
        if (field.value_in(value) == 0 || field.mask == whole) {
            continue;
        }
        text.append(text.empty() ? "" : " ").append(field.name);
        if (!field.is_bit()) {
            text.append("=").append(std::to_string(field.value_in(value)));
        }
    }
    return text.empty() ? text : " [" + text + "]";
}

template <class R>
[[nodiscard]] std::string register_value(R reg) {
    using Value = typename R::value_type;
    return hexadecimal(reg.value(), 2 * sizeof(Value)) +
           describe_fields(R::fields, reg.value(), static_cast<Value>(~Value{0}));
}

[[nodiscard]] inline std::string bytes_text(std::span<const std::uint8_t> bytes) {
    std::string text;
    for (const std::uint8_t byte : bytes) {
        text.append(text.empty() ? "" : " ").append(hexadecimal(byte, 2), 2, 2);
    }
    return text.empty() ? "none" : text;
}

template <class T>
[[nodiscard]] std::string number_text(T value) {
    if constexpr (std::same_as<T, bool>) {
        return value ? "yes" : "no";
    } else if constexpr (std::is_enum_v<T>) {
        if constexpr (requires { std::string_view(to_string(value)); }) {
            return std::string(to_string(value));
        } else {
            return std::to_string(std::to_underlying(value));
        }
    } else if constexpr (std::same_as<T, std::uint8_t>) {
        return hexadecimal(value, 2);
    } else {
        return std::to_string(value);
    }
}

template <class T, std::size_t N>
[[nodiscard]] std::string number_text(const std::array<T, N>& values) {
    std::string text;
    for (const T& value : values) {
        text.append(text.empty() ? "" : " ").append(number_text(value));
    }
    return text;
}

/// Collects the members of a state as names and texts.
class TextArchive {
public:
    struct Entry {
        std::string name;
        std::string value;
        friend bool operator==(const Entry&, const Entry&) = default;
    };

    template <class T>
    void operator()(std::string_view name, const T& value) {
        if constexpr (requires { T::visit(value, *this); }) {
            nested(name, [&](TextArchive& archive) { T::visit(value, archive); });
        } else {
            add(std::string(name), number_text(value));
        }
    }
    template <class T, class R>
    void operator()(std::string_view name, const T& value, AsRegister<R>) {
        add(std::string(name), register_value(R(value)));
    }
    template <std::integral T, class Command>
    void operator()(std::string_view name, T value, AsCommand<Command>) {
        const std::string_view command = to_string(static_cast<Command>(value));
        add(std::string(name),
            number_text(value).append(command.empty() || value == 0 ? "" : " ").append(command));
    }
    template <std::integral T>
    void operator()(std::string_view name, T value, AsDecimal) {
        add(std::string(name), std::to_string(value));
    }
    template <std::size_t N>
    void operator()(std::string_view name, const std::array<std::uint8_t, N>& value) {
        add(std::string(name), bytes_text(value));
    }
    template <std::size_t N>
    void bytes(std::string_view name, std::uint8_t count, const std::array<std::uint8_t, N>& data) {
        add(std::string(name), bytes_text(std::span(data).first(count < N ? count : N)));
    }
    template <std::size_t N>
    void bytes(std::string_view name, const std::array<std::uint8_t, N>& data, std::uint8_t count) {
        bytes(name, count, data);
    }
    template <class... Arguments>
    void since(std::uint16_t, std::string_view name, const Arguments&... arguments) {
        (*this)(name, arguments...);
    }
    template <class... Arguments>
    void bytes_since(std::uint16_t, std::string_view name, const Arguments&... arguments) {
        bytes(name, arguments...);
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
    void add(const std::string& name, std::string value) {
        entries_.push_back({prefix_ + name, std::move(value)});
    }

    std::string prefix_;
    std::vector<Entry> entries_;
};

template <SnapshotState S>
[[nodiscard]] std::vector<TextArchive::Entry> text_of(const S& state) {
    TextArchive archive;
    S::visit(state, archive);
    return std::move(archive).take();
}

}  // namespace detail

/// "IER=0x05 [received_data line_status]".
template <class R>
    requires std::derived_from<R, Register<R, typename R::value_type>>
[[nodiscard]] std::string inspect(R reg) {
    return std::string(R::name) + "=" + detail::register_value(reg);
}

/// A line for each member of the state.
template <SnapshotState S>
[[nodiscard]] std::string inspect(const S& state) {
    std::string text;
    for (const auto& [name, value] : detail::text_of(state)) {
        text.append(name).append("=").append(value).append("\n");
    }
    return text;
}

/// A line "name: value -> value" for each member that differs; empty where none does.
template <SnapshotState S>
[[nodiscard]] std::string difference(const S& before, const S& after) {
    const auto old_text = detail::text_of(before);
    const auto new_text = detail::text_of(after);
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

}  // namespace vmsuperio
