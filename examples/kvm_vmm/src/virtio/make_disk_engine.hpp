// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
#pragma once

#include <memory>
#include <string_view>

#include "virtio/disk_config.hpp"
#include "virtio/disk_engine.hpp"
#include "virtio/disk_file.hpp"

namespace kvm_vmm::virtio {

/// The engine of a disk called `name` (at most 11 bytes). `file` must outlive it. Throws VmmError if the host
/// does not allow that kind; with `automatic` only if it allows no thread either.
[[nodiscard]] std::unique_ptr<DiskEngine> make_disk_engine(DiskEngineKind kind, std::string_view name,
                                                           DiskFile& file);

}  // namespace kvm_vmm::virtio
