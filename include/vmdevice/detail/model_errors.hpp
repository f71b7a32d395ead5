// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
#pragma once

/// What the adapters that put device models on the buses have in common.

#include <cstdint>
#include <functional>
#include <type_traits>
#include <utility>

#include <vmdevice/detail/config.hpp>

namespace vmdevice::detail {

struct NoError {};

/// The error type of what a model's write returns; NoError where it returns nothing or anything else.
template <class Result>
struct ErrorOf {
    using Type = NoError;
};
template <class Result>
    requires requires { typename Result::error_type; }
struct ErrorOf<Result> {
    using Type = typename Result::error_type;
};

/// The errors that a model's writes returned. The guest never learns of one.
template <class Error>
class WriteErrors {
public:
    using Handler = std::function<void(const Error&)>;

    [[nodiscard]] std::uint64_t count() const noexcept { return count_; }
    void set_handler(Handler handler) { handler_ = std::move(handler); }

    /// Calls `write` and takes note of the error that it returns.
    template <class F>
    void note(F write) {
        using Result = std::invoke_result_t<F>;
        if constexpr (std::is_same_v<typename ErrorOf<Result>::Type, NoError>) {
            static_cast<void>(write());
        } else if (const Result result = write(); !result.has_value()) {
            ++count_;
            if constexpr (std::is_same_v<typename ErrorOf<Result>::Type, Error>) {
                if (handler_) {
                    handler_(result.error());
                }
            }
        }
    }

private:
    std::uint64_t count_ = 0;
    Handler handler_;
};

}  // namespace vmdevice::detail
