// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
#pragma once

#include <cstddef>
#include <cstdint>
#include <string_view>
#include <vector>

#include "observe/counters.hpp"
#include "virtio/buffers.hpp"
#include "virtio/shared_directory.hpp"

namespace kvm_vmm::virtio {

/// Serves a directory of the host to a FUSE client, as Linux's fs/fuse is one: protocol 7.23 and later
/// (include/uapi/linux/fuse.h). It knows no transport.
///
/// The client is not trusted: it may send any bytes, in any order, and change them at any time. Each request
/// gets one answer; what SharedDirectory does not allow is an error, and all sizes are bounded by max_data.
///
/// - The client caches names and attributes for `cache_seconds`, and data until the file is opened again or
///   seen to have changed. So changes by the host are seen within that time.
/// - Without `writable` each request that would change something fails with EROFS.
/// - The guest sees the numbers of the host's users. What it creates belongs to the user of this process,
///   has the mode that the guest asks for, and gets no set-user-id or set-group-id bit. Regular files,
///   directories and symbolic links can be created, and nothing else.
/// - Extended attributes, locks of the host, ioctl and mmap of the host's pages are not offered.
///
/// Not thread-safe. Requests wait for the host's file system.
class FuseServer {
public:
    static constexpr std::uint64_t cache_seconds = 1;
    static constexpr std::uint32_t max_data = 1U << 20U;   ///< of one READ, WRITE or READDIR, in bytes
    static constexpr std::uint64_t max_copy = 16U << 20U;  ///< of one COPY_FILE_RANGE, in bytes

    /// `root` and `counters` must outlive the server. `name` is used in messages.
    FuseServer(std::string_view name, const SharedRoot& root, bool writable, SharedDirectory::Limits limits,
               Counters& counters);

    /// Serves a request. Returns how many bytes of `reply` were written; 0 for a request that has no answer, or
    /// if `reply` has no room for one.
    [[nodiscard]] std::size_t handle(const Buffers& request, const Buffers& reply);
    /// Answers a request with EIO, which was not received as a whole, or has no room for its answer. Returns as handle().
    [[nodiscard]] std::size_t refuse(const Buffers& request, const Buffers& reply);
    /// Ends the session: forgets all objects and closes all handles. The client has to send FUSE_INIT again.
    void reset() noexcept;

    /// Whether the client has sent FUSE_INIT.
    [[nodiscard]] bool mounted() const noexcept { return initialized_; }
    [[nodiscard]] const SharedDirectory& files() const noexcept { return files_; }

private:
    struct Request;
    struct Operation;
    /// The size of the answer without its header, which is in the reply already.
    using Answer = FileResult<std::size_t>;

    [[nodiscard]] static const Operation* find_operation(std::uint32_t opcode) noexcept;
    [[nodiscard]] Answer serve(const Request& request, const Operation& operation);
    void count(const FileError& error, std::uint32_t opcode);

    Answer initialize(const Request& request);
    Answer destroy(const Request& request);
    Answer forget(const Request& request);
    Answer batch_forget(const Request& request);
    Answer interrupt(const Request& request);
    Answer look_up(const Request& request);
    Answer get_attributes(const Request& request);
    Answer set_attributes(const Request& request);
    Answer read_link(const Request& request);
    Answer make_symbolic_link(const Request& request);
    Answer make_node(const Request& request);
    Answer make_directory(const Request& request);
    Answer remove_file(const Request& request);
    Answer remove_directory(const Request& request);
    Answer rename(const Request& request);
    Answer rename_with_flags(const Request& request);
    Answer link(const Request& request);
    Answer open(const Request& request);
    Answer create(const Request& request);
    Answer read(const Request& request);
    Answer write(const Request& request);
    Answer status_of_file_system(const Request& request);
    Answer release(const Request& request);
    Answer release_directory(const Request& request);
    Answer synchronize(const Request& request);
    Answer synchronize_directory(const Request& request);
    Answer synchronize_file_system(const Request& request);
    Answer flush(const Request& request);
    Answer open_directory(const Request& request);
    Answer read_directory(const Request& request);
    Answer read_directory_plus(const Request& request);
    Answer check_access(const Request& request);
    Answer seek(const Request& request);
    Answer allocate(const Request& request);
    Answer copy_range(const Request& request);

    Answer rename(const Request& request, std::uint64_t new_parent, unsigned flags);
    Answer answer_entry(const Request& request, const FileResult<SharedDirectory::Entry>& entry);
    Answer answer_attributes(const Request& request, const FileResult<struct stat>& status);
    Answer answer_handle(const Request& request, vmsuperio::UniqueFd file, std::uint64_t id, bool directory);
    Answer list(const Request& request, bool plus);
    [[nodiscard]] FileResult<vmsuperio::UniqueFd> open_or_create(const Request& request,
                                                                 const SharedDirectory::Object& parent,
                                                                 int flags, mode_t mode);
    [[nodiscard]] int change_mode(const SharedDirectory::Object& object, mode_t mode) const;
    [[nodiscard]] Answer truncate(const Request& request, const SharedDirectory::Object& object);

    std::string_view name_;
    SharedDirectory files_;
    bool writable_;
    bool initialized_{false};
    std::vector<std::uint8_t> entries_;  // of a host directory, for list()
    Counter& lookups_;
    Counter& reads_;
    Counter& writes_;
    Counter& bytes_read_;
    Counter& bytes_written_;
    Counter& refused_;
    Counter& errors_;
};

}  // namespace kvm_vmm::virtio
