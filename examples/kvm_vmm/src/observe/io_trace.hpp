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

/// A transcript of all accesses, a line each:
///
///     SECONDS CPU pio|mmio r|w ADDRESS WIDTH VALUE[,VALUE...] DEVICE.REGISTER
///     0.153042 0 pio r 0x03fd 1 0x60 COM1.LSR
///
/// Seconds since `start`, at the end of the access; several values for string I/O; "-" for a register that no
/// device has, and its offset for one without a name. Accesses of several CPUs to one device at the same time
/// may stand in either order. What a port means may depend on the device's state (DLAB, the index of a CMOS
/// clock): the device is asked after the access.
///
/// Lines are buffered and written at the latest with the next access a second later. Where the file cannot be
/// written any more, or its reader (of a FIFO) takes nothing for a second, that is logged once and the trace
/// ends.
///
/// Thread safety: everything may be called from any thread.
class IoTrace {
public:
    /// Throws VmmError(bad_file) where the file cannot be written. `devices` must outlive the trace.
    IoTrace(OutputFile file, const DeviceDirectory& devices, std::chrono::steady_clock::time_point start);
    /// Writes what is buffered.
    ~IoTrace();
    IoTrace(const IoTrace&) = delete;
    IoTrace& operator=(const IoTrace&) = delete;

    void record(const IoAccess& access);
    /// Gives up where another thread is stuck in record().
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
