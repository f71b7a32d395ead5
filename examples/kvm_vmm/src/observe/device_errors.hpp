// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
#pragma once

#include <string>
#include <system_error>
#include <type_traits>

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
    static std::string describe(const std::error_code& error) {
        return "the interrupt trigger failed: " + error.message();
    }
    template <class TriggerError>
    static std::string describe(const vmsuperio::SerialError<TriggerError>& error) {
        std::string text{to_string(error)};
        if (error.kind() == vmsuperio::SerialErrorKind::write) {
            text += ": " + error.write_error().message();
        } else if constexpr (std::is_same_v<TriggerError, std::error_code>) {
            text += error.trigger_error() ? ": " + error.trigger_error()->message() : std::string{};
        }
        return text;
    }
    template <class Error>
    static std::string describe(const Error& /*error*/) {
        return "a write failed";
    }

    ObservedDevice* device_;
};

}  // namespace kvm_vmm
