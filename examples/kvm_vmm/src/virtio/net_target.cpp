// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
#include "virtio/net_target.hpp"

#include <cerrno>
#include <fcntl.h>
#include <fstream>
#include <string>
#include <sys/socket.h>
#include <utility>
#include <vector>

#include "util/error.hpp"
#include "util/log.hpp"
#include "util/quote.hpp"
#include "virtio/passt_process.hpp"
#include "virtio/stream_backend.hpp"
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
    // exec() closes what has FD_CLOEXEC, so that a descriptor with it was opened here, for another option.
    const int flags = ::fcntl(fd, F_GETFD);
    if (flags < 0 || (flags & FD_CLOEXEC) != 0 || ::fcntl(fd, F_SETFD, FD_CLOEXEC) != 0) {
        throw VmmError(ExitCode::bad_file, what + ": no such descriptor was inherited");
    }
    int type = 0;
    socklen_t size = sizeof(type);
    if (::getsockopt(fd, SOL_SOCKET, SO_TYPE, &type, &size) == 0) {
        if (type != SOCK_STREAM) {
            throw VmmError(ExitCode::bad_file, what + ": the descriptor is a socket, but no stream socket");
        }
        sockaddr_storage peer{};
        size = sizeof(peer);
        if (::getpeername(fd, reinterpret_cast<sockaddr*>(&peer), &size) != 0) {
            throw VmmError(ExitCode::bad_file, what + ": the socket is not connected");
        }
        return std::make_unique<StreamBackend>(std::make_unique<SinglePeer>(vmsuperio::UniqueFd(fd)), what,
                                               "fd");
    }
    return TapBackend::adopt(vmsuperio::UniqueFd(fd), what);
}

// The largest MTU that passt offers to the guest by default: the fewest system calls for each byte.
constexpr std::uint16_t passt_mtu = 65520;

std::unique_ptr<NetBackend> start_passt(const NetConfig& config, const std::string& what) {
    std::vector<std::string> arguments;
    for (const std::string& ports : config.tcp_ports) {
        arguments.insert(arguments.end(), {"--tcp-ports", ports});
    }
    for (const std::string& ports : config.udp_ports) {
        arguments.insert(arguments.end(), {"--udp-ports", ports});
    }
    const std::uint16_t mtu = config.mtu.value_or(passt_mtu);
    arguments.insert(arguments.end(), {"--mtu", std::to_string(mtu)});
    return std::make_unique<StreamBackend>(std::make_unique<PasstProcess>(std::move(arguments)), what,
                                           "passt", mtu);
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
        case NetConfig::Kind::passt:
            target.backend = config.target.empty()
                                 ? start_passt(config, what)
                                 : std::make_unique<StreamBackend>(
                                       std::make_unique<SocketPeer>(config.target), what, config.target);
            break;
    }
    target.settings.mac =
        config.mac
            ? *config.mac
            : derive_mac(machine_id() + " " + std::to_string(index) + " " + target.backend->identity());
    target.settings.mtu = config.mtu ? config.mtu : target.backend->mtu();
    if (const auto host_mtu = target.backend->mtu(); config.mtu && host_mtu && *config.mtu > *host_mtu) {
        log(LogLevel::warning, what + ": mtu=" + std::to_string(*config.mtu) +
                                   " is larger than the MTU of the host's end, " + std::to_string(*host_mtu) +
                                   ": the host may drop what the guest sends");
    }
    target.settings.rate = config.rate;
    return target;
}

}  // namespace kvm_vmm::virtio
