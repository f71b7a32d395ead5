// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
#pragma once

#include <concepts>
#include <string>
#include <system_error>

#include <vmsuperio/host_errors.hpp>
#include <vmsuperio/serial_error.hpp>

#include "observe/device_directory.hpp"
#include "util/log.hpp"

namespace kvm_vmm {

/// Counts the failures of a device on the host's side, which the guest never sees, and logs the first. It is
/// used as the error handler of a vmdevice::ByteDevice.
class DeviceErrorLog {
public:
    /// `device` must outlive this object.
    explicit DeviceErrorLog(ObservedDevice& device) noexcept : device_(&device) {}

    template <class Error>
    void operator()(const Error& error) const {
        if (device_->errors.fetch_add(1, std::memory_order_relaxed) == 0) {
            log(LogLevel::warning,
                device_->name + ": " + describe(error) + "; further errors are only counted");
        }
    }

private:
    template <class Error>
    static std::string describe(const Error& error) {
        if constexpr (std::same_as<Error, std::error_code>) {
            return std::string(to_string(vmsuperio::HostErrorSource::interrupt)) + ": " + error.message();
        } else if constexpr (requires { std::string(to_string(error)); }) {
            return std::string(to_string(error));
        } else {
            return "a write failed";
        }
    }

    ObservedDevice* device_;
};

}  // namespace kvm_vmm
