// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
#pragma once

#include <vmsuperio/detail/config.hpp>

#include <array>
#include <concepts>
#include <cstddef>
#include <cstdint>
#include <expected>
#include <new>
#include <span>
#include <string_view>
#include <system_error>
#include <tuple>
#include <utility>
#include <vector>

#include <vmsuperio/clock.hpp>
#include <vmsuperio/detail/chrono.hpp>
#include <vmsuperio/detail/copy_bytes.hpp>

namespace vmsuperio::inline v0_2 {

/// The result of a `Writer`: how many bytes it took, or the error.
using WriteResult = std::expected<std::size_t, std::error_code>;

/// The sink for the bytes that a device sends.
///
/// `write` returns how many of the offered bytes were taken, from the front. The number is smaller than
/// offered, or 0, if the sink is full at present ("would block"). `write` returns an error if the sink will
/// not take them. It must not block and must not throw.
template <class W>
concept Writer = requires(W w, std::span<const std::uint8_t> bytes) {
    { w.write(bytes) } -> std::convertible_to<WriteResult>;
};

/// A `Writer` that discards everything.
struct NullWriter {
    // NOLINTNEXTLINE(readability-convert-member-functions-to-static): the concept requires a member
    /// Takes all bytes and discards them.
    [[nodiscard]] constexpr WriteResult write(std::span<const std::uint8_t> bytes) noexcept {
        return bytes.size();
    }
};
static_assert(Writer<NullWriter>);

/// Keeps all bytes. It grows without bound, so it is for tests, not for hostile guests. If memory runs out,
/// `write` returns an error; compiled without exceptions, the program then ends, as with every container.
class BufferWriter {
public:
    /// Takes all bytes.
    template <class = void>  // instantiated only if it is called
    [[nodiscard]] constexpr WriteResult write(std::span<const std::uint8_t> bytes) {
#if defined(__cpp_exceptions)
        try {
            bytes_.insert(bytes_.end(), bytes.data(), bytes.data() + bytes.size());
        } catch (const std::bad_alloc&) {
            return std::unexpected(std::make_error_code(std::errc::not_enough_memory));
        }
#else
        bytes_.insert(bytes_.end(), bytes.data(), bytes.data() + bytes.size());
#endif
        return bytes.size();
    }

    /// All bytes written since the last clear().
    [[nodiscard]] constexpr const std::vector<std::uint8_t>& bytes() const noexcept { return bytes_; }
    /// The bytes as characters; valid until the next write.
    [[nodiscard]] std::string_view text() const noexcept {
        // NOLINTNEXTLINE(cppcoreguidelines-pro-type-reinterpret-cast): char may alias anything
        return {reinterpret_cast<const char*>(bytes_.data()), bytes_.size()};
    }
    /// Discards what was written.
    constexpr void clear() noexcept { bytes_.clear(); }

private:
    std::vector<std::uint8_t> bytes_;
};
static_assert(Writer<BufferWriter>);

/// Keeps the newest `capacity` bytes and counts those that were overwritten. It takes all bytes, and
/// allocates only in its constructor. A capacity of 0 drops everything.
class RingWriter {
public:
    /// Keeps the newest `capacity` bytes.
    explicit constexpr RingWriter(std::size_t capacity) : ring_(capacity) {}

    /// Takes all bytes; those for which there is no room replace the oldest.
    [[nodiscard]] constexpr WriteResult write(std::span<const std::uint8_t> bytes) noexcept {
        const std::size_t offered = bytes.size();
        if (bytes.size() > ring_.size()) {
            dropped_ += bytes.size() - ring_.size();
            bytes = bytes.last(ring_.size());
        }
        if (bytes.empty()) {
            return offered;
        }
        const std::size_t room = ring_.size() - size_;
        dropped_ += bytes.size() > room ? bytes.size() - room : 0;
        const std::size_t first = detail::smaller(bytes.size(), ring_.size() - next_);
        detail::copy_bytes(bytes.data(), first, ring_.data() + next_);
        detail::copy_bytes(bytes.data() + first, bytes.size() - first, ring_.data());
        next_ = (next_ + bytes.size()) % ring_.size();
        size_ = detail::smaller(ring_.size(), size_ + bytes.size());
        return offered;
    }

    /// The bytes that are kept, the oldest first.
    [[nodiscard]] constexpr std::vector<std::uint8_t> bytes() const {
        std::vector<std::uint8_t> kept;
        kept.reserve(size_);
        for (std::size_t i = 0; i < size_; ++i) {
            kept.push_back(ring_[(next_ + ring_.size() - size_ + i) % ring_.size()]);
        }
        return kept;
    }
    /// How many bytes are kept.
    [[nodiscard]] constexpr std::size_t size() const noexcept { return size_; }
    /// How many bytes can be kept.
    [[nodiscard]] constexpr std::size_t capacity() const noexcept { return ring_.size(); }
    /// How many bytes were overwritten, or did not fit, since construction.
    [[nodiscard]] constexpr std::uint64_t dropped() const noexcept { return dropped_; }
    /// Removes the bytes, but keeps the count of dropped ones.
    constexpr void clear() noexcept {
        next_ = 0;
        size_ = 0;
    }

private:
    std::vector<std::uint8_t> ring_;
    std::size_t next_{0};
    std::size_t size_{0};
    std::uint64_t dropped_{0};
};
static_assert(Writer<RingWriter>);

/// A reference to a writer, so that a device and its owner can share it. The writer must outlive every copy
/// of the reference.
template <Writer W>
class WriterRef {
public:
    // NOLINTNEXTLINE(google-explicit-constructor): a reference to a writer is a writer
    /// Refers to a writer, which must outlive this object.
    constexpr WriterRef(W& writer) noexcept : writer_(&writer) {}

    /// Forwards to the writer.
    [[nodiscard]] constexpr WriteResult write(std::span<const std::uint8_t> bytes) {
        return writer_->write(bytes);
    }

private:
    W* writer_;
};
static_assert(Writer<WriterRef<NullWriter>>);

/// The treatment of bytes that exceed the rate.
enum class RateLimitMode : std::uint8_t {
    drop,  ///< taken, discarded and counted: the guest never waits
    hold,  ///< not taken ("would block"): the guest waits; call the device again after `ready_in()`
};

/// How fast a writer takes bytes.
struct RateLimit {
    std::uint32_t bytes_per_second{};         ///< 0: nothing is written after the burst
    std::uint32_t burst{};                    ///< bytes that may be written at once: the size of the bucket
    RateLimitMode mode{RateLimitMode::drop};  ///< what happens to bytes beyond the limit
};

/// A token bucket in front of another writer, so that a guest cannot fill the host's disk or log at will. The
/// bucket starts full. If the clock goes backwards, nothing is added.
template <Writer W, Clock C = SteadyClock>
class RateLimitedWriter {
public:
    /// Limits `writer` by `limit`, measured with `clock`.
    constexpr RateLimitedWriter(W writer, C clock, RateLimit limit)
        : writer_(std::move(writer)),
          clock_(std::move(clock)),
          limit_(limit),
          tokens_(std::uint64_t{limit.burst} * per_byte),
          refilled_(time_since_epoch(clock_)) {}
    /// Limits `writer` by `limit`, measured with `clock`.
    constexpr RateLimitedWriter(W writer, RateLimit limit, C clock = C{})
        : RateLimitedWriter(std::move(writer), std::move(clock), limit) {}

    /// Writes as many bytes as the limit permits; the mode says what becomes of the rest.
    [[nodiscard]] constexpr WriteResult write(std::span<const std::uint8_t> bytes) {
        refill();
        const auto allowed =
            tokens_ / per_byte < bytes.size() ? static_cast<std::size_t>(tokens_ / per_byte) : bytes.size();
        std::size_t taken = 0;
        if (allowed != 0) {
            const WriteResult result = writer_.write(bytes.first(allowed));
            if (!result) {
                return result;
            }
            taken = detail::smaller(*result, allowed);
            tokens_ -= taken * per_byte;
        }
        if (limit_.mode == RateLimitMode::drop && taken == allowed) {
            dropped_ += bytes.size() - taken;
            return bytes.size();
        }
        return taken;
    }

    /// The time until the bucket has tokens for a byte: 0 if it has them now, the maximum if it never will.
    [[nodiscard]] constexpr std::chrono::nanoseconds ready_in() {
        refill();
        if (tokens_ >= per_byte) {
            return std::chrono::nanoseconds::zero();
        }
        if (limit_.bytes_per_second == 0 || limit_.burst == 0) {
            return std::chrono::nanoseconds::max();
        }
        const std::uint64_t missing = per_byte - tokens_;
        return std::chrono::nanoseconds((missing + limit_.bytes_per_second - 1) / limit_.bytes_per_second);
    }

    /// How many bytes were discarded because of the limit.
    [[nodiscard]] constexpr std::uint64_t dropped() const noexcept { return dropped_; }
    [[nodiscard]] constexpr const W& inner() const noexcept { return writer_; }
    [[nodiscard]] constexpr W& inner() noexcept { return writer_; }

private:
    // One byte costs as many tokens as a second has nanoseconds; each nanosecond adds `bytes_per_second`
    // tokens.
    static constexpr std::uint64_t per_byte = 1'000'000'000;

    constexpr void refill() {
        const std::chrono::nanoseconds now = time_since_epoch(clock_);
        const std::chrono::nanoseconds last = std::exchange(refilled_, now);
        if (now <= last || limit_.bytes_per_second == 0) {
            return;
        }
        const std::uint64_t full = std::uint64_t{limit_.burst} * per_byte;
        const std::uint64_t missing = full - tokens_;
        // Compared by division, because the product could overflow after a long time without output.
        const std::uint64_t elapsed =
            static_cast<std::uint64_t>(now.count()) - static_cast<std::uint64_t>(last.count());
        tokens_ = elapsed > missing / limit_.bytes_per_second ? full
                                                              : tokens_ + (elapsed * limit_.bytes_per_second);
    }

    W writer_;
    C clock_;
    RateLimit limit_;
    std::uint64_t tokens_;
    std::chrono::nanoseconds refilled_;
    std::uint64_t dropped_{0};
};
template <Writer W>
RateLimitedWriter(W, RateLimit) -> RateLimitedWriter<W>;

/// Writes to several writers. The first one, the leader, determines the result: the number of bytes that it
/// takes, or its error. The others are offered exactly the bytes that the leader took; bytes that one of them
/// does not take, or fails to take, are lost for that writer and counted. So a slow log never blocks the
/// console, and the console never receives bytes twice.
template <Writer First, Writer... Others>
class TeeWriter {
public:
    /// The first writer determines how many bytes are taken.
    explicit constexpr TeeWriter(First first, Others... others)
        : first_(std::move(first)), others_(std::move(others)...) {}

    /// Writes to all writers. Returns what the first one has taken.
    [[nodiscard]] constexpr WriteResult write(std::span<const std::uint8_t> bytes) {
        const WriteResult taken = first_.write(bytes);
        if (taken && *taken != 0) {
            offer(bytes.first(detail::smaller(*taken, bytes.size())), std::index_sequence_for<Others...>{});
        }
        return taken;
    }

    /// Writer `I`, 0 being the leader.
    template <std::size_t I>
    [[nodiscard]] constexpr auto& get() noexcept {
        if constexpr (I == 0) {
            return first_;
        } else {
            return std::get<I - 1>(others_);
        }
    }
    template <std::size_t I>
    [[nodiscard]] constexpr const auto& get() const noexcept {
        if constexpr (I == 0) {
            return first_;
        } else {
            return std::get<I - 1>(others_);
        }
    }
    /// How many bytes writer `index` has missed. The leader misses none.
    [[nodiscard]] constexpr std::uint64_t dropped(std::size_t index) const noexcept {
        return index == 0 || index > sizeof...(Others) ? 0 : dropped_[index - 1];
    }

private:
    template <std::size_t... Is>
    constexpr void offer([[maybe_unused]] std::span<const std::uint8_t> bytes, std::index_sequence<Is...>) {
        (offer_one(std::get<Is>(others_), bytes, dropped_[Is]), ...);
    }
    template <Writer W>
    static constexpr void offer_one(W& writer, std::span<const std::uint8_t> bytes, std::uint64_t& dropped) {
        const WriteResult taken = writer.write(bytes);
        dropped += bytes.size() - detail::smaller(taken.value_or(0), bytes.size());
    }

    First first_;
    std::tuple<Others...> others_;
    std::array<std::uint64_t, sizeof...(Others)> dropped_{};
};

}  // namespace vmsuperio::inline v0_2
