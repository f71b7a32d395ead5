// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
#pragma once

/// IoManager and, for comparison, the designs of other VMMs' buses in their simplest form.

#include <concepts>
#include <cstddef>
#include <cstdint>
#include <map>
#include <memory>
#include <mutex>
#include <random>
#include <shared_mutex>
#include <span>
#include <utility>
#include <vector>

#include <vmdevice/vmdevice.hpp>

namespace bus_designs {

using namespace vmdevice;

/// The simplest possible device.
struct Register : DevicePio, DeviceMmio {
    std::uint8_t value = 1;
    void pio_read(PioAddress, PioOffset, std::span<std::uint8_t> data) override { data[0] = value; }
    void pio_write(PioAddress, PioOffset, std::span<const std::uint8_t> data) override { value = data[0]; }
    void mmio_read(MmioAddress, MmioOffset, std::span<std::uint8_t> data) override { data[0] = value; }
    void mmio_write(MmioAddress, MmioOffset, std::span<const std::uint8_t> data) override { value = data[0]; }
};

/// Port ranges of 8 and memory ranges of a page, each space with holes.
PioRange pio_range(std::size_t n) {
    return *PioRange::create(PioAddress{static_cast<std::uint16_t>(0x100 + n * 16)}, 8);
}
MmioRange mmio_range(std::size_t n) {
    return *MmioRange::create(MmioAddress{0xC000'0000 + n * 0x2000}, 0x1000);
}

template <class A>
BusRange<A> range_of(std::size_t n) {
    if constexpr (std::same_as<A, PioAddress>) {
        return pio_range(n);
    } else {
        return mmio_range(n);
    }
}

/// The lower bound: the virtual call alone, without a bus.
struct VirtualCall {
    std::vector<std::shared_ptr<Register>> devices;
    template <class A>
    void add(BusRange<A>, std::shared_ptr<Register> device) {
        devices.push_back(std::move(device));
    }
};

/// One mutex around an ordered map of shared pointers, held while the device is found.
struct GlobalMutex {
    std::mutex mutex;
    struct Entry {
        std::uint64_t last;
        std::shared_ptr<Register> device;
    };
    std::map<std::uint64_t, Entry> map;

    template <class A>
    void add(BusRange<A> range, std::shared_ptr<Register> device) {
        const std::lock_guard lock(mutex);
        map.emplace(range.base().value, Entry{range.last().value, std::move(device)});
    }
    template <class A>
    void remove(A address) {
        const std::lock_guard lock(mutex);
        map.erase(address.value);
    }
    template <class A>
    bool read(A address, std::span<std::uint8_t> data) {
        std::shared_ptr<Register> device;
        std::uint64_t base = 0;
        {
            const std::lock_guard lock(mutex);
            auto found = map.upper_bound(address.value);
            if (found == map.begin()) {
                return false;
            }
            --found;
            if (address.value + data.size() - 1 > found->second.last) {
                return false;
            }
            base = found->first;
            device = found->second.device;
        }
        if constexpr (std::same_as<A, PioAddress>) {
            device->pio_read(A{static_cast<std::uint16_t>(base)},
                             static_cast<PioOffset>(address.value - base), data);
        } else {
            device->mmio_read(A{base}, address.value - base, data);
        }
        return true;
    }
};

/// A reader-writer lock around an ordered map of weak pointers.
struct ReaderWriterLock {
    std::shared_mutex mutex;
    struct Entry {
        std::uint64_t last;
        std::weak_ptr<Register> device;
    };
    std::map<std::uint64_t, Entry> map;
    std::vector<std::shared_ptr<Register>> owned;

    template <class A>
    void add(BusRange<A> range, std::shared_ptr<Register> device) {
        const std::unique_lock lock(mutex);
        owned.push_back(device);
        map.emplace(range.base().value, Entry{range.last().value, device});
    }
    template <class A>
    void remove(A address) {
        const std::unique_lock lock(mutex);
        map.erase(address.value);
        owned.pop_back();
    }
    template <class A>
    bool read(A address, std::span<std::uint8_t> data) {
        std::shared_ptr<Register> device;
        std::uint64_t base = 0;
        {
            const std::shared_lock lock(mutex);
            auto found = map.upper_bound(address.value);
            if (found == map.begin()) {
                return false;
            }
            --found;
            if (address.value + data.size() - 1 > found->second.last) {
                return false;
            }
            base = found->first;
            device = found->second.device.lock();
        }
        if (!device) {
            return false;
        }
        if constexpr (std::same_as<A, PioAddress>) {
            device->pio_read(A{static_cast<std::uint16_t>(base)},
                             static_cast<PioOffset>(address.value - base), data);
        } else {
            device->mmio_read(A{base}, address.value - base, data);
        }
        return true;
    }
};

struct Ours {
    IoManager manager;
    void add(PioRange range, std::shared_ptr<Register> device) {
        static_cast<void>(manager.register_pio(range, std::move(device)));
    }
    void add(MmioRange range, std::shared_ptr<Register> device) {
        static_cast<void>(manager.register_mmio(range, std::move(device)));
    }
    void remove(PioAddress address) { manager.deregister_pio(address); }
    void remove(MmioAddress address) { manager.deregister_mmio(address); }
    bool read(PioAddress address, std::span<std::uint8_t> data) {
        return manager.pio_read(address, data).has_value();
    }
    bool read(MmioAddress address, std::span<std::uint8_t> data) {
        return manager.mmio_read(address, data).has_value();
    }
};

/// A design with `count` devices, and a sequence of accesses to them.
template <class Design, class A>
struct Machine {
    static constexpr std::size_t length = 4096;

    Design design;
    std::vector<A> addresses;
    std::vector<std::uint32_t> numbers;

    Machine(std::size_t count, bool random) {
        for (std::size_t n = 0; n < count; ++n) {
            design.add(range_of<A>(n), std::make_shared<Register>());
        }
        std::mt19937 generator(1);
        for (std::size_t i = 0; i < length; ++i) {
            const std::size_t n = random ? generator() % count : count / 2;
            numbers.push_back(static_cast<std::uint32_t>(n));
            addresses.push_back(A{static_cast<OffsetOf<A>>(range_of<A>(n).base().value + (generator() & 7))});
        }
    }

    /// The `at`th access of the sequence, which repeats.
    std::uint8_t read(std::size_t at) {
        std::uint8_t byte = 0;
        at %= length;
        if constexpr (std::same_as<Design, VirtualCall>) {
            if constexpr (std::same_as<A, PioAddress>) {
                static_cast<DevicePio&>(*design.devices[numbers[at]]).pio_read(addresses[at], 0, {&byte, 1});
            } else {
                static_cast<DeviceMmio&>(*design.devices[numbers[at]])
                    .mmio_read(addresses[at], 0, {&byte, 1});
            }
        } else {
            static_cast<void>(design.read(addresses[at], {&byte, 1}));
        }
        return byte;
    }

    /// A range that no device has, for a registrar.
    static BusRange<A> spare() { return range_of<A>(1100); }
};

}  // namespace bus_designs
