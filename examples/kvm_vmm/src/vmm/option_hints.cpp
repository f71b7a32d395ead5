// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
#include "vmm/option_hints.hpp"

#include <algorithm>
#include <array>
#include <cstddef>
#include <optional>
#include <vector>

#include "util/quote.hpp"

namespace kvm_vmm {
namespace {

/// A name that other programs use, and the hint for it.
struct Habit {
    std::string_view word;    ///< without dashes
    std::string_view option;  ///< the equivalent option, if there is one
    // NOLINTNEXTLINE(readability-redundant-member-init): GCC warns of rows that leave it out
    std::string_view note{};  ///< otherwise: why it can be omitted, or what is missing
};

constexpr std::string_view host_cpu =
    "leave it out: the guest's CPUs are like the host's (--cpus says how many)";
constexpr std::string_view always_kvm = "leave it out: KVM is always used";
constexpr std::string_view one_machine = "leave it out: there is one kind of machine";
constexpr std::string_view no_display = "leave it out: there is no display, the console is this terminal";
constexpr std::string_view no_firmware = "there is no firmware: --kernel names what is booted";
constexpr std::string_view no_disk = "there are no disks: the guest's files come in the --initrd";
constexpr std::string_view no_network = "there is no network device";
constexpr std::string_view no_such_device = "there is no such device";
constexpr std::string_view fixed_devices = "devices cannot be added";
constexpr std::string_view no_monitor =
    "there is no monitor: Ctrl-A h lists the commands while the guest runs";
constexpr std::string_view no_api = "there is no API server: options say all";
constexpr std::string_view no_debugger = "there is no debugger stub";
constexpr std::string_view exits_on_reboot = "leave it out: --on-reboot exit is the default";
constexpr std::string_view own_sandbox =
    "leave it out: the sandbox is on by default (--sandbox), and its filters belong to the program";
constexpr std::string_view foreground = "leave it out: this program stays in the foreground";

// If a row has an option and a note, the note is used only while the program lacks the option.
constexpr auto habits = std::to_array<Habit>({
    // QEMU, and names that it shares with others
    {"append", "--cmdline"},
    {"m", "--memory"},
    {"smp", "--cpus"},
    {"dtb", "", "x86 guests take no device tree"},
    {"cpu", "", host_cpu},
    {"enable-kvm", "", always_kvm},
    {"accel", "", always_kvm},
    {"machine", "", one_machine},
    {"M", "", one_machine},
    {"no-acpi", "", "ACPI is always there; --cmdline acpi=off has Linux ignore it"},
    {"no-reboot", "", exits_on_reboot},
    {"no-shutdown", "", "leave it out: the program ends when the guest powers off"},
    {"action", "--on-reboot"},
    {"nographic", "", no_display},
    {"display", "", no_display},
    {"vga", "", no_display},
    {"vnc", "", no_display},
    {"sdl", "", no_display},
    {"gtk", "", no_display},
    {"curses", "", no_display},
    {"spice", "", no_display},
    {"monitor", "", no_monitor},
    {"mon", "", no_monitor},
    {"qmp", "", no_monitor},
    {"chardev", "--serial"},
    {"debugcon", "--debug-console"},
    {"parallel", "", no_such_device},
    {"bios", "", no_firmware},
    {"pflash", "", no_firmware},
    {"firmware", "", no_firmware},
    {"boot", "", no_firmware},
    {"drive", "--disk", no_disk},
    {"disk", "--disk", no_disk},
    {"hda", "--disk", no_disk},
    {"hdb", "--disk", no_disk},
    {"cdrom", "--disk", no_disk},
    {"fda", "--disk", no_disk},
    {"blockdev", "--disk", no_disk},
    {"block", "--disk", no_disk},
    {"rwdisk", "--disk", no_disk},
    {"root", "--disk", no_disk},
    {"rwroot", "--disk", no_disk},
    {"d", "--disk", no_disk},
    {"pmem", "", no_disk},
    {"snapshot", "", no_disk},
    {"net", "--net", no_network},
    {"netdev", "--net", no_network},
    {"nic", "--net", no_network},
    {"network", "--net", no_network},
    {"n", "--net", no_network},
    {"no-dhcp", "", "leave it out: the guest's addresses are its own affair"},
    {"device", "", fixed_devices},
    {"global", "", fixed_devices},
    {"nodefaults", "", "leave it out: nothing is added that was not asked for"},
    {"no-user-config", "", "leave it out: there is no configuration file"},
    {"usb", "", no_such_device},
    {"audio", "", no_such_device},
    {"virtfs", "--share"},
    {"fs", "--share"},
    {"9p", "--share"},
    {"vfio", "", no_such_device},
    {"tpm", "", no_such_device},
    {"rng", "--rng", no_such_device},
    {"balloon", "--balloon", no_such_device},
    {"vsock", "--vsock", no_such_device},
    {"rtc", "", "leave it out: the guest's clock is set to the host's time in UTC"},
    {"k", "--kernel"},  // kvmtool; for QEMU it is the keyboard's language
    {"s", "", no_debugger},
    {"S", "", no_debugger},
    {"gdb", "", no_debugger},
    {"D", "--log"},
    {"name", "", "leave it out: a guest has no name here"},
    {"uuid", "", "leave it out: a guest has no name here"},
    {"id", "", "leave it out: a guest has no name here"},
    {"daemonize", "", foreground},
    {"pidfile", "", foreground},
    {"runas", "--user"},
    {"?", "--help"},
    // Firecracker
    {"kernel-image-path", "--kernel"},
    {"initrd-path", "--initrd"},
    {"boot-args", "--cmdline"},
    {"mem-size-mib", "--memory"},
    {"vcpu-count", "--cpus"},
    {"log-path", "--log"},
    {"level", "--log-level"},
    {"metrics-path", "--metrics"},
    {"api-sock", "", no_api},
    {"no-api", "", no_api},
    {"config-file", "", no_api},
    {"config", "", no_api},
    {"metadata", "", no_api},
    {"boot-timer", "--log"},
    {"no-seccomp", "--no-sandbox"},
    {"seccomp-filter", "", own_sandbox},
    {"uid", "--user"},
    {"gid", "--user"},
    {"chroot-base-dir", "--chroot"},
    // cloud-hypervisor
    {"initramfs", "--initrd"},
    {"log-file", "--log"},
    {"v", "--version", "--version prints the version, --log-level debug logs more"},
    {"console", "--console", "the guest's console is a serial port: --serial stdio"},
    {"tty", "--serial"},
    {"api-socket", "", no_api},
    {"event-monitor", "--metrics"},
    {"seccomp", "--sandbox"},
    {"landlock", "", own_sandbox},
    {"platform", "", one_machine},
    {"restore", "", "a VM cannot be saved or restored"},
    {"loadvm", "", "a VM cannot be saved or restored"},
    {"incoming", "", "a VM cannot be saved or restored"},
    // kvmtool, crosvm
    {"p", "--cmdline"},
    {"params", "--cmdline"},
    {"i", "--initrd"},
    {"c", "--cpus"},
    {"b", "--disk", no_disk},
    {"mem", "--memory"},
    {"disable-sandbox", "--no-sandbox"},
    {"socket", "", no_api},
    {"shared-dir", "--share"},
    // Names that a user might guess
    {"ram", "--memory"},
    {"vcpus", "--cpus"},
    {"ncpus", "--cpus"},
    {"nproc", "--cpus"},
    {"cores", "--cpus"},
    {"processors", "--cpus"},
    {"threads", "--cpus"},
    {"volume", "--share"},
    {"mount", "--share"},
    {"virtiofs", "--share"},
    {"image", "--kernel"},
    {"bzimage", "--kernel"},
    {"vmlinuz", "--kernel"},
    {"vmlinux", "--kernel"},
    {"linux", "--kernel"},
    {"ramdisk", "--initrd"},
    {"args", "--cmdline"},
    {"bootargs", "--cmdline"},
    {"command-line", "--cmdline"},
    {"reboot", "--on-reboot"},
    {"restart", "--on-reboot"},
    {"keyboard", "--i8042"},
    {"ps2", "--i8042"},
    {"pvh", "--boot-protocol"},
    {"protocol", "--boot-protocol"},
    {"verbose", "--log-level"},
    {"debug", "--log-level"},
    {"quiet", "--log-level"},
    {"q", "--log-level"},
    {"trace", "--trace-io"},
    {"stats", "--metrics"},
    {"counters", "--metrics"},
    {"uart", "--serial"},
    {"com1", "--serial"},
});

constexpr char plain(char c) noexcept {
    if (c >= 'A' && c <= 'Z') {
        return static_cast<char>(c - 'A' + 'a');
    }
    return c == '_' ? '-' : c;
}

std::string plain(std::string_view word) {
    std::string text(word.substr(std::min(word.find_first_not_of('-'), word.size())));
    std::ranges::transform(text, text.begin(), [](char c) { return plain(c); });
    return text;
}

/// The number of letters that must be inserted, removed, replaced or swapped with an adjacent one to convert
/// `a` to `b` (optimal string alignment).
std::size_t distance(std::string_view a, std::string_view b) {
    std::vector<std::size_t> before_last;
    std::vector<std::size_t> last(b.size() + 1);
    std::vector<std::size_t> row(b.size() + 1);
    for (std::size_t j = 0; j <= b.size(); ++j) {
        row[j] = j;
    }
    for (std::size_t i = 1; i <= a.size(); ++i) {
        before_last = last;
        last = row;
        row[0] = i;
        for (std::size_t j = 1; j <= b.size(); ++j) {
            row[j] = std::min({last[j] + 1, row[j - 1] + 1, last[j - 1] + (a[i - 1] == b[j - 1] ? 0U : 1U)});
            if (i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1]) {
                row[j] = std::min(row[j], before_last[j - 2] + 1);
            }
        }
    }
    return row.back();
}

constexpr std::size_t longest_guess = 32;

/// The distance of `candidate` from `word`, both plain, or nothing if it is too large for a guess.
std::optional<std::size_t> likeness(const std::string& word, const std::string& candidate) {
    if (word == candidate) {
        return 0;
    }
    if (word.size() < 2 || word.size() > longest_guess || candidate.size() < 3) {
        return std::nullopt;
    }
    if (candidate.starts_with(word)) {
        return 1;
    }
    const std::size_t letters = distance(word, candidate);
    const std::size_t most = std::max<std::size_t>(1, std::min(word.size(), candidate.size()) / 3);
    return letters <= most ? std::optional(letters + 1) : std::nullopt;
}

const Habit* find_habit(std::string_view name) {
    // Single letters are case-sensitive: QEMU's -m and -M.
    const auto exact = std::ranges::find(habits, name, &Habit::word);
    if (exact != habits.end()) {
        return &*exact;
    }
    const std::string wanted = plain(name);
    const auto same = std::ranges::find_if(
        habits, [&](const Habit& habit) { return habit.word.size() > 1 && plain(habit.word) == wanted; });
    return same != habits.end() ? &*same : nullptr;
}

/// The letter of `-m512` and `-smp4`.
std::string_view before_digits(std::string_view name) {
    const std::size_t digits = name.find_first_of("0123456789");
    return digits == std::string_view::npos ? std::string_view{} : name.substr(0, digits);
}

std::string describe(const Habit& habit, std::span<const std::string_view> options) {
    if (!habit.option.empty() && std::ranges::find(options, habit.option) != options.end()) {
        return "did you mean " + std::string(habit.option) + "?";
    }
    return std::string(habit.note);
}

std::string hint_for(std::string_view name, std::span<const std::string_view> options) {
    // A different spelling of our own option has priority over the meaning in other programs.
    const std::string wanted = plain(name);
    for (const std::string_view option : options) {
        if (plain(option) == wanted) {
            return "did you mean " + std::string(option) + "?";
        }
    }
    if (const Habit* const habit = find_habit(name)) {
        return describe(*habit, options);
    }
    if (const std::string_view near = nearest_word(name, options); !near.empty()) {
        return "did you mean " + std::string(near) + "?";
    }
    if (const Habit* const habit = find_habit(before_digits(name))) {
        return describe(*habit, options);
    }
    std::vector<std::string_view> others;
    for (const Habit& habit : habits) {
        others.push_back(habit.word);
    }
    if (const Habit* const habit = find_habit(nearest_word(name, others))) {
        return describe(*habit, options);
    }
    return {};
}

}  // namespace

std::string_view nearest_word(std::string_view word, std::span<const std::string_view> words) {
    std::string_view best;
    std::optional<std::size_t> least;
    const std::string wanted = plain(word);
    for (const std::string_view candidate : words) {
        const auto far = likeness(wanted, plain(candidate));
        if (far && (!least || *far < *least)) {
            least = far;
            best = candidate;
        }
    }
    return best;
}

std::string suggestion(std::string_view word, std::span<const std::string_view> words) {
    const std::string_view near = nearest_word(word, words);
    return near.empty() ? std::string{} : "; did you mean " + std::string(near) + "?";
}

std::string explain_unknown_option(std::string_view word, std::span<const std::string_view> options) {
    const std::string_view option = word.substr(0, word.find('='));
    const std::size_t start = std::min(option.find_first_not_of('-'), option.size());
    std::string text = "unknown option " + quote(option);
    if (const std::string hint = hint_for(option.substr(start), options); !hint.empty()) {
        text += ": " + hint;
    }
    return text;
}

std::string quote(std::string_view text) {
    constexpr std::size_t most = 80;
    return in_quotes(text.substr(0, most)) + (text.size() > most ? "..." : "");
}

}  // namespace kvm_vmm
