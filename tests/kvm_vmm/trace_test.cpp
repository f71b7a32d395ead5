// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
#include <fcntl.h>
#include <regex>
#include <sstream>
#include <sys/stat.h>
#include <thread>
#include <unistd.h>

#include <vmdevice/io_manager.hpp>
#include <vmdevice/port_view.hpp>
#include <vmdevice/share.hpp>
#include <vmsuperio/vmsuperio.hpp>

#include "devices/register_names.hpp"
#include "machines.hpp"
#include "observe/io_trace.hpp"
#include "observe/observer.hpp"
#include "program.hpp"

using namespace kvm_vmm;
using kvm_vmm::test::at_memory;
using kvm_vmm::test::at_ports;
using kvm_vmm::test::line_count;
using kvm_vmm::test::placed;
using kvm_vmm::test::ScratchDirectory;
using kvm_vmm::test::slurp;

namespace {

OutputFile trace_file(const std::string& path) {
    return {"trace file", path, OutputFile::Content::discarded};
}

using Bytes = std::vector<std::uint8_t>;

/// Devices with names, and the register names of a guest's accesses to them.
class Namer {
public:
    Namer() {
        put("COM1", 0x3F8, 8, vmdevice::share(Uart(vmsuperio::NullTrigger(), vmsuperio::NullWriter())));
        put("COM2", 0x2F8, 8, vmdevice::share(Uart(vmsuperio::NullTrigger(), vmsuperio::NullWriter())));
        const auto keyboard = vmdevice::share(vmsuperio::I8042(vmsuperio::NullTrigger()));
        const auto view = std::make_shared<vmdevice::PortView>(vmdevice::PioAddress{0x60}, keyboard);
        put("i8042", {at_ports(0x60, 1), at_ports(0x64, 1)}, view);
        devices.add("i8042").register_name = register_namer(keyboard);
        put("CMOS", 0x70, 4, vmdevice::share(vmsuperio::RtcCmos<>()));
        put("PM1a", 0x600, 12, vmdevice::share(vmsuperio::AcpiPm(vmsuperio::NullTrigger(), Events())));
        put("reset_control", 0xCF9, 1, vmdevice::share(vmsuperio::ResetControl(vmsuperio::NullTrigger())));
        put("system_control", 0x92, 1,
            vmdevice::share(vmsuperio::SystemControlPortA(vmsuperio::NullTrigger())));
        put("pvpanic", 0x505, 1, vmdevice::share(vmsuperio::Pvpanic()));
        put("post_code", 0x80, 1, vmdevice::share(vmsuperio::DebugPort()));
        devices.add("disk");
        placed_.push_back(placed("disk", {at_memory(0xD000'0000, 0x1000)}));
        devices.place(placed_);
    }
    std::string write(std::uint16_t port, const Bytes& data = {0}, std::size_t width = 1) {
        Bytes written = data;
        (void)io.pio_exit(vmdevice::IoDirection::out, vmdevice::PioAddress{port}, width, data.size() / width,
                          written);
        return devices.register_name({IoAccess::Bus::pio, true, 0, port, width, data});
    }
    std::string read(std::uint16_t port, std::size_t width = 1) {
        Bytes data(width);
        (void)io.pio_exit(vmdevice::IoDirection::in, vmdevice::PioAddress{port}, width, 1, data);
        return devices.register_name({IoAccess::Bus::pio, false, 0, port, width, data});
    }

    vmdevice::IoManager io;
    DeviceDirectory devices;

private:
    using Uart = vmsuperio::Serial<vmsuperio::NullTrigger>;
    struct Events {
        static void power_off() {}
    };

    template <class Device>
    void put(const char* name, std::uint16_t port, std::uint16_t size,
             const std::shared_ptr<Device>& device) {
        put(name, {at_ports(port, size)}, device);
    }
    template <class Device>
    void put(const char* name, std::initializer_list<vmdevice::Resource> ranges,
             const std::shared_ptr<Device>& device) {
        for (const vmdevice::Resource& range : ranges) {
            REQUIRE(io.register_pio(std::get<vmdevice::PioResource>(range).range, device).has_value());
        }
        ObservedDevice& observed = devices.add(name);
        if constexpr (requires { device->lock(); }) {
            observed.register_name = register_namer(device);
        }
        placed_.push_back(placed(name, ranges));
    }

    std::vector<vmdevice::DeviceInfo> placed_;
};

std::vector<std::string> lines_of(const std::filesystem::path& path) {
    std::istringstream text(slurp(path));
    std::vector<std::string> lines;
    for (std::string line; std::getline(text, line);) {
        lines.push_back(line);
    }
    return lines;
}

}  // namespace

TEST_CASE("Register names: the names of a UART's registers depend on the direction", "[trace]") {
    Namer namer;
    CHECK(namer.read(0x3F8) == "COM1.RBR");
    CHECK(namer.write(0x3F8) == "COM1.THR");
    CHECK(namer.write(0x3F9) == "COM1.IER");
    CHECK(namer.read(0x3FA) == "COM1.IIR");
    CHECK(namer.write(0x3FA) == "COM1.FCR");
    CHECK(namer.read(0x3FB) == "COM1.LCR");
    CHECK(namer.write(0x3FC) == "COM1.MCR");
    CHECK(namer.read(0x3FD) == "COM1.LSR");
    CHECK(namer.read(0x3FE) == "COM1.MSR");
    CHECK(namer.read(0x2FF) == "COM2.SCR");
}

TEST_CASE("Register names: while DLAB is set, the divisor is named, only in that UART, until it is reset",
          "[trace]") {
    Namer namer;
    namer.write(0x3FB, {0x83});
    CHECK(namer.write(0x3F8) == "COM1.DLL");
    CHECK(namer.read(0x3F9) == "COM1.DLM");
    CHECK(namer.read(0x3FA) == "COM1.IIR");
    CHECK(namer.write(0x2F8) == "COM2.THR");
    namer.write(0x3FB, {0x03});
    CHECK(namer.write(0x3F8) == "COM1.THR");
    // LCR (at +3) is a part of a wide write that begins at IIR/FCR (+2).
    CHECK(namer.write(0x3FA, {0x07, 0x80}, 2) == "COM1.FCR");
    CHECK(namer.write(0x3F8) == "COM1.DLL");
    // String output stays at its port: the last value counts.
    namer.write(0x3FB, {0x80, 0x03});
    CHECK(namer.write(0x3F8) == "COM1.THR");
}

TEST_CASE("Register names: keyboard controller, clock, power management and others", "[trace]") {
    Namer namer;
    CHECK(namer.read(0x64) == "i8042.status");
    CHECK(namer.write(0x64) == "i8042.command");
    CHECK(namer.read(0x60) == "i8042.data");
    CHECK(namer.write(0x70, {0x8A}) == "CMOS.index");
    CHECK(namer.write(0x72, {0x10}) == "CMOS.index2");
    CHECK(namer.write(0x73, {0x10}) == "CMOS.data2");
    CHECK(namer.read(0x71) == "CMOS.data[0x0a:A]");
    CHECK(namer.write(0x70, {0x40}) == "CMOS.index");
    CHECK(namer.write(0x71) == "CMOS.data[0x40]");  // plain memory
    CHECK(namer.read(0x600, 2) == "PM1a.PM1_STS");
    CHECK(namer.write(0x602, {0, 0}, 2) == "PM1a.PM1_EN");
    CHECK(namer.write(0x604, {0, 0}, 2) == "PM1a.PM1_CNT");
    CHECK(namer.read(0x608, 4) == "PM1a.PM_TMR");
    CHECK(namer.read(0x606) == "PM1a.0x06");
    CHECK(namer.read(0xCF9) == "reset_control.RST_CNT");
    CHECK(namer.write(0x92) == "system_control.PORT92");
    CHECK(namer.write(0x505) == "pvpanic.events");
    CHECK(namer.write(0x80) == "post_code.0x00");
    const Bytes data(4);
    CHECK(namer.devices.register_name({IoAccess::Bus::mmio, false, 0, 0xD000'0070, 4, data}) == "disk.0x70");
    CHECK(namer.read(0x61) == "-");
    CHECK(namer.read(0x3FF, 2) == "-");
}

TEST_CASE("Register names: a removed device has none", "[trace]") {
    DeviceDirectory devices;
    auto uart = vmdevice::share(vmsuperio::Serial(vmsuperio::NullTrigger(), vmsuperio::NullWriter()));
    devices.add("COM1").register_name = register_namer(uart);
    devices.place(std::array{placed("COM1", {at_ports(0x3F8, 8)})});
    const Bytes data(1);
    const IoAccess access{IoAccess::Bus::pio, false, 0, 0x3FD, 1, data};
    CHECK(devices.register_name(access) == "COM1.LSR");
    uart.reset();
    CHECK(devices.register_name(access) == "COM1.0x05");
}

TEST_CASE("Trace: a line contains time, CPU, bus, direction, address, width, values and register",
          "[trace]") {
    const ScratchDirectory directory;
    const Namer namer;
    {
        IoTrace trace(trace_file((directory / "trace").string()), namer.devices,
                      std::chrono::steady_clock::now());
        trace.record({IoAccess::Bus::pio, true, 0, 0x3F8, 1, Bytes{0x41}});
        trace.record({IoAccess::Bus::pio, false, 3, 0xCF8, 4, Bytes{0x78, 0x56, 0x34, 0x12}});
        trace.record({IoAccess::Bus::pio, true, 1, 0x3F8, 1, Bytes{0x68, 0x69, 0x0A}});
        trace.record({IoAccess::Bus::pio, false, 1, 0x1F0, 2, Bytes{1, 2, 3, 4}});
        trace.record({IoAccess::Bus::mmio, true, 2, 0xD000'0050, 8, Bytes{1, 0, 0, 0, 0, 0, 0, 0x80}});
    }
    const std::vector<std::string> lines = lines_of(directory / "trace");
    REQUIRE(lines.size() == 6);
    CHECK(lines[0] == "# seconds cpu bus direction address width value register");
    const std::vector<std::string> expected{
        "0 pio w 0x03f8 1 0x41 COM1.THR",
        "3 pio r 0x0cf8 4 0x12345678 -",
        "1 pio w 0x03f8 1 0x68,0x69,0x0a COM1.THR",
        "1 pio r 0x01f0 2 0x0201,0x0403 -",
        "2 mmio w 0xd0000050 8 0x8000000000000001 disk.0x50",
    };
    for (std::size_t i = 0; i < expected.size(); ++i) {
        std::smatch match;
        REQUIRE(std::regex_match(lines[i + 1], match, std::regex(R"(\d+\.\d{6} (.*))")));
        CHECK(match[1] == expected[i]);
    }
}

TEST_CASE("Trace: lines of several CPUs are intact, complete in number, and in chronological order",
          "[trace]") {
    const ScratchDirectory directory;
    const Namer namer;
    constexpr unsigned accesses = 5000;  // fills several buffers
    {
        IoTrace trace(trace_file((directory / "trace").string()), namer.devices,
                      std::chrono::steady_clock::now());
        std::vector<std::jthread> threads;
        for (unsigned cpu = 0; cpu < 4; ++cpu) {
            threads.emplace_back([&trace, cpu] {
                for (unsigned i = 0; i < accesses; ++i) {
                    trace.record({IoAccess::Bus::pio, false, cpu, 0x3FD, 1, Bytes{0x60}});
                }
            });
        }
    }
    const std::vector<std::string> lines = lines_of(directory / "trace");
    REQUIRE(lines.size() == 1 + 4 * accesses);
    double last = 0;
    std::size_t good = 0;
    for (std::size_t i = 1; i < lines.size(); ++i) {
        const double time = std::stod(lines[i]);
        good += time >= last && lines[i].ends_with(" pio r 0x03fd 1 0x60 COM1.LSR") ? 1U : 0U;
        last = time;
    }
    CHECK(good == 4 * accesses);
}

TEST_CASE("Trace: a file that cannot be written is an error that names it", "[trace]") {
    const ScratchDirectory directory;
    const Namer namer;
    const std::string fifo = (directory / "fifo").string();
    REQUIRE(::mkfifo(fifo.c_str(), 0600) == 0);  // without a reader
    for (const std::string& path :
         {(directory / "no/such").string(), std::string("/dev/full"), (directory / ".").string(), fifo}) {
        INFO(path);
        try {
            const IoTrace trace(trace_file(path), namer.devices, std::chrono::steady_clock::now());
            FAIL("no error");
        } catch (const VmmError& error) {
            CHECK(error.code() == ExitCode::bad_file);
            CHECK_THAT(error.what(), Catch::Matchers::Contains(path));
        }
    }
}

TEST_CASE("Trace: a reader that goes away ends the trace with one log line", "[trace]") {
    const ScratchDirectory directory;
    const Namer namer;
    const std::string fifo = (directory / "fifo").string();
    const std::string log_file = (directory / "log").string();
    REQUIRE(::mkfifo(fifo.c_str(), 0600) == 0);
    open_log(log_file, std::nullopt);
    std::signal(SIGPIPE, SIG_IGN);
    vmsuperio::UniqueFd reader(::open(fifo.c_str(), O_RDONLY | O_NONBLOCK));
    IoTrace trace(trace_file(fifo), namer.devices, std::chrono::steady_clock::now());
    trace.record({IoAccess::Bus::pio, true, 0, 0x3F8, 1, Bytes{0x41}});
    trace.flush();
    reader.reset();
    for (int i = 0; i < 3; ++i) {
        trace.record({IoAccess::Bus::pio, true, 0, 0x3F8, 1, Bytes{0x41}});
        trace.flush();
    }
    close_log();
    CHECK(line_count(slurp(log_file)) == 1);
    CHECK_THAT(slurp(log_file),
               Catch::Matchers::Contains("error: the trace ends here") && Catch::Matchers::Contains(fifo));
}
