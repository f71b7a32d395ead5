// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
// Declarations that the fragments of fuzz/fuzz_any_device.hpp use.
#pragma once

#include <cstdint>

#include <vmdevice/vmdevice.hpp>

struct MyMachine {
    vmdevice::IoManager& io_manager();
    void type(std::uint8_t byte);
    bool is_sane() const;
};
