// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
#include "util/log.hpp"

#include <unistd.h>

#include <string>

#include "console/raw_terminal.hpp"

namespace kvm_vmm {

void report(std::string_view message) noexcept {
    try {
        std::string line = "kvm_vmm: ";
        line += message;
        // In raw mode a newline alone does not return to the first column.
        line += RawTerminal::active() ? "\r\n" : "\n";
        // One write, so that lines of several threads do not mix.
        [[maybe_unused]] const auto written = ::write(STDERR_FILENO, line.data(), line.size());
    } catch (...) {
    }
}

}  // namespace kvm_vmm
