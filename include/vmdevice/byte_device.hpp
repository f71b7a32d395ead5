// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
#pragma once

/// ByteDevice<D>: connects a model of byte registers (a UART, an i8042, a CMOS clock) to the buses.

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

/// A model of byte registers: `read(offset)` returns a byte, `write(offset, value)` takes one. `write` may
/// return any type; the error of an expected<void, Error> is counted (see ByteDevice).
template <class D>
concept ByteRegisters = requires(D& device, std::uint8_t offset, std::uint8_t value) {
    { device.read(offset) } -> std::convertible_to<std::uint8_t>;
    device.write(offset, value);
};

namespace detail {

template <class D>
concept ByteRegistersOrPointer = ByteRegisters<D> || requires(D& device) {
    requires ByteRegisters<std::remove_reference_t<decltype(*device)>>;
};

/// The model itself, also if D is a pointer (of any kind) to it.
template <class D>
constexpr auto& byte_registers(D& device) {
    if constexpr (ByteRegisters<D>) {
        return device;
    } else {
        return *device;
    }
}

template <class D>
using ByteTarget =
    std::remove_reference_t<decltype(byte_registers(std::declval<std::remove_reference_t<D>&>()))>;

/// The number of registers that the model declares, or all that an 8-bit offset can name.
template <class Target>
constexpr std::size_t default_register_count() {
    if constexpr (requires {
                      { Target::register_count } -> std::convertible_to<std::size_t>;
                  }) {
        return static_cast<std::size_t>(Target::register_count);
    } else {
        return 256;
    }
}

}  // namespace detail

/// How a model of byte registers lies in its range.
struct ByteDeviceOptions {
    /// How many registers the model decodes (1..256), 8 for a UART. 0 stands for the number that the model
    /// declares as `register_count`, or for all 256 that an offset can name.
    std::size_t register_count = 0;
    /// Register n is at offset n << register_shift: 0 on a PC, 2 for a UART in 32-bit slots (the `reg-shift`
    /// of device trees). The bytes between the registers read 0 and ignore writes.
    unsigned register_shift = 0;
};

/// A DevicePio and a DeviceMmio that wraps a model of byte registers. D is the model, a reference to it, or a
/// pointer of any kind to it.
///
/// An access wider than a byte is split into bytes in ascending order, as the ISA bus does. An access that
/// extends past the last register is refused as a whole: no register is accessed, and a read returns 0xFF in
/// every byte.
///
/// Thread safety: that of the model. Locked<ByteDevice<D>> makes an unsynchronised one safe.
template <class D>
    requires detail::ByteRegistersOrPointer<std::remove_reference_t<D>>
class ByteDevice : public DevicePio, public DeviceMmio {
    using Target = detail::ByteTarget<D>;
    using WriteResult = decltype(std::declval<Target&>().write(std::uint8_t{}, std::uint8_t{}));

public:
    /// The error type of the model's write, or an empty struct if it has none.
    using error_type = typename detail::ErrorOf<WriteResult>::Type;
    /// Called with each error that the model's write returns. It runs on the vCPU's thread, so it should be
    /// short.
    using ErrorHandler = typename detail::WriteErrors<error_type>::Handler;

    ByteDevice()
        requires std::default_initializable<D>
        : device_(), shift_(0), window_(window_of({})) {}
    /// Takes the model. Options: how many registers it has, and how far apart they are.
    explicit ByteDevice(D device, ByteDeviceOptions options = {})
        : device_(std::forward<D>(device)), shift_(shift_of(options)), window_(window_of(options)) {}
    /// A model of `register_count` registers.
    ByteDevice(D device, std::size_t register_count)
        : ByteDevice(std::forward<D>(device), ByteDeviceOptions{.register_count = register_count}) {}
    /// Constructs the model from these arguments.
    template <class First, class... Rest>
        requires(std::constructible_from<D, First, Rest...> &&
                 !std::same_as<std::remove_cvref_t<First>, std::remove_cvref_t<D>> &&
                 !std::same_as<std::remove_cvref_t<First>, ByteDevice> &&
                 !std::same_as<std::remove_cvref_t<First>, std::in_place_t>)
    explicit ByteDevice(First&& first, Rest&&... rest)
        : ByteDevice(std::in_place, ByteDeviceOptions{}, std::forward<First>(first),
                     std::forward<Rest>(rest)...) {}
    /// The same with options.
    template <class... Args>
        requires std::constructible_from<D, Args...>
    explicit ByteDevice(std::in_place_t, ByteDeviceOptions options, Args&&... args)
        : device_(std::forward<Args>(args)...), shift_(shift_of(options)), window_(window_of(options)) {}

    /// The model.
    [[nodiscard]] Target& device() noexcept { return detail::byte_registers(device_); }
    /// The model.
    [[nodiscard]] const Target& device() const noexcept {
        return detail::byte_registers(const_cast<std::remove_reference_t<D>&>(device_));
    }

    /// How many bytes of its range the model decodes.
    [[nodiscard]] std::uint64_t window() const noexcept { return window_; }
    /// How many accesses were refused because they extended past the window.
    [[nodiscard]] std::uint64_t refused_accesses() const noexcept { return refused_; }
    /// How many of the model's writes returned an error. The guest never sees these errors.
    [[nodiscard]] std::uint64_t write_errors() const noexcept { return errors_.count(); }
    void set_error_handler(ErrorHandler handler) { errors_.set_handler(std::move(handler)); }

    void pio_read(PioAddress /*base*/, PioOffset offset, std::span<std::uint8_t> data) override {
        read_bytes(offset, data);
    }
    void pio_write(PioAddress /*base*/, PioOffset offset, std::span<const std::uint8_t> data) override {
        write_bytes(offset, data);
    }
    /// Passes bytes that are repeated at offset 0 to the model's `write_data` in one call, if it has one: a
    /// UART's transmitter takes a whole REP OUTSB at once.
    void pio_write_repeated(PioAddress base, PioOffset offset, std::size_t width,
                            std::span<const std::uint8_t> data) override {
        if constexpr (requires(Target& target) { target.write_data(data); }) {
            if (width == 1 && offset == 0 && window_ != 0) {
                errors_.note([&] { return device().write_data(data); });
                return;
            }
        }
        DevicePio::pio_write_repeated(base, offset, width, data);
    }
    void mmio_read(MmioAddress /*base*/, MmioOffset offset, std::span<std::uint8_t> data) override {
        read_bytes(offset, data);
    }
    void mmio_write(MmioAddress /*base*/, MmioOffset offset, std::span<const std::uint8_t> data) override {
        write_bytes(offset, data);
    }

private:
    static unsigned shift_of(const ByteDeviceOptions& options) {
        return options.register_shift < 16 ? options.register_shift : 16;
    }
    static std::uint64_t window_of(const ByteDeviceOptions& options) {
        const std::size_t count =
            options.register_count == 0 ? detail::default_register_count<Target>() : options.register_count;
        return std::uint64_t{count < 256 ? count : 256} << shift_of(options);
    }

    [[nodiscard]] bool inside(std::uint64_t offset, std::size_t length) noexcept {
        if (offset < window_ && length <= window_ - offset) {
            return true;
        }
        ++refused_;
        return false;
    }

    void read_bytes(std::uint64_t offset, std::span<std::uint8_t> data) {
        if (!inside(offset, data.size())) {
            for (std::uint8_t& byte : data) {
                byte = 0xFF;
            }
            return;
        }
        for (std::uint8_t& byte : data) {
            byte = is_register(offset) ? static_cast<std::uint8_t>(device().read(register_at(offset)))
                                       : std::uint8_t{0};
            ++offset;
        }
    }

    void write_bytes(std::uint64_t offset, std::span<const std::uint8_t> data) {
        if (!inside(offset, data.size())) {
            return;
        }
        for (const std::uint8_t byte : data) {
            if (is_register(offset)) {
                errors_.note([&] { return device().write(register_at(offset), byte); });
            }
            ++offset;
        }
    }

    [[nodiscard]] bool is_register(std::uint64_t offset) const noexcept {
        return (offset & ((std::uint64_t{1} << shift_) - 1)) == 0;
    }
    [[nodiscard]] std::uint8_t register_at(std::uint64_t offset) const noexcept {
        return static_cast<std::uint8_t>(offset >> shift_);
    }

    D device_;
    unsigned shift_;
    std::uint64_t window_;
    std::uint64_t refused_ = 0;
    detail::WriteErrors<error_type> errors_;
};

template <class D, class... Rest>
ByteDevice(D, Rest...) -> ByteDevice<D>;

}  // namespace vmdevice::inline v0_2
