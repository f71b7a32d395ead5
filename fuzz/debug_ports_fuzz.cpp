// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//
// DebugPort (both kinds), ExitPort and Pvpanic, compared with a model of a few lines.
//
// Input: one byte, the events that pvpanic takes, then operations; the low digit's bits 1:0 choose the
// device (0 POST code, 1 console, 2 exit port, 3 pvpanic):
//   0d     read        2d n b...  write n modulo 64 bytes at once   5n  the sinks take at most n bytes a call
//   1d vv  write vv    4d         save, encode, decode and restore      (15: any number)

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <utility>

#include <vmsuperio/callback.hpp>
#include <vmsuperio/debug_port.hpp>
#include <vmsuperio/exit_port.hpp>
#include <vmsuperio/pvpanic.hpp>
#include <vmsuperio/snapshot.hpp>

#include "support/check_state.hpp"
#include "support/target.hpp"

namespace fuzz {
namespace {

using vmsuperio::DebugPort;
using vmsuperio::ExitPort;
using vmsuperio::Pvpanic;
using vmsuperio::PvpanicEvent;

template <class Device, class... Arguments>
void save_and_restore(Device& device, Arguments&&... arguments) {
    const auto state = device.state();
    const auto decoded = vmsuperio::decode<std::remove_cv_t<decltype(state)>>(vmsuperio::encode(state));
    check(decoded.has_value(), "encoded bytes can be decoded");
    check_same_state(*decoded, state, "a state survives encode and decode");
    auto restored = Device::from_state(*decoded, std::forward<Arguments>(arguments)...);
    check(restored.has_value(), "a state that a device had is accepted");
    check(restored->state() == state, "the restored device has the state that was saved");
    device = std::move(*restored);
}

class PortsTarget {
public:
    PortsTarget(const Trace& trace, std::uint8_t supported) : trace_(trace), supported_(supported) {
        trace_("std::size_t room = SIZE_MAX;");
        trace_(
            "const auto sink = [&room](std::span<const std::uint8_t> bytes) { return std::min(bytes.size(), "
            "room); };");
        trace_("vmsuperio::DebugPort post;");
        trace_("auto console = vmsuperio::DebugPort::console(sink);");
        trace_("vmsuperio::ExitPort exit_port([](std::uint8_t) {});");
        trace_("vmsuperio::Pvpanic pvpanic([](vmsuperio::PvpanicEvent) {}, ", Hex{supported}, ");");
    }

    void step(Input& input) {
        const Op op = next_op(input);
        const unsigned which = op.detail & 3U;
        switch (op.kind) {
            case OpKind::read:
                read(which);
                break;
            case OpKind::write: {
                const std::uint8_t value = input.byte();
                write(which, {&value, 1}, false);
                break;
            }
            case OpKind::enqueue: {
                const std::size_t count = input.byte() % 64U;
                write(which, input.bytes(count), true);
                break;
            }
            case OpKind::snapshot:
                trace_("// ", names[which], ": saved and restored");
                restore(which);
                break;
            case OpKind::sink:
                limit_ = op.detail == 15 ? SIZE_MAX : op.detail;
                trace_("room = ", limit_, ";");
                break;
            default:
                break;
        }
        compare();
    }

private:
    static constexpr const char* names[] = {"post", "console", "exit_port", "pvpanic"};

    DebugPort::Sink sink() {
        return [this](std::span<const std::uint8_t> bytes) {
            check(!bytes.empty(), "a sink is offered at least one byte");
            offered_ += bytes.size();
            // A sink that claims more than it was offered must not confuse the count.
            return limit_ == SIZE_MAX ? SIZE_MAX : std::min(bytes.size(), limit_);
        };
    }
    vmsuperio::Callback<void(std::uint8_t)> on_exit() {
        return [this](std::uint8_t status) {
            ++exits_;
            exit_status_ = status;
        };
    }
    vmsuperio::Callback<void(PvpanicEvent)> on_event() {
        return [this](PvpanicEvent event) { reported_ |= static_cast<std::uint8_t>(event); };
    }

    void read(unsigned which) {
        std::uint8_t value = 0;
        std::uint8_t expected = 0;
        trace_.call("CHECK(", names[which], ".read(0) == ");
        if (which == 0) {
            value = post_.read();
            expected = last_[0];
        } else if (which == 1) {
            value = console_.read();
            expected = 0xE9;
        } else if (which == 2) {
            value = exit_port_.read();
        } else {
            value = pvpanic_.read();
            expected = supported_ & 7;
        }
        trace_.result(Hex{value}, ");");
        check_equal(value, expected, "the value of the port");
    }
    void write(unsigned which, std::span<const std::uint8_t> bytes, bool at_once) {
        if (at_once) {
            trace_(names[which], ".write_data(", Bytes{bytes}, ");");
        } else {
            trace_(names[which], ".write(0, ", Hex{bytes.front()}, ");");
        }
        const NoAllocation none;
        reported_ = 0;
        const auto put = [&](auto& device) {
            if (at_once) {
                device.write_data(bytes);
            } else {
                device.write(0, bytes.front());
            }
        };
        if (which <= 1) {
            put(which == 0 ? post_ : console_);
            written_[which] += bytes.size();
            last_[which] = bytes.empty() ? last_[which] : bytes.back();
            dropped_ += which == 1 && bytes.size() > limit_ ? bytes.size() - limit_ : 0;
        } else if (which == 2) {
            put(exit_port_);
            if (!bytes.empty() && !expected_exit_) {
                expected_exit_ = bytes.front();
            }
        } else {
            put(pvpanic_);
            unsigned expected = 0;
            for (const std::uint8_t byte : bytes) {
                expected |= byte & supported_ & 7U;
            }
            check_equal(reported_, expected, "the events that pvpanic reports");
            seen_ |= expected;
        }
    }
    void restore(unsigned which) {
        if (which == 0) {
            save_and_restore(post_);
        } else if (which == 1) {
            save_and_restore(console_, sink(), DebugPort::console_id);
        } else if (which == 2) {
            save_and_restore(exit_port_, on_exit());
        } else {
            save_and_restore(pvpanic_, on_event(), supported_);
        }
    }

    void compare() const {
        check_equal(post_.written(), written_[0], "bytes written to the POST code port");
        check_equal(post_.last(), last_[0], "the last POST code");
        check_equal(post_.dropped(), 0, "nothing is dropped without a sink");
        check_equal(console_.written(), written_[1], "bytes written to the console");
        check_equal(offered_, written_[1], "the sink is offered every byte once");
        check_equal(console_.dropped(), dropped_, "bytes that the sink did not take");
        check(exit_port_.status() == expected_exit_, "the first byte is the exit status");
        check_equal(exits_, expected_exit_ ? 1 : 0, "on_exit is called once");
        check(!expected_exit_ || exit_status_ == *expected_exit_, "on_exit receives the status");
        check_equal(pvpanic_.state().seen, seen_, "pvpanic remembers the reported events");
    }

    const Trace& trace_;
    std::uint8_t supported_;
    std::size_t limit_{SIZE_MAX};
    std::uint64_t written_[2]{};
    std::uint8_t last_[2]{};
    std::uint64_t dropped_{0};
    std::uint64_t offered_{0};
    std::uint64_t exits_{0};
    std::uint8_t exit_status_{0};
    std::optional<std::uint8_t> expected_exit_{};
    unsigned reported_{0};
    unsigned seen_{0};
    DebugPort post_{};
    DebugPort console_{DebugPort::console(sink())};
    ExitPort exit_port_{on_exit()};
    Pvpanic pvpanic_{on_event(), supported_};
};

}  // namespace

void run_target(Input& input, const Trace& trace) {
    PortsTarget target(trace, input.byte());
    while (!input.empty()) {
        target.step(input);
    }
}

}  // namespace fuzz
