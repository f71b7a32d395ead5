// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
#include "virtio/make_disk_engine.hpp"

#include <string>
#include <utility>

#include "util/error.hpp"
#include "util/log.hpp"
#include "virtio/thread_engine.hpp"
#include "virtio/uring_engine.hpp"

namespace kvm_vmm::virtio {
namespace {

// Enough to keep a fast SSD busy with requests that do not hit the host's cache.
constexpr std::size_t threads = 4;

}  // namespace

std::unique_ptr<DiskEngine> make_disk_engine(DiskEngineKind kind, std::string_view name, DiskFile& file) {
    if (kind != DiskEngineKind::threads) {
        auto engine = UringEngine::create(name, file);
        if (engine) {
            return *std::move(engine);
        }
        const std::string reason =
            errno_message(std::string(name) + ": io_uring is not available", engine.error());
        if (kind == DiskEngineKind::io_uring) {
            throw VmmError(ExitCode::vmm_error, reason);
        }
        log(LogLevel::debug, reason + "; threads perform the requests");
    }
    return std::make_unique<ThreadEngine>(name, file, threads);
}

}  // namespace kvm_vmm::virtio
