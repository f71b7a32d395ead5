// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
// Declarations that the fragments of docs/embedding.md use.
#pragma once

#include <chrono>
#include <cstdint>
#include <linux/kvm.h>
#include <memory>
#include <span>
#include <string_view>
#include <unistd.h>
#include <utility>

#include <vmdevice/vmdevice.hpp>
#include <vmsuperio/linux/eventfd.hpp>
#include <vmsuperio/linux/fd_writer.hpp>
#include <vmsuperio/vmsuperio.hpp>

namespace snippets {
using Uart = vmsuperio::Serial<vmsuperio::EventFdTrigger, vmsuperio::NoEvents, vmsuperio::FdWriter>;

struct Timer {
    void arm(std::chrono::nanoseconds since_epoch);
};

extern Uart uart;
extern std::shared_ptr<vmdevice::SharedDevice<Uart>> com1;
extern vmsuperio::NullTrigger irq8;
extern vmsuperio::RtcCmos<vmsuperio::NullTrigger> clock;
extern vmdevice::IoManager io;
extern kvm_run* run;
extern std::span<const std::uint8_t> typed;
extern Timer timer;
void log(std::string_view line);
}  // namespace snippets
