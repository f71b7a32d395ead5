// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//
// Bus against the list of fuzz/model/naive_bus.hpp.
//
// Input: one byte of options (bit 0: an MMIO bus instead of a PIO bus), then operations; an address is one
// byte: its two upper bits choose a region (around 0, in the middle, at the end; 3: two more bytes give bits
// 15:0 and all above are those of byte 2), the others the distance in it.
//   0n a        who owns a               2n a l*8  check_access, of any length
//   1n a s      register s addresses     3n a      deregister
//               from a on; n = 15: s*8   4n a b s  move the device at a to s addresses from b on
//   7n a      8 * (n / 2 + 1) single addresses, every other one from a on; upwards, or downwards for an odd
//             n. Does nothing if there are 100 ranges already
//   others: iterate over the whole bus

#include <cstddef>
#include <cstdint>
#include <limits>
#include <optional>

#include <vmdevice/vmdevice.hpp>

#include "model/naive_bus.hpp"
#include "support/target.hpp"

namespace fuzz {
namespace {

using vmdevice::Bus;
using vmdevice::BusError;
using vmdevice::BusRange;

template <class A>
class BusTarget {
    using Offset = vmdevice::OffsetOf<A>;
    static constexpr std::uint64_t maximum = std::numeric_limits<Offset>::max();

public:
    explicit BusTarget(const Trace& trace) : trace_(trace) {
        trace_("vmdevice::Bus<", name(), ", int> bus;");
    }

    void step(Input& input) {
        const Op op = next_op(input);
        switch (op.kind) {
            case OpKind::read:
                find(address(input));
                break;
            case OpKind::write: {
                const std::uint64_t base = address(input);
                add(base, op.detail == 15 ? input.u64() : input.byte());
                break;
            }
            case OpKind::enqueue: {
                const std::uint64_t at = address(input);
                access(at, op.detail != 0 ? op.detail : input.u64());
                break;
            }
            case OpKind::tick:
                remove(address(input));
                break;
            case OpKind::snapshot: {
                const std::uint64_t at = address(input);
                const std::uint64_t to = address(input);
                move(at, to, input.byte());
                break;
            }
            case OpKind::other:
                add_many(address(input), 8U * (op.detail / 2U + 1U), op.detail % 2 != 0);
                break;
            default:
                iterate();
                break;
        }
        check_equal(bus_.size(), list_.size(), "size()");
        check_equal(bus_.empty(), list_.size() == 0, "empty()");
    }
    void iterate() const {
        auto entry = bus_.begin();
        for (const auto& expected : list_.sorted()) {
            check(entry != bus_.end(), "iteration meets every device");
            check_equal((*entry).range.base().value, expected.first, "iteration in ascending order");
            check_equal((*entry).range.last().value, expected.last, "with the whole range");
            check((*entry).device == expected.device, "and its device");
            ++entry;
        }
        check(entry == bus_.end(), "and nothing else");
    }

private:
    static constexpr const char* name() {
        return sizeof(Offset) == 2 ? "vmdevice::PioAddress" : "vmdevice::MmioAddress";
    }

    static std::uint64_t address(Input& input) {
        const std::uint8_t byte = input.byte();
        const std::uint64_t low = byte & 0x3FU;
        switch (byte >> 6U) {
            case 0:
                return low;
            case 1:
                return maximum / 2 - 0x20 + low;
            case 2:
                return maximum - low;
            default: {
                const std::uint64_t number = input.u16();
                return (low * 0x0410'4104'1041'0000U + number) & maximum;
            }
        }
    }
    static A make(std::uint64_t value) { return A{static_cast<Offset>(value)}; }

    std::optional<BusRange<A>> range(std::uint64_t base, std::uint64_t size) {
        const auto made = BusRange<A>::create(make(base), static_cast<Offset>(size));
        const std::uint64_t cut = static_cast<Offset>(size);
        check_equal(made.has_value(), list_.is_range(base, cut), "create() accepts exactly the valid ranges");
        if (!made) {
            check(made.error() == BusError::invalid_range, "and says invalid_range otherwise");
            return std::nullopt;
        }
        check_equal(made->base().value, base, "base()");
        check_equal(made->size(), cut, "size()");
        check_equal(made->last().value, base + (cut - 1), "last()");
        return *made;
    }
    template <class Result>
    static void check_result(const Result& result, std::optional<BusError> expected) {
        check_equal(result.has_value(), !expected, "whether it succeeds");
        check(result.has_value() || result.error() == *expected, "and the error");
    }

    void find(std::uint64_t at) const {
        trace_.call("CHECK(bool(bus.device(", name(), "{", Hex{at}, "})) == ");
        const auto found = bus_.device(make(at));
        const auto expected = list_.find(at);
        trace_.result(found.has_value(), ");");
        check_equal(found.has_value(), expected.has_value(), "device() finds the owner of the address");
        if (found) {
            check_equal(found->range.base().value, expected->first, "with its range");
            check(found->device == expected->device, "and the right device");
        }
    }
    void access(std::uint64_t at, std::uint64_t length) const {
        trace_.call("CHECK(bool(bus.check_access(", name(), "{", Hex{at}, "}, ", Hex{length}, ")) == ");
        const auto found = bus_.check_access(make(at), static_cast<std::size_t>(length));
        trace_.result(found.has_value(), ");");
        const auto expected = list_.owner(at, length);
        check_equal(found.has_value(), expected.has_value(), "an access inside one range is found");
        if (found) {
            check(found->device == expected->device, "with the right device");
        } else {
            check(found.error() == (length == 0 ? BusError::invalid_range : BusError::device_not_found),
                  "the error of an access");
        }
    }
    void add(std::uint64_t base, std::uint64_t size) {
        const auto made = range(base, size);
        trace_(made ? "" : "// refused: ", "(void)bus.register_device(vmdevice::BusRange<", name(),
               ">::create({", Hex{base}, "}, ", Hex{static_cast<Offset>(size)}, ").value(), ", next_, ");");
        if (made) {
            check_equal(bus_.overlaps(*made), list_.taken(base, made->last().value, nullptr), "overlaps()");
            const auto result = bus_.register_device(*made, next_);
            check_result(result, list_.add(base, made->last().value, next_));
            ++next_;
        }
    }
    // Adds enough ranges for the index to add leaves, and to split them at their ends and in the middle.
    void add_many(std::uint64_t base, std::uint64_t count, bool down) {
        if (list_.size() >= 100) {
            return;
        }
        for (std::uint64_t i = 0; i < count; ++i) {
            add((base + 2 * (down ? count - 1 - i : i)) & maximum, 1);
        }
    }
    void remove(std::uint64_t at) {
        trace_("(void)bus.deregister({", Hex{at}, "});");
        const auto removed = bus_.deregister(make(at));
        const auto expected = list_.remove(at);
        check_equal(removed.has_value(), expected.has_value(), "deregister() finds the owner of the address");
        if (removed) {
            check_equal(removed->first.base().value, expected->first, "the range's base");
            check_equal(removed->first.last().value, expected->last, "the range's end");
            check(removed->second == expected->device, "the device");
        }
    }
    void move(std::uint64_t at, std::uint64_t to, std::uint64_t size) {
        const auto made = range(to, size);
        trace_(made ? "" : "// refused: ", "(void)bus.move_range({", Hex{at}, "}, vmdevice::BusRange<",
               name(), ">::create({", Hex{to}, "}, ", Hex{static_cast<Offset>(size)}, ").value());");
        if (made) {
            const auto result = bus_.move_range(make(at), *made);
            check_result(result, list_.move(at, to, made->last().value));
        }
    }

    const Trace& trace_;
    Bus<A, int> bus_;
    model::NaiveBus list_{maximum};
    int next_{0};
};

template <class A>
void run(Input& input, const Trace& trace) {
    BusTarget<A> target(trace);
    while (!input.empty()) {
        target.step(input);
    }
    target.iterate();
}

}  // namespace

void run_target(Input& input, const Trace& trace) {
    if ((input.byte() & 1) != 0) {
        run<vmdevice::MmioAddress>(input, trace);
    } else {
        run<vmdevice::PioAddress>(input, trace);
    }
}

}  // namespace fuzz
