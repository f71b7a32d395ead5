// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
#pragma once

/// The version of vmdevice, for the preprocessor. It is that of the repository: vmsuperio and vmdevice are released
/// together. `docs/versioning.md` says what may change between two versions.
///
/// Everything in vmdevice is in the inline namespace `v0_2` of its major and minor version, so that a program may be
/// linked from parts that include different versions. Do not write `v0_2` yourself, and include a header instead
/// of declaring a name of vmdevice.

#define VMDEVICE_VERSION_MAJOR 0
#define VMDEVICE_VERSION_MINOR 2
#define VMDEVICE_VERSION_PATCH 0
/// One number that grows with each version: MAJOR * 1000000 + MINOR * 1000 + PATCH.
#define VMDEVICE_VERSION \
    (VMDEVICE_VERSION_MAJOR * 1000000 + VMDEVICE_VERSION_MINOR * 1000 + VMDEVICE_VERSION_PATCH)
#define VMDEVICE_VERSION_STRING "0.2.0"
