// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
#pragma once

#include <optional>
#include <string>

#include "util/log.hpp"

namespace kvm_vmm {

/// The outputs that describe the VM.
struct ObserveConfig {
    std::optional<std::string> log;       ///< file; without one, warnings and errors go to stderr
    std::optional<LogLevel> log_level;    ///< without one: info in a file, warning on stderr
    std::optional<std::string> metrics;   ///< file for the counters
    std::optional<std::string> trace_io;  ///< file for the trace of all accesses
};

}  // namespace kvm_vmm
