// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
#pragma once

#include <algorithm>
#include <chrono>
#include <cstdint>

namespace kvm_vmm {

/// Limits a rate of bytes or operations. The bucket is filled with `rate` tokens per second up to `burst`; it
/// is full at first.
///
/// Whatever is to be sent may be taken as soon as the bucket is not empty, even if that is more than it has:
/// the bucket then owes the difference, and is empty until that is paid. So a request larger than the burst
/// passes, the average is exact, and the limit is exceeded by one request at most.
///
/// Times are those of any clock that does not go back, since any origin that stays the same; a time before
/// the latest one counts as that one.
///
/// Thread safety: none.
class TokenBucket {
public:
    using Time = std::chrono::nanoseconds;

    /// Both 1 to 2^60. `now` is when the bucket is full.
    TokenBucket(std::uint64_t rate, std::uint64_t burst, Time now) noexcept
        : rate_(clamp(rate)), burst_(clamp(burst)), level_(burst_), filled_at_(now) {}

    /// Takes `count` tokens (up to 2^32) unless the bucket is empty; returns whether it did.
    [[nodiscard]] bool try_take(std::uint64_t count, Time now) noexcept {
        fill(now);
        if (level_ <= 0) {
            return false;
        }
        level_ -= clamp_count(count);
        return true;
    }

    /// Returns tokens that were taken for something that has not happened.
    void give_back(std::uint64_t count) noexcept { level_ = std::min(level_ + clamp_count(count), burst_); }

    /// The earliest time, not before `now`, at which try_take() succeeds.
    [[nodiscard]] Time next(Time now) noexcept {
        fill(now);
        if (level_ > 0) {
            return now;
        }
        const std::int64_t missing = 1 - level_;
        // Rounded up, so that the bucket is not still empty at that time. What `fraction_` adds is left out:
        // it is less than one token.
        const auto seconds = missing / rate_;
        const auto rest = static_cast<long double>(missing % rate_) * nanoseconds_per_second;
        const auto nanoseconds = static_cast<std::int64_t>(rest / static_cast<long double>(rate_)) + 1;
        return filled_at_ + std::chrono::seconds(seconds) + Time(nanoseconds);
    }

private:
    static constexpr std::int64_t nanoseconds_per_second = 1'000'000'000;

    static std::int64_t clamp(std::uint64_t value) noexcept {
        return static_cast<std::int64_t>(std::clamp<std::uint64_t>(value, 1, std::uint64_t{1} << 60U));
    }
    static std::int64_t clamp_count(std::uint64_t count) noexcept {
        return static_cast<std::int64_t>(std::min<std::uint64_t>(count, std::uint64_t{1} << 32U));
    }

    void fill(Time now) noexcept {
        if (now <= filled_at_) {
            return;
        }
        const std::int64_t elapsed = (now - filled_at_).count();
        filled_at_ = now;
        const std::int64_t seconds = elapsed / nanoseconds_per_second;
        const std::int64_t rest = elapsed % nanoseconds_per_second;
        // In parts, none of which can overflow: seconds, and nanoseconds with what they left over last time.
        const std::int64_t wanted = burst_ - level_;
        if (seconds > wanted / rate_) {
            level_ = burst_;
            fraction_ = 0;
            return;
        }
        const std::int64_t scaled = rest * (rate_ % nanoseconds_per_second) + fraction_;
        const std::int64_t added =
            seconds * rate_ + rest * (rate_ / nanoseconds_per_second) + scaled / nanoseconds_per_second;
        fraction_ = scaled % nanoseconds_per_second;
        if (added >= wanted) {
            level_ = burst_;
            fraction_ = 0;
        } else {
            level_ += added;
        }
    }

    std::int64_t rate_;
    std::int64_t burst_;
    std::int64_t level_;
    std::int64_t fraction_{0};  // of a token, in units of 10^-9
    Time filled_at_;
};

}  // namespace kvm_vmm
