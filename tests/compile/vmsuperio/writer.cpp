// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
// A writer must return how much it took: a type that returns only success or failure is not one.
#include <vmsuperio/serial.hpp>

struct Sink {
#if defined(REJECT)
    std::expected<void, std::error_code> write(std::span<const std::uint8_t>) { return {}; }
#else
    std::expected<std::size_t, std::error_code> write(std::span<const std::uint8_t> bytes) {
        return bytes.size();
    }
#endif
};

using Uart = vmsuperio::Serial<vmsuperio::NullTrigger, vmsuperio::NoEvents, Sink>;
static_assert(sizeof(Uart) != 0);
