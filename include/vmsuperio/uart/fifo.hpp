// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
#pragma once

#include <bit>
#include <cstddef>
#include <cstdint>
#include <span>

#include <vmsuperio/detail/copy_bytes.hpp>
#include <vmsuperio/registers/uart16550.hpp>
#include <vmsuperio/serial_state.hpp>

/// The FIFOs of a `SerialState` in use. Counts, bytes and errors are members of the state. The classes here
/// add only a derived value: the position of the oldest byte in the state's arrays, so that no byte moves
/// when the guest reads one. `put_in_order` produces the saved form, in which the oldest byte is the first.
namespace vmsuperio::inline v0_2::detail {

/// 64 received bytes with the errors of each, in a ring.
///
/// The errors of a byte appear in LSR when it becomes the oldest (PC16550D 8.6.2, LSR bits 2 to 4). So the
/// state's masks hold only those of the other bytes; the caller must collect the errors of the new oldest
/// byte with `take_front_errors` after every change of it.
class SerialReceiveFifo {
public:
    static constexpr std::size_t capacity = SerialState::fifo_size;

    [[nodiscard]] static constexpr bool empty(const SerialState& state) noexcept {
        return state.receive_count == 0;
    }
    [[nodiscard]] static constexpr std::size_t room(const SerialState& state) noexcept {
        return capacity - state.receive_count;
    }
    [[nodiscard]] constexpr std::uint8_t front(const SerialState& state) const noexcept {
        return state.receive_data[slot(0)];
    }
    /// Changes with every byte that arrives or is read; it repeats after 256 of each.
    [[nodiscard]] constexpr std::uint32_t position(const SerialState& state) const noexcept {
        return (std::uint32_t{head_} << 8U) | state.receive_count;
    }
    [[nodiscard]] constexpr bool has_errors() const noexcept { return has_errors_; }

    /// The FIFO must not be empty.
    constexpr std::uint8_t pop(SerialState& state) noexcept {
        const std::uint8_t byte = front(state);
        ++head_;
        --state.receive_count;
        return byte;
    }

    /// There must be room. `errors` contains LSR bits 4:2.
    constexpr void push(SerialState& state, std::uint8_t byte, std::uint8_t errors) noexcept {
        using uart16550::LineStatus;
        const std::size_t at = slot(state.receive_count);
        const std::uint64_t bit = std::uint64_t{1} << at;
        state.receive_data[at] = byte;
        state.receive_parity_errors |= (errors & LineStatus::parity_error.mask) != 0 ? bit : 0;
        state.receive_framing_errors |= (errors & LineStatus::framing_error.mask) != 0 ? bit : 0;
        state.receive_breaks |= (errors & LineStatus::break_interrupt.mask) != 0 ? bit : 0;
        note_errors(state);
        ++state.receive_count;
    }

    /// Takes as many bytes as fit, and returns their number.
    constexpr std::size_t push(SerialState& state, std::span<const std::uint8_t> bytes) noexcept {
        const std::size_t count = smaller(bytes.size(), room(state));
        const std::size_t at = slot(state.receive_count);
        if (count == 1) {  // a pressed key is not worth a call of memmove
            state.receive_data[at] = bytes.front();
        } else {
            const std::size_t first = smaller(count, capacity - at);
            copy_bytes(bytes.data(), first, state.receive_data.data() + at);
            copy_bytes(bytes.data() + first, count - first, state.receive_data.data());
        }
        state.receive_count = static_cast<std::uint8_t>(state.receive_count + count);
        return count;
    }

    /// Returns the errors of the oldest byte, LSR bits 4:2, and clears them here.
    constexpr std::uint8_t take_front_errors(SerialState& state) noexcept {
        if (!has_errors_) [[likely]] {
            return 0;
        }
        using uart16550::LineStatus;
        const std::uint64_t bit = std::uint64_t{1} << slot(0);
        const auto errors = static_cast<std::uint8_t>(
            ((state.receive_parity_errors & bit) != 0 ? LineStatus::parity_error.mask : 0) |
            ((state.receive_framing_errors & bit) != 0 ? LineStatus::framing_error.mask : 0) |
            ((state.receive_breaks & bit) != 0 ? LineStatus::break_interrupt.mask : 0));
        state.receive_parity_errors &= ~bit;
        state.receive_framing_errors &= ~bit;
        state.receive_breaks &= ~bit;
        note_errors(state);
        return errors;
    }

    constexpr void clear(SerialState& state) noexcept {
        // As if all had been read, so that the position differs when the same number of bytes arrives again.
        head_ = static_cast<std::uint8_t>(head_ + state.receive_count);
        state.receive_count = 0;
        state.receive_parity_errors = 0;
        state.receive_framing_errors = 0;
        state.receive_breaks = 0;
        has_errors_ = false;
    }

    /// Writes the content in its saved form to `saved`: the oldest byte first, with bit 0 of each mask, and
    /// zeros after the last byte.
    constexpr void put_in_order(const SerialState& state, SerialState& saved) const noexcept {
        saved.receive_data = {};
        for (std::size_t i = 0; i < state.receive_count; ++i) {
            saved.receive_data[i] = state.receive_data[slot(i)];
        }
        const auto shift = static_cast<int>(slot(0));
        saved.receive_parity_errors = std::rotr(state.receive_parity_errors, shift);
        saved.receive_framing_errors = std::rotr(state.receive_framing_errors, shift);
        saved.receive_breaks = std::rotr(state.receive_breaks, shift);
    }
    /// Adopts a state that is in its saved form.
    constexpr void restore(const SerialState& state) noexcept {
        // The oldest byte is in slot 0, but at another position than before.
        head_ = static_cast<std::uint8_t>((head_ / capacity + 1) * capacity);
        note_errors(state);
    }

private:
    [[nodiscard]] constexpr std::size_t slot(std::size_t index) const noexcept {
        return (head_ + index) % capacity;
    }
    constexpr void note_errors(const SerialState& state) noexcept {
        has_errors_ =
            (state.receive_parity_errors | state.receive_framing_errors | state.receive_breaks) != 0;
    }

    std::uint8_t head_{0};  // the position of the oldest byte; it increases past the end of the array
    bool has_errors_{false};
};

/// Bytes that wait for the writer, contiguous so that one call offers them all.
class SerialTransmitFifo {
public:
    static constexpr std::size_t capacity = SerialState::fifo_size;

    [[nodiscard]] constexpr std::span<const std::uint8_t> bytes(const SerialState& state) const noexcept {
        return {state.transmit_data.data() + head_, state.transmit_count};
    }

    /// Takes as many bytes as fit into a FIFO of `depth` bytes, and returns their number.
    constexpr std::size_t push(SerialState& state, std::span<const std::uint8_t> bytes,
                               std::size_t depth) noexcept {
        const std::size_t size = state.transmit_count;
        const std::size_t count = smaller(bytes.size(), depth > size ? depth - size : 0);
        std::uint8_t* const data = state.transmit_data.data();
        if (head_ + size + count > capacity) {
            copy_bytes(data + head_, size, data);
            head_ = 0;
        }
        copy_bytes(bytes.data(), count, data + head_ + size);
        state.transmit_count = static_cast<std::uint8_t>(size + count);
        return count;
    }
    /// There must be `count` bytes.
    constexpr void drop_front(SerialState& state, std::size_t count) noexcept {
        state.transmit_count = static_cast<std::uint8_t>(state.transmit_count - count);
        head_ = state.transmit_count == 0 ? std::uint8_t{0} : static_cast<std::uint8_t>(head_ + count);
    }
    constexpr void clear(SerialState& state) noexcept { drop_front(state, state.transmit_count); }

    /// Writes the content in its saved form to `saved`: the oldest byte first, zeros after the last.
    constexpr void put_in_order(const SerialState& state, SerialState& saved) const noexcept {
        saved.transmit_data = {};
        copy_bytes(state.transmit_data.data() + head_, state.transmit_count, saved.transmit_data.data());
    }
    /// Adopts a state that is in its saved form.
    constexpr void restore() noexcept { head_ = 0; }

private:
    std::uint8_t head_{0};  // the index of the oldest byte in the array
};

}  // namespace vmsuperio::inline v0_2::detail
