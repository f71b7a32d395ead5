// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
// All virtio devices, with drivers that write what they like where they like, and with several CPUs at once.
// RAM has pages around it that cannot be accessed, so that a stray access ends the program.
#include <array>
#include <atomic>
#include <chrono>
#include <csignal>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <fcntl.h>
#include <memory>
#include <random>
#include <span>
#include <string>
#include <sys/resource.h>
#include <thread>
#include <unistd.h>
#include <vector>

#include "catch.hpp"
#include "util/log.hpp"
#include "virtio_device_table.hpp"
#include "virtio_mmio_driver.hpp"

using namespace kvm_vmm;
using namespace kvm_vmm::virtio;
using kvm_vmm::test::DeviceHost;
using kvm_vmm::test::DeviceRig;
using kvm_vmm::test::DriverQueue;
using kvm_vmm::test::HonestRequest;
using kvm_vmm::test::HostFiles;

namespace {

constexpr std::uint64_t ram = 16U << 20U;
/// Buffers and indirect tables of hostile drivers.
constexpr std::uint64_t buffers_at = 0x20'0000;
constexpr std::uint64_t buffers_size = 0x1'0000;

/// A guest must not fill the host's disk, and thousands of warnings are expected here.
class Limits {
public:
    Limits() {
        ::getrlimit(RLIMIT_FSIZE, &before_);
        rlimit limit = before_;
        limit.rlim_cur = 64U << 20U;
        ::setrlimit(RLIMIT_FSIZE, &limit);
        old_handler_ = std::signal(SIGXFSZ, SIG_IGN);
        open_log(vmsuperio::UniqueFd(::open("/dev/null", O_WRONLY | O_CLOEXEC)), LogLevel::error);
    }
    ~Limits() {
        close_log();
        std::signal(SIGXFSZ, old_handler_);
        ::setrlimit(RLIMIT_FSIZE, &before_);
    }
    Limits(const Limits&) = delete;
    Limits& operator=(const Limits&) = delete;

private:
    rlimit before_{};
    void (*old_handler_)(int){};
};

struct Machine {
    Machine(DeviceHost::Kind kind, const HostFiles& files)
        : host(kind, files, true),
          rig([this](DeviceRig& r) { return host.make(r.counters, r.events, r.memory); }, ram) {}

    /// The event loop comes to rest. A device with a thread of its own serves one more notification.
    [[nodiscard]] bool rests() {
        if (host.has_thread()) {
            const Counter& served = rig.counters["notifications"];
            const std::uint64_t before = served.value();
            rig.notify(0);
            rig.notify(1);
            return rig.run_until([&] { return served.value() >= before + 2; });
        }
        for (int turns = 0; turns < 2000; ++turns) {
            if (rig.events.run_once(0) == 0) {
                return true;
            }
        }
        return false;
    }
    /// Its thread, too: it is not notified again and again.
    [[nodiscard]] bool thread_rests() {
        const Counter& turns = rig.counters["notifications"];
        for (int i = 0; i < 200; ++i) {
            const std::uint64_t before = turns.value();
            std::this_thread::sleep_for(std::chrono::milliseconds(2));
            if (turns.value() == before) {
                return true;
            }
        }
        return false;
    }
    /// After a reset an honest driver finds a device that works.
    void check_reset_and_use() {
        rig.reset();
        REQUIRE(rig.status() == 0);
        rig.start();
        const HonestRequest request = test::honest_request(host.kind());
        rig.offer(request.queue, request.sent, request.received);
        rig.notify(request.queue);
        std::optional<DriverQueue::Used> used;
        REQUIRE(rig.run_until([&] { return (used = rig.queues[request.queue]->take_used()).has_value(); }));
        REQUIRE_FALSE(rig.needs_reset());
        std::uint64_t room = 0;
        for (const std::uint32_t size : request.received) {
            room += size;
        }
        REQUIRE(used->written <= room);
        REQUIRE((used->written != 0) == (room != 0));
    }

    DeviceHost host;
    DeviceRig rig;
};

class HostileDriver {
public:
    HostileDriver(Machine& machine, std::uint64_t seed)
        : rig_(machine.rig), machine_(machine), random_(seed) {}

    /// Brings the device into some state, from its reset on.
    void run() {
        rig_.write(mmio::status, 0);
        if (below(8) != 0) {
            set_up();
        }
        const unsigned operations = 5 + below(40);
        for (unsigned i = 0; i < operations; ++i) {
            operate();
        }
    }

private:
    std::uint32_t below(std::uint32_t end) { return static_cast<std::uint32_t>(random_() % end); }
    template <class T, std::size_t n>
    T one_of(const std::array<T, n>& values) {
        return values.at(below(n));
    }
    std::uint64_t any_number() {
        switch (below(4)) {
            case 0:
                return below(16);
            case 1:
                return one_of<std::uint64_t, 8>(
                    {0x7F, 0xFF, 0xFFFF, 0x7FFF'FFFF, 0xFFFF'FFFF, ~0ULL, ~0ULL >> 1U, 1ULL << 63U});
            case 2:
                return 1ULL << below(64);
            default:
                return random_();
        }
    }
    std::uint64_t address() {
        switch (below(12)) {
            case 0:
                return one_of<std::uint64_t, 10>(
                    {0, ram, ram - 1, ram - 16, GuestMemory::mmio_gap_start, GuestMemory::mmio_gap_start - 1,
                     GuestMemory::mmio_gap_end - 1, GuestMemory::mmio_gap_end, ~0ULL, ~0ULL - 15});
            case 1:
                return any_number();
            case 2:  // the rings
                return 0x1'0000 + below(0x2'0000);
            case 3:
                return ram - below(0x4000);
            default:
                return buffers_at + below(buffers_size);
        }
    }
    std::uint32_t length() {
        switch (below(10)) {
            case 0:
                return one_of<std::uint32_t, 7>(
                    {0, 1, 0xFFFF'FFFF, 0x8000'0000, ram, ram - buffers_at, 0xFFFF'FFF0});
            case 1:
                return static_cast<std::uint32_t>(any_number());
            case 2:
                return 16 * below(64);
            default:
                return one_of<std::uint32_t, 10>({1, 8, 12, 16, 40, 44, 104, 512, 1024, 4096});
        }
    }

    void set_up() {
        rig_.acknowledge();
        const std::uint64_t offered = rig_.device_features();
        const std::uint64_t wanted = below(3) == 0   ? ~0ULL
                                     : below(8) == 0 ? random_()
                                                     : random_() | feature::version_1;
        rig_.write_driver_features(offered & wanted);
        rig_.add_status(status::features_ok);
        for (std::uint32_t i = 0; i < rig_.transport->device().queue_sizes().size(); ++i) {
            if (below(16) == 0) {
                continue;
            }
            QueueLayout layout =
                DeviceRig::place_rings(i, below(8) == 0 ? static_cast<std::uint16_t>(random_())
                                                        : static_cast<std::uint16_t>(1U << below(9)));
            if (below(8) == 0) {
                layout.used = address();
            }
            if (below(8) == 0) {
                layout.available = address();
            }
            if (below(8) == 0) {
                layout.descriptors = address() & ~15ULL;
            }
            rig_.write(mmio::queue_sel, i);
            rig_.write_layout(layout);
            (void)rig_.memory.write(layout.available, std::array<std::uint8_t, 4>{});
            rig_.write(mmio::queue_ready, 1);
        }
        rig_.add_status(status::driver_ok);
    }

    void operate() {
        const std::uint32_t queue = below(4);
        const std::uint64_t rings = 0x1'0000 + std::uint64_t{queue} * 0x1'0000;
        switch (below(16)) {
            case 0:
            case 1:
            case 2:
                write_descriptor(rings + std::uint64_t{16} * below(16));
                break;
            case 3:  // in a table that an indirect descriptor may refer to
                write_descriptor(buffers_at + std::uint64_t{16} * below(16));
                break;
            case 4:
            case 5:
            case 6: {  // a head; perhaps one that is offered already
                const auto at = poke_index(rings, 1);
                (void)rig_.memory.write_object(
                    rings + 0x8004 + std::uint64_t{2} * (at % (1U << below(9))),
                    static_cast<std::uint16_t>(below(8) == 0 ? random_() : below(16)));
                rig_.notify(queue);
                break;
            }
            case 7:
                poke_index(rings, static_cast<std::uint16_t>(below(4) == 0 ? random_() : below(40)));
                rig_.notify(queue);
                break;
            case 8:
                (void)rig_.memory.write_object(rings + 0x8000, static_cast<std::uint16_t>(random_()));
                break;
            case 9:
            case 10:
            case 11:
                write_request(buffers_at + (below(2) == 0 ? 0 : below(buffers_size)));
                break;
            case 12:
                rig_.notify(static_cast<std::uint32_t>(any_number()));
                break;
            case 13:
                access_register();
                break;
            case 14:
                machine_.host.type("input");
                if (below(4) == 0) {
                    machine_.host.network().refuse_next_frame();
                    machine_.host.network().change_link();
                    machine_.host.network().change_link();
                }
                rest_ = machine_.rests();
                REQUIRE(rest_);
                break;
            default:
                good_request(queue);
                break;
        }
    }
    std::uint16_t poke_index(std::uint64_t rings, std::uint16_t step) {
        const auto before = rig_.memory.read_object<std::uint16_t>(rings + 0x8002).value_or(0);
        (void)rig_.memory.write_object(rings + 0x8002, static_cast<std::uint16_t>(before + step));
        return before;
    }
    void write_descriptor(std::uint64_t at) {
        (void)rig_.memory.write_object(at, address());
        (void)rig_.memory.write_object(at + 8, length());
        (void)rig_.memory.write_object(at + 12,
                                       static_cast<std::uint16_t>(below(8) == 0 ? random_() : below(4)));
        (void)rig_.memory.write_object(at + 14,
                                       static_cast<std::uint16_t>(below(8) == 0 ? random_() : below(16)));
        if (below(8) == 0) {
            (void)rig_.memory.write_object(at + 12, std::uint16_t{DriverQueue::indirect});
        }
    }
    /// A request of the device's type with some fields that are wrong.
    void write_request(std::uint64_t at) {
        HonestRequest request = test::honest_request(machine_.host.kind());
        request.sent.resize(std::max<std::size_t>(request.sent.size(), 128));
        if (machine_.host.kind() == DeviceHost::Kind::file_system) {
            test::store<std::uint32_t>(request.sent, 0, 40 + below(128));
            test::store<std::uint32_t>(request.sent, 4, below(55));  // FUSE_LOOKUP is 1, FUSE_SYNCFS is 50
            test::store<std::uint64_t>(request.sent, 16, below(4) == 0 ? any_number() : 1 + below(4));
            for (std::size_t i = 40; i < request.sent.size(); i += 8) {
                test::store<std::uint64_t>(request.sent, i, below(3) == 0 ? any_number() : below(8));
            }
            if (below(2) == 0) {
                const std::size_t name = 40 + std::size_t{8} * below(4);
                test::store<std::uint32_t>(request.sent, name,
                                           one_of<std::uint32_t, 4>({'a', 'b', 0x2E2E, 0x002E2E2F}));
            }
        }
        for (unsigned i = below(4); i != 0; --i) {
            const std::size_t place = below(static_cast<std::uint32_t>(request.sent.size() / 4));
            test::store<std::uint32_t>(request.sent, place * 4, static_cast<std::uint32_t>(any_number()));
        }
        if (below(4) == 0) {
            test::store<std::uint32_t>(request.sent, 0, below(16));  // the type of a disk's request
        }
        (void)rig_.memory.write(at, request.sent);
    }
    /// A chain as drivers make it, of what was written by write_request().
    void good_request(std::uint32_t queue) {
        const std::uint64_t rings = 0x1'0000 + std::uint64_t{queue} * 0x1'0000;
        const HonestRequest request = test::honest_request(machine_.host.kind());
        const auto first = static_cast<std::uint16_t>(below(4));
        std::uint16_t at = first;
        const auto add = [&](std::uint32_t size, std::uint16_t flags, bool last) {
            (void)rig_.memory.write_object(rings + std::uint64_t{16} * at,
                                           buffers_at + (flags != 0 ? 0x8000 + below(0x4000) : 0));
            (void)rig_.memory.write_object(rings + std::uint64_t{16} * at + 8, size);
            (void)rig_.memory.write_object(
                rings + std::uint64_t{16} * at + 12,
                static_cast<std::uint16_t>(flags | (last ? 0U : DriverQueue::next)));
            ++at;
            (void)rig_.memory.write_object(rings + std::uint64_t{16} * at - 2, at);
        };
        if (!request.sent.empty()) {
            add(static_cast<std::uint32_t>(request.sent.size()) + (below(4) == 0 ? below(64) : 0), 0, false);
        }
        add(below(4096), DriverQueue::device_writes, false);
        add(1 + below(512), DriverQueue::device_writes, true);
        const std::uint16_t index = poke_index(rings, 1);
        for (std::uint16_t size = 4; size <= 256; size = static_cast<std::uint16_t>(size * 2)) {
            (void)rig_.memory.write_object(rings + 0x8004 + std::uint64_t{2} * (index % size), first);
        }
        rig_.notify(queue);
    }
    void access_register() {
        const std::uint64_t offset = below(8) == 0 ? below(0x1000) : std::uint64_t{4} * below(0x50);
        const std::uint64_t value = any_number();
        switch (below(6)) {
            case 0:
                rig_.write_as(offset, static_cast<std::uint8_t>(value));
                break;
            case 1:
                rig_.write_as(offset, static_cast<std::uint16_t>(value));
                break;
            case 2:
                rig_.write_as(offset, value);
                break;
            case 3:
                (void)rig_.read_as<std::uint64_t>(offset);
                (void)rig_.read_as<std::uint8_t>(offset);
                break;
            default:
                rig_.write(offset, static_cast<std::uint32_t>(value));
                break;
        }
    }

    DeviceRig& rig_;
    Machine& machine_;
    std::mt19937_64 random_;
    bool rest_{true};
};

unsigned from_environment(const char* name, unsigned otherwise) {
    // NOLINTNEXTLINE(concurrency-mt-unsafe): no other thread changes the environment
    const char* const text = std::getenv(name);
    return text != nullptr ? static_cast<unsigned>(std::strtoul(text, nullptr, 10)) : otherwise;
}

/// A CPU that neither waits for others nor checks anything.
class WildCpu {
public:
    WildCpu(DeviceRig& rig, DeviceHost::Kind kind, std::uint64_t seed)
        : rig_(rig), request_(test::honest_request(kind)), random_(seed) {}

    void write_registers() {
        const std::uint32_t queue = static_cast<std::uint32_t>(random_() % 3);
        switch (random_() % 8) {
            case 0:
                (void)rig_.read(std::uint64_t{4} * (random_() % 0x48));
                break;
            case 1:
                rig_.write(mmio::interrupt_ack, 3);
                break;
            case 2:
                rig_.write(mmio::queue_sel, queue);
                rig_.write(mmio::queue_ready, random_() % 4 == 0 ? 0 : 1);
                if (random_() % 4 == 0) {
                    rig_.write(mmio::queue_reset, 1);
                    rig_.write_layout(DeviceRig::place_rings(queue, 16));
                    rig_.write(mmio::queue_ready, 1);
                }
                break;
            case 3:
                rig_.write_as(mmio::config + random_() % 64, static_cast<std::uint8_t>(random_()));
                (void)rig_.config<std::uint32_t>(random_() % 64);
                break;
            default:
                rig_.notify(queue);
                break;
        }
    }
    /// Offers one request again and again, and writes into the rings.
    void write_rings() {
        const std::uint64_t rings = 0x1'0000 + random_() % 3 * 0x1'0000;
        if (random_() % 16 == 0) {
            poke(rings + random_() % 0x100, random_(), 4);
        }
        if (random_() % 64 == 0) {
            poke(rings + 0x8002, random_(), 2);
        }
        std::uint16_t at = 0;
        std::uint64_t buffer = buffers_at;
        if (!request_.sent.empty()) {
            for (std::size_t i = 0; i < request_.sent.size(); ++i) {
                poke(buffer + i, request_.sent[i], 1);
            }
            descriptor(rings, at++, buffer, request_.sent.size(), request_.received.empty() ? 0 : 1);
            buffer += 0x1000;
        }
        for (std::size_t i = 0; i < request_.received.size(); ++i) {
            descriptor(rings, at++, buffer, request_.received[i], i + 1 < request_.received.size() ? 3 : 2);
            buffer += 0x1000;
        }
        poke(rings + 0x8004 + 2 * (index_ % 16), 0, 2);
        poke(rings + 0x8002, ++index_, 2);
    }
    void reset_and_start() {
        rig_.write(mmio::status, 0);
        for (std::uint64_t i = 0; i < 3; ++i) {
            poke(0x1'8000 + i * 0x1'0000, 0, 4);
        }
        rig_.write(mmio::status, status::acknowledge);
        rig_.write(mmio::status, status::acknowledge | status::driver);
        rig_.write_driver_features(rig_.device_features());
        rig_.write(mmio::status, status::acknowledge | status::driver | status::features_ok);
        for (std::uint32_t i = 0; i < rig_.transport->device().queue_sizes().size(); ++i) {
            rig_.write(mmio::queue_sel, i);
            rig_.write_layout(DeviceRig::place_rings(i, 16));
            rig_.write(mmio::queue_ready, 1);
        }
        rig_.write(mmio::status,
                   status::acknowledge | status::driver | status::features_ok | status::driver_ok);
        rig_.notify(0);
        rig_.notify(1);
    }

private:
    void poke(std::uint64_t address, std::uint64_t value, std::size_t size) {
        std::array<std::uint8_t, sizeof(value)> bytes{};
        std::memcpy(bytes.data(), &value, sizeof(value));
        (void)rig_.memory.write(address, std::span(bytes).first(size));
    }
    void descriptor(std::uint64_t table, std::uint64_t index, std::uint64_t address, std::uint64_t size,
                    std::uint64_t flags) {
        poke(table + index * 16, address, 8);
        poke(table + index * 16 + 8, size, 4);
        poke(table + index * 16 + 12, flags | (index + 1) << 16U, 4);
    }

    DeviceRig& rig_;
    HonestRequest request_;
    std::mt19937_64 random_;
    std::uint16_t index_{0};
};

}  // namespace

// KVM_VMM_HOSTILE_STATES is how many states there are, over all devices. A state that fails is found again by the
// seed, which is printed.
TEST_CASE("virtio: no driver brings a device into a state in which a reset does not help", "[hostile]") {
    const Limits limits;
    const unsigned states = from_environment("KVM_VMM_HOSTILE_STATES", 10'000);
    const auto each = static_cast<unsigned>((states + DeviceHost::all.size() - 1) / DeviceHost::all.size());
    for (const DeviceHost::Kind kind : DeviceHost::all) {
        const HostFiles files;
        Machine machine(kind, files);
        unsigned broken = 0;
        for (unsigned i = 0; i < each; ++i) {
            INFO(DeviceHost::name_of(kind) << ", seed " << i);
            HostileDriver(machine, i).run();
            REQUIRE(machine.rests());
            if (machine.host.has_thread() && i % 64 == 0) {
                REQUIRE(machine.thread_rests());
            }
            broken += machine.rig.needs_reset() ? 1U : 0U;
            machine.check_reset_and_use();
        }
        // The drivers have reached the device, and have been found out.
        CHECK(machine.rig.counters["requests"].value() > each + each / 5);
        CHECK(broken > each / 40);
        CHECK(broken < each);
    }
}

TEST_CASE("virtio: two CPUs operate a device while a third resets it", "[hostile]") {
    const Limits limits;
    const unsigned rounds = from_environment("KVM_VMM_HOSTILE_ROUNDS", 300);
    for (const DeviceHost::Kind kind : DeviceHost::all) {
        INFO(DeviceHost::name_of(kind));
        const HostFiles files;
        Machine machine(kind, files);
        std::atomic<bool> done{false};
        const auto hammer = [&](std::uint64_t seed) {
            WildCpu cpu(machine.rig, kind, seed);
            while (!done.load()) {
                cpu.write_rings();
                cpu.write_registers();
            }
        };
        std::thread first(hammer, 1);
        std::thread second(hammer, 2);
        std::thread third([&] {
            WildCpu cpu(machine.rig, kind, 3);
            for (unsigned i = 0; i < rounds; ++i) {
                cpu.reset_and_start();
                std::this_thread::yield();
            }
            done.store(true);
        });
        while (!done.load()) {
            machine.host.type("input");
            machine.host.network().change_link();
            machine.rig.events.run_once(1);
        }
        first.join();
        second.join();
        third.join();
        if (!machine.host.network().link_up()) {
            machine.host.network().change_link();
        }
        CHECK(machine.rests());
        machine.check_reset_and_use();
        CHECK(machine.rig.counters["resets"].value() > rounds / 2);
    }
}
