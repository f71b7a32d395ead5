// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
// --log, --metrics and --trace-io, as a user sees them.
#include <chrono>
#include <nlohmann/json.hpp>
#include <regex>
#include <sys/resource.h>
#include <sys/stat.h>
#include <thread>

#include "program.hpp"

using namespace kvm_vmm::test;
using nlohmann::json;

namespace {

using Code = std::vector<std::uint8_t>;

// Sets LCR to 0x83, the divisor to 1, LCR to 3, writes "hi" as a string, reads port 0x99, and resets.
const Code talk_code{0x66, 0xBA, 0xFB, 0x03, 0xB0, 0x83, 0xEE,  // mov dx, 0x3FB; mov al, 0x83; out dx, al
                     0x66, 0xBA, 0xF8, 0x03, 0xB0, 0x01, 0xEE,  // mov dx, 0x3F8; mov al, 1; out dx, al
                     0x66, 0xBA, 0xFB, 0x03, 0xB0, 0x03, 0xEE,  // mov dx, 0x3FB; mov al, 3; out dx, al
                     0x66, 0xBA, 0xF8, 0x03,                    // mov dx, 0x3F8
                     0x48, 0x8D, 0x35, 0x0E, 0x00, 0x00, 0x00,  // lea rsi, [rip + 14]
                     0xB9, 0x02, 0x00, 0x00, 0x00, 0xFC, 0xF3, 0x6E,  // mov ecx, 2; cld; rep outsb
                     0xE4, 0x99, 0xB0, 0xFE, 0xE6,  // in al, 0x99; mov al, 0xFE; out 0x64, al
                     0x64, 'h',  'i'};

// Reads LSR in an endless loop.
const Code poll_code{0x66, 0xBA, 0xFD, 0x03, 0xEC, 0xEB, 0xFD};

std::vector<std::string> with_kernel(const fs::path& kernel, const std::vector<std::string>& more) {
    std::vector<std::string> arguments{"--kernel", kernel.string(), "--memory", "64M"};
    arguments.insert(arguments.end(), more.begin(), more.end());
    return arguments;
}

json wait_for_metrics(const fs::path& path, const std::function<bool(const json&)>& wanted) {
    for (int i = 0; i < 2000; ++i) {
        const std::string text = slurp(path);
        if (!text.empty()) {
            json metrics = json::parse(text);  // the file is always complete
            if (wanted(metrics)) {
                return metrics;
            }
        }
        ::usleep(10'000);
    }
    return {};
}

}  // namespace

TEST_CASE("kvm_vmm: --metrics writes what the guest did and how it ended", "[program]") {
    REQUIRE_KVM();
    const ScratchDirectory directory;
    const fs::path kernel = directory.write("kernel", make_bzimage(talk_code));
    const Result result =
        run(directory, with_kernel(kernel, {"--metrics", (directory / "metrics").string()}));
    CHECK(result.exit_code == 10);
    CHECK(result.output == "hi");
    CHECK(result.errors.empty());
    const json metrics = json::parse(slurp(directory / "metrics"));
    CHECK(metrics["exit_code"] == 10);
    CHECK(metrics["run_time_seconds"] > 0.0);
    CHECK(metrics["vms_started"] == 1);
    CHECK(metrics["serial"]["COM1"]["bytes_out"] == 2);
    CHECK(metrics["serial"]["COM1"]["bytes_in"] == 0);
    CHECK(metrics["serial"]["COM1"]["bytes_lost"] == 0);
    CHECK(metrics["ports"]["0x03f8"]["writes"] == 3);
    CHECK(metrics["ports"]["0x03fb"]["writes"] == 2);
    CHECK(metrics["ports"]["0x0064"]["device"] == "i8042");
    CHECK(metrics["ports"]["0x0099"]["unclaimed"] == 1);
    CHECK(metrics["devices"]["COM1"]["port_writes"] == 5);
    CHECK(metrics["devices"]["COM1"]["port_reads"] == 0);
    CHECK(metrics["exits"]["port_read"] == 1);
    CHECK(metrics["exits"]["shutdown"] == 0);
    // KVM may exit once or twice for the string. It may coalesce the writes to offset 0 of COM1.
    const auto coalesced = metrics["coalesced_writes"].get<int>();
    const auto writes = metrics["exits"]["port_write"].get<int>() + coalesced;
    CHECK((coalesced == 0 || coalesced == 3));
    CHECK((writes == 5 || writes == 6));
}

TEST_CASE("kvm_vmm: SIGUSR1 writes the metrics of the running VM, which continues", "[program]") {
    REQUIRE_KVM();
    const ScratchDirectory directory;
    const fs::path kernel = directory.write("kernel", make_bzimage(poll_code));
    const fs::path file = directory / "metrics";
    Terminal terminal(with_kernel(kernel, {"--metrics", file.string()}));
    terminal.wait_until_raw();
    const json first = wait_for_metrics(file, [&](const json& now) {
        terminal.send(SIGUSR1);
        return now["ports"].contains("0x03fd");  // counted after the exit
    });
    REQUIRE(first.is_object());
    CHECK(first["exit_code"].is_null());
    const auto before = first["ports"]["0x03fd"]["reads"].get<std::uint64_t>();
    const json second = wait_for_metrics(file, [&](const json& now) {
        terminal.send(SIGUSR1);
        return now["ports"]["0x03fd"]["reads"] > before;
    });
    REQUIRE(second.is_object());
    CHECK_FALSE(terminal.ended());
    terminal.type("\x01x");
    CHECK(terminal.wait() == 0);
    CHECK(json::parse(slurp(file))["exit_code"] == 0);
}

TEST_CASE("kvm_vmm: SIGUSR1 without --metrics does nothing", "[program]") {
    REQUIRE_KVM();
    const ScratchDirectory directory;
    const fs::path kernel = directory.write("kernel", make_bzimage(spin_code));
    Terminal terminal(with_kernel(kernel, {}));
    terminal.wait_until_raw();
    terminal.send(SIGUSR1);
    terminal.type("\x01x");
    CHECK(terminal.wait() == 0);
}

TEST_CASE("kvm_vmm: SIGUSR2 makes disks look at the sizes of their files again", "[program]") {
    REQUIRE_KVM();
    const ScratchDirectory directory;
    const fs::path kernel = directory.write("kernel", make_bzimage(spin_code));
    const fs::path file = directory / "metrics";
    const fs::path image = directory.write("disk", std::string(4096, 'x'));
    const fs::path log = directory / "log";
    Terminal terminal(
        with_kernel(kernel, {"--metrics", file.string(), "--disk", image.string(), "--log", log.string()}));
    terminal.wait_until_raw();
    terminal.send(SIGUSR2);  // nothing is new
    fs::resize_file(image, 1U << 20U);
    const json::json_pointer counter("/virtio/disk0/resizes");  // not there before the VM is
    const auto resizes = [&](const json& now) { return now.value(counter, 0); };
    const json grown = wait_for_metrics(file, [&](const json& now) {
        terminal.send(SIGUSR2);
        terminal.send(SIGUSR1);
        return resizes(now) == 1;
    });
    REQUIRE(grown.is_object());
    fs::resize_file(image, 1000);
    terminal.send(SIGUSR2);
    const std::string refusal =
        "disk '" + image.string() +
        "': its new size, 1000 bytes, is not a multiple of 512; the guest's disk keeps 1048576 bytes";
    const auto give_up = std::chrono::steady_clock::now() + std::chrono::seconds(20);
    while (slurp(log).find(refusal) == std::string::npos && std::chrono::steady_clock::now() < give_up) {
        std::this_thread::sleep_for(std::chrono::milliseconds(10));
    }
    CHECK_THAT(slurp(log), Catch::Matchers::Contains(refusal));
    fs::resize_file(image, 512);
    const json shrunk = wait_for_metrics(file, [&](const json& now) {
        terminal.send(SIGUSR2);
        terminal.send(SIGUSR1);
        return resizes(now) == 2;
    });
    REQUIRE(shrunk.is_object());
    CHECK_FALSE(terminal.ended());
    terminal.type("\x01x");
    CHECK(terminal.wait() == 0);
}

TEST_CASE("kvm_vmm: SIGUSR2 without disks does nothing", "[program]") {
    REQUIRE_KVM();
    const ScratchDirectory directory;
    const fs::path kernel = directory.write("kernel", make_bzimage(spin_code));
    Terminal terminal(with_kernel(kernel, {}));
    terminal.wait_until_raw();
    terminal.send(SIGUSR2);
    terminal.type("\x01x");
    CHECK(terminal.wait() == 0);
}

TEST_CASE("kvm_vmm: metrics continue to count if the guest is restarted", "[program]") {
    REQUIRE_KVM();
    const ScratchDirectory directory;
    const fs::path kernel = directory.write("kernel", make_bzimage(reset_code));
    const fs::path file = directory / "metrics";
    Terminal terminal(with_kernel(kernel, {"--metrics", file.string(), "--on-reboot", "restart"}));
    terminal.wait_until_raw();
    for (int i = 0; i < 2000 && terminal.output().size() < 3; ++i) {
        ::usleep(10'000);
    }
    terminal.type("\x01x");
    CHECK(terminal.wait() == 0);
    const json metrics = json::parse(slurp(file));
    const auto started = metrics["vms_started"].get<int>();
    const auto written = metrics["serial"]["COM1"]["bytes_out"].get<int>();
    CHECK(written >= 3);
    CHECK((written == started || written == started - 1));
}

TEST_CASE("kvm_vmm: --metrics also describes a VM that could not be created", "[program]") {
    REQUIRE_KVM();
    const ScratchDirectory directory;
    const Result result = run(directory, {"--kernel", (directory / "missing").string(), "--metrics",
                                          (directory / "metrics").string()});
    CHECK(result.exit_code == 3);
    CHECK(json::parse(slurp(directory / "metrics"))["exit_code"] == 3);
}

TEST_CASE("kvm_vmm: --trace-io writes every access with its register", "[program]") {
    REQUIRE_KVM();
    const ScratchDirectory directory;
    const fs::path kernel = directory.write("kernel", make_bzimage(talk_code));
    const Result result = run(directory, with_kernel(kernel, {"--trace-io", (directory / "trace").string()}));
    CHECK(result.exit_code == 10);
    CHECK(result.output == "hi");
    CHECK(result.errors.empty());
    // The time differs in each run, and KVM may exit once or twice for the string.
    std::string text =
        std::regex_replace(slurp(directory / "trace"), std::regex(R"((^|\n)\d+\.\d{6} )"), "$1");
    text = std::regex_replace(text, std::regex("0x68 COM1.THR\n0 pio w 0x03f8 1 0x69"), "0x68,0x69");
    CHECK(text ==
          "# seconds cpu bus direction address width value register\n"
          "0 pio w 0x03fb 1 0x83 COM1.LCR\n"
          "0 pio w 0x03f8 1 0x01 COM1.DLL\n"
          "0 pio w 0x03fb 1 0x03 COM1.LCR\n"
          "0 pio w 0x03f8 1 0x68,0x69 COM1.THR\n"
          "0 pio r 0x0099 1 0xff -\n"
          "0 pio w 0x0064 1 0xfe i8042.command\n");
}

TEST_CASE("kvm_vmm: files that cannot be written result in one line and exit code 3, before the guest runs",
          "[program]") {
    REQUIRE_KVM();
    const ScratchDirectory directory;
    const fs::path kernel = directory.write("kernel", make_bzimage(reset_code));
    for (const char* const option : {"--trace-io", "--metrics", "--log"}) {
        for (const std::string& path : {(directory / "no/such").string(), (directory / ".").string()}) {
            INFO(option << ' ' << path);
            const Result result = run(directory, with_kernel(kernel, {option, path}));
            CHECK(result.exit_code == 3);
            CHECK(result.output.empty());
            CHECK(line_count(result.errors) == 1);
            CHECK_THAT(result.errors, Catch::Matchers::Contains(path));
        }
    }
}

TEST_CASE("kvm_vmm: a trace that reaches its size limit ends with one line, and the guest continues",
          "[program]") {
    REQUIRE_KVM();
    const ScratchDirectory directory;
    // Reads LSR 10,000 times, then resets.
    const Code code{0xB9, 0x10, 0x27, 0x00, 0x00, 0x66, 0xBA, 0xFD, 0x03,  // mov ecx, 10000; mov dx, 0x3FD
                    0xEC, 0xFF, 0xC9, 0x75, 0xFB,                          // in al, dx; dec ecx; jnz back
                    0xB0, 0xFE, 0xE6, 0x64, 0xF4};                         // mov al, 0xFE; out 0x64, al; hlt
    const fs::path kernel = directory.write("kernel", make_bzimage(code));
    constexpr std::size_t limit = 100'000;
    const Result result =
        run(directory, with_kernel(kernel, {"--trace-io", (directory / "trace").string()}), "/dev/null", [] {
            const rlimit bytes{limit, limit};
            ::setrlimit(RLIMIT_FSIZE, &bytes);
        });
    CHECK(result.exit_code == 10);
    CHECK(line_count(result.errors) == 1);
    CHECK_THAT(result.errors, Catch::Matchers::Contains("error: the trace ends here"));
    CHECK(fs::file_size(directory / "trace") <= limit);
}

TEST_CASE("kvm_vmm: --log contains the VM's set-up and end and, at level debug, unclaimed accesses",
          "[program]") {
    REQUIRE_KVM();
    const ScratchDirectory directory;
    const fs::path kernel = directory.write("kernel", make_bzimage(talk_code));
    const fs::path file = directory / "log";
    Result result = run(directory, with_kernel(kernel, {"--log", file.string()}));
    CHECK(result.exit_code == 10);
    CHECK(result.errors.empty());
    const std::string info = slurp(file);
    CHECK_THAT(info, Catch::Matchers::Contains("64 MiB") && Catch::Matchers::Contains(kernel.string()) &&
                         Catch::Matchers::Contains("COM1 i8042") &&
                         Catch::Matchers::Contains("ended with exit code 10"));
    CHECK_THAT(info, !Catch::Matchers::Contains("debug"));
    result = run(directory, with_kernel(kernel, {"--log", file.string(), "--log-level", "debug"}));
    CHECK_THAT(slurp(file),
               Catch::Matchers::StartsWith(info) && Catch::Matchers::Contains("no device at port 0x0099"));
    CHECK(run(directory, {"--kernel", "x", "--log-level", "loud"}).exit_code == 2);
}

TEST_CASE("kvm_vmm: an output that nobody reads any more results in one warning, and the guest continues",
          "[program]") {
    REQUIRE_KVM();
    const ScratchDirectory directory;
    const fs::path kernel = directory.write("kernel", make_bzimage(talk_code));
    const Result result = run(directory, with_kernel(kernel, {"--serial", "file=/dev/full", "--metrics",
                                                              (directory / "metrics").string()}));
    CHECK(result.exit_code == 10);
    CHECK(line_count(result.errors) == 1);
    CHECK_THAT(result.errors, Catch::Matchers::StartsWith("kvm_vmm: warning: COM1"));
    const json metrics = json::parse(slurp(directory / "metrics"));
    CHECK(metrics["serial"]["COM1"]["bytes_lost"] == 2);
    CHECK(metrics["devices"]["COM1"]["errors"] >= 1);
}
