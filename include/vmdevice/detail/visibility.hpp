// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
#pragma once

/// VMDEVICE_SHARED marks a variable that exists once per process: a program and its shared libraries that
/// each include this header share it, whatever visibility they are compiled with. On Windows, whose libraries
/// do not share such variables, a bus must be used only by the module that created it.

#if defined(__ELF__) || defined(__APPLE__)
#define VMDEVICE_SHARED [[gnu::visibility("default")]]
#else
#define VMDEVICE_SHARED
#endif
