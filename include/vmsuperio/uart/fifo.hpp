// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
#pragma once

#include <array>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <span>

#include <vmsuperio/detail/copy_bytes.hpp>
#include <vmsuperio/registers/uart16550.hpp>

namespace vmsuperio::detail {

/// 64 received bytes with the errors of each, oldest first.
///
/// The errors of a byte show in LSR when it becomes the oldest (PC16550D 8.6.2, LSR bits 2 to 4). So this
/// keeps those of the others only; whoever moves a byte to the front takes them with `take_front_errors`.
class SerialReceiveFifo {
public:
    static constexpr std::size_t capacity = 64;

    [[nodiscard]] constexpr std::size_t size() const noexcept { return position_ & 0xFFU; }
    [[nodiscard]] constexpr bool empty() const noexcept { return size() == 0; }
    [[nodiscard]] constexpr std::size_t room() const noexcept { return capacity - size(); }
    [[nodiscard]] constexpr std::uint8_t front() const noexcept { return data_[head()]; }
    /// Changes with every byte that comes or goes, repeating itself after 256 of each.
    [[nodiscard]] constexpr std::uint32_t position() const noexcept { return position_; }
    [[nodiscard]] constexpr bool has_errors() const noexcept { return has_errors_; }

    /// There must be a byte.
    constexpr std::uint8_t pop() noexcept {
        const std::uint8_t byte = data_[head()];
        position_ = static_cast<std::uint16_t>(position_ + 0x100U - 1U);
        return byte;
    }

    /// There must be room. `errors` holds LSR bits 4:2.
    constexpr void push(std::uint8_t byte, std::uint8_t errors = 0) noexcept {
        const std::size_t slot = wrap(head() + size());
        data_[slot] = byte;
        if (errors != 0) {
            using uart16550::LineStatus;
            const std::uint64_t bit = std::uint64_t{1} << slot;
            parity_errors_ |= (errors & LineStatus::parity_error.mask) != 0 ? bit : 0;
            framing_errors_ |= (errors & LineStatus::framing_error.mask) != 0 ? bit : 0;
            breaks_ |= (errors & LineStatus::break_interrupt.mask) != 0 ? bit : 0;
            note_errors();
        }
        ++position_;
    }

    /// Takes as many as fit, and returns their number.
    constexpr std::size_t push(std::span<const std::uint8_t> bytes) noexcept {
        const std::size_t count = smaller(bytes.size(), room());
        const std::size_t slot = wrap(head() + size());
        if (count == 1) {  // a key pressed: not worth calling memmove
            data_[slot] = bytes.front();
        } else {
            const std::size_t first = smaller(count, capacity - slot);
            copy_bytes(bytes.data(), first, data_.data() + slot);
            copy_bytes(bytes.data() + first, count - first, data_.data());
        }
        position_ = static_cast<std::uint16_t>(position_ + count);
        return count;
    }

    /// The errors of the oldest byte, LSR bits 4:2, which are then forgotten here.
    constexpr std::uint8_t take_front_errors() noexcept {
        if (!has_errors()) [[likely]] {
            return 0;
        }
        using uart16550::LineStatus;
        const std::uint64_t bit = std::uint64_t{1} << head();
        const auto errors =
            static_cast<std::uint8_t>(((parity_errors_ & bit) != 0 ? LineStatus::parity_error.mask : 0) |
                                      ((framing_errors_ & bit) != 0 ? LineStatus::framing_error.mask : 0) |
                                      ((breaks_ & bit) != 0 ? LineStatus::break_interrupt.mask : 0));
        parity_errors_ &= ~bit;
        framing_errors_ &= ~bit;
        breaks_ &= ~bit;
        note_errors();
        return errors;
    }

    constexpr void clear() noexcept {
        // As if all had been read: the position tells of the change when as many bytes come again.
        position_ = static_cast<std::uint16_t>((position_ & 0xFF00U) + (size() << 8U));
        parity_errors_ = 0;
        framing_errors_ = 0;
        breaks_ = 0;
        has_errors_ = false;
    }

    /// Writes the content to the fields of a saved state, bit 0 of each mask being the oldest byte.
    constexpr void save(std::uint8_t& count, std::array<std::uint8_t, capacity>& data,
                        std::uint64_t& parity_errors, std::uint64_t& framing_errors,
                        std::uint64_t& breaks) const noexcept {
        count = static_cast<std::uint8_t>(size());
        for (std::size_t i = 0; i < count; ++i) {
            data[i] = data_[wrap(head() + i)];
        }
        parity_errors = std::rotr(parity_errors_, static_cast<int>(head()));
        framing_errors = std::rotr(framing_errors_, static_cast<int>(head()));
        breaks = std::rotr(breaks_, static_cast<int>(head()));
    }
    /// The fields must be valid.
    constexpr void restore(std::uint8_t count, const std::array<std::uint8_t, capacity>& data,
                           std::uint64_t parity_errors, std::uint64_t framing_errors,
                           std::uint64_t breaks) noexcept {
        // The oldest goes to slot 0, but not to the position that it was at.
        position_ = static_cast<std::uint16_t>((((position_ >> 8U) / capacity + 1) * capacity << 8U) + count);
        copy_bytes(data.data(), count, data_.data());
        parity_errors_ = parity_errors;
        framing_errors_ = framing_errors;
        breaks_ = breaks;
        note_errors();
    }

private:
    static constexpr std::size_t wrap(std::size_t slot) noexcept { return slot % capacity; }
    [[nodiscard]] constexpr std::size_t head() const noexcept { return wrap(position_ >> 8U); }
    constexpr void note_errors() noexcept { has_errors_ = (parity_errors_ | framing_errors_ | breaks_) != 0; }

    std::uint64_t parity_errors_{0};
    std::uint64_t framing_errors_{0};
    std::uint64_t breaks_{0};
    std::array<std::uint8_t, capacity> data_{};
    // Bits 7:0: how many bytes there are. Bits 15:8: where the oldest is, running on past the end. In one
    // word because every byte that the guest reads changes both.
    std::uint16_t position_{0};
    bool has_errors_{false};
};

/// Bytes that wait for the writer, contiguous so that one call offers them all.
class SerialTransmitFifo {
public:
    static constexpr std::size_t capacity = 64;

    [[nodiscard]] constexpr std::size_t size() const noexcept { return size_; }
    [[nodiscard]] constexpr bool empty() const noexcept { return size_ == 0; }
    [[nodiscard]] constexpr std::span<const std::uint8_t> bytes() const noexcept {
        return {data_.data() + head_, size_};
    }

    /// Takes as many as fit below `depth` bytes in all, and returns their number.
    constexpr std::size_t push(std::span<const std::uint8_t> bytes, std::size_t depth) noexcept {
        const std::size_t count = smaller(bytes.size(), depth > size_ ? depth - size_ : 0);
        if (head_ + size_ + count > capacity) {
            copy_bytes(data_.data() + head_, size_, data_.data());
            head_ = 0;
        }
        copy_bytes(bytes.data(), count, data_.data() + head_ + size_);
        size_ = static_cast<std::uint8_t>(size_ + count);
        return count;
    }
    /// There must be that many.
    constexpr void drop_front(std::size_t count) noexcept {
        size_ = static_cast<std::uint8_t>(size_ - count);
        head_ = size_ == 0 ? std::uint8_t{0} : static_cast<std::uint8_t>(head_ + count);
    }
    constexpr void clear() noexcept {
        head_ = 0;
        size_ = 0;
    }

    constexpr void save(std::uint8_t& count, std::array<std::uint8_t, capacity>& data) const noexcept {
        count = size_;
        copy_bytes(data_.data() + head_, size_, data.data());
    }
    /// The fields must be valid.
    constexpr void restore(std::uint8_t count, const std::array<std::uint8_t, capacity>& data) noexcept {
        head_ = 0;
        size_ = count;
        copy_bytes(data.data(), count, data_.data());
    }

private:
    std::array<std::uint8_t, capacity> data_{};
    std::uint8_t head_{0};
    std::uint8_t size_{0};
};

}  // namespace vmsuperio::detail
