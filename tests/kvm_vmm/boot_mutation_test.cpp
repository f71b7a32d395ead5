// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
/// Kernel images with corrupted headers: each is loaded within bounds or refused with one clear line.
/// KVM_VMM_BOOT_MUTATIONS specifies how many of each kind are tried (default 10,000).
#include <cstdlib>
#include <map>
#include <random>
#include <string>
#include <string_view>

#include "arch/x86_64/layout.hpp"
#include "arch/x86_64/loader.hpp"
#include "boot_images.hpp"
#include "catch.hpp"

using namespace kvm_vmm;
using namespace boot_images;

namespace {

constexpr std::uint64_t mib = 1U << 20U;

unsigned rounds() {
    const char* const text = std::getenv("KVM_VMM_BOOT_MUTATIONS");
    return text != nullptr ? static_cast<unsigned>(std::strtoul(text, nullptr, 10)) : 10'000U;
}

class Mutator {
public:
    explicit Mutator(std::uint64_t seed) : random_(seed) {}

    std::uint64_t below(std::uint64_t limit) { return random_() % limit; }

    /// Changes one to four fields in [start, end), and sometimes the length.
    void spoil(Bytes& image, std::size_t start, std::size_t end) {
        for (std::uint64_t i = below(4) + 1; i > 0; --i) {
            const std::size_t width = std::size_t{1} << below(4);
            const std::size_t offset = start + below(end - start - width + 1);
            std::uint64_t value = interesting();
            if (below(4) == 0) {  // one bit
                std::memcpy(&value, image.data() + offset, width);
                value ^= 1ULL << below(8 * width);
            }
            std::memcpy(image.data() + offset, &value, width);
        }
        if (below(8) == 0) {
            image.resize(1 + below(image.size()));
        }
    }

private:
    std::uint64_t interesting() {
        switch (below(6)) {
            case 0:
                return 0;
            case 1:
                return ~0ULL;
            case 2:
                return 1ULL << below(64);
            case 3:
                return (1ULL << below(64)) - 1;
            case 4:
                return below(64) * mib / 4;
            default:
                return random_();
        }
    }

    std::mt19937_64 random_;
};

/// Loads `image`. Returns "loaded", or the message of the refusal up to its first number.
std::string outcome(MemoryFile& file, const Bytes& image, BootProtocol protocol, const MemoryFile& initrd) {
    file.write(image);
    GuestMemory memory(16 * mib);
    try {
        const LoadedGuest guest = load_guest(memory,
                                             {.kernel_path = file.path(),
                                              .initrd_path = initrd.path(),
                                              .command_line = "console=ttyS0",
                                              .protocol = protocol},
                                             {});
        // Everything is inside the RAM, the kernel is outside the firmware area, and nothing overlaps.
        REQUIRE(guest.kernel.begin >= layout::high_memory);
        REQUIRE(guest.kernel.end <= memory.low_end());
        REQUIRE(guest.kernel.begin < guest.kernel.end);
        REQUIRE(guest.entry.rip >= guest.kernel.begin);
        REQUIRE(guest.entry.rip < guest.kernel.end);
        REQUIRE(guest.initrd->address >= guest.kernel.end);
        REQUIRE(guest.initrd->address + guest.initrd->size <= memory.low_end());
        REQUIRE(memory.read_object<std::uint64_t>(layout::acpi) == 0x2052'5450'2044'5352U);
        return "loaded";
    } catch (const VmmError& error) {
        const std::string text = error.what();
        CAPTURE(text);
        REQUIRE((error.code() == ExitCode::bad_file || error.code() == ExitCode::usage));
        REQUIRE((text.starts_with("kernel '") || text.starts_with("initrd '") ||
                 text.starts_with("kernel command line: ")));
        REQUIRE(text.find('\n') == std::string::npos);
        REQUIRE(text.size() < 300);
        const std::string reason = text.substr(text.rfind("': ") + 1);
        // Messages that differ only in numbers are one kind.
        return reason.substr(0, reason.find_first_of("0123456789"));
    }
}

void mutate(const Bytes& good, std::size_t start, std::size_t end, std::uint64_t seed, unsigned protocols) {
    Mutator mutator(seed);
    MemoryFile file;
    const MemoryFile initrd(Bytes(5000, 0xA5));
    std::map<std::string, unsigned> outcomes;
    for (unsigned i = 0; i < rounds(); ++i) {
        CAPTURE(seed, i);
        Bytes image = good;
        mutator.spoil(image, start, end);
        const auto protocol = static_cast<BootProtocol>(mutator.below(protocols));
        ++outcomes[outcome(file, image, protocol, initrd)];
    }
    for (const auto& [kind, count] : outcomes) {
        UNSCOPED_INFO(count << " x " << kind);
    }
    // The mutations reach many different checks, and some images pass all of them.
    CHECK(outcomes["loaded"] > 0);
    CHECK(outcomes.size() >= 8);
}

}  // namespace

TEST_CASE("Boot: mutated bzImage headers are loaded within bounds or refused with one clear line",
          "[boot][mutation]") {
    mutate(make_bzimage(), 0x1F1, 0x26C, 0x62'7A'49'6D, 2);
}

TEST_CASE("Boot: mutated ELF headers are loaded within bounds or refused with one clear line",
          "[boot][mutation]") {
    mutate(make_elf(), 0, sizeof(Elf64_Ehdr) + 3 * sizeof(Elf64_Phdr), 0x45'4C'46'01, 3);
}

TEST_CASE("Boot: mutated 32-bit ELF headers are loaded within bounds or refused with one clear line",
          "[boot][mutation]") {
    mutate(make_elf32({pvh_note(0x20'0020)}), 0, sizeof(Elf32_Ehdr) + 2 * sizeof(Elf32_Phdr), 0x45'4C'46'02,
           3);
}

TEST_CASE("Boot: mutated ELF notes are loaded within bounds or refused with one clear line",
          "[boot][mutation]") {
    const std::vector<Note> notes{{"GNU", 3, Bytes(20, 1)},
                                  {"Xen", 6, Bytes(6, 2)},
                                  pvh_note(static_cast<std::uint32_t>(elf_physical))};
    Mutator mutator(0x45'4C'46'03);
    MemoryFile file;
    const MemoryFile initrd(Bytes(5000, 0xA5));
    std::map<std::string, unsigned> outcomes;
    const Bytes good = make_elf(good_elf_parts(), notes);
    for (unsigned i = 0; i < rounds(); ++i) {
        CAPTURE(i);
        Bytes image = good;
        mutator.spoil(image, elf_notes_offset, elf_notes_offset + make_notes(notes).size());
        ++outcomes[outcome(file, image, BootProtocol::automatic, initrd)];
    }
    CHECK(outcomes["loaded"] > 0);
    CHECK(outcomes.size() >= 4);
}
