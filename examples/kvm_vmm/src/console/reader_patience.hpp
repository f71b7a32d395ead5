// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
#pragma once

#include <chrono>
#include <cstddef>

namespace kvm_vmm {

/// Limits how long a guest's last output waits for slow readers after the guest has ended. The wait ends when
/// they take nothing for a while, and after a total limit, because a reader that takes a little from time to
/// time would keep a dead VM for hours.
class ReaderPatience {
public:
    using Time = std::chrono::steady_clock::time_point;

    static constexpr std::chrono::seconds without_progress{30};
    static constexpr std::chrono::seconds in_all{120};

    ReaderPatience(std::size_t left, Time now) noexcept : start_(now), taken_at_(now), left_(left) {}

    /// Whether to continue waiting if `left` bytes have not been taken at `now`. Returns false if there are
    /// none.
    [[nodiscard]] bool waits_for(std::size_t left, Time now) noexcept {
        if (left != left_) {
            left_ = left;
            taken_at_ = now;
        }
        return left != 0 && now - taken_at_ < without_progress && now - start_ < in_all;
    }

private:
    Time start_;
    Time taken_at_;
    std::size_t left_;
};

}  // namespace kvm_vmm
