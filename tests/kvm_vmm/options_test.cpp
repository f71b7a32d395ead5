// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
#include "vmm/options.hpp"

#include <string>
#include <vector>

#include "catch.hpp"

using kvm_vmm::ExitCode;
using kvm_vmm::parse_options;
using kvm_vmm::parse_serial;
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

TEST_CASE("Options: a size has an optional unit, MiB without", "[options]") {
    CHECK(parse_size("512M") == 512ULL << 20U);
    CHECK(parse_size("512") == 512ULL << 20U);
    CHECK(parse_size("4096K") == 4ULL << 20U);
    CHECK(parse_size("2g") == 2ULL << 30U);
    CHECK(parse_size("1T") == 1ULL << 40U);
    CHECK(parse_size("3GiB") == 3ULL << 30U);
    CHECK(parse_size("3GB") == 3ULL << 30U);
    CHECK(parse_size("0") == 0U);
}

TEST_CASE("Options: what is no size is refused", "[options]") {
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

TEST_CASE("Options: all are read, with = or without", "[options]") {
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
    CHECK_THAT(usage_error({"--kernel", "k", "--bad\noption"}), Catch::Matchers::Contains("--bad option"));
}

TEST_CASE("Options: what is to be written about the VM", "[options]") {
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
    for (const char* const word : {"--kernel", "--initrd", "--cmdline", "--memory", "--cpus", "--serial",
                                   "--help", "--version", "Exit codes", "Ctrl-A x"}) {
        INFO(word);
        CHECK(text.find(word) != std::string::npos);
    }
}

TEST_CASE("Options: --help needs no other option", "[options]") {
    CHECK(std::holds_alternative<PrintAndExit>(parse({"--help", "--memory", "1G"})));
}
