// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
#include "vmm/options.hpp"

#include <CLI/CLI.hpp>
#include <algorithm>
#include <array>
#include <charconv>
#include <cstddef>
#include <functional>
#include <limits>
#include <memory>
#include <span>
#include <sstream>
#include <string_view>
#include <utility>
#include <vector>

#include <vmsuperio/version.hpp>

#include "vmm/balloon_option.hpp"
#include "vmm/disk_option.hpp"
#include "vmm/net_options.hpp"
#include "vmm/option_hints.hpp"
#include "vmm/option_list.hpp"
#include "vmm/serial_option.hpp"
#include "vmm/share_option.hpp"
#include "vmm/usage_error.hpp"
#include "vmm/vsock_option.hpp"
#include "vmm/word_check.hpp"

namespace kvm_vmm {
namespace {

constexpr std::size_t help_width = 100;

constexpr const char* footer =
    R"(While the guest runs: Ctrl-A x ends it, Ctrl-A Ctrl-A sends Ctrl-A, Ctrl-A h lists the others.

Exit codes:
    0  the guest powered off, or was ended with Ctrl-A x
    1  an error at run time
    2  wrong usage
    3  a file that cannot be used
    4  /dev/kvm cannot be used
    5  the sandbox stopped this program
   10  the guest rebooted
   11  the guest panicked
   12  triple fault
   13  all CPUs of the guest are halted for good
   14  KVM could not go on with the guest
  128+ the number of the signal that ended this program

Example:
  kvm_vmm --kernel vmlinuz --initrd initrd.img --cmdline 'console=ttyS0 quiet' --memory 1G
)";

/// One word that an option takes.
template <class Value>
struct Choice {
    std::string_view word;
    Value value;
    // NOLINTNEXTLINE(readability-redundant-member-init): GCC warns of rows that leave it out
    std::string_view meaning{};  ///< for --help, if the word is not self-explanatory
};

constexpr std::array protocols{
    Choice{"auto", BootProtocol::automatic, "pvh if the kernel supports it, otherwise linux"},
    Choice{"linux", BootProtocol::linux_boot, "the 64-bit boot protocol"},
    Choice{"pvh", BootProtocol::pvh},
};
constexpr std::array reboot_actions{
    Choice{"exit", false, "with 10"},
    Choice{"restart", true, "in place"},
};
constexpr std::array on_or_off{
    Choice{"on", true},
    Choice{"off", false},
};
constexpr std::array i8042_profiles{
    Choice{"full", vmsuperio::I8042Profile::full, "with keyboard and mouse"},
    Choice{"minimal", vmsuperio::I8042Profile::minimal, "reset command only"},
    Choice{"absent", vmsuperio::I8042Profile::absent},
};
constexpr std::array overflow_policies{
    Choice{"wait", vmsuperio::TransmitPolicy::back_pressure, "the guest's driver waits, nothing is lost"},
    Choice{"drop", vmsuperio::TransmitPolicy::drop_and_count},
};
constexpr std::array sandbox_modes{
    Choice{"on", sandbox::Mode::on, "all that the kernel offers"},
    Choice{"required", sandbox::Mode::required, "an error if the kernel has no Landlock"},
    Choice{"log", sandbox::Mode::log, "stops no system call, and reports those that it would stop"},
    Choice{"off", sandbox::Mode::off},
};
const std::array log_levels{
    Choice{log_level_name(LogLevel::error), LogLevel::error},
    Choice{log_level_name(LogLevel::warning), LogLevel::warning},
    Choice{log_level_name(LogLevel::info), LogLevel::info},
    Choice{log_level_name(LogLevel::debug), LogLevel::debug},
};

/// "a, b or c".
std::string either(const std::vector<std::string>& items) {
    std::string text;
    for (std::size_t i = 0; i < items.size(); ++i) {
        text += i == 0 ? "" : i + 1 == items.size() ? " or " : ", ";
        text += items[i];
    }
    return text;
}

/// An option that takes one of the words of `choices`, which are listed after `description`.
template <class Value, std::size_t size>
CLI::Option* add_choice(CLI::App& app, const std::string& name,
                        const std::array<Choice<Value>, size>& choices, std::function<void(Value)> set,
                        const std::string& description) {
    std::vector<std::string> listed;
    for (const Choice<Value>& choice : choices) {
        listed.push_back(std::string(choice.word) +
                         (choice.meaning.empty() ? "" : " (" + std::string(choice.meaning) + ")"));
    }
    const auto find = [&choices](const std::string& text) {
        return std::ranges::find(choices, std::string_view(text), &Choice<Value>::word);
    };
    return app
        .add_option_function<std::string>(
            name, [find, set = std::move(set)](const std::string& text) { set(find(text)->value); },
            description + ": " + either(listed))
        ->check([find, &choices](const std::string& text) -> std::string {
            if (find(text) != choices.end()) {
                return {};
            }
            std::vector<std::string_view> words;
            std::vector<std::string> names;
            for (const Choice<Value>& choice : choices) {
                words.push_back(choice.word);
                names.emplace_back(choice.word);
            }
            return quote(text) + " is not one of " + either(names) + suggestion(text, words);
        });
}

/// An option that names a file. (If CLI11 set the std::optional, it would stay empty for an empty name, and
/// the option would be ignored.)
void add_path(CLI::App& app, const std::string& name, std::optional<std::string>& path,
              const std::string& description) {
    app.add_option_function<std::string>(
           name, [&path](const std::string& text) { path = text; }, description)
        ->type_name("FILE");
}

/// Turns the message of a failed check into CLI11's form.
std::string check_memory(const std::string& text) {
    const auto size = parse_size(text);
    if (!size) {
        return quote(text) + " is not a size such as 512M or 2G";
    }
    if (*size < (1ULL << 20U) || *size > (1ULL << 40U)) {
        return quote(text) + " is not between 1M and 1T";
    }
    if (*size % 4096 != 0) {
        return quote(text) + " is not a multiple of 4 KiB";
    }
    return {};
}

std::optional<unsigned> parse_cpus(const std::string& text) { return number_in<unsigned>(text, 1, max_cpus); }

constexpr unsigned max_restart_limit = 1'000'000;

std::optional<unsigned> parse_limit(std::string_view text) {
    return number_in<unsigned>(text, 0, max_restart_limit);
}

std::string check_limit(const std::string& text) {
    return parse_limit(text)
               ? std::string{}
               : quote(text) + " is not a number from 0 to " + std::to_string(max_restart_limit);
}

std::string check_cpus(const std::string& text) {
    return parse_cpus(text) ? std::string{}
                            : quote(text) + " is not a number from 1 to " + std::to_string(max_cpus);
}

/// The check of a value by its parser, whose error is the reason.
template <auto parse>
std::string check(const std::string& text) {
    const auto parsed = parse(text);
    return parsed ? std::string{} : parsed.error();
}

std::string check_debug_console(const std::string& text) {
    const auto config = parse_serial(text);
    if (config &&
        (config->kind == SerialConfig::Kind::pty || config->kind == SerialConfig::Kind::unix_socket)) {
        return quote(text) + " is not one of stdio, file=PATH, null";
    }
    return config ? std::string{} : config.error();
}

/// Breaks descriptions into lines that end at `width` at the latest.
class WrappingFormatter : public CLI::Formatter {
public:
    explicit WrappingFormatter(std::size_t width) : width_(width) {}

    [[nodiscard]] std::string make_option_desc(const CLI::Option* option) const override {
        std::string text;
        std::size_t column = get_column_width();
        std::istringstream words(Formatter::make_option_desc(option));
        for (std::string word; words >> word;) {
            if (!text.empty()) {
                const bool fits = column + 1 + word.size() <= width_;
                text += fits ? ' ' : '\n';
                column = fits ? column + 1 : get_column_width();
            }
            text += word;
            column += word.size();
        }
        return text;
    }

private:
    std::size_t width_;
};

bool has_stdio(const std::vector<SerialConfig>& consoles) {
    return std::ranges::find(consoles, SerialConfig::Kind::stdio, &SerialConfig::kind) != consoles.end();
}

void add_serial(VmmConfig& config, const std::string& text) {
    const SerialConfig serial = *parse_serial(text);
    if (config.serials.size() == max_serials) {
        refuse("--serial: more than " + std::to_string(max_serials) + " ports");
    }
    if (serial.kind == SerialConfig::Kind::stdio && has_stdio(config.serials)) {
        refuse("--serial: only one port can be stdio");
    }
    config.serials.push_back(serial);
}

void add_disk(VmmConfig& config, const std::string& text) {
    if (config.disks.size() == max_disks) {
        refuse("--disk: more than " + std::to_string(max_disks) + " disks");
    }
    virtio::DiskConfig disk = *parse_disk(text);
    if (disk.id.empty()) {
        disk.id = "disk" + std::to_string(config.disks.size());
    }
    if (std::ranges::find(config.disks, disk.id, &virtio::DiskConfig::id) != config.disks.end()) {
        refuse("--disk: two disks have the serial number id=" + quote(disk.id));
    }
    config.disks.push_back(std::move(disk));
}

void add_net(VmmConfig& config, const std::string& text) {
    const virtio::NetConfig net = *parse_net(text);
    const bool own_network = net.kind == virtio::NetConfig::Kind::passt && net.target.empty();
    for (const virtio::NetConfig& other : config.nets) {
        if (!own_network && net.kind == other.kind && net.target == other.target && net.fd == other.fd) {
            refuse("--net: " + quote(net.text) + " is given twice, and serves one interface only");
        }
        if (net.mac && net.mac == other.mac) {
            refuse("--net: two interfaces have the MAC address " + virtio::to_string(*net.mac));
        }
    }
    config.nets.push_back(net);
}

void add_share(VmmConfig& config, const std::string& text) {
    ShareConfig share = *parse_share(text);
    if (share.tag.empty()) {
        share.tag = "share" + std::to_string(config.shares.size());
    }
    if (std::ranges::find(config.shares, share.tag, &ShareConfig::tag) != config.shares.end()) {
        refuse("--share: two directories have the tag " + quote(share.tag));
    }
    config.shares.push_back(std::move(share));
}

void add_console(VmmConfig& config, const std::string& text) {
    const SerialConfig console = *parse_serial(text);
    if (config.consoles.size() == max_consoles) {
        refuse("--console: more than " + std::to_string(max_consoles) + " consoles");
    }
    if (console.kind == SerialConfig::Kind::stdio && has_stdio(config.consoles)) {
        refuse("--console: only one console can be stdio");
    }
    config.consoles.push_back(console);
}

void check_balloon_target(const VmmConfig& config) {
    if (config.balloon && config.balloon->target >= config.memory) {
        refuse("--balloon: the target is not smaller than the guest's RAM (--memory)");
    }
}

/// Refuses options that would have no effect because of another one, which the user might not notice.
void check_effect(const CLI::App& app, const VmmConfig& config) {
    const bool no_sandbox = app.count("--no-sandbox") != 0;
    if (no_sandbox && app.count("--sandbox") != 0) {
        refuse("--no-sandbox and --sandbox are two answers to one question: leave one of them out");
    }
    if (config.sandbox == sandbox::Mode::off) {
        for (const std::string option : {"--user", "--chroot", "--isolate"}) {
            if (app.count(option) != 0) {
                refuse(option + " is a part of the sandbox, which is off (" +
                       (no_sandbox ? "--no-sandbox" : "--sandbox off") + ")");
            }
        }
    }
    if (config.restart_limit && !config.restart_on_reboot) {
        refuse("--restart-limit has no effect without --on-reboot restart");
    }
}

// The serial ports that there are by default. If the user wants a virtio console on this terminal, it has the
// input; but Linux has messages before it loads the driver of that console.
void complete_serials(VmmConfig& config) {
    using enum SerialConfig::Kind;
    if (config.serials.empty()) {
        config.serials.push_back({.kind = has_stdio(config.consoles) ? stdout_only : stdio, .path = {}});
    } else if (has_stdio(config.serials) && has_stdio(config.consoles)) {
        refuse("--serial stdio and --console stdio: only one of them can be stdio");
    }
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

std::variant<VmmConfig, PrintAndExit> parse_options(int argc, const char* const* argv) {
    VmmConfig config;
    config.serials.clear();

    CLI::App app{"Boots a Linux kernel in a KVM virtual machine.", "kvm_vmm"};
    app.formatter(std::make_shared<WrappingFormatter>(help_width));
    app.footer(footer);
    app.set_version_flag("--version", "kvm_vmm " VMSUPERIO_VERSION_STRING);
    app.add_option("--kernel", config.kernel, "Kernel image; required")->type_name("IMAGE");
    add_path(app, "--initrd", config.initrd, "Initial RAM disk");
    app.add_option(
           "--cmdline", config.cmdline,
           "Kernel command line. pci=off is added unless it has a parameter pci=VALUE: there is no PCI")
        ->type_name("STRING")
        ->capture_default_str();
    app.add_option_function<std::string>(
           "--memory", [&](const std::string& text) { config.memory = *parse_size(text); },
           "Guest RAM, with unit K, M, G or T; MiB without")
        ->type_name("SIZE")
        ->check(check_memory)
        ->default_str("512M");
    app.add_option_function<std::string>(
           "--cpus", [&](const std::string& text) { config.cpus = *parse_cpus(text); },
           "Number of CPUs, 1 to " + std::to_string(max_cpus))
        ->type_name("N")
        ->check(check_cpus)
        ->default_str("1");
    app.add_option_function<std::string>(
           "--serial", [&](const std::string& text) { add_serial(config, text); },
           "What a serial port is connected to: stdio, pty (its name is reported on stderr), file=PATH "
           "(output only), unix=PATH (a socket that listens there) or null. The first is COM1; up to four "
           "may be given")
        ->type_name("TARGET")
        ->check(check<parse_serial>)
        ->default_str("stdio");
    app.add_option_function<std::string>(
           "--disk", [&](const std::string& text) { add_disk(config, text); }, disk_help)
        ->type_name("PATH[,...]")
        ->check(check<parse_disk>);
    add_choice<vmsuperio::TransmitPolicy>(
        app, "--serial-overflow", overflow_policies,
        [&](vmsuperio::TransmitPolicy policy) { config.serial_overflow = policy; },
        "When 1 MiB waits for a serial port's reader")
        ->type_name("POLICY")
        ->default_str("wait");
    app.add_option_function<std::string>(
           "--console", [&](const std::string& text) { add_console(config, text); },
           "What a virtio console is connected to, as for --serial. The first is hvc0; up to four may be "
           "given. If it is stdio and there is no --serial, COM1 also writes to stdout, without input")
        ->type_name("TARGET")
        ->check(check<parse_serial>);
    add_choice<bool>(
        app, "--coalesce", on_or_off, [&](bool on) { config.coalesce = on; },
        "Let KVM, if it can, collect what the guest sends to its serial ports and its acknowledgements of "
        "virtio interrupts, instead of an exit for each")
        ->type_name("on|off")
        ->default_str("on");
    add_choice<bool>(
        app, "--huge-pages", on_or_off, [&](bool on) { config.huge_pages = on; },
        "Ask the host for pages of 2 MiB for the guest's memory, which is faster; with off, pages of 4 KiB, "
        "of "
        "which an idle guest may occupy less")
        ->type_name("on|off")
        ->default_str("on");
    add_choice<BootProtocol>(
        app, "--boot-protocol", protocols, [&](BootProtocol protocol) { config.protocol = protocol; },
        "How an ELF kernel is entered")
        ->type_name("PROTOCOL")
        ->default_str("auto");
    app.add_option_function<std::string>(
           "--net", [&](const std::string& text) { add_net(config, text); },
           "A network interface: passt (starts passt, which needs no privileges), passt=SOCKET (joins one), "
           "tap=NAME (a tap interface of this host) or fd=N (an inherited tap or stream socket), followed by "
           ",mac=ADDRESS ,mtu=BYTES ,rate=BYTES_PER_SECOND or, with passt, ,forward=tcp:HOSTPORT:GUESTPORT. "
           "A comma in SOCKET is written twice. May be given several times")
        ->type_name("NETWORK")
        ->check(check<parse_net>);
    app.add_option_function<std::string>(
           "--share", [&](const std::string& text) { add_share(config, text); },
           "A directory of the host that the guest can mount: mount -t virtiofs NAME /mnt. The first one's "
           "NAME is share0 by default. The guest can only read it, unless writable is added. A comma in DIR "
           "is "
           "written twice. May be given several times")
        ->type_name("DIR[,tag=NAME][,writable]")
        ->check(check<parse_share>);
    app.add_option_function<std::string>(
           "--balloon", [&](const std::string& text) { config.balloon = *parse_balloon(text); },
           "Memory that the guest does not use returns to the host (virtio): target=SIZE, which it gives up "
           "even while it could use it (0 by default), free-page-reporting=on|off (on by default), "
           "deflate-on-oom=on|off: whether the guest may take memory back before it kills a process (on by "
           "default)")
        ->type_name("[KEY=VALUE,...]")
        ->expected(0, 1)
        ->check(check<parse_balloon>);
    add_choice<bool>(
        app, "--rng", on_or_off, [&](bool on) { config.rng = on; }, "Source of random numbers (virtio)")
        ->type_name("on|off")
        ->default_str("on");
    app.add_option_function<std::string>(
           "--vsock", [&](const std::string& text) { config.vsock = *parse_vsock(text); },
           "Sockets between host and guest (virtio): the guest is CID N (3 or higher), programs on the host "
           "connect to the socket PATH and send \"CONNECT port\", and connections of the guest to CID 2 lead "
           "to the sockets PATH_port. A comma in PATH is written twice")
        ->type_name("cid=N,path=PATH")
        ->check(check<parse_vsock>);
    add_choice<bool>(
        app, "--on-reboot", reboot_actions, [&](bool restart) { config.restart_on_reboot = restart; },
        "When the guest reboots")
        ->type_name("ACTION")
        ->default_str("exit");
    app.add_option_function<std::string>(
           "--restart-limit", [&](const std::string& text) { config.restart_limit = parse_limit(text); },
           "With --on-reboot restart: exit with 10 after so many restarts in a row, none of which lasted 10 "
           "s")
        ->type_name("N")
        ->check(check_limit);
    add_choice<vmsuperio::I8042Profile>(
        app, "--i8042", i8042_profiles, [&](vmsuperio::I8042Profile profile) { config.i8042 = profile; },
        "Keyboard controller")
        ->type_name("PROFILE")
        ->default_str("full");
    app.add_option_function<std::string>(
           "--debug-console", [&](const std::string& text) { config.debug_console = *parse_serial(text); },
           "What the debug ports 0xE9 and 0x402 write to: stdio, null or file=PATH")
        ->type_name("TARGET")
        ->check(check_debug_console);
    app.add_flag("--exit-port", config.exit_port,
                 "Port 0x501 ends this program with the byte written as its exit code");
    add_choice<sandbox::Mode>(
        app, "--sandbox", sandbox_modes, [&](sandbox::Mode mode) { config.sandbox = mode; },
        "What confines this program once everything is opened (docs/threat-model.md)")
        ->type_name("MODE")
        ->default_str("on");
    app.add_flag_callback(
        "--no-sandbox", [&] { config.sandbox = sandbox::Mode::off; }, "The same as --sandbox off");
    app.add_option_function<std::string>(
           "--user", [&](const std::string& text) { config.user = *sandbox::parse_user(text); },
           "If started by root: the user and group to become when everything is opened")
        ->type_name("UID[:GID]")
        ->check(check<sandbox::parse_user>);
    app.add_option_function<std::string>(
           "--chroot", [&](const std::string& text) { config.chroot = text; },
           "If started by root: the directory that becomes the root directory when everything is opened; it "
           "may be empty")
        ->type_name("DIR");
    app.add_flag("--isolate", config.isolate,
                 "Put this program into namespaces of its own (users, mounts with an empty root directory, "
                 "networks, IPC, host "
                 "names), without privileges where the host allows that");
    app.add_flag("--core-dumps", config.core_dumps,
                 "For developers: allow core dumps of this program (without guest RAM) and debuggers");
    add_path(app, "--log", config.observe.log, "Append log messages to this file instead of stderr");
    add_choice<LogLevel>(
        app, "--log-level", log_levels, [&](LogLevel level) { config.observe.log_level = level; },
        "How much to log, by default info in a file and warning on stderr")
        ->type_name("LEVEL");
    add_path(app, "--metrics", config.observe.metrics,
             "Write counters as JSON here, at the start, at the end and on SIGUSR1");
    add_path(app, "--trace-io", config.observe.trace_io,
             "Write a line for each access of the guest to a device here");
    for (CLI::Option* const option :
         app.get_options([](const CLI::Option* o) { return o->get_items_expected_max() != 0; })) {
        // Values are parsed in the order of the command line, so that the first mistake is reported.
        option->trigger_on_parse();
    }
    try {
        app.parse(WordCheck(app).check(std::span(argv, static_cast<std::size_t>(argc)).subspan(1)));
    } catch (const CLI::CallForHelp&) {
        return PrintAndExit{app.help()};
    } catch (const CLI::CallForVersion& version) {
        return PrintAndExit{std::string(version.what()) + "\n"};
    } catch (const CLI::ParseError& error) {
        refuse(error.what());
    }
    if (app.count("--kernel") == 0) {
        refuse("--kernel IMAGE is required: which kernel to boot");
    }
    complete_serials(config);
    check_balloon_target(config);
    check_effect(app, config);
    return config;
}

}  // namespace kvm_vmm
