// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
#pragma once

/// The version of vmsuperio, for the preprocessor. It is that of the repository: vmsuperio and vmdevice are released
/// together. `docs/versioning.md` says what may change between two versions.
///
/// Everything in vmsuperio is in the inline namespace `v0_2` of its major and minor version, so that a program may be
/// linked from parts that include different versions. Do not write `v0_2` yourself, and include a header instead
/// of declaring a name of vmsuperio.

#define VMSUPERIO_VERSION_MAJOR 0
#define VMSUPERIO_VERSION_MINOR 2
#define VMSUPERIO_VERSION_PATCH 0
/// One number that grows with each version: MAJOR * 1000000 + MINOR * 1000 + PATCH.
#define VMSUPERIO_VERSION \
    (VMSUPERIO_VERSION_MAJOR * 1000000 + VMSUPERIO_VERSION_MINOR * 1000 + VMSUPERIO_VERSION_PATCH)
#define VMSUPERIO_VERSION_STRING "0.2.0"
