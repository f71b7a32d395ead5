// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
#include "vmm/usage_error.hpp"

#include "util/error.hpp"

namespace kvm_vmm {
namespace {

// CLI11 writes each reason on one line, but text from the user may contain line breaks.
std::string one_line(std::string text) {
    for (char& c : text) {
        if (static_cast<unsigned char>(c) < ' ' || c == '\x7F') {
            c = ' ';
        }
    }
    return text;
}

}  // namespace

void refuse(const std::string& reason) {
    throw VmmError(ExitCode::usage, one_line(reason) + " (see kvm_vmm --help)");
}

}  // namespace kvm_vmm
