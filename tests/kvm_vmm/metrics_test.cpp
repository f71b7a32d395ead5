// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
#include <array>
#include <fcntl.h>
#include <filesystem>
#include <functional>
#include <map>
#include <nlohmann/json.hpp>
#include <sys/stat.h>
#include <thread>
#include <tuple>
#include <unistd.h>
#include <vector>

#include <vmsuperio/linux/unique_fd.hpp>

#include "machines.hpp"
#include "observe/device_errors.hpp"
#include "observe/metrics_file.hpp"
#include "observe/observer.hpp"
#include "program.hpp"

using namespace kvm_vmm;
using kvm_vmm::test::at_memory;
using kvm_vmm::test::at_ports;
using kvm_vmm::test::placed;
using kvm_vmm::test::ScratchDirectory;
using kvm_vmm::test::slurp;
using nlohmann::json;

namespace {

constexpr std::array<std::uint8_t, 8> bytes{1, 2, 3, 4, 5, 6, 7, 8};

IoAccess port(bool write, std::uint16_t address, std::size_t width = 1, std::size_t size = 1) {
    return {IoAccess::Bus::pio, write, 0, address, width, std::span(bytes).first(size)};
}
IoAccess mmio(bool write, std::uint64_t address, std::size_t width) {
    return {IoAccess::Bus::mmio, write, 0, address, width, std::span(bytes).first(width)};
}

OutputFile output(const std::string& path) { return {"file", path, OutputFile::Content::kept}; }

Observer::Outputs log_to(const std::string& path) {
    Observer::Outputs outputs;
    outputs.log.emplace(output(path));
    outputs.log->keep();
    return outputs;
}

void replace_file(const std::string& path, const std::string& content) {
    MetricsFile file(output(path));
    file.write(content);
}

json metrics_of(const Observer& observer) { return json::parse(observer.metrics_json()); }

}  // namespace

TEST_CASE("IoMetrics: each port and direction is counted separately", "[metrics]") {
    IoMetrics metrics;
    metrics.count_port(0x3F8, true, 1, true);
    metrics.count_port(0x3F8, true, 5, true);
    metrics.count_port(0x3F8, false, 1, true);
    metrics.count_port(0x3F9, false, 1, true);
    metrics.count_port(0, true, 1, true);
    metrics.count_port(0xFFFF, false, 2, false);
    CHECK(metrics.port(0x3F8) == AccessCounts{1, 6, 0});
    CHECK(metrics.port(0x3F9) == AccessCounts{1, 0, 0});
    CHECK(metrics.port(0x3FA) == AccessCounts{});
    CHECK(metrics.port(0x8000) == AccessCounts{});
    std::vector<std::tuple<unsigned, std::uint64_t, std::uint64_t, std::uint64_t>> seen;
    metrics.for_each_port([&](std::uint16_t address, const AccessCounts& counts) {
        seen.emplace_back(address, counts.reads, counts.writes, counts.unclaimed);
    });
    CHECK(seen == decltype(seen){{0, 0, 1, 0}, {0x3F8, 1, 6, 0}, {0x3F9, 1, 0, 0}, {0xFFFF, 2, 0, 2}});
}

TEST_CASE("IoMetrics: the first unclaimed access to a port is distinguished from later ones", "[metrics]") {
    IoMetrics metrics;
    CHECK_FALSE(metrics.count_port(0x80, true, 1, true));
    CHECK(metrics.count_port(0x80, true, 1, false));
    CHECK_FALSE(metrics.count_port(0x80, true, 1, false));
    CHECK_FALSE(metrics.count_port(0x80, false, 1, false));
    CHECK(metrics.count_port(0x81, false, 1, false));
}

TEST_CASE("IoMetrics: no access is lost if many CPUs access the same new ports", "[metrics]") {
    IoMetrics metrics;
    constexpr unsigned cpus = 4;
    {
        std::vector<std::jthread> threads;
        for (unsigned cpu = 0; cpu < cpus; ++cpu) {
            threads.emplace_back([&metrics] {
                for (unsigned address = 0; address < 0x10000; ++address) {
                    metrics.count_port(static_cast<std::uint16_t>(address), address % 2 == 0, 1, false);
                    metrics.count_exit(0);
                }
            });
        }
    }
    CHECK(metrics.exits(0) == cpus * 0x10000);
    std::size_t right = 0;
    metrics.for_each_port([&](std::uint16_t address, const AccessCounts& counts) {
        const bool write = address % 2 == 0;
        right += counts == AccessCounts{write ? 0U : cpus, write ? cpus : 0U, cpus} ? 1U : 0U;
    });
    CHECK(right == 0x10000);
}

TEST_CASE("DeviceDirectory: an access belongs to the device that contains all of it", "[metrics]") {
    DeviceDirectory devices;
    const ObservedDevice& uart = devices.add("COM1");
    const ObservedDevice& keyboard = devices.add("i8042");
    CHECK(&devices.add("i8042") == &keyboard);
    const ObservedDevice& disk = devices.add("disk");
    devices.place(std::array{
        placed("COM1", {at_ports(0x3F8, 8)}), placed("i8042", {at_ports(0x64, 1), at_ports(0x60, 1)}),
        placed("8254", {at_ports(0x61, 1)}), placed("disk", {at_memory(0xFFFF'FFFF'FFFF'F000, 0x1000)})});
    CHECK(devices.find_port(0x3F8, 8) == &uart);
    CHECK(devices.find_port(0x3FF, 1) == &uart);
    CHECK(devices.find_port(0x3FF, 2) == nullptr);
    CHECK(devices.find_port(0x3F8, 0) == nullptr);
    CHECK(devices.find_port(0x3F7, 1) == nullptr);
    CHECK(devices.find_port(0x400, 1) == nullptr);
    CHECK(devices.find_port(0x60, 1) == &keyboard);
    CHECK(devices.find_port(0x61, 1) == nullptr);  // registered, but not observed
    CHECK(devices.find_port(0x64, 1) == &keyboard);
    CHECK(keyboard.port_origin == 0x60);
    CHECK(devices.find_mmio(0xFFFF'FFFF'FFFF'FFF8, 8) == &disk);
    CHECK(devices.find_mmio(0xFFFF'FFFF'FFFF'FFF9, 8) == nullptr);
    CHECK(devices.find_mmio(0x60, 1) == nullptr);
    CHECK(devices.devices().size() == 3);
}

TEST_CASE("DeviceDirectory: the devices of a later VM replace those of the one before", "[metrics]") {
    DeviceDirectory devices;
    const ObservedDevice& old = devices.add("old");
    devices.place(std::array{placed("old", {at_ports(0x100, 16)})});
    CHECK(devices.find_port(0x108, 4) == &old);
    CHECK(&devices.add("old") == &old);
    const ObservedDevice& fresh = devices.add("fresh");
    devices.place(std::array{placed("fresh", {at_ports(0x108, 4)})});
    CHECK(devices.find_port(0x108, 4) == &fresh);
    CHECK(devices.find_port(0x100, 1) == nullptr);
}

TEST_CASE("Metrics: string I/O counts as several accesses of one exit", "[metrics]") {
    Observer observer;
    observer.count_exit(1);
    observer.record(port(true, 0x3F8, 1, 8), true);
    observer.record(port(false, 0x1F0, 2, 8), false);
    const json metrics = metrics_of(observer);
    CHECK(metrics["exits"]["port_write"] == 1);
    CHECK(metrics["exits"]["total"] == 1);
    CHECK(metrics["ports"]["0x03f8"]["writes"] == 8);
    CHECK(metrics["ports"]["0x01f0"]["reads"] == 4);
    CHECK(metrics["unclaimed"]["port_accesses"] == 4);
}

TEST_CASE("Metrics: the ports of a device are added up under its name", "[metrics]") {
    Observer observer;
    for (const char* const name : {"COM1", "idle", "disk"}) {
        observer.devices().add(name);
    }
    observer.devices().place(std::array{placed("COM1", {at_ports(0x3F8, 8)}),
                                        placed("idle", {at_ports(0x100, 8)}),
                                        placed("disk", {at_memory(0xD000'0000, 0x1000)})});
    observer.record(port(true, 0x3F8), true);
    observer.record(port(false, 0x3FD), true);
    observer.record(port(false, 0x3FD), true);
    observer.record(port(false, 0x400), false);
    observer.record(mmio(false, 0xD000'0010, 4), true);
    observer.record(mmio(true, 0xD000'0010, 4), true);
    observer.record(mmio(true, 0xD000'0020, 4), true);
    observer.record(mmio(true, 0xE000'0000, 4), false);
    const json metrics = metrics_of(observer);
    CHECK(metrics["devices"]["COM1"]["port_reads"] == 2);
    CHECK(metrics["devices"]["COM1"]["port_writes"] == 1);
    CHECK(metrics["devices"]["COM1"]["mmio_writes"] == 0);
    CHECK(metrics["devices"]["idle"]["port_reads"] == 0);
    CHECK(metrics["devices"]["disk"]["mmio_reads"] == 1);
    CHECK(metrics["devices"]["disk"]["mmio_writes"] == 2);
    CHECK(metrics["ports"]["0x0400"]["device"].is_null());
    CHECK(metrics["ports"]["0x03fd"]["device"] == "COM1");
    CHECK(metrics["unclaimed"]["port_accesses"] == 1);
    CHECK(metrics["unclaimed"]["mmio_reads"] == 0);
    CHECK(metrics["unclaimed"]["mmio_writes"] == 1);
}

TEST_CASE("Metrics: a serial port's counters continue in the next VM", "[metrics]") {
    Observer observer;
    observer.serial("COM1")->out_byte();
    observer.serial("COM2")->overrun();
    observer.vm_starts();
    observer.serial("COM1")->out_byte();
    const json metrics = metrics_of(observer);
    CHECK(metrics["serial"]["COM1"]["bytes_out"] == 2);
    CHECK(metrics["serial"]["COM1"]["overruns"] == 0);
    CHECK(metrics["serial"]["COM2"]["overruns"] == 1);
    CHECK(metrics["vms_started"] == 1);
}

TEST_CASE("Metrics: errors of a device are counted, and the first is logged", "[metrics]") {
    const ScratchDirectory directory;
    const std::string file = (directory / "log").string();
    Observer observer(log_to(file), std::nullopt);
    const DeviceErrorLog errors(observer.devices().add("COM1"));
    const auto error =
        vmsuperio::SerialError<std::error_code>::from_writer(std::make_error_code(std::errc::broken_pipe));
    errors(error);
    errors(error);
    CHECK(metrics_of(observer)["devices"]["COM1"]["errors"] == 2);
    close_log();
    const std::string log = slurp(file);
    CHECK(kvm_vmm::test::line_count(log) == 1);
    CHECK_THAT(log, Catch::Matchers::Contains("warning: COM1: ") &&
                        Catch::Matchers::Contains(": Broken pipe; further errors are only counted") &&
                        !Catch::Matchers::Contains("Broken pipe: Broken pipe"));
}

TEST_CASE("Metrics: the log gives the reason of each kind of error once", "[metrics]") {
    using Serial = vmsuperio::SerialError<std::error_code>;
    const ScratchDirectory directory;
    const std::string file = (directory / "log").string();
    Observer observer(log_to(file), std::nullopt);
    const std::error_code pipe = std::make_error_code(std::errc::broken_pipe);
    DeviceErrorLog(observer.devices().add("a"))(Serial::from_trigger(pipe));
    DeviceErrorLog(observer.devices().add("b"))(pipe);
    DeviceErrorLog(observer.devices().add("c"))(5);
    close_log();
    const std::string log = slurp(file);
    CHECK_THAT(log, Catch::Matchers::Contains("a: the interrupt trigger failed: Broken pipe; further"));
    CHECK_THAT(log, Catch::Matchers::Contains("b: the interrupt trigger failed: Broken pipe; further"));
    CHECK_THAT(log, Catch::Matchers::Contains("c: a write failed; further"));
}

TEST_CASE("Metrics: each unclaimed port is logged once, up to a limit", "[metrics]") {
    const ScratchDirectory directory;
    const std::string file = (directory / "log").string();
    Observer observer(log_to(file), LogLevel::debug);
    for (int i = 0; i < 3; ++i) {
        observer.record(port(false, 0xCF8, 4, 4), false);
        observer.record(mmio(false, 0xE000'0000, 4), false);
    }
    observer.record(port(false, 0x3F8), true);
    CHECK(kvm_vmm::test::line_count(slurp(file)) == 2);
    CHECK_THAT(slurp(file), Catch::Matchers::Contains("port 0x0cf8"));
    for (unsigned address = 0; address < 0x10000; ++address) {
        observer.record(port(true, static_cast<std::uint16_t>(address)), false);
    }
    close_log();
    const std::size_t lines = kvm_vmm::test::line_count(slurp(file));
    CHECK(lines > 100);
    CHECK(lines < 1000);
}

TEST_CASE("Metrics file: it is replaced as a whole, and nothing is left beside it", "[metrics]") {
    const ScratchDirectory directory;
    const std::string file = directory.write("metrics", "old").string();
    const std::string big(1U << 20U, 'x');
    bool torn = false;
    {
        const std::jthread reader([&](const std::stop_token& stop) {
            while (!stop.stop_requested()) {
                const std::string text = slurp(file);
                torn = torn || (text != "old" && text != big);
            }
        });
        for (int i = 0; i < 20; ++i) {
            replace_file(file, big);
            replace_file(file, "old");
        }
    }
    CHECK_FALSE(torn);
    std::size_t files = 0;
    for ([[maybe_unused]] const auto& entry : std::filesystem::directory_iterator(directory / ".")) {
        ++files;
    }
    CHECK(files == 1);
}

TEST_CASE("Metrics file: links stay links, and a path that is not a file is not replaced by one",
          "[metrics]") {
    const ScratchDirectory directory;
    const std::string target = directory.write("target", "old").string();
    const std::string link = (directory / "link").string();
    REQUIRE(::symlink(target.c_str(), link.c_str()) == 0);
    replace_file(link, "new");
    CHECK(std::filesystem::is_symlink(link));
    CHECK(slurp(target) == "new");
    replace_file("/dev/null", "gone");
    CHECK(std::filesystem::is_character_file("/dev/null"));
}

TEST_CASE("Metrics file: only its owner may access a new one; an existing one keeps its permissions",
          "[metrics][files]") {
    const ScratchDirectory directory;
    const auto mode_of = [](const std::string& path) {
        struct stat status{};
        REQUIRE(::stat(path.c_str(), &status) == 0);
        return status.st_mode & 07777U;
    };
    const std::string fresh = (directory / "fresh").string();
    MetricsFile file(output(fresh));
    for (const mode_t mask : {0000U, 0777U}) {
        const mode_t before = ::umask(mask);
        file.write("{}");
        ::umask(before);
        CHECK(mode_of(fresh) == 0600U);
    }
    REQUIRE(::chmod(fresh.c_str(), 0644) == 0);
    file.write("{}");
    CHECK(mode_of(fresh) == 0644U);
    const std::string old = directory.write("old", "old").string();
    REQUIRE(::chmod(old.c_str(), 04750) == 0);
    replace_file(old, "new");
    CHECK(mode_of(old) == 0750U);
    CHECK(slurp(old) == "new");
}

TEST_CASE("Metrics file: other hard links to the file keep the old content", "[metrics][files]") {
    const ScratchDirectory directory;
    const std::string file = directory.write("metrics", "old").string();
    std::filesystem::create_hard_link(file, directory / "other");
    replace_file(file, "new");
    CHECK(slurp(file) == "new");
    CHECK(slurp(directory / "other") == "old");
}

TEST_CASE("Metrics file: anything except a file that has replaced it is left alone", "[metrics][files]") {
    const ScratchDirectory directory;
    const std::string path = (directory / "metrics").string();
    const std::string precious = directory.write("precious", "precious").string();
    MetricsFile file(output(path));
    file.write("first");
    const std::vector<std::function<void()>> intruders{
        [&] { std::filesystem::create_symlink("precious", path); },
        [&] { std::filesystem::create_directory(path); },
        [&] { REQUIRE(::mkfifo(path.c_str(), 0600) == 0); },
    };
    for (const auto& intrude : intruders) {
        std::filesystem::remove(path);
        intrude();
        const auto kind = std::filesystem::symlink_status(path).type();
        CHECK_THROWS_AS(file.write("second"), VmmError);
        CHECK(std::filesystem::symlink_status(path).type() == kind);
    }
    CHECK(slurp(precious) == "precious");
    std::filesystem::remove(path);
    file.write("third");  // after a reader has removed the file
    CHECK(slurp(path) == "third");
    std::size_t files = 0;
    for ([[maybe_unused]] const auto& entry : std::filesystem::directory_iterator(directory / ".")) {
        ++files;
    }
    CHECK(files == 2);
}

TEST_CASE("Metrics file: it stays in the directory where it was opened", "[metrics][files]") {
    const ScratchDirectory directory;
    std::filesystem::create_directory(directory / "a");
    MetricsFile file(output((directory / "a/metrics").string()));
    file.write("first");
    std::filesystem::rename(directory / "a", directory / "b");
    std::filesystem::create_directory(directory / "a");
    directory.write("a/metrics", "precious");
    file.write("second");
    CHECK(slurp(directory / "b/metrics") == "second");
    CHECK(slurp(directory / "a/metrics") == "precious");
}

TEST_CASE("Metrics file: if it could never be written, no empty file is left behind", "[metrics][files]") {
    const ScratchDirectory directory;
    const std::string path = (directory / "metrics").string();
    {
        const MetricsFile file(output(path));
    }
    CHECK_FALSE(std::filesystem::exists(path));
    replace_file(path, "{}");
    CHECK(slurp(path) == "{}");
}

TEST_CASE("Metrics file: a FIFO and a descriptor of this process get one content after the other",
          "[metrics][files]") {
    const ScratchDirectory directory;
    const std::string fifo = (directory / "fifo").string();
    REQUIRE(::mkfifo(fifo.c_str(), 0600) == 0);
    const vmsuperio::UniqueFd reader(::open(fifo.c_str(), O_RDONLY | O_NONBLOCK | O_CLOEXEC));
    MetricsFile file(output(fifo));
    file.write("one");
    file.write("two");
    std::array<char, 16> text{};
    CHECK(::read(reader.get(), text.data(), text.size()) == 6);
    CHECK(std::string(text.data()) == "onetwo");
    const std::string log = directory.write("log", "kept ").string();
    const vmsuperio::UniqueFd fd(::open(log.c_str(), O_WRONLY | O_APPEND | O_CLOEXEC));
    MetricsFile descriptor(output("/dev/fd/" + std::to_string(fd.get())));
    descriptor.write("one");
    descriptor.write("two");
    CHECK(slurp(log) == "kept onetwo");
}

TEST_CASE("Metrics file: one that cannot be written is an error that names it", "[metrics]") {
    const ScratchDirectory directory;
    const std::string file = (directory / "no/such").string();
    for (const std::string& path : {file, std::string("/dev/full"), (directory / ".").string()}) {
        INFO(path);
        try {
            replace_file(path, "x");
            FAIL("no error");
        } catch (const VmmError& error) {
            CHECK(error.code() == ExitCode::bad_file);
            CHECK_THAT(error.what(), Catch::Matchers::Contains(path));
        }
    }
}
