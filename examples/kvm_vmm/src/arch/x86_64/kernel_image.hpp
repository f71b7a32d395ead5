// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
#pragma once

#include <cstdint>
#include <optional>
#include <vector>

#include "arch/x86_64/entry_point.hpp"
#include "boot/image_file.hpp"
#include "memory/guest_memory.hpp"

namespace kvm_vmm {

/// A kernel that has been loaded into guest memory, and its requirements on the loader.
struct KernelImage {
    enum class Format { bzimage, elf };

    Format format{};
    EntryPoint::Protocol protocol{};
    std::uint64_t entry{};  ///< guest physical address of the first instruction
    /// RAM that the kernel uses before it reads its memory map: nothing else may be loaded there.
    std::uint64_t begin{};
    std::uint64_t end{};
    /// Highest address that the last byte of an initrd may have.
    std::uint64_t initrd_limit{};
    /// Longest command line, in bytes without the NUL.
    std::uint32_t command_line_limit{};
    /// bzImage only: the setup header, from offset 0x1F1 of the file on, to be copied to the zero page.
    std::vector<std::uint8_t> setup_header;
};

/// How to enter an ELF kernel that supports both protocols. A bzImage has only the Linux boot protocol.
enum class BootProtocol {
    automatic,  ///< PVH if the file has its note, because that is a documented interface
    linux_boot,
    pvh,
};

/// Determines the format of `file` from its content, checks it against its size and the guest's RAM, and
/// loads it. `memory` must be zeroed. Throws VmmError(ExitCode::bad_file).
[[nodiscard]] KernelImage load_kernel(GuestMemory& memory, const ImageFile& file,
                                      BootProtocol wanted = BootProtocol::automatic);

}  // namespace kvm_vmm
