// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
#pragma once

#include <cstdint>
#include <vector>

#include "arch/x86_64/kernel_image.hpp"
#include "boot/image_file.hpp"
#include "memory/guest_memory.hpp"

namespace kvm_vmm {

/// The fields of a bzImage's setup header that a loader uses, all checked (Documentation/arch/x86/boot.rst).
struct BzImageHeader {
    std::uint16_t version{};             ///< boot protocol, 0x020F is 2.15
    std::uint64_t setup_size{};          ///< boot sector and real-mode code: the payload's offset in the file
    std::uint64_t payload_size{};        ///< protected-mode code
    bool entry_64{};                     ///< the payload has a 64-bit entry at 0x200
    std::uint64_t runtime_start{};       ///< where the kernel runs; it is loaded there too
    std::uint64_t runtime_size{};        ///< RAM that it needs from there on
    std::uint64_t initrd_limit{};        ///< highest address of the initrd's last byte
    std::uint32_t command_line_limit{};  ///< bytes without the NUL
    std::vector<std::uint8_t> raw;       ///< the unchanged setup header, from offset 0x1F1
};

/// Whether the file has the boot sector mark and the signature "HdrS".
[[nodiscard]] bool is_bzimage(const ImageFile& file);

/// Throws VmmError(ExitCode::bad_file) if a field is missing or invalid.
[[nodiscard]] BzImageHeader read_bzimage_header(const ImageFile& file);

[[nodiscard]] KernelImage load_bzimage(GuestMemory& memory, const ImageFile& file);

}  // namespace kvm_vmm
