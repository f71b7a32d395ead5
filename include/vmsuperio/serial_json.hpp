// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
#pragma once

/// `SerialState` as JSON, for those who use nlohmann-json. No other header includes this one.

#include <array>
#include <concepts>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <nlohmann/json.hpp>
#include <stdexcept>
#include <string>
#include <vector>

#include <vmsuperio/serial_state.hpp>

namespace vmsuperio {

namespace detail {

template <class Integer>
void json_get(const nlohmann::json& json, const char* key, Integer& value) {
    const auto found = json.find(key);
    if (found == json.end()) {
        return;  // as older states in binary: the default stays
    }
    if constexpr (std::same_as<Integer, bool>) {
        value = found->template get<bool>();
    } else {
        // get<> would convert 300 to 44, -1 to 255 and 1.5 to 1.
        if (!found->is_number_unsigned() ||
            found->template get<std::uint64_t>() > std::numeric_limits<Integer>::max()) {
            throw std::out_of_range(std::string("vmsuperio: out of range: ") + key);
        }
        value = static_cast<Integer>(found->template get<std::uint64_t>());
    }
}

template <class Enum>
void json_get_enum(const nlohmann::json& json, const char* key, Enum& value) {
    auto number = static_cast<std::uint8_t>(value);
    json_get(json, key, number);
    value = static_cast<Enum>(number);
}

inline void json_get_bytes(const nlohmann::json& json, const char* key, std::uint8_t& count,
                           std::array<std::uint8_t, SerialState::fifo_size>& bytes) {
    const auto found = json.find(key);
    if (found == json.end()) {
        return;
    }
    if (!found->is_array() || found->size() > bytes.size()) {
        throw std::out_of_range(std::string("vmsuperio: not an array of up to 64 bytes: ") + key);
    }
    for (std::size_t i = 0; i < found->size(); ++i) {
        const auto& byte = (*found)[i];
        if (!byte.is_number_unsigned() || byte.get<std::uint64_t>() > 0xFF) {
            throw std::out_of_range(std::string("vmsuperio: not a byte in ") + key);
        }
        bytes[i] = byte.get<std::uint8_t>();
    }
    count = static_cast<std::uint8_t>(found->size());
}

}  // namespace detail

/// Found by nlohmann-json: `nlohmann::json json = state;`
inline void to_json(nlohmann::json& json, const SerialState& state) {
    const auto bytes = [](std::uint8_t count, const auto& data) {
        const std::size_t held = count < data.size() ? count : data.size();
        return std::vector<unsigned>(data.begin(), data.begin() + static_cast<std::ptrdiff_t>(held));
    };
    json = nlohmann::json{
        {"version", SerialState::snapshot_format.version},
        {"interrupt_enable", state.interrupt_enable},
        {"fifo_control", state.fifo_control},
        {"line_control", state.line_control},
        {"modem_control", state.modem_control},
        {"scratch", state.scratch},
        {"divisor_low", state.divisor_low},
        {"divisor_high", state.divisor_high},
        {"line_errors", state.line_errors},
        {"modem_inputs", state.modem_inputs},
        {"modem_deltas", state.modem_deltas},
        {"thr_empty_pending", state.thr_empty_pending},
        {"character_timeout", state.character_timeout},
        {"receive", bytes(state.receive_count, state.receive_data)},
        {"receive_parity_errors", state.receive_parity_errors},
        {"receive_framing_errors", state.receive_framing_errors},
        {"receive_breaks", state.receive_breaks},
        {"transmit", bytes(state.transmit_count, state.transmit_data)},
        {"fifo_64_allowed", state.fifo_64_allowed},
        {"transmit_policy", static_cast<unsigned>(state.transmit_policy)},
        {"receive_timeout", static_cast<unsigned>(state.receive_timeout)},
        {"interrupt_gate", static_cast<unsigned>(state.interrupt_gate)},
        {"auto_rts_held", state.auto_rts_held},
    };
}

/// Found by nlohmann-json: `json.get<SerialState>()`. Missing fields keep their defaults, unknown ones are
/// ignored. Throws what nlohmann-json throws for values of the wrong type, and `std::out_of_range` for
/// values that do not fit and for a version newer than this one's. Whether they make sense is for
/// `Serial::from_state` to check.
inline void from_json(const nlohmann::json& json, SerialState& state) {
    std::uint16_t version = SerialState::snapshot_format.version;
    detail::json_get(json, "version", version);
    if (version > SerialState::snapshot_format.version) {
        throw std::out_of_range("SerialState: version " + std::to_string(version) + " is too new");
    }
    state = SerialState{};
    detail::json_get(json, "interrupt_enable", state.interrupt_enable);
    detail::json_get(json, "fifo_control", state.fifo_control);
    detail::json_get(json, "line_control", state.line_control);
    detail::json_get(json, "modem_control", state.modem_control);
    detail::json_get(json, "scratch", state.scratch);
    detail::json_get(json, "divisor_low", state.divisor_low);
    detail::json_get(json, "divisor_high", state.divisor_high);
    detail::json_get(json, "line_errors", state.line_errors);
    detail::json_get(json, "modem_inputs", state.modem_inputs);
    detail::json_get(json, "modem_deltas", state.modem_deltas);
    detail::json_get(json, "thr_empty_pending", state.thr_empty_pending);
    detail::json_get(json, "character_timeout", state.character_timeout);
    detail::json_get_bytes(json, "receive", state.receive_count, state.receive_data);
    detail::json_get(json, "receive_parity_errors", state.receive_parity_errors);
    detail::json_get(json, "receive_framing_errors", state.receive_framing_errors);
    detail::json_get(json, "receive_breaks", state.receive_breaks);
    detail::json_get_bytes(json, "transmit", state.transmit_count, state.transmit_data);
    detail::json_get(json, "fifo_64_allowed", state.fifo_64_allowed);
    detail::json_get_enum(json, "transmit_policy", state.transmit_policy);
    detail::json_get_enum(json, "receive_timeout", state.receive_timeout);
    detail::json_get_enum(json, "interrupt_gate", state.interrupt_gate);
    detail::json_get(json, "auto_rts_held", state.auto_rts_held);
}

}  // namespace vmsuperio
