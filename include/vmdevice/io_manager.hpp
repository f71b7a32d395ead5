// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
#pragma once

/// The bus that vCPUs share: dispatches port and memory accesses to devices while others come and go.

#include <cstddef>
#include <cstdint>
#include <expected>
#include <memory>
#include <mutex>
#include <optional>
#include <shared_mutex>
#include <span>
#include <utility>

#include <vmdevice/address.hpp>
#include <vmdevice/bus.hpp>
#include <vmdevice/device.hpp>
#include <vmdevice/error.hpp>
#include <vmdevice/range.hpp>

namespace vmdevice {

class IoManager {
public:
    [[nodiscard]] std::expected<void, BusError> register_pio(PioRange range,
                                                             std::shared_ptr<DevicePio> device) {
        if (!device) {
            return std::unexpected(BusError::device_not_found);
        }
        const std::unique_lock lock(mutex_);
        return pio_.register_device(range, std::move(device));
    }
    [[nodiscard]] std::expected<void, BusError> register_mmio(MmioRange range,
                                                              std::shared_ptr<DeviceMmio> device) {
        if (!device) {
            return std::unexpected(BusError::device_not_found);
        }
        const std::unique_lock lock(mutex_);
        return mmio_.register_device(range, std::move(device));
    }
    std::optional<std::pair<PioRange, std::shared_ptr<DevicePio>>> deregister_pio(PioAddress address) {
        const std::unique_lock lock(mutex_);
        return pio_.deregister(address);
    }
    std::optional<std::pair<MmioRange, std::shared_ptr<DeviceMmio>>> deregister_mmio(MmioAddress address) {
        const std::unique_lock lock(mutex_);
        return mmio_.deregister(address);
    }

    [[nodiscard]] std::expected<void, BusError> pio_read(PioAddress address, std::span<std::uint8_t> data) {
        return dispatch(pio_, address, data.size(), [&](DevicePio& device, const PioRange& range) {
            device.pio_read(range.base(), range.offset_of(address), data);
        });
    }
    [[nodiscard]] std::expected<void, BusError> pio_write(PioAddress address,
                                                          std::span<const std::uint8_t> data) {
        return dispatch(pio_, address, data.size(), [&](DevicePio& device, const PioRange& range) {
            device.pio_write(range.base(), range.offset_of(address), data);
        });
    }
    [[nodiscard]] std::expected<void, BusError> mmio_read(MmioAddress address, std::span<std::uint8_t> data) {
        return dispatch(mmio_, address, data.size(), [&](DeviceMmio& device, const MmioRange& range) {
            device.mmio_read(range.base(), range.offset_of(address), data);
        });
    }
    [[nodiscard]] std::expected<void, BusError> mmio_write(MmioAddress address,
                                                           std::span<const std::uint8_t> data) {
        return dispatch(mmio_, address, data.size(), [&](DeviceMmio& device, const MmioRange& range) {
            device.mmio_write(range.base(), range.offset_of(address), data);
        });
    }

    /// String input (REP INS): data.size() / width reads of `width` bytes at one port, one dispatch.
    [[nodiscard]] std::expected<void, BusError> pio_read_repeated(PioAddress address, std::size_t width,
                                                                  std::span<std::uint8_t> data) {
        if (!repeatable(width, data.size())) {
            return std::unexpected(BusError::invalid_access_length);
        }
        return dispatch(pio_, address, data.empty() ? 0 : width,
                        [&](DevicePio& device, const PioRange& range) {
                            device.pio_read_repeated(range.base(), range.offset_of(address), width, data);
                        });
    }
    /// String output (REP OUTS): data.size() / width writes of `width` bytes at one port, one dispatch.
    [[nodiscard]] std::expected<void, BusError> pio_write_repeated(PioAddress address, std::size_t width,
                                                                   std::span<const std::uint8_t> data) {
        if (!repeatable(width, data.size())) {
            return std::unexpected(BusError::invalid_access_length);
        }
        return dispatch(pio_, address, data.empty() ? 0 : width,
                        [&](DevicePio& device, const PioRange& range) {
                            device.pio_write_repeated(range.base(), range.offset_of(address), width, data);
                        });
    }

private:
    static bool repeatable(std::size_t width, std::size_t length) {
        return (width == 1 || width == 2 || width == 4 || width == 8) && length % width == 0;
    }

    template <class Bus, class Address, class Call>
    std::expected<void, BusError> dispatch(const Bus& bus, Address address, std::size_t length, Call call) {
        std::shared_lock lock(mutex_);
        const auto found = bus.check_access(address, length);
        if (!found) {
            return std::unexpected(found.error());
        }
        const auto device = found->device;
        const auto range = found->range;
        lock.unlock();
        call(*device, range);
        return {};
    }

    std::shared_mutex mutex_;
    PioBus<std::shared_ptr<DevicePio>> pio_;
    MmioBus<std::shared_ptr<DeviceMmio>> mmio_;
};

}  // namespace vmdevice
