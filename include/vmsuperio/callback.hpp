// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
#pragma once

#include <vmsuperio/detail/config.hpp>

#include <concepts>
#include <type_traits>
#include <utility>

namespace vmsuperio::inline v0_2 {

template <class Signature>
class Callback;

/// A function of the owner that a device calls; empty by default. Accepts every copyable callable, including
/// a `std::function`.
///
/// It has the members of `std::function` that the small devices need, without `<functional>`: that header
/// alone takes a quarter of the time that the compiler needs for this library.
template <class Result, class... Arguments>
class Callback<Result(Arguments...)> {
public:
    constexpr Callback() = default;
    /// Takes a function object by value; memory is allocated here, not in a call.
    template <class Function>
        requires(!std::same_as<std::remove_cvref_t<Function>, Callback> &&
                 std::is_invocable_r_v<Result, std::decay_t<Function>&, Arguments...> &&
                 std::copy_constructible<std::decay_t<Function>>)
    // NOLINTNEXTLINE(google-explicit-constructor, bugprone-forwarding-reference-overload): as std::function
    Callback(Function&& function) {
        if constexpr (requires { function == nullptr; }) {
            if (function == nullptr) {
                return;
            }
        }
        target_ = new Holder<std::decay_t<Function>>(std::forward<Function>(function));
    }
    /// Copies the function object.
    Callback(const Callback& other) : target_(other.target_ != nullptr ? other.target_->copy() : nullptr) {}
    /// Takes the function object; `other` is then empty.
    Callback(Callback&& other) noexcept : target_(std::exchange(other.target_, nullptr)) {}
    /// Replaces the function object.
    Callback& operator=(Callback other) noexcept {
        std::swap(target_, other.target_);
        return *this;
    }
    ~Callback() { delete target_; }

    /// Whether there is a function object to call.
    [[nodiscard]] explicit operator bool() const noexcept { return target_ != nullptr; }
    /// The callback must not be empty.
    Result operator()(Arguments... arguments) { return target_->call(std::forward<Arguments>(arguments)...); }

private:
    struct Target {
        Target() = default;
        Target(const Target&) = delete;
        Target& operator=(const Target&) = delete;
        virtual ~Target() = default;
        virtual Result call(Arguments... arguments) = 0;
        [[nodiscard]] virtual Target* copy() const = 0;
    };
    template <class Function>
    struct Holder final : Target {
        template <class From>
            requires(!std::same_as<std::remove_cvref_t<From>, Holder>)
        explicit Holder(From&& from) : function(std::forward<From>(from)) {}
        Result call(Arguments... arguments) override {
            return static_cast<Result>(function(std::forward<Arguments>(arguments)...));
        }
        [[nodiscard]] Target* copy() const override { return new Holder(function); }

        Function function;
    };

    Target* target_{nullptr};
};

}  // namespace vmsuperio::inline v0_2
