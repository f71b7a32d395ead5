// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
// A program whose two source files are compiled with different versions of the libraries: this one with the present
// version, version_old.cpp with one whose texts begin with "old".
#include <string>

#include <vmdevice/vmdevice.hpp>
#include <vmsuperio/vmsuperio.hpp>

std::string old_texts();

int main() {
    const std::string texts = std::string(vmdevice::to_string(vmdevice::BusError::device_not_found)) +
                              std::string(vmsuperio::to_string(vmsuperio::SerialErrorKind::full_fifo));
    if (texts.find("old") != std::string::npos) {
        return 1;
    }
    return old_texts().starts_with("old") && old_texts().rfind("old") > 0 ? 0 : 2;
}
