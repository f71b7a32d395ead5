// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
#pragma once

/// SpanDevice<D>: connects a model that takes whole accesses (such as a PL031 clock) to the buses.

#include <concepts>
#include <cstddef>
#include <cstdint>
#include <span>
#include <type_traits>
#include <utility>

#include <vmdevice/address.hpp>
#include <vmdevice/detail/model_errors.hpp>
#include <vmdevice/device.hpp>

namespace vmdevice::inline v0_2 {

/// A model of registers of its own width: `read(offset, bytes)` fills the bytes, `write(offset, bytes)` takes
/// them. `write` may return any type; the error of an expected<void, Error> is counted (see SpanDevice).
template <class D>
concept SpanRegisters =
    requires(D& device, std::uint64_t offset, std::span<std::uint8_t> in, std::span<const std::uint8_t> out) {
        device.read(offset, in);
        device.write(offset, out);
    };

/// A DevicePio and a DeviceMmio that passes each access to the model unchanged. D is the model or a reference
/// to it. The model decides which widths and offsets are valid.
///
/// Thread safety: that of the model. Locked<SpanDevice<D>> makes an unsynchronised one safe.
template <class D>
    requires SpanRegisters<std::remove_reference_t<D>>
class SpanDevice : public DevicePio, public DeviceMmio {
    using Target = std::remove_reference_t<D>;
    using WriteResult =
        decltype(std::declval<Target&>().write(std::uint64_t{}, std::span<const std::uint8_t>{}));

public:
    /// The error type of the model's write, or an empty struct if it has none.
    using error_type = typename detail::ErrorOf<WriteResult>::Type;
    /// Called with each error that the model's write returns. It runs on the vCPU's thread, so it should be
    /// short.
    using ErrorHandler = typename detail::WriteErrors<error_type>::Handler;

    SpanDevice()
        requires std::default_initializable<D>
        : device_() {}
    /// Takes the model.
    explicit SpanDevice(D device) : device_(std::forward<D>(device)) {}
    /// Constructs the model in place, for a model that cannot be moved.
    template <class... Args>
        requires std::constructible_from<D, Args...>
    explicit SpanDevice(std::in_place_t, Args&&... args) : device_(std::forward<Args>(args)...) {}

    /// The model.
    [[nodiscard]] Target& device() noexcept { return device_; }
    [[nodiscard]] const Target& device() const noexcept { return device_; }

    /// How many of the model's writes returned an error. The guest never sees these errors.
    [[nodiscard]] std::uint64_t write_errors() const noexcept { return errors_.count(); }
    void set_error_handler(ErrorHandler handler) { errors_.set_handler(std::move(handler)); }

    void pio_read(PioAddress /*base*/, PioOffset offset, std::span<std::uint8_t> data) override {
        static_cast<void>(device_.read(offset, data));
    }
    void pio_write(PioAddress /*base*/, PioOffset offset, std::span<const std::uint8_t> data) override {
        errors_.note([&] { return device_.write(offset, data); });
    }
    void mmio_read(MmioAddress /*base*/, MmioOffset offset, std::span<std::uint8_t> data) override {
        static_cast<void>(device_.read(offset, data));
    }
    void mmio_write(MmioAddress /*base*/, MmioOffset offset, std::span<const std::uint8_t> data) override {
        errors_.note([&] { return device_.write(offset, data); });
    }

private:
    D device_;
    detail::WriteErrors<error_type> errors_;
};

template <class D>
SpanDevice(D) -> SpanDevice<D>;

}  // namespace vmdevice::inline v0_2
