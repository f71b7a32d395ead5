// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
#pragma once

#include <functional>
#include <optional>
#include <string>

#include "arch/x86_64/boot_cpu.hpp"
#include "arch/x86_64/entry_point.hpp"
#include "arch/x86_64/initrd.hpp"
#include "arch/x86_64/kernel_image.hpp"
#include "boot/image_file.hpp"
#include "machine/platform.hpp"
#include "memory/guest_memory.hpp"

namespace kvm_vmm {

struct BootOptions {
    std::string kernel_path;                 ///< if no BootImages are given
    std::optional<std::string> initrd_path;  ///< likewise
    std::string command_line;                ///< in the kernel's syntax
    BootProtocol protocol{BootProtocol::automatic};
    /// Called repeatedly during the work; may throw to abort.
    std::function<void()> checkpoint{nullptr};
};

/// The result of load_guest().
struct LoadedGuest {
    EntryPoint entry;
    BootCpu boot_cpu;
    KernelImage kernel;
    std::optional<Initrd> initrd;
    std::string command_line;  ///< that of the options, with what this machine adds
};

/// The opened files of a guest.
struct BootImages {
    const ImageFile& kernel;
    const ImageFile* initrd{};  ///< null for none
};

/// Loads a guest into zeroed memory: kernel, initrd, command line, firmware tables, boot parameters, and the
/// tables of the boot CPU. Before another guest is loaded, the memory must be zeroed again.
///
/// Throws VmmError with one line for the user: ExitCode::bad_file for a file, ExitCode::usage for the command
/// line, the amount of RAM or the number of CPUs.
[[nodiscard]] LoadedGuest load_guest(GuestMemory& memory, const BootImages& images,
                                     const BootOptions& options, const Platform& machine);

/// Likewise, with the files at the paths of `options`, which are opened for this call.
[[nodiscard]] LoadedGuest load_guest(GuestMemory& memory, const BootOptions& options,
                                     const Platform& machine);

}  // namespace kvm_vmm
