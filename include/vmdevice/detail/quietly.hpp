// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
#pragma once

/// Calls to code of the user's whose exceptions have nowhere to go.

namespace vmdevice::detail {

/// Calls `function` and drops what it throws. With -fno-exceptions it is a plain call.
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

}  // namespace vmdevice::detail
