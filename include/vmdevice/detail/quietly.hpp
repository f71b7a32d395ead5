// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
#pragma once

/// Calls to the user's code from places that cannot propagate exceptions.

namespace vmdevice::inline v0_2::detail {

/// Calls `function` and ignores its exceptions. With -fno-exceptions it is a plain call.
template <class F>
void quietly(F&& function) noexcept {
#if defined(__cpp_exceptions)
    try {
        function();
    } catch (...) {
    }
#else
    function();
#endif
}

}  // namespace vmdevice::inline v0_2::detail
