// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
#pragma once

/// One device in the tree of a DeviceManager.

#include <vmdevice/detail/config.hpp>

#include <cstddef>
#include <cstdint>
#include <expected>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <variant>

#include <vmdevice/address.hpp>
#include <vmdevice/alloc_error.hpp>
#include <vmdevice/device.hpp>
#include <vmdevice/device_info.hpp>
#include <vmdevice/range.hpp>
#include <vmdevice/resources.hpp>
#include <vmdevice/text.hpp>

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
