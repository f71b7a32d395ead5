// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
#include "virtio/disk_io.hpp"

#include <algorithm>
#include <cerrno>
#include <cstdlib>
#include <span>

#include "memory/shared_copy.hpp"

namespace kvm_vmm::virtio {
namespace {

// More interruptions in a row than signals can cause: then it is an error that does not pass.
constexpr unsigned max_retries = 1000;

}  // namespace

void DiskIo::Free::operator()(std::byte* memory) const noexcept {
    std::free(memory);  // NOLINT(cppcoreguidelines-no-malloc): of aligned_alloc()
}

DiskIo::DiskIo(Operation operation, std::uint64_t offset, const Buffers& memory, bool durable)
    : operation_(operation), durable_(durable), offset_(offset), length_(memory.size()) {
    memory_.reserve(memory.pieces().size());
    for (const Buffers::Piece piece : memory.pieces()) {
        memory_.push_back({.iov_base = piece.data(), .iov_len = piece.size()});
    }
}

bool DiskIo::memory_is_aligned(std::uint32_t alignment) const noexcept {
    return std::ranges::all_of(std::span(memory_).subspan(first_), [alignment](const iovec& piece) {
        return reinterpret_cast<std::uintptr_t>(piece.iov_base) % alignment == 0 &&
               piece.iov_len % alignment == 0;
    });
}

DiskIo::Step DiskIo::next_step(const DiskFacts& facts) {
    const std::uint64_t offset = offset_ + done_;
    const std::uint64_t left = length_ - done_;
    if (facts.offset_alignment > 1) {
        if (offset % facts.offset_alignment != 0 || left % facts.offset_alignment != 0) {
            return {.memory = std::span(memory_).subspan(first_), .offset = offset, .aligned = false};
        }
        // Each piece has to be a multiple of the block, too.
        if (!memory_is_aligned(std::max(facts.memory_alignment, facts.offset_alignment))) {
            if (!bounce_) {
                const std::size_t alignment =
                    std::max({facts.memory_alignment, facts.offset_alignment, 4096U});
                bounce_.reset(static_cast<std::byte*>(std::aligned_alloc(alignment, bounce_size)));
                if (!bounce_) {
                    throw std::bad_alloc();
                }
            }
            const auto count = static_cast<std::size_t>(std::min<std::uint64_t>(left, bounce_size));
            bounce_piece_ = {.iov_base = bounce_.get(), .iov_len = count};
            if (operation_ == Operation::write) {
                copy_bounce(true, count);
            }
            return {.memory = std::span(&bounce_piece_, 1), .offset = offset, .aligned = true};
        }
    }
    return {.memory = std::span(memory_).subspan(first_), .offset = offset, .aligned = true};
}

bool DiskIo::finish_step(std::int64_t result) {
    if (result == -EINTR || result == -EAGAIN) {
        if (++retries_ < max_retries) {
            return false;
        }
    }
    if (result <= 0) {
        // 0: the file has become shorter than it was when it was opened.
        error_ = result == 0 ? EIO : static_cast<int>(-result);
        return true;
    }
    retries_ = 0;
    const auto count = std::min(static_cast<std::uint64_t>(result), length_ - done_);
    if (bounce_piece_.iov_len != 0) {
        if (operation_ == Operation::read) {
            copy_bounce(false, static_cast<std::size_t>(count));
        }
        bounce_piece_ = {};
    }
    advance(count);
    if (done_ == length_) {
        error_ = 0;
        bounce_.reset();
        return true;
    }
    return false;
}

void DiskIo::advance(std::uint64_t count) noexcept {
    done_ += count;
    while (count != 0) {
        iovec& piece = memory_[first_];
        const auto part = std::min<std::uint64_t>(count, piece.iov_len);
        piece.iov_base = static_cast<std::byte*>(piece.iov_base) + part;
        piece.iov_len -= part;
        count -= part;
        if (piece.iov_len == 0) {
            ++first_;
        }
    }
}

void DiskIo::copy_bounce(bool to_bounce, std::size_t count) noexcept {
    std::span<std::uint8_t> bounce(reinterpret_cast<std::uint8_t*>(bounce_.get()), count);
    for (std::size_t i = first_; !bounce.empty(); ++i) {
        const std::size_t part = std::min(bounce.size(), memory_[i].iov_len);
        auto* const guest = static_cast<std::uint8_t*>(memory_[i].iov_base);
        if (to_bounce) {
            copy_from_guest(bounce.first(part), guest);
        } else {
            copy_to_guest(guest, bounce.first(part));
        }
        bounce = bounce.subspan(part);
    }
}

int DiskIo::run_ranges(DiskFile& file) const {
    int error = 0;
    for (const Range& range : ranges_) {
        for (unsigned i = 0; i < max_retries; ++i) {
            error = operation_ == Operation::discard
                        ? file.discard(range.offset, range.length)
                        : file.write_zeroes(range.offset, range.length, range.unmap);
            if (error != -EINTR && error != -EAGAIN) {
                break;
            }
        }
        if (error != 0) {
            return error;
        }
    }
    return 0;
}

void DiskIo::run(DiskFile& file) {
    switch (operation_) {
        case Operation::read:
        case Operation::write:
            for (bool ended = false; !ended;) {
                const Step step = next_step(file.facts());
                ended = finish_step(operation_ == Operation::read
                                        ? file.read(step.memory, step.offset, step.aligned)
                                        : file.write(step.memory, step.offset, step.aligned, durable_));
            }
            return;
        case Operation::flush:
            break;
        case Operation::discard:
        case Operation::write_zeroes:
            if (const int error = run_ranges(file); error != 0) {
                end(-error);
                return;
            }
            if (!durable_) {
                end(0);
                return;
            }
            break;
    }
    int error = 0;
    do {
        error = file.flush();
    } while (error == -EINTR && ++retries_ < max_retries);
    end(-error);
}

}  // namespace kvm_vmm::virtio
