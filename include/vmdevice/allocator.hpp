// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
#pragma once

/// Assigns ports, memory, interrupts and numbers to devices.

#include <vmdevice/detail/config.hpp>

#include <cstddef>
#include <cstdint>
#include <expected>
#include <initializer_list>
#include <limits>
#include <optional>
#include <span>
#include <string_view>
#include <type_traits>
#include <utility>
#include <variant>
#include <vector>

#include <vmdevice/address.hpp>
#include <vmdevice/alloc_error.hpp>
#include <vmdevice/allocator_state.hpp>
#include <vmdevice/range.hpp>
#include <vmdevice/range_allocator.hpp>
#include <vmdevice/resources.hpp>

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
