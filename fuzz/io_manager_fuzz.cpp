// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//
// IoManager compared with the list of fuzz/model/naive_bus.hpp, with every order of calls that one thread can
// make. Concurrent calls of several threads reach the tables as some sequence of complete calls, and calls of
// one thread while another is inside a device are made here from inside that device's handler. So each
// handler runs the next operation of the input, which may be an access to any device, including itself, or a
// registration, a removal (also its own) or a move.
//
// Input: operations; an address is one byte as in bus_fuzz.cpp, the low digit's bit 0 chooses MMIO, and bit 1
// lets the device that is reached do the next operation:
//   0n a l   read l modulo 9 bytes         3n a      deregister
//   1n a l   write                         4n a b s  move the device at a to s addresses from b on
//   2n a s   register s addresses          5n a w l  string output of l modulo 16 items, 6n input

#include <array>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include <vmdevice/vmdevice.hpp>

#include "model/naive_bus.hpp"
#include "support/target.hpp"

namespace fuzz {
namespace {

using vmdevice::BusError;
using vmdevice::IoManager;
using vmdevice::MmioAddress;
using vmdevice::MmioRange;
using vmdevice::PioAddress;
using vmdevice::PioRange;

struct Access {
    int device;
    std::uint64_t base;
    std::uint64_t offset;
    std::size_t length;
    bool operator==(const Access&) const = default;
};

class IoTarget {
public:
    IoTarget(Input& input, const Trace& trace) : input_(input), trace_(trace) {
        trace_("vmdevice::IoManager io;");
    }

    void step() {
        const Op op = next_op(input_);
        const bool mmio = (op.detail & 1U) != 0;
        const bool nested = (op.detail & 2U) != 0;
        const std::uint64_t at = address(mmio);
        switch (op.kind) {
            case OpKind::read:
            case OpKind::write:
                access(mmio, at, input_.byte() % 9U, 0, op.kind == OpKind::write, nested);
                break;
            case OpKind::enqueue:
                add(mmio, at, input_.byte());
                break;
            case OpKind::tick:
                remove(mmio, at);
                break;
            case OpKind::snapshot: {
                const std::uint64_t to = address(mmio);
                move(mmio, at, to, input_.byte());
                break;
            }
            default: {
                const std::size_t width = std::size_t{1} << (input_.byte() & 3U);
                access(false, at & 0xFFFF, width * (input_.byte() % 16U), width, op.kind == OpKind::sink,
                       nested);
                break;
            }
        }
        if (depth_ == 0) {
            kept_.clear();
        }
        check_equal(io_.pio_size(), pio_.size(), "pio_size()");
        check_equal(io_.mmio_size(), mmio_.size(), "mmio_size()");
    }
    [[nodiscard]] bool done() const { return input_.empty(); }

private:
    struct Device : vmdevice::DevicePio, vmdevice::DeviceMmio {
        Device(IoTarget& owner, int number) : target(owner), id(number) {}
        void pio_read(PioAddress base, vmdevice::PioOffset offset, std::span<std::uint8_t> data) override {
            target.reached({id, base.value, offset, data.size()});
            fill(data);
        }
        void pio_write(PioAddress base, vmdevice::PioOffset offset,
                       std::span<const std::uint8_t> data) override {
            target.reached({id, base.value, offset, data.size()});
        }
        void mmio_read(MmioAddress base, vmdevice::MmioOffset offset, std::span<std::uint8_t> data) override {
            target.reached({id, base.value, offset, data.size()});
            fill(data);
        }
        void mmio_write(MmioAddress base, vmdevice::MmioOffset offset,
                        std::span<const std::uint8_t> data) override {
            target.reached({id, base.value, offset, data.size()});
        }
        void fill(std::span<std::uint8_t> data) const {
            for (std::uint8_t& byte : data) {
                byte = static_cast<std::uint8_t>(id);
            }
        }
        IoTarget& target;
        int id;
    };

    // Called from inside a device.
    void reached(const Access& access) {
        if (nested_ && !input_.empty()) {
            // The library limits the nesting depth; this target limits it further to keep the check simple.
            nested_ = false;
            const std::vector<Access> outer = std::exchange(reached_, {});
            ++depth_;
            step();
            --depth_;
            reached_ = outer;
        }
        reached_.push_back(access);
    }

    std::uint64_t address(bool mmio) {
        const std::uint8_t byte = input_.byte();
        const std::uint64_t maximum = mmio ? ~std::uint64_t{0} : 0xFFFFU;
        const std::uint64_t low = byte & 0x3FU;
        switch (byte >> 6U) {
            case 0:
                return low;
            case 1:
                return maximum / 2 - 0x20 + low;
            case 2:
                return maximum - low;
            default:
                // Strides of about a page, so that tables with several classes are used.
                return (low * (mmio ? 0x0000'0410'4104'1000U : 0x0410U) + (low & 7U)) & maximum;
        }
    }
    model::NaiveBus& list(bool mmio) { return mmio ? mmio_ : pio_; }

    void access(bool mmio, std::uint64_t at, std::size_t length, std::size_t width, bool writes,
                bool nested) {
        // A repeated access is delivered to the device that owns one item.
        const auto owner = list(mmio).owner(at, width != 0 && length != 0 ? width : length);
        std::array<std::uint8_t, 128> bytes{};
        bytes.fill(0xA5);
        const auto data = std::span(bytes).first(length);
        trace_(std::string(depth_ * 4, ' '), "io.", mmio ? "mmio" : "pio", writes ? "_write" : "_read",
               width != 0 ? "_repeated" : "", "({", Hex{at}, "}, ", length, " bytes",
               width != 0 ? " by " : "", width, ");  // ", owner.has_value() ? "delivered" : "refused");
        reached_.clear();
        nested_ = nested && depth_ + 1 < IoManager::max_nesting;
        std::expected<void, BusError> result;
        const PioAddress port{static_cast<std::uint16_t>(at)};
        const MmioAddress memory{at};
        {
            if (mmio) {
                result = writes ? io_.mmio_write(memory, data) : io_.mmio_read(memory, data);
            } else if (width != 0) {
                result = writes ? io_.pio_write_repeated(port, width, data)
                                : io_.pio_read_repeated(port, width, data);
            } else {
                result = writes ? io_.pio_write(port, data) : io_.pio_read(port, data);
            }
        }
        nested_ = false;
        check_equal(result.has_value(), owner.has_value(), "delivered if one device owns all of it");
        if (!result) {
            check(result.error() == (length == 0 ? BusError::invalid_range : BusError::device_not_found),
                  "the error of an access");
            check(reached_.empty(), "a refused access reaches no device");
        } else {
            check_equal(reached_.size(), width == 0 ? 1 : length / width,
                        "each item reaches the device once");
            for (const Access& one : reached_) {
                check(one ==
                          Access{owner->device, owner->first, at - owner->first, width == 0 ? length : width},
                      "the right device, base, offset and length");
            }
        }
        const bool filled = result && !writes;
        for (std::size_t i = 0; i < bytes.size(); ++i) {
            check_equal(bytes[i], filled && i < length ? static_cast<std::uint8_t>(owner->device) : 0xA5,
                        "the device's bytes and no others");
        }
    }

    template <class Range>
    std::optional<Range> range(bool mmio, std::uint64_t base, std::uint64_t size) {
        const auto made = Range::create({static_cast<decltype(Range::unit({}).base().value)>(base)},
                                        static_cast<typename Range::offset_type>(size));
        check_equal(made.has_value(), list(mmio).is_range(base, size),
                    "create() accepts exactly the valid ranges");
        return made ? std::optional(*made) : std::nullopt;
    }
    static void check_result(const std::expected<void, BusError>& result, std::optional<BusError> expected) {
        check_equal(result.has_value(), !expected, "whether it succeeds");
        check(result.has_value() || result.error() == *expected, "and the error");
    }
    void add(bool mmio, std::uint64_t base, std::uint64_t size) {
        trace_(std::string(depth_ * 4, ' '), "io.register_", mmio ? "mmio" : "pio", "(", Hex{base}, ", ",
               Hex{size}, ", device ", next_, ");");
        if (!list(mmio).is_range(base, size)) {
            return;
        }
        const auto device = std::make_shared<Device>(*this, next_);
        check_result(mmio ? io_.register_mmio(*range<MmioRange>(true, base, size), device)
                          : io_.register_pio(*range<PioRange>(false, base, size), device),
                     list(mmio).add(base, base + (size - 1), next_));
        next_ = (next_ + 1) % 128;
    }
    template <class Removed>
    void check_removed(const Removed& removed, const std::optional<model::NaiveBus::Entry>& expected) {
        check_equal(removed.has_value(), expected.has_value(), "deregister finds the owner of the address");
        if (removed) {
            check_equal(removed->first.base().value, expected->first, "the range's base");
            check_equal(removed->first.last().value, expected->last, "the range's end");
            check(dynamic_cast<const Device&>(*removed->second).id == expected->device, "the device");
            // A handler that removes its own device must keep it alive until it has returned.
            if (depth_ != 0) {
                kept_.push_back(removed->second);
            }
        }
    }
    void remove(bool mmio, std::uint64_t at) {
        trace_(std::string(depth_ * 4, ' '), "io.deregister_", mmio ? "mmio" : "pio", "({", Hex{at}, "});");
        if (mmio) {
            check_removed(io_.deregister_mmio({at}), mmio_.remove(at));
        } else {
            check_removed(io_.deregister_pio({static_cast<std::uint16_t>(at)}), pio_.remove(at));
        }
    }
    void move(bool mmio, std::uint64_t at, std::uint64_t to, std::uint64_t size) {
        trace_(std::string(depth_ * 4, ' '), "io.move_", mmio ? "mmio" : "pio", "({", Hex{at}, "}, ", Hex{to},
               ", ", Hex{size}, ");");
        if (!list(mmio).is_range(to, size)) {
            return;
        }
        check_result(mmio ? io_.move_mmio({at}, *range<MmioRange>(true, to, size))
                          : io_.move_pio({static_cast<std::uint16_t>(at)}, *range<PioRange>(false, to, size)),
                     list(mmio).move(at, to, to + (size - 1)));
    }

    Input& input_;
    const Trace& trace_;
    model::NaiveBus pio_{0xFFFF};
    model::NaiveBus mmio_{~std::uint64_t{0}};
    std::vector<std::shared_ptr<void>> kept_{};
    IoManager io_{};
    std::vector<Access> reached_{};
    bool nested_{false};
    std::size_t depth_{0};
    int next_{1};
};

}  // namespace

void run_target(Input& input, const Trace& trace) {
    IoTarget target(input, trace);
    while (!target.done()) {
        target.step();
    }
}

}  // namespace fuzz
