// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
#pragma once

#include <functional>
#include <optional>
#include <string>

#include "acpi/platform.hpp"
#include "boot/boot_cpu.hpp"
#include "boot/entry_point.hpp"
#include "boot/image_file.hpp"
#include "boot/initrd.hpp"
#include "boot/kernel_image.hpp"
#include "memory/guest_memory.hpp"

namespace kvm_vmm {

struct BootOptions {
    std::string kernel_path;                 ///< where no BootImages are given
    std::optional<std::string> initrd_path;  ///< likewise
    std::string command_line;                ///< in the kernel's syntax; CommandLine helps to build it
    BootProtocol protocol{BootProtocol::automatic};
    /// Called again and again during the work; may throw to give up.
    std::function<void()> checkpoint{nullptr};
};

/// What load_guest() did.
struct LoadedGuest {
    EntryPoint entry;
    BootCpu boot_cpu;
    KernelImage kernel;
    std::optional<Initrd> initrd;
};

/// The files of a guest, opened before.
struct BootImages {
    const ImageFile& kernel;
    const ImageFile* initrd{};  ///< null for none
};

/// Puts a guest into zeroed memory: kernel, initrd, command line, firmware tables, boot parameters, and
/// what the boot CPU needs. The same memory takes another guest only once it is zeroed again.
///
/// Throws VmmError with one line for the user: ExitCode::bad_file about a file, ExitCode::usage about
/// the command line, the amount of RAM or the number of CPUs.
[[nodiscard]] LoadedGuest load_guest(GuestMemory& memory, const BootImages& images,
                                     const BootOptions& options, const Platform& machine);

/// Likewise, with the files at the paths of `options`, which are opened for this one time.
[[nodiscard]] LoadedGuest load_guest(GuestMemory& memory, const BootOptions& options,
                                     const Platform& machine);

}  // namespace kvm_vmm
