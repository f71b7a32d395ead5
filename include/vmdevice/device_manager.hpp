// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
#pragma once

/// The devices of a machine as a tree: gives each its resources, puts it on the buses, and takes it out
/// again.

#include <cstddef>
#include <cstdint>
#include <expected>
#include <initializer_list>
#include <map>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <vmdevice/address.hpp>
#include <vmdevice/allocator.hpp>
#include <vmdevice/detail/describe.hpp>
#include <vmdevice/detail/mutex.hpp>
#include <vmdevice/detail/thread_annotations.hpp>
#include <vmdevice/device.hpp>
#include <vmdevice/error.hpp>
#include <vmdevice/io_manager.hpp>
#include <vmdevice/resources.hpp>

namespace vmdevice {

/// Which bus an access came from.
enum class IoType : std::uint8_t { pio, mmio };

/// A device, or a bus, which is a device that others name as their parent.
///
/// Thread safety: several vCPUs may call `read` and `write` at the same time. A class that also derives from
/// DevicePio or DeviceMmio is called through that interface for the bus in question, and not through these
/// two.
class Device {
public:
    Device() = default;
    Device(const Device&) = default;
    Device(Device&&) = default;
    Device& operator=(const Device&) = default;
    Device& operator=(Device&&) = default;
    virtual ~Device() = default;

    /// What people call it. Need not be unique.
    [[nodiscard]] virtual std::string name() const = 0;
    /// An access at a guest address inside one of the device's ranges.
    virtual void read(std::uint64_t address, std::span<std::uint8_t> data, IoType type) = 0;
    virtual void write(std::uint64_t address, std::span<const std::uint8_t> data, IoType type) = 0;
    /// Told what the device has got, before it can be reached, and told an empty set when it has lost it
    /// again.
    virtual void set_resources(const DeviceResources& resources) = 0;
};

/// Identifies a device as long as it is registered.
using InstanceId = std::uint32_t;

enum class DeviceManagerError : std::uint8_t {
    /// The pointer to the device is empty.
    no_device,
    /// No device has this id.
    unknown_device,
    /// The parent is not registered.
    unknown_parent,
    /// Other devices name it as their parent.
    has_children,
    /// A resource cannot be had.
    resource_unavailable,
    /// A range of the device is taken on the bus.
    bus_conflict,
};

/// The error in words, for a message.
[[nodiscard]] constexpr std::string_view to_string(DeviceManagerError error) noexcept {
    switch (error) {
        case DeviceManagerError::no_device:
            return "no device given";
        case DeviceManagerError::unknown_device:
            return "no device has this instance id";
        case DeviceManagerError::unknown_parent:
            return "the parent bus is not registered";
        case DeviceManagerError::has_children:
            return "the bus still has devices";
        case DeviceManagerError::resource_unavailable:
            return "a resource is not available";
        case DeviceManagerError::bus_conflict:
            return "an address range is taken on the bus";
    }
    return "unknown device manager error";
}

/// One registered device.
struct DeviceInfo {
    InstanceId id;
    std::string name;
    std::optional<InstanceId> parent;
    DeviceResources resources;
    std::shared_ptr<Device> device;
};

/// Keeps the devices, and allocates, registers and frees for them. Accesses of the guest go to io_manager(),
/// or through read() and write() here, which call it.
///
/// Thread safety: everything may be called from any thread, also from a device's handler; for removal from
/// there see IoManager. The allocator must not be used by others at the same time.
class DeviceManager {
public:
    /// The allocator must live longer.
    explicit DeviceManager(SystemAllocator& allocator) : allocator_(allocator) {}
    DeviceManager(const DeviceManager&) = delete;
    DeviceManager& operator=(const DeviceManager&) = delete;
    /// Gives all resources back.
    ~DeviceManager() {
        for (const auto& [id, node] : nodes_) {
            allocator_.free(node.resources);
            static_cast<void>(allocator_.free_instance_id(id));
        }
    }

    /// Allocates what is `requested`, tells the device of it, and puts it on the buses. Where any of that
    /// fails all of it is undone, and a device that was told of resources is told that it has none.
    [[nodiscard]] std::expected<InstanceId, DeviceManagerError> register_device(
        const std::shared_ptr<Device>& device, std::optional<InstanceId> parent,
        std::span<const ResourceConstraint> requested) {
        if (!device) {
            return std::unexpected(DeviceManagerError::no_device);
        }
        Pending pending(*this);
        if (const auto reserved = reserve(pending, device, parent, requested); !reserved) {
            return std::unexpected(reserved.error());
        }
        // The device's own code runs without our lock.
        pending.told = device;
        device->set_resources(pending.resources);
        if (!put_on_buses(device, pending.resources)) {
            return std::unexpected(DeviceManagerError::bus_conflict);
        }
        const detail::LockGuard guard(mutex_);
        nodes_.find(pending.id)->second.complete = true;
        pending.committed = true;
        return pending.id;
    }
    [[nodiscard]] std::expected<InstanceId, DeviceManagerError> register_device(
        const std::shared_ptr<Device>& device, std::optional<InstanceId> parent = std::nullopt,
        std::initializer_list<ResourceConstraint> requested = {}) {
        return register_device(device, parent, std::span(requested.begin(), requested.size()));
    }

    /// Takes a device off the buses, returns when nobody is inside it, and frees its resources.
    std::expected<DeviceInfo, DeviceManagerError> unregister_device(InstanceId id) {
        DeviceInfo info{id, {}, std::nullopt, {}, nullptr};
        {
            const detail::LockGuard guard(mutex_);
            const auto found = nodes_.find(id);
            if (found == nodes_.end() || !found->second.complete) {
                return std::unexpected(DeviceManagerError::unknown_device);
            }
            if (found->second.children != 0) {
                return std::unexpected(DeviceManagerError::has_children);
            }
            info.name = found->second.name;
            info.parent = found->second.parent;
            info.resources = found->second.resources;
            info.device = found->second.device;
            found->second.complete = false;  // gone for everybody else
        }
        static_cast<void>(io_.deregister_resources(info.resources));
        forget(id);
        info.device->set_resources({});
        return info;
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
    [[nodiscard]] std::expected<void, BusError> write(std::uint64_t address,
                                                      std::span<const std::uint8_t> data, IoType type) {
        if (type == IoType::mmio) {
            return io_.mmio_write(MmioAddress{address}, data);
        }
        const auto port = port_of(address);
        return port ? io_.pio_write(*port, data) : std::unexpected(BusError::device_not_found);
    }

    /// The buses. What is registered there directly is not part of the tree; what is part of it must not be
    /// moved or taken out there.
    [[nodiscard]] IoManager& io_manager() noexcept { return io_; }

    [[nodiscard]] std::size_t size() const { return list().size(); }
    /// All devices in the order of their ids.
    [[nodiscard]] std::vector<DeviceInfo> list() const {
        const detail::LockGuard guard(mutex_);
        std::vector<DeviceInfo> all;
        for (const auto& [id, node] : nodes_) {
            if (node.complete) {
                all.push_back({id, node.name, node.parent, node.resources, node.device});
            }
        }
        return all;
    }
    [[nodiscard]] std::optional<DeviceInfo> find(InstanceId id) const {
        for (DeviceInfo& info : list()) {
            if (info.id == id) {
                return std::move(info);
            }
        }
        return std::nullopt;
    }
    /// The device of this name with the lowest id.
    [[nodiscard]] std::optional<DeviceInfo> find(std::string_view name) const {
        for (DeviceInfo& info : list()) {
            if (info.name == name) {
                return std::move(info);
            }
        }
        return std::nullopt;
    }

    /// The tree as text, a line per device, for people:
    ///
    ///     1 pci
    ///       3 virtio-net  mmio 0xc0000000-0xc0000fff  irq 5
    ///     2 serial  pio 0x3f8-0x3ff  irq 4
    [[nodiscard]] std::string to_string() const {
        const std::vector<DeviceInfo> all = list();
        std::string text;
        describe_children(text, all, std::nullopt, 0);
        return text;
    }

private:
    struct Node {
        std::string name;
        std::optional<InstanceId> parent;
        DeviceResources resources;
        std::shared_ptr<Device> device;
        std::size_t children = 0;
        /// False while the device comes or goes: it holds its place, and nobody sees it.
        bool complete = false;
    };

    /// Calls a Device that implements no bus interface of its own.
    struct Adapter : DevicePio, DeviceMmio {
        explicit Adapter(std::shared_ptr<Device> to) : device(std::move(to)) {}
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
        std::shared_ptr<Device> device;
    };

    /// A registration that is undone unless it is committed, whatever ends it.
    struct Pending {
        explicit Pending(DeviceManager& owner) : manager(owner) {}
        Pending(const Pending&) = delete;
        Pending& operator=(const Pending&) = delete;
        ~Pending() {
            if (reserved && !committed) {
                manager.forget(id);
                if (told) {
                    told->set_resources({});
                }
            }
        }
        DeviceManager& manager;
        InstanceId id = 0;
        DeviceResources resources;
        std::shared_ptr<Device> told;
        bool reserved = false;
        bool committed = false;
    };

    std::expected<void, DeviceManagerError> reserve(Pending& pending, const std::shared_ptr<Device>& device,
                                                    std::optional<InstanceId> parent,
                                                    std::span<const ResourceConstraint> requested) {
        std::string name = device->name();
        const detail::LockGuard guard(mutex_);
        Node* parent_node = nullptr;
        if (parent) {
            const auto found = nodes_.find(*parent);
            if (found == nodes_.end() || !found->second.complete) {
                return std::unexpected(DeviceManagerError::unknown_parent);
            }
            parent_node = &found->second;
        }
        const auto id = allocator_.allocate_instance_id();
        if (!id) {
            return std::unexpected(DeviceManagerError::resource_unavailable);
        }
        auto resources = allocator_.allocate(requested);
        if (!resources) {
            static_cast<void>(allocator_.free_instance_id(*id));
            return std::unexpected(DeviceManagerError::resource_unavailable);
        }
        nodes_.emplace(*id, Node{std::move(name), parent, *resources, device, 0, false});
        if (parent_node != nullptr) {
            ++parent_node->children;
        }
        pending.id = *id;
        pending.resources = std::move(*resources);
        pending.reserved = true;
        return {};
    }

    std::expected<void, BusError> put_on_buses(const std::shared_ptr<Device>& device,
                                               const DeviceResources& resources) {
        std::shared_ptr<DevicePio> pio_device = std::dynamic_pointer_cast<DevicePio>(device);
        std::shared_ptr<DeviceMmio> mmio_device = std::dynamic_pointer_cast<DeviceMmio>(device);
        if (!pio_device || !mmio_device) {
            const auto adapter = std::make_shared<Adapter>(device);
            pio_device = pio_device ? pio_device : adapter;
            mmio_device = mmio_device ? mmio_device : adapter;
        }
        return io_.register_resources(resources, pio_device, mmio_device);
    }

    /// Frees what a device had.
    void forget(InstanceId id) {
        Node gone;
        const detail::LockGuard guard(mutex_);
        const auto found = nodes_.find(id);
        gone = std::move(found->second);
        nodes_.erase(found);
        if (gone.parent) {
            --nodes_.find(*gone.parent)->second.children;
        }
        allocator_.free(gone.resources);
        static_cast<void>(allocator_.free_instance_id(id));
    }

    static std::optional<PioAddress> port_of(std::uint64_t address) noexcept {
        if (address > 0xFFFF) {
            return std::nullopt;
        }
        return PioAddress{static_cast<std::uint16_t>(address)};
    }

    static void describe_children(std::string& text, std::span<const DeviceInfo> all,
                                  std::optional<InstanceId> parent, std::size_t depth) {
        for (const DeviceInfo& info : all) {
            if (info.parent == parent) {
                text += std::string(2 * depth, ' ') + std::to_string(info.id) + " " + info.name;
                detail::describe(text, info.resources);
                text += "\n";
                describe_children(text, all, info.id, depth + 1);
            }
        }
    }

    mutable detail::Mutex mutex_;
    SystemAllocator& allocator_ VMDEVICE_GUARDED_BY(mutex_);
    std::map<InstanceId, Node> nodes_ VMDEVICE_GUARDED_BY(mutex_);
    IoManager io_;
};

}  // namespace vmdevice
