// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
#include <algorithm>

#include "arch/x86_64/cpu_setup.hpp"
#include "catch.hpp"

using kvm_vmm::guest_cpuid;

namespace {

kvm_cpuid_entry2 entry(std::uint32_t function, std::uint32_t index = 0) {
    kvm_cpuid_entry2 e{};
    e.function = function;
    e.index = index;
    return e;
}

const kvm_cpuid_entry2& find(const std::vector<kvm_cpuid_entry2>& table, std::uint32_t function,
                             std::uint32_t index = 0) {
    const auto found = std::ranges::find_if(
        table, [&](const auto& e) { return e.function == function && e.index == index; });
    REQUIRE(found != table.end());
    return *found;
}

std::vector<kvm_cpuid_entry2> intel() {
    auto leaf0 = entry(0);
    leaf0.eax = 0xD;
    leaf0.ebx = 0x756E6547;
    auto leaf4 = entry(4, 3);
    leaf4.eax = 3U | (3U << 5U);
    return {leaf0, entry(1), leaf4, entry(0xB, 0)};
}

std::vector<kvm_cpuid_entry2> amd() {
    auto leaf0 = entry(0);
    leaf0.eax = 0x10;
    leaf0.ebx = 0x68747541;
    return {leaf0, entry(1), entry(0x80000001), entry(0x80000008), entry(0x8000001E)};
}

}  // namespace

TEST_CASE("CPUID: the APIC id is the index of the CPU in every leaf that contains it", "[cpuid]") {
    for (const unsigned cpus : {1U, 2U, 3U, 4U, 64U}) {
        for (unsigned index = 0; index < cpus; ++index) {
            const auto table = guest_cpuid(intel(), index, cpus, false);
            REQUIRE(find(table, 1).ebx >> 24U == index);
            for (const std::uint32_t level : {0U, 1U, 2U}) {
                REQUIRE(find(table, 0xB, level).edx == index);
            }
            const auto amd_table = guest_cpuid(amd(), index, cpus, false);
            REQUIRE(find(amd_table, 0x8000001E).eax == index);
        }
    }
}

TEST_CASE("CPUID: one socket of single-threaded cores", "[cpuid]") {
    const auto table = guest_cpuid(intel(), 2, 3, false);
    CHECK((find(table, 1).ebx >> 16U & 0xFFU) == 4);  // ids, rounded up to a power of two
    CHECK((find(table, 1).edx & (1U << 28U)) != 0);
    CHECK((find(table, 1).ecx & (1U << 31U)) != 0);
    CHECK(find(table, 0xB, 0).eax == 0);
    CHECK(find(table, 0xB, 0).ebx == 1);
    CHECK(find(table, 0xB, 0).ecx == 0x100);
    CHECK(find(table, 0xB, 1).eax == 2);
    CHECK(find(table, 0xB, 1).ebx == 3);
    CHECK(find(table, 0xB, 1).ecx == 0x201);
    CHECK(find(table, 0xB, 2).ecx == 2);
    CHECK(find(table, 0xB, 2).ebx == 0);
    CHECK((find(table, 4, 3).eax >> 26U) == 3);

    const auto amd_table = guest_cpuid(amd(), 2, 3, false);
    CHECK((find(amd_table, 0x80000008).ecx & 0xFFU) == 2);
    CHECK((find(amd_table, 0x80000008).ecx >> 12U & 0xFU) == 2);
    CHECK((find(amd_table, 0x80000001).ecx & 2U) != 0);
}

TEST_CASE("CPUID: a single CPU reports that it is the only one", "[cpuid]") {
    const auto table = guest_cpuid(intel(), 0, 1, false);
    CHECK((find(table, 1).edx & (1U << 28U)) == 0);
    CHECK((find(table, 1).ebx >> 16U & 0xFFU) == 1);
    CHECK((find(table, 4, 3).eax >> 26U) == 0);
}

TEST_CASE("CPUID: the TSC deadline timer is shown if KVM has it", "[cpuid]") {
    CHECK((find(guest_cpuid(intel(), 0, 1, true), 1).ecx & (1U << 24U)) != 0);
    CHECK((find(guest_cpuid(intel(), 0, 1, false), 1).ecx & (1U << 24U)) == 0);
}

namespace {

// KVM's leaves, and that of the power management, whose EDX bit 8 means an invariant TSC.
std::vector<kvm_cpuid_entry2> under_kvm(bool invariant) {
    auto table = intel();
    auto signature = entry(0x4000'0000);
    signature.eax = 0x4000'0001;
    signature.ebx = 0x4B4D'564B;
    auto features = entry(0x4000'0001);
    features.eax = 0x0100'7EFB;
    auto power = entry(0x8000'0007);
    power.edx = invariant ? 1U << 8U : 0;
    table.insert(table.end(), {signature, features, power});
    return table;
}

bool has(const std::vector<kvm_cpuid_entry2>& table, std::uint32_t function) {
    return std::ranges::any_of(table, [function](const auto& e) { return e.function == function; });
}

}  // namespace

TEST_CASE("CPUID: the frequency of an invariant TSC is in the timing leaf", "[cpuid]") {
    const auto table = guest_cpuid(under_kvm(true), 0, 1, true, 2'100'000);
    CHECK(find(table, 0x4000'0000).eax == 0x4000'0010);
    CHECK(find(table, 0x4000'0010).eax == 2'100'000);
    CHECK(find(table, 0x4000'0010).ebx == 1'000'000);
    CHECK(find(table, 0x4000'0010).ecx == 0);
    CHECK(find(table, 0x4000'0010).edx == 0);
}

TEST_CASE("CPUID: there is no timing leaf if the frequency may change or is not known", "[cpuid]") {
    for (const auto& table :
         {guest_cpuid(under_kvm(false), 0, 1, true, 2'100'000), guest_cpuid(under_kvm(true), 0, 1, true, 0),
          guest_cpuid(under_kvm(true), 0, 1, true), guest_cpuid(intel(), 0, 1, true, 2'100'000)}) {
        CHECK_FALSE(has(table, 0x4000'0010));
        CHECK((!has(table, 0x4000'0000) || find(table, 0x4000'0000).eax == 0x4000'0001));
    }
}

TEST_CASE("CPUID: KVM's features and the x2APIC are passed on as KVM reports them", "[cpuid]") {
    auto supported = under_kvm(true);
    std::ranges::find(supported, 1U, &kvm_cpuid_entry2::function)->ecx = 1U << 21U;
    const auto table = guest_cpuid(supported, 1, 2, true, 2'100'000);
    CHECK(find(table, 0x4000'0000).ebx == 0x4B4D'564B);
    CHECK(find(table, 0x4000'0001).eax == 0x0100'7EFB);
    CHECK(find(table, 0x4000'0001).edx == 0);
    CHECK((find(table, 1).ecx & (1U << 21U)) != 0);
}
