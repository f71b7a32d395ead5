// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
#pragma once

/// The configuration and the saved state of a SystemAllocator, as plain data and as bytes.

#include <vmdevice/detail/config.hpp>

#include <cstddef>
#include <cstdint>
#include <expected>
#include <limits>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <type_traits>
#include <vector>

#include <vmdevice/range.hpp>
#include <vmdevice/resources.hpp>

namespace vmdevice::inline v0_2 {

/// A number of something: an interrupt, a device, a memory slot.
struct Number {
    std::uint32_t value;  ///< the number
    friend constexpr auto operator<=>(const Number&, const Number&) = default;
};
/// Numbers that follow one another.
using NumberRange = BusRange<Number>;

/// The spaces that a SystemAllocator manages. In a space that is not given, nothing can be allocated.
struct SystemAllocatorConfig {
    std::optional<PioRange> pio = std::nullopt;  ///< the ports that devices may have
    /// The guest physical memory that devices may have, in bytes.
    std::optional<MmioRange> mmio = std::nullopt;
    /// Lines of the interrupt controller for devices: 5..15 or 16..23 on a PC.
    std::optional<NumberRange> irq = std::nullopt;
    /// Numbers for message-signalled interrupts.
    std::optional<NumberRange> msi = std::nullopt;
    /// Memory slots of the hypervisor.
    std::optional<NumberRange> kvm_mem_slots = std::nullopt;
    /// Instance ids count up from here.
    std::uint32_t first_instance_id = 1;

    friend bool operator==(const SystemAllocatorConfig&, const SystemAllocatorConfig&) = default;
};

/// A SystemAllocator as plain data: the spaces, and what is allocated in them, in ascending order. The
/// default-constructed state is that of an allocator that manages no space.
struct SystemAllocatorState {
    /// A line that devices share.
    struct SharedIrq {
        std::uint32_t irq;   ///< the number of the line
        IrqSharing sharing;  ///< how its devices share it
        /// How many devices have the line, at least 1.
        std::uint32_t holders;
        friend bool operator==(const SharedIrq&, const SharedIrq&) = default;
    };

    SystemAllocatorConfig config;  ///< what can be allocated
    std::vector<PioRange> pio;     ///< the allocated ports
    std::vector<MmioRange> mmio;   ///< the allocated memory
    /// Individual lines, including the shared ones.
    std::vector<NumberRange> irq;
    std::vector<SharedIrq> shared_irq;  ///< the lines that several devices have
    std::vector<NumberRange> msi;       ///< the allocated message-signalled interrupts
    /// Individual numbers, as in the next two members.
    std::vector<NumberRange> kvm_mem_slots;
    std::vector<NumberRange> instance_ids;  ///< the allocated instance ids
    /// The lower three bytes of the MAC addresses that begin with 52:54:00.
    std::vector<NumberRange> mac_numbers;

    friend bool operator==(const SystemAllocatorState&, const SystemAllocatorState&) = default;
};

/// A saved state that no SystemAllocator can be in, or bytes that hold none. `field` names the first invalid
/// member of SystemAllocatorState; `header` stands for the tag, the version and the length.
struct AllocatorStateError {
    std::string_view field;  ///< the member that is wrong
    friend constexpr bool operator==(const AllocatorStateError&, const AllocatorStateError&) = default;
};
[[nodiscard]] inline std::string to_string(const AllocatorStateError& error) {
    std::string text = "the saved state of the allocator holds an invalid value: ";
    text += error.field;
    return text;
}

namespace detail {

template <class State>
class AllocatorStateWriter {
public:
    template <class T>
    void put(T value) {
        for (std::size_t i = 0; i < sizeof(T); ++i) {
            bytes.push_back(static_cast<std::uint8_t>(static_cast<std::uint64_t>(value) >> (8U * i)));
        }
    }
    template <class A>
    void put(const BusRange<A>& range) {
        put(std::uint64_t{range.base().value});
        put(std::uint64_t{range.last().value});
    }
    template <class A>
    void put(const std::optional<BusRange<A>>& range) {
        put(static_cast<std::uint8_t>(range.has_value()));
        if (range) {
            put(*range);
        }
    }
    void put(const typename State::SharedIrq& line) {
        put(line.irq);
        put(static_cast<std::uint8_t>(line.sharing));
        put(line.holders);
    }
    template <class T>
    void put(const std::vector<T>& all) {
        put(static_cast<std::uint32_t>(all.size()));
        for (const T& one : all) {
            put(one);
        }
    }
    std::vector<std::uint8_t> bytes;
};

/// Every get() returns false if the bytes end too early or do not hold a value of the type.
template <class State>
class AllocatorStateReader {
public:
    explicit AllocatorStateReader(std::span<const std::uint8_t> bytes) : bytes_(bytes) {}

    template <class T>
    bool get(T& value) {
        if (bytes_.size() < sizeof(T)) {
            return false;
        }
        std::uint64_t bits = 0;
        for (std::size_t i = 0; i < sizeof(T); ++i) {
            bits |= static_cast<std::uint64_t>(bytes_[i]) << (8U * i);
        }
        bytes_ = bytes_.subspan(sizeof(T));
        value = static_cast<T>(bits);
        return true;
    }
    template <class A>
    bool get(std::optional<BusRange<A>>& range) {
        std::uint8_t present = 0;
        if (!get(present) || present > 1) {
            return false;
        }
        range.reset();
        return present == 0 || get_range(range);
    }
    template <class A>
    bool get(std::vector<BusRange<A>>& ranges) {
        std::uint32_t count = 0;
        // Do not allocate memory for more ranges than the remaining bytes can hold.
        if (!get(count) || count > bytes_.size() / 16) {
            return false;
        }
        ranges.reserve(count);
        for (std::uint32_t i = 0; i < count; ++i) {
            std::optional<BusRange<A>> range;
            if (!get_range(range)) {
                return false;
            }
            ranges.push_back(*range);
        }
        return true;
    }
    bool get(std::vector<typename State::SharedIrq>& lines) {
        std::uint32_t count = 0;
        if (!get(count) || count > bytes_.size() / 9) {
            return false;
        }
        lines.reserve(count);
        for (std::uint32_t i = 0; i < count; ++i) {
            typename State::SharedIrq line{};
            if (!get(line.irq) || !get(line.sharing) || !get(line.holders)) {
                return false;
            }
            lines.push_back(line);
        }
        return true;
    }
    [[nodiscard]] bool at_end() const { return bytes_.empty(); }

private:
    template <class A>
    bool get_range(std::optional<BusRange<A>>& range) {
        std::uint64_t first = 0;
        std::uint64_t last = 0;
        constexpr std::uint64_t maximum = std::numeric_limits<OffsetOf<A>>::max();
        if (!get(first) || !get(last) || first > maximum || last > maximum) {
            return false;
        }
        const auto found =
            BusRange<A>::from_bounds(A{static_cast<OffsetOf<A>>(first)}, A{static_cast<OffsetOf<A>>(last)});
        if (!found) {
            return false;
        }
        range = *found;
        return true;
    }

    std::span<const std::uint8_t> bytes_;
};

/// Calls `field(name, member)` for every member in the order in which they are saved, until it returns false;
/// then returns the name of that member.
template <class State, class Field>
std::optional<std::string_view> visit_allocator_state(State& state, Field field) {
    auto& [config, pio, mmio, irq, shared_irq, msi, kvm_mem_slots, instance_ids, mac_numbers] = state;
    auto& [pio_space, mmio_space, irq_space, msi_space, slot_space, first_instance_id] = config;
    std::string_view wrong;
    const auto visit = [&](std::string_view name, auto& member) {
        wrong = name;
        return field(member);
    };
    const bool all = visit("config.pio", pio_space) && visit("config.mmio", mmio_space) &&
                     visit("config.irq", irq_space) && visit("config.msi", msi_space) &&
                     visit("config.kvm_mem_slots", slot_space) &&
                     visit("config.first_instance_id", first_instance_id) && visit("pio", pio) &&
                     visit("mmio", mmio) && visit("irq", irq) && visit("shared_irq", shared_irq) &&
                     visit("msi", msi) && visit("kvm_mem_slots", kvm_mem_slots) &&
                     visit("instance_ids", instance_ids) && visit("mac_numbers", mac_numbers);
    return all ? std::nullopt : std::optional(wrong);
}

inline constexpr std::uint32_t allocator_state_tag = 0x4C41'4D56;  // "VMAL"
inline constexpr std::uint16_t allocator_state_version = 1;

}  // namespace detail

/// The state as bytes: a tag (u32), a version (u16), then the members in order, little-endian. A range is its
/// first and its last number, 8 bytes each; a list begins with its length (u32).
template <class State>
    requires std::is_same_v<State, SystemAllocatorState>
[[nodiscard]] std::vector<std::uint8_t> encode(const State& state) {
    detail::AllocatorStateWriter<State> writer;
    writer.put(detail::allocator_state_tag);
    writer.put(detail::allocator_state_version);
    detail::visit_allocator_state(state, [&](const auto& member) {
        writer.put(member);
        return true;
    });
    return static_cast<std::vector<std::uint8_t>&&>(writer.bytes);
}

/// Reads what encode() wrote. Checks only the format; SystemAllocator::from_state() checks the values.
template <class State>
    requires std::is_same_v<State, SystemAllocatorState>
[[nodiscard]] std::expected<State, AllocatorStateError> decode(std::span<const std::uint8_t> bytes) {
    detail::AllocatorStateReader<State> reader(bytes);
    std::uint32_t tag = 0;
    std::uint16_t version = 0;
    if (!reader.get(tag) || !reader.get(version) || tag != detail::allocator_state_tag ||
        version != detail::allocator_state_version) {
        return std::unexpected(AllocatorStateError{"header"});
    }
    State state;
    if (const auto wrong =
            detail::visit_allocator_state(state, [&](auto& member) { return reader.get(member); })) {
        return std::unexpected(AllocatorStateError{*wrong});
    }
    if (!reader.at_end()) {
        return std::unexpected(AllocatorStateError{"header"});
    }
    return state;
}

}  // namespace vmdevice::inline v0_2
