// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
#pragma once

/// Fuzzes any `vmdevice::DevicePio` or `DeviceMmio`, and any composition of them on the buses of an
/// `IoManager`, so that authors of a VMM can fuzz their own devices. A complete target is
///
/// ```cpp
/// #include "fuzz_any_device.hpp"
///
/// void fuzz::run_target(fuzz::Input& input, const fuzz::Trace& trace) {
///     MyMachine machine;  // owns the devices; a new one for each input
///     fuzz::AnyDevice any(trace, machine.io_manager());
///     any.add_pio(vmdevice::PioRange::create({0x3F8}, 8).value());
///     any.add_mmio(vmdevice::MmioRange::create({0xD0000000}, 0x1000).value());
///     any.on_host_call([&](fuzz::Input& in) { machine.type(in.byte()); });
///     any.after_each_step([&] { fuzz::check(machine.is_sane(), "the machine is sane"); });
///     any.run(input);
/// }
/// ```
///
/// With the directory of this file as an include directory, it is linked with support/report.cpp and
/// support/target_main.cpp and, for Clang's libFuzzer, -fsanitize=fuzzer; or, without a fuzzing engine, with
/// support/replay_main.cpp as well. The installed package has a CMake function for both:
/// ```cmake
/// find_package(vmsuperio REQUIRED COMPONENTS vmsuperio vmdevice fuzz)
/// vmsuperio_add_fuzz_target(fuzz_my_machine my_machine_fuzz.cpp)
/// ```
///
/// Operations: the low digit chooses one of the ranges, modulo their number.
///   0r o*k w    read at offset o, w chooses the width 1, 2, 4 or 8
///   1r o*k w v  write, v being as many bytes as the width
///   2r o*k w n  string input of n items, PIO only       4r o*k l   access of any length, also past the end
///   3r o*k w n v*n  string output                       5r, 6r     the host's call
/// where o takes one byte in a range of up to 256 bytes, else two (k = 2), and is taken modulo the range's
/// size where it fits; a range beyond 64 KiB is reached in its first and last 32 KiB.
///
/// Checked for every access: it is delivered if and only if one range owns all of it, the bytes after the
/// buffer do not change, and a read that no device answered does not change the buffer.

#include <array>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <span>
#include <utility>
#include <vector>

#include <vmdevice/device.hpp>
#include <vmdevice/io_manager.hpp>

#include "support/check.hpp"
#include "support/input.hpp"
#include "support/target.hpp"
#include "support/trace.hpp"

namespace fuzz {

class AnyDevice {
public:
    /// The devices are registered with `io`, which must outlive this object.
    AnyDevice(const Trace& trace, vmdevice::IoManager& io) : trace_(trace), io_(io) {}

    /// A range at which a device has been registered.
    void add_pio(vmdevice::PioRange range) {
        ranges_.push_back({true, range.base().value, range.last().value});
    }
    void add_mmio(vmdevice::MmioRange range) {
        ranges_.push_back({false, range.base().value, range.last().value});
    }
    /// Actions of the host between accesses: input, ticks, snapshots. `call` reads its choices from the
    /// input.
    void on_host_call(std::function<void(Input&)> call) { host_call_ = std::move(call); }
    /// The invariants of the machine.
    void after_each_step(std::function<void()> check_all) { check_all_ = std::move(check_all); }

    void run(Input& input) {
        trace_("// `io` is the IoManager with the devices on it.");
        trace_("std::array<std::uint8_t, 520> buffer{};");
        check(!ranges_.empty(), "there is a range to fuzz");
        while (!input.empty()) {
            step(input);
            if (check_all_) {
                check_all_();
            }
        }
    }
    void step(Input& input) {
        const Op op = next_op(input);
        if (op.kind == OpKind::sink || op.kind == OpKind::host || op.kind == OpKind::other) {
            if (host_call_) {
                host_call_(input);
            }
            return;
        }
        const Range& range = ranges_[op.detail % ranges_.size()];
        const std::uint64_t address = range.first + offset(range, input);
        const std::size_t width = std::size_t{1} << (input.byte() & 3U);
        switch (op.kind) {
            case OpKind::write:
                write(range, address, input.bytes(width));
                break;
            case OpKind::enqueue:
                repeat(range, address, width, {}, input.byte() % 64U);
                break;
            case OpKind::tick: {
                const std::size_t count = input.byte() % 64U;
                const auto bytes = input.bytes(count * width);
                repeat(range, address, width, bytes, bytes.size() / width);
                break;
            }
            case OpKind::snapshot:
                read(range, address, input.byte() % 65U);
                break;
            default:
                read(range, address, width);
                break;
        }
    }

private:
    struct Range {
        bool pio;
        std::uint64_t first;
        std::uint64_t last;
    };
    static constexpr std::uint8_t untouched = 0xA5;

    static std::uint64_t offset(const Range& range, Input& input) {
        const std::uint64_t most = range.last - range.first;
        if (most < 0x100) {
            return input.byte() % (most + 1);
        }
        const std::uint64_t number = input.u16();
        if (most < 0x10000) {
            return number % (most + 1);
        }
        return number < 0x8000 ? number : most - (number - 0x8000);
    }
    // Whether the range owns the whole access.
    [[nodiscard]] bool owned(const Range& range, std::uint64_t address, std::size_t length) const {
        return length != 0 && length - 1 <= range.last - address;
    }
    static const char* bus(const Range& range) { return range.pio ? "pio" : "mmio"; }

    void read(const Range& range, std::uint64_t address, std::size_t length) {
        std::array<std::uint8_t, 80> buffer{};
        buffer.fill(untouched);
        const auto data = std::span(buffer).first(length);
        trace_.call("CHECK(io.", bus(range), "_read({", Hex{address}, "}, std::span(buffer).first(", length,
                    ")).has_value() == ");
        const auto result =
            range.pio ? io_.pio_read(vmdevice::PioAddress{static_cast<std::uint16_t>(address)}, data)
                      : io_.mmio_read(vmdevice::MmioAddress{address}, data);
        trace_.result(result.has_value(), ");");
        check_equal(result.has_value(), owned(range, address, length),
                    "delivered if one range contains all of it");
        for (std::size_t i = result ? length : 0; i < buffer.size(); ++i) {
            check_equal(buffer[i], untouched, "bytes that are not read stay as they are");
        }
    }
    void write(const Range& range, std::uint64_t address, std::span<const std::uint8_t> data) {
        trace_("(void)io.", bus(range), "_write({", Hex{address}, "}, ", Bytes{data}, ");");
        const auto result =
            range.pio ? io_.pio_write(vmdevice::PioAddress{static_cast<std::uint16_t>(address)}, data)
                      : io_.mmio_write(vmdevice::MmioAddress{address}, data);
        check_equal(result.has_value(), owned(range, address, data.size()),
                    "delivered if one range contains all of it");
    }
    // Output if there are bytes, otherwise input of `count` items.
    void repeat(const Range& range, std::uint64_t address, std::size_t width,
                std::span<const std::uint8_t> bytes, std::size_t count) {
        if (!range.pio || count == 0) {
            return;
        }
        const vmdevice::PioAddress port{static_cast<std::uint16_t>(address)};
        const bool whole = owned(range, address, width);
        if (!bytes.empty()) {
            const auto data = bytes.first(count * width);
            trace_("(void)io.pio_write_repeated({", Hex{address}, "}, ", width, ", ", Bytes{data}, ");");
            check_equal(io_.pio_write_repeated(port, width, data).has_value(), whole,
                        "delivered where owned");
            return;
        }
        std::array<std::uint8_t, 520> buffer{};
        buffer.fill(untouched);
        trace_("(void)io.pio_read_repeated({", Hex{address}, "}, ", width, ", std::span(buffer).first(",
               count * width, "));");
        check_equal(io_.pio_read_repeated(port, width, std::span(buffer).first(count * width)).has_value(),
                    whole, "delivered where owned");
        for (std::size_t i = whole ? count * width : 0; i < buffer.size(); ++i) {
            check_equal(buffer[i], untouched, "bytes that are not read stay as they are");
        }
    }

    const Trace& trace_;
    vmdevice::IoManager& io_;
    std::vector<Range> ranges_{};
    std::function<void(Input&)> host_call_{};
    std::function<void()> check_all_{};
};

}  // namespace fuzz
