// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
#include "vmm/options.hpp"

#include <algorithm>
#include <sstream>
#include <string>
#include <utility>
#include <vector>

#include <vmsuperio/version.hpp>

#include "catch.hpp"
#include "vmm/share_option.hpp"
#include "vmm/vsock_option.hpp"

using kvm_vmm::ExitCode;
using kvm_vmm::parse_options;
using kvm_vmm::parse_size;
using kvm_vmm::PrintAndExit;
using kvm_vmm::SerialConfig;
using kvm_vmm::VmmConfig;
using kvm_vmm::VmmError;

namespace {

std::variant<VmmConfig, PrintAndExit> parse(std::vector<const char*> words) {
    words.insert(words.begin(), "kvm_vmm");
    return parse_options(static_cast<int>(words.size()), words.data());
}

VmmConfig config_of(const std::vector<const char*>& words) { return std::get<VmmConfig>(parse(words)); }

std::string usage_error(const std::vector<const char*>& words) {
    try {
        (void)parse(words);
    } catch (const VmmError& error) {
        CHECK(error.code() == ExitCode::usage);
        const std::string text = error.what();
        CHECK(text.find('\n') == std::string::npos);
        return text;
    }
    FAIL("no error");
    return {};
}

}  // namespace

TEST_CASE("Options: a size has an optional unit, which is MiB by default", "[options]") {
    CHECK(parse_size("512M") == 512ULL << 20U);
    CHECK(parse_size("512") == 512ULL << 20U);
    CHECK(parse_size("4096K") == 4ULL << 20U);
    CHECK(parse_size("2g") == 2ULL << 30U);
    CHECK(parse_size("1T") == 1ULL << 40U);
    CHECK(parse_size("3GiB") == 3ULL << 30U);
    CHECK(parse_size("3GB") == 3ULL << 30U);
    CHECK(parse_size("0") == 0U);
}

TEST_CASE("Options: a value that is not a size is refused", "[options]") {
    for (const char* const text : {"", "M", "-1M", "+1M", "1.5G", "1X", "1MM", " 1M", "1M ", "0x10", "1Mi",
                                   "1BM", "99999999999999999999", "9999999999T", "1iB"}) {
        INFO(text);
        CHECK_FALSE(parse_size(text).has_value());
    }
}

TEST_CASE("Options: the defaults are as documented", "[options]") {
    const VmmConfig config = config_of({"--kernel", "k"});
    CHECK(config.kernel == "k");
    CHECK_FALSE(config.initrd.has_value());
    CHECK(config.memory == 512ULL << 20U);
    CHECK(config.cpus == 1);
    REQUIRE(config.serials.size() == 1);
    CHECK(config.serials[0].kind == SerialConfig::Kind::stdio);
}

TEST_CASE("Options: all options are accepted, with = or without", "[options]") {
    const VmmConfig config =
        config_of({"--kernel=k", "--initrd", "i", "--cmdline", "a=b,c \"d e\"", "--memory=1G", "--cpus", "4",
                   "--serial", "null", "--serial=file=/tmp/a=b"});
    CHECK(config.initrd == "i");
    CHECK(config.cmdline == "a=b,c \"d e\"");
    CHECK(config.memory == 1ULL << 30U);
    CHECK(config.cpus == 4);
    REQUIRE(config.serials.size() == 2);
    CHECK(config.serials[0].kind == SerialConfig::Kind::null);
    CHECK(config.serials[1].kind == SerialConfig::Kind::file);
    CHECK(config.serials[1].path == "/tmp/a=b");
}

TEST_CASE("Options: an empty command line stays empty", "[options]") {
    CHECK(config_of({"--kernel", "k", "--cmdline", ""}).cmdline.empty());
}

TEST_CASE("Options: a mistake is one line that names it", "[options]") {
    CHECK_THAT(usage_error({}), Catch::Matchers::Contains("--kernel"));
    CHECK_THAT(usage_error({"--kernel", "k", "--nonsense"}), Catch::Matchers::Contains("--nonsense"));
    CHECK_THAT(usage_error({"--kernel", "k", "stray"}), Catch::Matchers::Contains("stray"));
    CHECK_THAT(usage_error({"--kernel", "k", "--memory", "lots"}), Catch::Matchers::Contains("lots"));
    CHECK_THAT(usage_error({"--kernel", "k", "--memory", "4097K"}), Catch::Matchers::Contains("4097K"));
    CHECK_THAT(usage_error({"--kernel", "k", "--memory", "0"}), Catch::Matchers::Contains("between"));
    CHECK_THAT(usage_error({"--kernel", "k", "--memory", "2T"}), Catch::Matchers::Contains("between"));
    CHECK_THAT(usage_error({"--kernel", "k", "--cpus", "0"}), Catch::Matchers::Contains("--cpus"));
    CHECK_THAT(usage_error({"--kernel", "k", "--cpus", "65"}), Catch::Matchers::Contains("--cpus"));
    CHECK_THAT(usage_error({"--kernel", "k", "--cpus", "-1"}), Catch::Matchers::Contains("--cpus"));
    CHECK_THAT(usage_error({"--kernel", "k", "--serial", "tty"}), Catch::Matchers::Contains("tty"));
    CHECK_THAT(usage_error({"--kernel", "k", "--serial", "file="}), Catch::Matchers::Contains("file="));
    CHECK_THAT(usage_error({"--kernel", "k", "--serial", "stdio", "--serial", "stdio"}),
               Catch::Matchers::Contains("stdio"));
    CHECK_THAT(usage_error({"--kernel", "k", "--serial", "null", "--serial", "null", "--serial", "null",
                            "--serial", "null", "--serial", "null"}),
               Catch::Matchers::Contains("4"));
    CHECK_THAT(usage_error({"--kernel", "k", "--bad\noption"}),
               Catch::Matchers::Contains("'--bad\\x0aoption'"));
}

TEST_CASE("Options: log, metrics and trace", "[options]") {
    const VmmConfig none = config_of({"--kernel", "k"});
    CHECK_FALSE(none.observe.log.has_value());
    CHECK_FALSE(none.observe.log_level.has_value());
    CHECK_FALSE(none.observe.metrics.has_value());
    CHECK_FALSE(none.observe.trace_io.has_value());
    const VmmConfig all =
        config_of({"--kernel", "k", "--log", "l", "--log-level", "debug", "--metrics", "m", "--trace-io=t"});
    CHECK(all.observe.log == "l");
    CHECK(all.observe.log_level == kvm_vmm::LogLevel::debug);
    CHECK(all.observe.metrics == "m");
    CHECK(all.observe.trace_io == "t");
    CHECK_THAT(usage_error({"--kernel", "k", "--log-level", "loud"}), Catch::Matchers::Contains("loud"));
}

TEST_CASE("Options: --help names every option and exit code", "[options]") {
    const auto parsed = parse({"--help"});
    const std::string text = std::get<PrintAndExit>(parsed).text;
    for (const char* const word :
         {"--kernel", "--initrd", "--cmdline", "--memory", "--cpus", "--serial", "--coalesce", "--huge-pages",
          "--help", "--version", "Exit codes", "Ctrl-A x"}) {
        INFO(word);
        CHECK(text.find(word) != std::string::npos);
    }
}

TEST_CASE("Options: --help needs no other option, and takes precedence over any mistake", "[options]") {
    CHECK(std::holds_alternative<PrintAndExit>(parse({"--help", "--memory", "1G"})));
    CHECK(std::holds_alternative<PrintAndExit>(parse({"--nonsense", "--help"})));
    CHECK(std::holds_alternative<PrintAndExit>(parse({"--memory", "lots", "-h"})));
    CHECK(std::get<PrintAndExit>(parse({"--version"})).text == "kvm_vmm " VMSUPERIO_VERSION_STRING "\n");
}

TEST_CASE("Options: --help fits 100 columns and has no trailing spaces", "[options]") {
    std::istringstream text(std::get<PrintAndExit>(parse({"--help"})).text);
    for (std::string line; std::getline(text, line);) {
        INFO(line);
        CHECK(line.size() <= 100);
        CHECK_FALSE(line.ends_with(' '));
    }
}

TEST_CASE("Options: a misspelt option is named with the nearest one", "[options]") {
    for (const auto& [word, meant] :
         std::vector<std::pair<const char*, std::string>>{{"--memroy", "--memory"},
                                                          {"--memory-size", ""},
                                                          {"--mem", "--memory"},
                                                          {"--memory_", "--memory"},
                                                          {"--MEMORY", "--memory"},
                                                          {"-memory", "--memory"},
                                                          {"---memory", "--memory"},
                                                          {"--kernal", "--kernel"},
                                                          {"-kernel", "--kernel"},
                                                          {"--krenel", "--kernel"},
                                                          {"--cmdlin", "--cmdline"},
                                                          {"--cmd-line", "--cmdline"},
                                                          {"--comand-line", "--cmdline"},
                                                          {"--cmd", "--cmdline"},
                                                          {"--cpu_s", "--cpus"},
                                                          {"--cpsu", "--cpus"},
                                                          {"--initrdd", "--initrd"},
                                                          {"--serail", "--serial"},
                                                          {"--log_level", "--log-level"},
                                                          {"--loglevel", "--log-level"},
                                                          {"--lgo", "--log"},
                                                          {"--metric", "--metrics"},
                                                          {"--trace-oi", "--trace-io"},
                                                          {"--exit_port", "--exit-port"},
                                                          {"--on_reboot", "--on-reboot"},
                                                          {"--boot-protocoll", "--boot-protocol"},
                                                          {"--i8024", "--i8042"},
                                                          {"--debug-consle", "--debug-console"},
                                                          {"--serial-overflw", "--serial-overflow"},
                                                          {"-help", "--help"},
                                                          {"--versoin", "--version"},
                                                          {"--apend", "--cmdline"},
                                                          {"--kernel-imagepath", "--kernel"}}) {
        const std::string text = usage_error({word, "1"});
        INFO(text);
        CHECK(text.starts_with("unknown option '" + std::string(word) + "'"));
        CHECK(text.ends_with(" (see kvm_vmm --help)"));
        if (!meant.empty()) {
            CHECK_THAT(text, Catch::Matchers::Contains(": did you mean " + meant + "?"));
        }
    }
}

TEST_CASE("Options: options of other programs result in a hint", "[options]") {
    for (const auto& [word, answer] :
         std::vector<std::pair<const char*, std::string>>{{"-kernel", "did you mean --kernel?"},
                                                          {"--append", "did you mean --cmdline?"},
                                                          {"-append", "did you mean --cmdline?"},
                                                          {"--smp", "did you mean --cpus?"},
                                                          {"-smp", "did you mean --cpus?"},
                                                          {"-smp4", "did you mean --cpus?"},
                                                          {"-m", "did you mean --memory?"},
                                                          {"-m512", "did you mean --memory?"},
                                                          {"-m=1G", "did you mean --memory?"},
                                                          {"-initrd", "did you mean --initrd?"},
                                                          {"--initramfs", "did you mean --initrd?"},
                                                          {"-serial", "did you mean --serial?"},
                                                          {"-nographic", "leave it out"},
                                                          {"-enable-kvm", "KVM is always used"},
                                                          {"-accel", "KVM is always used"},
                                                          {"-M", "leave it out"},
                                                          {"-machine", "leave it out"},
                                                          {"-cpu", "like the host's"},
                                                          {"-no-reboot", "--on-reboot exit is the default"},
                                                          {"-drive", "disk"},
                                                          {"-hda", "disk"},
                                                          {"-net", "net"},
                                                          {"-netdev", "net"},
                                                          {"-display", "no display"},
                                                          {"-monitor", "Ctrl-A h"},
                                                          {"-bios", "no firmware"},
                                                          {"-s", "no debugger"},
                                                          {"-S", "no debugger"},
                                                          {"-debugcon", "--debug-console"},
                                                          {"--boot-args", "did you mean --cmdline?"},
                                                          {"--kernel-image-path", "did you mean --kernel?"},
                                                          {"--mem-size-mib", "did you mean --memory?"},
                                                          {"--vcpu-count", "did you mean --cpus?"},
                                                          {"--api-sock", "no API"},
                                                          {"--config-file", "options say all"},
                                                          {"--log-path", "did you mean --log?"},
                                                          {"--level", "did you mean --log-level?"},
                                                          {"--log-file", "did you mean --log?"},
                                                          {"--params", "did you mean --cmdline?"},
                                                          {"-p", "did you mean --cmdline?"},
                                                          {"-i", "did you mean --initrd?"},
                                                          {"-c", "did you mean --cpus?"},
                                                          {"-k", "did you mean --kernel?"},
                                                          {"--seccomp", "did you mean --sandbox?"},
                                                          {"--landlock", "the sandbox is on by default"},
                                                          {"-runas", "did you mean --user?"},
                                                          {"-v", "--version"},
                                                          {"--verbose", "did you mean --log-level?"},
                                                          {"--tty", "did you mean --serial?"},
                                                          {"--ram", "did you mean --memory?"}}) {
        const std::string text = usage_error({"--kernel", "k", word, "value"});
        INFO(text);
        CHECK(text.starts_with("unknown option '"));
        CHECK_THAT(text, Catch::Matchers::Contains(answer));
    }
}

TEST_CASE("Options: a word that resembles no option gets no suggestion", "[options]") {
    for (const char* const word : {"--nonsense", "--x", "-z", "--", "-", "--zzzzzzzzzzzz", "---"}) {
        const std::string text = usage_error({"--kernel", "k", word});
        INFO(text);
        CHECK(text.find("did you mean") == std::string::npos);
        CHECK_THAT(text, Catch::Matchers::Contains("'" + std::string(word) + "'"));
    }
}

TEST_CASE("Options: every suggestion names an option that exists", "[options]") {
    const std::string help = std::get<PrintAndExit>(parse({"--help"})).text;
    for (const char* const word : {"-drive", "-net", "--rng", "--balloon", "--vsock", "--console",
                                   "--seccomp", "-v", "-d", "-m", "-D", "-chardev", "--event-monitor"}) {
        const std::string text = usage_error({word});
        const std::string mark = "did you mean ";
        INFO(text);
        if (const std::size_t at = text.find(mark); at != std::string::npos) {
            const std::size_t start = at + mark.size();
            const std::string option = text.substr(start, text.find('?', start) - start);
            CHECK(help.find("  " + option) != std::string::npos);
        }
    }
}

TEST_CASE("Options: a kernel without --kernel is recognised, and other words are named in the error",
          "[options]") {
    CHECK(usage_error({"vmlinuz"}) ==
          "'vmlinuz' is not understood: did you mean --kernel vmlinuz? (see kvm_vmm --help)");
    CHECK_THAT(usage_error({"--memory", "1G", "bzImage"}), Catch::Matchers::Contains("--kernel bzImage?"));
    const std::string second = usage_error({"--kernel", "k", "stray"});
    CHECK_THAT(second, Catch::Matchers::Contains("'stray' is not understood"));
    CHECK(second.find("did you mean") == std::string::npos);
    CHECK_THAT(usage_error({"--kernel", "k", "--exit-port", "3"}),
               Catch::Matchers::Contains("'3' is not understood: --exit-port takes no value"));
    CHECK_THAT(usage_error({"--kernel", "k", "--exit-port=3"}),
               Catch::Matchers::Contains("--exit-port takes no value"));
    CHECK_THAT(usage_error({"--kernel", "k", "--cmdline", "console=ttyS0", "quiet"}),
               Catch::Matchers::Contains("one word: --cmdline 'console=ttyS0 quiet'"));
    CHECK_THAT(usage_error({""}), Catch::Matchers::Contains("'' is not understood"));
}

TEST_CASE("Options: the first mistake is reported, and unknown words before bad values", "[options]") {
    CHECK_THAT(usage_error({"--first", "--second"}), Catch::Matchers::Contains("--first"));
    CHECK_THAT(usage_error({"--second", "--first"}), Catch::Matchers::Contains("--second"));
    CHECK_THAT(usage_error({"--memroy", "1G", "--cpus", "0"}), Catch::Matchers::Contains("--memroy"));
    CHECK_THAT(usage_error({"--cpus", "0", "--memroy", "1G"}), Catch::Matchers::Contains("--memroy"));
    CHECK_THAT(usage_error({"--cpus", "0", "--memory", "lots"}), Catch::Matchers::Contains("--cpus"));
    CHECK_THAT(usage_error({"--memory", "lots", "--cpus", "0"}), Catch::Matchers::Contains("--memory"));
    CHECK_THAT(usage_error({"--i8042", "x", "--serial", "y"}), Catch::Matchers::Contains("--i8042"));
    CHECK_THAT(usage_error({"--serial", "y", "--i8042", "x"}), Catch::Matchers::Contains("--serial"));
    // A mistake in the given options is reported before the missing --kernel.
    CHECK_THAT(usage_error({"--cpus", "0"}), Catch::Matchers::Contains("--cpus"));
}

TEST_CASE("Options: an option given twice is refused, naming both values; --serial may be repeated",
          "[options]") {
    for (const char* const option :
         {"--kernel", "--initrd", "--cmdline", "--log", "--metrics", "--trace-io"}) {
        const std::string text = usage_error({"--kernel=k", option, "one", option, "two"});
        INFO(text);
        CHECK_THAT(text, Catch::Matchers::Contains(std::string(option) + " is given twice"));
        CHECK_THAT(text, Catch::Matchers::Contains("'one'"));
    }
    CHECK_THAT(usage_error({"--memory", "1G", "--memory=2G"}),
               Catch::Matchers::Contains("--memory is given twice: '1G' and '2G'"));
    CHECK_THAT(usage_error({"--debug-console", "null", "--debug-console", "null"}),
               Catch::Matchers::Contains("twice"));
    CHECK_THAT(usage_error({"--i8042", "full", "--i8042", "absent"}), Catch::Matchers::Contains("twice"));
    CHECK(config_of({"--kernel", "k", "--exit-port", "--exit-port"}).exit_port);
    CHECK(config_of({"--kernel", "k", "--serial", "null", "--serial", "null"}).serials.size() == 2);
}

TEST_CASE("Options: what the guest tells its disks and shares apart by is unique", "[options]") {
    const auto config = config_of({"--kernel=k", "--disk=a", "--disk=b,id=data", "--disk=c"});
    CHECK(config.disks[0].id == "disk0");
    CHECK(config.disks[1].id == "data");
    CHECK(config.disks[2].id == "disk2");
    CHECK(usage_error({"--kernel=k", "--disk=a,id=x", "--disk=b", "--disk=c,id=x"})
              .find("two disks have the serial number id='x'") != std::string::npos);
    CHECK(usage_error({"--kernel=k", "--disk=a,id=disk1", "--disk=b"}).find("id='disk1'") !=
          std::string::npos);
    CHECK(usage_error({"--kernel=k", "--share=a,tag=x", "--share=b,tag=x"})
              .find("two directories have the tag 'x'") != std::string::npos);
}

TEST_CASE("Options: virtio consoles have the targets of serial ports", "[options]") {
    using Kind = SerialConfig::Kind;
    CHECK(config_of({"--kernel", "k"}).consoles.empty());
    const VmmConfig config = config_of({"--kernel", "k", "--console", "pty", "--console=unix=/tmp/a, b"});
    REQUIRE(config.consoles.size() == 2);
    CHECK(config.consoles[0].kind == Kind::pty);
    CHECK(config.consoles[1].kind == Kind::unix_socket);
    CHECK(config.consoles[1].path == "/tmp/a, b");
    CHECK(config.serials.at(0).kind == Kind::stdio);
    CHECK_THAT(usage_error({"--kernel", "k", "--console", "off"}), Catch::Matchers::Contains("null"));
    CHECK_THAT(usage_error({"--kernel", "k", "--console", "null", "--console", "null", "--console", "null",
                            "--console", "null", "--console", "null"}),
               Catch::Matchers::Contains("more than 4 consoles"));
}

TEST_CASE("Options: this terminal is one console's; by default the virtio console's, if it is wanted there",
          "[options]") {
    using Kind = SerialConfig::Kind;
    const VmmConfig config = config_of({"--kernel", "k", "--console", "stdio"});
    CHECK(config.consoles.at(0).kind == Kind::stdio);
    REQUIRE(config.serials.size() == 1);
    CHECK(config.serials[0].kind == Kind::stdout_only);
    CHECK(config_of({"--kernel", "k", "--console", "stdio", "--serial", "null"}).serials.at(0).kind ==
          Kind::null);
    for (const auto& words : {std::vector<const char*>{"--console", "stdio", "--serial", "stdio"},
                              std::vector<const char*>{"--serial", "stdio", "--console", "stdio"},
                              std::vector<const char*>{"--console", "stdio", "--console", "stdio"}}) {
        std::vector<const char*> arguments{"--kernel", "k"};
        arguments.insert(arguments.end(), words.begin(), words.end());
        CHECK_THAT(usage_error(arguments), Catch::Matchers::Contains("can be stdio"));
    }
    CHECK_THAT(usage_error({"--kernel", "k", "--serial", "stdout_only"}),
               Catch::Matchers::Contains("not one of"));
}

TEST_CASE("Options: a missing value is not taken from the next option", "[options]") {
    CHECK_THAT(usage_error({"--kernel"}),
               Catch::Matchers::Contains("--kernel needs a value: --kernel IMAGE"));
    CHECK_THAT(usage_error({"--kernel", "--memory", "1G"}),
               Catch::Matchers::Contains("--kernel needs a value, and '--memory' looks like an option"));
    CHECK_THAT(usage_error({"--cmdline", "--memory=1G"}), Catch::Matchers::Contains("needs a value"));
    CHECK_THAT(usage_error({"--kernel", "-initrd", "i"}), Catch::Matchers::Contains("needs a value"));
    CHECK_THAT(usage_error({"--memory", "--"}), Catch::Matchers::Contains("needs a value"));
    CHECK(config_of({"--kernel=--memory"}).kernel == "--memory");
    CHECK(config_of({"--kernel", "k", "--cmdline", "-- -x"}).cmdline == "-- -x");
    CHECK(config_of({"--kernel", "k", "--cmdline", "--debug"}).cmdline == "--debug");
    // An empty value after '=' counts as the value, whatever follows.
    const VmmConfig config = config_of({"--kernel", "k", "--cmdline=", "--memory", "1G"});
    CHECK(config.cmdline.empty());
    CHECK(config.memory == 1ULL << 30U);
    CHECK(config_of({"--kernel", "k", "--initrd", ""}).initrd == "");
    CHECK(config_of({"--kernel", "k", "--log="}).observe.log == "");
}

TEST_CASE("Options: for a word that is not in a list, the error names the list and the nearest word",
          "[options]") {
    CHECK_THAT(usage_error({"--on-reboot", "restrat"}),
               Catch::Matchers::Contains(
                   "--on-reboot: 'restrat' is not one of exit or restart; did you mean restart?"));
    CHECK_THAT(usage_error({"--i8042", "ful"}), Catch::Matchers::Contains("did you mean full?"));
    CHECK_THAT(usage_error({"--i8042", "0"}), Catch::Matchers::Contains("'0' is not one of"));
    CHECK_THAT(usage_error({"--log-level", "warn"}), Catch::Matchers::Contains("did you mean warning?"));
    CHECK_THAT(usage_error({"--log-level", ""}), Catch::Matchers::Contains("'' is not one of"));
    CHECK_THAT(usage_error({"--boot-protocol", "PVH"}), Catch::Matchers::Contains("did you mean pvh?"));
    CHECK_THAT(usage_error({"--serial-overflow", "x"}),
               Catch::Matchers::Contains("'x' is not one of wait or drop"));
}

TEST_CASE("Options: each word of a list selects the right value", "[options]") {
    using kvm_vmm::BootProtocol;
    using vmsuperio::I8042Profile;
    using vmsuperio::TransmitPolicy;
    const auto with = [](const char* option, const char* word) {
        return config_of({"--kernel", "k", option, word});
    };
    CHECK(with("--boot-protocol", "auto").protocol == BootProtocol::automatic);
    CHECK(with("--boot-protocol", "linux").protocol == BootProtocol::linux_boot);
    CHECK(with("--boot-protocol", "pvh").protocol == BootProtocol::pvh);
    CHECK_FALSE(with("--on-reboot", "exit").restart_on_reboot);
    CHECK(with("--on-reboot", "restart").restart_on_reboot);
    CHECK(with("--i8042", "full").i8042 == I8042Profile::full);
    CHECK(with("--i8042", "minimal").i8042 == I8042Profile::minimal);
    CHECK(with("--i8042", "absent").i8042 == I8042Profile::absent);
    CHECK(with("--serial-overflow", "wait").serial_overflow == TransmitPolicy::back_pressure);
    CHECK(with("--serial-overflow", "drop").serial_overflow == TransmitPolicy::drop_and_count);
    for (const auto level : {kvm_vmm::LogLevel::error, kvm_vmm::LogLevel::warning, kvm_vmm::LogLevel::info,
                             kvm_vmm::LogLevel::debug}) {
        CHECK(with("--log-level", std::string(log_level_name(level)).c_str()).observe.log_level == level);
    }
}

TEST_CASE("Options: a serial target in another program's notation gets a suggestion", "[options]") {
    for (const auto& [target, answer] : std::vector<std::pair<const char*, std::string>>{
             {"file=", "lacks the path: file=PATH"},
             {"file", "lacks the path: file=PATH"},
             {"unix=", "lacks the path: unix=PATH"},
             {"unix", "lacks the path: unix=PATH"},
             {"mon:stdio", "did you mean stdio?"},
             {"file:/tmp/x", "did you mean file=/tmp/x?"},
             {"unix:/tmp/s,server=on", "did you mean unix=/tmp/s?"},
             {"none", "did you mean null?"},
             {"off", "did you mean null?"},
             {"tty", "did you mean stdio?"},
             {"/tmp/log", "did you mean file=/tmp/log?"},
             {"stido", "did you mean stdio?"},
             {"NULL", "did you mean null?"},
             {"pyt", "did you mean pty?"},
             {"", "'' is not one of"},
             {"tcp::4444", "'tcp::4444' is not one of"}}) {
        const std::string text = usage_error({"--kernel", "k", "--serial", target});
        INFO(text);
        CHECK(text.starts_with("--serial: "));
        CHECK_THAT(text, Catch::Matchers::Contains(answer));
    }
    CHECK_THAT(usage_error({"--debug-console", "file="}), Catch::Matchers::Contains("lacks the path"));
    CHECK_THAT(usage_error({"--debug-console", "pty"}),
               Catch::Matchers::Contains("'pty' is not one of stdio, file=PATH, null"));
}

TEST_CASE("Options: sizes and numbers in other programs' notation are refused and named unchanged",
          "[options]") {
    CHECK_THAT(usage_error({"--memory", "size=512M"}),
               Catch::Matchers::Contains("'size=512M' is not a size such as 512M or 2G"));
    for (const char* const number :
         {"boot=4", "4,sockets=1", "0", "65", "-1", "1.5", "", "+2", "4 ", "0x4", "99999999999999999999"}) {
        INFO(number);
        CHECK_THAT(
            usage_error({"--cpus", number}),
            Catch::Matchers::Contains("--cpus: '" + std::string(number) + "' is not a number from 1 to 64"));
    }
}

TEST_CASE("Options: for any word, however long or odd, the error is one line of moderate length",
          "[options]") {
    const std::string longest(100'000, 'a');
    for (const std::string& word : {longest, "--" + longest, "-" + longest, "--kernel=" + longest,
                                    std::string("--a\x1B[31m\r\nb"), std::string("a\x07\x7F")}) {
        const std::string text = usage_error({word.c_str(), "--memory", "x", word.c_str()});
        INFO(text);
        CHECK(text.size() < 1000);
        CHECK(std::ranges::none_of(
            text, [](char c) { return static_cast<unsigned char>(c) < ' ' || c == '\x7F'; }));
    }
    for (const char* const option : {"--memory", "--cpus", "--serial", "--i8042", "--debug-console"}) {
        CHECK(usage_error({option, longest.c_str()}).size() < 1000);
        CHECK(usage_error({option, ("/" + longest).c_str()}).size() < 1000);
    }
}

TEST_CASE("Options: --vsock takes a CID and a path, in any order", "[options]") {
    const auto parsed = [](const std::string& text) {
        const VmmConfig config = config_of({"--kernel", "k", "--vsock", text.c_str()});
        REQUIRE(config.vsock);
        return std::pair(config.vsock.value_or(kvm_vmm::VsockConfig{}).cid,
                         config.vsock.value_or(kvm_vmm::VsockConfig{}).path);
    };
    using Parsed = std::pair<std::uint64_t, std::string>;
    CHECK(parsed("cid=3,path=/tmp/v.sock") == Parsed(3, "/tmp/v.sock"));
    CHECK(parsed("path=v,cid=4294967294") == Parsed(4294967294, "v"));
    CHECK(parsed("cid=42,uds_path=/a b=c") == Parsed(42, "/a b=c"));
    CHECK(parsed("path=a,,b,cid=3") == Parsed(3, "a,b"));
    CHECK_FALSE(config_of({"--kernel", "k"}).vsock);
}

TEST_CASE("Options: --balloon has parts in any order, or none", "[options]") {
    const auto parsed = [](std::vector<const char*> words) {
        words.insert(words.begin(), {"--kernel", "k"});
        const VmmConfig config = config_of(words);
        REQUIRE(config.balloon);
        return config.balloon.value_or(kvm_vmm::virtio::BalloonConfig{});
    };
    CHECK_FALSE(config_of({"--kernel", "k"}).balloon);
    for (const auto& words : std::vector<std::vector<const char*>>{
             {"--balloon"}, {"--balloon="}, {"--balloon", ""}, {"--balloon", "--exit-port"}}) {
        CHECK(parsed(words).target == 0);
        CHECK(parsed(words).free_page_reporting);
        CHECK(parsed(words).deflate_on_oom);
    }
    CHECK(config_of({"--kernel", "k", "--balloon", "--exit-port"}).exit_port);
    CHECK(parsed({"--balloon", "target=256M"}).target == 256U << 20U);
    CHECK(parsed({"--balloon=target=8K"}).target == 8192);
    const auto all = parsed({"--balloon", "deflate-on-oom=off,free-page-reporting=off,target=1"});
    CHECK(all.target == 1U << 20U);
    CHECK_FALSE(all.free_page_reporting);
    CHECK_FALSE(all.deflate_on_oom);
    CHECK_FALSE(parsed({"--balloon", "free-page-reporting=off,deflate-on-oom=on"}).free_page_reporting);
    CHECK(parsed({"--balloon", "free-page-reporting=off,deflate-on-oom=on"}).deflate_on_oom);
}

TEST_CASE("Options: a wrong --balloon is refused by the word that is wrong", "[options]") {
    for (const auto& [text, reason] : std::vector<std::pair<std::string, std::string>>{
             {"on", "'on' is not one of target=, free-page-reporting=, deflate-on-oom="},
             {"targte=1M", "did you mean target?"},
             {",", "'' is not one of target="},
             {"target", "'target' lacks its value: target=SIZE"},
             {"deflate-on-oom", "lacks its value: deflate-on-oom=on"},
             {"target=", "target='' is not a size"},
             {"target=big", "target='big' is not a size such as 512M or 2G"},
             {"target=-1", "target='-1' is not a size"},
             {"target=1M,target=2M", "target= is given twice"},
             {"deflate-on-oom=yes", "deflate-on-oom='yes' is not on or off"},
             {"free-page-reporting=", "free-page-reporting='' is not on or off"},
             {"target=512M", "the target is not smaller than the guest's RAM"}}) {
        CAPTURE(text);
        CHECK_THAT(usage_error({"--kernel", "k", "--balloon", text.c_str()}),
                   Catch::Matchers::Contains("--balloon: ") && Catch::Matchers::Contains(reason));
    }
    CHECK_THAT(usage_error({"--kernel", "k", "--balloon", "--balloon", "target=1M"}),
               Catch::Matchers::Contains("--balloon is given twice"));
}

TEST_CASE("Options: two interfaces have neither one network nor one MAC address", "[options]") {
    for (const auto& [first, second, reason] : std::vector<std::array<const char*, 3>>{
             {"tap=t", "tap=t,mtu=1400", "'tap=t' is given twice"},
             {"fd=3", "fd=3", "'fd=3' is given twice"},
             {"passt=/s", "passt=/s", "'passt=/s' is given twice"},
             {"passt,mac=02:00:00:00:00:01", "tap=t,mac=02-00-00-00-00-01",
              "MAC address 02:00:00:00:00:01"}}) {
        CAPTURE(first, second);
        CHECK_THAT(usage_error({"--kernel", "k", "--net", first, "--net", second}),
                   Catch::Matchers::Contains(std::string("--net: ")) && Catch::Matchers::Contains(reason));
    }
    CHECK(config_of({"--kernel", "k", "--net", "passt", "--net", "passt", "--net", "tap=a", "--net", "tap=b",
                     "--net", "fd=3", "--net", "fd=4", "--net", "passt=/s", "--net", "passt=/t"})
              .nets.size() == 8);
}

TEST_CASE("Options: a wrong --vsock is refused by the word that is wrong", "[options]") {
    for (const auto& [text, reason] : std::vector<std::pair<std::string, std::string>>{
             {"", "not one of cid=N, path=PATH"},
             {"3", "'3' is not one of cid=N, path=PATH"},
             {"cid=3", "lacks the path=PATH"},
             {"path=/v", "lacks the cid=N"},
             {"cid=3,path=", "lacks the path=PATH"},
             {"cid=2,path=/v", "'2' is not a guest's CID: a number from 3 to 4294967294"},
             {"cid=0,path=/v", "'0' is not a guest's CID"},
             {"cid=-1,path=/v", "'-1' is not a guest's CID"},
             {"cid=4294967295,path=/v", "'4294967295' is not a guest's CID"},
             {"cid=99999999999999999999,path=/v", "is not a guest's CID"},
             {"cid=3x,path=/v", "'3x' is not a guest's CID"},
             {"cid=,path=/v", "'' is not a guest's CID"},
             {"cid=3,cid=4,path=/v", "more than one cid"},
             {"cid=3,path=/v,uds_path=/w", "more than one uds_path"},
             {"cid=3,path=a,b", "'b' is not one of cid=N, path=PATH"},
             {"cdi=3,path=/v", "'cdi=3' is not one of cid=N, path=PATH"}}) {
        CAPTURE(text);
        const auto result = kvm_vmm::parse_vsock(text);
        REQUIRE_FALSE(result);
        CHECK_THAT(result.error(), Catch::Matchers::Contains(reason));
    }
}

TEST_CASE("Options: an option that another one would make meaningless is refused", "[options]") {
    const auto reason = [](std::vector<const char*> words) {
        words.insert(words.begin(), {"--kernel", "k"});
        return usage_error(words);
    };
    using Words = std::vector<const char*>;
    for (const Words& off : {Words{"--no-sandbox"}, Words{"--sandbox", "off"}}) {
        for (const Words& part :
             {Words{"--user", "1000"}, Words{"--chroot", "/var/empty"}, Words{"--isolate"}}) {
            // In any order.
            for (const auto& [first, second] : {std::pair(off, part), std::pair(part, off)}) {
                Words words = first;
                words.insert(words.end(), second.begin(), second.end());
                const std::string text = reason(words);
                CAPTURE(text);
                CHECK_THAT(text, Catch::Matchers::StartsWith(part.front()));
                CHECK_THAT(text, Catch::Matchers::Contains("which is off (--"));
            }
        }
    }
    CHECK_THAT(reason({"--sandbox", "on", "--no-sandbox"}),
               Catch::Matchers::StartsWith("--no-sandbox and --sandbox"));
    CHECK_THAT(reason({"--restart-limit", "3"}), Catch::Matchers::Contains("--on-reboot restart"));
    CHECK_THAT(reason({"--restart-limit", "3", "--on-reboot", "exit"}),
               Catch::Matchers::Contains("--on-reboot restart"));
    CHECK(config_of({"--kernel", "k", "--on-reboot", "restart", "--restart-limit", "3"}).restart_limit == 3);
    for (const char* const mode : {"on", "required", "log"}) {
        const VmmConfig config = config_of(
            {"--kernel", "k", "--sandbox", mode, "--user", "1000:20", "--chroot", "/var/empty", "--isolate"});
        CHECK(config.isolate);
        CHECK(config.chroot == "/var/empty");
        REQUIRE(config.user);
        CHECK(config.user.value_or(kvm_vmm::sandbox::UserId{}).group == 20);
    }
}
