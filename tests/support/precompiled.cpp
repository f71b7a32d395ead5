// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
// Compiled for its precompiled headers only (VMSUPERIO_PRECOMPILE).
