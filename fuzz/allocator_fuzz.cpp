// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//
// SystemAllocator and DeviceManager: allocations never overlap and are where they were requested; an
// operation that fails changes nothing; freed resources can be allocated again. A map of single addresses is
// the oracle.
//
// The spaces are small (128 ports, 64 pages of memory, 12 interrupts, 16 memory slots), so that they fill up.
//
// Input: operations; policy: n modulo 3 (lowest, highest, exactly at):
//   0n s a t     allocate s ports at a multiple of 2^(a mod 8), at t     4n k  free the k-th allocation
//   1n s a t     s pages of memory likewise                             5n n constraint...  register a device
//   2n i         interrupts: any (n even) or i; 1 + bits 2:1 of n       6n k  unregister the k-th device
//                of them, shared as bits 6:5 of i say                   7n ... an access to a device's range
//   3n b s       free ports that may not be allocated (n < 4), save and restore (n < 8), move ports of a
//                device (n < 12) or its memory
// A constraint is a byte (bits 2:0 the kind, 3 at a fixed place, 7:4 the size less 1) and a place. After each
// step the state that the allocator saves is the oracle's.

#include <algorithm>
#include <array>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <span>
#include <string>
#include <utility>
#include <variant>
#include <vector>

#include <vmdevice/allocator.hpp>
#include <vmdevice/device_manager.hpp>

#include "support/target.hpp"

namespace fuzz {
namespace {

using namespace vmdevice;

constexpr std::uint64_t ports_first = 0x100;
constexpr std::uint64_t ports_last = 0x17F;
constexpr std::uint64_t memory_first = 0xD000'0000;
constexpr std::uint64_t page = 0x1000;
constexpr std::uint64_t memory_last = memory_first + 64 * page - 1;

class Tester : public Device {
public:
    [[nodiscard]] std::string name() const override { return "tester"; }
    void read(std::uint64_t address, std::span<std::uint8_t> data, IoType type) override {
        check_inside(address, data.size(), type);
        std::ranges::fill(data, std::uint8_t{0x5A});
    }
    void write(std::uint64_t address, std::span<const std::uint8_t> data, IoType type) override {
        check_inside(address, data.size(), type);
    }
    void set_resources(const DeviceResources& resources) override { resources_ = resources; }
    [[nodiscard]] const DeviceResources& resources() const { return resources_; }

private:
    void check_inside(std::uint64_t address, std::size_t length, IoType type) const {
        const auto holds = [&](const auto& range) {
            return address >= range.base().value && address + (length - 1) <= range.last().value;
        };
        check(type == IoType::pio ? std::ranges::any_of(resources_.get_pio_address_ranges(), holds)
                                  : std::ranges::any_of(resources_.get_mmio_address_ranges(), holds),
              "a device is reached inside its own ranges only");
    }
    DeviceResources resources_;
};

class AllocatorTarget {
public:
    explicit AllocatorTarget(const Trace& trace) : trace_(trace) {
        trace_(
            "// ports 0x100-0x17F, memory of 64 pages from 0xD0000000, interrupts 5-16, MSI 32-63, slots "
            "0-15");
    }

    void step(Input& input) {
        const Op op = next_op(input);
        switch (op.kind) {
            case OpKind::read: {
                const auto size = static_cast<PioOffset>(input.byte() % 34U);
                const auto align =
                    static_cast<PioOffset>((1U << (input.byte() % 8U)) + (op.detail >= 14 ? 2U : 0U));
                const auto at = static_cast<std::uint16_t>(ports_first - 8 + input.byte());
                allocate<PioResource>(allocator_.allocate_pio(size, align, policy(op), PioAddress{at}),
                                      ports_, size, align, op, at, ports_first, ports_last);
                break;
            }
            case OpKind::write: {
                const MmioOffset size = (input.byte() % 20U) * page;
                const MmioOffset align = page << (input.byte() % 6U);
                const MmioOffset at = memory_first + (input.byte() % 70U) * page;
                allocate<MmioResource>(allocator_.allocate_mmio(size, align, policy(op), MmioAddress{at}),
                                       memory_, size, align, op, at, memory_first, memory_last);
                break;
            }
            case OpKind::enqueue:
                allocate_irqs(op.detail, input.byte());
                break;
            case OpKind::tick:
                if (op.detail < 4) {
                    free_of_nobody(input);
                } else if (op.detail < 8) {
                    save_and_restore(input);
                } else if (op.detail < 12) {
                    move<PioResource>(input);
                } else {
                    move<MmioResource>(input);
                }
                break;
            case OpKind::snapshot:
                free_one(input.byte());
                break;
            case OpKind::sink:
                add_device(op.detail, input);
                break;
            case OpKind::host:
                remove_device(input.byte());
                break;
            case OpKind::other:
                access(input);
                break;
        }
        check_equal(manager_.size(), devices_.size(), "size()");
        check_state();
    }

private:
    // The oracle's view of an interrupt: how many holders the line has, and how they share it.
    struct Line {
        std::uint32_t holders;
        IrqSharing sharing;
    };

    void allocate_irqs(std::uint8_t detail, std::uint8_t byte) {
        const std::uint32_t count = 1U + ((detail >> 1U) & 3U);
        const bool any = detail % 2 == 0;
        const std::uint32_t wanted = byte % 20U;
        const auto sharing = static_cast<IrqSharing>((byte >> 5U) % 3U);
        const auto got = allocator_.allocate_irqs(count, any ? std::nullopt : std::optional(wanted), sharing);
        trace_("allocator.allocate_irqs(", count, any ? ", any or " : ", ", wanted, ", sharing ",
               static_cast<unsigned>(sharing), ");  // ", got ? "given" : "refused");
        const auto usable = [&](std::uint32_t irq) {
            const auto line = lines_.find(irq);
            return irq >= 5 && irq <= 16 &&
                   (line == lines_.end() ||
                    (sharing != IrqSharing::exclusive && line->second.sharing == sharing));
        };
        std::uint32_t possible = 0;
        for (std::uint32_t irq = any ? 5 : wanted; irq < (any ? 17 : wanted + count); ++irq) {
            possible += usable(irq) ? 1U : 0U;
        }
        check_equal(got.has_value(), possible >= count, "interrupts are allocated if there are enough");
        if (!got) {
            return;
        }
        check_equal(got->size(), count, "as many as asked for");
        std::set<std::uint32_t> different;
        for (std::uint32_t i = 0; i < count; ++i) {
            const std::uint32_t irq = (*got)[i];
            check(different.insert(irq).second, "they are different ones");
            check(any || irq == wanted + i, "they are the ones asked for");
            check(usable(irq), "all users of the interrupt share it");
            // A line that others have is allocated only if no free one is left.
            if (any && lines_.contains(irq)) {
                for (std::uint32_t other = 5; other <= 16; ++other) {
                    check(lines_.contains(other) || different.contains(other), "a free one comes first");
                }
            }
        }
        for (const std::uint32_t irq : *got) {
            claim(LegacyIrqResource{irq, sharing});
            held_.emplace_back(LegacyIrqResource{irq, sharing});
        }
    }

    void free_of_nobody(Input& input) {
        const auto range = PioRange::create({static_cast<std::uint16_t>(ports_first + input.byte())},
                                            static_cast<PioOffset>(input.byte() % 34U));
        if (range && !held(PioResource{*range})) {
            trace_("allocator.free_pio of a free range");
            check(!allocator_.free_pio(*range), "a free range cannot be freed");
        }
    }

    void save_and_restore(Input& input) {
        const SystemAllocatorState state = allocator_.state();
        std::vector<std::uint8_t> bytes = encode(state);
        const auto decoded = decode<SystemAllocatorState>(bytes);
        check(decoded && *decoded == state, "the bytes restore the saved state");
        auto restored = SystemAllocator::from_state(*decoded);
        check(restored && restored->state() == state, "a saved state is restored");
        // The devices keep their reference: the allocator continues from its own saved state.
        allocator_ = *restored;
        trace_("allocator = SystemAllocator::from_state(allocator.state())");
        // A state that was changed is refused, or is one that an allocator can be in.
        for (std::size_t changes = 1U + input.byte() % 4U; changes != 0; --changes) {
            bytes[input.u16() % bytes.size()] = input.byte();
        }
        if (const auto hostile = decode<SystemAllocatorState>(bytes)) {
            auto other = SystemAllocator::from_state(*hostile);
            check(other || !other.error().field.empty(), "an error names the member");
            check(!other || other->state() == *hostile, "an accepted state is restored unchanged");
            if (other) {
                static_cast<void>(other->allocate_pio(8));
                static_cast<void>(other->allocate_irq(std::nullopt, IrqSharing::level));
                for (const PioRange& range : hostile->pio) {
                    check(other->free_pio(range).has_value(), "a restored allocation can be freed");
                }
            }
        }
    }

    template <class Kind>
    void move(Input& input) {
        constexpr bool ports = std::is_same_v<Kind, PioResource>;
        const std::uint8_t which = input.byte();
        const std::uint64_t place = input.byte();
        const std::uint64_t size = 1U + input.byte() % 16U;
        if (devices_.empty()) {
            return;
        }
        const Held& mover = devices_[which % devices_.size()];
        for (const Resource& resource : DeviceResources(mover.device->resources())) {
            const auto* const owned = std::get_if<Kind>(&resource);
            if (owned == nullptr) {
                continue;
            }
            const auto from = owned->range;
            auto to = from;
            if constexpr (ports) {
                to = PioRange::create({static_cast<std::uint16_t>(ports_first - 4 + place)},
                                      static_cast<PioOffset>(size))
                         .value();
            } else {
                to = MmioRange::create({memory_first + (place % 70U) * page}, size * page).value();
            }
            std::set<std::uint64_t>& used = ports ? ports_ : memory_;
            const std::uint64_t unit = ports ? 1 : page;
            release_range(used, from, unit);
            const bool free = is_free(used, to.base().value, to.size(), unit,
                                      ports ? ports_first : memory_first, ports ? ports_last : memory_last);
            const auto moved = [&] {
                if constexpr (ports) {
                    return manager_.move_pio(from.base(), to);
                } else {
                    return manager_.move_mmio(from.last(), to);
                }
            }();
            trace_("manager.move_", ports ? "pio" : "mmio", "(", Hex{from.base().value}, ", ",
                   Hex{to.base().value}, " of ", to.size(), ");  // ", moved ? "done" : "refused");
            check_equal(moved.has_value(), free, "a device moves only to a free range");
            const auto now = moved ? to : from;
            for (std::uint64_t at = now.base().value; at <= now.last().value; at += unit) {
                used.insert(at / unit);
            }
            check(held(Kind{now}), "the device was notified of its range");
            return;
        }
    }

    void check_state() {
        const SystemAllocatorState state = allocator_.state();
        std::size_t ports = 0;
        for (const PioRange& range : state.pio) {
            ports += range.size();
            check(held(PioResource{range}), "every allocation has an owner");
        }
        check_equal(ports, ports_.size(), "ports in the saved state");
        std::size_t pages = 0;
        for (const MmioRange& range : state.mmio) {
            pages += range.size() / page;
        }
        check_equal(pages, memory_.size(), "memory in the saved state");
        check_equal(state.irq.size(), lines_.size(), "interrupts in the saved state");
        std::size_t shared = 0;
        for (const auto& [irq, line] : lines_) {
            shared += line.sharing != IrqSharing::exclusive ? 1U : 0U;
            check_equal(allocator_.irq_holders(irq), line.holders, "how many have the line");
        }
        check_equal(state.shared_irq.size(), shared, "shared lines in the saved state");
        check_equal(state.kvm_mem_slots.size(), slots_.size(), "slots in the saved state");
        check_equal(state.instance_ids.size(), devices_.size(), "ids in the saved state");
    }

    static AllocPolicy policy(Op op) { return static_cast<AllocPolicy>(op.detail % 3U); }

    bool held(const Resource& resource) const {
        return std::ranges::find(held_, resource) != held_.end() ||
               std::ranges::any_of(devices_, [&](const Held& one) {
                   return std::ranges::count(one.device->resources().get_all_resources(), resource) != 0;
               });
    }

    // A resource that was allocated: no other allocation contains any part of it.
    void claim(const Resource& resource) {
        struct Visitor {
            AllocatorTarget& target;
            void operator()(const PioResource& owned) const {
                target.claim_range(target.ports_, owned.range, 1, ports_first, ports_last);
            }
            void operator()(const MmioResource& owned) const {
                target.claim_range(target.memory_, owned.range, page, memory_first, memory_last);
            }
            void operator()(const LegacyIrqResource& owned) const {
                check(owned.irq >= 5 && owned.irq <= 16, "an interrupt that is managed");
                Line& line = target.lines_.try_emplace(owned.irq, Line{0, owned.sharing}).first->second;
                check(line.holders == 0 ||
                          (owned.sharing != IrqSharing::exclusive && line.sharing == owned.sharing),
                      "a free interrupt, or one that is shared");
                ++line.holders;
            }
            void operator()(const MsiIrqResource& owned) const {
                for (std::uint32_t i = 0; i < owned.count; ++i) {
                    const std::uint32_t number = owned.base + i;
                    check(number >= 32 && number < 64 && target.msis_.insert(number).second, "free MSIs");
                }
            }
            void operator()(const MacAddressResource& owned) const {
                check((owned.address[0] & 3) == 2 && target.macs_.insert(owned.address).second,
                      "a free address");
            }
            void operator()(const KvmMemSlotResource& owned) const {
                check(owned.slot < 16 && target.slots_.insert(owned.slot).second, "a free slot");
            }
        };
        std::visit(Visitor{*this}, resource);
    }
    void release(const Resource& resource) {
        struct Visitor {
            AllocatorTarget& target;
            void operator()(const PioResource& owned) const {
                target.release_range(target.ports_, owned.range, 1);
            }
            void operator()(const MmioResource& owned) const {
                target.release_range(target.memory_, owned.range, page);
            }
            void operator()(const LegacyIrqResource& owned) const {
                if (--target.lines_.at(owned.irq).holders == 0) {
                    target.lines_.erase(owned.irq);
                }
            }
            void operator()(const MsiIrqResource& owned) const {
                for (std::uint32_t i = 0; i < owned.count; ++i) {
                    target.msis_.erase(owned.base + i);
                }
            }
            void operator()(const MacAddressResource& owned) const { target.macs_.erase(owned.address); }
            void operator()(const KvmMemSlotResource& owned) const { target.slots_.erase(owned.slot); }
        };
        std::visit(Visitor{*this}, resource);
    }
    template <class Range>
    void claim_range(std::set<std::uint64_t>& used, const Range& range, std::uint64_t unit,
                     std::uint64_t first, std::uint64_t last) {
        check(range.base().value >= first && range.last().value <= last, "inside the space");
        // A size that is not a multiple of the page size counts its partial pages as whole ones.
        for (std::uint64_t at = range.base().value; at <= range.last().value; at += unit) {
            check(used.insert(at / unit).second, "no other allocation contains any part of it");
        }
    }
    template <class Range>
    static void release_range(std::set<std::uint64_t>& used, const Range& range, std::uint64_t unit) {
        for (std::uint64_t at = range.base().value; at <= range.last().value; at += unit) {
            used.erase(at / unit);
        }
    }
    // Whether `size` from `at` on is free.
    static bool is_free(const std::set<std::uint64_t>& used, std::uint64_t at, std::uint64_t size,
                        std::uint64_t unit, std::uint64_t first, std::uint64_t last) {
        if (at < first || at + (size - 1) > last) {
            return false;
        }
        for (std::uint64_t one = at; one < at + size; one += unit) {
            if (used.contains(one / unit)) {
                return false;
            }
        }
        return true;
    }

    template <class Kind, class Result>
    void allocate(const Result& result, std::set<std::uint64_t>& used, std::uint64_t size,
                  std::uint64_t align, Op op, std::uint64_t at, std::uint64_t first, std::uint64_t last) {
        const std::uint64_t unit = std::is_same_v<Kind, PioResource> ? 1 : page;
        trace_("allocator.allocate_", unit == 1 ? "pio" : "mmio", "(", size, ", ", align, ", policy ",
               static_cast<unsigned>(policy(op)), ", at ", Hex{at}, ");  // ", result ? "given" : "refused");
        std::optional<std::uint64_t> expected;
        if (size != 0 && std::has_single_bit(align)) {
            if (policy(op) == AllocPolicy::exact_match) {
                if (at % align == 0 && is_free(used, at, size, unit, first, last)) {
                    expected = at;
                }
            } else {
                // The lowest or the highest position, found by trying all of them.
                const std::uint64_t step = std::max(align, unit);
                for (std::uint64_t place = (first + step - 1) / step * step; place <= last; place += step) {
                    if (is_free(used, place, size, unit, first, last)) {
                        expected = place;
                        if (policy(op) == AllocPolicy::first_match) {
                            break;
                        }
                    }
                }
            }
        }
        check_equal(result.has_value(), expected.has_value(), "registered if there is room");
        if (result) {
            check_equal(result->base().value, *expected, "at the position that the policy requires");
            check_equal(result->size(), size, "of the size asked for");
            claim(Kind{*result});
            held_.emplace_back(Kind{*result});
        }
    }
    void free_one(std::uint8_t which) {
        if (held_.empty()) {
            return;
        }
        const std::size_t at = which % held_.size();
        trace_("allocator.free(allocation ", at, ");");
        const Resource resource = held_[at];
        DeviceResources one;
        one.append(resource);
        allocator_.free(one);
        release(resource);
        held_.erase(held_.begin() + static_cast<std::ptrdiff_t>(at));
    }

    static ResourceConstraint constraint(Input& input) {
        const std::uint8_t what = input.byte();
        const std::uint8_t place = input.byte();
        const bool fixed = (what & 8U) != 0;
        const unsigned size = 1U + (what >> 4U);
        switch (what & 7U) {
            case 0:
            case 6: {
                PioConstraint wanted{.size = static_cast<PioOffset>(size)};
                if (fixed) {
                    wanted.base = PioAddress{static_cast<std::uint16_t>(ports_first + place)};
                }
                return wanted;
            }
            case 1:
            case 7: {
                MmioConstraint wanted{.size = size * page};
                if (fixed) {
                    wanted.base = MmioAddress{memory_first + (place % 70U) * page};
                }
                return wanted;
            }
            case 2: {
                LegacyIrqConstraint wanted{.sharing = static_cast<IrqSharing>((place >> 5U) % 3U),
                                           .count = size % 3U};
                if (fixed) {
                    wanted.irq = place % 20U;
                }
                return wanted;
            }
            case 3:
                return MsiIrqConstraint{.type = static_cast<MsiIrqType>(place % 3U), .count = size};
            case 4: {
                MacAddressConstraint wanted;
                if (fixed) {
                    wanted.address = MacAddress{0x52, 0x54, 0, 0, 0, static_cast<std::uint8_t>(place % 8U)};
                }
                return wanted;
            }
            default: {
                KvmMemSlotConstraint wanted{.count = size % 5U};
                if (fixed) {
                    wanted.slot = place % 18U;
                }
                return wanted;
            }
        }
    }
    void add_device(std::uint8_t detail, Input& input) {
        std::vector<ResourceConstraint> wanted;
        for (std::size_t count = input.byte() % 5U; count != 0; --count) {
            wanted.push_back(constraint(input));
        }
        std::optional<InstanceId> parent;
        if (detail >= 12) {
            parent = 9999;
        } else if (detail >= 6 && !devices_.empty()) {
            parent = devices_[detail % devices_.size()].id;
        }
        auto device = std::make_shared<Tester>();
        const auto id = manager_.register_device(device, parent, std::span<const ResourceConstraint>(wanted));
        trace_("manager.register_device of ", wanted.size(), " resources;  // ", id ? "done" : "refused");
        if (!id) {
            check(device->resources().empty(), "a device that is refused has nothing in the end");
            check(detail < 12 || id.error() == DeviceManagerError::unknown_parent, "there is no such parent");
            return;
        }
        check(detail < 12, "a parent must be registered");
        check(std::ranges::none_of(devices_, [&](const Held& other) { return other.id == *id; }),
              "ids are unique");
        std::size_t resources = 0;
        for (const ResourceConstraint& one : wanted) {
            const auto* const slots = std::get_if<KvmMemSlotConstraint>(&one);
            const auto* const lines = std::get_if<LegacyIrqConstraint>(&one);
            resources += slots != nullptr ? slots->count : lines != nullptr ? lines->count : 1;
        }
        check_equal(device->resources().size(), resources, "all that was asked for");
        for (const Resource& resource : device->resources().get_all_resources()) {
            claim(resource);
        }
        if (parent) {
            ++std::ranges::find(devices_, *parent, &Held::id)->children;
        }
        devices_.push_back({*id, device, parent, 0});
    }
    void remove_device(std::uint8_t which) {
        if (devices_.empty()) {
            check(!manager_.unregister_device(which), "there is no such device");
            return;
        }
        const auto at = devices_.begin() + static_cast<std::ptrdiff_t>(which % devices_.size());
        trace_("manager.unregister_device(", at->id, ");");
        const DeviceResources had = at->device->resources();
        const auto removed = manager_.unregister_device(at->id);
        check_equal(removed.has_value(), at->children == 0, "a bus with devices stays");
        if (removed) {
            check(at->device->resources().empty(), "the device is notified that it has no resources");
            for (const Resource& resource : had.get_all_resources()) {
                release(resource);
            }
            if (at->parent) {
                --std::ranges::find(devices_, *at->parent, &Held::id)->children;
            }
            devices_.erase(at);
        }
    }
    void access(Input& input) {
        const std::uint8_t where = input.byte();
        const bool pio = where < 128;
        const std::uint64_t at =
            pio ? ports_first + input.byte() : memory_first + input.u16() * std::uint64_t{4};
        std::array<std::uint8_t, 8> bytes{};
        const auto data = std::span(bytes).first(std::size_t{1} << (where & 3U));
        const auto result = manager_.read(at, data, pio ? IoType::pio : IoType::mmio);
        const bool owned = std::ranges::any_of(devices_, [&](const Held& one) {
            const auto holds = [&](const auto& range) {
                return at >= range.base().value && at + (data.size() - 1) <= range.last().value;
            };
            const DeviceResources& resources = one.device->resources();
            return pio ? std::ranges::any_of(resources.get_pio_address_ranges(), holds)
                       : std::ranges::any_of(resources.get_mmio_address_ranges(), holds);
        });
        check_equal(result.has_value(), owned, "an access is delivered if a device owns it");
        check(!result || bytes[0] == 0x5A, "and the device answers");
    }

    struct Held {
        InstanceId id;
        std::shared_ptr<Tester> device;
        std::optional<InstanceId> parent;
        int children;
    };

    const Trace& trace_;
    SystemAllocator allocator_{
        SystemAllocatorConfig{.pio = PioRange::from_bounds({ports_first}, {ports_last}).value(),
                              .mmio = MmioRange::from_bounds({memory_first}, {memory_last}).value(),
                              .irq = NumberRange::from_bounds({5}, {16}).value(),
                              .msi = NumberRange::from_bounds({32}, {63}).value(),
                              .kvm_mem_slots = NumberRange::from_bounds({0}, {15}).value()}};
    DeviceManager manager_{allocator_};
    std::vector<Resource> held_{};
    std::vector<Held> devices_{};
    std::set<std::uint64_t> ports_{};
    std::set<std::uint64_t> memory_{};
    std::map<std::uint32_t, Line> lines_{};
    std::set<std::uint32_t> msis_{};
    std::set<std::uint32_t> slots_{};
    std::set<MacAddress> macs_{};
};

}  // namespace

void run_target(Input& input, const Trace& trace) {
    AllocatorTarget target(trace);
    while (!input.empty()) {
        target.step(input);
    }
}

}  // namespace fuzz
