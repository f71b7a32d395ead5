// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
#pragma once

/// share(): creates a device for an IoManager from a model.

#include <concepts>
#include <memory>
#include <type_traits>
#include <utility>

#include <vmdevice/byte_device.hpp>
#include <vmdevice/locked.hpp>
#include <vmdevice/span_device.hpp>

namespace vmdevice::inline v0_2 {

namespace detail {

template <class Model>
struct AdapterOf;
template <ByteRegisters Model>
struct AdapterOf<Model> {
    using Type = ByteDevice<Model>;
};
template <SpanRegisters Model>
    requires(!ByteRegisters<Model>)
struct AdapterOf<Model> {
    using Type = SpanDevice<Model>;
};

}  // namespace detail

/// A model of registers: it reads and writes bytes (a UART) or whole accesses (a PL031 clock).
template <class Model>
concept RegisterModel = ByteRegisters<Model> || SpanRegisters<Model>;

/// The type of device that share() creates from a model: one for both buses, with a mutex around each access.
template <RegisterModel Model>
using SharedDevice = Locked<typename detail::AdapterOf<Model>::Type>;

/// As share(model) below, for a model that cannot be moved: it is constructed from `args`.
template <RegisterModel Model, class... Args>
    requires std::constructible_from<Model, Args...>
[[nodiscard]] std::shared_ptr<SharedDevice<Model>> share(std::in_place_type_t<Model>, Args&&... args) {
    if constexpr (ByteRegisters<Model>) {
        return std::make_shared<SharedDevice<Model>>(std::in_place, ByteDeviceOptions{},
                                                     std::forward<Args>(args)...);
    } else {
        return std::make_shared<SharedDevice<Model>>(std::in_place, std::forward<Args>(args)...);
    }
}

/// Moves a model into a device that can be registered with an IoManager, and that other threads of the VMM
/// access with `device->lock()`:
///
/// ```cpp
/// const auto com1 = vmdevice::share(vmsuperio::Serial(trigger, writer));
/// if (io.register_pio(vmdevice::pio_range(0x3F8, 8), com1)) {
///     const auto fitted = com1->lock()->enqueue_raw_bytes(typed);
/// }
/// ```
///
/// For a model of byte registers, the layout of the registers in the range may be specified. Throws
/// std::bad_alloc.
template <RegisterModel Model>
[[nodiscard]] std::shared_ptr<SharedDevice<Model>> share(Model model) {
    return share(std::in_place_type<Model>, std::move(model));
}
/// The same, with the model's registers spaced as the options say.
template <ByteRegisters Model>
[[nodiscard]] std::shared_ptr<SharedDevice<Model>> share(Model model, ByteDeviceOptions options) {
    return std::make_shared<SharedDevice<Model>>(std::in_place, options, std::move(model));
}
}  // namespace vmdevice::inline v0_2
