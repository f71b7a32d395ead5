// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
#pragma once

/// Who gets which ports, memory, interrupts and numbers.

#include <cstddef>
#include <cstdint>
#include <expected>
#include <initializer_list>
#include <limits>
#include <optional>
#include <span>
#include <utility>
#include <variant>
#include <vector>

#include <vmdevice/address.hpp>
#include <vmdevice/range.hpp>
#include <vmdevice/range_allocator.hpp>
#include <vmdevice/resources.hpp>

namespace vmdevice {

/// A number of something: an interrupt, a device, a memory slot.
struct Number {
    std::uint32_t value;
    friend constexpr auto operator<=>(const Number&, const Number&) = default;
};
using NumberRange = BusRange<Number>;

/// What a SystemAllocator manages. A space that is not given has nothing to hand out.
struct SystemAllocatorConfig {
    std::optional<PioRange> pio = std::nullopt;
    std::optional<MmioRange> mmio = std::nullopt;
    /// Lines of the interrupt controller for devices: 5..15 or 16..23 on a PC.
    std::optional<NumberRange> irq = std::nullopt;
    /// Numbers for message-signalled interrupts.
    std::optional<NumberRange> msi = std::nullopt;
    /// Memory slots of the hypervisor.
    std::optional<NumberRange> kvm_mem_slots = std::nullopt;
    /// Instance ids count up from here.
    std::uint32_t first_instance_id = 1;
};

/// The resources of one machine.
///
/// Thread safety: none.
class SystemAllocator {
public:
    explicit SystemAllocator(const SystemAllocatorConfig& config)
        : pio_(make<PioAddress>(config.pio)),
          mmio_(make<MmioAddress>(config.mmio)),
          irq_(make<Number>(config.irq)),
          msi_(make<Number>(config.msi)),
          kvm_mem_slots_(make<Number>(config.kvm_mem_slots)),
          instance_ids_(instance_space(config.first_instance_id)),
          mac_numbers_(NumberRange::from_bounds(Number{0}, Number{0xFF'FFFF}).value()) {}

    [[nodiscard]] std::expected<PioRange, AllocError> allocate_pio(
        PioOffset size, PioOffset align = 1, AllocPolicy policy = AllocPolicy::first_match,
        std::optional<PioAddress> at = std::nullopt) {
        return from<PioAddress>(pio_, size, align, policy, std::nullopt, at);
    }
    [[nodiscard]] std::expected<MmioRange, AllocError> allocate_mmio(
        MmioOffset size, MmioOffset align = 4096, AllocPolicy policy = AllocPolicy::first_match,
        std::optional<MmioAddress> at = std::nullopt) {
        return from<MmioAddress>(mmio_, size, align, policy, std::nullopt, at);
    }
    /// The lowest free interrupt line, or `irq` and no other.
    [[nodiscard]] std::expected<std::uint32_t, AllocError> allocate_irq(
        std::optional<std::uint32_t> irq = std::nullopt) {
        return number_from(irq_, 1, irq);
    }
    /// The first of `count` consecutive message-signalled interrupts.
    [[nodiscard]] std::expected<std::uint32_t, AllocError> allocate_msi(std::uint32_t count) {
        return number_from(msi_, count, std::nullopt);
    }
    /// The lowest free memory slot, or `slot` and no other.
    [[nodiscard]] std::expected<std::uint32_t, AllocError> allocate_kvm_mem_slot(
        std::optional<std::uint32_t> slot = std::nullopt) {
        return number_from(kvm_mem_slots_, 1, slot);
    }
    /// The lowest free instance id.
    [[nodiscard]] std::expected<std::uint32_t, AllocError> allocate_instance_id() {
        const auto id = instance_ids_.allocate(1);
        return id ? std::expected<std::uint32_t, AllocError>(id->base().value) : std::unexpected(id.error());
    }

    [[nodiscard]] std::expected<void, AllocError> free_pio(PioRange range) { return give_back(pio_, range); }
    [[nodiscard]] std::expected<void, AllocError> free_mmio(MmioRange range) {
        return give_back(mmio_, range);
    }
    [[nodiscard]] std::expected<void, AllocError> free_irq(std::uint32_t irq) {
        return give_back(irq_, NumberRange::unit(Number{irq}));
    }
    [[nodiscard]] std::expected<void, AllocError> free_msi(std::uint32_t base, std::uint32_t count) {
        const auto range = NumberRange::create(Number{base}, count);
        return range ? give_back(msi_, *range) : std::unexpected(AllocError::not_allocated);
    }
    [[nodiscard]] std::expected<void, AllocError> free_kvm_mem_slot(std::uint32_t slot) {
        return give_back(kvm_mem_slots_, NumberRange::unit(Number{slot}));
    }
    [[nodiscard]] std::expected<void, AllocError> free_instance_id(std::uint32_t id) {
        return instance_ids_.free(NumberRange::unit(Number{id}));
    }

    /// All that a device asks for, in that order, or nothing.
    [[nodiscard]] std::expected<DeviceResources, AllocError> allocate(
        std::span<const ResourceConstraint> constraints) {
        Allocation allocation(*this, constraints.size());
        // What cannot lie elsewhere comes first, so that nothing else of this device is put there.
        for (const bool fixed : {true, false}) {
            for (std::size_t i = 0; i < constraints.size(); ++i) {
                if (is_fixed(constraints[i]) == fixed) {
                    const auto done = std::visit(
                        [&](const auto& wanted) { return add(allocation.parts[i], wanted); }, constraints[i]);
                    if (!done) {
                        return std::unexpected(done.error());
                    }
                }
            }
        }
        DeviceResources resources;
        for (const DeviceResources& part : allocation.parts) {
            for (const Resource& resource : part) {
                resources.append(resource);
            }
        }
        allocation.parts.clear();
        return resources;
    }
    [[nodiscard]] std::expected<DeviceResources, AllocError> allocate(
        std::initializer_list<ResourceConstraint> constraints) {
        return allocate(std::span(constraints.begin(), constraints.size()));
    }

    /// Takes back what allocate() gave. Resources that were not allocated here are left alone.
    void free(const DeviceResources& resources) {
        for (const Resource& resource : resources) {
            std::visit([&](const auto& owned) { release(owned); }, resource);
        }
    }

private:
    /// What has been given for each constraint; taken back where it is not used.
    struct Allocation {
        Allocation(SystemAllocator& from, std::size_t count) : allocator(from), parts(count) {}
        Allocation(const Allocation&) = delete;
        Allocation& operator=(const Allocation&) = delete;
        ~Allocation() {
            for (const DeviceResources& part : parts) {
                allocator.free(part);
            }
        }
        SystemAllocator& allocator;
        std::vector<DeviceResources> parts;
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
    static std::expected<BusRange<A>, AllocError> from(std::optional<RangeAllocator<A>>& space,
                                                       OffsetOf<A> size, OffsetOf<A> align,
                                                       AllocPolicy policy, std::optional<BusRange<A>> within,
                                                       std::optional<A> at) {
        if (!space) {
            return std::unexpected(AllocError::out_of_range);
        }
        return space->allocate(size, align, policy, within, at);
    }
    static std::expected<std::uint32_t, AllocError> number_from(std::optional<RangeAllocator<Number>>& space,
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
    static std::expected<void, AllocError> give_back(std::optional<RangeAllocator<A>>& space,
                                                     BusRange<A> range) {
        if (!space) {
            return std::unexpected(AllocError::not_allocated);
        }
        return space->free(range);
    }

    static bool is_fixed(const ResourceConstraint& constraint) {
        struct Visitor {
            bool operator()(const PioConstraint& wanted) const { return wanted.base.has_value(); }
            bool operator()(const MmioConstraint& wanted) const { return wanted.base.has_value(); }
            bool operator()(const LegacyIrqConstraint& wanted) const { return wanted.irq.has_value(); }
            bool operator()(const MsiIrqConstraint&) const { return false; }
            bool operator()(const MacAddressConstraint& wanted) const { return wanted.address.has_value(); }
            bool operator()(const KvmMemSlotConstraint& wanted) const { return wanted.slot.has_value(); }
        };
        return std::visit(Visitor{}, constraint);
    }

    using Added = std::expected<void, AllocError>;

    template <class Kind, class Constraint, class A>
    Added add_range(DeviceResources& resources, const Constraint& wanted,
                    std::optional<RangeAllocator<A>>& space) {
        const auto range = from<A>(space, wanted.size, wanted.align,
                                   wanted.base ? AllocPolicy::exact_match : AllocPolicy::first_match,
                                   wanted.within, wanted.base);
        if (!range) {
            return std::unexpected(range.error());
        }
        resources.append(Kind{*range});
        return {};
    }
    Added add(DeviceResources& resources, const PioConstraint& wanted) {
        return add_range<PioResource>(resources, wanted, pio_);
    }
    Added add(DeviceResources& resources, const MmioConstraint& wanted) {
        // A fixed address is what the machine's description says; it need not be aligned.
        MmioConstraint adjusted = wanted;
        if (wanted.base) {
            adjusted.align = 1;
        }
        return add_range<MmioResource>(resources, adjusted, mmio_);
    }
    Added add(DeviceResources& resources, const LegacyIrqConstraint& wanted) {
        const auto irq = allocate_irq(wanted.irq);
        if (!irq) {
            return std::unexpected(irq.error());
        }
        resources.append(LegacyIrqResource{*irq});
        return {};
    }
    Added add(DeviceResources& resources, const MsiIrqConstraint& wanted) {
        const auto base = allocate_msi(wanted.count);
        if (!base) {
            return std::unexpected(base.error());
        }
        resources.append(MsiIrqResource{wanted.type, *base, wanted.count});
        return {};
    }
    /// 52:54:00 and a number: locally administered, unicast.
    Added add(DeviceResources& resources, const MacAddressConstraint& wanted) {
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
    Added add(DeviceResources& resources, const KvmMemSlotConstraint& wanted) {
        const auto base = number_from(kvm_mem_slots_, wanted.count, wanted.slot);
        if (!base) {
            return std::unexpected(base.error());
        }
        // Slots are given back one by one, so they are allocated one by one, at the place just found.
        static_cast<void>(
            give_back(kvm_mem_slots_, NumberRange::create(Number{*base}, wanted.count).value()));
        for (std::uint32_t i = 0; i < wanted.count; ++i) {
            static_cast<void>(number_from(kvm_mem_slots_, 1, *base + i));
            resources.append(KvmMemSlotResource{*base + i});
        }
        return {};
    }

    void release(const PioResource& owned) { static_cast<void>(free_pio(owned.range)); }
    void release(const MmioResource& owned) { static_cast<void>(free_mmio(owned.range)); }
    void release(const LegacyIrqResource& owned) { static_cast<void>(free_irq(owned.irq)); }
    void release(const MsiIrqResource& owned) { static_cast<void>(free_msi(owned.base, owned.count)); }
    void release(const MacAddressResource& owned) {
        if (const auto number = mac_number(owned.address)) {
            static_cast<void>(mac_numbers_.free(NumberRange::unit(Number{*number})));
        }
    }
    void release(const KvmMemSlotResource& owned) { static_cast<void>(free_kvm_mem_slot(owned.slot)); }

    /// The number in an address that could have come from here.
    static std::optional<std::uint32_t> mac_number(const MacAddress& address) {
        if (address[0] != 0x52 || address[1] != 0x54 || address[2] != 0x00) {
            return std::nullopt;
        }
        return static_cast<std::uint32_t>(address[3]) << 16 | static_cast<std::uint32_t>(address[4]) << 8 |
               address[5];
    }

    std::optional<RangeAllocator<PioAddress>> pio_;
    std::optional<RangeAllocator<MmioAddress>> mmio_;
    std::optional<RangeAllocator<Number>> irq_;
    std::optional<RangeAllocator<Number>> msi_;
    std::optional<RangeAllocator<Number>> kvm_mem_slots_;
    RangeAllocator<Number> instance_ids_;
    RangeAllocator<Number> mac_numbers_;
};

}  // namespace vmdevice
