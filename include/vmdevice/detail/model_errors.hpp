// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
#pragma once

/// Common parts of the adapters that connect device models to the buses.

#include <vmdevice/detail/config.hpp>

#include <cstddef>
#include <cstdint>
#include <type_traits>
#include <utility>

namespace vmdevice::inline v0_2::detail {

struct NoError {};

/// The error type of the std::expected that a model's write returns, or NoError if it returns nothing or
/// another type.
template <class Result>
struct ErrorOf {
    using Type = NoError;
};
template <class Result>
    requires requires { typename Result::error_type; }
struct ErrorOf<Result> {
    using Type = typename Result::error_type;
};

/// A callable that takes an error, or nothing. It replaces std::function, whose header costs more than the
/// rest of the adapters.
template <class Error>
class ErrorHandler {
public:
    ErrorHandler() = default;
    ErrorHandler(const ErrorHandler& other)
        : callable_(other.callable_ == nullptr ? nullptr : other.callable_->clone()) {}
    ErrorHandler(ErrorHandler&& other) noexcept : callable_(std::exchange(other.callable_, nullptr)) {}
    ErrorHandler& operator=(ErrorHandler other) noexcept {
        std::swap(callable_, other.callable_);
        return *this;
    }
    ~ErrorHandler() { delete callable_; }
    // Not explicit, so that a lambda can be passed as a handler.
    ErrorHandler(std::nullptr_t) noexcept {}
    template <class F>
        requires(!std::is_same_v<std::remove_cvref_t<F>, ErrorHandler> &&
                 requires(std::remove_cvref_t<F>& function, const Error& error) { function(error); })
    ErrorHandler(F&& function) {
        // A null pointer and an empty std::function count as no handler.
        if constexpr (requires { function == nullptr; }) {
            if (function == nullptr) {
                return;
            }
        }
        callable_ = new Holder<std::remove_cvref_t<F>>(std::forward<F>(function));
    }

    [[nodiscard]] explicit operator bool() const noexcept { return callable_ != nullptr; }
    void operator()(const Error& error) const { callable_->call(error); }

private:
    struct Callable {
        Callable() = default;
        Callable(const Callable&) = delete;
        Callable& operator=(const Callable&) = delete;
        virtual ~Callable() = default;
        [[nodiscard]] virtual Callable* clone() const = 0;
        virtual void call(const Error& error) = 0;
    };
    template <class F>
    struct Holder final : Callable {
        explicit Holder(F from) : function(std::move(from)) {}
        [[nodiscard]] Callable* clone() const override { return new Holder(function); }
        void call(const Error& error) override { static_cast<void>(function(error)); }
        F function;
    };

    Callable* callable_ = nullptr;
};

/// Counts the errors that a model's writes return. The guest never sees them.
template <class Error>
class WriteErrors {
public:
    using Handler = ErrorHandler<Error>;

    [[nodiscard]] std::uint64_t count() const noexcept { return count_; }
    void set_handler(Handler handler) { handler_ = std::move(handler); }

    /// Calls `write` and records the error that it returns.
    template <class F>
    void note(F write) {
        using Result = decltype(write());
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

}  // namespace vmdevice::inline v0_2::detail
