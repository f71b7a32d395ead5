// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
#include "virtio/net_target.hpp"

#include <cerrno>
#include <fcntl.h>
#include <fstream>
#include <string>
#include <utility>

#include "util/error.hpp"
#include "util/quote.hpp"
#include "virtio/tap_backend.hpp"

namespace kvm_vmm::virtio {
namespace {

// Tells this host's guests from those of other hosts with interfaces of the same names (machine-id(5)).
std::string machine_id() {
    std::string id;
    std::ifstream("/etc/machine-id") >> id;
    return id;
}

std::unique_ptr<NetBackend> adopt_descriptor(int fd, const std::string& what) {
    if (::fcntl(fd, F_SETFD, FD_CLOEXEC) != 0) {
        throw VmmError(ExitCode::bad_file, what + ": no such descriptor was inherited");
    }
    return TapBackend::adopt(vmsuperio::UniqueFd(fd), what);
}

}  // namespace

NetTarget open_net(const NetConfig& config, std::size_t index) {
    const std::string what = "--net " + in_quotes(config.text);
    NetTarget target;
    switch (config.kind) {
        case NetConfig::Kind::tap:
            target.backend = TapBackend::open(config.target);
            break;
        case NetConfig::Kind::fd:
            target.backend = adopt_descriptor(config.fd, what);
            break;
    }
    target.settings.mac =
        config.mac
            ? *config.mac
            : derive_mac(machine_id() + " " + std::to_string(index) + " " + target.backend->identity());
    target.settings.mtu = config.mtu ? config.mtu : target.backend->mtu();
    return target;
}

}  // namespace kvm_vmm::virtio
