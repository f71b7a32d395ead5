// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
// The arguments of all devices are in the same order: trigger, events, writer.
#include <vmsuperio/serial.hpp>

#if defined(REJECT)
vmsuperio::Serial uart(vmsuperio::NullTrigger{}, vmsuperio::NullWriter{}, vmsuperio::NoEvents{});
#else
vmsuperio::Serial uart(vmsuperio::NullTrigger{}, vmsuperio::NoEvents{}, vmsuperio::NullWriter{});
#endif
