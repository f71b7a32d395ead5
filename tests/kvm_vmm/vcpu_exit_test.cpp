// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
#include "kvm/vcpu_exit.hpp"

#include <array>
#include <cstring>
#include <linux/kvm.h>

#include "catch.hpp"

using namespace kvm_vmm;

namespace {

struct RunPage {
    alignas(4096) std::array<unsigned char, 8192> bytes{};
    kvm_run& run() { return *reinterpret_cast<kvm_run*>(bytes.data()); }
    VcpuExit decode() { return decode_exit(run(), bytes.size()); }
};

}  // namespace

TEST_CASE("VcpuExit: port I/O is decoded with port, width and all repetitions", "[exit]") {
    RunPage page;
    kvm_run& run = page.run();
    run.exit_reason = KVM_EXIT_IO;
    run.io.direction = KVM_EXIT_IO_OUT;
    run.io.size = 2;
    run.io.count = 3;
    run.io.port = 0x3F8;
    run.io.data_offset = 4096;
    page.bytes[4096] = 0xAB;
    auto exit = page.decode();
    const auto& out = std::get<exits::PortWrite>(exit);
    CHECK(out.port == 0x3F8);
    CHECK(out.width == 2);
    REQUIRE(out.data.size() == 6);
    CHECK(out.data[0] == 0xAB);

    run.io.direction = KVM_EXIT_IO_IN;
    auto in_exit = page.decode();
    CHECK(std::get<exits::PortRead>(in_exit).data.size() == 6);
}

TEST_CASE("VcpuExit: I/O data beyond the shared page is refused", "[exit]") {
    RunPage page;
    kvm_run& run = page.run();
    run.exit_reason = KVM_EXIT_IO;
    run.io.size = 4;
    run.io.count = 1;
    run.io.data_offset = 8192 - 3;
    CHECK(std::holds_alternative<exits::Unknown>(page.decode()));
    run.io.data_offset = ~0ULL;
    CHECK(std::holds_alternative<exits::Unknown>(page.decode()));
    run.io.data_offset = 8192 - 4;
    CHECK_FALSE(std::holds_alternative<exits::Unknown>(page.decode()));
    run.io.count = ~0U;
    CHECK(std::holds_alternative<exits::Unknown>(page.decode()));
}

TEST_CASE("VcpuExit: MMIO carries at most 8 bytes", "[exit]") {
    RunPage page;
    kvm_run& run = page.run();
    run.exit_reason = KVM_EXIT_MMIO;
    run.mmio.phys_addr = 0xD0000000;
    run.mmio.len = 200;
    run.mmio.is_write = 1;
    auto exit = page.decode();
    CHECK(std::get<exits::MmioWrite>(exit).data.size() == 8);
    CHECK(std::get<exits::MmioWrite>(exit).address == 0xD0000000);
    run.mmio.is_write = 0;
    run.mmio.len = 4;
    auto read = page.decode();
    CHECK(std::get<exits::MmioRead>(read).data.size() == 4);
}

TEST_CASE("VcpuExit: every reason is either understood or named", "[exit]") {
    RunPage page;
    for (std::uint32_t reason = 0; reason < 64; ++reason) {
        std::memset(page.bytes.data(), 0, page.bytes.size());
        page.run().exit_reason = reason;
        page.run().io.size = 1;
        const auto exit = page.decode();
        if (const auto* const unknown = std::get_if<exits::Unknown>(&exit)) {
            CHECK(unknown->reason == reason);
            CHECK_FALSE(unknown->name.empty());
        }
    }
    CHECK(exit_reason_name(KVM_EXIT_HLT) == "HLT");
    CHECK(exit_reason_name(KVM_EXIT_SYSTEM_EVENT) == "SYSTEM_EVENT");
    CHECK(exit_reason_name(KVM_EXIT_X86_WRMSR) == "X86_WRMSR");
    CHECK(exit_reason_name(KVM_EXIT_NOTIFY) == "NOTIFY");
}

TEST_CASE("VcpuExit: an internal error contains its data, up to a limit", "[exit]") {
    RunPage page;
    page.run().exit_reason = KVM_EXIT_INTERNAL_ERROR;
    page.run().internal.suberror = KVM_INTERNAL_ERROR_EMULATION;
    page.run().internal.ndata = 1000;
    page.run().internal.data[0] = 42;
    const auto exit = page.decode();
    const auto& error = std::get<exits::InternalError>(exit);
    CHECK(error.suberror == KVM_INTERNAL_ERROR_EMULATION);
    REQUIRE(error.data.size() == 16);
    CHECK(error.data[0] == 42);
}
