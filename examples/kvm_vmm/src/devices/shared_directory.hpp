// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
#pragma once

#include <algorithm>
#include <cstddef>
#include <memory>
#include <string>
#include <string_view>
#include <sys/resource.h>

#include "devices/virtio_mmio.hpp"
#include "util/log.hpp"
#include "virtio/fs.hpp"

namespace kvm_vmm {

/// How many descriptors each of `shares` directories may hold, so that some are left for the rest of the
/// process.
[[nodiscard]] inline virtio::SharedDirectory::Limits share_limits(std::size_t shares,
                                                                  std::size_t descriptors) noexcept {
    constexpr std::size_t reserve = 1024;
    const std::size_t each = (descriptors > 2 * reserve ? descriptors - reserve : descriptors / 2) / shares;
    const virtio::SharedDirectory::Limits most{};
    return {.objects = std::min(most.objects, each - each / 8), .handles = std::min(most.handles, each / 8)};
}

/// The directory of DeviceContext::shares at `index`, which the guest mounts as virtiofs by its tag.
[[nodiscard]] inline VirtioDevice shared_directory(std::size_t index, bool writable, std::string tag) {
    return {.name = "share" + std::to_string(index),
            .title = "shared directory",
            .model = "virtio::FileSystem",
            .note = "with `--share`",
            .create = [index, writable, tag = std::move(tag)](
                          const DeviceContext& context, std::string_view name,
                          Counters& counters) -> std::shared_ptr<virtio::Device> {
                rlimit files{};
                ::getrlimit(RLIMIT_NOFILE, &files);
                const auto limits =
                    share_limits(context.shares.size(), static_cast<std::size_t>(files.rlim_cur));
                constexpr std::size_t few = 16384;
                if (limits.objects < few) {
                    log(LogLevel::warning, std::string(name) + ": the guest can know " +
                                               std::to_string(limits.objects) + " files at a time and open " +
                                               std::to_string(limits.handles) +
                                               ", because this process may have " +
                                               std::to_string(files.rlim_cur) + " descriptors (ulimit -Hn)");
                }
                return std::make_shared<virtio::FileSystem>(name, counters, context.shares[index], writable,
                                                            tag, limits);
            }};
}

}  // namespace kvm_vmm
