# SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
# The public headers of each library, relative to include/. Each one must compile alone.
set(vmdevice_headers
    vmdevice/detail/config.hpp)

set(vmsuperio_headers
    vmsuperio/clock.hpp
    vmsuperio/detail/config.hpp
    vmsuperio/registers/register.hpp
    vmsuperio/snapshot.hpp
    vmsuperio/trigger.hpp)
