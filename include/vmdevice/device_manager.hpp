// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
#pragma once

/// The devices of a machine as a tree: assigns each device its resources, registers it on the buses, and
/// removes it again.

#include <vmdevice/detail/config.hpp>

#include <concepts>
#include <cstddef>
#include <cstdint>
#include <expected>
#include <initializer_list>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <type_traits>
#include <utility>
#include <variant>
#include <vector>

#include <vmdevice/address.hpp>
#include <vmdevice/allocator.hpp>
#include <vmdevice/detail/device_node.hpp>
#include <vmdevice/detail/mutex.hpp>
#include <vmdevice/detail/quietly.hpp>
#include <vmdevice/detail/thread_annotations.hpp>
#include <vmdevice/device.hpp>
#include <vmdevice/device_info.hpp>
#include <vmdevice/error.hpp>
#include <vmdevice/io_manager.hpp>
#include <vmdevice/resources.hpp>
#include <vmdevice/text.hpp>

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
