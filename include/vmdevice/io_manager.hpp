// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
#pragma once

/// The buses that vCPUs share: dispatches port and memory accesses to devices while devices are added and
/// removed.

#include <vmdevice/detail/config.hpp>

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
#include <vmdevice/detail/mutex.hpp>
#include <vmdevice/device.hpp>
#include <vmdevice/dispatch/asymmetric_fence.hpp>
#include <vmdevice/dispatch/bus_tables.hpp>
#include <vmdevice/dispatch/fork.hpp>
#include <vmdevice/dispatch/hazard_pointers.hpp>
#include <vmdevice/dispatch/shared_bus.hpp>
#include <vmdevice/error.hpp>
#include <vmdevice/range.hpp>
#include <vmdevice/resources.hpp>

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
