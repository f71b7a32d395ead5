// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
// A field of one register cannot be used with another one.
#include <vmsuperio/registers/uart16550.hpp>

using namespace vmsuperio::uart16550;

bool is_data_ready(LineStatus status) {
#if defined(REJECT)
    return status[ModemStatus::delta_clear_to_send];
#else
    return status[LineStatus::data_ready];
#endif
}
