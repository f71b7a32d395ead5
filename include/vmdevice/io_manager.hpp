// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
#pragma once

/// The bus that vCPUs share: dispatches port and memory accesses to devices while others come and go.

#include <concepts>
#include <cstddef>
#include <cstdint>
#include <expected>
#include <memory>
#include <optional>
#include <span>
#include <utility>
#include <vector>

#include <vmdevice/address.hpp>
#include <vmdevice/detail/asymmetric_fence.hpp>
#include <vmdevice/detail/bus_tables.hpp>
#include <vmdevice/detail/mutex.hpp>
#include <vmdevice/detail/shared_bus.hpp>
#include <vmdevice/detail/visitors.hpp>
#include <vmdevice/device.hpp>
#include <vmdevice/error.hpp>
#include <vmdevice/range.hpp>
#include <vmdevice/resources.hpp>

namespace vmdevice {

/// Routes accesses of the guest to devices on two buses, ports and memory.
///
/// Thread safety: everything may be called from any thread at any time, also from inside a device's handler;
/// only the end of the IoManager must come after all calls to it.
///
/// - **Dispatch** (`pio_read` and the like) takes no lock, never waits or retries, and allocates nothing. Its
///   cost does not depend on how many devices there are. An access that no device owns whole is an error and
///   reaches no device; the buffer of a read is then left as it is, so that the caller decides what an absent
///   device reads as (on a PC all ones).
/// - **register_*** never waits for a dispatch.
/// - **deregister_*** (and move_*) return when no thread is inside the device through the range it had; it
/// may
///   then be destroyed. A thread is not waited for where that would be for ever: the calling thread itself,
///   when a handler takes out its own device; and where handlers on several threads take out each other's
///   devices, one of them returns early. The device then lives at least until its last handler has returned.
///   A handler must not wait in any other way for a thread that takes its device out.
/// - A device's exception passes through dispatch to its caller.
///
/// Dispatches nest (a device may reach another one, or itself) to a depth of max_nesting; beyond it an access
/// finds no device, so that a guest which points a DMA engine at itself does not exhaust the stack.
///
/// On Linux a removal uses membarrier(2); a VMM that filters system calls should construct its IoManager
/// first and allow the call in threads that deregister devices. See docs/vmdevice.md.
class IoManager {
public:
    static constexpr std::size_t max_nesting = detail::max_nesting;

    IoManager() { static_cast<void>(detail::asymmetric_fences()); }
    IoManager(const IoManager&) = delete;
    IoManager& operator=(const IoManager&) = delete;
    /// Lets go of the devices while the buses still answer, so that a device may use them in its destructor.
    ~IoManager() {
        let_go(pio_);
        let_go(mmio_);
    }

    /// `device_overlap` where an address of `range` is taken, `device_not_found` where `device` is empty.
    [[nodiscard]] std::expected<void, BusError> register_pio(PioRange range,
                                                             std::shared_ptr<DevicePio> device) {
        return add(pio_, range, std::move(device));
    }
    [[nodiscard]] std::expected<void, BusError> register_mmio(MmioRange range,
                                                              std::shared_ptr<DeviceMmio> device) {
        return add(mmio_, range, std::move(device));
    }

    /// Takes out the device that owns `any_address_inside`, with its whole range, and waits until nobody is
    /// inside it. Nothing where there is none.
    std::optional<std::pair<PioRange, std::shared_ptr<DevicePio>>> deregister_pio(
        PioAddress any_address_inside) {
        return remove(pio_, any_address_inside);
    }
    std::optional<std::pair<MmioRange, std::shared_ptr<DeviceMmio>>> deregister_mmio(
        MmioAddress any_address_inside) {
        return remove(mmio_, any_address_inside);
    }

    /// Registers a device at all port and memory ranges of `resources`, or at none. `device_not_found` where
    /// there is a range of a kind whose pointer is empty. Here and elsewhere nothing has changed where memory
    /// runs out (std::bad_alloc).
    [[nodiscard]] std::expected<void, BusError> register_resources(
        const DeviceResources& resources, const std::shared_ptr<DevicePio>& pio_device,
        const std::shared_ptr<DeviceMmio>& mmio_device) {
        typename PioShared::Finished pio_finished;
        typename MmioShared::Finished mmio_finished;
        const auto ports = resources.get_pio_address_ranges();
        const auto memory = resources.get_mmio_address_ranges();
        const detail::LockGuard guard(mutex_);
        pio_finished = pio_.take_finished(guard);
        mmio_finished = mmio_.take_finished(guard);
        if (auto checked = pio_.check_all(guard, ports, pio_device != nullptr); !checked) {
            return checked;
        }
        if (auto checked = mmio_.check_all(guard, memory, mmio_device != nullptr); !checked) {
            return checked;
        }
        typename PioShared::Addition on_ports(guard, pio_);
        typename MmioShared::Addition in_memory(guard, mmio_);
        on_ports.prepare(ports, pio_device);
        in_memory.prepare(memory, mmio_device);
        on_ports.commit();
        in_memory.commit();
        return {};
    }
    /// The same for a device that is on both buses, or on one and `resources` has ranges of that one only.
    template <class D>
        requires std::derived_from<D, DevicePio> || std::derived_from<D, DeviceMmio>
    [[nodiscard]] std::expected<void, BusError> register_resources(const DeviceResources& resources,
                                                                   const std::shared_ptr<D>& device) {
        return register_resources(resources, as<DevicePio>(device), as<DeviceMmio>(device));
    }

    /// Takes out what is registered at exactly the port and memory ranges of `resources`, and waits until
    /// nobody is inside. Where one of them is not registered like that, `device_not_found`, and nothing has
    /// changed.
    [[nodiscard]] std::expected<void, BusError> deregister_resources(const DeviceResources& resources) {
        std::vector<typename PioShared::Removal> ports;
        std::vector<typename MmioShared::Removal> memory;
        {
            const detail::LockGuard guard(mutex_);
            const auto port_ranges = resources.get_pio_address_ranges();
            const auto memory_ranges = resources.get_mmio_address_ranges();
            if (!pio_.has_all(guard, port_ranges) || !mmio_.has_all(guard, memory_ranges)) {
                return std::unexpected(BusError::device_not_found);
            }
            ports = pio_.prepare_removals(guard, port_ranges);
            memory = mmio_.prepare_removals(guard, memory_ranges);
            pio_.take_out(guard, ports);
            mmio_.take_out(guard, memory);
        }
        quiesce();
        const bool ports_left = wait_until_left(ports);
        const bool memory_left = wait_until_left(memory);
        const detail::LockGuard guard(mutex_);
        for (const auto& removal : ports) {
            pio_.finish_removal(guard, removal, ports_left);
        }
        for (const auto& removal : memory) {
            mmio_.finish_removal(guard, removal, memory_left);
        }
        return {};
    }

    /// Gives a device another range, which may overlap its old one; the device answers at one of them or at
    /// both throughout. Returns when nobody is inside it through the old one. Where an error is returned the
    /// device stays where it was.
    [[nodiscard]] std::expected<void, BusError> move_pio(PioAddress any_address_inside, PioRange to) {
        return move(pio_, any_address_inside, to);
    }
    [[nodiscard]] std::expected<void, BusError> move_mmio(MmioAddress any_address_inside, MmioRange to) {
        return move(mmio_, any_address_inside, to);
    }

    // These are some 40 instructions each, and inlined they need no further call than the device's.

    /// One access of data.size() bytes. `invalid_range` where that is 0, `device_not_found` where no device
    /// owns all of it.
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
    /// `invalid_access_length` where width is not 1, 2, 4 or 8 or does not divide the size of `data`.
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

    /// Who owns an address: the whole range and the device, or nothing.
    [[nodiscard]] std::optional<std::pair<PioRange, std::shared_ptr<DevicePio>>> pio_owner(
        PioAddress address) const {
        const detail::LockGuard guard(mutex_);
        return pio_.owner(guard, address);
    }
    [[nodiscard]] std::optional<std::pair<MmioRange, std::shared_ptr<DeviceMmio>>> mmio_owner(
        MmioAddress address) const {
        const detail::LockGuard guard(mutex_);
        return mmio_.owner(guard, address);
    }
    /// All registered ranges in ascending order.
    [[nodiscard]] std::vector<PioRange> pio_ranges() const {
        const detail::LockGuard guard(mutex_);
        return pio_.ranges(guard);
    }
    [[nodiscard]] std::vector<MmioRange> mmio_ranges() const {
        const detail::LockGuard guard(mutex_);
        return mmio_.ranges(guard);
    }
    /// How many ranges are registered.
    [[nodiscard]] std::size_t pio_size() const {
        const detail::LockGuard guard(mutex_);
        return pio_.size(guard);
    }
    [[nodiscard]] std::size_t mmio_size() const {
        const detail::LockGuard guard(mutex_);
        return mmio_.size(guard);
    }

private:
    using PioShared = detail::SharedBus<DevicePio, detail::PortTable<DevicePio>>;
    using MmioShared = detail::SharedBus<DeviceMmio, detail::AddressTable<DeviceMmio>>;

    /// The device as an `Interface`, or nothing where it is none.
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

    // What dispatch calls; the length of the access is the width of one item where it is repeated.
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

    template <class Operation, class Shared>
    [[gnu::always_inline]] static std::expected<void, BusError> dispatch(const Shared& bus,
                                                                         typename Shared::Address address,
                                                                         std::size_t length,
                                                                         typename Operation::Data data) {
        if (length == 0) [[unlikely]] {
            return std::unexpected(BusError::invalid_range);
        }
        if (!detail::thread_state.idle) [[unlikely]] {
            return dispatch_further<Operation>(bus, address, length, data);
        }
        return visit<Operation, detail::FirstVisit>(bus, address, length, data);
    }

    /// A nested dispatch, the first one of a thread, or one that needs a real fence.
    template <class Operation, class Shared>
    [[gnu::noinline]] static std::expected<void, BusError> dispatch_further(const Shared& bus,
                                                                            typename Shared::Address address,
                                                                            std::size_t length,
                                                                            typename Operation::Data data) {
        if (!detail::join_visitors()) {
            return std::unexpected(BusError::device_not_found);
        }
        if (detail::thread_state.idle) {
            return visit<Operation, detail::FirstVisit>(bus, address, length, data);
        }
        return visit<Operation, detail::FurtherVisit>(bus, address, length, data);
    }

    template <class Operation, class Visit, class Shared>
    [[gnu::always_inline]] static std::expected<void, BusError> visit(const Shared& bus,
                                                                      typename Shared::Address address,
                                                                      std::size_t length,
                                                                      typename Operation::Data data) {
        using Address = typename Shared::Address;
        Visit visit;
        visit.begin(bus.identity());
        const auto* const entry = bus.find(address);
        if (entry == nullptr) [[unlikely]] {
            visit.end();
            return std::unexpected(BusError::device_not_found);
        }
        const auto offset = static_cast<OffsetOf<Address>>(address.value - entry->base);
        if (length - 1 > static_cast<OffsetOf<Address>>(entry->size - 1 - offset)) [[unlikely]] {
            visit.end();
            return std::unexpected(BusError::device_not_found);
        }
        visit.enter(detail::identity_of(entry));
        const detail::EndOfVisit end(visit);
        Operation::call(*entry->device, Address{entry->base}, offset, length, data);
        return {};
    }

    /// R2 and the first half of R4 of visitors.hpp, after something has been unpublished.
    void quiesce() const {
        if (detail::others_may_visit()) {
            detail::heavy_fence();
        }
        detail::wait_for_lookups(pio_.identity());
        detail::wait_for_lookups(mmio_.identity());
    }
    /// The second half: waits until nobody is inside the entries. False where somebody still is.
    template <class Entry>
    static bool wait_until_left(std::span<Entry* const> entries) {
        bool all_left = true;
        for (const Entry* const entry : entries) {
            all_left = detail::wait_for_visits(detail::identity_of(entry)) && all_left;
        }
        return all_left;
    }
    template <class Removal>
    static bool wait_until_left(const std::vector<Removal>& removals) {
        bool all_left = true;
        for (const Removal& removal : removals) {
            all_left = wait_until_left(std::span(removal.entries)) && all_left;
        }
        return all_left;
    }

    template <class Shared, class Device>
    std::expected<void, BusError> add(Shared& bus, typename Shared::Range range,
                                      std::shared_ptr<Device> device) {
        typename Shared::Finished finished;
        const detail::LockGuard guard(mutex_);
        finished = bus.take_finished(guard);
        return bus.add(guard, range, std::move(device));
    }

    template <class Shared>
    auto remove(Shared& bus, typename Shared::Address address)
        -> std::optional<decltype(Shared::Removal::registration)> {
        std::optional<typename Shared::Removal> removal;
        typename Shared::Finished finished;
        {
            const detail::LockGuard guard(mutex_);
            finished = bus.take_finished(guard);
            removal = bus.remove(guard, address);
        }
        if (!removal) {
            return std::nullopt;
        }
        quiesce();
        const bool all_left = wait_until_left(std::span(std::as_const(removal->entries)));
        const detail::LockGuard guard(mutex_);
        bus.finish_removal(guard, *removal, all_left);
        return std::move(removal->registration);
    }

    template <class Shared>
    std::expected<void, BusError> move(Shared& bus, typename Shared::Address address,
                                       typename Shared::Range to) {
        std::expected<typename Shared::Move, BusError> moved = std::unexpected(BusError::device_not_found);
        {
            const detail::LockGuard guard(mutex_);
            moved = bus.move(guard, address, to);
        }
        if (!moved) {
            return std::unexpected(moved.error());
        }
        quiesce();
        const bool all_left = detail::wait_for_visits(detail::identity_of(moved->entry));
        const detail::LockGuard guard(mutex_);
        bus.finish_move(guard, to.base(), moved->entry, all_left);
        return {};
    }

    template <class Shared>
    void let_go(Shared& bus) {
        std::vector<typename Shared::Removal> removed;
        const detail::LockGuard guard(mutex_);
        removed = bus.prepare_removals(guard, bus.ranges(guard));
        bus.take_out(guard, removed);
    }

    mutable detail::Mutex mutex_;
    PioShared pio_;
    MmioShared mmio_;
};

}  // namespace vmdevice
