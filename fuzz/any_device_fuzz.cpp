// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//
// A PC's legacy devices on the buses of an IoManager, through fuzz_any_device.hpp, which describes the
// operations. It also shows how to fuzz your own composition.

#include <chrono>
#include <cstdint>
#include <memory>

#include <vmdevice/vmdevice.hpp>
#include <vmsuperio/vmsuperio.hpp>

#include "fuzz_any_device.hpp"
#include "support/world.hpp"

namespace fuzz {
namespace {

using vmsuperio::ManualClock;

// An MMIO device of registers 4 bytes wide.
class MmioRtc : public vmdevice::DeviceMmio {
public:
    MmioRtc(const ManualClock& clock, World& world)
        : rtc_(Edge{&world}, vmsuperio::ClockRef<ManualClock>(clock)) {}

    void mmio_read(vmdevice::MmioAddress, vmdevice::MmioOffset offset,
                   std::span<std::uint8_t> data) override {
        rtc_.read(offset, data);
    }
    void mmio_write(vmdevice::MmioAddress, vmdevice::MmioOffset offset,
                    std::span<const std::uint8_t> data) override {
        static_cast<void>(rtc_.write(offset, data));
    }

private:
    vmsuperio::RtcPl031<Edge, vmsuperio::NoRtcPl031Events, vmsuperio::ClockRef<ManualClock>> rtc_;
};

class Machine {
public:
    using Uart = vmsuperio::Serial<Level, Events, Sink>;
    using Keyboard = vmsuperio::I8042<Edge, Edge, Edge>;
    using Cmos = vmsuperio::RtcCmos<Edge, vmsuperio::NoRtcCmosEvents, vmsuperio::ClockRef<ManualClock>>;

    explicit Machine(AnyDevice& any, vmdevice::IoManager& io) {
        put(any, io, 0x3F8, 8, uart);
        put(any, io, 0x60, 5, keyboard);
        put(any, io, 0x70, 2, cmos);
        put(any, io, 0x80, 1, post);
        const auto mmio = vmdevice::MmioRange::create({0x9001'0000}, 0x1000).value();
        check(io.register_mmio(mmio, std::make_shared<MmioRtc>(clock, world)).has_value(), "registered");
        any.add_mmio(mmio);
    }

    void host_call(Input& input) {
        const std::uint8_t what = input.byte();
        switch (what % 8U) {
            case 0:
                static_cast<void>(uart->enqueue_raw_bytes(input.bytes(what / 4U)));
                break;
            case 1:
                clock.advance(std::chrono::milliseconds(input.u16()));
                static_cast<void>(cmos->tick());
                break;
            case 2:
                static_cast<void>(keyboard->key(static_cast<vmsuperio::Key>(input.byte()), what >= 128));
                break;
            case 3:
                keyboard->move_mouse({.x = what, .y = -what, .wheel = 0, .buttons = what});
                break;
            case 4:
                world.room = what / 8U;
                break;
            case 5:
                world.room = World::unlimited;
                static_cast<void>(uart->resume_transmit());
                break;
            default:
                world.trigger_fails = what >= 128;
                break;
        }
    }
    void check_all() const {
        check_equal(world.level, uart->interrupt_line(), "the line's level is reported");
        check(uart->receive_fifo_room() <= 64, "the receive FIFO's bounds");
        check(vmsuperio::validate(keyboard->state()).has_value(), "the keyboard's state");
    }

    World world;
    World others;
    ManualClock clock{std::chrono::seconds(1'700'000'000)};
    std::shared_ptr<Uart> uart = std::make_shared<Uart>(Level{&world}, Events{&world}, Sink{&world});
    std::shared_ptr<Keyboard> keyboard =
        std::make_shared<Keyboard>(Edge{&others}, Edge{&others}, Edge{&others});
    std::shared_ptr<Cmos> cmos =
        std::make_shared<Cmos>(Edge{&others}, vmsuperio::ClockRef<ManualClock>(clock));
    std::shared_ptr<vmsuperio::DebugPort> post = std::make_shared<vmsuperio::DebugPort>();

private:
    template <class Model>
    static void put(AnyDevice& any, vmdevice::IoManager& io, std::uint16_t base, std::uint16_t size,
                    std::shared_ptr<Model> model) {
        const auto range = vmdevice::PioRange::create({base}, size).value();
        check(io.register_pio(range, std::make_shared<vmdevice::ByteDevice<std::shared_ptr<Model>>>(model))
                  .has_value(),
              "registered");
        any.add_pio(range);
    }
};

}  // namespace

void run_target(Input& input, const Trace& trace) {
    vmdevice::IoManager io;
    AnyDevice any(trace, io);
    Machine machine(any, io);
    any.on_host_call([&](Input& in) {
        machine.host_call(in);
        trace("// the host's call");
    });
    any.after_each_step([&] { machine.check_all(); });
    any.run(input);
}

}  // namespace fuzz
