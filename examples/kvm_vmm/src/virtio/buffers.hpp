// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "memory/shared_copy.hpp"

namespace kvm_vmm::virtio {

/// One direction of a descriptor chain: pieces of guest memory that count as one stretch of bytes. How the
/// driver has divided them means nothing (VIRTIO 1.2, 2.7.4.1).
///
/// The guest may write the bytes at any time: copy before checking.
class Buffers {
public:
    using Piece = std::span<std::uint8_t>;

    /// Empty pieces are left out.
    void add(Piece piece) {
        if (!piece.empty()) {
            pieces_.push_back(piece);
            size_ += piece.size();
        }
    }

    [[nodiscard]] std::uint64_t size() const noexcept { return size_; }
    [[nodiscard]] bool empty() const noexcept { return size_ == 0; }
    [[nodiscard]] std::span<const Piece> pieces() const& noexcept { return pieces_; }
    std::span<const Piece> pieces() const&& = delete;  // it would refer to a destroyed object

    /// Copies from byte `offset` on, as many bytes as there are up to `target.size()`. Returns how many.
    std::size_t read(std::uint64_t offset, std::span<std::uint8_t> target) const noexcept {
        return for_each(offset, target.size(), [&target](Piece piece, std::size_t done) {
            copy_from_guest(target.subspan(done, piece.size()), piece.data());
        });
    }
    /// Copies `source` to byte `offset` and on, as many bytes as there is room for. Returns how many.
    std::size_t write(std::uint64_t offset, std::span<const std::uint8_t> source) const noexcept {
        return for_each(offset, source.size(), [&source](Piece piece, std::size_t done) {
            copy_to_guest(piece.data(), source.subspan(done, piece.size()));
        });
    }
    /// The bytes [offset, offset + length), as far as they exist.
    [[nodiscard]] Buffers part(std::uint64_t offset, std::uint64_t length) const {
        Buffers result;
        for_each(offset, length, [&result](Piece piece, std::size_t) { result.add(piece); });
        return result;
    }

private:
    // Calls f(piece, bytes before it) for the pieces of [offset, offset + length). Returns their size.
    template <class F>
    std::size_t for_each(std::uint64_t offset, std::uint64_t length, F&& f) const {
        std::size_t done = 0;
        for (const Piece piece : pieces_) {
            if (offset >= piece.size()) {
                offset -= piece.size();
                continue;
            }
            const auto count =
                static_cast<std::size_t>(std::min<std::uint64_t>(piece.size() - offset, length - done));
            if (count == 0) {
                break;
            }
            f(piece.subspan(static_cast<std::size_t>(offset), count), done);
            done += count;
            offset = 0;
        }
        return done;
    }

    std::vector<Piece> pieces_;
    std::uint64_t size_{0};
};

}  // namespace kvm_vmm::virtio
