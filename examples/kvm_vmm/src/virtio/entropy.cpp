// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
#include "virtio/entropy.hpp"

#include <cerrno>
#include <sys/random.h>
#include <utility>

namespace kvm_vmm::virtio {

Entropy::Entropy(std::string_view name, Counters& counters, EventManager& events, Source source)
    : Device(name, counters), events_(events), source_(std::move(source)), bytes_(counters["bytes"]) {}

std::size_t Entropy::system_source(std::span<std::uint8_t> bytes) noexcept {
    std::size_t filled = 0;
    while (filled < bytes.size()) {
        const ssize_t got = ::getrandom(bytes.data() + filled, bytes.size() - filled, 0);
        if (got > 0) {
            filled += static_cast<std::size_t>(got);
        } else if (errno != EINTR) {
            break;
        }
    }
    return filled;
}

void Entropy::on_notified(std::size_t index) {
    serve(index, [this](const Chain& chain) {
        if (!chain.readable.empty()) {
            count_bad_request();  // 5.4.6.1: only writable buffers
        }
        const std::uint32_t written = fill(chain.writable);
        bytes_.add(written);
        return std::optional(written);
    });
}

std::uint32_t Entropy::fill(const Buffers& buffers) const {
    const Buffers allowed = buffers.part(0, max_request);
    std::uint32_t filled = 0;
    for (const Buffers::Piece piece : allowed.pieces()) {
        const std::size_t got = source_(piece);
        filled += static_cast<std::uint32_t>(got);
        if (got < piece.size()) {
            break;
        }
    }
    return filled;
}

}  // namespace kvm_vmm::virtio
