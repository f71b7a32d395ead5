// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
// A guest that resets its virtio devices while they work, and the end of one whose devices work: CPUs' threads and the main
// thread then do what the devices' own threads do otherwise, and the sandbox must allow that.
#include <array>
#include <fcntl.h>
#include <filesystem>
#include <sys/socket.h>
#include <unistd.h>

#include "program.hpp"

using namespace kvm_vmm::test;
using Catch::Matchers::Contains;

namespace {

/// Options of a VM that has each kind of virtio device.
class AllDevices {
public:
    explicit AllDevices(const std::string& how, const std::string& engine,
                        const std::string& reboot = "exit") {
        std::filesystem::create_directory(directory_ / "shared");
        const std::string disk = directory_.write("disk", std::string(std::size_t{66} << 20U, 'd')).string();
        // The guest's reads of 64 MiB have to wait for the storage.
        const vmsuperio::UniqueFd file(::open(disk.c_str(), O_RDONLY | O_CLOEXEC));
        REQUIRE(::fdatasync(file.get()) == 0);
        REQUIRE(::posix_fadvise(file.get(), 0, 0, POSIX_FADV_DONTNEED) == 0);
        const int made = ::socketpair(AF_UNIX, SOCK_STREAM, 0, network_.data());
        REQUIRE(made == 0);
        options_ = {"--kernel",    KVM_VMM_GUEST_RESET_DEVICES,
                    "--memory",    "64M",
                    "--cmdline",   "how=" + how,
                    "--disk",      disk + ",engine=" + engine,
                    "--net",       "fd=" + std::to_string(network_[0]),
                    "--console",   "null",
                    "--balloon",   "target=1M",
                    "--share",     (directory_ / "shared").string() + ",writable",
                    "--vsock",     "cid=3,path=" + (directory_ / "vsock").string(),
                    "--on-reboot", reboot};
    }
    ~AllDevices() {
        ::close(network_[0]);
        ::close(network_[1]);
    }
    AllDevices(const AllDevices&) = delete;
    AllDevices& operator=(const AllDevices&) = delete;

    [[nodiscard]] const std::vector<std::string>& options() const { return options_; }
    [[nodiscard]] const ScratchDirectory& directory() const { return directory_; }

private:
    ScratchDirectory directory_;
    std::array<int, 2> network_{};
    std::vector<std::string> options_;
};

}  // namespace

TEST_CASE("kvm_vmm: a guest resets devices and queues that have requests in progress", "[program][virtio]") {
    REQUIRE_KVM();
    const std::string how = GENERATE("device", "queue");
    const std::string engine = GENERATE("auto", "threads");
    CAPTURE(how, engine);
    const AllDevices vm(how, engine);
    const Result result = run(vm.directory(), vm.options());
    INFO(result.errors);
    CHECK(result.exit_code == 10);
    CHECK(result.output == "........");
    CHECK_THAT(result.errors, !Contains("sandbox"));
}

TEST_CASE("kvm_vmm: it ends with requests in progress when a signal asks for it", "[program][virtio]") {
    REQUIRE_KVM();
    const std::string engine = GENERATE("auto", "threads");
    const std::string reboot = GENERATE("exit", "restart");
    CAPTURE(engine, reboot);
    for (int i = 0; i < 3; ++i) {
        const AllDevices vm("stay", engine, reboot);
        Job job(vm.options());
        CHECK(job.next_byte() == '!');
        job.send(SIGTERM);
        CHECK(job.wait() == 128 + SIGTERM);
    }
}
