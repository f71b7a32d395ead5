// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
#pragma once

#include <atomic>
#include <chrono>
#include <cstddef>
#include <deque>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <vmsuperio/serial_metrics.hpp>

#include "observe/counters.hpp"
#include "observe/device_directory.hpp"
#include "observe/io_access.hpp"
#include "observe/io_metrics.hpp"
#include "observe/io_trace.hpp"
#include "observe/metrics_file.hpp"
#include "util/error.hpp"
#include "util/log.hpp"
#include "util/output_file.hpp"

namespace kvm_vmm {

/// The observations of the VMs of this process: counters, and the trace if it is enabled. It outlives
/// each VM, so that the counters continue when a guest is restarted.
///
/// count_exit(), count_coalesced() and record() may be called from any thread; all other functions are for the main
/// thread.
class Observer {
public:
    /// The opened outputs.
    struct Outputs {
        std::optional<OutputFile> log;
        std::optional<OutputFile> metrics;
        std::optional<OutputFile> trace_io;
    };

    /// Throws VmmError(bad_file) if a file cannot be written.
    Observer(Outputs outputs, std::optional<LogLevel> log_level);
    /// Writes only the log, to stderr.
    Observer() : Observer(Outputs{}, std::nullopt) {}

    /// Call this when a VM is about to be created.
    void vm_starts() noexcept { ++vms_started_; }
    [[nodiscard]] std::uint64_t vms_started() const noexcept { return vms_started_; }
    /// The directory to which the VM's devices must be added.
    [[nodiscard]] DeviceDirectory& devices() noexcept { return devices_; }
    /// The counters of the serial port of that name.
    [[nodiscard]] std::shared_ptr<vmsuperio::SerialMetrics> serial(std::string_view name);

    /// The counters of the device of that name.
    [[nodiscard]] Counters& counters(std::string_view name);

    void count_exit(std::size_t kind) noexcept { metrics_.count_exit(kind); }
    /// Counts writes that did not return from KVM_RUN (see CoalescedWrites).
    void count_coalesced(std::uint64_t writes) noexcept { metrics_.count_coalesced(writes); }
    /// Records an access that was answered, by a device if `claimed`.
    void record(const IoAccess& access, bool claimed) {
        if (access.bus == IoAccess::Bus::pio) {
            const std::uint64_t count = access.data.size() / access.width;
            if (metrics_.count_port(static_cast<std::uint16_t>(access.address), access.write, count, claimed))
                [[unlikely]] {
                note_unclaimed(access);
            }
        } else {
            count_mmio(access, claimed);
        }
        if (trace_) [[unlikely]] {
            trace_->record(access);
        }
    }

    [[nodiscard]] const IoMetrics& metrics() const noexcept { return metrics_; }
    /// The counters as JSON. `exit_status` is that of the process if it is ending.
    [[nodiscard]] std::string metrics_json(std::optional<int> exit_status = std::nullopt) const;
    /// The directory in which the metrics file is replaced, if there is one.
    [[nodiscard]] std::optional<int> metrics_directory() const noexcept {
        return metrics_file_ ? metrics_file_->directory() : std::nullopt;
    }
    /// Writes the metrics file, if there is one, and the buffered lines of the trace. Failures are logged.
    void flush(std::optional<int> exit_status = std::nullopt);

private:
    void count_mmio(const IoAccess& access, bool claimed);
    void note_unclaimed(const IoAccess& access);

    std::chrono::steady_clock::time_point start_{std::chrono::steady_clock::now()};
    std::optional<MetricsFile> metrics_file_;
    DeviceDirectory devices_;
    IoMetrics metrics_;
    std::vector<std::pair<std::string, std::shared_ptr<vmsuperio::SerialMetrics>>> serials_;
    std::deque<std::pair<std::string, Counters>> counters_;  // never moves its elements
    std::atomic<unsigned> unclaimed_logged_{0};
    std::uint64_t vms_started_{0};
    std::unique_ptr<IoTrace> trace_;
};

}  // namespace kvm_vmm
