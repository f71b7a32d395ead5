// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
#include "virtio/make_disk_engine.hpp"

#include "virtio/thread_engine.hpp"

namespace kvm_vmm::virtio {
namespace {

// Enough to keep a fast SSD busy with requests that do not hit the host's cache.
constexpr std::size_t max_threads = 4;

}  // namespace

std::unique_ptr<DiskEngine> make_disk_engine(DiskEngineKind, std::string_view name, DiskFile& file) {
    return std::make_unique<ThreadEngine>(name, file, max_threads);
}

}  // namespace kvm_vmm::virtio
