// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
#pragma once

// One device of each type of virtio, with a host of its own: for tests and for the fuzz target, which treat all
// devices alike. It does not need a test framework.
#include <array>
#include <atomic>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <deque>
#include <fcntl.h>
#include <filesystem>
#include <fstream>
#include <memory>
#include <mutex>
#include <optional>
#include <span>
#include <stdexcept>
#include <string>
#include <string_view>
#include <sys/epoll.h>
#include <unistd.h>
#include <utility>
#include <vector>

#include <vmsuperio/linux/eventfd.hpp>
#include <vmsuperio/linux/unique_fd.hpp>

#include "console/listening_socket.hpp"
#include "console/serial_backend.hpp"
#include "event/event_manager.hpp"
#include "memory/guest_memory.hpp"
#include "observe/counters.hpp"
#include "virtio/balloon.hpp"
#include "virtio/block.hpp"
#include "virtio/console.hpp"
#include "virtio/disk_image.hpp"
#include "virtio/entropy.hpp"
#include "virtio/fs.hpp"
#include "virtio/make_disk_engine.hpp"
#include "virtio/net.hpp"
#include "virtio/net_backend.hpp"
#include "virtio/vsock.hpp"

namespace kvm_vmm::test {

/// A directory, which the destructor removes, with a file of 1 MiB, and a directory with two files.
class HostFiles {
public:
    HostFiles() {
        std::string name = (std::filesystem::temp_directory_path() / "kvm_vmm_devices_XXXXXX").string();
        if (::mkdtemp(name.data()) == nullptr) {
            throw std::runtime_error("cannot create a directory");
        }
        path_ = name;
        std::filesystem::create_directories(path_ / "share" / "below");
        write("disk.img", std::string(disk_size, 'd'));
        write("share/a", std::string(5000, 'a'));
        write("share/below/b", "b");
    }
    ~HostFiles() {
        std::error_code ignored;
        std::filesystem::remove_all(path_, ignored);
    }
    HostFiles(const HostFiles&) = delete;
    HostFiles& operator=(const HostFiles&) = delete;

    static constexpr std::size_t disk_size = std::size_t{1} << 20U;
    [[nodiscard]] std::string operator/(const std::string& name) const { return (path_ / name).string(); }

private:
    void write(const std::string& name, const std::string& content) const {
        std::ofstream(path_ / name, std::ios::binary) << content;
    }
    std::filesystem::path path_;
};

/// A network that returns each frame to its sender, with its header. It keeps a few, and has no room while it has those.
class EchoNetwork final : public virtio::NetBackend {
public:
    [[nodiscard]] virtio::NetOffloads offloads() const noexcept override {
        return {.checksum = true, .tso4 = true, .tso6 = true, .ecn = true};
    }
    [[nodiscard]] std::string identity() const override { return "echo"; }
    void attach(EventManager& events, Client& client) override {
        events_ = &events;
        client_ = &client;
        const auto subscription = events.add(wake_.fd(), EPOLLIN, [this](std::uint32_t) { on_wake(); });
        subscription_ = subscription.value();
    }
    void detach() noexcept override {
        if (client_ != nullptr) {
            events_->remove(subscription_);
            client_ = nullptr;
        }
    }
    void want_frames(bool wanted) override {
        const std::lock_guard lock(mutex_);
        wanted_ = wanted;
        wake_if_needed();
    }
    void want_room() override {
        const std::lock_guard lock(mutex_);
        room_wanted_ = true;
        wake_if_needed();
    }
    [[nodiscard]] bool link_up() const noexcept override { return link_up_.load(); }
    /// For the thread of the event loop.
    void change_link() {
        link_up_ = !link_up_;
        if (client_ != nullptr) {
            client_->link_changed();
        }
    }
    void refuse_next_frame() {
        const std::lock_guard lock(mutex_);
        refuses_ = true;
    }
    [[nodiscard]] std::optional<std::size_t> receive(virtio::NetHeader& header,
                                                     std::span<const iovec> pieces) override {
        const std::lock_guard lock(mutex_);
        if (frames_.empty()) {
            return std::nullopt;
        }
        const auto [its_header, frame] = std::move(frames_.front());
        frames_.pop_front();
        header = its_header;
        std::span<const std::uint8_t> rest = frame;
        for (const iovec& piece : pieces) {
            const std::size_t count = std::min(piece.iov_len, rest.size());
            copy_to_guest(static_cast<std::uint8_t*>(piece.iov_base), rest.first(count));
            rest = rest.subspan(count);
        }
        wake_if_needed();
        return frame.size();
    }
    [[nodiscard]] Sent send(const virtio::NetHeader& header, std::span<const iovec> pieces,
                            std::size_t length) override {
        const std::lock_guard lock(mutex_);
        if (std::exchange(refuses_, false)) {
            return Sent::refused;
        }
        if (frames_.size() >= most_frames) {
            frames_.pop_front();  // no receiver: a frame is lost, as in other networks
            return Sent::not_now;
        }
        std::vector<std::uint8_t> frame;
        for (const iovec& piece : pieces) {
            append_from_guest(frame, static_cast<const std::uint8_t*>(piece.iov_base), piece.iov_len);
        }
        if (frame.size() != length || length < virtio::min_frame || length > virtio::max_frame) {
            std::abort();
        }
        frames_.emplace_back(header, std::move(frame));
        wake_if_needed();
        return Sent::yes;
    }

private:
    static constexpr std::size_t most_frames = 8;

    // With mutex_ locked.
    void wake_if_needed() {
        if ((wanted_ && !frames_.empty()) || (room_wanted_ && frames_.size() < most_frames)) {
            [[maybe_unused]] const auto triggered = wake_.trigger();
        }
    }
    void on_wake() {
        bool frames = false;
        bool room = false;
        {
            const std::lock_guard lock(mutex_);
            [[maybe_unused]] const auto count = wake_.take();
            frames = wanted_ && !frames_.empty();
            room = std::exchange(room_wanted_, false);
        }
        if (frames) {
            client_->frames_arrived();
        }
        if (room) {
            client_->room_is_free();
        }
    }

    vmsuperio::EventFdTrigger wake_{vmsuperio::EventFdTrigger::create().value()};
    EventManager* events_{};
    EventManager::SubscriptionId subscription_{};
    Client* client_{};
    std::mutex mutex_;
    std::deque<std::pair<virtio::NetHeader, std::vector<std::uint8_t>>> frames_;
    std::atomic<bool> link_up_{true};
    bool refuses_{false};
    bool wanted_{false};
    bool room_wanted_{false};
};

/// The host's side of one device. It must outlive the device.
class DeviceHost {
public:
    enum class Kind : std::uint8_t {
        entropy,
        block_thread,
        block_uring,
        network,
        console,
        file_system,
        socket,
        balloon
    };
    static constexpr std::array all{Kind::entropy, Kind::block_thread, Kind::block_uring, Kind::network,
                                    Kind::console, Kind::file_system,  Kind::socket,      Kind::balloon};
    static constexpr std::string_view name_of(Kind kind) {
        constexpr std::array<std::string_view, all.size()> names{"rng0",     "disk0",  "disk1",  "net0",
                                                                 "console0", "share0", "vsock0", "balloon0"};
        return names.at(static_cast<std::size_t>(kind));
    }
    static constexpr std::uint64_t guest_cid = 7;
    /// Where a program of the host listens for connections of the guest, if one does.
    static constexpr std::uint32_t host_port = 2;

    /// `writable` is for the shared directory.
    DeviceHost(Kind kind, const HostFiles& files, bool writable) : kind_(kind), writable_(writable) {
        switch (kind) {
            case Kind::block_thread:
            case Kind::block_uring:
                disk_.emplace(virtio::DiskConfig{.path = files / "disk.img"});
                break;
            case Kind::console:
                null_ = vmsuperio::UniqueFd(::open("/dev/null", O_WRONLY | O_CLOEXEC));
                if (std::array<int, 2> ends{}; ::pipe2(ends.data(), O_CLOEXEC | O_NONBLOCK) == 0) {
                    input_ = vmsuperio::UniqueFd(ends[0]);
                    typed_ = vmsuperio::UniqueFd(ends[1]);
                }
                console_ = use_descriptors(input_.get(), null_.get());
                break;
            case Kind::file_system:
                root_.emplace(files / "share");
                break;
            case Kind::socket:
                socket_.emplace(
                    files / "v.sock",
                    ListeningSocket::Use{.name = "vsock socket", .longest_suffix = 11, .backlog = 16});
                socket_->listen();
                break;
            default:
                break;
        }
    }

    /// The network of a network device.
    [[nodiscard]] EchoNetwork& network() noexcept { return network_; }
    /// A console gets as much of this input as it has room for. Other devices have none.
    void type(std::string_view text) const {
        if (typed_) {
            [[maybe_unused]] const ssize_t taken = ::write(typed_.get(), text.data(), text.size());
        }
    }
    /// Whether the device has an event loop of its own, and thus does not use `events`.
    [[nodiscard]] bool has_thread() const noexcept {
        return kind_ == Kind::block_thread || kind_ == Kind::block_uring || kind_ == Kind::file_system;
    }
    [[nodiscard]] Kind kind() const noexcept { return kind_; }
    [[nodiscard]] std::shared_ptr<virtio::Device> make(Counters& counters, EventManager& events,
                                                       const GuestMemory& memory) {
        const std::string_view name = name_of(kind_);
        switch (kind_) {
            case Kind::block_thread:
            case Kind::block_uring:
                return std::make_shared<virtio::Block>(
                    name, counters, *disk_, virtio::Block::Options{.id = "serial", .queues = 2},
                    [this, name](virtio::DiskFile& file) {
                        // Where the host has no io_uring the other engine serves both.
                        return virtio::make_disk_engine(kind_ == Kind::block_thread
                                                            ? virtio::DiskEngineKind::threads
                                                            : virtio::DiskEngineKind::automatic,
                                                        name, file);
                    });
            case Kind::network:
                return std::make_shared<virtio::Net>(
                    "net0", counters, network_, virtio::Net::Settings{.mac = {2, 1, 2, 3, 4, 5}}, &events);
            case Kind::console:
                return std::make_shared<virtio::Console>(name, counters, events, *console_,
                                                         [](ConsoleCommand) {});
            case Kind::file_system:
                return std::make_shared<virtio::FileSystem>(
                    name, counters, *root_, writable_, "tag",
                    virtio::SharedDirectory::Limits{.objects = 64, .handles = 16});
            case Kind::socket:
                return std::make_shared<virtio::Vsock>(name, counters, events, guest_cid, *socket_);
            case Kind::balloon:
                return std::make_shared<virtio::Balloon>(
                    name, counters, memory, events,
                    virtio::BalloonConfig{.target = 2 * virtio::Balloon::page_size});
            default:
                return std::make_shared<virtio::Entropy>(name, counters, events);
        }
    }

private:
    Kind kind_;
    bool writable_;
    std::optional<virtio::DiskImage> disk_;
    EchoNetwork network_;
    vmsuperio::UniqueFd null_;
    vmsuperio::UniqueFd input_;
    vmsuperio::UniqueFd typed_;
    std::unique_ptr<SerialBackend> console_;
    std::optional<virtio::SharedRoot> root_;
    std::optional<ListeningSocket> socket_;
};

/// A request that the device of that kind serves, whatever else its driver does: which queue it is for, and the
/// readable and writable parts.
struct HonestRequest {
    std::uint32_t queue{0};
    std::vector<std::uint8_t> sent{};
    std::vector<std::uint32_t> received{};
};

template <class T>
void store(std::vector<std::uint8_t>& bytes, std::size_t offset, T value) {
    bytes.resize(std::max(bytes.size(), offset + sizeof(T)));
    std::memcpy(bytes.data() + offset, &value, sizeof(T));
}

inline HonestRequest honest_request(DeviceHost::Kind kind) {
    HonestRequest request;
    switch (kind) {
        case DeviceHost::Kind::block_thread:
        case DeviceHost::Kind::block_uring:  // reads sector 0 (5.2.6)
            request.sent.resize(16);
            request.received = {512, 1};
            break;
        case DeviceHost::Kind::network:  // a frame without offloads (5.1.6)
            request.queue = 1;
            request.sent.resize(12 + 60);
            break;
        case DeviceHost::Kind::console:
            request.queue = 1;
            request.sent = {'h', 'i'};
            break;
        case DeviceHost::Kind::file_system:  // FUSE_INIT of version 7.31
            request.queue = 1;
            store<std::uint32_t>(request.sent, 0, 104);  // struct fuse_in_header: length, opcode, unique id
            store<std::uint32_t>(request.sent, 4, 26);
            store<std::uint64_t>(request.sent, 8, 1);
            store<std::uint32_t>(request.sent, 40, 7);  // struct fuse_init_in
            store<std::uint32_t>(request.sent, 44, 31);
            request.sent.resize(104);
            request.received = {16, 64};
            break;
        case DeviceHost::Kind::balloon:  // a page that is not used otherwise
            store<std::uint32_t>(request.sent, 0, 0x300);
            break;
        case DeviceHost::Kind::socket: {  // a request to a port without a listener (5.10.6)
            const virtio::VsockHeader header{.src_cid = DeviceHost::guest_cid,
                                             .dst_cid = virtio::vsock::host_cid,
                                             .src_port = 1,
                                             .dst_port = DeviceHost::host_port,
                                             .len = 0,
                                             .type = virtio::vsock::type_stream,
                                             .op = virtio::vsock::op_request,
                                             .flags = 0,
                                             .buf_alloc = 4096,
                                             .fwd_cnt = 0};
            request.queue = 1;
            const auto bytes = virtio::bytes_of(header);
            request.sent.assign(bytes.begin(), bytes.end());
            break;
        }
        default:
            request.received = {16};
            break;
    }
    return request;
}

}  // namespace kvm_vmm::test
