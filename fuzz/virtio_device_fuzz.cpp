// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//
// Each virtio device behind its MMIO transport, with a driver that does what it likes. The event loop always comes
// to rest, the notifications of a device with a thread are served, and at the end the device accepts a reset. RAM
// has pages around it that cannot be accessed.
//
// Input: a byte with the device (bits 2:0, in the order of DeviceHost::Kind), and whether its driver was started
// before (bit 7: not). Then operations of one byte, below 0xC0 modulo 8:
//   0  the driver writes 1 to 16 bytes (length, 2 bytes of offset into its window, the bytes)
//   1  it writes a descriptor (a byte: queue in bits 7:6, index in bits 3:0; 2 bytes of offset of the buffer in the
//      window, 2 bytes of length, a byte of flags in bits 2:0, a byte for the next one)
//   2  it offers a head (a byte: queue in bits 7:6, head in bits 3:0) and notifies the device
//   3  it writes a register (a byte: its offset divided by 4; 4 bytes)
//   4  it accesses the configuration space (a byte of offset; a byte: bits 2:0 the width, bit 7 for a write; 8 bytes)
//   5  the event loop runs   6  the driver resets and starts the device, without the features of the operation's other bits
//      (see left_out)   7  it notifies the device (a byte)
// From 0xC0 on, a request of the device's type, with differences: a byte of how (bits 3:0 the number of patches, 5:4 how
// many queues further, 6 with another length, 7 with more room for the answer), a byte of length if bit 6 is set, then
// a byte of offset and a byte of value for each patch. From 0xD0 on, the device is saved and restored, with a change of
// its state (2 bytes of where, a byte of which bits). From 0xE0 on, the host acts: for the socket device a program (a byte,
// bits 2:0 what, see HostPrograms); for the console a user, who types 16 characters for each unit of the byte, or the end of
// the guest (0xFF); for the network its link (an even byte), or the refusal of a frame.
// The share is read-only, because an input must not depend on those before it.
#include <algorithm>
#include <array>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <fcntl.h>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <sys/socket.h>
#include <sys/un.h>
#include <thread>
#include <utility>
#include <vector>

#include <vmsuperio/linux/eventfd.hpp>
#include <vmsuperio/linux/unique_fd.hpp>

#include "memory/guest_memory.hpp"
#include "support/target.hpp"
#include "util/log.hpp"
#include "virtio/mmio_transport.hpp"
#include "virtio_device_table.hpp"

namespace fuzz {
namespace {

using kvm_vmm::Counter;
using kvm_vmm::Counters;
using kvm_vmm::EventManager;
using kvm_vmm::GuestMemory;
using kvm_vmm::test::DeviceHost;
using kvm_vmm::test::HostFiles;
using namespace kvm_vmm::virtio;

constexpr std::uint64_t ram = 0x10000;
constexpr std::uint16_t queue_size = 16;
constexpr std::uint64_t buffers_at = 0x4000;
constexpr std::size_t most_turns = 2000;
constexpr std::uint64_t request_at = 0x7000;
constexpr std::uint64_t answer_at = 0xD000;

// Which features a driver does not accept: some change what a device does, those of several devices in one.
constexpr std::array<std::uint64_t, 8> left_out{
    0,
    net_feature::mergeable_buffers,
    net_feature::guest_checksum | Balloon::feature_stats,
    net_feature::mergeable_buffers | net_feature::guest_tso4 | net_feature::guest_tso6 |
        net_feature::guest_ecn,
    Balloon::feature_reporting,
    feature::indirect_descriptors | feature::event_index,
    ~feature::version_1,
    net_feature::checksum | net_feature::host_ecn | net_feature::status};

constexpr std::uint64_t rings_of(std::uint64_t queue) { return 0x1000 * (queue + 1); }
constexpr std::uint64_t available_of(std::uint64_t queue) { return rings_of(queue) + 0x400; }

sockaddr_un address_of(const std::string& path) {
    sockaddr_un address{};
    address.sun_family = AF_UNIX;
    check(path.size() < sizeof(address.sun_path), "the path is short enough");
    std::ranges::copy(path, address.sun_path);
    return address;
}

vmsuperio::UniqueFd unix_socket() {
    vmsuperio::UniqueFd fd(::socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0));
    check(static_cast<bool>(fd), "there are sockets");
    return fd;
}

// The other ends of the socket device: programs that connect to it, and one to which the guest can connect.
class HostPrograms {
public:
    explicit HostPrograms(const HostFiles& files)
        : device_(address_of(files / "v.sock")), listener_(unix_socket()) {
        const sockaddr_un own = address_of(files / ("v.sock_" + std::to_string(DeviceHost::host_port)));
        check(::bind(listener_.get(), reinterpret_cast<const sockaddr*>(&own), sizeof(own)) == 0 &&
                  ::listen(listener_.get(), 64) == 0,
              "a socket listens");
    }

    // Nothing is left for the next input.
    void forget_all() {
        ends_.clear();
        while (vmsuperio::UniqueFd(::accept4(listener_.get(), nullptr, nullptr, SOCK_CLOEXEC))) {
        }
    }

    void act(std::uint8_t what, const Trace& trace) {
        constexpr std::size_t most = 16;
        constexpr std::string_view connect_line = "CONNECT 5\nmore";
        trace("host's program does ", what & 7U);
        vmsuperio::UniqueFd* const end = ends_.empty() ? nullptr : &ends_.back();
        std::array<char, 4096> bytes{};
        switch (what & 7U) {
            case 0:
                if (ends_.size() < most) {
                    vmsuperio::UniqueFd fd = unix_socket();
                    (void)::connect(fd.get(), reinterpret_cast<const sockaddr*>(&device_), sizeof(device_));
                    (void)::send(fd.get(), connect_line.data(), connect_line.size(), MSG_NOSIGNAL);
                    ends_.push_back(std::move(fd));
                }
                break;
            case 1:
                if (ends_.size() < most) {
                    vmsuperio::UniqueFd fd(
                        ::accept4(listener_.get(), nullptr, nullptr, SOCK_NONBLOCK | SOCK_CLOEXEC));
                    if (fd) {
                        ends_.push_back(std::move(fd));
                    }
                }
                break;
            case 2:
                if (end != nullptr) {
                    (void)::send(end->get(), bytes.data(), bytes.size(), MSG_NOSIGNAL);
                }
                break;
            case 3:
                while (end != nullptr && ::recv(end->get(), bytes.data(), bytes.size(), 0) > 0) {
                }
                break;
            case 4:
                if (end != nullptr) {
                    ::shutdown(end->get(), SHUT_WR);
                }
                break;
            case 5:
                if (end != nullptr) {
                    ::shutdown(end->get(), SHUT_RD);
                }
                break;
            case 6:
                if (end != nullptr) {
                    ends_.pop_back();
                }
                break;
            default:
                if (end != nullptr) {
                    std::rotate(ends_.begin(), ends_.begin() + 1, ends_.end());
                }
                break;
        }
    }

private:
    sockaddr_un device_;
    vmsuperio::UniqueFd listener_;
    std::vector<vmsuperio::UniqueFd> ends_;
};

class Machine {
public:
    Machine(DeviceHost::Kind kind, const HostFiles& files)
        : host_(kind, files, false),
          transport_(std::make_unique<MmioTransport>(memory, host_.make(counters_, events_, memory),
                                                     vmsuperio::EventFdTrigger::create().value())),
          notifications_(counters_["notifications"]) {}

    void write(std::uint64_t offset, std::uint32_t value) {
        std::array<std::uint8_t, 4> bytes{};
        std::memcpy(bytes.data(), &value, sizeof(value));
        const std::uint64_t before = notifications_.value();
        transport_->mmio_write({0}, offset, bytes);
        // An input does not have another meaning because a thread of the device is late.
        if (offset == mmio::queue_notify && host_.has_thread() &&
            value < transport_->device().queue_sizes().size()) {
            const auto end = std::chrono::steady_clock::now() + std::chrono::seconds(20);
            while (notifications_.value() == before) {
                check(std::chrono::steady_clock::now() < end, "the device's thread serves a notification");
                std::this_thread::yield();
            }
        }
    }
    std::uint32_t read(std::uint64_t offset) {
        std::array<std::uint8_t, 4> bytes{};
        transport_->mmio_read({0}, offset, bytes);
        std::uint32_t value = 0;
        std::memcpy(&value, bytes.data(), sizeof(value));
        return value;
    }
    void access_config(std::uint64_t offset, std::span<std::uint8_t> bytes, bool write) {
        if (write) {
            transport_->mmio_write({0}, mmio::config + offset, bytes);
        } else {
            transport_->mmio_read({0}, mmio::config + offset, bytes);
        }
    }
    void start(std::uint64_t without = 0) {
        write(mmio::status, 0);
        check_equal(read(mmio::status), 0, "the device is reset");
        write(mmio::status, status::acknowledge);
        write(mmio::status, status::acknowledge | status::driver);
        for (std::uint32_t i = 0; i < 2; ++i) {
            write(mmio::device_features_sel, i);
            write(mmio::driver_features_sel, i);
            write(mmio::driver_features,
                  read(mmio::device_features) & ~static_cast<std::uint32_t>(without >> (32U * i)));
        }
        constexpr std::uint32_t ready = status::acknowledge | status::driver | status::features_ok;
        write(mmio::status, ready);
        check_equal(read(mmio::status), ready, "the device accepts its own features");
        for (std::uint32_t i = 0; i < transport_->device().queue_sizes().size(); ++i) {
            check(memory.write_object(available_of(i), std::uint32_t{0}), "in RAM");
            write(mmio::queue_sel, i);
            write(mmio::queue_num, queue_size);
            write(mmio::queue_desc_low, static_cast<std::uint32_t>(rings_of(i)));
            write(mmio::queue_driver_low, static_cast<std::uint32_t>(available_of(i)));
            write(mmio::queue_device_low, static_cast<std::uint32_t>(rings_of(i) + 0x800));
            write(mmio::queue_ready, 1);
        }
        write(mmio::status, ready | status::driver_ok);
    }
    void run_events() {
        std::size_t turns = 0;
        while (events_.run_once(0) != 0) {
            check(++turns < most_turns, "the event loop comes to rest");
        }
    }

    void write_descriptor(std::uint64_t queue, std::uint16_t index, std::uint64_t address,
                          std::uint32_t length, std::uint16_t flags, std::uint16_t next) {
        const std::uint64_t at = rings_of(queue) + std::uint64_t{16} * index;
        check(memory.write_object(at, address) && memory.write_object(at + 8, length) &&
                  memory.write_object(at + 12, flags) && memory.write_object(at + 14, next),
              "in RAM");
    }
    void offer(std::uint32_t queue, std::uint16_t head) {
        const std::uint64_t ring = available_of(queue);
        const std::uint16_t index = memory.read_object<std::uint16_t>(ring + 2).value_or(0);
        check(memory.write_object(ring + 4 + std::uint64_t{2} * (index % queue_size), head) &&
                  memory.write_object(ring + 2, static_cast<std::uint16_t>(index + 1)),
              "in RAM");
        write(mmio::queue_notify, queue);
    }
    // Another process continues with the state of this one, perhaps after a change of the device's part.
    void restore(std::size_t where, std::uint8_t change) {
        MmioState state = transport_->state();
        if (!state.device.empty()) {
            state.device.at(where % state.device.size()) ^= change;
        }
        transport_.reset();
        transport_ = std::make_unique<MmioTransport>(memory, host_.make(counters_, events_, memory),
                                                     vmsuperio::EventFdTrigger::create().value());
        if (const auto restored = transport_->restore(state)) {
            check_equal(read(mmio::status) & ~status::needs_reset, state.status & ~status::needs_reset,
                        "the status is the saved one");
        } else {
            check(!restored.error().empty(), "there is a reason");
            check(change != 0 || kind() == DeviceHost::Kind::file_system ||
                      (state.status & status::needs_reset) != 0 || restored.error() == "queues",
                  "only a mounted share, or a driver that has broken its rings, is refused");
            check_equal(read(mmio::status), 0, "nothing has changed");
        }
    }
    [[nodiscard]] DeviceHost::Kind kind() const noexcept { return host_.kind(); }
    // What a host does to a device that is not the socket device.
    void act(std::uint8_t what) {
        if (kind() == DeviceHost::Kind::network) {
            if (what % 2 == 0) {
                host_.network().change_link();
            } else {
                host_.network().refuse_next_frame();
            }
        } else if (auto* const console = dynamic_cast<Console*>(&transport_->device())) {
            if (what == 0xFF) {
                console->take_last_output();
                check(console->unsent() == 0, "the null device takes all output");
                write(mmio::status, 0);
            } else {
                host_.type(std::string(std::size_t{16} * what, 'i'));
            }
        }
    }

    GuestMemory memory{ram};

private:
    DeviceHost host_;
    EventManager events_;
    Counters counters_;
    std::unique_ptr<MmioTransport> transport_;
    const Counter& notifications_;
};

void send_request(Machine& machine, Input& input, const Trace& trace) {
    constexpr std::uint32_t most = answer_at - request_at;
    kvm_vmm::test::HonestRequest request = kvm_vmm::test::honest_request(machine.kind());
    const std::uint8_t how = input.byte();
    const std::uint32_t queue = (request.queue + (how >> 4U) % 4U) % 4U;
    if ((how & 0x40U) != 0) {
        constexpr std::uint32_t exact = 0xC0;  // beyond it in units of 512 bytes
        const std::uint32_t length = input.byte();
        request.sent.resize(std::min(length < exact ? length : (length - exact) * 512, most));
    }
    const auto size = static_cast<std::uint32_t>(request.sent.size());
    // The length in a header is right, unless it is patched.
    if (machine.kind() == DeviceHost::Kind::file_system) {
        kvm_vmm::test::store(request.sent, 0, size);
    } else if (machine.kind() == DeviceHost::Kind::socket && size > sizeof(VsockHeader)) {
        kvm_vmm::test::store(request.sent, offsetof(VsockHeader, len),
                             static_cast<std::uint32_t>(size - sizeof(VsockHeader)));
    }
    for (unsigned i = how & 15U; i != 0; --i) {
        const std::uint8_t offset = input.byte();
        const std::uint8_t value = input.byte();
        if (offset < request.sent.size()) {
            request.sent.at(offset) = value;
        }
    }
    if ((how & 0x80U) != 0) {
        request.received.push_back(0x2000);
    }
    trace("driver sends a request of ", size, " bytes in queue ", queue);
    check(machine.memory.write(request_at, request.sent), "in RAM");
    constexpr std::uint16_t head = 8;
    std::uint16_t index = head;
    const std::size_t parts = request.received.size() + (size != 0 ? 1 : 0);
    const auto add = [&](std::uint64_t address, std::uint32_t length, std::uint32_t flags) {
        const bool last = index + 1U == head + parts;
        machine.write_descriptor(queue, index, address, length,
                                 static_cast<std::uint16_t>(flags | (last ? 0U : 1U)),
                                 static_cast<std::uint16_t>(index + 1));
        ++index;
    };
    if (size != 0) {
        add(request_at, size, 0);
    }
    std::uint64_t at = answer_at;
    for (const std::uint32_t length : request.received) {
        add(at, length, 2);
        at += length;
    }
    if (parts != 0) {
        machine.offer(queue, head);
    }
}

void operate(Machine& machine, HostPrograms& programs, Input& input, const Trace& trace) {
    const std::uint8_t operation = input.byte();
    if (operation >= 0xE0) {
        const std::uint8_t what = input.byte();
        if (machine.kind() == DeviceHost::Kind::socket) {
            programs.act(what, trace);
        } else {
            trace("host does ", Hex{what});
            machine.act(what);
        }
        return;
    }
    if (operation >= 0xD0) {
        const std::uint16_t where = input.u16();
        const std::uint8_t change = input.byte();
        trace("the device is saved and restored, byte ", where, " with ", Hex{change});
        machine.restore(where, change);
        return;
    }
    if (operation >= 0xC0) {
        send_request(machine, input, trace);
        return;
    }
    switch (operation % 8U) {
        case 0: {
            const std::size_t length = input.byte() % 16U + 1U;
            const std::uint64_t at = input.u16() % (ram - 16);
            const auto bytes = input.bytes(length);
            trace("driver writes ", bytes.size(), " bytes at ", Hex{at});
            check(machine.memory.write(at, bytes), "in RAM");
            break;
        }
        case 1: {
            const std::uint8_t place = input.byte();
            const std::uint64_t address = buffers_at + input.u16();
            const std::uint32_t length = input.u16();
            const auto flags = static_cast<std::uint16_t>(input.byte() % 8U);
            const std::uint16_t next = input.byte();
            trace("descriptor ", place & 15U, " of queue ", place >> 6U, ": ", Hex{address}, ", ", length,
                  ", flags ", flags, ", next ", next);
            machine.write_descriptor(place >> 6U, place & 15U, address, length, flags, next);
            break;
        }
        case 2: {
            const std::uint8_t place = input.byte();
            trace("driver offers ", place & 15U, " in queue ", place >> 6U);
            machine.offer(place >> 6U, place & 15U);
            break;
        }
        case 3: {
            const std::uint64_t offset = std::uint64_t{4} * input.byte();
            const std::uint32_t value = input.u32();
            trace("register ", Hex{offset}, " = ", Hex{value});
            machine.write(offset, value);
            (void)machine.read(offset);
            break;
        }
        case 4: {
            const std::uint8_t offset = input.byte();
            const std::uint8_t how = input.byte();
            std::array<std::uint8_t, 8> bytes{};
            const auto given = input.bytes(bytes.size());
            std::ranges::copy(given, bytes.begin());
            trace("configuration space: ", (how & 0x80U) != 0 ? "write" : "read", " at ", offset);
            machine.access_config(offset, std::span(bytes).first(how % 8U + 1U), (how & 0x80U) != 0);
            break;
        }
        case 5:
            trace("events");
            machine.run_events();
            break;
        case 6:
            trace("driver starts the device, without features ", operation / 8U % left_out.size());
            machine.start(left_out.at(operation / 8U % left_out.size()));
            break;
        default: {
            const std::uint8_t queue = input.byte();
            trace("driver notifies queue ", queue);
            machine.write(mmio::queue_notify, queue);
            break;
        }
    }
}

}  // namespace

void run_target(Input& input, const Trace& trace) {
    // What is the same for all inputs: no input can change it but for the disk's content.
    static const HostFiles files;
    static HostPrograms programs(files);
    static const bool quiet = [] {
        kvm_vmm::open_log(vmsuperio::UniqueFd(::open("/dev/null", O_WRONLY | O_CLOEXEC)),
                          kvm_vmm::LogLevel::error);
        return true;
    }();
    (void)quiet;
    const std::uint8_t options = input.byte();
    const DeviceHost::Kind kind = DeviceHost::all.at((options & 7U) % DeviceHost::all.size());
    trace("device ", DeviceHost::name_of(kind));
    Machine machine(kind, files);
    if ((options & 0x80U) == 0) {
        machine.start();
    }
    while (!input.empty()) {
        operate(machine, programs, input, trace);
    }
    machine.run_events();
    machine.write(mmio::status, 0);
    check_equal(machine.read(mmio::status), 0, "the device is reset");
    machine.run_events();
    programs.forget_all();
}

}  // namespace fuzz
