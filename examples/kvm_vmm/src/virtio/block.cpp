// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
#include "virtio/block.hpp"

#include <algorithm>
#include <array>
#include <bit>
#include <cstring>
#include <sys/epoll.h>
#include <system_error>
#include <utility>

#include "memory/shared_copy.hpp"
#include "util/error.hpp"
#include "util/log.hpp"
#include "virtio/device_states.hpp"
#include "virtio/disk_config.hpp"

namespace kvm_vmm::virtio {
namespace {

constexpr std::uint64_t sector_size = 512;
constexpr std::uint32_t unmap_flag = 1;  // of a write of zeros (5.2.6)

std::string_view to_string(DiskIo::Operation operation) noexcept {
    switch (operation) {
        case DiskIo::Operation::read:
            return "a read";
        case DiskIo::Operation::write:
            return "a write";
        case DiskIo::Operation::flush:
            return "a flush";
        case DiskIo::Operation::discard:
            return "a discard";
        case DiskIo::Operation::write_zeroes:
            return "a write of zeros";
    }
    return "a request";
}

std::optional<TokenBucket> make_limit(const std::optional<std::uint64_t>& rate,
                                      std::chrono::nanoseconds now) {
    // The burst is what a tenth of a second allows: short enough not to be noticed as a pause afterwards.
    return rate ? std::optional<TokenBucket>(std::in_place, *rate, *rate / 10, now) : std::nullopt;
}

}  // namespace

/// The configuration space (5.2.4).
struct Block::Config {
    std::uint64_t capacity;  // sectors
    std::uint32_t size_max;
    std::uint32_t seg_max;
    std::array<std::uint8_t, 4> geometry;
    std::uint32_t blk_size;
    std::uint8_t physical_block_exp;
    std::uint8_t alignment_offset;
    std::uint16_t min_io_size;
    std::uint32_t opt_io_size;
    std::uint8_t writeback;
    std::uint8_t unused0;
    std::uint16_t num_queues;
    std::uint32_t max_discard_sectors;
    std::uint32_t max_discard_seg;
    std::uint32_t discard_sector_alignment;
    std::uint32_t max_write_zeroes_sectors;
    std::uint32_t max_write_zeroes_seg;
    std::uint8_t write_zeroes_may_unmap;
    std::array<std::uint8_t, 3> unused1;
};

struct Block::Request final : DiskIo {
    Request(std::size_t of_queue, Chain of_chain, DiskIo io)
        : DiskIo(std::move(io)), queue(of_queue), chain(std::move(of_chain)) {}

    std::size_t queue;
    Chain chain;
};

Block::Block(std::string_view name, Counters& counters, DiskFile& file, Options options,
             const MakeEngine& make_engine)
    : Device(name, counters),
      file_(file),
      options_(std::move(options)),
      sizes_(std::max<std::size_t>(options_.queues, 1), queue_size),
      engine_(make_engine(file)),
      requests_(sizes_.size() * queue_size),
      in_progress_(sizes_.size()),
      bytes_limit_(make_limit(options_.bytes_per_second, now())),
      requests_limit_(make_limit(options_.requests_per_second, now())),
      throttled_(sizes_.size()),
      reads_(counters["reads"]),
      writes_(counters["writes"]),
      flushes_(counters["flushes"]),
      discards_(counters["discards"]),
      write_zeroes_(counters["write_zeroes"]),
      bytes_read_(counters["bytes_read"]),
      bytes_written_(counters["bytes_written"]),
      io_errors_(counters["io_errors"]),
      rejected_(counters["rejected"]),
      throttles_(counters["throttled"]),
      resizes_(counters["resizes"]),
      thread_(std::string(name), sandbox::Role::disk) {
    engine_subscription_ = thread_.events().subscribe(engine_->fd(), EPOLLIN, "the requests of a disk",
                                                      [this](std::uint32_t) { on_engine_ready(); });
    limit_timer_.emplace(thread_.events(), CLOCK_MONOTONIC, [this] { on_limit_passed(); });
    size_check_subscription_ = thread_.events().subscribe(size_check_.fd(), EPOLLIN, "the size of a disk",
                                                          [this](std::uint32_t) { on_size_check(); });
}

Block::~Block() {
    thread_.stop();
    const LockGuard lock(mutex());
    on_reset();
    limit_timer_.reset();
    thread_.events().remove(engine_subscription_);
    thread_.events().remove(size_check_subscription_);
}

std::chrono::nanoseconds Block::now() noexcept { return std::chrono::steady_clock::now().time_since_epoch(); }

std::uint64_t Block::features() const noexcept {
    const DiskFacts& facts = file_.facts();
    std::uint64_t bits = block_feature::seg_max | block_feature::block_size | block_feature::topology |
                         block_feature::flush | block_feature::config_wce;
    bits |= sizes_.size() > 1 ? block_feature::multi_queue : 0;
    if (facts.read_only) {
        return bits | block_feature::read_only;
    }
    return bits | block_feature::write_zeroes | (facts.can_discard ? block_feature::discard : 0);
}

bool Block::writes_through() const noexcept {
    return (negotiated() & block_feature::flush) == 0 || !writeback_;
}

void Block::on_read_config(std::uint64_t offset, std::span<std::uint8_t> data) const {
    const DiskFacts& facts = file_.facts();
    const std::uint32_t blocks_in_physical = std::max(facts.physical_block / facts.logical_block, 1U);
    Config config{};
    config.capacity = facts.size / sector_size;
    config.seg_max = max_segments;
    config.blk_size = facts.logical_block;
    config.physical_block_exp = static_cast<std::uint8_t>(std::bit_width(blocks_in_physical) - 1);
    config.min_io_size = static_cast<std::uint16_t>(blocks_in_physical);
    config.writeback = active() && writes_through() ? 0 : 1;
    config.num_queues = static_cast<std::uint16_t>(sizes_.size());
    if (!facts.read_only) {
        if (facts.can_discard) {
            config.max_discard_sectors = max_discard_sectors;
            config.max_discard_seg = max_ranges;
            config.discard_sector_alignment =
                std::max(facts.discard_granularity / static_cast<std::uint32_t>(sector_size), 1U);
        }
        config.max_write_zeroes_sectors = max_write_zeroes_sectors;
        config.max_write_zeroes_seg = max_ranges;
        config.write_zeroes_may_unmap = facts.can_discard ? 1 : 0;
    }
    copy_config(config, offset, data);
}

void Block::on_write_config(std::uint64_t offset, std::span<const std::uint8_t> data) {
    constexpr std::uint64_t writeback_offset = offsetof(Config, writeback);
    if ((negotiated() & block_feature::config_wce) == 0 || offset > writeback_offset ||
        writeback_offset - offset >= data.size()) {
        return;
    }
    const std::uint8_t value = data[static_cast<std::size_t>(writeback_offset - offset)];
    if (value <= 1) {
        writeback_ = value == 1;
    }
}

void Block::on_activate() {
    if (std::exchange(resized_before_start_, false)) {
        config_changed();
    }
}

void Block::on_reset() {
    resized_before_start_ = false;
    limit_timer_->set(std::nullopt);
    throttled_.assign(throttled_.size(), false);
    engine_->cancel_all();
    for (std::unique_ptr<Request>& request : requests_) {
        request.reset();
    }
    in_progress_.assign(in_progress_.size(), 0);
    writeback_ = true;
}

void Block::on_queue_reset(std::size_t index) {
    stopped_queue_ = index;
    wait_for_queue(index);
    stopped_queue_.reset();
    throttled_[index] = false;
}

void Block::on_drain() {
    for (std::size_t i = 0; i < sizes_.size(); ++i) {
        wait_for_queue(i);
    }
}

std::vector<std::uint8_t> Block::on_state() const {
    const DiskFacts& facts = file_.facts();
    return vmsuperio::encode(BlockState{
        .capacity = facts.size / sector_size, .block_size = facts.logical_block, .writeback = writeback_});
}

std::expected<void, std::string_view> Block::on_restore_state(std::span<const std::uint8_t> bytes,
                                                              std::uint64_t features) {
    const auto state = decode_state<BlockState>(bytes);
    if (!state) {
        return std::unexpected(state.error());
    }
    // The driver has read these once, and will not read them again.
    if (state->capacity != file_.facts().size / sector_size) {
        return std::unexpected("capacity");
    }
    if (state->block_size != file_.facts().logical_block) {
        return std::unexpected("block_size");
    }
    if (!state->writeback && (features & block_feature::config_wce) == 0) {
        return std::unexpected("writeback");
    }
    writeback_ = state->writeback;
    return {};
}

void Block::wait_for_queue(std::size_t index) {
    while (in_progress_[index] != 0) {
        engine_->start();
        engine_->wait();
        take_ended();
    }
}

void Block::on_engine_ready() {
    const LockGuard lock(mutex());
    take_ended();
}

void Block::on_size_check() {
    size_check_.clear();
    // Only this thread changes the size. The lock is not held while the host looks, which may take long.
    const std::uint64_t before = file_.facts().size;
    const auto size = file_.find_size();
    if (!size) {
        log(LogLevel::warning, size.error());
        return;
    }
    if (*size == before) {
        return;
    }
    const LockGuard lock(mutex());
    file_.set_size(*size);
    resizes_.add();
    log(LogLevel::info, std::string(name()) + ": the disk has " + std::to_string(*size) +
                            " bytes now, after " + std::to_string(before));
    config_changed();
    resized_before_start_ = !active();
}

void Block::on_limit_passed() {
    const LockGuard lock(mutex());
    for (std::size_t i = 0; i < throttled_.size(); ++i) {
        if (throttled_[i]) {
            throttled_[i] = false;
            serve_queue(i);
        }
    }
}

void Block::on_notified(std::size_t index) { serve_queue(index); }

void Block::on_defective(std::size_t index, const Chain& chain) {
    rejected_.add();
    // The status is the last byte of the last buffer (5.2.6). What is before it is not filled, so the length is 0.
    if (!chain.last.empty()) {
        const std::array<std::uint8_t, 1> status{static_cast<std::uint8_t>(BlockStatus::io_error)};
        copy_to_guest(&chain.last.back(), status);
    }
    push(index, chain, 0);
}

void Block::serve_queue(std::size_t index) {
    if (throttled_[index]) {
        return;  // until the limit has passed
    }
    take_each(
        index,
        [this, index](Chain chain) KVM_VMM_REQUIRES(mutex()) {
            if (!admit(chain)) {
                undo_pop(index, chain);
                throttled_[index] = true;
                throttles_.add();
                return false;
            }
            begin(index, std::move(chain));
            return true;
        },
        [this, index]() KVM_VMM_REQUIRES(mutex()) {
            engine_->start();
            take_ended();
            publish(index);
        });
}

// Whether the limits allow the request now; if not, the timer is set.
bool Block::admit(const Chain& chain) {
    if (!bytes_limit_ && !requests_limit_) {
        return true;
    }
    // What is not data: the header and the status.
    constexpr std::uint64_t frame = sizeof(Header) + 1;
    const std::uint64_t all = chain.readable.size() + chain.writable.size();
    const std::uint64_t bytes = all > frame ? all - frame : 0;
    const auto time = now();
    auto next = time;
    if (requests_limit_ && !requests_limit_->try_take(1, time)) {
        next = requests_limit_->next(time);
    } else if (bytes_limit_ && !bytes_limit_->try_take(bytes, time)) {
        if (requests_limit_) {
            requests_limit_->give_back(1);
        }
        next = bytes_limit_->next(time);
    } else {
        return true;
    }
    limit_timer_->set(next);
    return false;
}

bool Block::inside(std::uint64_t sector, std::uint64_t bytes) const noexcept {
    const std::uint64_t capacity = file_.facts().size / sector_size;
    return sector <= capacity && bytes <= (capacity - sector) * sector_size;
}

void Block::begin(std::size_t queue, Chain chain) {
    Header header{};
    std::array<std::uint8_t, sizeof(Header)> bytes{};
    if (chain.writable.empty() || chain.readable.read(0, bytes) != bytes.size()) {
        reject(queue, chain, BlockStatus::io_error);
        return;
    }
    std::memcpy(&header, bytes.data(), sizeof(header));
    switch (header.type) {
        case block_request::in:
        case block_request::out:
            begin_transfer(queue, std::move(chain), header);
            break;
        case block_request::flush:
            flushes_.add();
            submit(queue, std::move(chain), DiskIo(DiskIo::Operation::flush, {}, false));
            break;
        case block_request::get_id: {
            if (chain.readable.size() != sizeof(Header)) {
                reject(queue, chain, BlockStatus::io_error);
                break;
            }
            std::array<std::uint8_t, max_disk_id> id{};
            std::memcpy(id.data(), options_.id.data(), std::min(options_.id.size(), id.size()));
            const std::size_t room =
                static_cast<std::size_t>(std::min<std::uint64_t>(chain.writable.size() - 1, id.size()));
            answer(queue, chain, BlockStatus::ok, chain.writable.write(0, std::span(id).first(room)));
            break;
        }
        case block_request::discard:
        case block_request::write_zeroes:
            begin_ranges(queue, std::move(chain), header.type);
            break;
        default:
            reject(queue, chain, BlockStatus::unsupported);
            break;
    }
}

void Block::begin_transfer(std::size_t queue, Chain chain, const Header& header) {
    const bool reads = header.type == block_request::in;
    const Buffers data = reads ? chain.writable.part(0, chain.writable.size() - 1)
                               : chain.readable.part(sizeof(Header), chain.readable.size() - sizeof(Header));
    // Data in the direction of the other type would be ignored, as if the request had succeeded.
    const std::uint64_t other_direction =
        reads ? chain.readable.size() - sizeof(Header) : chain.writable.size() - 1;
    if (data.size() % sector_size != 0 || other_direction != 0 || !inside(header.sector, data.size()) ||
        (!reads && file_.facts().read_only)) {
        reject(queue, chain, BlockStatus::io_error);
        return;
    }
    (reads ? reads_ : writes_).add();
    if (data.empty()) {
        answer(queue, chain, BlockStatus::ok, 0);
        return;
    }
    DiskIo io(reads ? DiskIo::Operation::read : DiskIo::Operation::write, header.sector * sector_size, data,
              !reads && writes_through());
    submit(queue, std::move(chain), std::move(io));
}

void Block::begin_ranges(std::size_t queue, Chain chain, std::uint32_t type) {
    const bool discards = type == block_request::discard;
    if (file_.facts().read_only) {
        reject(queue, chain, BlockStatus::io_error);
        return;
    }
    // can_discard: of the file, which a restored device may have found in a worse state.
    const std::uint64_t needed = discards ? block_feature::discard : block_feature::write_zeroes;
    if ((negotiated() & needed) == 0 || (discards && !file_.facts().can_discard)) {
        reject(queue, chain, BlockStatus::unsupported);
        return;
    }
    const std::uint64_t size = chain.readable.size() - sizeof(Header);
    std::array<std::uint8_t, max_ranges * sizeof(RangeEntry)> bytes{};
    if (size == 0 || size % sizeof(RangeEntry) != 0 || size > bytes.size()) {
        reject(queue, chain, BlockStatus::io_error);
        return;
    }
    chain.readable.read(sizeof(Header), bytes);
    std::vector<DiskIo::Range> ranges;
    for (std::size_t at = 0; at < size; at += sizeof(RangeEntry)) {
        RangeEntry entry{};
        std::memcpy(&entry, bytes.data() + at, sizeof(entry));
        if ((entry.flags & ~(discards ? 0 : unmap_flag)) != 0) {
            reject(queue, chain, BlockStatus::unsupported);
            return;
        }
        const std::uint64_t length = entry.sectors * sector_size;
        if (entry.sectors > (discards ? max_discard_sectors : max_write_zeroes_sectors) ||
            !inside(entry.sector, length)) {
            reject(queue, chain, BlockStatus::io_error);
            return;
        }
        if (length != 0) {
            ranges.push_back({.offset = entry.sector * sector_size,
                              .length = length,
                              .unmap = (entry.flags & unmap_flag) != 0});
        }
    }
    (discards ? discards_ : write_zeroes_).add();
    submit(queue, std::move(chain),
           DiskIo(discards ? DiskIo::Operation::discard : DiskIo::Operation::write_zeroes, std::move(ranges),
                  writes_through()));
}

void Block::submit(std::size_t queue, Chain chain, DiskIo io) {
    std::unique_ptr<Request>& slot = requests_.at(queue * queue_size + chain.head);
    slot = std::make_unique<Request>(queue, std::move(chain), std::move(io));
    ++in_progress_[queue];
    engine_->submit(*slot);
}

void Block::take_ended() {
    ended_.clear();
    engine_->take_ended(ended_);
    if (ended_.empty()) {
        return;
    }
    for (DiskIo* const io : ended_) {
        end(static_cast<Request&>(*io));
    }
    publish_all();
}

void Block::end(Request& request) {
    const bool failed = request.error() != 0;
    if (request.operation() == DiskIo::Operation::read) {
        bytes_read_.add(request.done());
    } else if (request.operation() == DiskIo::Operation::write) {
        bytes_written_.add(request.done());
    }
    if (failed) {
        io_errors_.add();
        log_error(request);
    }
    if (stopped_queue_ != request.queue) {
        answer(request.queue, request.chain, failed ? BlockStatus::io_error : BlockStatus::ok,
               request.operation() == DiskIo::Operation::read ? request.done() : 0);
    }
    --in_progress_[request.queue];
    requests_[request.queue * queue_size + request.chain.head].reset();
}

// The first `filled` bytes of the buffers are filled already.
void Block::answer(std::size_t queue, const Chain& chain, BlockStatus status, std::uint64_t filled) {
    const std::uint64_t size = chain.writable.size();
    if (size != 0) {
        const Buffers rest = chain.writable.part(filled, size - 1 - filled);
        for (const Buffers::Piece piece : rest.pieces()) {
            zero_guest(piece);
        }
        const std::array<std::uint8_t, 1> byte{static_cast<std::uint8_t>(status)};
        chain.writable.write(size - 1, byte);
    }
    push(queue, chain, static_cast<std::uint32_t>(size));
}

// The answer to a request that is not valid.
void Block::reject(std::size_t queue, const Chain& chain, BlockStatus status) {
    rejected_.add();
    count_bad_request();
    answer(queue, chain, status, 0);
}

void Block::log_error(const DiskIo& io) const {
    std::string text = std::string(name()) + ": " + std::string(to_string(io.operation()));
    if (io.length() != 0) {
        text += " of " + std::to_string(io.length()) + " bytes at sector " +
                std::to_string(io.offset() / sector_size);
    }
    log(LogLevel::warning, errno_message(text + " failed", io.error()));
}

}  // namespace kvm_vmm::virtio
