// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
#include "arch/x86_64/memory_map.hpp"

#include "arch/x86_64/layout.hpp"

namespace kvm_vmm {

std::vector<MemoryRange> memory_map(const GuestMemory& memory) {
    using enum MemoryRange::Type;
    std::vector<MemoryRange> map{
        {0, layout::ebda, ram},
        {layout::ebda, layout::low_memory_end - layout::ebda, reserved},
        {layout::firmware, layout::high_memory - layout::firmware, reserved},
    };
    for (const GuestMemory::Region& region : memory.regions()) {
        const std::uint64_t start = region.guest_address == 0 ? layout::high_memory : region.guest_address;
        const std::uint64_t end = region.guest_address + region.host.size();
        if (end > start) {
            map.push_back({start, end - start, ram});
        }
    }
    return map;
}

bool write_bios_data_area(GuestMemory& memory) {
    constexpr std::uint64_t ebda_segment = layout::bios_data_area + 0x0E;  // 40:0E
    constexpr std::uint64_t base_memory = layout::bios_data_area + 0x13;   // 40:13, in KiB
    return memory.write_object(ebda_segment, static_cast<std::uint16_t>(layout::ebda >> 4U)) &&
           memory.write_object(base_memory, static_cast<std::uint16_t>(layout::ebda >> 10U));
}

}  // namespace kvm_vmm
