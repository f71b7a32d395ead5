// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
#include "vmm/vsock_option.hpp"

#include <array>
#include <cstddef>
#include <string_view>

#include "virtio/vsock_packet.hpp"
#include "vmm/option_hints.hpp"
#include "vmm/option_list.hpp"

namespace kvm_vmm {

std::expected<VsockConfig, std::string> parse_vsock(const std::string& text) {
    VsockConfig vsock;
    for (const std::string& part : split_at_commas(text)) {
        const std::size_t equals = part.find('=');
        const std::string key = part.substr(0, equals);
        const std::string value = equals == std::string::npos ? "" : part.substr(equals + 1);
        const bool is_path = key == "path" || key == "uds_path";  // the latter is Firecracker's name
        if ((!is_path && key != "cid") || equals == std::string::npos) {
            constexpr std::array<std::string_view, 2> words{"cid=N", "path=PATH"};
            return std::unexpected(quote(part) + " is not one of cid=N, path=PATH" + suggestion(part, words) +
                                   " (a comma in the path is written twice)");
        }
        if (is_path ? !vsock.path.empty() : vsock.cid != 0) {
            return std::unexpected(quote(text) + " has more than one " + key);
        }
        if (is_path) {
            vsock.path = value;
            continue;
        }
        const auto cid = number_in<decltype(vsock.cid)>(value, virtio::vsock::first_guest_cid,
                                                        virtio::vsock::last_guest_cid);
        if (!cid) {
            return std::unexpected(quote(value) + " is not a guest's CID: a number from " +
                                   std::to_string(virtio::vsock::first_guest_cid) + " to " +
                                   std::to_string(virtio::vsock::last_guest_cid));
        }
        vsock.cid = *cid;
    }
    if (vsock.cid == 0 || vsock.path.empty()) {
        return std::unexpected(quote(text) + " lacks the " + (vsock.cid == 0 ? "cid=N" : "path=PATH") +
                               ": cid=N,path=PATH");
    }
    return vsock;
}

}  // namespace kvm_vmm
