// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
#include "vmm/opened_files.hpp"

#include <array>
#include <cstddef>
#include <fcntl.h>
#include <string>
#include <string_view>
#include <sys/stat.h>
#include <unistd.h>
#include <utility>

#include "util/file_identity.hpp"
#include "util/quote.hpp"
#include "virtio/vsock.hpp"

namespace kvm_vmm {
namespace {

/// A regular file, and the option that led to it.
struct UsedFile {
    std::string option;  ///< with its value, for the message
    FileIdentity identity;
    OutputFile* output{};  ///< null: an input, or a disk
    bool written{false};   ///< a disk that is not read-only
    bool log{false};
};

/// A socket that is to listen, and the option that led to it.
struct UsedSocket {
    std::string option;
    std::optional<ListeningSocket>* socket;
};

// Clients of the vsock that wait to be accepted, for instance while the guest is restarted.
constexpr int vsock_backlog = 128;

[[noreturn]] void refuse(const std::string& one, const std::string& other) {
    throw VmmError(ExitCode::bad_file, one + " and " + other + " are the same file");
}

std::string option_text(std::string_view option, const std::string& path) {
    return std::string(option) + ' ' + in_quotes(path);
}

/// The consoles of one kind: serial ports, or virtio consoles.
struct ConsoleList {
    const std::vector<SerialConfig>& configs;
    std::vector<SerialTarget>& targets;
    std::string_view role;  ///< for messages
    std::string_view file_role;
    std::string_view socket_role;
    std::string_view option;  ///< "--serial (COM", before the number
    std::size_t first;        ///< the number of the first

    [[nodiscard]] std::string option_of(std::size_t i, std::string_view target) const {
        return std::string(option) + std::to_string(first + i) + ") " + std::string(target) + '=';
    }
};

std::optional<FileIdentity> identity_at(const std::string& path) {
    struct stat status{};
    if (::stat(path.c_str(), &status) != 0) {
        return std::nullopt;
    }
    return identity_of(status);
}

class Opener {
public:
    explicit Opener(const VmmConfig& config) : config_(config) {}

    OpenedFiles open() {
        open_images();
        open_disks();
        open_shares();
        open_outputs();
        compare_outputs();
        compare_standard_streams();
        lock_disks();
        bind_sockets();
        open_networks();
        keep_outputs();
        return std::move(files_);
    }

private:
    // The first failure is the one that is reported.
    template <class F>
    void attempt(F&& f) {
        try {
            if (!files_.error) {
                f();
            }
        } catch (const VmmError& error) {
            files_.error = error;
        }
    }

    void open_images() {
        attempt([&] { files_.kernel.emplace("kernel", config_.kernel); });
        attempt([&] {
            if (config_.initrd) {
                files_.initrd.emplace("initrd", *config_.initrd);
            }
        });
    }

    void open_disks() {
        for (const virtio::DiskConfig& disk : config_.disks) {
            attempt([&] { files_.disks.push_back(std::make_unique<virtio::DiskImage>(disk)); });
        }
    }

    // After it is known that they are not each other: a lock of this process would be the reason otherwise.
    void lock_disks() {
        for (const std::unique_ptr<virtio::DiskImage>& disk : files_.disks) {
            attempt([&] { disk->lock(); });
        }
    }

    void open_shares() {
        attempt([&] {
            for (const ShareConfig& share : config_.shares) {
                files_.shares.emplace_back(share.path);
            }
        });
    }

    void open_outputs() {
        const auto open_target = [](const SerialConfig& config, std::string_view role,
                                    std::string_view file_role) {
            SerialTarget target{.role = std::string(role), .kind = config.kind, .file = {}, .socket = {}};
            if (config.kind == SerialConfig::Kind::file) {
                target.file.emplace(file_role, config.path, OutputFile::Content::discarded);
            }
            return target;
        };
        for (const ConsoleList& list : consoles_) {
            attempt([&] {
                for (const SerialConfig& config : list.configs) {
                    list.targets.push_back(open_target(config, list.role, list.file_role));
                }
            });
        }
        attempt([&] {
            if (config_.debug_console) {
                files_.debug_console.emplace(
                    open_target(*config_.debug_console, "debug console", "debug console file"));
            }
        });
        const ObserveConfig& observe = config_.observe;
        using enum OutputFile::Content;
        if (observe.log) {
            files_.observe.log.emplace("log file", *observe.log, kept);
        }
        if (observe.metrics) {
            files_.observe.metrics.emplace("metrics file", *observe.metrics, kept);
        }
        if (observe.trace_io) {
            files_.observe.trace_io.emplace("trace file", *observe.trace_io, discarded);
        }
    }

    void add_input(std::string_view option, const std::string& path, const std::optional<ImageFile>& file) {
        // A file that could not be opened is also a file of the user, and may have been created just now.
        const auto identity = file ? file->identity() : identity_at(path);
        if (identity) {
            used_.push_back({.option = option_text(option, path), .identity = *identity});
        }
    }

    void add_output(const std::string& option, std::optional<OutputFile>& file, bool log = false) {
        if (file && file->is_regular()) {
            used_.push_back({.option = option + in_quotes(file->path()),
                             .identity = file->identity(),
                             .output = &*file,
                             .log = log});
        }
    }

    static bool reads_only(const UsedFile& file) { return file.output == nullptr && !file.written; }

    void compare_outputs() {
        add_input("--kernel", config_.kernel, files_.kernel);
        if (config_.initrd) {
            add_input("--initrd", *config_.initrd, files_.initrd);
        }
        for (std::size_t i = 0; i < files_.disks.size(); ++i) {
            used_.push_back({.option = option_text("--disk", config_.disks[i].path),
                             .identity = files_.disks[i]->identity(),
                             .written = !config_.disks[i].read_only});
        }
        for (const ConsoleList& list : consoles_) {
            for (std::size_t i = 0; i < list.targets.size(); ++i) {
                add_output(list.option_of(i, "file"), list.targets[i].file);
            }
        }
        if (files_.debug_console) {
            add_output("--debug-console file=", files_.debug_console->file);
        }
        add_output("--log ", files_.observe.log, true);
        add_output("--metrics ", files_.observe.metrics);
        add_output("--trace-io ", files_.observe.trace_io);
        for (std::size_t i = 0; i < used_.size(); ++i) {
            for (std::size_t j = 0; j < i; ++j) {
                const bool both_read = reads_only(used_[i]) && reads_only(used_[j]);
                if (used_[i].identity == used_[j].identity && !both_read) {
                    refuse(used_[j].option, used_[i].option);
                }
            }
        }
    }

    void compare_standard_streams() {
        constexpr std::array<std::pair<int, std::string_view>, 3> streams{
            {{STDIN_FILENO, "stdin"}, {STDOUT_FILENO, "stdout"}, {STDERR_FILENO, "stderr"}}};
        for (const auto& [fd, name] : streams) {
            struct stat status{};
            if (::fstat(fd, &status) != 0 || !S_ISREG(status.st_mode)) {
                continue;
            }
            for (const UsedFile& file : used_) {
                if (file.identity == identity_of(status)) {
                    share_or_refuse(file, fd, std::string(name));
                }
            }
        }
    }

    static void share_or_refuse(const UsedFile& file, int fd, const std::string& name) {
        const int access = ::fcntl(fd, F_GETFL) & O_ACCMODE;
        const bool reads = fd == STDIN_FILENO;
        if (file.output == nullptr) {
            if (file.written || (!reads && access != O_RDONLY)) {
                refuse(file.option, name);
            }
            return;
        }
        if (file.output->named_descriptor()) {
            return;
        }
        if (reads || access == O_RDONLY || !file.log) {
            refuse(file.option, name);
        }
        file.output->share(fd);
    }

    void bind_sockets() {
        for (const ConsoleList& list : consoles_) {
            for (std::size_t i = 0; i < list.targets.size(); ++i) {
                const SerialConfig& config = list.configs[i];
                if (config.kind == SerialConfig::Kind::unix_socket) {
                    place_socket(list.option_of(i, "unix") + in_quotes(config.path), list.targets[i].socket,
                                 config.path, {.name = list.socket_role});
                }
            }
        }
        if (config_.vsock) {
            const std::string& path = config_.vsock->path;
            place_socket("--vsock path=" + in_quotes(path), files_.vsock, path,
                         {.name = "vsock socket",
                          .longest_suffix = virtio::Vsock::longest_suffix,
                          .backlog = vsock_backlog});
        }
        attempt([&] {
            for (const UsedSocket& used : sockets_) {
                (*used.socket)->listen();
            }
        });
    }

    void place_socket(const std::string& option, std::optional<ListeningSocket>& socket,
                      const std::string& path, const ListeningSocket::Use& use) {
        if (const auto identity = identity_at(path)) {
            for (const UsedFile& file : used_) {
                if (file.identity == *identity) {
                    refuse(file.option, option);
                }
            }
        }
        attempt([&] { socket.emplace(path, use); });
        if (!socket) {
            return;
        }
        for (const UsedSocket& other : sockets_) {
            if ((*other.socket)->place() == socket->place()) {
                refuse(other.option, option);
            }
        }
        sockets_.push_back({option, &socket});
    }

    void open_networks() {
        attempt([&] {
            for (const virtio::NetConfig& net : config_.nets) {
                files_.nets.push_back(virtio::open_net(net, files_.nets.size()));
            }
        });
    }

    void keep_outputs() {
        if (files_.error) {
            files_.serials.clear();
            files_.consoles.clear();
            files_.debug_console.reset();
            files_.disks.clear();
            files_.vsock.reset();
            files_.observe.trace_io.reset();
        }
        for (const ConsoleList& list : consoles_) {
            for (SerialTarget& target : list.targets) {
                keep(target.file);
            }
        }
        if (files_.debug_console) {
            keep(files_.debug_console->file);
        }
        keep(files_.observe.log);
        // The metrics file will be replaced; a file that was created here stays only if that works.
        keep(files_.observe.trace_io);
    }

    static void keep(std::optional<OutputFile>& file) {
        if (file) {
            file->keep();
        }
    }

    const VmmConfig& config_;
    OpenedFiles files_;
    std::array<ConsoleList, 2> consoles_{{
        {.configs = config_.serials,
         .targets = files_.serials,
         .role = "serial port",
         .file_role = "serial file",
         .socket_role = "serial socket",
         .option = "--serial (COM",
         .first = 1},
        {.configs = config_.consoles,
         .targets = files_.consoles,
         .role = "console",
         .file_role = "console file",
         .socket_role = "console socket",
         .option = "--console (hvc",
         .first = 0},
    }};
    std::vector<UsedFile> used_;
    std::vector<UsedSocket> sockets_;
};

}  // namespace

OpenedFiles open_files(const VmmConfig& config) { return Opener(config).open(); }

}  // namespace kvm_vmm
