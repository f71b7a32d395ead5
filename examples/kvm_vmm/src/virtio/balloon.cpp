// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
#include "virtio/balloon.hpp"

#include <algorithm>
#include <array>
#include <cstring>
#include <ctime>
#include <limits>
#include <utility>

#include "virtio/device_states.hpp"

namespace kvm_vmm::virtio {
namespace {

// How many pages are returned to the host, each by a system call, before other devices have their turn.
constexpr std::uint64_t pages_at_a_time = 1024;
// The same for reported ranges, which are longer and fewer.
constexpr std::uint64_t bytes_at_a_time = 64ULL << 20U;
// The largest array of page numbers in a request, 1 MiB of pages; Linux sends 256 numbers. What is longer is ignored.
constexpr std::uint64_t max_array = 64ULL * 1024;
constexpr std::uint16_t queue_size = 128;

// An entry of the statistics (5.5.6.3): a tag of 16 bits and, without padding, a value of 64 bits.
constexpr std::size_t stat_size = 10;
// What is read of a buffer of statistics. Linux 6.12 sends 16 entries.
constexpr std::uint64_t max_stats = 64;

// By tag: VIRTIO_BALLOON_S_SWAP_IN and so on.
constexpr std::array<std::string_view, Balloon::known_tags> stat_names{
    "guest_swap_in_bytes",       "guest_swap_out_bytes",    "guest_major_faults",
    "guest_minor_faults",        "guest_free_bytes",        "guest_total_bytes",
    "guest_available_bytes",     "guest_disk_caches_bytes", "guest_hugetlb_allocations",
    "guest_hugetlb_failures",    "guest_oom_kills",         "guest_allocation_stalls",
    "guest_async_scan_bytes",    "guest_direct_scan_bytes", "guest_async_reclaim_bytes",
    "guest_direct_reclaim_bytes"};

}  // namespace

Balloon::Balloon(std::string_view name, Counters& counters, const GuestMemory& memory, EventManager& events,
                 const BalloonConfig& config, std::chrono::milliseconds stats_interval)
    : Device(name, counters),
      memory_(memory),
      events_(events),
      config_(config),
      sizes_(config.free_page_reporting ? reporting_queue + 1 : stats_queue + 1, queue_size),
      inflated_(counters["inflated_bytes"]),
      deflated_(counters["deflated_bytes"]),
      reported_(counters["reported_bytes"]),
      ignored_(counters["ignored_pages"]),
      failed_(counters["host_errors"]),
      stats_interval_(stats_interval),
      stats_timer_(events, CLOCK_MONOTONIC, [this] { on_stats_interval(); }) {
    std::ranges::transform(stat_names, stats_.begin(),
                           [&counters](std::string_view name_of_stat) { return &counters[name_of_stat]; });
}

void Balloon::on_read_config(std::uint64_t offset, std::span<std::uint8_t> data) const {
    const ConfigSpace space{.target_pages = static_cast<std::uint32_t>(config_.target / page_size),
                            .actual_pages = actual_pages_};
    copy_config(space, offset, data);
}

void Balloon::on_write_config(std::uint64_t offset, std::span<const std::uint8_t> data) {
    std::array<std::uint8_t, sizeof(ConfigSpace)> bytes{};
    on_read_config(0, bytes);
    for (std::size_t i = 0; i < data.size() && offset + i < bytes.size(); ++i) {
        if (offset + i >= offsetof(ConfigSpace, actual_pages)) {
            bytes[static_cast<std::size_t>(offset) + i] = data[i];
        }
    }
    std::memcpy(&actual_pages_, bytes.data() + offsetof(ConfigSpace, actual_pages), sizeof(actual_pages_));
}

void Balloon::on_activate() {
    if (is_stats_queue(stats_queue)) {
        arm_stats_timer();
    }
}

void Balloon::on_reset() {
    actual_pages_ = 0;
    done_of_chain_ = {};
    has_stats_ = false;
    wants_stats_ = false;
    stats_timer_.set(std::nullopt);
}

void Balloon::on_queue_reset(std::size_t index) {
    done_of_chain_.at(index) = 0;
    if (is_stats_queue(index)) {
        has_stats_ = false;
        wants_stats_ = false;
    }
}

// What is known of a chain that stayed available says nothing about the next one: the driver may have changed a
// descriptor since.
void Balloon::on_defective(std::size_t index, const Chain& chain) {
    on_queue_reset(index);
    push(index, chain, 0);
}

// The pages of the balloon are in the saved memory as any others; what was done of a chain is done again.
std::vector<std::uint8_t> Balloon::on_state() const {
    BalloonState state{.target_pages = static_cast<std::uint32_t>(config_.target / page_size),
                       .actual_pages = actual_pages_,
                       .statistics = {}};
    std::ranges::transform(stats_, state.statistics.begin(),
                           [](const Counter* stat) { return stat->value(); });
    return vmsuperio::encode(state);
}

std::expected<void, std::string_view> Balloon::on_restore_state(std::span<const std::uint8_t> bytes,
                                                                std::uint64_t) {
    const auto state = decode_state<BalloonState>(bytes);
    if (!state) {
        return std::unexpected(state.error());
    }
    actual_pages_ = state->actual_pages;
    restored_target_ = state->target_pages;
    for (std::size_t i = 0; i < stats_.size(); ++i) {
        stats_.at(i)->set(state->statistics.at(i));
    }
    return {};
}

void Balloon::on_restored() {
    if (restored_target_ != config_.target / page_size) {
        config_changed();
    }
}

bool Balloon::is_stats_queue(std::size_t index) const {
    return index == stats_queue && (negotiated() & feature_stats) != 0;
}

void Balloon::arm_stats_timer() { stats_timer_.set_after(stats_interval_); }

void Balloon::on_stats_interval() {
    const LockGuard lock(mutex());
    if (!active() || !is_stats_queue(stats_queue)) {
        return;
    }
    if (has_stats_) {
        has_stats_ = false;
        wants_stats_ = true;
        notify_self(stats_queue);
    }
    arm_stats_timer();
}

// The driver makes one buffer available, whose return asks for new statistics (5.5.6.3). Until then the buffer stays
// in the ring, so there is nothing to complete before a reset or a saved state.
void Balloon::serve_stats() {
    serve(stats_queue, [this](const Chain& chain) KVM_VMM_REQUIRES(mutex()) {
        if (std::exchange(wants_stats_, false)) {
            return std::optional(std::uint32_t{0});
        }
        take_stats(chain.readable);
        has_stats_ = true;
        return std::optional<std::uint32_t>();
    });
}

void Balloon::take_stats(const Buffers& stats) {
    for (std::uint64_t i = 0; i < max_stats; ++i) {
        std::array<std::uint8_t, stat_size> entry{};
        if (stats.read(i * stat_size, entry) < stat_size) {
            return;
        }
        std::uint16_t tag = 0;
        std::uint64_t value = 0;
        std::memcpy(&tag, entry.data(), sizeof(tag));
        std::memcpy(&value, entry.data() + sizeof(tag), sizeof(value));
        if (tag < stats_.size()) {
            stats_.at(tag)->set(value);
        }
    }
}

void Balloon::on_notified(std::size_t index) {
    if (index == deflate_queue) {
        // The pages are the guest's as soon as it uses them; only their number is of interest.
        serve(index, [this](const Chain& chain) {
            count_bad_array(chain.readable.size());
            deflated_.add(std::min(chain.readable.size(), max_array) / sizeof(std::uint32_t) * page_size);
            return std::optional(std::uint32_t{0});
        });
        return;
    }
    if (is_stats_queue(index)) {
        serve_stats();
        return;
    }
    const bool reports = index != inflate_queue;
    if (reports && (negotiated() & feature_reporting) == 0) {
        return;  // a queue of a feature that was not negotiated
    }
    std::uint64_t budget = reports ? bytes_at_a_time : pages_at_a_time;
    serve(index, [this, index, reports, &budget](const Chain& chain) KVM_VMM_REQUIRES(mutex()) {
        std::uint64_t& done = done_of_chain_.at(index);
        if (reports ? report(chain.writable, done, budget) : inflate(chain.readable, done, budget)) {
            done = 0;
            return std::optional(std::uint32_t{0});
        }
        notify_self(index);
        return std::optional<std::uint32_t>();
    });
}

void Balloon::count_bad_array(std::uint64_t size) noexcept {
    if (size == 0 || size % sizeof(std::uint32_t) != 0 || size > max_array) {
        count_bad_request();
    }
}

// Continues with an array of page numbers, of which `done` bytes were served. Returns whether it is complete; if not, the
// budget is used up.
bool Balloon::inflate(const Buffers& pages, std::uint64_t& done, std::uint64_t& budget) {
    const std::uint64_t size =
        std::min(pages.size(), max_array) / sizeof(std::uint32_t) * sizeof(std::uint32_t);
    for (; done < size; done += sizeof(std::uint32_t)) {
        if (budget == 0) {
            return false;
        }
        --budget;
        std::array<std::uint8_t, sizeof(std::uint32_t)> bytes{};
        pages.read(done, bytes);
        std::uint32_t number = 0;
        std::memcpy(&number, bytes.data(), sizeof(number));
        const auto page = memory_.slice(number * page_size, page_size);
        if (!page) {
            ignored_.add();
        } else if (memory_.discard(*page)) {
            inflated_.add(page_size);
        } else {
            failed_.add();
        }
    }
    count_bad_array(pages.size());  // once for each array, however often it had to wait
    return true;
}

// Continues with reported ranges, as inflate() does.
bool Balloon::report(const Buffers& ranges, std::uint64_t& done, std::uint64_t& budget) {
    const Buffers rest = ranges.part(done, std::numeric_limits<std::uint64_t>::max());
    for (const Buffers::Piece piece : rest.pieces()) {
        if (budget == 0) {
            return false;
        }
        const std::uint64_t count = std::min<std::uint64_t>(piece.size(), budget);
        if (const auto returned = memory_.discard(piece.first(count))) {
            reported_.add(*returned);
        } else {
            failed_.add();
        }
        budget -= count;
        done += count;
        if (count < piece.size()) {
            return false;
        }
    }
    return true;
}

}  // namespace kvm_vmm::virtio
