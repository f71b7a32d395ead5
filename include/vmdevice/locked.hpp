// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
#pragma once

/// Locked<D>: an unsynchronised device behind a mutex, for a device that vCPUs and the event loop share.

#include <concepts>
#include <cstddef>
#include <cstdint>
#include <span>
#include <type_traits>
#include <utility>

#include <vmdevice/address.hpp>
#include <vmdevice/detail/device_lock.hpp>
#include <vmdevice/device.hpp>

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
