// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//
// The device's side of a split virtqueue, with a driver that writes what it likes where it likes: what pop()
// returns is what a second reading of VIRTIO 1.2, 2.7, written without the queue's code, finds in the same
// memory; and the queue writes to its used ring only.
//
// Input: a byte with the queue's size (bits 2:0, as a power of two up to 16) and features (bit 3 indirect
// descriptors, bit 4 event index), then operations of one byte (modulo 8):
//   0, 1  the driver writes 1 to 8 bytes (length, 2 bytes of offset into its window, the bytes)
//   2  it offers a head (a byte)   3  it sets the available index (2 bytes)
//   4  pop   5  push one that is in flight (a byte), and publish   6  notifications on or off   7  undo

#include <array>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <deque>
#include <optional>
#include <utility>
#include <vector>

#include "memory/guest_memory.hpp"
#include "support/target.hpp"
#include "virtio/split_queue.hpp"

namespace fuzz {
namespace {

using kvm_vmm::GuestMemory;
using namespace kvm_vmm::virtio;

constexpr std::uint64_t ram = 0x10000;
constexpr std::uint64_t window = 0x1000;  // rings, then room for indirect tables
constexpr std::size_t window_size = 0x800;
constexpr std::uint64_t available_at = window + 0x100;
constexpr std::uint64_t used_at = window + 0x140;

// What a driver has offered, by the specification's words.
struct Expected {
    enum class Kind : std::uint8_t { none, error, chain } kind{Kind::none};
    std::uint16_t head{0};
    std::vector<std::pair<std::uint64_t, std::uint64_t>> readable{};  // address and length; none is empty
    std::vector<std::pair<std::uint64_t, std::uint64_t>> writable{};
    bool bad_readable{false};  // a buffer of this direction cannot be used, and what follows it is left out
    bool bad_writable{false};
};

class Model {
public:
    Model(const GuestMemory& memory, std::uint16_t size, QueueFeatures features)
        : memory_(memory), size_(size), features_(features), busy_(size) {}

    Expected pop() {
        if (broken_) {
            return {.kind = Expected::Kind::error};
        }
        Expected result = look();
        broken_ = result.kind == Expected::Kind::error;
        if (result.kind == Expected::Kind::chain) {
            busy_[result.head] = true;
            taken_ = static_cast<std::uint16_t>(taken_ + 1);
        }
        return result;
    }
    void undo(std::uint16_t head) {
        busy_[head] = false;
        taken_ = static_cast<std::uint16_t>(taken_ - 1);
    }
    void push(std::uint16_t head) { busy_[head] = false; }

private:
    template <class T>
    T read(std::uint64_t address) const {
        return memory_.read_object<T>(address).value();
    }
    Expected look() const {
        const auto offered = static_cast<std::uint16_t>(read<std::uint16_t>(available_at + 2) - taken_);
        if (offered == 0) {
            return {};
        }
        Expected wrong{.kind = Expected::Kind::error};
        if (offered > size_) {
            return wrong;
        }
        Expected result{.kind = Expected::Kind::chain};
        result.head = read<std::uint16_t>(available_at + 4 + std::uint64_t{2} * (taken_ % size_));
        if (result.head >= size_ || busy_[result.head]) {
            return wrong;
        }
        std::uint64_t table = window;
        std::uint64_t entries = size_;
        std::uint64_t at = result.head;
        std::uint64_t bytes = 0;
        bool indirect = false;
        bool writing = false;
        unsigned buffers = 0;
        for (bool more = true; more;) {
            if (at >= entries) {
                return wrong;
            }
            const auto address = read<std::uint64_t>(table + at * 16);
            const auto length = read<std::uint32_t>(table + at * 16 + 8);
            const auto flags = read<std::uint16_t>(table + at * 16 + 12);
            const bool inside = address <= ram && length <= ram - address;
            if ((flags & 4U) != 0) {
                if (!features_.indirect_descriptors || indirect || (flags & 1U) != 0 || length == 0 ||
                    length % 16 != 0 || !inside) {
                    return wrong;
                }
                table = address;
                entries = length / 16;
                at = 0;
                indirect = true;
                continue;
            }
            if (!take(address, length, flags, inside, result, bytes, writing, buffers)) {
                return wrong;
            }
            more = (flags & 1U) != 0;
            at = read<std::uint16_t>(table + at * 16 + 14);
        }
        return result;
    }
    bool take(std::uint64_t address, std::uint32_t length, unsigned flags, bool inside, Expected& result,
              std::uint64_t& bytes, bool& writing, unsigned& buffers) const {
        ++buffers;
        const bool write = (flags & 2U) != 0;
        if (buffers > size_) {
            return false;
        }
        if ((length != 0 && !inside) || bytes + length > 0xFFFF'FFFFU || (writing && !write)) {
            (write ? result.bad_writable : result.bad_readable) = true;
        } else {
            bytes += length;
            if (length != 0 && !(write ? result.bad_writable : result.bad_readable)) {
                (write ? result.writable : result.readable).emplace_back(address, length);
            }
        }
        writing = writing || (write && length != 0);
        return true;
    }

    const GuestMemory& memory_;
    std::uint16_t size_;
    QueueFeatures features_;
    std::vector<bool> busy_;
    std::uint16_t taken_{0};
    bool broken_{false};
};

void check_buffers(const GuestMemory& memory, const Buffers& found,
                   const std::vector<std::pair<std::uint64_t, std::uint64_t>>& expected) {
    check_equal(found.pieces().size(), expected.size(), "as many buffers as the driver has put there");
    for (std::size_t i = 0; i < expected.size(); ++i) {
        const auto place = memory.slice(expected[i].first, expected[i].second);
        check(place.has_value(), "the model's buffer is in RAM");
        check(found.pieces()[i].data() == place->data() && found.pieces()[i].size() == place->size(),
              "the buffer is the driver's");
    }
}

}  // namespace

void run_target(Input& input, const Trace& trace) {
    GuestMemory memory(ram);
    const std::uint8_t options = input.byte();
    const auto size = static_cast<std::uint16_t>(1U << ((options & 7U) % 5U));
    const QueueFeatures features{.indirect_descriptors = (options & 8U) != 0,
                                 .event_index = (options & 16U) != 0};
    auto queue = SplitQueue::create(
        memory, {.descriptors = window, .available = available_at, .used = used_at, .size = size}, features);
    check(queue.has_value(), "the rings are in order");
    Model model(memory, size, features);
    trace("a queue of ", size, ", options ", Hex{options});
    std::deque<Chain> in_flight;
    std::uint16_t offered = 0;
    std::vector<std::uint8_t> before(ram);
    const std::uint64_t used_end = used_at + 4 + std::uint64_t{8} * size + 2;
    while (!input.empty()) {
        const std::uint8_t op = input.byte() % 8U;
        switch (op) {
            case 0:
            case 1: {
                const std::size_t length = input.byte() % 8U + 1U;
                const std::uint64_t at = input.u16() % (window_size - 8);
                const auto bytes = input.bytes(length);
                trace("driver writes ", bytes.size(), " bytes at ", Hex{at});
                check(memory.write(window + at, bytes), "the window is in RAM");
                break;
            }
            case 2: {
                const std::uint16_t head = input.byte();
                trace("driver offers ", head);
                check(memory.write_object(available_at + 4 + std::uint64_t{2} * (offered % size), head),
                      "in RAM");
                ++offered;
                check(memory.write_object(available_at + 2, offered), "in RAM");
                break;
            }
            case 3:
                offered = input.u16();
                trace("driver sets the index to ", offered);
                check(memory.write_object(available_at + 2, offered), "in RAM");
                break;
            default:
                break;
        }
        check(memory.read(0, before), "all of RAM can be read");
        if (op == 4) {
            const Expected expected = model.pop();
            const auto popped = queue->pop();
            trace("pop");
            check_equal(popped.has_value(), expected.kind != Expected::Kind::error, "the driver is at fault");
            if (popped && *popped) {
                check(expected.kind == Expected::Kind::chain, "there is a chain");
                check_equal((*popped)->head, expected.head, "its head");
                check_equal((*popped)->defect.has_value(), expected.bad_readable || expected.bad_writable,
                            "a buffer that cannot be used is noticed");
                check_buffers(memory, (*popped)->readable, expected.readable);
                check_buffers(memory, (*popped)->writable, expected.writable);
                in_flight.push_back(**popped);
            } else {
                check(expected.kind != Expected::Kind::chain, "there is no chain");
            }
        } else if (op == 5 && !in_flight.empty()) {
            const auto place =
                in_flight.begin() + static_cast<std::ptrdiff_t>(input.byte() % in_flight.size());
            trace("push ", place->head);
            model.push(place->head);
            queue->push(*place, input.u32());
            in_flight.erase(place);
            (void)queue->publish();
        } else if (op == 6) {
            (void)(input.byte() % 2U == 0 ? queue->enable_notifications()
                                          : (queue->disable_notifications(), false));
        } else if (op == 7 && !in_flight.empty()) {
            trace("undo ", in_flight.back().head);
            // Only the last one popped may be put back.
            const auto popped = static_cast<std::uint16_t>(queue->state().next_available - 1);
            const auto entry =
                memory.read_object<std::uint16_t>(available_at + 4 + std::uint64_t{2} * (popped % size));
            if (entry == in_flight.back().head) {
                model.undo(in_flight.back().head);
                queue->undo_pop(in_flight.back());
                in_flight.pop_back();
            }
        }
        check_equal(queue->in_flight(), in_flight.size(), "as many in flight as were taken");
        std::vector<std::uint8_t> after(ram);
        check(memory.read(0, after), "all of RAM can be read");
        check(std::memcmp(before.data(), after.data(), used_at) == 0 &&
                  std::memcmp(before.data() + used_end, after.data() + used_end, ram - used_end) == 0,
              "the queue writes to its used ring only");
    }
}

}  // namespace fuzz
