// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
#pragma once

#include <vmsuperio/detail/config.hpp>

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <system_error>
#include <type_traits>
#include <utility>

#include <vmsuperio/state_error.hpp>

namespace vmsuperio::inline v0_2 {

/// What failed.
enum class SerialErrorKind : std::uint8_t {
    trigger,        ///< the trigger failed; the device's own state is not affected
    write,          ///< the writer failed; the bytes offered to it are lost and counted
    full_fifo,      ///< no room in the receive FIFO
    invalid_state,  ///< a saved state that no device can be in
};

[[nodiscard]] constexpr std::string_view to_string(SerialErrorKind kind) noexcept {
    switch (kind) {
        case SerialErrorKind::trigger:
            return "the interrupt trigger failed";
        case SerialErrorKind::write:
            return "the writer failed";
        case SerialErrorKind::full_fifo:
            return "the receive FIFO is full";
        case SerialErrorKind::invalid_state:
            return "the saved serial state is invalid";
    }
    return "unknown serial error";
}

namespace detail {

/// The text of a trigger's error, if it has one in one of the usual forms; otherwise empty.
template <class E>
[[nodiscard]] std::string describe_error(const E& error) {
    if constexpr (requires { std::string(error.message()); }) {
        return std::string(error.message());
    } else if constexpr (requires { std::string(to_string(error)); }) {
        return std::string(to_string(error));
    } else if constexpr (std::is_enum_v<E>) {
        return std::to_string(static_cast<std::underlying_type_t<E>>(error));
    } else if constexpr (requires { std::to_string(error); }) {
        return std::to_string(error);
    } else {
        return {};
    }
}

}  // namespace detail

/// An error on the host's side. A guest's mistake is never an error.
template <class TriggerError>
class SerialError {
public:
    // NOLINTNEXTLINE(google-explicit-constructor): full_fifo has no details
    /// An error without details.
    constexpr SerialError(SerialErrorKind kind) noexcept : kind_(kind) {}

    /// The error of a trigger.
    [[nodiscard]] static constexpr SerialError from_trigger(TriggerError error) {
        SerialError result(SerialErrorKind::trigger);
        result.trigger_error_.emplace(std::move(error));
        return result;
    }
    /// The error of a writer.
    [[nodiscard]] static constexpr SerialError from_writer(std::error_code error) noexcept {
        SerialError result(SerialErrorKind::write);
        result.write_error_ = error;
        return result;
    }

    /// What is wrong with a saved state.
    [[nodiscard]] static constexpr SerialError from_state_error(StateError error) noexcept {
        SerialError result(SerialErrorKind::invalid_state);
        result.field_ = error.field;
        return result;
    }

    /// What failed.
    [[nodiscard]] constexpr SerialErrorKind kind() const noexcept { return kind_; }
    /// The error of the trigger, if the kind is `trigger`.
    [[nodiscard]] constexpr const std::optional<TriggerError>& trigger_error() const noexcept {
        return trigger_error_;
    }
    /// The error of the writer, if the kind is `write`.
    [[nodiscard]] constexpr const std::error_code& write_error() const noexcept { return write_error_; }

    /// The invalid member of the saved state, if the kind is `invalid_state`; otherwise empty.
    [[nodiscard]] constexpr std::string_view field() const noexcept { return field_; }

    friend constexpr bool operator==(const SerialError& error, SerialErrorKind kind) noexcept {
        return error.kind_ == kind;
    }

private:
    SerialErrorKind kind_;
    std::optional<TriggerError> trigger_error_{};
    std::error_code write_error_;
    std::string_view field_;
};

/// One line for a log: what failed, with the error of the trigger or the writer or the invalid member.
template <class TriggerError>
[[nodiscard]] std::string to_string(const SerialError<TriggerError>& error) {
    std::string text(to_string(error.kind()));
    std::string reason;
    if (error.trigger_error()) {
        reason = detail::describe_error(*error.trigger_error());
    } else if (error.write_error()) {
        reason = error.write_error().message();
    } else {
        reason = error.field();
    }
    return reason.empty() ? text : text.append(": ").append(reason);
}

}  // namespace vmsuperio::inline v0_2
