// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
#include <string>

#include <vmdevice/vmdevice.hpp>
#include <vmsuperio/vmsuperio.hpp>

std::string old_texts();

std::string old_texts() {
    return std::string(vmdevice::to_string(vmdevice::BusError::device_not_found)) +
           std::string(vmsuperio::to_string(vmsuperio::SerialErrorKind::full_fifo));
}
