// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
#pragma once

#include <atomic>
#include <chrono>
#include <string>
#include <string_view>

#include "observe/device_directory.hpp"
#include "observe/io_access.hpp"
#include "util/mutex.hpp"
#include "util/output_file.hpp"

namespace kvm_vmm {

/// A trace of all accesses, a line each:
///
///     SECONDS CPU pio|mmio r|w ADDRESS WIDTH VALUE[,VALUE...] DEVICE.REGISTER
///     0.153042 0 pio r 0x03fd 1 0x60 COM1.LSR
///
/// SECONDS is the time since `start` at the end of the access. There are several values for string I/O. The
/// register is "-" if no device has it, and an offset if it has no name. Simultaneous accesses of several
/// CPUs to one device may appear in either order. The register of a port may depend on the device's state
/// (DLAB, the index of a CMOS clock), which is read after the access.
///
/// Lines are buffered and written at the latest with the first access a second later. If the file cannot be
/// written any more, or the reader of a FIFO takes nothing for a second, that is logged once and the trace
/// ends.
///
/// Thread safety: every function may be called from any thread.
class IoTrace {
public:
    /// Throws VmmError(bad_file) if the file cannot be written. `devices` must outlive the trace.
    IoTrace(OutputFile file, const DeviceDirectory& devices, std::chrono::steady_clock::time_point start);
    /// Writes buffered lines.
    ~IoTrace();
    IoTrace(const IoTrace&) = delete;
    IoTrace& operator=(const IoTrace&) = delete;

    void record(const IoAccess& access);
    /// Does nothing if another thread is blocked in record().
    void flush();

private:
    void append(const IoAccess& access, std::chrono::steady_clock::duration time,
                std::string_view register_name) KVM_VMM_REQUIRES(mutex_);
    [[nodiscard]] int write_out() KVM_VMM_REQUIRES(mutex_);  // 0, or an error number
    void flush_locked() KVM_VMM_REQUIRES(mutex_);

    OutputFile file_;
    const DeviceDirectory& devices_;
    std::chrono::steady_clock::time_point start_;
    std::atomic<bool> active_{true};
    TimedMutex mutex_;
    std::string buffer_ KVM_VMM_GUARDED_BY(mutex_);
    std::chrono::steady_clock::duration flushed_ KVM_VMM_GUARDED_BY(mutex_){};
};

}  // namespace kvm_vmm
