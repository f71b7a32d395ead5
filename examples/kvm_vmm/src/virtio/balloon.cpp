// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
#include "virtio/balloon.hpp"

#include <algorithm>
#include <array>
#include <cstring>
#include <limits>

namespace kvm_vmm::virtio {
namespace {

// How many pages are returned to the host, each by a system call, before other devices have their turn.
constexpr std::uint64_t pages_at_a_time = 1024;
// The same for reported ranges, which are longer and fewer.
constexpr std::uint64_t bytes_at_a_time = 64ULL << 20U;
// The largest array of page numbers in a request, 1 MiB of pages; Linux sends 256 numbers. What is longer is ignored.
constexpr std::uint64_t max_array = 64ULL * 1024;
constexpr std::uint16_t queue_size = 128;

}  // namespace

Balloon::Balloon(std::string_view name, Counters& counters, const GuestMemory& memory, EventManager& events,
                 const BalloonConfig& config)
    : Device(name, counters),
      memory_(memory),
      events_(events),
      config_(config),
      sizes_(config.free_page_reporting ? 3 : 2, queue_size),
      inflated_(counters["inflated_bytes"]),
      deflated_(counters["deflated_bytes"]),
      reported_(counters["reported_bytes"]),
      ignored_(counters["ignored_pages"]),
      failed_(counters["host_errors"]) {}

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

void Balloon::on_reset() {
    actual_pages_ = 0;
    done_of_chain_ = 0;
    reported_of_chain_ = 0;
}

void Balloon::on_notified(std::size_t index) {
    if (index == deflate_queue) {
        // The pages are the guest's as soon as it uses them; only their number is of interest.
        serve(index, [this](const Chain& chain) {
            deflated_.add(std::min(chain.readable.size(), max_array) / sizeof(std::uint32_t) * page_size);
            return std::optional(std::uint32_t{0});
        });
        return;
    }
    const bool reports = index == reporting_queue;
    std::uint64_t budget = reports ? bytes_at_a_time : pages_at_a_time;
    serve(index, [this, index, reports, &budget](const Chain& chain) KVM_VMM_REQUIRES(mutex()) {
        if (reports ? report(chain.writable, budget) : inflate(chain.readable, budget)) {
            return std::optional(std::uint32_t{0});
        }
        notify_self(index);
        return std::optional<std::uint32_t>();
    });
}

// Continues with an array of page numbers. Returns whether it is complete; if not, the budget is used up.
bool Balloon::inflate(const Buffers& pages, std::uint64_t& budget) {
    const std::uint64_t size =
        std::min(pages.size(), max_array) / sizeof(std::uint32_t) * sizeof(std::uint32_t);
    for (; done_of_chain_ < size; done_of_chain_ += sizeof(std::uint32_t)) {
        if (budget == 0) {
            return false;
        }
        --budget;
        std::array<std::uint8_t, sizeof(std::uint32_t)> bytes{};
        pages.read(done_of_chain_, bytes);
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
    done_of_chain_ = 0;
    return true;
}

// Continues with reported ranges, as inflate() does.
bool Balloon::report(const Buffers& ranges, std::uint64_t& budget) {
    const Buffers rest = ranges.part(reported_of_chain_, std::numeric_limits<std::uint64_t>::max());
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
        reported_of_chain_ += count;
        if (count < piece.size()) {
            return false;
        }
    }
    reported_of_chain_ = 0;
    return true;
}

}  // namespace kvm_vmm::virtio
