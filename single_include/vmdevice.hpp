// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
// vmdevice 0.2.0 in one file, written by scripts/amalgamate from include/vmdevice.
#pragma once

// vmdevice/detail/config.hpp

/// Stops compilation with a readable message if the compiler or its standard library is too old. A compiler
/// continues after #error, and would report hundreds of errors that follow from it; it stops at an #include of a
/// file that does not exist.

#if !defined(__cplusplus) || __cplusplus < 202100L
#error "vmdevice needs C++23: compile with -std=c++23 (GCC 12 or later, Clang 19 or later)"
#include <vmdevice/needs_cxx23>
#else
#include <version>
#if !defined(__cpp_lib_expected)
#error "vmdevice needs std::expected: use GCC 12 or later, or Clang 19 or later with libstdc++ 12 or later"
#include <vmdevice/needs_std_expected>
#endif
#endif

#include <array>
#include <atomic>
#include <bit>
#include <cassert>
#include <chrono>
#include <compare>
#include <concepts>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <expected>
#include <initializer_list>
#include <limits>
#include <memory>
#include <mutex>
#include <new>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <thread>
#include <type_traits>
#include <utility>
#include <variant>
#include <vector>

// vmdevice/address.hpp

/// Strong guest addresses: a port number cannot be used where a memory address is meant.

namespace vmdevice::inline v0_2 {

/// A distance in the port space, or an offset inside a port range, in bytes.
using PioOffset = std::uint16_t;
/// A distance in guest physical memory, or an offset inside an MMIO range, in bytes.
using MmioOffset = std::uint64_t;

/// A port of the x86 I/O space, 0..0xFFFF.
struct PioAddress {
    std::uint16_t value;  ///< the port, 0 to 0xFFFF

    friend constexpr auto operator<=>(const PioAddress&, const PioAddress&) = default;
};

/// A guest physical address, 0..2^64-1.
struct MmioAddress {
    std::uint64_t value;  ///< the guest physical address in bytes

    friend constexpr auto operator<=>(const MmioAddress&, const MmioAddress&) = default;
};

/// Any address space: a type that holds one unsigned integer named `value` and is constructed from it.
/// Nothing else is required, so that a user can define another space in one line.
template <class A>
concept BusAddress = std::copyable<A> && std::unsigned_integral<std::remove_cvref_t<decltype(A::value)>> &&
                     !std::same_as<std::remove_cvref_t<decltype(A::value)>, bool> &&
                     requires(std::remove_cvref_t<decltype(A::value)> value) { A{value}; };

/// The integer type of an address space; also the type of sizes and offsets in it.
template <BusAddress A>
using OffsetOf = std::remove_cvref_t<decltype(A::value)>;

/// The address `offset` bytes above `address`, or nothing if it would exceed the address space.
template <BusAddress A>
[[nodiscard]] constexpr std::optional<A> checked_add(A address, OffsetOf<A> offset) noexcept {
    if (offset > std::numeric_limits<OffsetOf<A>>::max() - address.value) {
        return std::nullopt;
    }
    return A{static_cast<OffsetOf<A>>(address.value + offset)};
}

}  // namespace vmdevice::inline v0_2

// vmdevice/alloc_error.hpp

/// The errors of allocating addresses and numbers, and the policies for choosing them.

namespace vmdevice::inline v0_2 {

/// Why a resource cannot be allocated or freed.
enum class AllocError : std::uint8_t {
    /// No free part of the permitted range is large enough.
    exhausted,
    /// The requested address or number is taken.
    taken,
    /// The requested address or number is not managed here, or no such space was configured.
    out_of_range,
    /// The requested size is 0.
    invalid_size,
    /// The alignment is not a power of two, or the requested address does not have it.
    invalid_alignment,
    /// The range or number to be freed was not allocated exactly like that.
    not_allocated,
};

/// The text of the error, for a message.
[[nodiscard]] constexpr std::string_view to_string(AllocError error) noexcept {
    switch (error) {
        case AllocError::exhausted:
            return "no free range is large enough";
        case AllocError::taken:
            return "already allocated";
        case AllocError::out_of_range:
            return "outside the managed range";
        case AllocError::invalid_size:
            return "a size of 0";
        case AllocError::invalid_alignment:
            return "the alignment is not a power of two, or the address does not have it";
        case AllocError::not_allocated:
            return "not allocated";
    }
    return "unknown allocation error";
}

/// Which position is chosen for a range: the lowest possible one, the highest, or exactly one.
enum class AllocPolicy : std::uint8_t { first_match, last_match, exact_match };

}  // namespace vmdevice::inline v0_2

// vmdevice/error.hpp

/// The errors of a bus.

namespace vmdevice::inline v0_2 {

/// Why a bus refused an operation.
enum class BusError : std::uint8_t {
    /// No device claims the address, or the access extends past the end of the device's range, or the pointer
    /// to the device is empty.
    device_not_found,
    /// The range, or a part of it, already belongs to a device.
    device_overlap,
    /// A repeated access whose buffer is not a whole number of items, or whose item is not 1, 2, 4 or 8
    /// bytes.
    invalid_access_length,
    /// A range or an access of no bytes, or a range that wraps around the end of the address space.
    invalid_range,
};

/// The text of the error, for a message.
[[nodiscard]] constexpr std::string_view to_string(BusError error) noexcept {
    switch (error) {
        case BusError::device_not_found:
            return "no device at this address";
        case BusError::device_overlap:
            return "the range overlaps that of another device";
        case BusError::invalid_access_length:
            return "invalid access length";
        case BusError::invalid_range:
            return "the range is empty or wraps around the address space";
    }
    return "unknown bus error";
}

}  // namespace vmdevice::inline v0_2

// vmdevice/range.hpp

/// Ranges of addresses that cannot be empty and cannot wrap.

namespace vmdevice::inline v0_2 {

/// The addresses base()..last(), both included, so that the last address of the space is usable.
///
/// A range covers at least one address and at most all but one of the space: the size of a whole space (2^16
/// ports, 2^64 bytes) does not fit its offset type. To cover a whole space, use two ranges.
template <BusAddress A>
class BusRange {
public:
    using address_type = A;
    using offset_type = OffsetOf<A>;

    /// `size` addresses from `base` on. Returns `invalid_range` if size is 0 or the range would wrap.
    [[nodiscard]] static constexpr std::expected<BusRange, BusError> create(A base,
                                                                            offset_type size) noexcept {
        if (size == 0 || static_cast<offset_type>(size - 1) > maximum - base.value) {
            return std::unexpected(BusError::invalid_range);
        }
        return BusRange(base.value, static_cast<offset_type>(base.value + (size - 1)));
    }

    /// The addresses `first`..`last`, both included. Returns `invalid_range` if they are out of order or
    /// cover the whole space.
    [[nodiscard]] static constexpr std::expected<BusRange, BusError> from_bounds(A first, A last) noexcept {
        if (first.value > last.value || (first.value == 0 && last.value == maximum)) {
            return std::unexpected(BusError::invalid_range);
        }
        return BusRange(first.value, last.value);
    }

    /// The one address `base`.
    [[nodiscard]] static constexpr BusRange unit(A base) noexcept { return BusRange(base.value, base.value); }

    /// The first address.
    [[nodiscard]] constexpr A base() const noexcept { return A{base_}; }
    /// The last address, which belongs to the range.
    [[nodiscard]] constexpr A last() const noexcept { return A{last_}; }
    /// How many addresses the range covers, at least 1.
    [[nodiscard]] constexpr offset_type size() const noexcept {
        return static_cast<offset_type>(last_ - base_ + 1);
    }

    /// Whether the address lies in the range.
    [[nodiscard]] constexpr bool contains(A address) const noexcept {
        return address.value >= base_ && address.value <= last_;
    }
    /// Whether all of the other range lies in this one.
    [[nodiscard]] constexpr bool contains(const BusRange& other) const noexcept {
        return other.base_ >= base_ && other.last_ <= last_;
    }
    /// Whether all `length` bytes from `address` on lie in this range; false for an access of no bytes.
    [[nodiscard]] constexpr bool contains_access(A address, std::size_t length) const noexcept {
        return length != 0 && contains(address) &&
               static_cast<std::uint64_t>(length - 1) <= static_cast<std::uint64_t>(last_ - address.value);
    }
    /// Whether the two ranges have an address in common.
    [[nodiscard]] constexpr bool overlaps(const BusRange& other) const noexcept {
        return base_ <= other.last_ && other.base_ <= last_;
    }
    /// The addresses that both ranges cover, or nothing if they share none.
    [[nodiscard]] constexpr std::optional<BusRange> intersection(const BusRange& other) const noexcept {
        if (!overlaps(other)) {
            return std::nullopt;
        }
        return BusRange(base_ < other.base_ ? other.base_ : base_, last_ < other.last_ ? last_ : other.last_);
    }
    /// The addresses below `first_of_upper`, and the others. Returns `invalid_range` if one of the two would
    /// be empty, that is if `first_of_upper` is not inside the range or is its base.
    [[nodiscard]] constexpr std::expected<std::pair<BusRange, BusRange>, BusError> split_at(
        A first_of_upper) const noexcept {
        if (!contains(first_of_upper) || first_of_upper.value == base_) {
            return std::unexpected(BusError::invalid_range);
        }
        return std::pair(BusRange(base_, static_cast<offset_type>(first_of_upper.value - 1)),
                         BusRange(first_of_upper.value, last_));
    }
    /// The distance of an address of this range from its base.
    [[nodiscard]] constexpr offset_type offset_of(A address) const noexcept {
        return static_cast<offset_type>(address.value - base_);
    }

    friend constexpr bool operator==(const BusRange&, const BusRange&) = default;
    /// Orders by base, and by last address if the bases are equal.
    friend constexpr auto operator<=>(const BusRange&, const BusRange&) = default;

private:
    static constexpr offset_type maximum = std::numeric_limits<offset_type>::max();

    constexpr BusRange(offset_type base, offset_type last) noexcept : base_(base), last_(last) {}

    offset_type base_;
    offset_type last_;
};

/// A range of ports.
using PioRange = BusRange<PioAddress>;
/// A range of guest physical memory.
using MmioRange = BusRange<MmioAddress>;

namespace detail {

// Deliberately not constexpr: a constant range that reaches it does not compile, and the message names it.
inline void the_range_is_empty_or_runs_past_the_last_address() {}

template <class A>
consteval BusRange<A> constant_range(A base, OffsetOf<A> size) {
    const auto range = BusRange<A>::create(base, size);
    if (!range) {
        the_range_is_empty_or_runs_past_the_last_address();
    }
    return *range;
}

}  // namespace detail

/// A range of ports known at compile time: `pio_range(0x3F8, 8)`. An invalid range does not compile.
[[nodiscard]] consteval PioRange pio_range(std::uint16_t base, std::uint16_t size) {
    return detail::constant_range(PioAddress{base}, size);
}
/// A range of guest physical memory known at compile time. An invalid range does not compile.
[[nodiscard]] consteval MmioRange mmio_range(std::uint64_t base, std::uint64_t size) {
    return detail::constant_range(MmioAddress{base}, size);
}

}  // namespace vmdevice::inline v0_2

// vmdevice/resources.hpp

/// The resources that a device requests (ResourceConstraint) and is assigned (Resource, DeviceResources).

namespace vmdevice::inline v0_2 {

/// How a device's message-signalled interrupts are delivered.
enum class MsiIrqType : std::uint8_t {
    /// PCI MSI: one message address, `count` consecutive vectors.
    pci_msi,
    /// PCI MSI-X: a table in the device.
    pci_msix,
    /// Not on PCI, for example a platform device on a GIC ITS.
    generic,
};

/// The six bytes of an Ethernet address in the order of transmission.
using MacAddress = std::array<std::uint8_t, 6>;

/// Ports.
struct PioResource {
    PioRange range;  ///< the ports
    friend bool operator==(const PioResource&, const PioResource&) = default;
};
/// Guest physical memory.
struct MmioResource {
    MmioRange range;  ///< the memory
    friend bool operator==(const MmioResource&, const MmioResource&) = default;
};
/// Whether other devices may have the same interrupt line. A line is shared only if every device on it
/// requested the same kind of sharing.
enum class IrqSharing : std::uint8_t {
    /// The device has the line alone.
    exclusive,
    /// An edge-triggered line, as on the ISA bus, that the guest's drivers share by polling all devices on
    /// it: COM1 and COM3 on IRQ 4.
    edge,
    /// A level-triggered line, such as PCI INTx, that is asserted while any device on it asserts it.
    level,
};

/// A line of the interrupt controller (its global number, GSI).
struct LegacyIrqResource {
    std::uint32_t irq;                           ///< the number of the line: on a PC the GSI
    IrqSharing sharing = IrqSharing::exclusive;  ///< whether others may have it too
    friend bool operator==(const LegacyIrqResource&, const LegacyIrqResource&) = default;
};
/// `count` consecutive message-signalled interrupts from `base` on.
struct MsiIrqResource {
    MsiIrqType type;      ///< the kind of the messages
    std::uint32_t base;   ///< the first number
    std::uint32_t count;  ///< how many follow one another
    friend bool operator==(const MsiIrqResource&, const MsiIrqResource&) = default;
};
/// An Ethernet address that a device is assigned.
struct MacAddressResource {
    MacAddress address;  ///< the address
    friend bool operator==(const MacAddressResource&, const MacAddressResource&) = default;
};
/// A memory slot of the hypervisor (the `slot` of KVM_SET_USER_MEMORY_REGION).
struct KvmMemSlotResource {
    std::uint32_t slot;  ///< the number of the slot in KVM_SET_USER_MEMORY_REGION
    friend bool operator==(const KvmMemSlotResource&, const KvmMemSlotResource&) = default;
};

/// One resource of a device.
using Resource = std::variant<PioResource, MmioResource, LegacyIrqResource, MsiIrqResource,
                              MacAddressResource, KvmMemSlotResource>;

/// `size` ports, at `base` or, without one, anywhere inside `within` at a multiple of `align` (a power of 2).
struct PioConstraint {
    PioOffset size;                                 ///< how many ports, at least 1
    std::optional<PioAddress> base = std::nullopt;  ///< the first port, if it must be this one
    PioOffset align = 1;
    std::optional<PioRange> within = std::nullopt;

    /// Exactly `range`.
    [[nodiscard]] static constexpr PioConstraint at(PioRange range) noexcept {
        return {.size = range.size(), .base = range.base()};
    }
};
/// `size` bytes of memory space, with the same rules. A device whose driver maps whole pages needs an `align`
/// of 4096.
struct MmioConstraint {
    MmioOffset size;                                 ///< how many bytes, at least 1
    std::optional<MmioAddress> base = std::nullopt;  ///< the first address, if it must be this one
    MmioOffset align = 4096;
    std::optional<MmioRange> within = std::nullopt;

    /// Exactly `range`.
    [[nodiscard]] static constexpr MmioConstraint at(MmioRange range) noexcept {
        return {.size = range.size(), .base = range.base()};
    }
};
/// `count` interrupt lines: from `irq` on or, without one, the lowest that are free, which need not be
/// adjacent. If none is free, a device that permits sharing gets the line that the fewest devices share in
/// the same way.
struct LegacyIrqConstraint {
    std::optional<std::uint32_t> irq = std::nullopt;  ///< the line, if it must be this one
    IrqSharing sharing = IrqSharing::exclusive;       ///< whether the device shares its line
    std::uint32_t count = 1;                          ///< how many lines, at least 1
};
/// `count` consecutive message-signalled interrupts, from `base` on or any.
struct MsiIrqConstraint {
    MsiIrqType type;                                   ///< the kind of the messages
    std::uint32_t count = 1;                           ///< how many adjacent messages, at least 1
    std::optional<std::uint32_t> base = std::nullopt;  ///< the first number, if it must be this one
};
/// A MAC address, `address` or any.
struct MacAddressConstraint {
    std::optional<MacAddress> address = std::nullopt;  ///< the address, if it must be this one
};
/// `count` memory slots, from `slot` on or any.
struct KvmMemSlotConstraint {
    std::uint32_t count = 1;                           ///< how many slots, at least 1
    std::optional<std::uint32_t> slot = std::nullopt;  ///< the first slot, if it must be this one
};

/// One resource that a device requests.
using ResourceConstraint = std::variant<PioConstraint, MmioConstraint, LegacyIrqConstraint, MsiIrqConstraint,
                                        MacAddressConstraint, KvmMemSlotConstraint>;

/// The members of DeviceResources. A template so that they are compiled only where they are used.
template <class AnyResource = Resource>
class BasicDeviceResources {
public:
    /// Consecutive interrupts: the number of the first, and how many.
    struct IrqRange {
        std::uint32_t base;   ///< the first number
        std::uint32_t count;  ///< how many follow one another
        friend bool operator==(const IrqRange&, const IrqRange&) = default;
    };

    BasicDeviceResources() = default;
    /// The resources in the order given.
    BasicDeviceResources(std::initializer_list<AnyResource> resources) : resources_(resources) {}

    /// Adds a resource at the end.
    void append(AnyResource resource) { resources_.push_back(resource); }
    /// Makes room for `count` resources in all, so that appending them cannot run out of memory.
    void reserve(std::size_t count) { resources_.reserve(count); }
    /// Replaces the first resource that equals `before` by `now`. Returns false if there is none.
    bool replace(const AnyResource& before, const AnyResource& now) noexcept {
        for (AnyResource& resource : resources_) {
            if (resource == before) {
                resource = now;
                return true;
            }
        }
        return false;
    }

    /// All ranges of ports, in the order of the constraints.
    [[nodiscard]] std::vector<PioRange> get_pio_address_ranges() const {
        return collect<PioResource>([](const PioResource& found) { return found.range; });
    }
    /// All ranges of memory, in the order of the constraints.
    [[nodiscard]] std::vector<MmioRange> get_mmio_address_ranges() const {
        return collect<MmioResource>([](const MmioResource& found) { return found.range; });
    }
    /// The first interrupt line.
    [[nodiscard]] std::optional<std::uint32_t> get_legacy_irq() const {
        return first<LegacyIrqResource>([](const LegacyIrqResource& found) { return found.irq; });
    }
    /// All interrupt lines, in the order of the constraints.
    [[nodiscard]] std::vector<std::uint32_t> get_legacy_irqs() const {
        return collect<LegacyIrqResource>([](const LegacyIrqResource& found) { return found.irq; });
    }
    /// The PCI MSI vectors.
    [[nodiscard]] std::optional<IrqRange> get_pci_msi_irqs() const { return msi(MsiIrqType::pci_msi); }
    /// The PCI MSI-X vectors.
    [[nodiscard]] std::optional<IrqRange> get_pci_msix_irqs() const { return msi(MsiIrqType::pci_msix); }
    /// The message-signalled interrupts that are not PCI's.
    [[nodiscard]] std::optional<IrqRange> get_generic_msi_irqs() const { return msi(MsiIrqType::generic); }
    /// The Ethernet address, if there is one.
    [[nodiscard]] std::optional<MacAddress> get_mac_address() const {
        return first<MacAddressResource>([](const MacAddressResource& found) { return found.address; });
    }
    /// All memory slots, in the order of the constraints.
    [[nodiscard]] std::vector<std::uint32_t> get_kvm_mem_slots() const {
        return collect<KvmMemSlotResource>([](const KvmMemSlotResource& found) { return found.slot; });
    }
    /// Everything, in the order of the constraints.
    [[nodiscard]] std::span<const AnyResource> get_all_resources() const { return resources_; }

    /// How many resources there are.
    [[nodiscard]] std::size_t size() const noexcept { return resources_.size(); }
    [[nodiscard]] bool empty() const noexcept { return resources_.empty(); }
    [[nodiscard]] auto begin() const noexcept { return resources_.begin(); }
    [[nodiscard]] auto end() const noexcept { return resources_.end(); }

    friend bool operator==(const BasicDeviceResources&, const BasicDeviceResources&) = default;

private:
    template <class Kind, class F>
    [[nodiscard]] auto collect(F value_of) const
        -> std::vector<decltype(value_of(std::declval<const Kind&>()))> {
        std::vector<decltype(value_of(std::declval<const Kind&>()))> values;
        for (const AnyResource& resource : resources_) {
            if (const auto* const found = std::get_if<Kind>(&resource)) {
                values.push_back(value_of(*found));
            }
        }
        return values;
    }
    template <class Kind, class F>
    [[nodiscard]] auto first(F value_of) const
        -> std::optional<decltype(value_of(std::declval<const Kind&>()))> {
        for (const AnyResource& resource : resources_) {
            if (const auto* const found = std::get_if<Kind>(&resource)) {
                return value_of(*found);
            }
        }
        return std::nullopt;
    }
    [[nodiscard]] std::optional<IrqRange> msi(MsiIrqType type) const {
        for (const AnyResource& resource : resources_) {
            if (const auto* const found = std::get_if<MsiIrqResource>(&resource);
                found != nullptr && found->type == type) {
                return IrqRange{found->base, found->count};
            }
        }
        return std::nullopt;
    }

    std::vector<AnyResource> resources_;
};

/// All resources of one device, in the order in which they were assigned.
///
/// Thread safety: that of a std::vector.
class DeviceResources : public BasicDeviceResources<> {
public:
    using BasicDeviceResources::BasicDeviceResources;
};

}  // namespace vmdevice::inline v0_2

// vmdevice/allocator_state.hpp

/// The configuration and the saved state of a SystemAllocator, as plain data and as bytes.

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

// vmdevice/detail/range_pool.hpp

/// The allocator behind RangeAllocator. It manages spaces of every width as ranges of 64-bit numbers.

namespace vmdevice::inline v0_2::detail {

/// The numbers first..last, both included.
struct Span {
    std::uint64_t first;
    std::uint64_t last;
};

/// Two sorted lists of disjoint spans, the allocated and the free ones; adjacent free spans are merged.
/// Operations that need memory allocate it before they change anything, and freeing never needs any: there is
/// always room for one more free span than there are allocated ones, which is the largest possible number.
///
/// A template so that it is compiled only where it is used.
template <class Part = Span>
class RangePool {
public:
    explicit RangePool(Part space) : space_(space) { free_.push_back(space); }
    RangePool(const RangePool& other) : space_(other.space_) {
        used_.reserve(other.used_.capacity());
        free_.reserve(other.free_.capacity());
        used_ = other.used_;
        free_ = other.free_;
    }
    RangePool(RangePool&&) noexcept = default;
    RangePool& operator=(const RangePool& other) {
        RangePool copy(other);
        *this = static_cast<RangePool&&>(copy);
        return *this;
    }
    RangePool& operator=(RangePool&&) noexcept = default;
    ~RangePool() = default;

    [[nodiscard]] Part space() const noexcept { return space_; }
    [[nodiscard]] std::span<const Part> used() const noexcept { return used_; }

    /// Returns the span that a request would get now. `within` and `at` are as for RangeAllocator::allocate.
    [[nodiscard]] std::expected<Part, AllocError> place(std::uint64_t size, std::uint64_t align,
                                                        AllocPolicy policy, std::optional<Part> within,
                                                        std::optional<std::uint64_t> at) const {
        if (size == 0) {
            return std::unexpected(AllocError::invalid_size);
        }
        if (!std::has_single_bit(align)) {
            return std::unexpected(AllocError::invalid_alignment);
        }
        if (policy == AllocPolicy::exact_match) {
            return place_at(size, align, within, at);
        }
        const Part bounds = within.value_or(space_);
        for (std::size_t i = 0; i < free_.size(); ++i) {
            const Part& part = policy == AllocPolicy::first_match ? free_[i] : free_[free_.size() - 1 - i];
            const Part usable{part.first < bounds.first ? bounds.first : part.first,
                              part.last < bounds.last ? part.last : bounds.last};
            if (const auto base = fit(usable, size, align, policy)) {
                return Part{*base, *base + (size - 1)};
            }
        }
        return std::unexpected(AllocError::exhausted);
    }

    /// Allocates room for `count` calls of take().
    void reserve(std::size_t count) {
        grow(used_, used_.size() + count);
        grow(free_, used_.size() + count + 1);
    }
    /// Allocates `wanted`, which must lie in one free span. reserve() must have been called.
    void take(Part wanted) noexcept {
        const std::size_t index = not_above(free_, wanted.first) - 1;
        const Part part = free_[index];
        if (part.first == wanted.first && part.last == wanted.last) {
            free_.erase(at(free_, index));
        } else if (part.first == wanted.first) {
            free_[index].first = wanted.last + 1;
        } else {
            free_[index].last = wanted.first - 1;
            if (wanted.last < part.last) {
                free_.insert(at(free_, index + 1), Part{wanted.last + 1, part.last});
            }
        }
        used_.insert(at(used_, not_above(used_, wanted.first)), wanted);
    }

    /// Frees a span; returns false if it was not allocated exactly like that.
    bool give_back(Part span) noexcept {
        const std::size_t used = not_above(used_, span.first);
        if (used == 0 || used_[used - 1].first != span.first || used_[used - 1].last != span.last) {
            return false;
        }
        used_.erase(at(used_, used - 1));
        const std::size_t next = not_above(free_, span.first);
        const bool joins_next = next < free_.size() && free_[next].first - 1 == span.last;
        const bool joins_previous = next > 0 && free_[next - 1].last + 1 == span.first;
        if (joins_previous && joins_next) {
            free_[next - 1].last = free_[next].last;
            free_.erase(at(free_, next));
        } else if (joins_previous) {
            free_[next - 1].last = span.last;
        } else if (joins_next) {
            free_[next].first = span.first;
        } else {
            free_.insert(at(free_, next), span);
        }
        return true;
    }

    [[nodiscard]] bool is_free(Part span) const noexcept {
        const std::size_t index = not_above(free_, span.first);
        return index != 0 && free_[index - 1].last >= span.last;
    }
    /// The allocated span that contains `number`.
    [[nodiscard]] std::optional<Part> holder(std::uint64_t number) const noexcept {
        const std::size_t index = not_above(used_, number);
        if (index == 0 || used_[index - 1].last < number) {
            return std::nullopt;
        }
        return used_[index - 1];
    }
    /// The lowest free part inside `bounds`.
    [[nodiscard]] std::optional<Part> first_free_in(Part bounds) const noexcept {
        const std::size_t index = not_above(free_, bounds.first);
        for (std::size_t i = index == 0 ? 0 : index - 1; i < free_.size() && free_[i].first <= bounds.last;
             ++i) {
            if (free_[i].last >= bounds.first) {
                return Part{free_[i].first < bounds.first ? bounds.first : free_[i].first,
                            free_[i].last < bounds.last ? free_[i].last : bounds.last};
            }
        }
        return std::nullopt;
    }

private:
    using Spans = std::vector<Part>;

    static auto at(Spans& spans, std::size_t index) noexcept {
        return spans.begin() + static_cast<std::ptrdiff_t>(index);
    }
    /// How many of the spans begin at `number` or below.
    [[nodiscard]] static std::size_t not_above(const Spans& spans, std::uint64_t number) noexcept {
        std::size_t low = 0;
        std::size_t high = spans.size();
        while (low < high) {
            const std::size_t middle = low + (high - low) / 2;
            if (spans[middle].first <= number) {
                low = middle + 1;
            } else {
                high = middle;
            }
        }
        return low;
    }
    static void grow(Spans& spans, std::size_t size) {
        if (size > spans.capacity()) {
            const std::size_t doubled = 2 * spans.capacity();
            spans.reserve(size < doubled ? doubled : size);
        }
    }

    [[nodiscard]] std::expected<Part, AllocError> place_at(std::uint64_t size, std::uint64_t align,
                                                           std::optional<Part> within,
                                                           std::optional<std::uint64_t> base) const {
        const auto holds = [&](const Part& bounds) {
            return *base >= bounds.first && *base <= bounds.last && size - 1 <= bounds.last - *base;
        };
        if (!base || !holds(space_) || (within && !holds(*within))) {
            return std::unexpected(AllocError::out_of_range);
        }
        if ((*base & (align - 1)) != 0) {
            return std::unexpected(AllocError::invalid_alignment);
        }
        const Part span{*base, *base + (size - 1)};
        if (!is_free(span)) {
            return std::unexpected(AllocError::taken);
        }
        return span;
    }

    /// The position of a request in a free part, if it fits.
    static std::optional<std::uint64_t> fit(Part part, std::uint64_t size, std::uint64_t align,
                                            AllocPolicy policy) noexcept {
        if (part.first > part.last || size - 1 > part.last - part.first) {
            return std::nullopt;
        }
        const std::uint64_t mask = align - 1;
        if (policy == AllocPolicy::last_match) {
            const std::uint64_t base = (part.last - (size - 1)) & ~mask;
            return base >= part.first ? std::optional(base) : std::nullopt;
        }
        if ((part.first & mask) != 0 && mask > std::numeric_limits<std::uint64_t>::max() - part.first) {
            return std::nullopt;  // rounding up would wrap
        }
        const std::uint64_t base = (part.first + mask) & ~mask;
        if (base > part.last || size - 1 > part.last - base) {
            return std::nullopt;
        }
        return base;
    }

    Part space_;
    Spans used_;
    Spans free_;
};

}  // namespace vmdevice::inline v0_2::detail

// vmdevice/range_allocator.hpp

/// Allocates ranges of an address space, or of any other space of numbers.

namespace vmdevice::inline v0_2 {

/// Allocates ranges of one space: addresses, or numbers such as interrupts. Allocated ranges never overlap.
/// If a function returns an error or memory runs out (std::bad_alloc), nothing has changed. Freeing needs no
/// memory.
///
/// Thread safety: none.
template <BusAddress A>
class RangeAllocator {
public:
    using offset_type = OffsetOf<A>;
    using range_type = BusRange<A>;

    /// An allocator of the addresses of `space`, none of which is allocated.
    explicit RangeAllocator(range_type space) : pool_(span_of(space)) {}

    /// Allocates a range of `size` at a multiple of `align`, inside `within` if that is given. `at` is the
    /// address for exact_match and ignored otherwise.
    [[nodiscard]] std::expected<range_type, AllocError> allocate(
        offset_type size, offset_type align = 1, AllocPolicy policy = AllocPolicy::first_match,
        std::optional<range_type> within = std::nullopt, std::optional<A> at = std::nullopt) {
        const auto found = place(size, align, policy, within, at);
        if (found) {
            pool_.reserve(1);
            pool_.take(span_of(*found));
        }
        return found;
    }
    /// Allocates exactly the range of `size` at `address`.
    [[nodiscard]] std::expected<range_type, AllocError> allocate_exact(A address, offset_type size) {
        return allocate(size, 1, AllocPolicy::exact_match, std::nullopt, address);
    }
    /// Allocates `count` adjacent addresses (from `at` on, or the lowest that are free) individually: each is
    /// freed on its own. Returns them all as one range.
    [[nodiscard]] std::expected<range_type, AllocError> allocate_units(offset_type count,
                                                                       std::optional<A> at = std::nullopt) {
        const auto found = place(count, 1, at ? AllocPolicy::exact_match : AllocPolicy::first_match, {}, at);
        if (found) {
            pool_.reserve(static_cast<std::size_t>(count));
            for (offset_type i = 0; i < count; ++i) {
                const std::uint64_t unit = std::uint64_t{found->base().value} + i;
                pool_.take({unit, unit});
            }
        }
        return found;
    }

    /// Frees a range, which must have been allocated exactly like that.
    [[nodiscard]] std::expected<void, AllocError> free(range_type range) noexcept {
        if (!pool_.give_back(span_of(range))) {
            return std::unexpected(AllocError::not_allocated);
        }
        return {};
    }

    /// A move in progress: both the old range and the new one are allocated until finish_move() or
    /// cancel_move().
    class Move {
    public:
        /// The range that the device has.
        [[nodiscard]] range_type from() const noexcept { return from_; }
        /// The range that it is to have.
        [[nodiscard]] range_type to() const noexcept { return to_; }

    private:
        friend RangeAllocator;
        Move(range_type from, range_type to) noexcept : from_(from), to_(to) {}
        range_type from_;
        range_type to_;
        // The parts of the new range below and above the old one.
        std::optional<range_type> below_;
        std::optional<range_type> above_;
    };
    /// Allocates `to` in addition to `from`, which must be allocated exactly like that and which `to` may
    /// overlap. Returns `taken` if another allocation contains a part of `to`, and `out_of_range` if `to`
    /// extends past the space.
    [[nodiscard]] std::expected<Move, AllocError> begin_move(range_type from, range_type to) {
        if (!is_allocated(from)) {
            return std::unexpected(AllocError::not_allocated);
        }
        if (!space().contains(to)) {
            return std::unexpected(AllocError::out_of_range);
        }
        Move move(from, to);
        if (!from.overlaps(to)) {
            move.below_ = to;
        } else {
            if (to.base().value < from.base().value) {
                move.below_ = to.split_at(from.base())->first;
            }
            if (to.last().value > from.last().value) {
                move.above_ = to.split_at(A{static_cast<offset_type>(from.last().value + 1)})->second;
            }
        }
        if ((move.below_ && !is_free(*move.below_)) || (move.above_ && !is_free(*move.above_))) {
            return std::unexpected(AllocError::taken);
        }
        // One more than the two parts: finish_move() allocates the whole range after it has freed them.
        pool_.reserve(3);
        for (const auto& part : {move.below_, move.above_}) {
            if (part) {
                pool_.take(span_of(*part));
            }
        }
        return move;
    }
    /// Frees the old range.
    void finish_move(const Move& move) noexcept {
        cancel_move(move);
        pool_.give_back(span_of(move.from_));
        pool_.take(span_of(move.to_));
    }
    /// Frees the new range; only the old one is allocated, as before.
    void cancel_move(const Move& move) noexcept {
        for (const auto& part : {move.below_, move.above_}) {
            if (part) {
                pool_.give_back(span_of(*part));
            }
        }
    }

    /// All addresses, allocated or not.
    [[nodiscard]] range_type space() const noexcept { return range_of(pool_.space()); }
    /// How many ranges are allocated.
    [[nodiscard]] std::size_t allocated() const noexcept { return pool_.used().size(); }
    /// All allocated ranges, in ascending order.
    [[nodiscard]] std::vector<range_type> allocations() const {
        std::vector<range_type> all;
        all.reserve(pool_.used().size());
        for (const detail::Span& span : pool_.used()) {
            all.push_back(range_of(span));
        }
        return all;
    }
    /// The allocated range that contains `address`.
    [[nodiscard]] std::optional<range_type> allocation_at(A address) const noexcept {
        const auto found = pool_.holder(address.value);
        return found ? std::optional(range_of(*found)) : std::nullopt;
    }
    /// Whether `range` is allocated with exactly these bounds.
    [[nodiscard]] bool is_allocated(range_type range) const noexcept {
        return allocation_at(range.base()) == range;
    }
    /// Whether all of `range` is free.
    [[nodiscard]] bool is_free(range_type range) const noexcept { return pool_.is_free(span_of(range)); }
    /// The lowest free part inside `bounds`.
    [[nodiscard]] std::optional<range_type> first_free_in(range_type bounds) const noexcept {
        const auto found = pool_.first_free_in(span_of(bounds));
        return found ? std::optional(range_of(*found)) : std::nullopt;
    }

private:
    static detail::Span span_of(range_type range) noexcept {
        return {range.base().value, range.last().value};
    }
    static range_type range_of(detail::Span span) noexcept {
        const A first{static_cast<offset_type>(span.first)};
        return *range_type::create(first, static_cast<offset_type>(span.last - span.first + 1));
    }
    [[nodiscard]] std::expected<range_type, AllocError> place(offset_type size, offset_type align,
                                                              AllocPolicy policy,
                                                              std::optional<range_type> within,
                                                              std::optional<A> at) const {
        const auto found =
            pool_.place(size, align, policy, within ? std::optional(span_of(*within)) : std::nullopt,
                        at ? std::optional<std::uint64_t>(at->value) : std::nullopt);
        if (!found) {
            return std::unexpected(found.error());
        }
        return range_of(*found);
    }

    detail::RangePool<> pool_;
};

}  // namespace vmdevice::inline v0_2

// vmdevice/allocator.hpp

/// Assigns ports, memory, interrupts and numbers to devices.

namespace vmdevice::inline v0_2 {

/// Which of several requests was refused, and why. It converts to the reason, so that it can be compared with
/// an AllocError.
struct AllocFailure {
    AllocError reason;  ///< why the allocation failed
    /// The index of the refused constraint.
    std::size_t index;
    // NOLINTNEXTLINE(google-explicit-constructor): a failure can be compared with a reason
    /// The reason alone, for comparisons.
    constexpr operator AllocError() const noexcept { return reason; }
};

/// The members of SystemAllocator. A template so that they are compiled only where they are used.
template <class AnyResources = DeviceResources, class Error = AllocError>
class BasicSystemAllocator {
public:
    /// The resources that an allocation returns.
    using Resources = AnyResources;

    /// An allocator of the ranges that `config` lists; a member that is absent there has nothing to
    /// allocate.
    explicit BasicSystemAllocator(const SystemAllocatorConfig& config)
        : pio_(make<PioAddress>(config.pio)),
          mmio_(make<MmioAddress>(config.mmio)),
          irq_(make<Number>(config.irq)),
          msi_(make<Number>(config.msi)),
          kvm_mem_slots_(make<Number>(config.kvm_mem_slots)),
          instance_ids_(instance_space(config.first_instance_id)),
          mac_numbers_(NumberRange::from_bounds(Number{0}, Number{0xFF'FFFF}).value()),
          config_(config) {}

    /// Allocates `size` ports, at `base` if that is given. Returns `resource_exhausted` or what is wrong
    /// with the request.
    [[nodiscard]] std::expected<PioRange, Error> allocate_pio(PioOffset size, PioOffset align = 1,
                                                              AllocPolicy policy = AllocPolicy::first_match,
                                                              std::optional<PioAddress> at = std::nullopt) {
        return from<PioAddress>(pio_, size, align, policy, std::nullopt, at);
    }
    /// Allocates `size` bytes of guest physical memory, at `base` if that is given. Errors as for
    /// allocate_pio.
    [[nodiscard]] std::expected<MmioRange, Error> allocate_mmio(
        MmioOffset size, MmioOffset align = 4096, AllocPolicy policy = AllocPolicy::first_match,
        std::optional<MmioAddress> at = std::nullopt) {
        return from<MmioAddress>(mmio_, size, align, policy, std::nullopt, at);
    }
    /// The lowest free interrupt line, or exactly `irq`. With `sharing`, a line that others share in the same
    /// way may be used if `irq` names it, or if no line is free.
    [[nodiscard]] std::expected<std::uint32_t, Error> allocate_irq(
        std::optional<std::uint32_t> irq = std::nullopt, IrqSharing sharing = IrqSharing::exclusive) {
        return one_irq(irq, sharing, {});
    }
    /// All of `count` different interrupt lines or none: those from `first` on, or the lowest free ones,
    /// which need not be adjacent.
    [[nodiscard]] std::expected<std::vector<std::uint32_t>, Error> allocate_irqs(
        std::uint32_t count, std::optional<std::uint32_t> first = std::nullopt,
        IrqSharing sharing = IrqSharing::exclusive) {
        if (const auto possible = check_irq_count(count, first); !possible) {
            return std::unexpected(possible.error());
        }
        HeldIrqs held(*this, count);
        for (std::uint32_t i = 0; i < count; ++i) {
            const auto irq = one_irq(first ? std::optional(*first + i) : std::nullopt, sharing, held.irqs);
            if (!irq) {
                return std::unexpected(irq.error());
            }
            held.irqs.push_back(*irq);
        }
        return std::exchange(held.irqs, {});
    }
    /// The first of `count` consecutive message-signalled interrupts, which is `base` if that is given.
    [[nodiscard]] std::expected<std::uint32_t, Error> allocate_msi(
        std::uint32_t count, std::optional<std::uint32_t> base = std::nullopt) {
        return number_from(msi_, count, base);
    }
    /// The lowest free memory slot, or exactly `slot`.
    [[nodiscard]] std::expected<std::uint32_t, Error> allocate_kvm_mem_slot(
        std::optional<std::uint32_t> slot = std::nullopt) {
        return number_from(kvm_mem_slots_, 1, slot);
    }
    /// The lowest free instance id.
    [[nodiscard]] std::expected<std::uint32_t, Error> allocate_instance_id() {
        const auto id = instance_ids_.allocate(1);
        return id ? std::expected<std::uint32_t, Error>(id->base().value) : std::unexpected(id.error());
    }

    /// Returns ports to the allocator. Only a whole allocated range can be freed.
    [[nodiscard]] std::expected<void, Error> free_pio(PioRange range) noexcept {
        return give_back(pio_, range);
    }
    /// Returns memory to the allocator. Only a whole allocated range can be freed.
    [[nodiscard]] std::expected<void, Error> free_mmio(MmioRange range) noexcept {
        return give_back(mmio_, range);
    }
    /// A shared line is free after all of its holders have freed it.
    [[nodiscard]] std::expected<void, Error> free_irq(std::uint32_t irq) noexcept {
        for (std::size_t i = 0; i < shared_irqs_.size(); ++i) {
            if (shared_irqs_[i].irq != irq) {
                continue;
            }
            --shared_irqs_[i].holders;
            if (shared_irqs_[i].holders != 0) {
                return {};
            }
            shared_irqs_.erase(shared_irqs_.begin() + static_cast<std::ptrdiff_t>(i));
            break;
        }
        return give_back(irq_, NumberRange::unit(Number{irq}));
    }
    /// Returns adjacent message-signalled interrupts to the allocator.
    [[nodiscard]] std::expected<void, Error> free_msi(std::uint32_t base, std::uint32_t count) noexcept {
        const auto range = NumberRange::create(Number{base}, count);
        return range ? give_back(msi_, *range) : std::unexpected(Error::not_allocated);
    }
    /// Returns a memory slot of KVM to the allocator.
    [[nodiscard]] std::expected<void, Error> free_kvm_mem_slot(std::uint32_t slot) noexcept {
        return give_back(kvm_mem_slots_, NumberRange::unit(Number{slot}));
    }
    /// Returns an instance id to the allocator.
    [[nodiscard]] std::expected<void, Error> free_instance_id(std::uint32_t id) noexcept {
        return instance_ids_.free(NumberRange::unit(Number{id}));
    }

    /// Allocates everything that a device requests, in that order, or nothing. Addresses in `avoid_pio` and
    /// `avoid_mmio` are not allocated even if they are free.
    [[nodiscard]] std::expected<Resources, AllocFailure> allocate(
        std::span<const ResourceConstraint> constraints, std::span<const PioRange> avoid_pio = {},
        std::span<const MmioRange> avoid_mmio = {}) {
        const Avoided<PioAddress> no_pio(pio_, avoid_pio);
        const Avoided<MmioAddress> no_mmio(mmio_, avoid_mmio);
        Allocation allocation(*this, constraints.size());
        // Fixed requests come first, so that no other request of this device takes their place.
        for (const bool fixed : {true, false}) {
            for (std::size_t i = 0; i < constraints.size(); ++i) {
                if (is_fixed(constraints[i]) == fixed) {
                    const auto done = std::visit(
                        [&](const auto& wanted) { return add(allocation.parts[i], wanted); }, constraints[i]);
                    if (!done) {
                        return std::unexpected(AllocFailure{done.error(), i});
                    }
                }
            }
        }
        std::size_t size = 0;
        for (const Resources& part : allocation.parts) {
            size += part.size();
        }
        Resources resources;
        resources.reserve(size);
        for (const Resources& part : allocation.parts) {
            for (const Resource& resource : part) {
                resources.append(resource);
            }
        }
        allocation.parts.clear();
        return resources;
    }
    /// Allocates all of the constraints or nothing; the failure names the constraint at fault by its index.
    [[nodiscard]] std::expected<Resources, AllocFailure> allocate(
        std::initializer_list<ResourceConstraint> constraints) {
        return allocate(std::span(constraints.begin(), constraints.size()));
    }

    /// Frees what allocate() returned. Resources that were not allocated here are ignored.
    void free(const Resources& resources) noexcept {
        for (const Resource& resource : resources) {
            std::visit([&](const auto& owned) { release(owned); }, resource);
        }
    }

    /// Whether exactly this resource is allocated. MAC addresses that do not begin with 52:54:00 are not
    /// recorded here, so the result for them is always true.
    [[nodiscard]] bool is_allocated(const Resource& resource) const {
        return std::visit([&](const auto& owned) { return holds(owned); }, resource);
    }
    /// Whether allocate_instance_id has returned this id and it has not been freed.
    [[nodiscard]] bool is_instance_id_allocated(std::uint32_t id) const noexcept {
        return instance_ids_.is_allocated(NumberRange::unit(Number{id}));
    }
    /// The allocated range that contains the address.
    [[nodiscard]] std::optional<PioRange> allocation_at(PioAddress address) const noexcept {
        return pio_ ? pio_->allocation_at(address) : std::nullopt;
    }
    /// The allocated range of memory that contains the address.
    [[nodiscard]] std::optional<MmioRange> allocation_at(MmioAddress address) const noexcept {
        return mmio_ ? mmio_->allocation_at(address) : std::nullopt;
    }
    /// How many holders the line has: 0, 1, or more if it is shared.
    [[nodiscard]] std::uint32_t irq_holders(std::uint32_t irq) const noexcept {
        for (const SystemAllocatorState::SharedIrq& line : shared_irqs_) {
            if (line.irq == irq) {
                return line.holders;
            }
        }
        return irq_ && irq_->is_allocated(NumberRange::unit(Number{irq})) ? 1 : 0;
    }

    /// Moves a range in two steps, between which the device itself can be moved: see
    /// RangeAllocator::begin_move().
    [[nodiscard]] std::expected<RangeAllocator<PioAddress>::Move, Error> begin_move(PioRange from,
                                                                                    PioRange to) {
        return begin_move_in(pio_, from, to);
    }
    /// The first half of a move of a device's memory: allocates the new range and keeps the old one.
    [[nodiscard]] std::expected<RangeAllocator<MmioAddress>::Move, Error> begin_move(MmioRange from,
                                                                                     MmioRange to) {
        return begin_move_in(mmio_, from, to);
    }
    /// Ends a move that succeeded: frees the old range.
    void finish_move(const RangeAllocator<PioAddress>::Move& move) noexcept { pio_->finish_move(move); }
    /// Ends a move that succeeded: frees the old range.
    void finish_move(const RangeAllocator<MmioAddress>::Move& move) noexcept { mmio_->finish_move(move); }
    /// Ends a move that failed: frees the new range.
    void cancel_move(const RangeAllocator<PioAddress>::Move& move) noexcept { pio_->cancel_move(move); }
    /// Ends a move that failed: frees the new range.
    void cancel_move(const RangeAllocator<MmioAddress>::Move& move) noexcept { mmio_->cancel_move(move); }

    /// The allocations, for a saved state; see SystemAllocator::from_state().
    [[nodiscard]] SystemAllocatorState state() const {
        SystemAllocatorState state;
        state.config = config_;
        state.pio = allocations(pio_);
        state.mmio = allocations(mmio_);
        state.irq = allocations(irq_);
        state.shared_irq = shared_irqs_;
        state.msi = allocations(msi_);
        state.kvm_mem_slots = allocations(kvm_mem_slots_);
        state.instance_ids = instance_ids_.allocations();
        state.mac_numbers = mac_numbers_.allocations();
        return state;
    }

protected:
    /// Allocates what `state` lists. The error names the first member that is invalid.
    [[nodiscard]] std::expected<void, AllocatorStateError> restore(const SystemAllocatorState& state) {
        const std::pair<std::string_view, bool> checks[] = {
            {"pio", restore_ranges(pio_, state.pio)},
            {"mmio", restore_ranges(mmio_, state.mmio)},
            {"irq", restore_units(irq_, state.irq)},
            {"shared_irq", restore_shared_irqs(state.shared_irq)},
            {"msi", restore_ranges(msi_, state.msi)},
            {"kvm_mem_slots", restore_units(kvm_mem_slots_, state.kvm_mem_slots)},
            {"instance_ids", restore_units(instance_ids_, state.instance_ids)},
            {"mac_numbers", restore_units(mac_numbers_, state.mac_numbers)},
        };
        for (const auto& [field, right] : checks) {
            if (!right) {
                return std::unexpected(AllocatorStateError{field});
            }
        }
        return {};
    }

private:
    /// The resources that were allocated for each constraint. The destructor frees them unless they were
    /// used.
    struct Allocation {
        Allocation(BasicSystemAllocator& from, std::size_t count) : allocator(from), parts(count) {}
        Allocation(const Allocation&) = delete;
        Allocation& operator=(const Allocation&) = delete;
        ~Allocation() {
            for (const Resources& part : parts) {
                allocator.free(part);
            }
        }
        BasicSystemAllocator& allocator;
        std::vector<Resources> parts;
    };
    /// Lines that the destructor frees unless they were used. There is room for `count`.
    struct HeldIrqs {
        HeldIrqs(BasicSystemAllocator& from, std::uint32_t count) : allocator(from) { irqs.reserve(count); }
        HeldIrqs(const HeldIrqs&) = delete;
        HeldIrqs& operator=(const HeldIrqs&) = delete;
        ~HeldIrqs() {
            for (const std::uint32_t irq : irqs) {
                ignore(allocator.free_irq(irq));
            }
        }
        BasicSystemAllocator& allocator;
        std::vector<std::uint32_t> irqs;
    };
    /// Prevents the free parts of ranges from being allocated while it exists.
    template <class A>
    class Avoided {
    public:
        Avoided(std::optional<RangeAllocator<A>>& space, std::span<const BusRange<A>> ranges)
            : space_(space) {
            for (const BusRange<A>& range : ranges) {
                while (const auto part = space_ ? space_->first_free_in(range) : std::nullopt) {
                    held_.reserve(held_.size() + 1);
                    static_cast<void>(space_->allocate_exact(part->base(), part->size()));
                    held_.push_back(*part);
                }
            }
        }
        Avoided(const Avoided&) = delete;
        Avoided& operator=(const Avoided&) = delete;
        ~Avoided() {
            for (const BusRange<A>& part : held_) {
                static_cast<void>(space_->free(part));
            }
        }

    private:
        std::optional<RangeAllocator<A>>& space_;
        std::vector<BusRange<A>> held_;
    };

    template <class A>
    static std::optional<RangeAllocator<A>> make(std::optional<BusRange<A>> space) {
        return space ? std::optional<RangeAllocator<A>>(*space) : std::nullopt;
    }
    static NumberRange instance_space(std::uint32_t first) {
        const std::uint32_t last = std::numeric_limits<std::uint32_t>::max();
        return NumberRange::from_bounds(Number{first}, Number{first == 0 ? last - 1 : last}).value();
    }

    template <class A>
    static std::expected<BusRange<A>, Error> from(std::optional<RangeAllocator<A>>& space, OffsetOf<A> size,
                                                  OffsetOf<A> align, AllocPolicy policy,
                                                  std::optional<BusRange<A>> within, std::optional<A> at) {
        if (!space) {
            return std::unexpected(Error::out_of_range);
        }
        return space->allocate(size, align, policy, within, at);
    }
    static std::expected<std::uint32_t, Error> number_from(std::optional<RangeAllocator<Number>>& space,
                                                           std::uint32_t count,
                                                           std::optional<std::uint32_t> wanted) {
        const auto range =
            from<Number>(space, count, 1, wanted ? AllocPolicy::exact_match : AllocPolicy::first_match,
                         std::nullopt, wanted ? std::optional(Number{*wanted}) : std::nullopt);
        if (!range) {
            return std::unexpected(range.error());
        }
        return range->base().value;
    }
    template <class A>
    static std::expected<void, Error> give_back(std::optional<RangeAllocator<A>>& space,
                                                BusRange<A> range) noexcept {
        if (!space) {
            return std::unexpected(Error::not_allocated);
        }
        return space->free(range);
    }
    template <class A>
    static std::expected<typename RangeAllocator<A>::Move, Error> begin_move_in(
        std::optional<RangeAllocator<A>>& space, BusRange<A> range, BusRange<A> to) {
        if (!space) {
            return std::unexpected(Error::not_allocated);
        }
        return space->begin_move(range, to);
    }

    /// Checks that so many lines exist there, before memory is allocated for them.
    [[nodiscard]] std::expected<void, Error> check_irq_count(std::uint32_t count,
                                                             std::optional<std::uint32_t> first) const {
        if (count == 0) {
            return std::unexpected(Error::invalid_size);
        }
        if (!irq_) {
            return std::unexpected(Error::out_of_range);
        }
        if (first) {
            const auto range = NumberRange::create(Number{*first}, count);
            if (!range || !irq_->space().contains(*range)) {
                return std::unexpected(Error::out_of_range);
            }
        } else if (count > irq_->space().size()) {
            return std::unexpected(Error::exhausted);
        }
        return {};
    }
    /// A line that is not one of `except`.
    std::expected<std::uint32_t, Error> one_irq(std::optional<std::uint32_t> irq, IrqSharing sharing,
                                                std::span<const std::uint32_t> except) {
        if (sharing == IrqSharing::exclusive) {
            return number_from(irq_, 1, irq);
        }
        if (irq) {
            if (SystemAllocatorState::SharedIrq* const line = shared_line(*irq, sharing)) {
                return join(*line);
            }
        }
        shared_irqs_.reserve(shared_irqs_.size() + 1);
        const auto fresh = number_from(irq_, 1, irq);
        if (fresh) {
            std::size_t place = 0;
            while (place < shared_irqs_.size() && shared_irqs_[place].irq < *fresh) {
                ++place;
            }
            shared_irqs_.insert(shared_irqs_.begin() + static_cast<std::ptrdiff_t>(place),
                                {*fresh, sharing, 1});
            return fresh;
        }
        if (irq || fresh.error() != Error::exhausted) {
            return fresh;
        }
        SystemAllocatorState::SharedIrq* fewest = nullptr;
        for (SystemAllocatorState::SharedIrq& line : shared_irqs_) {
            bool excepted = false;
            for (const std::uint32_t other : except) {
                excepted = excepted || other == line.irq;
            }
            if (line.sharing == sharing && !excepted &&
                (fewest == nullptr || line.holders < fewest->holders)) {
                fewest = &line;
            }
        }
        return fewest != nullptr ? join(*fewest) : fresh;
    }
    [[nodiscard]] SystemAllocatorState::SharedIrq* shared_line(std::uint32_t irq,
                                                               IrqSharing sharing) noexcept {
        for (SystemAllocatorState::SharedIrq& line : shared_irqs_) {
            if (line.irq == irq && line.sharing == sharing) {
                return &line;
            }
        }
        return nullptr;
    }
    static std::expected<std::uint32_t, Error> join(SystemAllocatorState::SharedIrq& line) noexcept {
        if (line.holders == std::numeric_limits<std::uint32_t>::max()) {
            return std::unexpected(Error::exhausted);
        }
        ++line.holders;
        return line.irq;
    }

    static bool is_fixed(const ResourceConstraint& constraint) {
        struct Visitor {
            bool operator()(const PioConstraint& wanted) const { return wanted.base.has_value(); }
            bool operator()(const MmioConstraint& wanted) const { return wanted.base.has_value(); }
            bool operator()(const LegacyIrqConstraint& wanted) const { return wanted.irq.has_value(); }
            bool operator()(const MsiIrqConstraint& wanted) const { return wanted.base.has_value(); }
            bool operator()(const MacAddressConstraint& wanted) const { return wanted.address.has_value(); }
            bool operator()(const KvmMemSlotConstraint& wanted) const { return wanted.slot.has_value(); }
        };
        return std::visit(Visitor{}, constraint);
    }

    using Added = std::expected<void, Error>;

    // Each function makes room in `resources` first, so that recording the allocation there cannot fail.

    template <class Kind, class Constraint, class A>
    Added add_range(Resources& resources, const Constraint& wanted, std::optional<RangeAllocator<A>>& space) {
        resources.reserve(1);
        // A fixed address comes from the description of the machine; it need not be aligned.
        const auto range =
            wanted.base ? from<A>(space, wanted.size, 1, AllocPolicy::exact_match, wanted.within, wanted.base)
                        : from<A>(space, wanted.size, wanted.align, AllocPolicy::first_match, wanted.within,
                                  std::nullopt);
        if (!range) {
            return std::unexpected(range.error());
        }
        resources.append(Kind{*range});
        return {};
    }
    Added add(Resources& resources, const PioConstraint& wanted) {
        return add_range<PioResource>(resources, wanted, pio_);
    }
    Added add(Resources& resources, const MmioConstraint& wanted) {
        return add_range<MmioResource>(resources, wanted, mmio_);
    }
    Added add(Resources& resources, const LegacyIrqConstraint& wanted) {
        if (const auto possible = check_irq_count(wanted.count, wanted.irq); !possible) {
            return possible;
        }
        resources.reserve(wanted.count);
        const auto irqs = allocate_irqs(wanted.count, wanted.irq, wanted.sharing);
        if (!irqs) {
            return std::unexpected(irqs.error());
        }
        for (const std::uint32_t irq : *irqs) {
            resources.append(LegacyIrqResource{irq, wanted.sharing});
        }
        return {};
    }
    Added add(Resources& resources, const MsiIrqConstraint& wanted) {
        resources.reserve(1);
        const auto base = allocate_msi(wanted.count, wanted.base);
        if (!base) {
            return std::unexpected(base.error());
        }
        resources.append(MsiIrqResource{wanted.type, *base, wanted.count});
        return {};
    }
    /// 52:54:00 and a number: locally administered, unicast.
    Added add(Resources& resources, const MacAddressConstraint& wanted) {
        resources.reserve(1);
        if (wanted.address) {
            if (const auto number = mac_number(*wanted.address)) {
                if (const auto taken = mac_numbers_.allocate_exact(Number{*number}, 1); !taken) {
                    return std::unexpected(taken.error());
                }
            }
            resources.append(MacAddressResource{*wanted.address});
            return {};
        }
        const auto number = mac_numbers_.allocate(1);
        if (!number) {
            return std::unexpected(number.error());
        }
        const std::uint32_t value = number->base().value;
        resources.append(
            MacAddressResource{{0x52, 0x54, 0x00, static_cast<std::uint8_t>(value >> 16),
                                static_cast<std::uint8_t>(value >> 8), static_cast<std::uint8_t>(value)}});
        return {};
    }
    Added add(Resources& resources, const KvmMemSlotConstraint& wanted) {
        if (!kvm_mem_slots_) {
            return std::unexpected(Error::out_of_range);
        }
        if (wanted.count > kvm_mem_slots_->space().size()) {
            return std::unexpected(Error::exhausted);
        }
        resources.reserve(wanted.count);
        const auto slots = kvm_mem_slots_->allocate_units(
            wanted.count, wanted.slot ? std::optional(Number{*wanted.slot}) : std::nullopt);
        if (!slots) {
            return std::unexpected(slots.error());
        }
        for (std::uint32_t i = 0; i < wanted.count; ++i) {
            resources.append(KvmMemSlotResource{slots->base().value + i});
        }
        return {};
    }

    /// Discards a result that is never an error here, or whose error does not matter.
    static void ignore(const Added&) noexcept {}
    void release(const PioResource& owned) noexcept { ignore(free_pio(owned.range)); }
    void release(const MmioResource& owned) noexcept { ignore(free_mmio(owned.range)); }
    void release(const LegacyIrqResource& owned) noexcept { ignore(free_irq(owned.irq)); }
    void release(const MsiIrqResource& owned) noexcept { ignore(free_msi(owned.base, owned.count)); }
    void release(const MacAddressResource& owned) noexcept {
        if (const auto number = mac_number(owned.address)) {
            ignore(mac_numbers_.free(NumberRange::unit(Number{*number})));
        }
    }
    void release(const KvmMemSlotResource& owned) noexcept { ignore(free_kvm_mem_slot(owned.slot)); }

    template <class A>
    static bool held_in(const std::optional<RangeAllocator<A>>& space, BusRange<A> range) noexcept {
        return space && space->is_allocated(range);
    }
    [[nodiscard]] bool holds(const PioResource& owned) const noexcept { return held_in(pio_, owned.range); }
    [[nodiscard]] bool holds(const MmioResource& owned) const noexcept { return held_in(mmio_, owned.range); }
    [[nodiscard]] bool holds(const LegacyIrqResource& owned) const noexcept {
        for (const SystemAllocatorState::SharedIrq& line : shared_irqs_) {
            if (line.irq == owned.irq) {
                return line.sharing == owned.sharing;
            }
        }
        return owned.sharing == IrqSharing::exclusive && irq_holders(owned.irq) != 0;
    }
    [[nodiscard]] bool holds(const MsiIrqResource& owned) const noexcept {
        const auto range = NumberRange::create(Number{owned.base}, owned.count);
        return range && held_in(msi_, *range);
    }
    [[nodiscard]] bool holds(const MacAddressResource& owned) const noexcept {
        const auto number = mac_number(owned.address);
        return !number || mac_numbers_.is_allocated(NumberRange::unit(Number{*number}));
    }
    [[nodiscard]] bool holds(const KvmMemSlotResource& owned) const noexcept {
        return held_in(kvm_mem_slots_, NumberRange::unit(Number{owned.slot}));
    }

    /// The number in a MAC address that this allocator could have assigned.
    static std::optional<std::uint32_t> mac_number(const MacAddress& address) noexcept {
        if (address[0] != 0x52 || address[1] != 0x54 || address[2] != 0x00) {
            return std::nullopt;
        }
        return static_cast<std::uint32_t>(address[3]) << 16 | static_cast<std::uint32_t>(address[4]) << 8 |
               address[5];
    }

    template <class A>
    static std::vector<BusRange<A>> allocations(const std::optional<RangeAllocator<A>>& space) {
        return space ? space->allocations() : std::vector<BusRange<A>>();
    }
    /// Returns false if a range is not free or not in ascending order.
    template <class A>
    static bool restore_ranges(RangeAllocator<A>& space, std::span<const BusRange<A>> ranges) {
        for (std::size_t i = 0; i < ranges.size(); ++i) {
            if ((i != 0 && ranges[i].base().value <= ranges[i - 1].base().value) ||
                !space.allocate_exact(ranges[i].base(), ranges[i].size())) {
                return false;
            }
        }
        return true;
    }
    template <class A>
    static bool restore_ranges(std::optional<RangeAllocator<A>>& space,
                               const std::vector<BusRange<A>>& ranges) {
        return space ? restore_ranges(*space, std::span<const BusRange<A>>(ranges)) : ranges.empty();
    }
    static bool restore_units(RangeAllocator<Number>& space, std::span<const NumberRange> units) {
        for (const NumberRange& unit : units) {
            if (unit.size() != 1) {
                return false;
            }
        }
        return restore_ranges(space, units);
    }
    static bool restore_units(std::optional<RangeAllocator<Number>>& space,
                              const std::vector<NumberRange>& units) {
        return space ? restore_units(*space, std::span<const NumberRange>(units)) : units.empty();
    }
    /// Called after the lines themselves have been restored.
    bool restore_shared_irqs(const std::vector<SystemAllocatorState::SharedIrq>& lines) {
        for (std::size_t i = 0; i < lines.size(); ++i) {
            const SystemAllocatorState::SharedIrq& line = lines[i];
            const bool shared = line.sharing == IrqSharing::edge || line.sharing == IrqSharing::level;
            if (!shared || line.holders == 0 || (i != 0 && line.irq <= lines[i - 1].irq) ||
                !held_in(irq_, NumberRange::unit(Number{line.irq}))) {
                return false;
            }
        }
        shared_irqs_ = lines;
        return true;
    }

    std::optional<RangeAllocator<PioAddress>> pio_;
    std::optional<RangeAllocator<MmioAddress>> mmio_;
    std::optional<RangeAllocator<Number>> irq_;
    std::optional<RangeAllocator<Number>> msi_;
    std::optional<RangeAllocator<Number>> kvm_mem_slots_;
    RangeAllocator<Number> instance_ids_;
    RangeAllocator<Number> mac_numbers_;
    /// In ascending order of the line. An allocated line that is not in this list is exclusive.
    std::vector<SystemAllocatorState::SharedIrq> shared_irqs_;
    SystemAllocatorConfig config_;
};

/// The resources of one machine.
///
/// If an operation returns an error or memory runs out (std::bad_alloc), nothing has changed. Freeing needs
/// no memory.
///
/// Thread safety: none.
class SystemAllocator : public BasicSystemAllocator<> {
public:
    // Not inherited: with it would come the deleted default constructor, which makes SystemAllocator({})
    // ambiguous.
    /// An allocator of the ranges that `config` lists.
    template <class = void>
    explicit SystemAllocator(const SystemAllocatorConfig& config) : BasicSystemAllocator(config) {}

    /// Restores an allocator that state() saved. A state that no allocator can be in is refused, and the
    /// error names the invalid member.
    template <class State = SystemAllocatorState>
        requires std::is_same_v<State, SystemAllocatorState>
    [[nodiscard]] static std::expected<SystemAllocator, AllocatorStateError> from_state(const State& state) {
        SystemAllocator allocator(state.config);
        if (const auto restored = allocator.restore(state); !restored) {
            return std::unexpected(restored.error());
        }
        return allocator;
    }
};

}  // namespace vmdevice::inline v0_2

// vmdevice/detail/memory.hpp

/// Memory for the tables, and the handling of its exhaustion.

namespace vmdevice::inline v0_2::detail {

/// Throws std::bad_alloc, or ends the process in a program that is built without exceptions.
[[noreturn]] inline void out_of_memory() {
#if defined(__cpp_exceptions)
    throw std::bad_alloc();
#else
    std::abort();
#endif
}

/// Owns one object, with the members of std::unique_ptr that the tables need. A program that includes them
/// instantiates dozens of these, and std::unique_ptr costs ten times as much to instantiate.
template <class T>
class Owned {
public:
    Owned() = default;
    explicit Owned(T* object) noexcept : object_(object) {}
    Owned(Owned&& other) noexcept : object_(std::exchange(other.object_, nullptr)) {}
    Owned& operator=(Owned&& other) noexcept {
        if (this != &other) {
            delete std::exchange(object_, std::exchange(other.object_, nullptr));
        }
        return *this;
    }
    ~Owned() { delete object_; }

    [[nodiscard]] T* get() const noexcept { return object_; }
    [[nodiscard]] T& operator*() const noexcept { return *object_; }
    [[nodiscard]] T* operator->() const noexcept { return object_; }
    [[nodiscard]] explicit operator bool() const noexcept { return object_ != nullptr; }

private:
    T* object_ = nullptr;
};

/// Zeroed memory for objects that need no construction. The kernel provides a large block page by page as it
/// is touched, so unused parts of a table need no memory.
template <class T>
class ZeroedArray {
public:
    ZeroedArray() = default;
    explicit ZeroedArray(T* first) noexcept : first_(first) {}
    ZeroedArray(ZeroedArray&& other) noexcept : first_(std::exchange(other.first_, nullptr)) {}
    ZeroedArray& operator=(ZeroedArray&& other) noexcept {
        std::swap(first_, other.first_);
        return *this;
    }
    ~ZeroedArray() { std::free(first_); }

    [[nodiscard]] T* get() const noexcept { return first_; }
    [[nodiscard]] T& operator[](std::size_t index) const noexcept { return first_[index]; }

private:
    T* first_ = nullptr;
};

template <class T>
[[nodiscard]] ZeroedArray<T> make_zeroed(std::size_t count) {
    void* const memory = std::calloc(count, sizeof(T));
    if (memory == nullptr) {
        out_of_memory();
    }
    return ZeroedArray<T>(static_cast<T*>(memory));
}

}  // namespace vmdevice::inline v0_2::detail

// vmdevice/dispatch/range_index.hpp

/// The ordered index behind Bus: nodes sorted by the base of their range.

namespace vmdevice::inline v0_2::detail {

/// Returns `yes` or `no`, selected without a branch. GCC compiles the conditional expression to a conditional
/// move. Clang emits a branch unless the origin of the mask is hidden from it.
template <class T>
[[nodiscard]] inline const T* select(bool condition, const T* yes, const T* no) noexcept {
#if defined(__clang__)
    // NOLINTNEXTLINE(misc-const-correctness): to the compiler, the asm statement may change it
    std::ptrdiff_t mask = -static_cast<std::ptrdiff_t>(condition);
    __asm__("" : "+r"(mask));
    return no + ((yes - no) & mask);
#else
    return condition ? yes : no;
#endif
}

/// Returns how many of the `count` ascending keys are not above `key`. The loop has no branch that depends on
/// the data: a mispredicted branch costs more than all the steps of a search in a leaf.
template <class Key>
[[nodiscard]] inline std::size_t count_not_above(const Key* keys, std::size_t count, Key key) noexcept {
    const Key* first = keys;
    while (count > 1) {
        const std::size_t half = count / 2;
        const Key* const upper = first + half;
        first = select(upper[-1] <= key, upper, first);
        count -= half;
    }
    return static_cast<std::size_t>(first - keys) + static_cast<std::size_t>(count == 1 && *first <= key);
}

/// A two-level B+ tree. The keys of a leaf are contiguous in a few cache lines, separate from the nodes; the
/// root is one sorted array of the leaves' first keys. An insertion moves the keys of at most one leaf (64),
/// and one in 32 insertions also moves those of the root, which is short: 300 keys for 10,000 ranges. Nodes
/// never move, so references to a device stay valid until it is removed.
template <class Key, class Node>
class RangeIndex {
public:
    /// A position in the index; for end(), `leaf` is the number of leaves.
    struct Position {
        std::size_t leaf;
        std::size_t slot;
        friend bool operator==(const Position&, const Position&) = default;
    };

    RangeIndex() = default;
    RangeIndex(RangeIndex&& other) noexcept
        : firsts_(std::exchange(other.firsts_, {})),
          leaves_(std::exchange(other.leaves_, {})),
          spare_(std::move(other.spare_)),
          size_(std::exchange(other.size_, 0)) {}
    RangeIndex& operator=(RangeIndex&& other) noexcept {
        firsts_ = std::exchange(other.firsts_, {});
        leaves_ = std::exchange(other.leaves_, {});
        spare_ = std::move(other.spare_);
        size_ = std::exchange(other.size_, 0);
        return *this;
    }

    [[nodiscard]] std::size_t size() const noexcept { return size_; }
    [[nodiscard]] Position begin() const noexcept { return {0, 0}; }
    [[nodiscard]] Position end() const noexcept { return {leaves_.size(), 0}; }
    [[nodiscard]] Position next(Position position) const noexcept {
        return position.slot + 1 < leaves_[position.leaf]->count ? Position{position.leaf, position.slot + 1}
                                                                 : Position{position.leaf + 1, 0};
    }
    [[nodiscard]] Node& at(Position position) const noexcept {
        return *leaves_[position.leaf]->nodes[position.slot];
    }

    /// The node with the highest key not above `key`, or end().
    [[nodiscard]] Position floor(Key key) const noexcept {
        const std::size_t leaf = count_not_above(firsts_.data(), firsts_.size(), key);
        if (leaf == 0) {
            return end();
        }
        const Leaf& found = *leaves_[leaf - 1];
        return {leaf - 1, count_not_above(found.keys.data(), found.count, key) - 1};
    }

    /// Makes room for a key that the index does not contain. If memory runs out, nothing has changed.
    void make_room(Key key) {
        if (leaves_.empty()) {
            firsts_.reserve(1);
            leaves_.reserve(1);
            if (!spare_) {
                spare_ = Owned<Leaf>(new Leaf);
            }
        } else if (const std::size_t index = leaf_for(key); leaves_[index]->count == leaf_capacity) {
            split(index, index + 1 == leaves_.size() && key > leaves_[index]->keys.back());
        }
    }
    /// Adds a node after make_room() was called with its key.
    void insert(Key key, Owned<Node> node) noexcept {
        place(key) = std::move(node);
        ++size_;
    }

    Owned<Node> extract(Position position) noexcept {
        Leaf& leaf = *leaves_[position.leaf];
        Owned<Node> node = std::move(leaf.nodes[position.slot]);
        erase(position);
        --size_;
        return node;
    }

    /// Changes the key of the node at `from` to one that the index does not contain, or to the same key. If
    /// memory runs out, nothing has changed.
    void rekey(Key from, Key to) {
        if (from == to) {
            return;
        }
        make_room(to);
        Owned<Node>& target = place(to);
        const Position source = floor(from);
        target = std::move(leaves_[source.leaf]->nodes[source.slot]);
        erase(source);
    }

private:
    static constexpr std::size_t leaf_capacity = 64;

    struct Leaf {
        std::size_t count = 0;
        std::array<Key, leaf_capacity> keys;
        std::array<Owned<Node>, leaf_capacity> nodes;
    };

    /// The leaf to which `key` belongs.
    [[nodiscard]] std::size_t leaf_for(Key key) const noexcept {
        const std::size_t not_above = count_not_above(firsts_.data(), firsts_.size(), key);
        return not_above == 0 ? 0 : not_above - 1;
    }

    /// Creates an empty entry for `key`, for which there must be room.
    Owned<Node>& place(Key key) noexcept {
        if (leaves_.empty()) {
            leaves_.push_back(std::move(spare_));
            firsts_.push_back(key);
        }
        const std::size_t index = leaf_for(key);
        Leaf& leaf = *leaves_[index];
        const std::size_t slot = count_not_above(leaf.keys.data(), leaf.count, key);
        for (std::size_t i = leaf.count; i > slot; --i) {
            leaf.keys[i] = leaf.keys[i - 1];
            leaf.nodes[i] = std::move(leaf.nodes[i - 1]);
        }
        leaf.keys[slot] = key;
        ++leaf.count;
        firsts_[index] = leaf.keys[0];
        return leaf.nodes[slot];
    }

    /// Moves the upper half of a full leaf into a new one; if the keys arrive in ascending order, only the
    /// last key, so that the leaves stay full.
    void split(std::size_t index, bool ascending) {
        auto fresh = Owned<Leaf>(new Leaf);
        firsts_.reserve(firsts_.size() + 1);
        leaves_.reserve(leaves_.size() + 1);
        Leaf& leaf = *leaves_[index];
        const std::size_t kept = ascending ? leaf_capacity - 1 : leaf_capacity / 2;
        fresh->count = leaf_capacity - kept;
        for (std::size_t i = kept; i < leaf_capacity; ++i) {
            fresh->keys[i - kept] = leaf.keys[i];
            fresh->nodes[i - kept] = std::move(leaf.nodes[i]);
        }
        leaf.count = kept;
        const auto after = static_cast<std::ptrdiff_t>(index) + 1;
        firsts_.insert(firsts_.begin() + after, fresh->keys[0]);
        leaves_.insert(leaves_.begin() + after, std::move(fresh));
    }

    /// Removes the entry at `position`, whose node has been moved out.
    void erase(Position position) noexcept {
        Leaf& leaf = *leaves_[position.leaf];
        for (std::size_t i = position.slot + 1; i < leaf.count; ++i) {
            leaf.keys[i - 1] = leaf.keys[i];
            leaf.nodes[i - 1] = std::move(leaf.nodes[i]);
        }
        --leaf.count;
        const auto at = static_cast<std::ptrdiff_t>(position.leaf);
        if (leaf.count == 0) {
            firsts_.erase(firsts_.begin() + at);
            leaves_.erase(leaves_.begin() + at);
        } else {
            firsts_[position.leaf] = leaf.keys[0];
        }
    }

    std::vector<Key> firsts_;
    std::vector<Owned<Leaf>> leaves_;
    /// The leaf that the index will use first.
    Owned<Leaf> spare_;
    std::size_t size_ = 0;
};

}  // namespace vmdevice::inline v0_2::detail

// vmdevice/bus.hpp

/// A bus: records which device owns which range of one address space.
///
/// Thread safety: none; IoManager is the bus that threads share.

namespace vmdevice::inline v0_2 {

/// One registration as a lookup sees it. `device` is a reference into the bus, valid until that device is
/// deregistered or the bus is destroyed; other registrations do not affect it.
template <BusAddress A, class Dev>
struct BusEntry {
    /// The device `found` at the range `at`.
    constexpr BusEntry(BusRange<A> at, Dev& found) noexcept : range(at), device(found) {}
    constexpr BusEntry(const BusEntry&) noexcept = default;
    /// Makes this entry refer to the same registration as `other`; the devices are not changed.
    constexpr BusEntry& operator=(const BusEntry& other) noexcept {
        if (this != &other) {
            std::construct_at(this, other);
        }
        return *this;
    }

    BusRange<A> range;  ///< the addresses of the device
    Dev& device;        ///< the device
};

/// Maps address ranges to devices of any type. `Dev` is the type that the bus stores: a value, a pointer, a
/// move-only handle.
///
/// Registration, removal and lookup take O(log n) comparisons. Overlapping ranges are refused. If a function
/// returns an error, nothing has changed.
template <BusAddress A, class Dev>
class Bus {
    struct Node {
        BusRange<A> range;
        Dev device;
    };
    using Index = detail::RangeIndex<OffsetOf<A>, Node>;

    template <class Entry>
    static Entry entry_of(Node& node) noexcept {
        return Entry(node.range, node.device);
    }

    template <class Device>
    class Iterator {
    public:
        using value_type = BusEntry<A, Device>;
        using difference_type = std::ptrdiff_t;
        using reference = value_type;
        using pointer = void;

        Iterator() = default;
        Iterator(const Index& index, typename Index::Position position)
            : index_(&index), position_(position) {}

        value_type operator*() const { return entry_of<value_type>(index_->at(position_)); }
        Iterator& operator++() {
            position_ = index_->next(position_);
            return *this;
        }
        Iterator operator++(int) {
            Iterator before = *this;
            ++*this;
            return before;
        }
        friend bool operator==(const Iterator& a, const Iterator& b) { return a.position_ == b.position_; }

    private:
        const Index* index_ = nullptr;
        typename Index::Position position_{};
    };

public:
    using address_type = A;
    using device_type = Dev;
    using range_type = BusRange<A>;
    /// What a search returns: a range and its device.
    using entry_type = BusEntry<A, Dev>;
    /// What a search of a const bus returns.
    using const_entry_type = BusEntry<A, const Dev>;
    /// Visits the entries in the order of their addresses.
    using iterator = Iterator<Dev>;
    /// Visits the entries of a const bus in the order of their addresses.
    using const_iterator = Iterator<const Dev>;

    /// Registers `device` at `range`. Returns `device_overlap` if any address of the range is taken. In this
    /// case, and if memory runs out (std::bad_alloc), `device` is unchanged, so that a move-only device is
    /// not lost.
    [[nodiscard]] std::expected<void, BusError> register_device(range_type range, Dev&& device) {
        if (taken(range)) {
            return std::unexpected(BusError::device_overlap);
        }
        // Allocate first, so that the caller keeps the device if memory runs out.
        index_.make_room(range.base().value);
        index_.insert(range.base().value, detail::Owned<Node>(new Node{range, std::move(device)}));
        return {};
    }
    [[nodiscard]] std::expected<void, BusError> register_device(range_type range, const Dev& device)
        requires std::is_copy_constructible_v<Dev>
    {
        if (taken(range)) {
            return std::unexpected(BusError::device_overlap);
        }
        index_.make_room(range.base().value);
        index_.insert(range.base().value, detail::Owned<Node>(new Node{range, device}));
        return {};
    }

    /// Removes and returns the device that owns `any_address_inside`, with its whole range, or nothing if
    /// there is none.
    std::optional<std::pair<range_type, Dev>> deregister(A any_address_inside) {
        const auto position = find(any_address_inside);
        if (position == index_.end()) {
            return std::nullopt;
        }
        const detail::Owned<Node> node = index_.extract(position);
        return std::pair<range_type, Dev>(node->range, std::move(node->device));
    }

    /// Assigns another range to the device that owns `any_address_inside`; it may overlap the old one.
    /// Returns `device_not_found` if there is no such device, and `device_overlap` if another device owns a
    /// part of the range; the device then keeps its old range.
    [[nodiscard]] std::expected<void, BusError> move_range(A any_address_inside, range_type to) {
        const auto position = find(any_address_inside);
        if (position == index_.end()) {
            return std::unexpected(BusError::device_not_found);
        }
        Node& node = index_.at(position);
        if (taken_by_other(to, node)) {
            return std::unexpected(BusError::device_overlap);
        }
        index_.rekey(node.range.base().value, to.base().value);
        node.range = to;
        return {};
    }

    /// The device that owns `address`: like std::optional, with `.range` and `.device`.
    [[nodiscard]] std::optional<const_entry_type> device(A address) const {
        return entry_at<const_entry_type>(address);
    }
    [[nodiscard]] std::optional<entry_type> device(A address) { return entry_at<entry_type>(address); }

    /// The device that owns all `length` bytes from `address` on. Returns `invalid_range` if length is 0, and
    /// `device_not_found` if no device owns the first byte or the access extends past the end of its range.
    [[nodiscard]] std::expected<const_entry_type, BusError> check_access(A address,
                                                                         std::size_t length) const {
        return checked_entry<const_entry_type>(address, length);
    }
    [[nodiscard]] std::expected<entry_type, BusError> check_access(A address, std::size_t length) {
        return checked_entry<entry_type>(address, length);
    }

    /// Whether any address of `range` belongs to a device.
    [[nodiscard]] bool overlaps(range_type range) const { return taken(range); }

    /// How many ranges are registered.
    [[nodiscard]] std::size_t size() const noexcept { return index_.size(); }
    [[nodiscard]] bool empty() const noexcept { return index_.size() == 0; }

    /// Iteration in ascending order of address. A change to the bus invalidates the iterators.
    [[nodiscard]] iterator begin() { return {index_, index_.begin()}; }
    [[nodiscard]] iterator end() { return {index_, index_.end()}; }
    [[nodiscard]] const_iterator begin() const { return {index_, index_.begin()}; }
    [[nodiscard]] const_iterator end() const { return {index_, index_.end()}; }

private:
    [[nodiscard]] typename Index::Position find(A address) const {
        const auto position = index_.floor(address.value);
        if (position == index_.end() || !index_.at(position).range.contains(address)) {
            return index_.end();
        }
        return position;
    }

    /// Whether any device owns an address of `range`. Ranges on the bus do not overlap each other, so the
    /// highest one that starts in or before `range` decides.
    [[nodiscard]] bool taken(range_type range) const {
        const auto position = index_.floor(range.last().value);
        return position != index_.end() && index_.at(position).range.overlaps(range);
    }
    /// The same for devices other than `except`: if that one is the highest, the one before it decides.
    [[nodiscard]] bool taken_by_other(range_type range, const Node& except) const {
        auto position = index_.floor(range.last().value);
        if (position != index_.end() && &index_.at(position) == &except) {
            const auto base = except.range.base().value;
            position = base == 0 ? index_.end() : index_.floor(static_cast<OffsetOf<A>>(base - 1));
        }
        return position != index_.end() && index_.at(position).range.overlaps(range);
    }

    template <class Entry>
    [[nodiscard]] std::optional<Entry> entry_at(A address) const {
        const auto position = find(address);
        if (position == index_.end()) {
            return std::nullopt;
        }
        return entry_of<Entry>(index_.at(position));
    }

    template <class Entry>
    [[nodiscard]] std::expected<Entry, BusError> checked_entry(A address, std::size_t length) const {
        if (length == 0) {
            return std::unexpected(BusError::invalid_range);
        }
        const auto position = index_.floor(address.value);
        if (position == index_.end() || !index_.at(position).range.contains_access(address, length)) {
            return std::unexpected(BusError::device_not_found);
        }
        return entry_of<Entry>(index_.at(position));
    }

    Index index_;
};

/// A bus of ports.
template <class Dev>
using PioBus = Bus<PioAddress, Dev>;
/// A bus of memory.
template <class Dev>
using MmioBus = Bus<MmioAddress, Dev>;

}  // namespace vmdevice::inline v0_2

// vmdevice/detail/model_errors.hpp

/// Common parts of the adapters that connect device models to the buses.

namespace vmdevice::inline v0_2::detail {

struct NoError {};

/// The error type of the std::expected that a model's write returns, or NoError if it returns nothing or
/// another type.
template <class Result>
struct ErrorOf {
    using Type = NoError;
};
template <class Result>
    requires requires { typename Result::error_type; }
struct ErrorOf<Result> {
    using Type = typename Result::error_type;
};

/// A callable that takes an error, or nothing. It replaces std::function, whose header costs more than the
/// rest of the adapters.
template <class Error>
class ErrorHandler {
public:
    ErrorHandler() = default;
    ErrorHandler(const ErrorHandler& other)
        : callable_(other.callable_ == nullptr ? nullptr : other.callable_->clone()) {}
    ErrorHandler(ErrorHandler&& other) noexcept : callable_(std::exchange(other.callable_, nullptr)) {}
    ErrorHandler& operator=(ErrorHandler other) noexcept {
        std::swap(callable_, other.callable_);
        return *this;
    }
    ~ErrorHandler() { delete callable_; }
    // Not explicit, so that a lambda can be passed as a handler.
    ErrorHandler(std::nullptr_t) noexcept {}
    template <class F>
        requires(!std::is_same_v<std::remove_cvref_t<F>, ErrorHandler> &&
                 requires(std::remove_cvref_t<F>& function, const Error& error) { function(error); })
    ErrorHandler(F&& function) {
        // A null pointer and an empty std::function count as no handler.
        if constexpr (requires { function == nullptr; }) {
            if (function == nullptr) {
                return;
            }
        }
        callable_ = new Holder<std::remove_cvref_t<F>>(std::forward<F>(function));
    }

    [[nodiscard]] explicit operator bool() const noexcept { return callable_ != nullptr; }
    void operator()(const Error& error) const { callable_->call(error); }

private:
    struct Callable {
        Callable() = default;
        Callable(const Callable&) = delete;
        Callable& operator=(const Callable&) = delete;
        virtual ~Callable() = default;
        [[nodiscard]] virtual Callable* clone() const = 0;
        virtual void call(const Error& error) = 0;
    };
    template <class F>
    struct Holder final : Callable {
        explicit Holder(F from) : function(std::move(from)) {}
        [[nodiscard]] Callable* clone() const override { return new Holder(function); }
        void call(const Error& error) override { static_cast<void>(function(error)); }
        F function;
    };

    Callable* callable_ = nullptr;
};

/// Counts the errors that a model's writes return. The guest never sees them.
template <class Error>
class WriteErrors {
public:
    using Handler = ErrorHandler<Error>;

    [[nodiscard]] std::uint64_t count() const noexcept { return count_; }
    void set_handler(Handler handler) { handler_ = std::move(handler); }

    /// Calls `write` and records the error that it returns.
    template <class F>
    void note(F write) {
        using Result = decltype(write());
        if constexpr (std::is_same_v<typename ErrorOf<Result>::Type, NoError>) {
            static_cast<void>(write());
        } else if (const Result result = write(); !result.has_value()) {
            ++count_;
            if constexpr (std::is_same_v<typename ErrorOf<Result>::Type, Error>) {
                if (handler_) {
                    handler_(result.error());
                }
            }
        }
    }

private:
    std::uint64_t count_ = 0;
    Handler handler_;
};

}  // namespace vmdevice::inline v0_2::detail

// vmdevice/device.hpp

/// The interfaces that a device on a bus implements.
///
/// `base` is the start of the device's range and `offset` the distance of the access from it, so that a
/// device can distinguish its ranges. An access is never empty and lies entirely inside the range. A device
/// on both buses derives from both interfaces.
///
/// Thread safety: several vCPUs may call one device at the same time; put an unsynchronised one in Locked<D>.

namespace vmdevice::inline v0_2 {

/// A device in the port space.
struct DevicePio {
    DevicePio() = default;
    DevicePio(const DevicePio&) = default;
    DevicePio(DevicePio&&) = default;
    DevicePio& operator=(const DevicePio&) = default;
    DevicePio& operator=(DevicePio&&) = default;
    virtual ~DevicePio() = default;

    /// Fills `data` with the result of a read of data.size() bytes, lowest address first.
    virtual void pio_read(PioAddress base, PioOffset offset, std::span<std::uint8_t> data) = 0;
    /// Takes a write of data.size() bytes, lowest address first.
    virtual void pio_write(PioAddress base, PioOffset offset, std::span<const std::uint8_t> data) = 0;

    /// String input (REP INS): data.size() / width reads of `width` bytes each at the same port, in order.
    virtual void pio_read_repeated(PioAddress base, PioOffset offset, std::size_t width,
                                   std::span<std::uint8_t> data) {
        for (std::size_t at = 0; width != 0 && at < data.size(); at += width) {
            pio_read(base, offset, data.subspan(at, width < data.size() - at ? width : data.size() - at));
        }
    }
    /// String output (REP OUTS): data.size() / width writes of `width` bytes each at the same port, in order.
    virtual void pio_write_repeated(PioAddress base, PioOffset offset, std::size_t width,
                                    std::span<const std::uint8_t> data) {
        for (std::size_t at = 0; width != 0 && at < data.size(); at += width) {
            pio_write(base, offset, data.subspan(at, width < data.size() - at ? width : data.size() - at));
        }
    }
};

/// A device in guest physical memory.
struct DeviceMmio {
    DeviceMmio() = default;
    DeviceMmio(const DeviceMmio&) = default;
    DeviceMmio(DeviceMmio&&) = default;
    DeviceMmio& operator=(const DeviceMmio&) = default;
    DeviceMmio& operator=(DeviceMmio&&) = default;
    virtual ~DeviceMmio() = default;

    /// Fills `data` with the result of a read of data.size() bytes, lowest address first.
    virtual void mmio_read(MmioAddress base, MmioOffset offset, std::span<std::uint8_t> data) = 0;
    /// Takes a write of data.size() bytes, lowest address first.
    virtual void mmio_write(MmioAddress base, MmioOffset offset, std::span<const std::uint8_t> data) = 0;
};

}  // namespace vmdevice::inline v0_2

// vmdevice/byte_device.hpp

/// ByteDevice<D>: connects a model of byte registers (a UART, an i8042, a CMOS clock) to the buses.

namespace vmdevice::inline v0_2 {

/// A model of byte registers: `read(offset)` returns a byte, `write(offset, value)` takes one. `write` may
/// return any type; the error of an expected<void, Error> is counted (see ByteDevice).
template <class D>
concept ByteRegisters = requires(D& device, std::uint8_t offset, std::uint8_t value) {
    { device.read(offset) } -> std::convertible_to<std::uint8_t>;
    device.write(offset, value);
};

namespace detail {

template <class D>
concept ByteRegistersOrPointer = ByteRegisters<D> || requires(D& device) {
    requires ByteRegisters<std::remove_reference_t<decltype(*device)>>;
};

/// The model itself, also if D is a pointer (of any kind) to it.
template <class D>
constexpr auto& byte_registers(D& device) {
    if constexpr (ByteRegisters<D>) {
        return device;
    } else {
        return *device;
    }
}

template <class D>
using ByteTarget =
    std::remove_reference_t<decltype(byte_registers(std::declval<std::remove_reference_t<D>&>()))>;

/// The number of registers that the model declares, or all that an 8-bit offset can name.
template <class Target>
constexpr std::size_t default_register_count() {
    if constexpr (requires {
                      { Target::register_count } -> std::convertible_to<std::size_t>;
                  }) {
        return static_cast<std::size_t>(Target::register_count);
    } else {
        return 256;
    }
}

}  // namespace detail

/// How a model of byte registers lies in its range.
struct ByteDeviceOptions {
    /// How many registers the model decodes (1..256), 8 for a UART. 0 stands for the number that the model
    /// declares as `register_count`, or for all 256 that an offset can name.
    std::size_t register_count = 0;
    /// Register n is at offset n << register_shift: 0 on a PC, 2 for a UART in 32-bit slots (the `reg-shift`
    /// of device trees). The bytes between the registers read 0 and ignore writes.
    unsigned register_shift = 0;
};

/// A DevicePio and a DeviceMmio that wraps a model of byte registers. D is the model, a reference to it, or a
/// pointer of any kind to it.
///
/// An access wider than a byte is split into bytes in ascending order, as the ISA bus does. An access that
/// extends past the last register is refused as a whole: no register is accessed, and a read returns 0xFF in
/// every byte.
///
/// Thread safety: that of the model. Locked<ByteDevice<D>> makes an unsynchronised one safe.
template <class D>
    requires detail::ByteRegistersOrPointer<std::remove_reference_t<D>>
class ByteDevice : public DevicePio, public DeviceMmio {
    using Target = detail::ByteTarget<D>;
    using WriteResult = decltype(std::declval<Target&>().write(std::uint8_t{}, std::uint8_t{}));

public:
    /// The error type of the model's write, or an empty struct if it has none.
    using error_type = typename detail::ErrorOf<WriteResult>::Type;
    /// Called with each error that the model's write returns. It runs on the vCPU's thread, so it should be
    /// short.
    using ErrorHandler = typename detail::WriteErrors<error_type>::Handler;

    ByteDevice()
        requires std::default_initializable<D>
        : device_(), shift_(0), window_(window_of({})) {}
    /// Takes the model. Options: how many registers it has, and how far apart they are.
    explicit ByteDevice(D device, ByteDeviceOptions options = {})
        : device_(std::forward<D>(device)), shift_(shift_of(options)), window_(window_of(options)) {}
    /// A model of `register_count` registers.
    ByteDevice(D device, std::size_t register_count)
        : ByteDevice(std::forward<D>(device), ByteDeviceOptions{.register_count = register_count}) {}
    /// Constructs the model from these arguments.
    template <class First, class... Rest>
        requires(std::constructible_from<D, First, Rest...> &&
                 !std::same_as<std::remove_cvref_t<First>, std::remove_cvref_t<D>> &&
                 !std::same_as<std::remove_cvref_t<First>, ByteDevice> &&
                 !std::same_as<std::remove_cvref_t<First>, std::in_place_t>)
    explicit ByteDevice(First&& first, Rest&&... rest)
        : ByteDevice(std::in_place, ByteDeviceOptions{}, std::forward<First>(first),
                     std::forward<Rest>(rest)...) {}
    /// The same with options.
    template <class... Args>
        requires std::constructible_from<D, Args...>
    explicit ByteDevice(std::in_place_t, ByteDeviceOptions options, Args&&... args)
        : device_(std::forward<Args>(args)...), shift_(shift_of(options)), window_(window_of(options)) {}

    /// The model.
    [[nodiscard]] Target& device() noexcept { return detail::byte_registers(device_); }
    /// The model.
    [[nodiscard]] const Target& device() const noexcept {
        return detail::byte_registers(const_cast<std::remove_reference_t<D>&>(device_));
    }

    /// How many bytes of its range the model decodes.
    [[nodiscard]] std::uint64_t window() const noexcept { return window_; }
    /// How many accesses were refused because they extended past the window.
    [[nodiscard]] std::uint64_t refused_accesses() const noexcept { return refused_; }
    /// How many of the model's writes returned an error. The guest never sees these errors.
    [[nodiscard]] std::uint64_t write_errors() const noexcept { return errors_.count(); }
    void set_error_handler(ErrorHandler handler) { errors_.set_handler(std::move(handler)); }

    void pio_read(PioAddress /*base*/, PioOffset offset, std::span<std::uint8_t> data) override {
        read_bytes(offset, data);
    }
    void pio_write(PioAddress /*base*/, PioOffset offset, std::span<const std::uint8_t> data) override {
        write_bytes(offset, data);
    }
    /// Passes bytes that are repeated at offset 0 to the model's `write_data` in one call, if it has one: a
    /// UART's transmitter takes a whole REP OUTSB at once.
    void pio_write_repeated(PioAddress base, PioOffset offset, std::size_t width,
                            std::span<const std::uint8_t> data) override {
        if constexpr (requires(Target& target) { target.write_data(data); }) {
            if (width == 1 && offset == 0 && window_ != 0) {
                errors_.note([&] { return device().write_data(data); });
                return;
            }
        }
        DevicePio::pio_write_repeated(base, offset, width, data);
    }
    void mmio_read(MmioAddress /*base*/, MmioOffset offset, std::span<std::uint8_t> data) override {
        read_bytes(offset, data);
    }
    void mmio_write(MmioAddress /*base*/, MmioOffset offset, std::span<const std::uint8_t> data) override {
        write_bytes(offset, data);
    }

private:
    static unsigned shift_of(const ByteDeviceOptions& options) {
        return options.register_shift < 16 ? options.register_shift : 16;
    }
    static std::uint64_t window_of(const ByteDeviceOptions& options) {
        const std::size_t count =
            options.register_count == 0 ? detail::default_register_count<Target>() : options.register_count;
        return std::uint64_t{count < 256 ? count : 256} << shift_of(options);
    }

    [[nodiscard]] bool inside(std::uint64_t offset, std::size_t length) noexcept {
        if (offset < window_ && length <= window_ - offset) {
            return true;
        }
        ++refused_;
        return false;
    }

    void read_bytes(std::uint64_t offset, std::span<std::uint8_t> data) {
        if (!inside(offset, data.size())) {
            for (std::uint8_t& byte : data) {
                byte = 0xFF;
            }
            return;
        }
        for (std::uint8_t& byte : data) {
            byte = is_register(offset) ? static_cast<std::uint8_t>(device().read(register_at(offset)))
                                       : std::uint8_t{0};
            ++offset;
        }
    }

    void write_bytes(std::uint64_t offset, std::span<const std::uint8_t> data) {
        if (!inside(offset, data.size())) {
            return;
        }
        for (const std::uint8_t byte : data) {
            if (is_register(offset)) {
                errors_.note([&] { return device().write(register_at(offset), byte); });
            }
            ++offset;
        }
    }

    [[nodiscard]] bool is_register(std::uint64_t offset) const noexcept {
        return (offset & ((std::uint64_t{1} << shift_) - 1)) == 0;
    }
    [[nodiscard]] std::uint8_t register_at(std::uint64_t offset) const noexcept {
        return static_cast<std::uint8_t>(offset >> shift_);
    }

    D device_;
    unsigned shift_;
    std::uint64_t window_;
    std::uint64_t refused_ = 0;
    detail::WriteErrors<error_type> errors_;
};

template <class D, class... Rest>
ByteDevice(D, Rest...) -> ByteDevice<D>;

}  // namespace vmdevice::inline v0_2

// vmdevice/device_info.hpp

/// The information that a DeviceManager has about a device, and the reasons for which it refuses one.

namespace vmdevice::inline v0_2 {

/// Which bus an access came from.
enum class IoType : std::uint8_t { pio, mmio };

/// A device that has a name, is notified of its resources, and receives accesses at guest addresses; or a
/// bus, which is a device that others name as their parent. A device that is a DevicePio or a DeviceMmio does
/// not need this interface: DeviceManager registers it under a name that the caller supplies.
///
/// Thread safety: several vCPUs may call `read` and `write` at the same time.
class Device {
public:
    Device() = default;
    Device(const Device&) = default;
    Device(Device&&) = default;
    Device& operator=(const Device&) = default;
    Device& operator=(Device&&) = default;
    virtual ~Device() = default;

    /// A name for people, which need not be unique.
    [[nodiscard]] virtual std::string name() const = 0;
    /// An access at a guest address inside one of the device's ranges. If the class is also a DevicePio or a
    /// DeviceMmio, and is registered by a pointer whose type shows that, it is called through that interface
    /// on the bus in question.
    virtual void read(std::uint64_t address, std::span<std::uint8_t> data, IoType type) = 0;
    /// A write of 1 to 8 bytes, or more from a string instruction, at a guest address inside one of the
    /// device's ranges.
    virtual void write(std::uint64_t address, std::span<const std::uint8_t> data, IoType type) = 0;
    /// Called with the assigned resources before the device becomes reachable there, at a registration and at
    /// a move, and with an empty set after it has become unreachable. It runs on the thread that called the
    /// manager, while the manager holds no lock. An exception makes a registration or a move fail, and the
    /// function is then called again with the resources that the device keeps; exceptions during a removal
    /// are ignored.
    virtual void set_resources(const DeviceResources& resources) = 0;
};

/// Identifies a device as long as it is registered.
using InstanceId = std::uint32_t;

/// Why an operation of DeviceManager failed.
enum class DeviceManagerError : std::uint8_t {
    /// The pointer to the device is empty.
    no_device,
    /// No device has this id, or none is at this address.
    unknown_device,
    /// The parent is not registered.
    unknown_parent,
    /// Other devices name it as their parent.
    has_children,
    /// A resource is not available.
    resource_unavailable,
    /// A range of the device overlaps one that was registered on the bus directly.
    bus_conflict,
    /// The device requests a range on a bus for which it has no interface.
    no_interface,
    /// The device is being moved by another call.
    busy,
    /// The manager is being destroyed.
    ending,
};

/// The text of the error, for a message.
[[nodiscard]] constexpr std::string_view to_string(DeviceManagerError error) noexcept {
    switch (error) {
        case DeviceManagerError::no_device:
            return "no device given";
        case DeviceManagerError::unknown_device:
            return "no device has this instance id or address";
        case DeviceManagerError::unknown_parent:
            return "the parent bus is not registered";
        case DeviceManagerError::has_children:
            return "the bus still has devices";
        case DeviceManagerError::resource_unavailable:
            return "a resource is not available";
        case DeviceManagerError::bus_conflict:
            return "an address range is taken on the bus";
        case DeviceManagerError::no_interface:
            return "the device has no interface for the bus of one of its ranges";
        case DeviceManagerError::busy:
            return "the device is being moved";
        case DeviceManagerError::ending:
            return "the device manager is being destroyed";
    }
    return "unknown device manager error";
}

/// An error with its details. It converts to its kind, so that it can be compared with one and used in a
/// switch.
struct DeviceManagerFailure {
    DeviceManagerError kind;  ///< why the operation failed
    /// The resource and its holder: "IRQ 4 is held by COM1". Empty if the kind is sufficient.
    std::string detail;

    // NOLINTNEXTLINE(google-explicit-constructor): a failure can be compared with a kind
    /// The kind alone, for comparisons.
    operator DeviceManagerError() const noexcept { return kind; }
};
/// "a resource is not available: IRQ 4 is held by COM1".
[[nodiscard]] inline std::string to_string(const DeviceManagerFailure& failure) {
    std::string text(to_string(failure.kind));
    if (!failure.detail.empty()) {
        text += ": ";
        text += failure.detail;
    }
    return text;
}

/// A registered device as plain data, for the saved state of a machine.
struct DeviceRecord {
    InstanceId id{};                   ///< the id that the device keeps when it is restored
    std::string name;                  ///< the device's name
    std::optional<InstanceId> parent;  ///< the id of the device whose child it is
    DeviceResources resources;         ///< what it was assigned
    friend bool operator==(const DeviceRecord&, const DeviceRecord&) = default;
};

/// One registered device.
struct DeviceInfo {
    InstanceId id{};                   ///< the id of the device
    std::string name;                  ///< the device's name
    std::optional<InstanceId> parent;  ///< the id of the device whose child it is
    DeviceResources resources;         ///< what it is assigned
    /// The device, if it is a Device.
    std::shared_ptr<Device> device;
    /// Its bus interfaces, if it implements them itself.
    std::shared_ptr<DevicePio> pio;
    std::shared_ptr<DeviceMmio> mmio;  ///< the device on the memory bus, if it is on that

    /// What to save of the device, for DeviceManager::restore_device.
    [[nodiscard]] DeviceRecord record() const { return {id, name, parent, resources}; }
};

}  // namespace vmdevice::inline v0_2

// vmdevice/text.hpp

/// Addresses, ranges and resources as text, for log lines and messages.

namespace vmdevice::inline v0_2 {

namespace detail {

/// In lower-case hexadecimal with at least `digits` digits.
[[nodiscard]] inline std::string hexadecimal(std::uint64_t value, std::size_t digits = 1) {
    std::string text(digits < 16 ? 16 : digits, '0');
    std::size_t first = text.size();
    std::size_t written = 0;
    for (; value != 0 || written < digits; value >>= 4U, ++written) {
        text[--first] = "0123456789abcdef"[value & 0xFU];
    }
    text.erase(0, first);
    return text;
}

}  // namespace detail

/// "0x3f8".
[[nodiscard]] inline std::string to_string(PioAddress address) {
    return "0x" + detail::hexadecimal(address.value);
}
[[nodiscard]] inline std::string to_string(MmioAddress address) {
    return "0x" + detail::hexadecimal(address.value);
}
[[nodiscard]] inline std::string to_string(Number number) { return std::to_string(number.value); }

/// The first and the last address: "0x3f8-0x3ff" for addresses, "5-15" for numbers.
template <BusAddress A>
[[nodiscard]] std::string to_string(const BusRange<A>& range) {
    if constexpr (requires { to_string(range.base()); }) {
        return to_string(range.base()) + "-" + to_string(range.last());
    } else {
        return "0x" + detail::hexadecimal(range.base().value) + "-0x" +
               detail::hexadecimal(range.last().value);
    }
}

/// "52:54:00:00:00:01".
[[nodiscard]] inline std::string mac_to_string(const MacAddress& address) {
    std::string text;
    for (const std::uint8_t byte : address) {
        if (!text.empty()) {
            text += ':';
        }
        text += detail::hexadecimal(byte, 2);
    }
    return text;
}

[[nodiscard]] inline std::string to_string(const PioResource& owned) {
    return "pio " + to_string(owned.range);
}
[[nodiscard]] inline std::string to_string(const MmioResource& owned) {
    return "mmio " + to_string(owned.range);
}
/// "irq 4", "irq 4 (shared, edge)".
[[nodiscard]] inline std::string to_string(const LegacyIrqResource& owned) {
    std::string text = "irq " + std::to_string(owned.irq);
    if (owned.sharing != IrqSharing::exclusive) {
        text += owned.sharing == IrqSharing::edge ? " (shared, edge)" : " (shared, level)";
    }
    return text;
}
/// The first and how many: "msi-x 36+2".
[[nodiscard]] inline std::string to_string(const MsiIrqResource& owned) {
    const char* const kind = owned.type == MsiIrqType::pci_msi    ? "msi "
                             : owned.type == MsiIrqType::pci_msix ? "msi-x "
                                                                  : "generic-msi ";
    return kind + std::to_string(owned.base) + "+" + std::to_string(owned.count);
}
[[nodiscard]] inline std::string to_string(const MacAddressResource& owned) {
    return "mac " + mac_to_string(owned.address);
}
[[nodiscard]] inline std::string to_string(const KvmMemSlotResource& owned) {
    return "slot " + std::to_string(owned.slot);
}
template <std::same_as<Resource> R>
[[nodiscard]] std::string to_string(const R& resource) {
    return std::visit([](const auto& owned) { return to_string(owned); }, resource);
}
/// All of them, with two spaces between: "pio 0x3f8-0x3ff  irq 4".
template <std::same_as<DeviceResources> R>
[[nodiscard]] std::string to_string(const R& resources) {
    std::string text;
    for (const Resource& resource : resources) {
        if (!text.empty()) {
            text += "  ";
        }
        text += to_string(resource);
    }
    return text;
}

/// The request, as the subject of a message: "port range 0x3f8-0x3ff", "8 ports", "an IRQ", "IRQ 4".
[[nodiscard]] inline std::string to_string(const PioConstraint& wanted) {
    if (!wanted.base) {
        return std::to_string(wanted.size) + " ports";
    }
    const auto range = PioRange::create(*wanted.base, wanted.size);
    return range ? "port range " + to_string(*range)
                 : std::to_string(wanted.size) + " ports at " + to_string(*wanted.base);
}
[[nodiscard]] inline std::string to_string(const MmioConstraint& wanted) {
    std::string size = "0x" + detail::hexadecimal(wanted.size) + " bytes of memory";
    if (!wanted.base) {
        return size;
    }
    const auto range = MmioRange::create(*wanted.base, wanted.size);
    return range ? "memory range " + to_string(*range) : size + " at " + to_string(*wanted.base);
}
[[nodiscard]] inline std::string to_string(const LegacyIrqConstraint& wanted) {
    if (wanted.irq) {
        return wanted.count == 1 ? "IRQ " + std::to_string(*wanted.irq)
                                 : std::to_string(wanted.count) + " IRQs from " + std::to_string(*wanted.irq);
    }
    return wanted.count == 1 ? "an IRQ" : std::to_string(wanted.count) + " IRQs";
}
[[nodiscard]] inline std::string to_string(const MsiIrqConstraint& wanted) {
    return std::to_string(wanted.count) + " MSIs" +
           (wanted.base ? " from " + std::to_string(*wanted.base) : std::string());
}
[[nodiscard]] inline std::string to_string(const MacAddressConstraint& wanted) {
    return wanted.address ? "MAC address " + mac_to_string(*wanted.address) : "a MAC address";
}
[[nodiscard]] inline std::string to_string(const KvmMemSlotConstraint& wanted) {
    return std::to_string(wanted.count) + " memory slots" +
           (wanted.slot ? " from " + std::to_string(*wanted.slot) : std::string());
}
template <std::same_as<ResourceConstraint> C>
[[nodiscard]] std::string to_string(const C& constraint) {
    return std::visit([](const auto& wanted) { return to_string(wanted); }, constraint);
}

}  // namespace vmdevice::inline v0_2

// vmdevice/detail/device_node.hpp

/// One device in the tree of a DeviceManager.

namespace vmdevice::inline v0_2::detail {

/// The function that is notified of a device's resources, if there is one.
struct ResourceListener {
    void* object = nullptr;
    void (*call)(void* object, const DeviceResources& resources) = nullptr;

    void operator()(const DeviceResources& resources) const {
        if (call != nullptr) {
            call(object, resources);
        }
    }
};

/// The parts of a device. Without any pointer it is a name that holds resources.
struct DeviceParts {
    std::string name;
    std::shared_ptr<Device> device;
    std::shared_ptr<DevicePio> pio;
    std::shared_ptr<DeviceMmio> mmio;
    ResourceListener listener;
};

enum class DeviceNodeState : std::uint8_t {
    /// Its name and resources are reserved, and it is not visible yet.
    coming,
    ready,
    /// As ready, but other calls must not change it.
    moving,
    /// Being removed, and no longer visible.
    going,
};

/// The first of `ranges` that overlaps `wanted`, as text.
template <class A>
[[nodiscard]] std::optional<std::string> overlap_of(const std::expected<BusRange<A>, BusError>& wanted,
                                                    std::span<const BusRange<A>> ranges) {
    for (const BusRange<A>& range : ranges) {
        if (wanted && range.overlaps(*wanted)) {
            return to_string(range);
        }
    }
    return std::nullopt;
}

/// The reason why a request is refused, worded for the kind of the request.
template <class Wanted>
[[nodiscard]] std::string_view in_words(const Wanted& wanted, AllocError reason) {
    if (reason != AllocError::exhausted || std::holds_alternative<PioConstraint>(wanted) ||
        std::holds_alternative<MmioConstraint>(wanted)) {
        return to_string(reason);
    }
    const auto several = [](const auto& numbers) {
        if constexpr (requires { numbers.count; }) {
            return numbers.count > 1;
        } else {
            return false;
        }
    };
    return std::visit(several, wanted) ? "not so many are free" : "none is free";
}

/// Whether the numbers a..a+a_count-1 and b..b+b_count-1 have one in common.
[[nodiscard]] constexpr bool overlap(std::uint64_t a, std::uint64_t a_count, std::uint64_t b,
                                     std::uint64_t b_count) noexcept {
    return a < b + b_count && b < a + a_count;
}

/// A device of the tree. It also implements the bus interfaces for a Device that does not have them itself.
template <class Resources = DeviceResources>
struct DeviceNode final : DevicePio, DeviceMmio {
    explicit DeviceNode(const DeviceParts& parts)
        : name(parts.name),
          device(parts.device),
          pio(parts.pio),
          mmio(parts.mmio),
          listener(parts.listener) {}

    void pio_read(PioAddress base, PioOffset offset, std::span<std::uint8_t> data) override {
        device->read(std::uint64_t{base.value} + offset, data, IoType::pio);
    }
    void pio_write(PioAddress base, PioOffset offset, std::span<const std::uint8_t> data) override {
        device->write(std::uint64_t{base.value} + offset, data, IoType::pio);
    }
    void mmio_read(MmioAddress base, MmioOffset offset, std::span<std::uint8_t> data) override {
        device->read(base.value + offset, data, IoType::mmio);
    }
    void mmio_write(MmioAddress base, MmioOffset offset, std::span<const std::uint8_t> data) override {
        device->write(base.value + offset, data, IoType::mmio);
    }

    [[nodiscard]] DevicePio* pio_side() noexcept { return pio ? pio.get() : device ? this : nullptr; }
    [[nodiscard]] DeviceMmio* mmio_side() noexcept { return mmio ? mmio.get() : device ? this : nullptr; }
    /// Whether there is a device at all.
    [[nodiscard]] bool on_bus() const noexcept { return device || pio || mmio; }
    [[nodiscard]] bool is_visible() const noexcept {
        return state == DeviceNodeState::ready || state == DeviceNodeState::moving;
    }

    /// Whether the device has an interface for the bus of the wanted range. A reservation needs none.
    template <class Wanted>
    [[nodiscard]] bool has_interface_for(const Wanted& wanted) const noexcept {
        const bool ports = wanted.index() == 0;
        const bool memory = wanted.index() == 1;
        return !on_bus() || device || ((!ports || pio) && (!memory || mmio));
    }

    /// How many ranges of the device are on a bus.
    [[nodiscard]] std::size_t ranges() const noexcept {
        std::size_t count = 0;
        for (const auto& resource : resources) {
            count += on_bus() && (std::holds_alternative<PioResource>(resource) ||
                                  std::holds_alternative<MmioResource>(resource))
                         ? 1U
                         : 0U;
        }
        return count;
    }
    template <class Kind, class A>
    [[nodiscard]] std::optional<BusRange<A>> range_at(A address) const noexcept {
        for (const auto& resource : resources) {
            const auto* const owned = std::get_if<Kind>(&resource);
            if (owned != nullptr && owned->range.contains(address)) {
                return owned->range;
            }
        }
        return std::nullopt;
    }
    [[nodiscard]] bool has_irq(std::uint32_t irq) const noexcept {
        for (const auto& resource : resources) {
            const auto* const line = std::get_if<LegacyIrqResource>(&resource);
            if (line != nullptr && line->irq == irq) {
                return true;
            }
        }
        return false;
    }
    /// How many times the device holds exactly this resource.
    [[nodiscard]] std::size_t holds(const Resource& wanted) const noexcept {
        std::size_t count = 0;
        for (const auto& resource : resources) {
            count += resource == wanted ? 1U : 0U;
        }
        return count;
    }

    /// Explains why a fixed request is refused, if this device holds a part of it: "IRQ 4 is held by COM1".
    [[nodiscard]] std::optional<std::string> explain(const ResourceConstraint& wanted) const {
        for (const auto& resource : resources) {
            const auto held = std::visit([&](const auto& one) { return held_of(one, resource); }, wanted);
            if (held) {
                return to_string(wanted) + held->what + " is held by " + name + held->how;
            }
        }
        return std::nullopt;
    }

    InstanceId id = 0;
    std::string name;
    std::optional<InstanceId> parent;
    Resources resources;
    std::shared_ptr<Device> device;
    std::shared_ptr<DevicePio> pio;
    std::shared_ptr<DeviceMmio> mmio;
    ResourceListener listener;
    DeviceNodeState state = DeviceNodeState::coming;
    std::size_t children = 0;
    /// Increases with every registration.
    std::uint64_t sequence = 0;

private:
    /// The part that is held, if that is not the whole request, and how it is held.
    struct Held {
        std::string what;
        std::string how;
    };

    template <class Kind, class A>
    static std::optional<Held> held_range(std::optional<A> base, OffsetOf<A> size, const Resource& resource) {
        const auto* const owned = std::get_if<Kind>(&resource);
        const auto wanted =
            base ? BusRange<A>::create(*base, size) : std::unexpected(BusError::invalid_range);
        if (owned == nullptr || !wanted || !owned->range.overlaps(*wanted)) {
            return std::nullopt;
        }
        return Held{owned->range == *wanted ? "" : ": " + to_string(owned->range), ""};
    }
    static std::optional<Held> held_of(const PioConstraint& wanted, const Resource& resource) {
        return held_range<PioResource>(wanted.base, wanted.size, resource);
    }
    static std::optional<Held> held_of(const MmioConstraint& wanted, const Resource& resource) {
        return held_range<MmioResource>(wanted.base, wanted.size, resource);
    }
    static std::optional<Held> held_of(const LegacyIrqConstraint& wanted, const Resource& resource) {
        const auto* const line = std::get_if<LegacyIrqResource>(&resource);
        if (line == nullptr || !wanted.irq || !overlap(*wanted.irq, wanted.count, line->irq, 1) ||
            (line->sharing != IrqSharing::exclusive && line->sharing == wanted.sharing)) {
            return std::nullopt;
        }
        Held held{wanted.count == 1 ? "" : ": IRQ " + std::to_string(line->irq), ""};
        if (line->sharing != IrqSharing::exclusive) {
            held.how = line->sharing == IrqSharing::edge ? ", which shares it as an edge-triggered line"
                                                         : ", which shares it as a level-triggered line";
        } else if (wanted.sharing != IrqSharing::exclusive) {
            held.how = ", which does not share it";
        }
        return held;
    }
    static std::optional<Held> held_of(const MsiIrqConstraint& wanted, const Resource& resource) {
        const auto* const owned = std::get_if<MsiIrqResource>(&resource);
        if (owned == nullptr || !wanted.base ||
            !overlap(*wanted.base, wanted.count, owned->base, owned->count)) {
            return std::nullopt;
        }
        return Held{": " + to_string(*owned), ""};
    }
    static std::optional<Held> held_of(const MacAddressConstraint& wanted, const Resource& resource) {
        const auto* const owned = std::get_if<MacAddressResource>(&resource);
        if (owned == nullptr || owned->address != wanted.address) {
            return std::nullopt;
        }
        return Held{};
    }
    static std::optional<Held> held_of(const KvmMemSlotConstraint& wanted, const Resource& resource) {
        const auto* const owned = std::get_if<KvmMemSlotResource>(&resource);
        if (owned == nullptr || !wanted.slot || !overlap(*wanted.slot, wanted.count, owned->slot, 1)) {
            return std::nullopt;
        }
        return Held{": " + to_string(*owned), ""};
    }
};

}  // namespace vmdevice::inline v0_2::detail

// vmdevice/detail/thread_annotations.hpp

/// Clang's thread-safety annotations, which a standard attribute cannot spell for every compiler; empty
/// elsewhere. https://clang.llvm.org/docs/ThreadSafetyAnalysis.html

#if defined(__clang__)
#define VMDEVICE_THREAD_ATTRIBUTE(x) __attribute__((x))
#else
#define VMDEVICE_THREAD_ATTRIBUTE(x)
#endif

#define VMDEVICE_CAPABILITY(name) VMDEVICE_THREAD_ATTRIBUTE(capability(name))
#define VMDEVICE_SCOPED_CAPABILITY VMDEVICE_THREAD_ATTRIBUTE(scoped_lockable)
#define VMDEVICE_GUARDED_BY(mutex) VMDEVICE_THREAD_ATTRIBUTE(guarded_by(mutex))
#define VMDEVICE_REQUIRES(mutex) VMDEVICE_THREAD_ATTRIBUTE(requires_capability(mutex))
#define VMDEVICE_EXCLUDES(mutex) VMDEVICE_THREAD_ATTRIBUTE(locks_excluded(mutex))
#define VMDEVICE_ACQUIRE(...) VMDEVICE_THREAD_ATTRIBUTE(acquire_capability(__VA_ARGS__))
#define VMDEVICE_TRY_ACQUIRE(...) VMDEVICE_THREAD_ATTRIBUTE(try_acquire_capability(__VA_ARGS__))
#define VMDEVICE_RELEASE(...) VMDEVICE_THREAD_ATTRIBUTE(release_capability(__VA_ARGS__))
#define VMDEVICE_NO_ANALYSIS VMDEVICE_THREAD_ATTRIBUTE(no_thread_safety_analysis)

// vmdevice/detail/mutex.hpp

/// std::mutex and its guard with thread-safety annotations, which libstdc++ lacks.

namespace vmdevice::inline v0_2::detail {

class VMDEVICE_CAPABILITY("mutex") Mutex {
public:
    void lock() VMDEVICE_ACQUIRE() { mutex_.lock(); }
    [[nodiscard]] bool try_lock() VMDEVICE_TRY_ACQUIRE(true) { return mutex_.try_lock(); }
    void unlock() VMDEVICE_RELEASE() { mutex_.unlock(); }

private:
    std::mutex mutex_;
};

class VMDEVICE_SCOPED_CAPABILITY LockGuard {
public:
    explicit LockGuard(Mutex& mutex) VMDEVICE_ACQUIRE(mutex) : mutex_(mutex) { mutex_.lock(); }
    LockGuard(const LockGuard&) = delete;
    LockGuard& operator=(const LockGuard&) = delete;
    ~LockGuard() VMDEVICE_RELEASE() { mutex_.unlock(); }

private:
    Mutex& mutex_;
};

}  // namespace vmdevice::inline v0_2::detail

// vmdevice/detail/quietly.hpp

/// Calls to the user's code from places that cannot propagate exceptions.

namespace vmdevice::inline v0_2::detail {

/// Calls `function` and ignores its exceptions. With -fno-exceptions it is a plain call.
template <class F>
void quietly(F&& function) noexcept {
#if defined(__cpp_exceptions)
    try {
        function();
    } catch (...) {
    }
#else
    function();
#endif
}

}  // namespace vmdevice::inline v0_2::detail

// vmdevice/detail/visibility.hpp

/// VMDEVICE_SHARED marks a variable that exists once per process: a program and its shared libraries that
/// each include this header share it, whatever visibility they are compiled with. On Windows, whose libraries
/// do not share such variables, a bus must be used only by the module that created it.

#if defined(__ELF__) || defined(__APPLE__)
#define VMDEVICE_SHARED [[gnu::visibility("default")]]
#else
#define VMDEVICE_SHARED
#endif

// vmdevice/dispatch/asymmetric_fence.hpp

/// An asymmetric fence pair: close to free on the dispatch path, expensive on the removal path (compare
/// `folly::asymmetric_thread_fence_light` and `_heavy`, and the membarrier flavour of liburcu).
///
/// "Publish a slot, then read the table" against "change the table, then read the slots" needs a full fence
/// on both sides. Where Linux offers membarrier(2), the rare side issues a full fence on every CPU that runs
/// this process, and the frequent side only has to prevent reordering by the compiler. On other systems,
/// and under ThreadSanitizer, which cannot see membarrier, both sides use sequentially consistent operations.

#if defined(__has_feature)
#if __has_feature(thread_sanitizer)
#define VMDEVICE_THREAD_SANITIZER 1
#endif
#elif defined(__SANITIZE_THREAD__)
#define VMDEVICE_THREAD_SANITIZER 1
#endif

#if defined(__linux__) && !defined(VMDEVICE_THREAD_SANITIZER) && !defined(VMDEVICE_PORTABLE_FENCES) && \
    __has_include(<sys/syscall.h>) && __has_include(<unistd.h>)
#include <sys/syscall.h>
#include <unistd.h>
#if defined(SYS_membarrier)
#define VMDEVICE_HAS_MEMBARRIER 1
#endif
#endif

namespace vmdevice::inline v0_2::detail {

#if defined(VMDEVICE_HAS_MEMBARRIER)

/// membarrier(2) commands (Linux 4.14 and later).
enum class Membarrier : int { private_expedited = 1 << 3, register_private_expedited = 1 << 4 };

inline bool membarrier(Membarrier command) noexcept {
    return ::syscall(SYS_membarrier, static_cast<int>(command), 0, 0) == 0;
}

/// Whether the light side needs no fence. The first call decides this and registers the process with the
/// kernel.
inline bool asymmetric_fences() noexcept {
    static const bool available = membarrier(Membarrier::register_private_expedited);
    return available;
}

/// Limits the sustained rate of heavy_fence() to interruptions_per_second. Each call interrupts every
/// processor that runs this process, and a guest that makes the VMM plug devices or move PCI windows in a
/// loop must not slow down the other vCPUs in that way. A burst is not delayed; further callers wait for
/// their turn. (This is a leaky bucket, stored as the time at which it will be empty.)
class FencePace {
public:
    void wait_for_turn() noexcept {
        using namespace std::chrono;
        const auto now = duration_cast<nanoseconds>(steady_clock::now().time_since_epoch()).count();
        std::int64_t empty_at = empty_at_.load(std::memory_order_relaxed);
        std::int64_t next = 0;
        do {
            next = (empty_at > now ? empty_at : now) + interval;
        } while (!empty_at_.compare_exchange_weak(empty_at, next, std::memory_order_relaxed));
        if (next - now > burst * interval) {
            std::this_thread::sleep_for(nanoseconds(next - now - burst * interval));
        }
    }

private:
    static constexpr std::int64_t interruptions_per_second = 5'000;
    static constexpr std::int64_t interval = 1'000'000'000 / interruptions_per_second;
    static constexpr std::int64_t burst = 1000;

    std::atomic<std::int64_t> empty_at_{0};
};
VMDEVICE_SHARED inline constinit FencePace fence_pace;

/// The expensive side. For every other thread that executes the light side, at least one of two things holds:
/// its loads after the light side see every store that this thread made before the call, or this thread sees,
/// after the call, every store that the other thread made before the light side.
inline void heavy_fence() noexcept {
    if (!asymmetric_fences()) {
        return;
    }
    fence_pace.wait_for_turn();
    if (membarrier(Membarrier::private_expedited)) {
        return;
    }
    // A child of fork() may have lost the registration.
    if (membarrier(Membarrier::register_private_expedited) && membarrier(Membarrier::private_expedited)) {
        return;
    }
    // A system call filter that was installed in the meantime forbids the call. The light side still relies
    // on this side, so wait for longer than any processor delays a store.
    std::this_thread::sleep_for(std::chrono::milliseconds(20));
}

#else

constexpr bool asymmetric_fences() noexcept { return false; }
/// Does nothing, because both sides use sequentially consistent loads and stores.
inline void heavy_fence() noexcept {}

#endif

}  // namespace vmdevice::inline v0_2::detail

// vmdevice/dispatch/bus_tables.hpp

/// Tables that map an address to the entry that owns it. Readers take no lock while a writer changes a table.
///
/// The entries of both tables never move. An entry is written before it is published, and is not written
/// again while a slot protects it (hazard_pointers.hpp), so its fields are not atomic. The words that refer
/// to it are atomic and written by one thread at a time (the caller holds a mutex). Loading such a word is D3
/// of hazard_pointers.hpp and clearing it is R1; both are sequentially consistent, as is necessary if the
/// fences are not asymmetric. On x86 such a load costs the same as an acquire load.

namespace vmdevice::inline v0_2::detail {

/// One registration, as dispatch sees it.
template <BusAddress A, class Device>
struct TableEntry {
    Device* device;
    OffsetOf<A> base;
    /// Never 0, since a range is neither empty nor the whole space.
    OffsetOf<A> size;

    [[nodiscard]] OffsetOf<A> last() const noexcept { return static_cast<OffsetOf<A>>(base + (size - 1)); }
};

/// The port space: for each port, a word with the number of the entry that owns it. A lookup takes two loads,
/// whatever the number of devices. The table reserves 2.25 MiB of address space, of which a PC touches a few
/// pages.
template <class Device>
class PortTable {
public:
    using Address = PioAddress;
    using Entry = TableEntry<PioAddress, Device>;

    PortTable() : words_(make_zeroed<std::uint32_t>(port_count)), entries_(make_zeroed<Entry>(entry_count)) {}

    /// The entry that owns `port`, or nullptr.
    [[nodiscard]] const Entry* find(PioAddress port) const noexcept {
        const std::uint32_t number = std::atomic_ref(words_[port.value]).load(std::memory_order_seq_cst);
        return number == 0 ? nullptr : &entries_[number];
    }

    /// Returns an entry whose publication cannot fail. It must be published or discarded. `live`, which
    /// visits the published entries, is not used.
    template <class Live>
    [[nodiscard]] Entry* allocate(PioRange range, Device* device, const Live& /*live*/) {
        if (free_.capacity() <= used_) {
            free_.reserve(2 * free_.capacity() + 16);  // so that recycle() need not allocate
        }
        Entry* entry = nullptr;
        if (!free_.empty()) {
            entry = free_.back();
            free_.pop_back();
        } else if (used_ + 1 < entry_count) {
            entry = &entries_[++used_];
        } else {
            out_of_memory();
        }
        *entry = {device, range.base().value, range.size()};
        return entry;
    }
    void recycle(Entry* entry) noexcept { free_.push_back(entry); }
    /// Takes back an entry that was not published.
    void discard(Entry* entry) noexcept { recycle(entry); }

    void publish(const Entry& entry) noexcept {
        const auto number = static_cast<std::uint32_t>(&entry - entries_.get());
        for (std::uint32_t port = entry.base; port <= entry.last(); ++port) {
            std::atomic_ref(words_[port]).store(number, std::memory_order_release);
        }
    }
    /// Removes `entry` from the ports at which no other entry has been published since.
    void unpublish(const Entry& entry) noexcept {
        const auto number = static_cast<std::uint32_t>(&entry - entries_.get());
        for (std::uint32_t port = entry.base; port <= entry.last(); ++port) {
            const std::atomic_ref word(words_[port]);
            if (word.load(std::memory_order_relaxed) == number) {
                word.store(0, std::memory_order_seq_cst);
            }
        }
    }

    /// What must be kept until earlier lookups have ended: nothing, because this table is never replaced.
    struct Retired {};
    [[nodiscard]] Retired take_retired() noexcept { return {}; }

private:
    static constexpr std::size_t port_count = 0x10000;
    /// Number 0 stands for no entry. At most one entry per port is published, and as many again may be
    /// retired while a slot protects them.
    static constexpr std::size_t entry_count = 2 * port_count;

    ZeroedArray<std::uint32_t> words_;
    ZeroedArray<Entry> entries_;
    std::uint32_t used_ = 0;
    std::vector<Entry*> free_;
};

/// Memory: a hash table of blocks, so that a lookup costs the same for 1 and for 10,000 devices.
///
/// A range is entered under each block that it touches. A block is 2^k bytes large and aligned, where k is
/// the largest multiple of 4 for which 2^k does not exceed the size of the range. A range therefore touches 1
/// to 17 blocks; a page at a page boundary touches one. The table records which values of k occur, its
/// *classes*; a lookup tries the block of the address in each class. Virtual machines have one to four
/// classes: a page or a few per device, and some large windows.
///
/// Collisions are resolved by linear probing. An entry contains the range that it owns, so entries that share
/// a block, and classes that share the table, need nothing further. A slot changes from empty to an entry, to
/// the tombstone and to another entry; the value that one load returns is correct for the time of that load.
/// When slots run short or a class is new, a new table is built and published, and the old one is kept until
/// the lookups in it have ended.
template <class Device>
class AddressTable {
    struct Table;

public:
    using Address = MmioAddress;
    using Entry = TableEntry<MmioAddress, Device>;

    AddressTable() : current_(make_table(0, 0)) { table_.store(current_.get(), std::memory_order_release); }

    /// The entry that owns `address`, or nullptr.
    [[nodiscard]] const Entry* find(MmioAddress address) const noexcept {
        const Table& table = *table_.load(std::memory_order_seq_cst);
        const std::size_t slot = table.slot_of(address.value, table.block_classes[0]);
        const Entry* const entry = table.slots[slot].load(std::memory_order_seq_cst);
        // Nearly every lookup ends here, so this part is inline.
        if (address.value - entry->base < entry->size) [[likely]] {
            return entry;
        }
        return find_further(table, address.value, slot, entry);
    }

    /// Returns an entry whose publication cannot fail. It must be published or discarded. `live` calls its
    /// argument with each entry that is published now.
    template <class Live>
    [[nodiscard]] Entry* allocate(MmioRange range, Device* device, const Live& live) {
        if (free_.empty()) {
            grow_pool();
        }
        const unsigned shift = class_shift(range.base().value, range.last().value);
        const std::size_t blocks = block_count(range.base().value, range.last().value, shift);
        Table* table = current_.get();
        if ((table->classes & class_bit(shift)) == 0 ||
            (table->used + promised_ + blocks) * inverse_load > table->mask + 1) {
            rebuild(live, table_classes(live) | promised_classes_ | class_bit(shift), promised_ + blocks);
        }
        Entry* const entry = free_.back();
        free_.pop_back();
        *entry = {device, range.base().value, range.size()};
        promised_ += blocks;
        promised_classes_ |= class_bit(shift);
        return entry;
    }
    void recycle(Entry* entry) noexcept { free_.push_back(entry); }
    /// Takes back an entry that was not published.
    void discard(Entry* entry) noexcept {
        release_promise(*entry);
        recycle(entry);
    }

    void publish(const Entry& entry) noexcept {
        release_promise(entry);
        insert(*current_, entry);
    }

    void unpublish(const Entry& entry) noexcept {
        Table& table = *current_;
        const unsigned shift = class_shift(entry.base, entry.last());
        const BlockClass block_class = make_class(shift);
        for (std::uint64_t block = entry.base >> shift;; ++block) {
            std::size_t slot = table.slot_of(block << shift, block_class);
            while (table.slots[slot].load(std::memory_order_relaxed) != &entry) {
                slot = (slot + 1) & table.mask;
            }
            table.slots[slot].store(&tombstone, std::memory_order_seq_cst);
            // Tombstones at the end of a run have no purpose, because no search continues past them to an
            // entry.
            if (table.slots[(slot + 1) & table.mask].load(std::memory_order_relaxed) == &empty) {
                while (table.slots[slot].load(std::memory_order_relaxed) == &tombstone) {
                    table.slots[slot].store(&empty, std::memory_order_release);
                    --table.used;
                    slot = (slot - 1) & table.mask;
                }
            }
            if (block == entry.last() >> shift) {
                break;
            }
        }
    }

private:
    /// Continues where find() stopped: `entry`, in `slot` of the first class, does not own the address.
    [[gnu::noinline]] static const Entry* find_further(const Table& table, std::uint64_t address,
                                                       std::size_t slot, const Entry* entry) noexcept {
        for (unsigned i = 0;;) {
            while (entry != &empty) {
                slot = (slot + 1) & table.mask;
                entry = table.slots[slot].load(std::memory_order_seq_cst);
                if (address - entry->base < entry->size) {
                    return entry;
                }
            }
            if (++i >= table.class_count) {
                return nullptr;
            }
            slot = table.slot_of(address, table.block_classes[i]);
            entry = table.slots[slot].load(std::memory_order_seq_cst);
            if (address - entry->base < entry->size) {
                return entry;
            }
        }
    }

    struct BlockClass {
        /// Reduces an address to the beginning of its block.
        std::uint64_t mask;
        /// 2^64 / golden ratio / block size, which has the effect of multiplying the number of the block by
        /// 2^64 / golden ratio.
        std::uint64_t multiplier;
    };
    static constexpr BlockClass make_class(unsigned shift) noexcept {
        return {~std::uint64_t{0} << shift, (0x9E37'79B9'7F4A'7C15U >> shift) | 1};
    }

    struct Table {
        std::size_t mask = 0;
        unsigned hash_shift = 0;
        /// The first class can be looked up in an empty table as well.
        unsigned class_count = 0;
        std::array<BlockClass, 16> block_classes{};
        std::uint32_t classes = 0;
        /// The number of slots that are not empty. Only the writer uses it.
        std::size_t used = 0;
        std::unique_ptr<std::atomic<const Entry*>[]> slots;

        /// The top bits of a product with the golden ratio spread regular block numbers evenly.
        [[nodiscard]] std::size_t slot_of(std::uint64_t address,
                                          const BlockClass& block_class) const noexcept {
            return static_cast<std::size_t>(((address & block_class.mask) * block_class.multiplier) >>
                                            hash_shift);
        }
    };
    using TablePointer = Owned<Table>;

public:
    /// What must be kept until earlier lookups have ended.
    using Retired = std::vector<TablePointer>;
    [[nodiscard]] Retired take_retired() noexcept { return std::exchange(retired_, {}); }

private:
    /// At most one slot in this many is in use, so that most lookups end at the first one.
    static constexpr std::size_t inverse_load = 3;

    /// The contents of slots without an entry; neither owns an address. A search ends at an empty slot and
    /// continues past a tombstone.
    static constexpr Entry empty{nullptr, 0, 0};
    static constexpr Entry tombstone{nullptr, 0, 0};

    /// log2 of the block size of a range.
    static unsigned class_shift(std::uint64_t base, std::uint64_t last) noexcept {
        // The size is last - base + 1; it fits, because a range never covers the whole space.
        return (static_cast<unsigned>(std::bit_width(last - base + 1)) - 1) & ~3U;
    }
    static std::size_t block_count(std::uint64_t base, std::uint64_t last, unsigned shift) noexcept {
        return static_cast<std::size_t>((last >> shift) - (base >> shift) + 1);
    }
    static std::uint32_t class_bit(unsigned shift) noexcept {
        return std::uint32_t{1} << ((shift / 4) & 15U);
    }

    void release_promise(const Entry& entry) noexcept {
        promised_ -= block_count(entry.base, entry.last(), class_shift(entry.base, entry.last()));
        if (promised_ == 0) {
            promised_classes_ = 0;
        }
    }

    template <class Live>
    static std::uint32_t table_classes(const Live& live) noexcept {
        std::uint32_t classes = 0;
        live([&](const Entry& entry) { classes |= class_bit(class_shift(entry.base, entry.last())); });
        return classes;
    }

    static TablePointer make_table(std::size_t needed, std::uint32_t classes) {
        TablePointer table(new Table);
        const std::size_t size = std::bit_ceil(needed < 16 ? 16 : needed);
        table->mask = size - 1;
        table->hash_shift = 64 - static_cast<unsigned>(std::countr_zero(size));
        table->classes = classes;
        for (unsigned shift = 0; shift < 64; shift += 4) {
            if ((classes & class_bit(shift)) != 0) {
                table->block_classes[table->class_count++] = make_class(shift);
            }
        }
        table->slots = std::make_unique<std::atomic<const Entry*>[]>(size);
        for (std::size_t slot = 0; slot < size; ++slot) {
            table->slots[slot].store(&empty, std::memory_order_relaxed);
        }
        return table;
    }

    static void insert(Table& table, const Entry& entry) noexcept {
        const unsigned shift = class_shift(entry.base, entry.last());
        const BlockClass block_class = make_class(shift);
        for (std::uint64_t block = entry.base >> shift;; ++block) {
            std::size_t slot = table.slot_of(block << shift, block_class);
            const Entry* there = table.slots[slot].load(std::memory_order_relaxed);
            while (there != &empty && there != &tombstone) {
                slot = (slot + 1) & table.mask;
                there = table.slots[slot].load(std::memory_order_relaxed);
            }
            table.used += there == &empty ? 1 : 0;
            table.slots[slot].store(&entry, std::memory_order_release);
            if (block == entry.last() >> shift) {
                break;
            }
        }
    }

    /// Publishes a new table of the same entries with room for `blocks` more, and as much again.
    template <class Live>
    void rebuild(const Live& live, std::uint32_t classes, std::size_t blocks) {
        live([&](const Entry& entry) {
            blocks += block_count(entry.base, entry.last(), class_shift(entry.base, entry.last()));
        });
        TablePointer fresh = make_table(blocks * 2 * inverse_load, classes);
        live([&](const Entry& entry) { insert(*fresh, entry); });
        retired_.reserve(retired_.size() + 1);
        // No entry is removed here: a lookup in either table finds the same entries. But the old table is
        // freed after a heavy fence, so this store is R1 as well.
        table_.store(fresh.get(), std::memory_order_seq_cst);
        retired_.push_back(std::exchange(current_, std::move(fresh)));
    }

    /// Entries are allocated in blocks of growing size, so that those of a large bus are close together.
    void grow_pool() {
        const std::size_t count = pool_size_ < 16 ? 16 : pool_size_;
        free_.reserve(pool_size_ + count);  // so that recycle() need not allocate
        pool_.push_back(make_zeroed<Entry>(count));
        pool_size_ += count;
        for (std::size_t i = count; i-- > 0;) {
            free_.push_back(&pool_.back()[i]);
        }
    }

    std::atomic<const Table*> table_{nullptr};
    TablePointer current_;
    std::vector<TablePointer> retired_;
    std::vector<ZeroedArray<Entry>> pool_;
    std::size_t pool_size_ = 0;
    std::vector<Entry*> free_;
    /// Slots and classes that allocated entries will need when they are published.
    std::size_t promised_ = 0;
    std::uint32_t promised_classes_ = 0;
};

}  // namespace vmdevice::inline v0_2::detail

// vmdevice/detail/device_lock.hpp

/// The lock of a device, and the number of such locks that the calling thread holds.

namespace vmdevice::inline v0_2::detail {

/// How many locks of devices the calling thread holds. While it holds one, a thread that is inside the device
/// may be waiting for that lock, so the calling thread must not wait for that thread in turn (see
/// may_wait_for_readers()).
VMDEVICE_SHARED inline constinit thread_local unsigned held_device_locks = 0;

#if !defined(NDEBUG)
/// The mutexes that the calling thread holds, for an assertion; those beyond this many are not checked.
VMDEVICE_SHARED inline constinit thread_local std::array<const Mutex*, 16> held_mutexes{};

/// Locks the mutex. A thread that has locked it already would wait for itself for ever, which an assertion reports.
inline void lock_checked(Mutex& mutex) VMDEVICE_ACQUIRE(mutex) VMDEVICE_NO_ANALYSIS {
    // Parts of a program that are compiled with NDEBUG lock and unlock as well, and leave entries behind. So the list decides
    // only if the mutex is in use, and is cleared before the first lock that the thread takes.
    if (held_device_locks == 0) {
        held_mutexes.fill(nullptr);
    }
    if (!mutex.try_lock()) {
        for ([[maybe_unused]] const Mutex* const held : held_mutexes) {
            assert(held != &mutex &&
                   "this thread is inside the device, or has a guard of lock(): it would wait for itself");
        }
        mutex.lock();
    }
    for (const Mutex*& free : held_mutexes) {
        if (free == nullptr) {
            free = &mutex;
            break;
        }
    }
}
inline void unlock_checked(Mutex& mutex) VMDEVICE_RELEASE(mutex) VMDEVICE_NO_ANALYSIS {
    for (const Mutex*& held : held_mutexes) {
        if (held == &mutex) {
            held = nullptr;
        }
    }
    mutex.unlock();
}
#endif

/// Holds a device's mutex.
class VMDEVICE_SCOPED_CAPABILITY DeviceLock {
public:
    explicit DeviceLock(Mutex& mutex) VMDEVICE_ACQUIRE(mutex) : mutex_(mutex) {
#if defined(NDEBUG)
        mutex_.lock();
#else
        lock_checked(mutex_);
#endif
        ++held_device_locks;
    }
    DeviceLock(const DeviceLock&) = delete;
    DeviceLock& operator=(const DeviceLock&) = delete;
    ~DeviceLock() VMDEVICE_RELEASE() {
        --held_device_locks;
#if defined(NDEBUG)
        mutex_.unlock();
#else
        unlock_checked(mutex_);
#endif
    }

private:
    Mutex& mutex_;
};

}  // namespace vmdevice::inline v0_2::detail

// vmdevice/dispatch/hazard_pointers.hpp

/// Safe memory reclamation for lock-free dispatch, in the manner of hazard pointers (Michael, "Hazard
/// Pointers: Safe Memory Reclamation for Lock-Free Objects", 2004).
///
/// Each thread owns a *reader record* of *slots*, one for each nested dispatch. A slot holds 0 (empty), the
/// identity of a bus (the thread is searching that bus), or the identity of an entry (the thread is executing
/// in that entry's device). Only the owner writes its slots, except for the tag described below; it never
/// waits and never retries. Removal unpublishes the entry, waits for the *grace period* (the end of every
/// search that may have found the entry), and *retires* the entry until no slot protects it.
///
/// The order of events, and why it is sufficient:
///
///     dispatch                              removal
///     D1  slot = bus                        R1  unpublish the entry
///     D2  light fence                       R2  heavy fence
///     D3  look the entry up                 R3  read all slots
///     D4  slot = entry   (release)          R4  wait while a slot is the bus (set before R2) or the entry
///     D5  call the device                   R5  return, reuse or free (acquire, from R3 and R4)
///     D6  slot = 0       (release)
///
/// Either R3 sees D1, or D3 sees R1: by the fences of asymmetric_fence.hpp, or if those are not asymmetric,
/// because all four operations are sequentially consistent. (R2 is omitted if no other thread has a record. A
/// thread claims a record before D1 with a sequentially consistent exchange; R1 and the test for records are
/// sequentially consistent too. So if the test misses the thread, the thread's D3 sees R1.) In the second
/// case the dispatch does not find the entry. In the first case R4 waits until the search has ended and, if
/// the search found the entry, until D6. R4 reads what D4 or D6 released, so everything that the dispatch
/// read from the tables and did in the device happens before R5. No dispatch that starts later finds the
/// entry, so R4 terminates.
///
/// A slot that goes bus -> 0 -> bus between two polls of R4 is indistinguishable from one long search. The
/// waiter therefore sets the lowest bit of the slot, its tag; the search has ended once the tagged value is
/// gone.

#if defined(__MINGW32__)
#include <cxxabi.h>
#endif

namespace vmdevice::inline v0_2::detail {

/// The content of a slot; see above. An identity is the address of an object, whose lowest bit is 0.
using Identity = std::uintptr_t;
using ReaderSlot = std::atomic<Identity>;

inline constexpr Identity empty_slot = 0;
inline constexpr Identity waiter_tag = 1;

template <class T>
[[nodiscard]] Identity identity_of(const T* object) noexcept {
    static_assert(alignof(T) > 1);
    return reinterpret_cast<Identity>(object);
}

/// The depth to which dispatches may nest, as when a device accesses another one through the bus. If a guest
/// makes a device access itself, this limit is reached before the stack overflows.
inline constexpr std::size_t max_nesting = 64;

/// The slots of one thread. Records are reused and never freed, so that a waiter may read any record at any
/// time.
/// Aligned to two cache lines, which are fetched in pairs.
struct alignas(128) ReaderRecord {
    std::array<ReaderSlot, max_nesting> slots{};
    std::atomic<bool> claimed{false};
    ReaderRecord* next = nullptr;
};

/// All records: one list for the process, which a program and its shared libraries share (hence the
/// visibility). The list only grows, to the greatest number of threads that have dispatched at the same time.
/// Its first records are static, so that the first dispatch of a thread does not allocate.
struct ReaderRecordList {
    static constexpr std::size_t static_count = 64;

    std::array<ReaderRecord, static_count> first_ones{};
    std::atomic<std::size_t> static_used{0};
    std::atomic<ReaderRecord*> head{nullptr};
};
VMDEVICE_SHARED inline constinit ReaderRecordList reader_records;

/// The state of the calling thread. A trivial type, so that access needs no initialisation check.
struct ThreadState {
    /// The thread has a record, is in no dispatch, and needs no real fence as D2. One load tests for this
    /// common case. The flag is set and tested and never counted, so that a dispatch does not depend on a
    /// value that the dispatch before it stored.
    bool idle = false;
    /// Whether D2 needs a real fence.
    bool fenced = false;
    /// How many of the thread's exit handlers have run.
    unsigned exits = 0;
    /// The slot of a dispatch that begins when idle.
    ReaderSlot* first = nullptr;
    /// The slot of any other dispatch, and the end of the slots.
    ReaderSlot* top = nullptr;
    ReaderSlot* limit = nullptr;
    ReaderRecord* record = nullptr;

    /// Whether the thread is in a dispatch: the read-side critical section of RCU.
    [[nodiscard]] bool in_read_section() const noexcept {
        return record != nullptr && record->slots[0].load(std::memory_order_relaxed) != empty_slot;
    }
    /// Whether the thread is executing in the device of `entry`.
    [[nodiscard]] bool is_inside(Identity entry) const noexcept {
        for (std::size_t i = 0; record != nullptr && i < record->slots.size(); ++i) {
            const Identity seen = record->slots[i].load(std::memory_order_relaxed);
            if (seen == entry || seen == empty_slot) {
                return seen == entry;
            }
        }
        return false;
    }
};
VMDEVICE_SHARED inline constinit thread_local ThreadState thread_state;

/// Finds a free record, or allocates one if all static records are in use.
inline ReaderRecord* claim_record() {
    for (ReaderRecord* record = reader_records.head.load(std::memory_order_acquire); record != nullptr;
         record = record->next) {
        if (!record->claimed.load(std::memory_order_relaxed) &&
            !record->claimed.exchange(true, std::memory_order_seq_cst)) {
            return record;
        }
    }
    const std::size_t used = reader_records.static_used.load(std::memory_order_relaxed);
    ReaderRecord* fresh = nullptr;
    if (used < ReaderRecordList::static_count) {
        const std::size_t index = reader_records.static_used.fetch_add(1, std::memory_order_relaxed);
        if (index < ReaderRecordList::static_count) {
            fresh = &reader_records.first_ones[index];
        }
    }
    if (fresh == nullptr) {
        fresh = new (std::nothrow) ReaderRecord;
        if (fresh == nullptr) {
            out_of_memory();
        }
    }
    fresh->claimed.store(true, std::memory_order_relaxed);
    ReaderRecord* head = reader_records.head.load(std::memory_order_relaxed);
    do {
        fresh->next = head;
    } while (!reader_records.head.compare_exchange_weak(head, fresh, std::memory_order_seq_cst));
    return fresh;
}

#if defined(__MINGW32__)
// The address of this variable identifies the program or library that registers a destructor.
extern "C" char __dso_handle;  // NOLINT(bugprone-reserved-identifier)

#if defined(__i386__)
#define VMDEVICE_DESTRUCTOR __thiscall
#else
#define VMDEVICE_DESTRUCTOR
#endif
/// Makes the thread's record be released when the thread ends. MinGW-w64 frees a thread's variables before it
/// calls the destructors of some of them, so a destructor of ours would not find the record. This is how the compiler
/// registers a destructor (Itanium C++ ABI, 3.3.5.3), with the record as the object. It may be called again for a
/// record that the destructor of another variable has claimed.
inline void release_at_exit(ReaderRecord* record, unsigned /*exits*/) {
    struct Release {
        static void VMDEVICE_DESTRUCTOR run(void* object) noexcept {
            thread_state = ThreadState{};
            static_cast<ReaderRecord*>(object)->claimed.store(false, std::memory_order_release);
        }
    };
    // Without memory for it the thread keeps its record.
    (void)abi::__cxa_thread_atexit(&Release::run, record, &__dso_handle);
}
#undef VMDEVICE_DESTRUCTOR
#else
/// Releases the thread's record when the thread ends. The destructor of another thread-local object may
/// dispatch after that; the thread then claims a record again and arms the next one of these. A thread that
/// does so a fourth time keeps its record.
template <unsigned Nth>
struct ThreadExit {
    ThreadExit() = default;
    ThreadExit(const ThreadExit&) = delete;
    ThreadExit& operator=(const ThreadExit&) = delete;
    ~ThreadExit() {
        ThreadState& state = thread_state;
        ReaderRecord* const record = state.record;
        state = ThreadState{};
        state.exits = Nth + 1;
        // Null if the platform emulates thread-local variables and has freed them; the thread keeps its record.
        if (record != nullptr) {
            record->claimed.store(false, std::memory_order_release);
        }
    }
    /// Makes the destructor run at the end of the calling thread.
    static void arm() {
        static thread_local const ThreadExit at_exit;
        static_cast<void>(&at_exit);
    }
};
/// Makes the thread's record be released when the thread ends.
inline void release_at_exit(ReaderRecord* /*record*/, unsigned exits) {
    switch (exits) {
        case 0:
            ThreadExit<0>::arm();
            break;
        case 1:
            ThreadExit<1>::arm();
            break;
        case 2:
            ThreadExit<2>::arm();
            break;
        default:
            break;
    }
}
#endif

/// Claims a record for the calling thread. Returns false if the thread has one and all of its slots are in
/// use.
inline bool register_reader() {
    ThreadState& state = thread_state;
    if (state.record != nullptr) {
        return state.top != state.limit;
    }
    ReaderRecord* const record = claim_record();
    ReaderSlot* const slots = record->slots.data();
    state.record = record;
    state.fenced = !asymmetric_fences();
    state.first = slots;
    state.idle = !state.fenced;
    state.top = state.fenced ? slots : slots + 1;
    state.limit = slots + record->slots.size();
    // Arm the exit handler only now, when there is a record for it to release.
    release_at_exit(record, state.exits);
    return true;
}

/// A dispatch that begins while the thread is in no other. begin() is D1 and D2, enter() is D4; end() is D6,
/// after the call of the device or instead of it.
struct OutermostSection {
    void begin(Identity bus) noexcept {
        thread_state.idle = false;
        thread_state.first->store(bus, std::memory_order_relaxed);
        std::atomic_signal_fence(std::memory_order_seq_cst);
    }
    void enter(Identity entry) noexcept { thread_state.first->store(entry, std::memory_order_release); }
    void end() noexcept {
        thread_state.first->store(empty_slot, std::memory_order_release);
        thread_state.idle = true;
    }
};

/// Any other dispatch: a nested one, or one that needs a real fence.
struct NestedSection {
    void begin(Identity bus) noexcept {
        slot = thread_state.top++;
        if (thread_state.fenced) {
            slot->store(bus, std::memory_order_seq_cst);
        } else {
            slot->store(bus, std::memory_order_relaxed);
            std::atomic_signal_fence(std::memory_order_seq_cst);
        }
    }
    void enter(Identity entry) noexcept { slot->store(entry, std::memory_order_release); }
    void end() noexcept {
        slot->store(empty_slot, std::memory_order_release);
        --thread_state.top;
    }

    ReaderSlot* slot = nullptr;
};

/// Ends a section, also if the device throws.
template <class Section>
class SectionEnd {
public:
    explicit SectionEnd(Section& section) noexcept : section_(section) {}
    SectionEnd(const SectionEnd&) = delete;
    SectionEnd& operator=(const SectionEnd&) = delete;
    [[gnu::always_inline]] ~SectionEnd() { section_.end(); }

private:
    Section& section_;
};

/// Yields the processor for an increasing time.
class Backoff {
public:
    void pause() noexcept {
        if (round_ < 16) {
            std::this_thread::yield();
        } else {
            const unsigned doublings = round_ - 16 < 5 ? round_ - 16 : 5;
            std::this_thread::sleep_for(std::chrono::microseconds(std::int64_t{32} << doublings));
        }
        ++round_;
    }

private:
    unsigned round_ = 0;
};

/// Whether a thread other than the calling one has a record.
[[nodiscard]] inline bool other_readers_exist() noexcept {
    for (const ReaderRecord* record = reader_records.head.load(std::memory_order_seq_cst); record != nullptr;
         record = record->next) {
        if (record != thread_state.record && record->claimed.load(std::memory_order_seq_cst)) {
            return true;
        }
    }
    return false;
}

/// R4, first half: the grace period. Returns when every search of `bus` that may have seen what was published
/// before R2 has ended. A search takes a few instructions, so the wait is short.
inline void wait_for_lookups(Identity bus) noexcept {
    for (ReaderRecord* record = reader_records.head.load(std::memory_order_seq_cst); record != nullptr;
         record = record->next) {
        for (ReaderSlot& slot : record->slots) {
            Identity seen = slot.load(std::memory_order_seq_cst);
            if (seen == empty_slot) {
                break;  // the slots after it are empty as well
            }
            if (seen == bus) {
                slot.compare_exchange_strong(seen, bus | waiter_tag, std::memory_order_acq_rel,
                                             std::memory_order_acquire);
                seen = slot.load(std::memory_order_acquire);
            }
            Backoff backoff;
            while (seen == (bus | waiter_tag)) {
                backoff.pause();
                seen = slot.load(std::memory_order_acquire);
            }
        }
    }
}

/// R4, second half, after wait_for_lookups(): whether a slot of any thread, the calling one included,
/// protects `entry`.
[[nodiscard]] inline bool is_protected(Identity entry) noexcept {
    for (const ReaderRecord* record = reader_records.head.load(std::memory_order_acquire); record != nullptr;
         record = record->next) {
        for (const ReaderSlot& slot : record->slots) {
            const Identity seen = slot.load(std::memory_order_acquire);
            if (seen == entry) {
                return true;
            }
            if (seen == empty_slot) {
                break;
            }
        }
    }
    return false;
}

/// Whether the calling thread may wait until others have left a device. Inside a device, or with a device's
/// lock held, it may not: one of the others may be waiting for that lock, or may be removing the device that
/// this thread is in. (In the terms of RCU: no synchronize_rcu() inside a read-side critical section.)
[[nodiscard]] inline bool may_wait_for_readers() noexcept {
    return !thread_state.in_read_section() && held_device_locks == 0;
}

/// In a child of fork(): the threads of the parent do not exist in the child and protect nothing there.
inline void forget_other_threads() noexcept {
    for (ReaderRecord* record = reader_records.head.load(std::memory_order_relaxed); record != nullptr;
         record = record->next) {
        if (record != thread_state.record) {
            for (ReaderSlot& slot : record->slots) {
                slot.store(empty_slot, std::memory_order_relaxed);
            }
            record->claimed.store(false, std::memory_order_relaxed);
        }
    }
}

}  // namespace vmdevice::inline v0_2::detail

// vmdevice/dispatch/fork.hpp

/// Keeps the buses usable in a child of fork().
///
/// A child of fork() has one thread, the one that called it. The operations of the other threads are never
/// completed in the child's copy of the memory: a mutex that one of them held would stay locked, and a reader
/// slot would protect an entry permanently. So the mutexes that guard the buses are locked before the process
/// is copied, and the child clears the slots of the threads that it does not have. On platforms without
/// fork() nothing is done.

#if (defined(__unix__) || defined(__APPLE__)) && __has_include(<pthread.h>)
#include <pthread.h>
#define VMDEVICE_HAS_FORK 1
#endif

namespace vmdevice::inline v0_2::detail {

#if defined(VMDEVICE_HAS_FORK)

class ForkSafeMutex;

struct ForkSafeMutexes {
    Mutex mutex;
    ForkSafeMutex* head VMDEVICE_GUARDED_BY(mutex) = nullptr;
};
VMDEVICE_SHARED inline constinit ForkSafeMutexes fork_safe_mutexes;

/// A mutex that in a child of fork() is never held by a thread that the child does not have. A thread that
/// holds one must not lock, create or destroy another one, and must not fork.
class ForkSafeMutex : public Mutex {
public:
    ForkSafeMutex() {
        handle_forks();
        const LockGuard guard(fork_safe_mutexes.mutex);
        next_ = fork_safe_mutexes.head;
        fork_safe_mutexes.head = this;
    }
    ForkSafeMutex(const ForkSafeMutex&) = delete;
    ForkSafeMutex& operator=(const ForkSafeMutex&) = delete;
    ~ForkSafeMutex() {
        const LockGuard guard(fork_safe_mutexes.mutex);
        ForkSafeMutex** link = &fork_safe_mutexes.head;
        while (*link != this) {
            link = &(*link)->next_;
        }
        *link = next_;
    }

private:
    static void handle_forks() {
        // If this throws, the constructor of the next bus tries again.
        static const bool done = [] {
            if (::pthread_atfork(before_fork, after_fork, after_fork_in_child) != 0) {
                out_of_memory();
            }
            return true;
        }();
        static_cast<void>(done);
    }
    static void before_fork() VMDEVICE_NO_ANALYSIS {
        fork_safe_mutexes.mutex.lock();
        for (ForkSafeMutex* at = fork_safe_mutexes.head; at != nullptr; at = at->next_) {
            // try_lock() instead of lock(): the order in which these mutexes are locked does not matter, and
            // lock() would cause false reports from tools that check lock orders.
            Backoff backoff;
            while (!at->try_lock()) {
                backoff.pause();
            }
        }
    }
    static void after_fork() VMDEVICE_NO_ANALYSIS {
        for (ForkSafeMutex* at = fork_safe_mutexes.head; at != nullptr; at = at->next_) {
            at->unlock();
        }
        fork_safe_mutexes.mutex.unlock();
    }
    static void after_fork_in_child() {
        forget_other_threads();
        after_fork();
    }

    ForkSafeMutex* next_ = nullptr;
};

#else

using ForkSafeMutex = Mutex;

#endif

}  // namespace vmdevice::inline v0_2::detail

// vmdevice/dispatch/shared_bus.hpp

/// One bus of IoManager: the ordered registrations, guarded by a mutex, and the table that dispatch reads.

namespace vmdevice::inline v0_2::detail {

/// The functions that take a LockGuard are for writers: IoManager's mutex must be locked. None of them waits
/// or calls a device.
template <class Device, class Table>
class SharedBus {
public:
    using Address = typename Table::Address;
    using Range = BusRange<Address>;
    using Entry = typename Table::Entry;

private:
    struct Registration {
        std::shared_ptr<Device> device;
        /// Null until the entry is published.
        Entry* entry;
        std::uint64_t id;
    };

public:
    SharedBus() = default;
    SharedBus(const SharedBus&) = delete;
    SharedBus& operator=(const SharedBus&) = delete;

    /// The value of a reader slot while its thread searches this bus.
    [[nodiscard]] Identity identity() const noexcept { return identity_of(this); }
    [[nodiscard]] const Entry* find(Address address) const noexcept { return table_.find(address); }

    [[nodiscard]] std::size_t size(const LockGuard&) const noexcept { return bus_.size(); }

    [[nodiscard]] std::vector<Range> ranges(const LockGuard&) const {
        std::vector<Range> all;
        all.reserve(bus_.size());
        for (const auto& found : bus_) {
            all.push_back(found.range);
        }
        return all;
    }

    [[nodiscard]] std::optional<std::pair<Range, std::shared_ptr<Device>>> owner(const LockGuard&,
                                                                                 Address address) const {
        const auto found = bus_.device(address);
        if (!found) {
            return std::nullopt;
        }
        return std::pair(found->range, found->device.device);
    }

    /// Moves from `device` only if it succeeds.
    std::expected<void, BusError> add(const LockGuard&, Range range, std::shared_ptr<Device>&& device) {
        if (!device) {
            return std::unexpected(BusError::device_not_found);
        }
        if (bus_.overlaps(range)) {
            return std::unexpected(BusError::device_overlap);
        }
        insert(range, std::move(device));
        return {};
    }

    /// Whether each of `ranges` is registered with exactly these bounds.
    [[nodiscard]] bool has_all(const LockGuard&, std::span<const Range> ranges) const {
        for (const Range& range : ranges) {
            const auto found = bus_.device(range.base());
            if (!found || found->range != range) {
                return false;
            }
        }
        return true;
    }

    /// The addition of a device at several ranges. It is visible at none of them before commit(); without
    /// that, everything is undone. The mutex must be locked throughout.
    class Addition {
    public:
        explicit Addition(const LockGuard&, SharedBus& bus) noexcept : bus_(bus) {}
        Addition(const Addition&) = delete;
        Addition& operator=(const Addition&) = delete;
        ~Addition() {
            for (std::size_t i = 0; i < ranges_.size(); ++i) {
                if (i < entries_.size()) {
                    bus_.table_.discard(entries_[i]);
                }
                if (i < registered_) {
                    static_cast<void>(bus_.bus_.deregister(ranges_[i].base()));
                }
            }
        }

        /// May be called once. If it fails, this object must be destroyed before the mutex is unlocked.
        std::expected<void, BusError> prepare(std::span<const Range> ranges,
                                              const std::shared_ptr<Device>& device) {
            if (!device && !ranges.empty()) {
                return std::unexpected(BusError::device_not_found);
            }
            ranges_.assign(ranges.begin(), ranges.end());
            entries_.reserve(ranges.size());
            // Register the ranges without an entry first, so that a table that is rebuilt in between does not
            // contain them.
            for (const Range& range : ranges) {
                if (!bus_.bus_.register_device(range, bus_.registration(device))) {
                    return std::unexpected(BusError::device_overlap);
                }
                ++registered_;
            }
            for (const Range& range : ranges) {
                entries_.push_back(bus_.allocate(range, device.get()));
            }
            return {};
        }
        void commit() noexcept {
            for (Entry* const entry : entries_) {
                bus_.bus_.device(Address{entry->base})->device.entry = entry;
                bus_.table_.publish(*entry);
            }
            ranges_.clear();
        }

    private:
        SharedBus& bus_;
        std::vector<Range> ranges_;
        std::vector<Entry*> entries_;
        std::size_t registered_ = 0;
    };

    /// An entry that was unpublished and may still be protected by a slot. It keeps the device alive.
    struct Retired {
        Entry* entry = nullptr;
        std::shared_ptr<Device> device;
        /// Increases by one with each retired entry.
        std::uint64_t serial = 0;
        /// The number of the registration to which the entry belonged, or of the removal if the device was
        /// removed.
        std::uint64_t owner = 0;
        typename Table::Retired tables;
        Retired* next = nullptr;
    };
    /// A list of retired entries. Destroy it without the lock, because that may destroy devices.
    class RetiredList {
    public:
        RetiredList() = default;
        RetiredList(RetiredList&& other) noexcept : first_(std::exchange(other.first_, nullptr)) {}
        RetiredList& operator=(RetiredList&& other) noexcept {
            std::swap(first_, other.first_);
            return *this;
        }
        ~RetiredList() {
            while (first_ != nullptr) {
                delete pop();
            }
        }

        [[nodiscard]] bool empty() const noexcept { return first_ == nullptr; }
        /// The first entry; `next` leads to the others.
        [[nodiscard]] Retired* first() const noexcept { return first_; }
        /// Allocates an entry and adds it.
        void push_new() { push(new Retired); }
        void push(Retired* retired) noexcept {
            retired->next = first_;
            first_ = retired;
        }
        /// Removes the first entry and passes its ownership to the caller.
        [[nodiscard]] Retired* pop() noexcept { return std::exchange(first_, first_->next); }
        /// Moves the entries for which `is_finished` returns true to `finished`.
        template <class IsFinished>
        void split(RetiredList& finished, IsFinished is_finished) noexcept {
            for (Retired** link = &first_; *link != nullptr;) {
                Retired* const at = *link;
                if (is_finished(*at)) {
                    *link = at->next;
                    finished.push(at);
                } else {
                    link = &at->next;
                }
            }
        }

    private:
        Retired* first_ = nullptr;
    };

    /// What a removal or a move still has to do without the lock.
    struct Ticket {
        /// The last entry that was retired.
        std::uint64_t serial = 0;
        /// The number of the removal; 0 for a move, which waits only for the last entry.
        std::uint64_t removal = 0;
        /// The caller does not wait for the end of this operation, so later ones may share its grace period.
        bool deferrable = false;
    };
    struct Removed {
        std::pair<Range, std::shared_ptr<Device>> registration;
        Ticket ticket;
    };

    std::optional<Removed> remove(const LockGuard& guard, Address address) {
        const auto found = bus_.device(address);
        if (!found) {
            return std::nullopt;
        }
        RetiredList room;
        room.push_new();
        Removed removed{{found->range, found->device.device}, {}};
        removed.ticket = take_out(guard, std::span(&found->range, 1), room);
        return removed;
    }

    /// Allocates the memory that the removal of `ranges` needs.
    [[nodiscard]] static RetiredList prepare_removal(std::span<const Range> ranges) {
        RetiredList room;
        for (std::size_t i = 0; i < ranges.size(); ++i) {
            room.push_new();
        }
        return room;
    }
    /// Removes the registrations at `ranges`; has_all() must have returned true. A range that is named twice
    /// is removed once.
    Ticket take_out(const LockGuard&, std::span<const Range> ranges, RetiredList& room) noexcept {
        Ticket ticket{0, ++last_serial_, !may_wait_for_readers() && backlog_ < max_backlog};
        for (const Range& range : ranges) {
            const auto found = bus_.device(range.base());
            if (!found) {
                continue;
            }
            const Registration& registration = found->device;
            // The wait covers threads that entered the device through a former range.
            for (Retired* at = retired_.first(); at != nullptr; at = at->next) {
                at->owner = at->owner == registration.id ? ticket.removal : at->owner;
            }
            table_.unpublish(*registration.entry);
            // A device that its own handler removes cannot be released now, so the caller does not wait.
            ticket.deferrable = ticket.deferrable && is_inside(registration);
            ticket.serial = retire(room.pop(), registration.entry, registration.device, ticket.removal);
            static_cast<void>(bus_.deregister(range.base()));
        }
        return ticket;
    }

    std::expected<Ticket, BusError> move(const LockGuard&, Address address, Range to) {
        const auto found = bus_.device(address);
        if (!found) {
            return std::unexpected(BusError::device_not_found);
        }
        Registration& registration = found->device;
        RetiredList room;
        room.push_new();
        Allocation allocation(*this, to, registration.device.get());
        if (const auto moved = bus_.move_range(address, to); !moved) {
            return std::unexpected(moved.error());
        }
        Entry* const old = std::exchange(registration.entry, std::exchange(allocation.entry, nullptr));
        table_.publish(*registration.entry);
        table_.unpublish(*old);
        const std::uint64_t serial = retire(room.pop(), old, registration.device, registration.id);
        return Ticket{serial, 0, !may_wait_for_readers() && backlog_ < max_backlog};
    }

    /// Records that a grace period has passed since the entry with this serial was unpublished: no lookup
    /// finds this entry or an earlier one any more.
    void grace_period_ended(const LockGuard&, std::uint64_t serial) noexcept {
        if (serial > graced_) {
            graced_ = serial;
            backlog_ = 0;
            for (const Retired* at = retired_.first(); at != nullptr; at = at->next) {
                backlog_ += at->serial > graced_ ? 1 : 0;
            }
        }
    }
    /// The serial of the last entry for which no grace period has passed yet, or 0 if there is none.
    [[nodiscard]] std::uint64_t awaiting_grace_period(const LockGuard&) const noexcept {
        return backlog_ == 0 ? 0 : retired_.first()->serial;
    }
    /// Whether no thread is in a device through an entry that the operation of this ticket removed.
    [[nodiscard]] bool all_left(const LockGuard&, const Ticket& ticket) noexcept {
        for (const Retired* at = retired_.first(); at != nullptr; at = at->next) {
            if (at->serial == ticket.serial || at->owner == ticket.removal) {
                return false;
            }
        }
        return true;
    }

    /// The retired entries that no slot protects; their table entries are recycled.
    [[nodiscard]] RetiredList take_finished(const LockGuard&) noexcept {
        RetiredList finished;
        retired_.split(finished, [this](const Retired& retired) {
            if (retired.serial > graced_ || is_protected(identity_of(retired.entry))) {
                return false;
            }
            table_.recycle(retired.entry);
            return true;
        });
        return finished;
    }

    /// The registrations and retired entries that are left when the bus is destroyed and no thread uses it.
    /// Destroy them without the lock. After take_remains() no address is owned, and the bus remains usable.
    struct Remains {
        Bus<Address, Registration> registrations;
        RetiredList retired;
        [[nodiscard]] bool empty() const noexcept { return registrations.empty() && retired.empty(); }
    };
    [[nodiscard]] Remains take_remains(const LockGuard&) noexcept {
        for (const auto& found : bus_) {
            table_.unpublish(*found.device.entry);
            table_.recycle(found.device.entry);
        }
        return {std::move(bus_), std::move(retired_)};
    }

private:
    /// How many entries may wait for one grace period.
    static constexpr std::size_t max_backlog = 64;

    [[nodiscard]] Registration registration(std::shared_ptr<Device> device) noexcept {
        return Registration{std::move(device), nullptr, ++last_serial_};
    }

    std::uint64_t retire(Retired* retired, Entry* entry, std::shared_ptr<Device> device,
                         std::uint64_t owner) noexcept {
        retired->entry = entry;
        retired->device = std::move(device);
        retired->serial = ++last_serial_;
        retired->owner = owner;
        retired->tables = table_.take_retired();
        retired_.push(retired);
        ++backlog_;
        return last_serial_;
    }

    /// Whether the calling thread is executing in the device, either through this range or through a range
    /// that the device had before.
    [[nodiscard]] bool is_inside(const Registration& registration) noexcept {
        if (thread_state.is_inside(identity_of(registration.entry))) {
            return true;
        }
        for (const Retired* at = retired_.first(); at != nullptr; at = at->next) {
            if (at->device == registration.device && thread_state.is_inside(identity_of(at->entry))) {
                return true;
            }
        }
        return false;
    }

    /// An entry from the table's pool, to which the destructor returns it unless it was used.
    struct Allocation {
        Allocation(SharedBus& bus, Range range, Device* device)
            : table(bus.table_), entry(bus.allocate(range, device)) {}
        Allocation(const Allocation&) = delete;
        Allocation& operator=(const Allocation&) = delete;
        ~Allocation() {
            if (entry != nullptr) {
                table.discard(entry);
            }
        }
        Table& table;
        Entry* entry;
    };

    /// Adds a device at a range that is free.
    void insert(Range range, std::shared_ptr<Device>&& device) {
        Allocation allocation(*this, range, device.get());
        Registration fresh = registration(std::move(device));
        fresh.entry = allocation.entry;
        static_cast<void>(bus_.register_device(range, std::move(fresh)));
        table_.publish(*std::exchange(allocation.entry, nullptr));
    }

    [[nodiscard]] Entry* allocate(Range range, Device* device) {
        return table_.allocate(range, device, [this](auto visit) {
            for (const auto& found : std::as_const(bus_)) {
                if (found.device.entry != nullptr) {
                    visit(std::as_const(*found.device.entry));
                }
            }
        });
    }

    Table table_;
    Bus<Address, Registration> bus_;
    /// Entries that were unpublished and cannot be reused yet.
    RetiredList retired_;
    /// The last number that was assigned to a registration, a retired entry or a removal.
    std::uint64_t last_serial_ = 0;
    /// A grace period has passed for the entries up to this serial, and has not for `backlog_` retired
    /// entries.
    std::uint64_t graced_ = 0;
    std::size_t backlog_ = 0;
};

}  // namespace vmdevice::inline v0_2::detail

// vmdevice/io_manager.hpp

/// The buses that vCPUs share: dispatches port and memory accesses to devices while devices are added and
/// removed.

namespace vmdevice::inline v0_2 {

/// The direction of an access, as the guest sees it. The values are those of KVM: `direction` of a port exit
/// (KVM_EXIT_IO_IN, KVM_EXIT_IO_OUT) and `is_write` of a memory exit.
enum class IoDirection : std::uint8_t { in = 0, out = 1 };

namespace detail {

// The operations that dispatch calls. For a repeated access, the length is the width of one item.
struct PioRead {
    using Data = std::span<std::uint8_t>;
    static void call(DevicePio& device, PioAddress base, PioOffset offset, std::size_t, Data data) {
        device.pio_read(base, offset, data);
    }
};
struct PioWrite {
    using Data = std::span<const std::uint8_t>;
    static void call(DevicePio& device, PioAddress base, PioOffset offset, std::size_t, Data data) {
        device.pio_write(base, offset, data);
    }
};
struct PioReadRepeated {
    using Data = std::span<std::uint8_t>;
    static void call(DevicePio& device, PioAddress base, PioOffset offset, std::size_t width, Data data) {
        device.pio_read_repeated(base, offset, width, data);
    }
};
struct PioWriteRepeated {
    using Data = std::span<const std::uint8_t>;
    static void call(DevicePio& device, PioAddress base, PioOffset offset, std::size_t width, Data data) {
        device.pio_write_repeated(base, offset, width, data);
    }
};
struct MmioRead {
    using Data = std::span<std::uint8_t>;
    static void call(DeviceMmio& device, MmioAddress base, MmioOffset offset, std::size_t, Data data) {
        device.mmio_read(base, offset, data);
    }
};
struct MmioWrite {
    using Data = std::span<const std::uint8_t>;
    static void call(DeviceMmio& device, MmioAddress base, MmioOffset offset, std::size_t, Data data) {
        device.mmio_write(base, offset, data);
    }
};

/// The functions of IoManager, which documents their guarantees. They are members of a template so that a
/// program instantiates only those that it calls, and including this header costs little.
template <class Pio, class Mmio>
class BasicIoManager {
public:
    static constexpr std::size_t max_nesting = vmdevice::detail::max_nesting;

    BasicIoManager() { static_cast<void>(asymmetric_fences()); }
    BasicIoManager(const BasicIoManager&) = delete;
    BasicIoManager& operator=(const BasicIoManager&) = delete;
    /// Releases the devices while the buses still answer, so that a device may use them in its destructor.
    ~BasicIoManager() {
        // A device's destructor may register others.
        while (release_all(pio_) || release_all(mmio_)) {
        }
    }

    /// Returns `device_overlap` if an address of `range` is taken, and `device_not_found` if `device` is
    /// empty.
    [[nodiscard]] std::expected<void, BusError> register_pio(PioRange range, std::shared_ptr<Pio> device) {
        return add(pio_, range, std::move(device));
    }
    [[nodiscard]] std::expected<void, BusError> register_mmio(MmioRange range, std::shared_ptr<Mmio> device) {
        return add(mmio_, range, std::move(device));
    }

    /// Removes the device that owns `any_address_inside`, with its whole range, and waits until no thread is
    /// inside it, with the exceptions above. Returns nothing if there is none.
    std::optional<std::pair<PioRange, std::shared_ptr<Pio>>> deregister_pio(PioAddress any_address_inside) {
        return remove(pio_, any_address_inside);
    }
    std::optional<std::pair<MmioRange, std::shared_ptr<Mmio>>> deregister_mmio(
        MmioAddress any_address_inside) {
        return remove(mmio_, any_address_inside);
    }

    /// Registers a device at all port and memory ranges of `resources`, or at none. Returns
    /// `device_not_found` if there is a range of a kind whose pointer is empty. Here and in the other
    /// functions nothing has changed if memory runs out (std::bad_alloc).
    [[nodiscard]] std::expected<void, BusError> register_resources(const DeviceResources& resources,
                                                                   const std::shared_ptr<Pio>& pio_device,
                                                                   const std::shared_ptr<Mmio>& mmio_device) {
        const auto ports = resources.get_pio_address_ranges();
        const auto memory = resources.get_mmio_address_ranges();
        Sweep<PioShared> pio_sweep(*this, pio_);
        Sweep<MmioShared> mmio_sweep(*this, mmio_);
        const LockGuard guard(mutex_);
        pio_sweep.begin(guard);
        mmio_sweep.begin(guard);
        typename PioShared::Addition on_ports(guard, pio_);
        typename MmioShared::Addition in_memory(guard, mmio_);
        if (auto prepared = on_ports.prepare(ports, pio_device); !prepared) {
            return prepared;
        }
        if (auto prepared = in_memory.prepare(memory, mmio_device); !prepared) {
            return prepared;
        }
        on_ports.commit();
        in_memory.commit();
        return {};
    }
    /// The same for a device that has the interfaces of both buses, or of one bus if `resources` has ranges
    /// only on that bus.
    template <class D>
        requires std::derived_from<D, Pio> || std::derived_from<D, Mmio>
    [[nodiscard]] std::expected<void, BusError> register_resources(const DeviceResources& resources,
                                                                   const std::shared_ptr<D>& device) {
        return register_resources(resources, as<Pio>(device), as<Mmio>(device));
    }

    /// Removes the registrations at exactly the port and memory ranges of `resources`, and waits until no
    /// thread is inside a device through them, with the exceptions above. Returns `device_not_found`, and
    /// changes nothing, if one of the ranges is not registered with these bounds.
    [[nodiscard]] std::expected<void, BusError> deregister_resources(const DeviceResources& resources) {
        const auto ports = resources.get_pio_address_ranges();
        const auto memory = resources.get_mmio_address_ranges();
        typename PioShared::RetiredList pio_room = PioShared::prepare_removal(ports);
        typename MmioShared::RetiredList mmio_room = MmioShared::prepare_removal(memory);
        typename PioShared::Ticket pio_ticket;
        typename MmioShared::Ticket mmio_ticket;
        {
            const LockGuard guard(mutex_);
            if (!pio_.has_all(guard, ports) || !mmio_.has_all(guard, memory)) {
                return std::unexpected(BusError::device_not_found);
            }
            pio_ticket = pio_.take_out(guard, ports, pio_room);
            mmio_ticket = mmio_.take_out(guard, memory, mmio_room);
        }
        if (!pio_ticket.deferrable || !mmio_ticket.deferrable) {
            wait_for_grace_period();
            finish(pio_, pio_ticket);
            finish(mmio_, mmio_ticket);
        }
        return {};
    }

    /// Assigns another range to a device, which may overlap its old one. At every moment the device answers
    /// at one of them or at both. Returns when no thread is inside the device through the old range. If an
    /// error is returned, the device keeps its old range.
    [[nodiscard]] std::expected<void, BusError> move_pio(PioAddress any_address_inside, PioRange to) {
        return move(pio_, any_address_inside, to);
    }
    [[nodiscard]] std::expected<void, BusError> move_mmio(MmioAddress any_address_inside, MmioRange to) {
        return move(mmio_, any_address_inside, to);
    }

    // These take some 40 instructions each. Because they are inlined, the only call is that of the device.

    /// One access of data.size() bytes. Returns `invalid_range` if that is 0, and `device_not_found` if no
    /// device owns all of them.
    [[nodiscard, gnu::always_inline]] std::expected<void, BusError> pio_read(
        PioAddress address, std::span<std::uint8_t> data) const {
        return dispatch<PioRead>(pio_, address, data.size(), data);
    }
    [[nodiscard, gnu::always_inline]] std::expected<void, BusError> pio_write(
        PioAddress address, std::span<const std::uint8_t> data) const {
        return dispatch<PioWrite>(pio_, address, data.size(), data);
    }
    [[nodiscard, gnu::always_inline]] std::expected<void, BusError> mmio_read(
        MmioAddress address, std::span<std::uint8_t> data) const {
        return dispatch<MmioRead>(mmio_, address, data.size(), data);
    }
    [[nodiscard, gnu::always_inline]] std::expected<void, BusError> mmio_write(
        MmioAddress address, std::span<const std::uint8_t> data) const {
        return dispatch<MmioWrite>(mmio_, address, data.size(), data);
    }

    /// String input (REP INS): data.size() / width reads of `width` bytes each at one port, in one dispatch.
    /// Returns `invalid_access_length` if width is not 1, 2, 4 or 8 or does not divide the size of `data`.
    [[nodiscard]] std::expected<void, BusError> pio_read_repeated(PioAddress address, std::size_t width,
                                                                  std::span<std::uint8_t> data) const {
        if (!repeatable(width, data.size())) {
            return std::unexpected(BusError::invalid_access_length);
        }
        return dispatch<PioReadRepeated>(pio_, address, data.empty() ? 0 : width, data);
    }
    /// String output (REP OUTS): data.size() / width writes of `width` bytes each at one port, in one
    /// dispatch.
    [[nodiscard]] std::expected<void, BusError> pio_write_repeated(PioAddress address, std::size_t width,
                                                                   std::span<const std::uint8_t> data) const {
        if (!repeatable(width, data.size())) {
            return std::unexpected(BusError::invalid_access_length);
        }
        return dispatch<PioWriteRepeated>(pio_, address, data.empty() ? 0 : width, data);
    }

    /// Answers a whole port exit of a hypervisor: `count` accesses of `size` bytes each at one port, with all
    /// of their data, as KVM reports IN, OUT, REP INS and REP OUTS (`kvm_run.io`). Bytes of a read that no
    /// device claims, or that the device does not set, are all ones, as on a PC's bus, so that no stale data
    /// reaches the guest. A write that no device claims has no effect. The exit has been answered in every
    /// case; the returned error is only for a log.
    ///
    /// Returns `invalid_access_length` if `size` is not 1, 2, 4 or 8 or `data` is not `size * count` bytes
    /// large, and `invalid_range` if `count` is 0; no device is called then. Otherwise returns the same as
    /// pio_read() and pio_write().
    std::expected<void, BusError> pio_exit(IoDirection direction, PioAddress port, std::size_t size,
                                           std::size_t count, std::span<std::uint8_t> data) const {
        if (direction == IoDirection::in) {
            read_as_ones(data);
        }
        if (!repeatable(size, data.size()) || data.size() / size != count) {
            return std::unexpected(BusError::invalid_access_length);
        }
        if (direction == IoDirection::in) {
            if (count == 1) {
                return pio_read(port, data);
            }
            return pio_read_repeated(port, size, data);
        }
        if (count == 1) {
            return pio_write(port, data);
        }
        return pio_write_repeated(port, size, data);
    }
    /// A memory exit of a hypervisor: one access of data.size() bytes (`kvm_run.mmio`, of whose data the
    /// first `len` bytes count). A read that no device claims yields all ones, as in pio_exit().
    std::expected<void, BusError> mmio_exit(IoDirection direction, MmioAddress address,
                                            std::span<std::uint8_t> data) const {
        if (direction == IoDirection::in) {
            read_as_ones(data);
            return mmio_read(address, data);
        }
        return mmio_write(address, data);
    }

    /// The owner of an address: the whole range and the device, or nothing.
    [[nodiscard]] std::optional<std::pair<PioRange, std::shared_ptr<Pio>>> pio_owner(
        PioAddress address) const {
        const LockGuard guard(mutex_);
        return pio_.owner(guard, address);
    }
    [[nodiscard]] std::optional<std::pair<MmioRange, std::shared_ptr<Mmio>>> mmio_owner(
        MmioAddress address) const {
        const LockGuard guard(mutex_);
        return mmio_.owner(guard, address);
    }
    /// All registered ranges in ascending order.
    [[nodiscard]] std::vector<PioRange> pio_ranges() const {
        const LockGuard guard(mutex_);
        return pio_.ranges(guard);
    }
    [[nodiscard]] std::vector<MmioRange> mmio_ranges() const {
        const LockGuard guard(mutex_);
        return mmio_.ranges(guard);
    }
    /// How many ranges are registered.
    [[nodiscard]] std::size_t pio_size() const {
        const LockGuard guard(mutex_);
        return pio_.size(guard);
    }
    [[nodiscard]] std::size_t mmio_size() const {
        const LockGuard guard(mutex_);
        return mmio_.size(guard);
    }

private:
    using PioShared = SharedBus<Pio, PortTable<Pio>>;
    using MmioShared = SharedBus<Mmio, AddressTable<Mmio>>;

    /// The device as an `Interface`, or nullptr if it does not implement it.
    template <class Interface, class D>
    static std::shared_ptr<Interface> as(const std::shared_ptr<D>& device) {
        if constexpr (std::derived_from<D, Interface>) {
            return device;
        } else {
            return nullptr;
        }
    }

    static bool repeatable(std::size_t width, std::size_t length) noexcept {
        return (width == 1 || width == 2 || width == 4 || width == 8) && length % width == 0;
    }

    static void read_as_ones(std::span<std::uint8_t> data) noexcept {
        for (std::uint8_t& byte : data) {
            byte = 0xFF;
        }
    }

    template <class Operation, class Shared>
    [[gnu::always_inline]] static std::expected<void, BusError> dispatch(const Shared& bus,
                                                                         typename Shared::Address address,
                                                                         std::size_t length,
                                                                         typename Operation::Data data) {
        if (length == 0) [[unlikely]] {
            return std::unexpected(BusError::invalid_range);
        }
        if (!thread_state.idle) [[unlikely]] {
            return dispatch_further<Operation>(bus, address, length, data);
        }
        return access<Operation, OutermostSection>(bus, address, length, data);
    }

    /// A nested dispatch, the first one of a thread, or one that needs a real fence.
    template <class Operation, class Shared>
    [[gnu::noinline]] static std::expected<void, BusError> dispatch_further(const Shared& bus,
                                                                            typename Shared::Address address,
                                                                            std::size_t length,
                                                                            typename Operation::Data data) {
        if (!register_reader()) {
            return std::unexpected(BusError::device_not_found);
        }
        if (thread_state.idle) {
            return access<Operation, OutermostSection>(bus, address, length, data);
        }
        return access<Operation, NestedSection>(bus, address, length, data);
    }

// GCC 12 mistakes the copy of a result without an error for a use of the error.
#if defined(__GNUC__) && !defined(__clang__)
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#endif
    template <class Operation, class Section, class Shared>
    [[gnu::always_inline]] static std::expected<void, BusError> access(const Shared& bus,
                                                                       typename Shared::Address address,
                                                                       std::size_t length,
                                                                       typename Operation::Data data) {
        using Address = typename Shared::Address;
        Section section;
        section.begin(bus.identity());
        const auto* const entry = bus.find(address);
        if (entry == nullptr) [[unlikely]] {
            section.end();
            return std::unexpected(BusError::device_not_found);
        }
        const auto offset = static_cast<OffsetOf<Address>>(address.value - entry->base);
        if (length - 1 > static_cast<OffsetOf<Address>>(entry->size - 1 - offset)) [[unlikely]] {
            section.end();
            return std::unexpected(BusError::device_not_found);
        }
        section.enter(identity_of(entry));
        const SectionEnd end(section);
        // A variable that is initialized before the call, because GCC 12 reports the empty union of a
        // temporary as uninitialized.
        std::expected<void, BusError> answered;
        Operation::call(*entry->device, Address{entry->base}, offset, length, data);
        return answered;
    }
#if defined(__GNUC__) && !defined(__clang__)
#pragma GCC diagnostic pop
#endif

    /// R2 and the first half of R4 of hazard_pointers.hpp, after something has been unpublished.
    void wait_for_grace_period() const noexcept {
        if (other_readers_exist()) {
            heavy_fence();
        }
        wait_for_lookups(pio_.identity());
        wait_for_lookups(mmio_.identity());
    }
    /// After that, the second half of R4: returns when no thread is in a device through what was removed. If
    /// this thread must not wait, an entry that is still protected is released at a later change of the bus.
    template <class Shared>
    void finish(Shared& bus, const typename Shared::Ticket& ticket) noexcept {
        Backoff backoff;
        while (!release_retired(bus, ticket) && may_wait_for_readers()) {
            backoff.pause();
        }
    }
    /// Releases the retired entries that no slot protects. Returns false if one that `ticket` names is
    /// protected.
    template <class Shared>
    bool release_retired(Shared& bus, const typename Shared::Ticket& ticket) noexcept {
        typename Shared::RetiredList finished;
        const LockGuard guard(mutex_);
        bus.grace_period_ended(guard, ticket.serial);
        finished = bus.take_finished(guard);
        return bus.all_left(guard, ticket);
    }
    /// Runs with every registration: releases the retired entries that no slot protects, including those that
    /// handlers removed without a grace period. Constructed before the mutex is locked and destroyed after it
    /// is unlocked, because this may destroy devices.
    template <class Shared>
    class Sweep {
    public:
        Sweep(BasicIoManager& manager, Shared& bus) noexcept : manager_(manager), bus_(bus) {}
        Sweep(const Sweep&) = delete;
        Sweep& operator=(const Sweep&) = delete;
        ~Sweep() {
            if (deferred_ != 0 && may_wait_for_readers()) {
                manager_.wait_for_grace_period();
                static_cast<void>(manager_.release_retired(bus_, {.serial = deferred_}));
            }
        }
        void begin(const LockGuard& guard) noexcept {
            finished_ = bus_.take_finished(guard);
            deferred_ = bus_.awaiting_grace_period(guard);
        }

    private:
        BasicIoManager& manager_;
        Shared& bus_;
        typename Shared::RetiredList finished_;
        std::uint64_t deferred_ = 0;
    };

    template <class Shared, class Device>
    std::expected<void, BusError> add(Shared& bus, typename Shared::Range range,
                                      std::shared_ptr<Device> device) {
        Sweep<Shared> sweep(*this, bus);
        const LockGuard guard(mutex_);
        sweep.begin(guard);
        return bus.add(guard, range, std::move(device));
    }

    template <class Shared>
    auto remove(Shared& bus, typename Shared::Address address)
        -> std::optional<decltype(Shared::Removed::registration)> {
        std::optional<typename Shared::Removed> removed;
        typename Shared::RetiredList finished;
        {
            const LockGuard guard(mutex_);
            finished = bus.take_finished(guard);
            removed = bus.remove(guard, address);
        }
        if (!removed) {
            return std::nullopt;
        }
        if (!removed->ticket.deferrable) {
            wait_for_grace_period();
            finish(bus, removed->ticket);
        }
        return std::move(removed->registration);
    }

    template <class Shared>
    std::expected<void, BusError> move(Shared& bus, typename Shared::Address address,
                                       typename Shared::Range to) {
        std::expected<typename Shared::Ticket, BusError> moved = std::unexpected(BusError::device_not_found);
        typename Shared::RetiredList finished;
        {
            const LockGuard guard(mutex_);
            finished = bus.take_finished(guard);
            moved = bus.move(guard, address, to);
        }
        if (!moved) {
            return std::unexpected(moved.error());
        }
        if (!moved->deferrable) {
            wait_for_grace_period();
            finish(bus, *moved);
        }
        return {};
    }

    /// Releases all devices. Returns false if there is none. Allocates nothing.
    template <class Shared>
    bool release_all(Shared& bus) noexcept {
        typename Shared::Remains remains;
        {
            const LockGuard guard(mutex_);
            remains = bus.take_remains(guard);
        }
        return !remains.empty();
    }

    mutable ForkSafeMutex mutex_;
    PioShared pio_;
    MmioShared mmio_;
};

}  // namespace detail

/// Routes accesses of the guest to devices on two buses, ports and memory.
///
/// Thread safety: every function may be called from any thread at any time, also from inside a device's
/// handler. Only the destructor must run after all other calls have returned.
///
/// - **Dispatch** (`pio_read` and the like) takes no lock, never waits or retries, and allocates nothing,
///   except in the first dispatch of a thread while more than 64 threads use buses. If that throws
///   std::bad_alloc, no device has been called. Its cost does not depend on how many devices there are. If no
///   device owns the whole access, it is an error and no device is called; the buffer of a read is then
///   unchanged, so that the caller decides which value an absent device reads as. `pio_exit` and `mmio_exit`
///   accept an exit of a hypervisor unchanged, and decide as a PC does.
/// - **register_*** never waits for a dispatch.
/// - **deregister_*** and **move_*** block until no thread is executing in the device through the range that
///   it had; the caller may then destroy the device. They return without waiting if the wait could be a
///   deadlock: on a thread that is in a device (any device of any IoManager), and on a thread that holds the
///   lock of a Locked device. The device is nevertheless unreachable. IoManager keeps it alive until the last
///   thread has left it, whatever the caller does with the pointer, and releases it at a later change of that
///   bus.
/// - A thread that calls them from outside all devices must not hold a lock that a handler of the device
///   takes.
/// - An exception that a device throws propagates through dispatch to its caller.
///
/// Dispatches may nest (a device may access another one, or itself) to a depth of max_nesting. Beyond that an
/// access finds no device, so that a guest that points a DMA engine at itself does not exhaust the stack.
///
/// On Linux a removal uses membarrier(2); a VMM that filters system calls should construct its IoManager
/// first and allow the call in threads that deregister devices. A child of fork() may continue to use an
/// IoManager; it has none of the other threads. See docs/vmdevice.md.
class IoManager : public detail::BasicIoManager<DevicePio, DeviceMmio> {};

}  // namespace vmdevice::inline v0_2

// vmdevice/device_manager.hpp

/// The devices of a machine as a tree: assigns each device its resources, registers it on the buses, and
/// removes it again.

namespace vmdevice::inline v0_2 {

/// A device that implements a bus interface itself: a Locked<ByteDevice<Serial>>, a PortView.
template <class D>
concept BusDevice = std::derived_from<D, DevicePio> || std::derived_from<D, DeviceMmio>;

/// The members of DeviceManager. A template so that they are compiled only where they are used.
template <class Allocator = SystemAllocator, class Failure = DeviceManagerFailure>
class BasicDeviceManager {
public:
    /// The id of the new device, or why it was not registered.
    using Registered = std::expected<InstanceId, Failure>;

    /// The allocator must outlive the manager.
    explicit BasicDeviceManager(Allocator& allocator) : allocator_(allocator) {}
    BasicDeviceManager(const BasicDeviceManager&) = delete;
    BasicDeviceManager& operator=(const BasicDeviceManager&) = delete;
    /// Removes all devices, the most recently registered one first. For each it calls set_resources with an
    /// empty set, frees the resources and releases the device. The buses and the manager answer until the
    /// last device has been released, so that a device may use them in its destructor; only registrations are
    /// refused then (`ending`).
    ~BasicDeviceManager() {
        {
            const detail::LockGuard guard(mutex_);
            ending_ = true;
        }
        while (const std::shared_ptr<Node> node = take_newest()) {
            detail::quietly([&] { take_off_buses(node); });
            detail::quietly([&] { node->listener({}); });
            forget(*node, true);
        }
        // Any change of the buses releases devices that removed themselves in a handler.
        detail::quietly([&] { static_cast<void>(io_.register_resources({}, nullptr, nullptr)); });
    }

    /// Allocates the `requested` resources, passes them to the device, and registers it on the buses. If any
    /// of these steps fails, all are undone, and a device that was notified of resources is notified that it
    /// has none.
    ///
    /// Ranges that were registered on the buses directly are avoided if the request leaves a choice.
    [[nodiscard]] Registered register_device(const std::shared_ptr<Device>& device,
                                             std::optional<InstanceId> parent,
                                             std::span<const ResourceConstraint> requested) {
        return device ? add(parts_of(device->name(), device), parent, requested) : no_device();
    }
    [[nodiscard]] Registered register_device(const std::shared_ptr<Device>& device,
                                             std::optional<InstanceId> parent = std::nullopt,
                                             std::initializer_list<ResourceConstraint> requested = {}) {
        return register_device(device, parent, std::span(requested.begin(), requested.size()));
    }
    /// The same for a Device that also has an interface of its own for a bus, through which it is called
    /// there. The type of the pointer shows that; no run-time type information is used.
    template <std::derived_from<Device> D>
        requires BusDevice<D>
    [[nodiscard]] Registered register_device(const std::shared_ptr<D>& device,
                                             std::optional<InstanceId> parent,
                                             std::span<const ResourceConstraint> requested) {
        return device ? add(parts_of(device->name(), device), parent, requested) : no_device();
    }
    template <std::derived_from<Device> D>
        requires BusDevice<D>
    [[nodiscard]] Registered register_device(const std::shared_ptr<D>& device,
                                             std::optional<InstanceId> parent = std::nullopt,
                                             std::initializer_list<ResourceConstraint> requested = {}) {
        return register_device(device, parent, std::span(requested.begin(), requested.size()));
    }

    /// Registers a device that implements the interface of its bus, under a name:
    ///
    /// ```cpp
    /// const auto id = manager.register_device(
    ///     "COM1", com1, {PioConstraint::at(pio_range(0x3F8, 8)), LegacyIrqConstraint{.irq = 4}});
    /// ```
    ///
    /// If it has a member set_resources(const DeviceResources&), that is called like Device::set_resources.
    template <class D>
        requires BusDevice<D> || std::derived_from<D, Device>
    [[nodiscard]] Registered register_device(std::string name, const std::shared_ptr<D>& device,
                                             std::span<const ResourceConstraint> requested,
                                             std::optional<InstanceId> parent = std::nullopt) {
        return device ? add(parts_of(std::move(name), device), parent, requested) : no_device();
    }
    /// The same, with the constraints written in the call.
    template <class D>
        requires BusDevice<D> || std::derived_from<D, Device>
    [[nodiscard]] Registered register_device(std::string name, const std::shared_ptr<D>& device,
                                             std::initializer_list<ResourceConstraint> requested = {},
                                             std::optional<InstanceId> parent = std::nullopt) {
        return register_device(std::move(name), device, std::span(requested.begin(), requested.size()),
                               parent);
    }

    /// Reserves resources under a name, without a device on the buses: for devices that the hypervisor
    /// emulates itself (interrupt controllers, a timer), and for a bus that is only a parent. A reservation
    /// is unregistered like a device.
    [[nodiscard]] Registered reserve(std::string name, std::span<const ResourceConstraint> requested,
                                     std::optional<InstanceId> parent = std::nullopt) {
        return add(no_parts(std::move(name)), parent, requested);
    }
    /// Reserves resources for a device that someone else emulates, for example KVM.
    [[nodiscard]] Registered reserve(std::string name,
                                     std::initializer_list<ResourceConstraint> requested = {},
                                     std::optional<InstanceId> parent = std::nullopt) {
        return reserve(std::move(name), std::span(requested.begin(), requested.size()), parent);
    }

    /// Registers a device of a saved machine with its former id and resources. The allocator must have been
    /// restored from its saved state (SystemAllocator::from_state()), so that the id and the resources of the
    /// record are allocated, and no device may hold them yet; otherwise returns `resource_unavailable`.
    /// Restore parents before their children. If this fails, the id and the resources stay allocated.
    template <class D>
        requires BusDevice<D> || std::derived_from<D, Device>
    [[nodiscard]] Registered restore_device(const DeviceRecord& record, const std::shared_ptr<D>& device) {
        return device ? add(parts_of(record.name, device), record.parent, {}, &record) : no_device();
    }
    /// The same for a reservation of reserve().
    [[nodiscard]] Registered restore_reservation(const DeviceRecord& record) {
        return add(no_parts(record.name), record.parent, {}, &record);
    }

    /// Removes a device from the buses, waits until no thread is inside it, calls set_resources with an empty
    /// set, and frees its resources. Exceptions of set_resources are ignored. On a thread that is in a
    /// device, or that holds the lock of a Locked device, it does not wait (see IoManager): another thread
    /// may then still be in the device when set_resources is called and the resources are free for others.
    std::expected<DeviceInfo, Failure> unregister_device(InstanceId id) {
        std::shared_ptr<Node> node;
        DeviceInfo info;
        {
            const detail::LockGuard guard(mutex_);
            node = visible(id);
            if (!node) {
                return fail(DeviceManagerError::unknown_device);
            }
            if (node->state == State::moving) {
                return fail(DeviceManagerError::busy);
            }
            if (node->children != 0) {
                return fail(DeviceManagerError::has_children);
            }
            info = info_of(*node);
            node->state = State::going;
        }
        Going going{*this, *node};
        take_off_buses(node);
        going.done = true;
        detail::quietly([&] { node->listener({}); });
        forget(*node, true);
        return info;
    }

    /// Assigns another range to the device that owns `any_address_inside`, for example when the guest has
    /// moved a BAR; it may overlap the old range. First set_resources is called with the resources after the
    /// move, then the device is moved on the bus. At every moment it answers at the old range or at the new
    /// one. Returns when no thread is inside it through the old range. If an error is returned or an
    /// exception propagates, nothing has changed, and set_resources has been called again with the old
    /// resources if it was called with the new ones.
    [[nodiscard]] std::expected<void, Failure> move_pio(PioAddress any_address_inside, PioRange to) {
        return move<PioResource, PioConstraint>(any_address_inside, to);
    }
    /// Moves a device's memory to another range of the same size; `any_address_inside` identifies the old
    /// one.
    [[nodiscard]] std::expected<void, Failure> move_mmio(MmioAddress any_address_inside, MmioRange to) {
        return move<MmioResource, MmioConstraint>(any_address_inside, to);
    }

    /// An access of the guest; see IoManager.
    [[nodiscard]] std::expected<void, BusError> read(std::uint64_t address, std::span<std::uint8_t> data,
                                                     IoType type) {
        if (type == IoType::mmio) {
            return io_.mmio_read(MmioAddress{address}, data);
        }
        const auto port = port_of(address);
        return port ? io_.pio_read(*port, data) : std::unexpected(BusError::device_not_found);
    }
    /// Dispatches a write, as IoManager::pio_write and mmio_write do.
    [[nodiscard]] std::expected<void, BusError> write(std::uint64_t address,
                                                      std::span<const std::uint8_t> data, IoType type) {
        if (type == IoType::mmio) {
            return io_.mmio_write(MmioAddress{address}, data);
        }
        const auto port = port_of(address);
        return port ? io_.pio_write(*port, data) : std::unexpected(BusError::device_not_found);
    }

    /// The buses. Devices that are registered there directly are not part of the tree. Devices of the tree
    /// should be moved and removed by the manager, not here.
    [[nodiscard]] IoManager& io_manager() noexcept { return io_; }

    /// How many devices are registered, reservations included.
    [[nodiscard]] std::size_t size() const {
        const detail::LockGuard guard(mutex_);
        std::size_t count = 0;
        for (const auto& node : nodes_) {
            count += node->is_visible() ? 1U : 0U;
        }
        return count;
    }
    /// All devices in the order of their ids.
    [[nodiscard]] std::vector<DeviceInfo> list() const {
        std::vector<DeviceInfo> all;
        const detail::LockGuard guard(mutex_);
        all.reserve(nodes_.size());
        for (const auto& node : nodes_) {
            if (node->is_visible()) {
                all.push_back(info_of(*node));
            }
        }
        return all;
    }
    /// The device with this id.
    [[nodiscard]] std::optional<DeviceInfo> find(InstanceId id) const {
        return first([&](const Node& node) { return node.id == id; });
    }
    /// The device of this name with the lowest id.
    [[nodiscard]] std::optional<DeviceInfo> find(std::string_view name) const {
        return first([&](const Node& node) { return node.name == name; });
    }
    /// The device that has the address among its resources.
    [[nodiscard]] std::optional<DeviceInfo> owner(PioAddress address) const {
        return first([&](const Node& node) { return node.template range_at<PioResource>(address); });
    }
    /// The device that owns this address.
    [[nodiscard]] std::optional<DeviceInfo> owner(MmioAddress address) const {
        return first([&](const Node& node) { return node.template range_at<MmioResource>(address); });
    }
    /// The devices on an interrupt line (several if it is shared), in the order of their ids.
    [[nodiscard]] std::vector<DeviceInfo> irq_owners(std::uint32_t irq) const {
        std::vector<DeviceInfo> all;
        const detail::LockGuard guard(mutex_);
        for (const auto& node : nodes_) {
            if (node->is_visible() && node->has_irq(irq)) {
                all.push_back(info_of(*node));
            }
        }
        return all;
    }

    /// The tree as text, a line per device, for people:
    ///
    ///     1 pci
    ///       3 virtio-net  mmio 0xc0000000-0xc0000fff  irq 5
    ///     2 serial  pio 0x3f8-0x3ff  irq 4
    [[nodiscard]] std::string to_string() const {
        const std::vector<DeviceInfo> all = list();
        std::string text;
        // For each bus on the path from the root: the index in `all` at which the search for its next child
        // continues.
        std::vector<Step> path(1);
        while (!path.empty()) {
            auto& [parent, next] = path.back();
            while (next < all.size() && all[next].parent != parent) {
                ++next;
            }
            if (next == all.size()) {
                path.pop_back();
                continue;
            }
            const DeviceInfo& info = all[next++];
            text += std::string(2 * (path.size() - 1), ' ') + std::to_string(info.id) + " " + info.name;
            if (!info.resources.empty()) {
                text += "  " + vmdevice::to_string(info.resources);
            }
            text += "\n";
            path.push_back({info.id, 0});
        }
        return text;
    }

private:
    using Node = detail::DeviceNode<typename Allocator::Resources>;
    using State = detail::DeviceNodeState;

    struct Step {
        std::optional<InstanceId> parent;
        std::size_t next = 0;
    };

    /// A registration that the destructor undoes unless it was committed.
    struct Pending {
        explicit Pending(BasicDeviceManager& owner) : manager(owner) {}
        Pending(const Pending&) = delete;
        Pending& operator=(const Pending&) = delete;
        ~Pending() {
            if (!node || committed) {
                return;
            }
            if (notified) {
                detail::quietly([&] { node->listener({}); });
            }
            manager.forget(*node, frees);
        }
        BasicDeviceManager& manager;
        std::shared_ptr<Node> node;
        /// Whether the resources were allocated by this registration, so that undoing it frees them.
        bool frees = true;
        bool notified = false;
        bool committed = false;
    };
    /// A device whose removal has begun. The destructor makes the device available again unless the removal
    /// is done.
    struct Going {
        Going(BasicDeviceManager& owner, Node& of) : manager(owner), node(of) {}
        Going(const Going&) = delete;
        Going& operator=(const Going&) = delete;
        ~Going() {
            if (!done) {
                const detail::LockGuard guard(manager.mutex_);
                node.state = State::ready;
            }
        }
        BasicDeviceManager& manager;
        Node& node;
        bool done = false;
    };
    /// An instance id that the destructor frees unless it is kept.
    struct NewId {
        explicit NewId(Allocator& from) : allocator(from), id(from.allocate_instance_id()) {}
        NewId(const NewId&) = delete;
        NewId& operator=(const NewId&) = delete;
        ~NewId() {
            if (id && !kept) {
                static_cast<void>(allocator.free_instance_id(*id));
            }
        }
        Allocator& allocator;
        std::expected<std::uint32_t, AllocError> id;
        bool kept = false;
    };
    /// A move that the destructor undoes unless it was committed.
    template <class Move>
    struct Moving {
        Moving(BasicDeviceManager& owner, Node& of, const Move& begun, DeviceResources had)
            : manager(owner), node(of), move(begun), before(std::move(had)) {}
        Moving(const Moving&) = delete;
        Moving& operator=(const Moving&) = delete;
        ~Moving() {
            if (committed) {
                return;
            }
            if (notified) {
                detail::quietly([&] { node.listener(before); });
            }
            const detail::LockGuard guard(manager.mutex_);
            manager.allocator_.cancel_move(move);
            node.state = State::ready;
        }
        BasicDeviceManager& manager;
        Node& node;
        Move move;
        DeviceResources before;
        bool notified = false;
        bool committed = false;
    };

    static std::unexpected<Failure> fail(DeviceManagerError kind, std::string detail = {}) {
        return std::unexpected(Failure{kind, std::move(detail)});
    }
    static Registered no_device() { return fail(DeviceManagerError::no_device); }

    static detail::DeviceParts no_parts(std::string name) {
        detail::DeviceParts parts;
        parts.name = std::move(name);
        return parts;
    }
    /// The parts of a device that the type of the pointer shows.
    template <class D>
    static detail::DeviceParts parts_of(std::string name, const std::shared_ptr<D>& device) {
        detail::DeviceParts parts = no_parts(std::move(name));
        if constexpr (std::derived_from<D, Device>) {
            parts.device = device;
        }
        if constexpr (std::derived_from<D, DevicePio>) {
            parts.pio = device;
        }
        if constexpr (std::derived_from<D, DeviceMmio>) {
            parts.mmio = device;
        }
        if constexpr (requires(const DeviceResources& resources) { device->set_resources(resources); }) {
            parts.listener = {device.get(), [](void* object, const DeviceResources& resources) {
                                  static_cast<D*>(object)->set_resources(resources);
                              }};
        }
        return parts;
    }

    Registered add(const detail::DeviceParts& parts, std::optional<InstanceId> parent,
                   std::span<const ResourceConstraint> requested, const DeviceRecord* record = nullptr) {
        // Another thread may register a device directly on a bus after the ranges have been chosen and before
        // this device is registered there. If the chosen ranges are taken then, choose again.
        constexpr int attempts = 8;
        for (int attempt = 1;; ++attempt) {
            Pending pending(*this);
            if (auto reserved = reserve_for(pending, parts, parent, requested, record); !reserved) {
                return std::unexpected(std::move(reserved.error()));
            }
            // The device's own code runs while the manager holds no lock.
            pending.notified = true;
            pending.node->listener(pending.node->resources);
            if (!put_on_buses(pending.node)) {
                if (attempt == attempts) {
                    return fail(DeviceManagerError::bus_conflict);
                }
                continue;
            }
            const detail::LockGuard guard(mutex_);
            on_buses_ += pending.node->ranges();
            pending.node->state = State::ready;
            pending.committed = true;
            return pending.node->id;
        }
    }

    /// Adds a new device to the tree with its id and its resources.
    std::expected<void, Failure> reserve_for(Pending& pending, const detail::DeviceParts& parts,
                                             std::optional<InstanceId> parent,
                                             std::span<const ResourceConstraint> requested,
                                             const DeviceRecord* record) {
        auto node = std::make_shared<Node>(parts);
        const detail::LockGuard guard(mutex_);
        if (ending_) {
            return fail(DeviceManagerError::ending);
        }
        std::shared_ptr<Node> parent_node;
        if (parent) {
            parent_node = visible(*parent);
            if (!parent_node) {
                return fail(DeviceManagerError::unknown_parent);
            }
        }
        if (nodes_.size() == nodes_.capacity()) {
            nodes_.reserve(2 * nodes_.size() + 1);
        }
        auto given = record == nullptr ? allocate(*node, requested) : take_over(*node, *record);
        if (!given) {
            return given;
        }
        // Nothing fails from here on.
        node->sequence = ++last_sequence_;
        node->parent = parent;
        if (parent_node) {
            ++parent_node->children;
        }
        nodes_.insert(nodes_.begin() + static_cast<std::ptrdiff_t>(place_of(node->id)), node);
        pending.frees = record == nullptr;
        pending.node = std::move(node);
        return {};
    }
    /// Allocates the id and the resources of a new device.
    std::expected<void, Failure> allocate(Node& node, std::span<const ResourceConstraint> requested)
        VMDEVICE_REQUIRES(mutex_) {
        for (const ResourceConstraint& wanted : requested) {
            if (!node.has_interface_for(wanted)) {
                return fail(DeviceManagerError::no_interface, vmdevice::to_string(wanted));
            }
        }
        std::vector<PioRange> pio;
        std::vector<MmioRange> mmio;
        if (io_.pio_size() + io_.mmio_size() != on_buses_) {
            // Some device was registered on the buses directly.
            pio = io_.pio_ranges();
            mmio = io_.mmio_ranges();
        }
        NewId id(allocator_);
        if (!id.id) {
            return fail(DeviceManagerError::resource_unavailable, "no instance id is left");
        }
        auto resources = allocator_.allocate(requested, pio, mmio);
        if (!resources) {
            return std::unexpected(
                explain(requested[resources.error().index], resources.error().reason, pio, mmio));
        }
        node.id = *id.id;
        node.resources = std::move(*resources);
        id.kept = true;
        return {};
    }
    /// The same for a device that is restored: its id and resources must be allocated already, and no device
    /// may hold them yet.
    std::expected<void, Failure> take_over(Node& node, const DeviceRecord& record) VMDEVICE_REQUIRES(mutex_) {
        if (!allocator_.is_instance_id_allocated(record.id) || node_of(record.id)) {
            return fail(DeviceManagerError::resource_unavailable, "instance id " + std::to_string(record.id));
        }
        for (std::size_t i = 0; i < record.resources.size(); ++i) {
            const Resource& resource = record.resources.get_all_resources()[i];
            if (!node.has_interface_for(resource)) {
                return fail(DeviceManagerError::no_interface, vmdevice::to_string(resource));
            }
            std::size_t holders = 0;
            for (const auto& other : nodes_) {
                holders += other->holds(resource);
            }
            for (std::size_t before = 0; before < i; ++before) {
                holders += record.resources.get_all_resources()[before] == resource ? 1U : 0U;
            }
            const auto* const line = std::get_if<LegacyIrqResource>(&resource);
            if (!allocator_.is_allocated(resource) ||
                holders >= (line != nullptr ? allocator_.irq_holders(line->irq) : 1)) {
                return fail(DeviceManagerError::resource_unavailable, vmdevice::to_string(resource));
            }
        }
        node.resources = record.resources;
        node.id = record.id;
        return {};
    }

    /// Finds the holder of a resource that was refused.
    [[nodiscard]] Failure explain(const ResourceConstraint& wanted, AllocError reason,
                                  std::span<const PioRange> pio, std::span<const MmioRange> mmio) const
        VMDEVICE_REQUIRES(mutex_) {
        const std::string subject = vmdevice::to_string(wanted) + ": ";
        if (reason == AllocError::taken) {
            for (const auto& node : nodes_) {
                if (auto why = node->explain(wanted)) {
                    return {DeviceManagerError::resource_unavailable, std::move(*why)};
                }
            }
            const auto* const ports = std::get_if<PioConstraint>(&wanted);
            const auto* const memory = std::get_if<MmioConstraint>(&wanted);
            std::optional<std::string> direct;
            if (ports != nullptr) {
                direct = detail::overlap_of(PioRange::create(*ports->base, ports->size), pio);
            } else if (memory != nullptr) {
                direct = detail::overlap_of(MmioRange::create(*memory->base, memory->size), mmio);
            }
            if (direct) {
                return {DeviceManagerError::bus_conflict,
                        subject + *direct + " is registered on the bus directly"};
            }
        }
        return {DeviceManagerError::resource_unavailable,
                subject + std::string(detail::in_words(wanted, reason))};
    }

    std::expected<void, BusError> put_on_buses(const std::shared_ptr<Node>& node) {
        if (node->ranges() == 0) {
            return {};
        }
        // Both pointers share ownership of the node, which owns the device; so the owner identifies the
        // registration.
        return io_.register_resources(node->resources, std::shared_ptr<DevicePio>(node, node->pio_side()),
                                      std::shared_ptr<DeviceMmio>(node, node->mmio_side()));
    }

    /// Whether a range on the bus belongs to this registration of a device.
    template <class Owner>
    static bool is_of(const Owner& owner, const std::shared_ptr<Node>& node) {
        return owner && !owner->second.owner_before(node) && !node.owner_before(owner->second);
    }
    /// If memory runs out, the device is still registered at all its ranges.
    void take_off_buses(const std::shared_ptr<Node>& node) {
        if (node->ranges() == 0) {
            return;
        }
        bool as_registered = true;
        for (const Resource& resource : node->resources) {
            if (const auto* const pio = std::get_if<PioResource>(&resource)) {
                const auto owner = io_.pio_owner(pio->range.base());
                as_registered = as_registered && is_of(owner, node) && owner->first == pio->range;
            } else if (const auto* const mmio = std::get_if<MmioResource>(&resource)) {
                const auto owner = io_.mmio_owner(mmio->range.base());
                as_registered = as_registered && is_of(owner, node) && owner->first == mmio->range;
            }
        }
        if (!as_registered || !io_.deregister_resources(node->resources)) {
            // A range of it was moved or removed directly on the bus: look for the ranges that are left.
            for (const PioRange& range : io_.pio_ranges()) {
                if (is_of(io_.pio_owner(range.base()), node)) {
                    static_cast<void>(io_.deregister_pio(range.base()));
                }
            }
            for (const MmioRange& range : io_.mmio_ranges()) {
                if (is_of(io_.mmio_owner(range.base()), node)) {
                    static_cast<void>(io_.deregister_mmio(range.base()));
                }
            }
        }
        const detail::LockGuard guard(mutex_);
        on_buses_ -= node->ranges();
    }

    template <class Kind, class Constraint, class A>
    std::expected<void, Failure> move(A inside, BusRange<A> to) {
        std::shared_ptr<Node> node;
        std::optional<Moving<typename RangeAllocator<A>::Move>> moving;
        DeviceResources after;
        {
            const detail::LockGuard guard(mutex_);
            for (const auto& candidate : nodes_) {
                if (candidate->is_visible() && candidate->template range_at<Kind>(inside)) {
                    node = candidate;
                }
            }
            if (!node || !node->on_bus()) {
                return fail(DeviceManagerError::unknown_device);
            }
            if (node->state == State::moving) {
                return fail(DeviceManagerError::busy);
            }
            const BusRange<A> from = *node->template range_at<Kind>(inside);
            DeviceResources before = node->resources;
            after = before;
            after.replace(Kind{from}, Kind{to});
            const auto begun = allocator_.begin_move(from, to);
            if (!begun) {
                return std::unexpected(explain(Constraint::at(to), begun.error(), {}, {}));
            }
            moving.emplace(*this, *node, *begun, std::move(before));
            node->state = State::moving;
        }
        moving->notified = true;
        node->listener(after);
        if (const auto moved = move_on_bus(node, moving->move.from(), to); !moved) {
            return fail(DeviceManagerError::bus_conflict,
                        vmdevice::to_string(Constraint::at(to)) + ": " +
                            std::string(vmdevice::to_string(moved.error())));
        }
        const detail::LockGuard guard(mutex_);
        allocator_.finish_move(moving->move);
        node->resources = std::move(after);
        node->state = State::ready;
        moving->committed = true;
        return {};
    }
    std::expected<void, BusError> move_on_bus(const std::shared_ptr<Node>& node, PioRange from, PioRange to) {
        return is_of(io_.pio_owner(from.base()), node) ? io_.move_pio(from.base(), to)
                                                       : std::unexpected(BusError::device_not_found);
    }
    std::expected<void, BusError> move_on_bus(const std::shared_ptr<Node>& node, MmioRange from,
                                              MmioRange to) {
        return is_of(io_.mmio_owner(from.base()), node) ? io_.move_mmio(from.base(), to)
                                                        : std::unexpected(BusError::device_not_found);
    }

    /// Removes a device from the tree, and frees its resources if `frees` is set.
    void forget(const Node& gone, bool frees) noexcept {
        std::shared_ptr<Node> kept;  // destroys the device after the lock is released
        const detail::LockGuard guard(mutex_);
        const std::size_t place = place_of(gone.id);
        kept = std::move(nodes_[place]);
        nodes_.erase(nodes_.begin() + static_cast<std::ptrdiff_t>(place));
        if (gone.parent) {
            --node_of(*gone.parent)->children;
        }
        if (frees) {
            allocator_.free(gone.resources);
            static_cast<void>(allocator_.free_instance_id(gone.id));
        }
    }
    /// Returns the most recently registered device and marks it as being removed.
    std::shared_ptr<Node> take_newest() {
        const detail::LockGuard guard(mutex_);
        std::shared_ptr<Node> newest;
        for (const auto& node : nodes_) {
            if (!newest || node->sequence > newest->sequence) {
                newest = node;
            }
        }
        if (newest) {
            newest->state = State::going;
        }
        return newest;
    }

    /// The index at which the node of this id is, or would be inserted.
    [[nodiscard]] std::size_t place_of(InstanceId id) const VMDEVICE_REQUIRES(mutex_) {
        std::size_t low = 0;
        std::size_t high = nodes_.size();
        while (low < high) {
            const std::size_t middle = low + (high - low) / 2;
            if (nodes_[middle]->id < id) {
                low = middle + 1;
            } else {
                high = middle;
            }
        }
        return low;
    }
    [[nodiscard]] std::shared_ptr<Node> node_of(InstanceId id) const VMDEVICE_REQUIRES(mutex_) {
        const std::size_t place = place_of(id);
        return place < nodes_.size() && nodes_[place]->id == id ? nodes_[place] : nullptr;
    }
    [[nodiscard]] std::shared_ptr<Node> visible(InstanceId id) const VMDEVICE_REQUIRES(mutex_) {
        auto node = node_of(id);
        return node && node->is_visible() ? node : nullptr;
    }
    static DeviceInfo info_of(const Node& node) {
        return {node.id, node.name, node.parent, node.resources, node.device, node.pio, node.mmio};
    }
    template <class Predicate>
    [[nodiscard]] std::optional<DeviceInfo> first(Predicate matches) const {
        const detail::LockGuard guard(mutex_);
        for (const auto& node : nodes_) {
            if (node->is_visible() && matches(*node)) {
                return info_of(*node);
            }
        }
        return std::nullopt;
    }

    static std::optional<PioAddress> port_of(std::uint64_t address) noexcept {
        if (address > 0xFFFF) {
            return std::nullopt;
        }
        return PioAddress{static_cast<std::uint16_t>(address)};
    }

    mutable detail::Mutex mutex_;
    Allocator& allocator_ VMDEVICE_GUARDED_BY(mutex_);
    /// In the order of their ids.
    std::vector<std::shared_ptr<Node>> nodes_ VMDEVICE_GUARDED_BY(mutex_);
    std::uint64_t last_sequence_ VMDEVICE_GUARDED_BY(mutex_) = 0;
    /// How many ranges of the devices of the tree are on the buses.
    std::size_t on_buses_ VMDEVICE_GUARDED_BY(mutex_) = 0;
    bool ending_ VMDEVICE_GUARDED_BY(mutex_) = false;
    /// The last member, so that it is destroyed first: the destructor of a device that was registered there
    /// directly may still read the tree.
    IoManager io_;
};

/// Owns the devices, allocates their resources and registers them. Accesses of the guest go to io_manager(),
/// or to read() and write() here, which call it.
///
/// Every operation is done completely or not at all, also if memory runs out (std::bad_alloc) or a device
/// throws. The devices' own code (name, set_resources, destructors) runs without a lock held, and may call
/// the manager.
///
/// Thread safety: every function may be called from any thread, also from a device's handler; for removal
/// from a handler see IoManager. Only the destructor must run after all other calls have returned, except
/// those from the destructors of the devices. No other code may use the allocator at the same time.
class DeviceManager : public BasicDeviceManager<> {
public:
    using BasicDeviceManager::BasicDeviceManager;
};

}  // namespace vmdevice::inline v0_2

// vmdevice/locked.hpp

/// Locked<D>: an unsynchronised device behind a mutex, for a device that vCPUs and the event loop share.

namespace vmdevice::inline v0_2 {

namespace detail {

template <class D>
concept PioDeviceLike =
    requires(D& device, PioAddress base, std::span<std::uint8_t> in, std::span<const std::uint8_t> out) {
        device.pio_read(base, PioOffset{}, in);
        device.pio_write(base, PioOffset{}, out);
    };
template <class D>
concept MmioDeviceLike =
    requires(D& device, MmioAddress base, std::span<std::uint8_t> in, std::span<const std::uint8_t> out) {
        device.mmio_read(base, MmioOffset{}, in);
        device.mmio_write(base, MmioOffset{}, out);
    };

/// std::invoke, whose header costs more than the rest of this one.
template <class F, class D>
decltype(auto) call(F&& function, D& device) {
    if constexpr (std::is_member_function_pointer_v<std::remove_cvref_t<F>>) {
        return (device.*function)();
    } else if constexpr (std::is_member_object_pointer_v<std::remove_cvref_t<F>>) {
        return (device.*function);
    } else {
        return std::forward<F>(function)(device);
    }
}

/// The model behind a device: what an adapter such as ByteDevice holds, or the device itself.
template <class D>
constexpr auto& model_of(D& device) {
    if constexpr (requires { device.device(); }) {
        return device.device();
    } else {
        return device;
    }
}

/// The bus interfaces of Locked. Each is a separate base class, so that Locked has the functions of a bus
/// only if the device has them.
template <class Self>
class LockedPio : public DevicePio {
public:
    void pio_read(PioAddress base, PioOffset offset, std::span<std::uint8_t> data) override {
        self().with_lock([&](auto& device) { device.pio_read(base, offset, data); });
    }
    void pio_write(PioAddress base, PioOffset offset, std::span<const std::uint8_t> data) override {
        self().with_lock([&](auto& device) { device.pio_write(base, offset, data); });
    }
    void pio_read_repeated(PioAddress base, PioOffset offset, std::size_t width,
                           std::span<std::uint8_t> data) override {
        self().with_lock([&](auto& device) {
            if constexpr (requires { device.pio_read_repeated(base, offset, width, data); }) {
                device.pio_read_repeated(base, offset, width, data);
            } else {
                for (std::size_t at = 0; width != 0 && at < data.size(); at += width) {
                    device.pio_read(base, offset,
                                    data.subspan(at, width < data.size() - at ? width : data.size() - at));
                }
            }
        });
    }
    void pio_write_repeated(PioAddress base, PioOffset offset, std::size_t width,
                            std::span<const std::uint8_t> data) override {
        self().with_lock([&](auto& device) {
            if constexpr (requires { device.pio_write_repeated(base, offset, width, data); }) {
                device.pio_write_repeated(base, offset, width, data);
            } else {
                for (std::size_t at = 0; width != 0 && at < data.size(); at += width) {
                    device.pio_write(base, offset,
                                     data.subspan(at, width < data.size() - at ? width : data.size() - at));
                }
            }
        });
    }

private:
    Self& self() noexcept { return static_cast<Self&>(*this); }
};

template <class Self>
class LockedMmio : public DeviceMmio {
public:
    void mmio_read(MmioAddress base, MmioOffset offset, std::span<std::uint8_t> data) override {
        self().with_lock([&](auto& device) { device.mmio_read(base, offset, data); });
    }
    void mmio_write(MmioAddress base, MmioOffset offset, std::span<const std::uint8_t> data) override {
        self().with_lock([&](auto& device) { device.mmio_write(base, offset, data); });
    }

private:
    Self& self() noexcept { return static_cast<Self&>(*this); }
};

struct NotOnPioBus {};
struct NotOnMmioBus {};

}  // namespace detail

template <class D>
class Locked;

/// A guard that keeps a device locked while it exists. `->` and `*` access the model behind the adapters
/// (`ByteDevice`, `SpanDevice`), so that `com1->lock()->enqueue_raw_bytes(typed)` is one call under the lock.
///
/// Thread safety: a guard belongs to the thread that created it. While it exists, that thread must not call
/// the device in any other way and must not create another guard of the same device. A pointer or reference
/// to the model must not outlive the guard.
template <class D>
class [[nodiscard]] LockedModel {
    using Device = std::conditional_t<std::is_const_v<D>, const typename std::remove_const_t<D>::device_type,
                                      typename std::remove_const_t<D>::device_type>;
    using Model = std::remove_reference_t<decltype(detail::model_of(std::declval<Device&>()))>;

public:
    LockedModel(const LockedModel&) = delete;
    LockedModel& operator=(const LockedModel&) = delete;
    ~LockedModel() = default;

    /// The model; the lock is held.
    [[nodiscard]] Model* operator->() const noexcept { return model_; }
    /// The model; the lock is held.
    [[nodiscard]] Model& operator*() const noexcept { return *model_; }

private:
    friend std::remove_const_t<D>;
    LockedModel(detail::Mutex& mutex, Device& device) : guard_(mutex), model_(&detail::model_of(device)) {}

    detail::DeviceLock guard_;
    Model* model_;
};

/// Owns a device and locks a mutex around each access to it. Locked<D> has the bus interfaces that D has; if
/// D has none but has byte `read`/`write` (a bare register model), Locked<D> is a register model as well.
/// `share()` creates a device for an IoManager from a model in one call.
///
/// Thread safety: every function may be called from any thread. The mutex is not recursive: a device must not
/// access itself from inside its own access, whether through the bus, with_lock() or lock(). Without `NDEBUG`, an
/// assertion stops a thread that would wait for itself; with it, nothing is checked.
template <class D>
class Locked
    : public std::conditional_t<detail::PioDeviceLike<D>, detail::LockedPio<Locked<D>>, detail::NotOnPioBus>,
      public std::conditional_t<detail::MmioDeviceLike<D>, detail::LockedMmio<Locked<D>>,
                                detail::NotOnMmioBus> {
public:
    using device_type = D;

    Locked()
        requires std::default_initializable<D>
    = default;
    /// Constructs the device from these arguments.
    template <class... Args>
        requires(sizeof...(Args) > 0 && std::constructible_from<D, Args...> &&
                 !(sizeof...(Args) == 1 && (std::same_as<std::remove_cvref_t<Args>, Locked> && ...)))
    explicit(sizeof...(Args) > 1) Locked(Args&&... args) : device_(std::forward<Args>(args)...) {}

    Locked(const Locked&) = delete;
    Locked& operator=(const Locked&) = delete;

    /// The model, with the mutex held until the guard is destroyed: without a name, at the end of the
    /// statement. Two calls in one statement, such as `a->lock()->x() && a->lock()->y()`, wait for each other
    /// forever; keep the first guard in a variable instead. Without `NDEBUG`, an assertion reports such a wait.
    [[nodiscard]] LockedModel<Locked> lock() VMDEVICE_NO_ANALYSIS { return {mutex_, device_}; }
    [[nodiscard]] LockedModel<const Locked> lock() const VMDEVICE_NO_ANALYSIS { return {mutex_, device_}; }

    /// Calls `function(device)` with the mutex held and returns its result. An event loop uses this to pass
    /// input or to take a snapshot. A reference to the device must not outlive the call.
    template <class F>
    decltype(auto) with_lock(F&& function) {
        const detail::DeviceLock guard(mutex_);
        return detail::call(std::forward<F>(function), device_);
    }
    template <class F>
    decltype(auto) with_lock(F&& function) const {
        const detail::DeviceLock guard(mutex_);
        return detail::call(std::forward<F>(function), std::as_const(device_));
    }

    /// Forwards to the model, with the lock held.
    template <std::unsigned_integral Offset>
    auto read(Offset offset)
        requires requires(D& device) { device.read(offset); }
    /// Forwards to the model, with the lock held.
    {
        const detail::DeviceLock guard(mutex_);
        return device_.read(offset);
    }
    /// Forwards to the model, with the lock held.
    template <std::unsigned_integral Offset>
    auto write(Offset offset, std::uint8_t value)
        requires requires(D& device) { device.write(offset, value); }
    /// Forwards to the model, with the lock held.
    {
        const detail::DeviceLock guard(mutex_);
        return device_.write(offset, value);
    }
    /// Forwards to the model, with the lock held.
    auto write_data(std::span<const std::uint8_t> data)
        requires requires(D& device) { device.write_data(data); }
    {
        const detail::DeviceLock guard(mutex_);
        return device_.write_data(data);
    }

private:
    mutable detail::Mutex mutex_;
    D device_ VMDEVICE_GUARDED_BY(mutex_);
};

template <class D>
Locked(D) -> Locked<D>;

}  // namespace vmdevice::inline v0_2

// vmdevice/port_view.hpp

/// PortView: one device at several port ranges with gaps between them.

namespace vmdevice::inline v0_2 {

/// Lets a device be registered at several ranges: it receives every access with its offset from `origin`,
/// whichever range was accessed. The i8042 needs this, because a port of another device is between its ports
/// 0x60 and 0x64. The ranges must not begin below `origin`.
///
/// Thread safety: that of the device.
class PortView : public DevicePio {
public:
    /// Offsets that `device` sees are counted from the port `origin`.
    PortView(PioAddress origin, std::shared_ptr<DevicePio> device)
        : origin_(origin), device_(std::move(device)) {}

    void pio_read(PioAddress base, PioOffset offset, std::span<std::uint8_t> data) override {
        device_->pio_read(origin_, from_origin(base, offset), data);
    }
    void pio_write(PioAddress base, PioOffset offset, std::span<const std::uint8_t> data) override {
        device_->pio_write(origin_, from_origin(base, offset), data);
    }
    void pio_read_repeated(PioAddress base, PioOffset offset, std::size_t width,
                           std::span<std::uint8_t> data) override {
        device_->pio_read_repeated(origin_, from_origin(base, offset), width, data);
    }
    void pio_write_repeated(PioAddress base, PioOffset offset, std::size_t width,
                            std::span<const std::uint8_t> data) override {
        device_->pio_write_repeated(origin_, from_origin(base, offset), width, data);
    }

private:
    [[nodiscard]] PioOffset from_origin(PioAddress base, PioOffset offset) const noexcept {
        return static_cast<PioOffset>(base.value - origin_.value + offset);
    }

    PioAddress origin_;
    std::shared_ptr<DevicePio> device_;
};

}  // namespace vmdevice::inline v0_2

// vmdevice/span_device.hpp

/// SpanDevice<D>: connects a model that takes whole accesses (such as a PL031 clock) to the buses.

namespace vmdevice::inline v0_2 {

/// A model of registers of its own width: `read(offset, bytes)` fills the bytes, `write(offset, bytes)` takes
/// them. `write` may return any type; the error of an expected<void, Error> is counted (see SpanDevice).
template <class D>
concept SpanRegisters =
    requires(D& device, std::uint64_t offset, std::span<std::uint8_t> in, std::span<const std::uint8_t> out) {
        device.read(offset, in);
        device.write(offset, out);
    };

/// A DevicePio and a DeviceMmio that passes each access to the model unchanged. D is the model or a reference
/// to it. The model decides which widths and offsets are valid.
///
/// Thread safety: that of the model. Locked<SpanDevice<D>> makes an unsynchronised one safe.
template <class D>
    requires SpanRegisters<std::remove_reference_t<D>>
class SpanDevice : public DevicePio, public DeviceMmio {
    using Target = std::remove_reference_t<D>;
    using WriteResult =
        decltype(std::declval<Target&>().write(std::uint64_t{}, std::span<const std::uint8_t>{}));

public:
    /// The error type of the model's write, or an empty struct if it has none.
    using error_type = typename detail::ErrorOf<WriteResult>::Type;
    /// Called with each error that the model's write returns. It runs on the vCPU's thread, so it should be
    /// short.
    using ErrorHandler = typename detail::WriteErrors<error_type>::Handler;

    SpanDevice()
        requires std::default_initializable<D>
        : device_() {}
    /// Takes the model.
    explicit SpanDevice(D device) : device_(std::forward<D>(device)) {}
    /// Constructs the model in place, for a model that cannot be moved.
    template <class... Args>
        requires std::constructible_from<D, Args...>
    explicit SpanDevice(std::in_place_t, Args&&... args) : device_(std::forward<Args>(args)...) {}

    /// The model.
    [[nodiscard]] Target& device() noexcept { return device_; }
    [[nodiscard]] const Target& device() const noexcept { return device_; }

    /// How many of the model's writes returned an error. The guest never sees these errors.
    [[nodiscard]] std::uint64_t write_errors() const noexcept { return errors_.count(); }
    void set_error_handler(ErrorHandler handler) { errors_.set_handler(std::move(handler)); }

    void pio_read(PioAddress /*base*/, PioOffset offset, std::span<std::uint8_t> data) override {
        static_cast<void>(device_.read(offset, data));
    }
    void pio_write(PioAddress /*base*/, PioOffset offset, std::span<const std::uint8_t> data) override {
        errors_.note([&] { return device_.write(offset, data); });
    }
    void mmio_read(MmioAddress /*base*/, MmioOffset offset, std::span<std::uint8_t> data) override {
        static_cast<void>(device_.read(offset, data));
    }
    void mmio_write(MmioAddress /*base*/, MmioOffset offset, std::span<const std::uint8_t> data) override {
        errors_.note([&] { return device_.write(offset, data); });
    }

private:
    D device_;
    detail::WriteErrors<error_type> errors_;
};

template <class D>
SpanDevice(D) -> SpanDevice<D>;

}  // namespace vmdevice::inline v0_2

// vmdevice/share.hpp

/// share(): creates a device for an IoManager from a model.

namespace vmdevice::inline v0_2 {

namespace detail {

template <class Model>
struct AdapterOf;
template <ByteRegisters Model>
struct AdapterOf<Model> {
    using Type = ByteDevice<Model>;
};
template <SpanRegisters Model>
    requires(!ByteRegisters<Model>)
struct AdapterOf<Model> {
    using Type = SpanDevice<Model>;
};

}  // namespace detail

/// A model of registers: it reads and writes bytes (a UART) or whole accesses (a PL031 clock).
template <class Model>
concept RegisterModel = ByteRegisters<Model> || SpanRegisters<Model>;

/// The type of device that share() creates from a model: one for both buses, with a mutex around each access.
template <RegisterModel Model>
using SharedDevice = Locked<typename detail::AdapterOf<Model>::Type>;

/// As share(model) below, for a model that cannot be moved: it is constructed from `args`.
template <RegisterModel Model, class... Args>
    requires std::constructible_from<Model, Args...>
[[nodiscard]] std::shared_ptr<SharedDevice<Model>> share(std::in_place_type_t<Model>, Args&&... args) {
    if constexpr (ByteRegisters<Model>) {
        return std::make_shared<SharedDevice<Model>>(std::in_place, ByteDeviceOptions{},
                                                     std::forward<Args>(args)...);
    } else {
        return std::make_shared<SharedDevice<Model>>(std::in_place, std::forward<Args>(args)...);
    }
}

/// Moves a model into a device that can be registered with an IoManager, and that other threads of the VMM
/// access with `device->lock()`:
///
/// ```cpp
/// const auto com1 = vmdevice::share(vmsuperio::Serial(trigger, writer));
/// if (io.register_pio(vmdevice::pio_range(0x3F8, 8), com1)) {
///     const auto fitted = com1->lock()->enqueue_raw_bytes(typed);
/// }
/// ```
///
/// For a model of byte registers, the layout of the registers in the range may be specified. Throws
/// std::bad_alloc.
template <RegisterModel Model>
[[nodiscard]] std::shared_ptr<SharedDevice<Model>> share(Model model) {
    return share(std::in_place_type<Model>, std::move(model));
}
/// The same, with the model's registers spaced as the options say.
template <ByteRegisters Model>
[[nodiscard]] std::shared_ptr<SharedDevice<Model>> share(Model model, ByteDeviceOptions options) {
    return std::make_shared<SharedDevice<Model>>(std::in_place, options, std::move(model));
}
}  // namespace vmdevice::inline v0_2

// vmdevice/version.hpp

/// The version of vmdevice, for the preprocessor. It is that of the repository: vmsuperio and vmdevice are released
/// together. `docs/versioning.md` says what may change between two versions.
///
/// Everything in vmdevice is in the inline namespace `v0_2` of its major and minor version, so that a program may be
/// linked from parts that include different versions. Do not write `v0_2` yourself, and include a header instead
/// of declaring a name of vmdevice.

#define VMDEVICE_VERSION_MAJOR 0
#define VMDEVICE_VERSION_MINOR 2
#define VMDEVICE_VERSION_PATCH 0
/// One number that grows with each version: MAJOR * 1000000 + MINOR * 1000 + PATCH.
#define VMDEVICE_VERSION \
    (VMDEVICE_VERSION_MAJOR * 1000000 + VMDEVICE_VERSION_MINOR * 1000 + VMDEVICE_VERSION_PATCH)
#define VMDEVICE_VERSION_STRING "0.2.0"

// vmdevice/vmdevice.hpp

/// All of vmdevice: addresses, ranges, buses, device interfaces, IoManager, resources, DeviceManager.
