// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
#include "vmm/sandbox_plan.hpp"

#include <algorithm>
#include <limits>
#include <memory>
#include <optional>
#include <span>
#include <sys/stat.h>
#include <unistd.h>
#include <vector>

namespace kvm_vmm {
namespace {

using sandbox::Feature;
using sandbox::FeatureSet;
using sandbox::PathUse;

// Standard streams, files, the event loops with their timers, KVM and its CPUs, queues of all devices.
constexpr std::uint64_t descriptors_of_machine = 4096;

void add_console(FeatureSet& features, SerialConfig::Kind kind) {
    if (kind == SerialConfig::Kind::pty) {
        features.add(Feature::pty);
    } else if (kind == SerialConfig::Kind::unix_socket) {
        features.add(Feature::unix_console);
    }
}

void add_net(FeatureSet& features, const virtio::NetConfig& net) {
    using enum virtio::NetConfig::Kind;
    switch (net.kind) {
        case tap:
            features.add(Feature::tap);
            break;
        case fd:  // a tap or a stream socket
            features.add(Feature::tap);
            features.add(Feature::stream_net);
            break;
        case passt:
            features.add(Feature::stream_net);
            features.add(net.target.empty() ? Feature::helper : Feature::reconnect);
            break;
    }
}

FeatureSet features_of(const VmmConfig& config, bool metrics) {
    FeatureSet features;
    for (const SerialConfig& serial : config.serials) {
        add_console(features, serial.kind);
    }
    for (const SerialConfig& console : config.consoles) {
        add_console(features, console.kind);
    }
    for (const virtio::NetConfig& net : config.nets) {
        add_net(features, net);
    }
    if (!config.disks.empty()) {
        features.add(Feature::disk);
    }
    for (const ShareConfig& share : config.shares) {
        features.add(share.writable ? Feature::writable_share : Feature::share);
    }
    if (config.vsock) {
        features.add(Feature::vsock);
    }
    if (metrics) {
        features.add(Feature::metrics);
    }
    return features;
}

bool is_regular(int fd) {
    struct stat status{};
    return ::fstat(fd, &status) == 0 && S_ISREG(status.st_mode);
}

/// The size beyond which this process writes no file: that of its largest disk. None if it also writes files that
/// grow.
std::optional<std::uint64_t> largest_file(const VmmConfig& config, const OpenedFiles& files, bool metrics) {
    const auto to_file = [](const SerialConfig& console) { return console.kind == SerialConfig::Kind::file; };
    const bool grows = metrics || config.observe.log || config.observe.metrics || config.observe.trace_io ||
                       std::ranges::any_of(config.serials, to_file) ||
                       std::ranges::any_of(config.consoles, to_file) ||
                       (config.debug_console && to_file(*config.debug_console)) ||
                       std::ranges::any_of(config.shares, &ShareConfig::writable) ||
                       is_regular(STDOUT_FILENO) || is_regular(STDERR_FILENO);
    if (grows) {
        return std::nullopt;
    }
    std::uint64_t size = 0;
    for (const std::unique_ptr<virtio::DiskImage>& disk : files.disks) {
        size = std::max(size, disk->facts().size);
    }
    return size;
}

void add_sockets(std::vector<sandbox::PathRule>& paths, std::span<const SerialTarget> targets) {
    for (const SerialTarget& target : targets) {
        if (target.socket) {
            paths.push_back({.directory = target.socket->directory(), .use = PathUse::remove});
        }
    }
}

}  // namespace

sandbox::Plan sandbox_plan(const VmmConfig& config, const OpenedFiles& files, const Observer& observer) {
    const std::optional<int> metrics = observer.metrics_directory();
    sandbox::Plan plan{
        .mode = config.sandbox,
        .features = features_of(config, metrics.has_value()),
        .paths = {},
        .limits = {.descriptors = config.shares.empty() ? descriptors_of_machine
                                                        : std::numeric_limits<std::uint64_t>::max(),
                   .file_size = largest_file(config, files, metrics.has_value()),
                   .core_dumps = config.core_dumps},
        .root = config.chroot,
        .user = config.user,
        .isolate = config.isolate};
    for (std::size_t i = 0; i < files.shares.size(); ++i) {
        plan.paths.push_back({.directory = files.shares[i].directory(),
                              .use = config.shares[i].writable ? PathUse::write : PathUse::read});
    }
    add_sockets(plan.paths, files.serials);
    add_sockets(plan.paths, files.consoles);
    if (files.vsock) {
        plan.paths.push_back({.directory = files.vsock->directory(), .use = PathUse::remove});
    }
    if (metrics) {
        plan.paths.push_back({.directory = *metrics, .use = PathUse::replace});
    }
    return plan;
}

}  // namespace kvm_vmm
