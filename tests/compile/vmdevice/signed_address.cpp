// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
// The integer of an address space is unsigned.
#include <cstdint>

#include <vmdevice/range.hpp>

struct Address {
#ifdef REJECT
    std::int32_t value;
#else
    std::uint32_t value;
#endif
};

vmdevice::BusRange<Address> unit() { return vmdevice::BusRange<Address>::unit(Address{1}); }
