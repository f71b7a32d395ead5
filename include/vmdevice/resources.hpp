// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
#pragma once

/// The resources that a device requests (ResourceConstraint) and is assigned (Resource, DeviceResources).

#include <array>
#include <cstddef>
#include <cstdint>
#include <initializer_list>
#include <optional>
#include <span>
#include <utility>
#include <variant>
#include <vector>

#include <vmdevice/range.hpp>

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
