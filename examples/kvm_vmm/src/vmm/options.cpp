// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
#include "vmm/options.hpp"

#include <CLI/CLI.hpp>
#include <charconv>
#include <cstddef>
#include <limits>
#include <string_view>

namespace kvm_vmm {
namespace {

constexpr const char* footer = R"(
While the guest runs: Ctrl-A x ends it, Ctrl-A Ctrl-A sends Ctrl-A, Ctrl-A h lists the other commands.

Exit codes:
    0  the guest powered off, or was ended with Ctrl-A x
    1  an error at run time
    2  wrong usage
    3  a file that cannot be used
    4  /dev/kvm cannot be used
   10  the guest rebooted
   11  the guest panicked
   12  triple fault
   13  all CPUs of the guest are halted for good
   14  KVM could not go on with the guest
  128+ the number of the signal that ended this program

Example:
  kvm_vmm --kernel vmlinuz --initrd initrd.img --cmdline 'console=ttyS0 quiet' --memory 1G
)";

/// Turns the message of a failed check into CLI11's form.
std::string check_memory(const std::string& text) {
    const auto size = parse_size(text);
    if (!size) {
        return "'" + text + "' is not a size such as 512M or 2G";
    }
    if (*size < (1ULL << 20U) || *size > (1ULL << 40U)) {
        return "'" + text + "' is not between 1M and 1T";
    }
    if (*size % 4096 != 0) {
        return "'" + text + "' is not a multiple of 4 KiB";
    }
    return {};
}

std::string check_serial(const std::string& text) {
    const auto config = parse_serial(text);
    return config ? std::string{} : config.error();
}

BootProtocol parse_protocol(const std::string& text) {
    if (text == "linux") {
        return BootProtocol::linux_boot;
    }
    return text == "pvh" ? BootProtocol::pvh : BootProtocol::automatic;
}

std::string check_debug_console(const std::string& text) {
    const auto config = parse_serial(text);
    if (!config || config->kind == SerialConfig::Kind::pty ||
        config->kind == SerialConfig::Kind::unix_socket) {
        return "'" + text + "' is not one of stdio, file=PATH, null";
    }
    return {};
}

vmsuperio::I8042Profile parse_profile(const std::string& text) {
    if (text == "minimal") {
        return vmsuperio::I8042Profile::minimal;
    }
    return text == "absent" ? vmsuperio::I8042Profile::absent : vmsuperio::I8042Profile::full;
}

// CLI11 puts each reason on one line; anything that came in from the user might not.
std::string one_line(std::string text) {
    for (char& c : text) {
        if (static_cast<unsigned char>(c) < ' ') {
            c = ' ';
        }
    }
    return text;
}

}  // namespace

std::optional<std::uint64_t> parse_size(const std::string& text) {
    std::uint64_t number = 0;
    const char* const end = text.data() + text.size();
    const auto [rest, error] = std::from_chars(text.data(), end, number);
    if (error != std::errc{} || rest == text.data()) {
        return std::nullopt;
    }
    std::string_view unit(rest, static_cast<std::size_t>(end - rest));
    unsigned shift = 20;
    if (!unit.empty()) {
        constexpr std::string_view units = "KMGT";
        const char letter = unit.front() >= 'a' ? static_cast<char>(unit.front() - 'a' + 'A') : unit.front();
        const std::size_t power = units.find(letter);
        unit.remove_prefix(1);
        if (power == std::string_view::npos || !(unit.empty() || unit == "B" || unit == "iB")) {
            return std::nullopt;
        }
        shift = 10U * (static_cast<unsigned>(power) + 1U);
    }
    if (number > (static_cast<std::uint64_t>(std::numeric_limits<std::int64_t>::max()) >> shift)) {
        return std::nullopt;
    }
    return number << shift;
}

std::expected<SerialConfig, std::string> parse_serial(const std::string& text) {
    constexpr std::string_view file = "file=";
    if (text == "stdio") {
        return SerialConfig{SerialConfig::Kind::stdio, {}};
    }
    if (text == "null") {
        return SerialConfig{SerialConfig::Kind::null, {}};
    }
    if (text.starts_with(file) && text.size() > file.size()) {
        return SerialConfig{SerialConfig::Kind::file, text.substr(file.size())};
    }
    constexpr std::string_view unix_socket = "unix=";
    if (text.starts_with(unix_socket) && text.size() > unix_socket.size()) {
        return SerialConfig{SerialConfig::Kind::unix_socket, text.substr(unix_socket.size())};
    }
    if (text == "pty") {
        return SerialConfig{SerialConfig::Kind::pty, {}};
    }
    return std::unexpected("'" + text + "' is not one of stdio, pty, file=PATH, unix=PATH, null");
}

std::variant<VmmConfig, PrintAndExit> parse_options(int argc, const char* const* argv) {
    VmmConfig config;
    std::string memory = "512M";
    std::string initrd;
    std::vector<std::string> serials{"stdio"};

    CLI::App app{"Boots a Linux kernel in a KVM virtual machine.", "kvm_vmm"};
    app.footer(footer);
    app.set_version_flag("--version", "kvm_vmm 0.1.0");
    app.add_option("--kernel", config.kernel, "Kernel image")->required()->type_name("IMAGE");
    app.add_option("--initrd", initrd, "Initial RAM disk")->type_name("FILE");
    app.add_option("--cmdline", config.cmdline, "Kernel command line")
        ->type_name("STRING")
        ->capture_default_str();
    app.add_option("--memory", memory, "Guest RAM, with unit K, M, G or T; MiB without")
        ->type_name("SIZE")
        ->check(check_memory)
        ->capture_default_str();
    app.add_option("--cpus", config.cpus, "Number of CPUs, 1 to " + std::to_string(max_cpus))
        ->type_name("N")
        ->check(CLI::Range(1U, max_cpus))
        ->capture_default_str();
    app.add_option(
           "--serial", serials,
           "What a serial port is connected to: stdio, pty (its name is told on stderr), file=PATH (output "
           "only), unix=PATH (a socket that listens there) or null. The first is COM1; up to four may be "
           "given")
        ->type_name("TARGET")
        ->check(check_serial)
        ->take_all()
        ->expected(1)
        ->capture_default_str();
    std::string overflow = "wait";
    app.add_option("--serial-overflow", overflow,
                   "When 1 MiB waits for a serial port's reader: wait (the guest's driver waits, nothing is "
                   "lost) or drop")
        ->type_name("POLICY")
        ->check(CLI::IsMember({"wait", "drop"}))
        ->capture_default_str();
    std::string protocol = "auto";
    app.add_option(
           "--boot-protocol", protocol,
           "How an ELF kernel is entered: linux (64-bit boot protocol), pvh, or auto (pvh where the kernel "
           "offers it)")
        ->type_name("PROTOCOL")
        ->check(CLI::IsMember({"auto", "linux", "pvh"}))
        ->capture_default_str();
    std::string on_reboot = "exit";
    app.add_option("--on-reboot", on_reboot, "When the guest reboots: exit (with 10) or restart it in place")
        ->type_name("ACTION")
        ->check(CLI::IsMember({"exit", "restart"}))
        ->capture_default_str();
    std::string i8042 = "full";
    app.add_option(
           "--i8042", i8042,
           "Keyboard controller: full (with keyboard and mouse), minimal (reset command only) or absent")
        ->type_name("PROFILE")
        ->check(CLI::IsMember({"full", "minimal", "absent"}))
        ->capture_default_str();
    std::string debug_console;
    app.add_option("--debug-console", debug_console,
                   "What the debug ports 0xE9 and 0x402 write to: stdio, null or file=PATH")
        ->type_name("TARGET")
        ->check(check_debug_console);
    app.add_flag("--exit-port", config.exit_port,
                 "Port 0x501 ends this program with the byte written as its exit code");
    std::string log_level;
    app.add_option("--log", config.observe.log, "Append log messages to this file instead of stderr")
        ->type_name("FILE");
    app.add_option(
           "--log-level", log_level,
           "How much to log: error, warning, info or debug (default: info in a file, warning on stderr)")
        ->type_name("LEVEL")
        ->check(CLI::IsMember({"error", "warning", "info", "debug"}));
    app.add_option("--metrics", config.observe.metrics,
                   "Write counters as JSON here, in the end and on SIGUSR1")
        ->type_name("FILE");
    app.add_option("--trace-io", config.observe.trace_io,
                   "Write a line for each access of the guest to a device here")
        ->type_name("FILE");
    try {
        app.parse(argc, argv);
    } catch (const CLI::CallForHelp&) {
        return PrintAndExit{app.help()};
    } catch (const CLI::CallForVersion& version) {
        return PrintAndExit{std::string(version.what()) + "\n"};
    } catch (const CLI::ParseError& error) {
        throw VmmError(ExitCode::usage, one_line(error.what()) + " (see kvm_vmm --help)");
    }
    config.memory = *parse_size(memory);
    config.observe.log_level = parse_log_level(log_level);
    if (app.count("--initrd") != 0) {
        config.initrd = initrd;
    }
    if (app.count("--debug-console") != 0) {
        config.debug_console = *parse_serial(debug_console);
    }
    config.i8042 = parse_profile(i8042);
    config.protocol = parse_protocol(protocol);
    config.restart_on_reboot = on_reboot == "restart";
    if (overflow == "drop") {
        config.serial_overflow = vmsuperio::TransmitPolicy::drop_and_count;
    }
    if (serials.size() > max_serials) {
        throw VmmError(ExitCode::usage, "--serial: more than 4 ports (see kvm_vmm --help)");
    }
    config.serials.clear();
    std::size_t stdio_ports = 0;
    for (const std::string& serial : serials) {
        config.serials.push_back(*parse_serial(serial));
        if (config.serials.back().kind == SerialConfig::Kind::stdio) {
            ++stdio_ports;
        }
    }
    if (stdio_ports > 1) {
        throw VmmError(ExitCode::usage, "--serial: only one port can be stdio (see kvm_vmm --help)");
    }
    return config;
}

}  // namespace kvm_vmm
