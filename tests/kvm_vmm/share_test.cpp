// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
// The FUSE server of a shared directory, without a transport: what a client may do, and what it may not.
#include <algorithm>
#include <array>
#include <atomic>
#include <cerrno>
#include <climits>
#include <cstdint>
#include <cstdlib>
#include <dirent.h>
#include <fcntl.h>
#include <linux/falloc.h>
#include <linux/fs.h>
#include <map>
#include <random>
#include <set>
#include <string>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <thread>
#include <unistd.h>

#include "catch.hpp"
#include "fuse_client.hpp"
#include "scratch_directory.hpp"
#include "util/error.hpp"

using namespace kvm_vmm;
using namespace kvm_vmm::test;

namespace {

constexpr std::uint64_t root = FUSE_ROOT_ID;
const std::string secret_text = "of the host";

/// A directory to share, in another one with a secret that must not be reached.
struct Tree {
    ScratchDirectory scratch;
    fs::path secret = scratch.write("secret", secret_text);
    fs::path shared = scratch / "shared";

    Tree() {
        fs::create_directories(shared / "sub");
        write("file", "hello");
        write("sub/inner", "inner");
        fs::create_symlink(secret, shared / "absolute");
        fs::create_symlink("../secret", shared / "relative");
        fs::create_directory_symlink(scratch / "", shared / "up");
        REQUIRE(::mkfifo((shared / "fifo").c_str(), 0666) == 0);
        const int listener = ::socket(AF_UNIX, SOCK_STREAM, 0);
        sockaddr_un address{};
        address.sun_family = AF_UNIX;
        (shared / "socket").string().copy(address.sun_path, sizeof(address.sun_path) - 1);
        REQUIRE(::bind(listener, reinterpret_cast<const sockaddr*>(&address), sizeof(address)) == 0);
        ::close(listener);
        ::umask(077);  // as kvm_vmm has it: the modes of the guest are not restricted
    }
    void write(const std::string& name, const std::string& content) const {
        std::ofstream(shared / name, std::ios::binary) << content;
    }
    [[nodiscard]] std::string read(const std::string& name) const { return slurp(shared / name); }
    [[nodiscard]] std::string path() const { return shared.string(); }
    /// All names, types, sizes and modes, also of what is beside the shared directory.
    [[nodiscard]] std::map<std::string, std::string> listing() const {
        std::map<std::string, std::string> all;
        for (const auto& entry : fs::recursive_directory_iterator(scratch / "")) {
            struct stat status{};
            REQUIRE(::lstat(entry.path().c_str(), &status) == 0);
            all[entry.path().string()] =
                std::to_string(status.st_mode) + ' ' + std::to_string(status.st_size) + ' ' +
                std::to_string(status.st_mtim.tv_nsec) + ' ' + std::to_string(status.st_nlink);
        }
        return all;
    }
};

/// The attribute of `chattr +a`, until it is destroyed.
class AppendOnly {
public:
    explicit AppendOnly(const std::string& path)
        : file_(::open(path.c_str(), O_RDONLY | O_CLOEXEC)), done_(set(FS_APPEND_FL)) {}
    ~AppendOnly() {
        if (done_) {
            (void)set(0);
        }
    }
    AppendOnly(const AppendOnly&) = delete;
    AppendOnly& operator=(const AppendOnly&) = delete;
    [[nodiscard]] bool done() const noexcept { return done_; }

private:
    [[nodiscard]] bool set(int attribute) const noexcept {
        int attributes = 0;
        if (::ioctl(file_.get(), FS_IOC_GETFLAGS, &attributes) != 0) {
            return false;
        }
        attributes = (attributes & ~FS_APPEND_FL) | attribute;
        return ::ioctl(file_.get(), FS_IOC_SETFLAGS, &attributes) == 0;
    }

    vmsuperio::UniqueFd file_;
    bool done_;
};

/// Each opcode that carries a name, with the name at `position` (0 or 1) and good arguments otherwise.
struct NamedOpcode {
    const char* title;
    std::uint32_t opcode;
    bool second;  // whether the name is the second one
    Bytes (*argument)(const Bytes& name);
};
template <class T>
Bytes with_name(const Bytes& name) {
    T in{};
    return bytes_of(in) + name;
}
Bytes rename_argument(const Bytes& one, const Bytes& other) {
    return bytes_of(fuse_rename_in{root}) + one + other;
}
Bytes rename2_argument(const Bytes& one, const Bytes& other) {
    return bytes_of(fuse_rename2_in{.newdir = root, .flags = 0, .padding = 0}) + one + other;
}
const std::vector<NamedOpcode> named_opcodes{
    {"LOOKUP", FUSE_LOOKUP, false, [](const Bytes& name) { return name; }},
    {"SYMLINK", FUSE_SYMLINK, false, [](const Bytes& name) { return name + name_bytes("target"); }},
    {"MKNOD", FUSE_MKNOD, false, with_name<fuse_mknod_in>},
    {"MKDIR", FUSE_MKDIR, false, with_name<fuse_mkdir_in>},
    {"UNLINK", FUSE_UNLINK, false, [](const Bytes& name) { return name; }},
    {"RMDIR", FUSE_RMDIR, false, [](const Bytes& name) { return name; }},
    {"RENAME from", FUSE_RENAME, false,
     [](const Bytes& name) { return rename_argument(name, name_bytes("new")); }},
    {"RENAME to", FUSE_RENAME, true,
     [](const Bytes& name) { return rename_argument(name_bytes("file"), name); }},
    {"RENAME2 from", FUSE_RENAME2, false,
     [](const Bytes& name) { return rename2_argument(name, name_bytes("new")); }},
    {"RENAME2 to", FUSE_RENAME2, true,
     [](const Bytes& name) { return rename2_argument(name_bytes("file"), name); }},
    {"LINK", FUSE_LINK, false,
     [](const Bytes& name) { return bytes_of(fuse_link_in{2}) + name; }},  // node 2 is `file`
    {"CREATE", FUSE_CREATE, false,
     [](const Bytes& name) {
         fuse_create_in in{};
         in.flags = O_RDWR;
         in.mode = 0666;
         return bytes_of(in) + name;
     }},
};

constexpr std::array changing_opcodes{
    FUSE_SETATTR, FUSE_SYMLINK, FUSE_MKNOD,  FUSE_MKDIR, FUSE_UNLINK,    FUSE_RMDIR,          FUSE_RENAME,
    FUSE_RENAME2, FUSE_LINK,    FUSE_CREATE, FUSE_WRITE, FUSE_FALLOCATE, FUSE_COPY_FILE_RANGE};

}  // namespace

TEST_CASE("share: the session begins with FUSE_INIT", "[share]") {
    const Tree tree;
    FuseClient client(tree.path());
    SECTION("with what both sides have") {
        const auto out = client.call(FUSE_INIT, 0, fuse_init_argument()).as<fuse_init_out>();
        CHECK(out.major == 7);
        CHECK(out.max_write == 1 << 20);
        CHECK(out.max_pages == 256);
        CHECK((out.flags & FUSE_BIG_WRITES) != 0);
        // The guest's cache must not delay writes, or be trusted when the host changes a file.
        CHECK((out.flags & FUSE_WRITEBACK_CACHE) == 0);
        CHECK((out.flags & FUSE_AUTO_INVAL_DATA) != 0);
        CHECK((out.flags & FUSE_EXPORT_SUPPORT) == 0);  // "." and ".." are no names
    }
    SECTION("only features of the client are answered") {
        fuse_init_in in{};
        in.major = 7;
        in.minor = 31;
        const auto out = client.call(FUSE_INIT, 0, bytes_of(in)).as<fuse_init_out>();
        CHECK(out.flags == 0);
        CHECK(out.max_pages == 0);
    }
    SECTION("a client of before 7.36 sends 16 bytes") {
        Bytes in = fuse_init_argument(7, 31);
        in.resize(16);
        CHECK(client.call(FUSE_INIT, 0, in).error == 0);
        in.resize(15);
        CHECK(client.call(FUSE_INIT, 0, in).error == EINVAL);
    }
    SECTION("all minor versions from the first, and those to come") {
        for (std::uint32_t minor = 23; minor < 60; ++minor) {
            CAPTURE(minor);
            Bytes in = fuse_init_argument(7, minor);
            in.resize(minor < 36 ? 16 : sizeof(fuse_init_in));
            const FuseReply reply = client.call(FUSE_INIT, 0, in);
            CHECK(reply.size == 16 + 64);  // from 7.23 on
            const auto out = reply.as<fuse_init_out>();
            CHECK(out.minor == 38);  // whatever the headers of the system are
            constexpr std::uint32_t known = FUSE_ASYNC_READ | FUSE_BIG_WRITES | FUSE_AUTO_INVAL_DATA |
                                            FUSE_DO_READDIRPLUS | FUSE_READDIRPLUS_AUTO |
                                            FUSE_PARALLEL_DIROPS | FUSE_MAX_PAGES;
            CHECK(out.flags == known);
            CHECK(out.flags2 == 0);
            CHECK(client.look_up(root, "file").error == 0);
        }
    }
    SECTION("an older or newer major version") {
        CHECK(client.call(FUSE_INIT, 0, fuse_init_argument(6)).error == EPROTO);
        CHECK(client.call(FUSE_INIT, 0, fuse_init_argument(7, 22)).error == EPROTO);
        CHECK(client.call(FUSE_INIT, 0, fuse_init_argument(8)).as<fuse_init_out>().major == 7);
        CHECK(client.look_up(root, "file").error == EPROTO);
        CHECK(client.call(FUSE_INIT, 0, fuse_init_argument()).error == 0);
        CHECK(client.look_up(root, "file").error == 0);
    }
    SECTION("a second one, DESTROY and reset() end it: nodes and handles are gone") {
        const std::uint64_t file = client.node({"file"});
        const std::uint64_t handle = client.open_handle(file);
        const int way = GENERATE(0, 1, 2);
        if (way == 1) {
            CHECK(client.call(FUSE_DESTROY, 0).error == 0);
        } else if (way == 2) {
            client.server.reset();
        }
        if (way != 0) {
            CHECK(client.look_up(root, "file").error == EPROTO);
            CHECK(client.read(file, handle, 0, 5).error == EPROTO);
        }
        CHECK(client.call(FUSE_INIT, 0, fuse_init_argument()).error == 0);
        CHECK(client.server.files().objects() == 0);
        CHECK(client.server.files().handles() == 0);
        CHECK(client.read(file, handle, 0, 5).error == EBADF);
        CHECK(client.call(FUSE_GETATTR, file, bytes_of(fuse_getattr_in{})).error == ESTALE);
        CHECK(client.node({"file"}) != file);  // not reused
    }
}

TEST_CASE("share: names and attributes", "[share]") {
    const Tree tree;
    FuseClient client(tree.path(), false);
    const auto entry = client.look_up(root, "file").as<fuse_entry_out>();
    struct stat status{};
    REQUIRE(::stat((tree.shared / "file").c_str(), &status) == 0);
    CHECK(entry.attr.ino == status.st_ino);
    CHECK(entry.attr.size == 5);
    CHECK(entry.attr.mode == status.st_mode);
    CHECK(entry.attr.uid == status.st_uid);
    CHECK(entry.attr.mtime == static_cast<std::uint64_t>(status.st_mtim.tv_sec));
    CHECK(entry.attr.mtimensec == static_cast<std::uint32_t>(status.st_mtim.tv_nsec));
    CHECK(entry.attr_valid == 1);
    CHECK(entry.entry_valid == 1);
    CHECK(client.node({"file"}) == entry.nodeid);
    CHECK(client.look_up(root, "none").error == ENOENT);
    CHECK(client.look_up(entry.nodeid, "x").error == ENOTDIR);
    CHECK(client.look_up(12345, "x").error == ESTALE);
    CHECK(client.node({"sub", "inner"}) != entry.nodeid);

    SECTION("changes of the host are seen") {
        tree.write("file", "longer than before");
        CHECK(client.call(FUSE_GETATTR, entry.nodeid, bytes_of(fuse_getattr_in{}))
                  .as<fuse_attr_out>()
                  .attr.size == 18);
    }
    SECTION("two names of one file are one node") {
        fs::create_hard_link(tree.shared / "file", tree.shared / "sub" / "hard");
        CHECK(client.node({"sub", "hard"}) == entry.nodeid);
    }
    SECTION("a node stays while it is known, and is forgotten by its last lookup") {
        REQUIRE(client.node({"file"}) == entry.nodeid);  // three lookups in all
        CHECK(client.forget(entry.nodeid, 2).size == 0);
        CHECK(client.call(FUSE_GETATTR, entry.nodeid, bytes_of(fuse_getattr_in{})).error == 0);
        CHECK(client.forget(entry.nodeid, 1).size == 0);
        CHECK(client.call(FUSE_GETATTR, entry.nodeid, bytes_of(fuse_getattr_in{})).error == ESTALE);
        CHECK(client.counter("refused") == 3);
        CHECK(client.forget(entry.nodeid, 1).size == 0);
        CHECK(client.forget(root, ~std::uint64_t{0}).size == 0);
        CHECK(client.node({"file"}) > entry.nodeid);
    }
    SECTION("more lookups are forgotten than there were") {
        client.forget(entry.nodeid, ~std::uint64_t{0});
        CHECK(client.call(FUSE_GETATTR, entry.nodeid, bytes_of(fuse_getattr_in{})).error == ESTALE);
    }
    SECTION("several are forgotten at once") {
        const std::uint64_t inner = client.node({"sub", "inner"});
        const std::size_t before = client.server.files().objects();
        const Bytes forget = bytes_of(fuse_batch_forget_in{.count = 2, .dummy = 0}) +
                             bytes_of(fuse_forget_one{.nodeid = entry.nodeid, .nlookup = 2}) +
                             bytes_of(fuse_forget_one{.nodeid = inner, .nlookup = 2});
        CHECK(client.call(FUSE_BATCH_FORGET, 0, forget).size == 0);
        CHECK(client.server.files().objects() == before - 2);
        // A count of which the request has no entries.
        CHECK(client.call(FUSE_BATCH_FORGET, 0, bytes_of(fuse_batch_forget_in{.count = ~0U, .dummy = 0}))
                  .size == 0);
    }
    SECTION("a file that was renamed or removed on the host is still the same") {
        const std::uint64_t handle = client.open_handle(entry.nodeid);
        fs::rename(tree.shared / "file", tree.shared / "renamed");
        CHECK(client.node({"renamed"}) == entry.nodeid);
        fs::remove(tree.shared / "renamed");
        CHECK(client.read(entry.nodeid, handle, 0, 5).data == Bytes{'h', 'e', 'l', 'l', 'o'});
        client.forget(entry.nodeid, 100);
        const fuse_getattr_in by_handle{.getattr_flags = FUSE_GETATTR_FH, .dummy = 0, .fh = handle};
        CHECK(client.call(FUSE_GETATTR, entry.nodeid, bytes_of(by_handle)).as<fuse_attr_out>().attr.size ==
              5);
    }
    SECTION("ACCESS and STATFS") {
        const auto access = [&](std::uint64_t node, std::uint32_t mask) {
            return client.call(FUSE_ACCESS, node, bytes_of(fuse_access_in{.mask = mask, .padding = 0})).error;
        };
        CHECK(access(entry.nodeid, R_OK) == 0);
        CHECK(access(entry.nodeid, X_OK) == EACCES);
        CHECK(access(entry.nodeid, W_OK) == EROFS);
        CHECK(access(entry.nodeid, 8) == EINVAL);
        CHECK(access(999, R_OK) == ESTALE);
        CHECK(client.call(FUSE_STATFS, root).as<fuse_statfs_out>().st.namelen == 255);
    }
}

TEST_CASE("share: no name leaves the directory", "[share]") {
    const Tree tree;
    FuseClient client(tree.path());
    REQUIRE(client.node({"file"}) == 2);
    const auto before = tree.listing();
    const std::string secret = tree.secret.string();
    const std::vector<std::pair<Bytes, int>> names{
        {name_bytes(""), EINVAL},
        {name_bytes("."), EINVAL},
        {name_bytes(".."), EINVAL},
        {name_bytes("/"), EINVAL},
        {name_bytes("../secret"), EINVAL},
        {name_bytes("sub/inner"), EINVAL},
        {name_bytes("sub/"), EINVAL},
        {name_bytes("/etc/passwd"), EINVAL},
        {name_bytes(secret), EINVAL},
        {name_bytes("file") + name_bytes("x") + name_bytes("y"), EINVAL},  // a NUL within
        {{}, EINVAL},                                                      // no name at all
        {{'f', 'i', 'l', 'e'}, EINVAL},                                    // no NUL at its end
        {name_bytes(std::string(256, 'a')), ENAMETOOLONG},
        {name_bytes(std::string(100'000, 'a')), ENAMETOOLONG},
    };
    for (const NamedOpcode& each : named_opcodes) {
        for (const auto& [name, error] : names) {
            INFO(each.title << ", name " << std::string(name.begin(), name.end()).substr(0, 40));
            const Bytes argument = each.argument(name);
            CHECK(client.call(each.opcode, root, argument).error == error);
        }
    }
    CHECK(tree.listing() == before);
    CHECK(client.counter("refused") == names.size() * named_opcodes.size());
    // Each of them works with a good name, so that they were refused for the name.
    for (const NamedOpcode& each : named_opcodes) {
        INFO(each.title);
        tree.write("file", "hello");
        fs::create_directory(tree.shared / "directory");
        fs::remove(tree.shared / "new");
        const bool existing = each.opcode == FUSE_LOOKUP || each.opcode == FUSE_UNLINK ||
                              (!each.second && (each.opcode == FUSE_RENAME || each.opcode == FUSE_RENAME2));
        const Bytes name = name_bytes(each.opcode == FUSE_RMDIR ? "directory" : existing ? "file" : "new");
        client.server.reset();
        REQUIRE(client.call(FUSE_INIT, 0, fuse_init_argument()).error == 0);
        Bytes argument = each.argument(name);
        if (each.opcode == FUSE_LINK) {
            argument = bytes_of(fuse_link_in{client.node({"file"})}) + name;
        }
        CHECK(client.call(each.opcode, root, argument).error == 0);
    }
    CHECK(slurp(tree.secret) == secret_text);
}

TEST_CASE("share: links of the host are not followed", "[share]") {
    const Tree tree;
    FuseClient client(tree.path());
    struct stat secret_before{};
    REQUIRE(::stat(tree.secret.c_str(), &secret_before) == 0);
    for (const char* const name : {"absolute", "relative", "up"}) {
        INFO(name);
        const auto entry = client.look_up(root, name).as<fuse_entry_out>();
        CHECK(S_ISLNK(entry.attr.mode));
        const FuseReply target = client.call(FUSE_READLINK, entry.nodeid);
        CHECK(std::string(target.data.begin(), target.data.end()) ==
              fs::read_symlink(tree.shared / name).string());
        CHECK(client.call(FUSE_READLINK, entry.nodeid, {}, 16 + 3).error == ENAMETOOLONG);
        for (const int flags : {O_RDONLY, O_WRONLY, O_RDWR, O_RDONLY | O_TRUNC}) {
            CHECK(client.open(entry.nodeid, flags).error == ELOOP);
        }
        CHECK(client.open(entry.nodeid, 0, FUSE_OPENDIR).error == ENOTDIR);
        CHECK(client.look_up(entry.nodeid, "secret").error == ENOTDIR);
        CHECK(client.create(root, name, O_RDWR | O_TRUNC, 0666).error == ELOOP);
        CHECK(client.create(root, name, O_RDWR | O_EXCL, 0666).error == EEXIST);
        CHECK(client.create(entry.nodeid, "new", O_RDWR, 0666).error == ENOTDIR);
        fuse_setattr_in change{};
        change.valid = FATTR_SIZE;
        CHECK(client.set_attributes(entry.nodeid, change).error == ELOOP);
        change.valid = FATTR_MODE;
        CHECK(client.set_attributes(entry.nodeid, change).error == EOPNOTSUPP);
        // Its own time, not that of its target.
        change.valid = FATTR_MTIME;
        change.mtime = 1;
        CHECK(client.set_attributes(entry.nodeid, change).as<fuse_attr_out>().attr.mtime == 1);
        // Another name of the link itself.
        const std::string hard = std::string("hard-") + name;
        CHECK(client.call(FUSE_LINK, root, bytes_of(fuse_link_in{entry.nodeid}) + name_bytes(hard))
                  .as<fuse_entry_out>()
                  .nodeid == entry.nodeid);
        CHECK(fs::read_symlink(tree.shared / hard) == fs::read_symlink(tree.shared / name));
    }
    CHECK(fs::hard_link_count(tree.secret) == 1);
    CHECK(slurp(tree.secret) == secret_text);
    struct stat status{};
    REQUIRE(::stat(tree.secret.c_str(), &status) == 0);
    CHECK(status.st_mtim.tv_sec != 1);
    CHECK(status.st_mode == secret_before.st_mode);
    CHECK(client.call(FUSE_READLINK, client.node({"file"})).error == EINVAL);
}

TEST_CASE("share: FIFOs, sockets and devices are not opened or created", "[share]") {
    const Tree tree;
    FuseClient client(tree.path());
    std::vector<const char*> names{"fifo", "socket"};
    if (::mknod((tree.shared / "zero").c_str(), S_IFCHR | 0666, 1 << 8 | 5) == 0) {
        names.push_back("zero");  // as root only
    }
    for (const char* const name : names) {
        INFO(name);
        const std::uint64_t node = client.node({name});
        for (const int flags : {O_RDONLY, O_WRONLY, O_RDWR, O_RDONLY | O_NONBLOCK}) {
            CHECK(client.open(node, flags).error == EPERM);
        }
        CHECK(client.create(root, name, O_RDWR, 0666).error == EPERM);
        fuse_setattr_in change{};
        change.valid = FATTR_MODE | FATTR_SIZE;
        CHECK(client.set_attributes(node, change).error == EPERM);
    }
    for (const unsigned type :
         {S_IFIFO + 0U, S_IFSOCK + 0U, S_IFCHR + 0U, S_IFBLK + 0U, S_IFDIR + 0U, S_IFLNK + 0U, S_IFMT + 0U}) {
        const fuse_mknod_in in{.mode = type | 0666U, .rdev = 1 << 8 | 5, .umask = 0, .padding = 0};
        CHECK(client.call(FUSE_MKNOD, root, bytes_of(in) + name_bytes("made")).error == EPERM);
    }
    CHECK_FALSE(fs::exists(fs::symlink_status(tree.shared / "made")));
    const fuse_rename2_in whiteout{.newdir = root, .flags = RENAME_WHITEOUT, .padding = 0};
    CHECK(client.call(FUSE_RENAME2, root, bytes_of(whiteout) + name_bytes("file") + name_bytes("b")).error ==
          EINVAL);
    CHECK(client.open(client.node({"sub"})).error == EISDIR);
    CHECK(client.open(client.node({"file"}), O_ACCMODE).error == EINVAL);
}

TEST_CASE("share: without writable nothing can be changed", "[share]") {
    const Tree tree;
    FuseClient client(tree.path(), false);
    const std::uint64_t file = client.node({"file"});
    const auto before = tree.listing();
    for (const std::uint32_t opcode : changing_opcodes) {
        INFO("opcode " << opcode);
        // Whatever else is right or wrong with it.
        CHECK(client.call(opcode, root, Bytes(200)).error == EROFS);
        CHECK(client.call(opcode, file, {}).error == EROFS);
    }
    for (const NamedOpcode& each : named_opcodes) {
        if (each.opcode != FUSE_LOOKUP) {
            CHECK(client.call(each.opcode, root, each.argument(name_bytes("file"))).error == EROFS);
        }
    }
    for (const int flags : {O_WRONLY, O_RDWR, O_RDONLY | O_TRUNC}) {
        CHECK(client.open(file, flags).error == EROFS);
    }
    const std::uint64_t handle = client.open_handle(file, O_RDONLY | O_CREAT | O_APPEND);
    CHECK(client.write(file, handle, 0, "x").error == EROFS);
    CHECK(client.read(file, handle, 1, 3).data == Bytes{'e', 'l', 'l'});
    CHECK(client.call(FUSE_SYNCFS, root, bytes_of(fuse_syncfs_in{})).error == 0);
    CHECK(tree.listing() == before);
}

TEST_CASE("share: every opcode that changes something is refused without writable", "[share]") {
    // Sends all opcodes with good names, so that an opcode that is added and forgotten above is noticed.
    const Tree tree;
    FuseClient client(tree.path(), false);
    const std::uint64_t file = client.node({"file"});
    const auto before = tree.listing();
    for (std::uint32_t opcode = 0; opcode < 300; ++opcode) {
        if (opcode == FUSE_INIT || opcode == FUSE_DESTROY) {
            continue;
        }
        for (const std::uint64_t node : {root, file}) {
            for (const std::size_t zeros : {0U, 4U, 8U, 16U, 24U, 40U, 88U}) {
                client.call(opcode, node, Bytes(zeros) + name_bytes("file"));
                client.call(opcode, node, Bytes(zeros) + name_bytes("file") + name_bytes("new"));
                client.call(opcode, node, Bytes(zeros, 1) + name_bytes("new"));
            }
        }
    }
    CHECK(tree.listing() == before);
}

TEST_CASE("share: a file that can only be appended to is appended to, and not written elsewhere", "[share]") {
    const Tree tree;
    tree.write("log", "one ");
    // Also the one with the set-user-id bit, which cannot be removed any more.
    tree.write("program", "one ");
    REQUIRE(::chmod((tree.shared / "program").c_str(), 04755) == 0);
    const AppendOnly log((tree.shared / "log").string());
    const AppendOnly program((tree.shared / "program").string());
    if (!log.done() || !program.done()) {
        VMSUPERIO_SKIP("FS_IOC_SETFLAGS is refused: FS_APPEND_FL needs root and a file system that has it");
    }
    FuseClient client(tree.path());
    const std::uint64_t file = client.node({"log"});
    for (const int flags : {O_WRONLY, O_RDWR, O_WRONLY | O_TRUNC, O_WRONLY | O_APPEND | O_TRUNC}) {
        CAPTURE(flags);
        CHECK(client.open(file, flags).error == EPERM);
    }
    CHECK(client.open(client.node({"program"}), O_WRONLY | O_APPEND).error == EPERM);
    CHECK(client.create(root, "log", O_WRONLY, 0640).error == EPERM);

    const std::uint64_t handle = client.open_handle(file, O_RDWR | O_APPEND);
    CHECK(client.write(file, handle, 0, "two ", O_RDWR | O_APPEND).error == 0);
    CHECK(client.write(file, handle, 0, "three ", O_RDWR | O_APPEND | O_DSYNC).error == 0);
    CHECK(client.read(file, handle, 4, 3).data == Bytes{'t', 'w', 'o'});
    // The host would append these, which belong elsewhere: pages that the guest has mapped, and writes after
    // fcntl(F_SETFL) has cleared the flag.
    CHECK(client.write(file, handle, 0, "X", O_RDWR | O_APPEND, FUSE_WRITE_CACHE).error == EPERM);
    CHECK(client.write(file, handle, 0, "X", O_RDWR).error == EPERM);
    CHECK(client.write(file, handle, 14, "X", 0, FUSE_WRITE_CACHE).error == EPERM);
    fuse_setattr_in truncate{};
    truncate.valid = FATTR_SIZE;
    CHECK(client.set_attributes(file, truncate).error == EPERM);
    truncate.valid = FATTR_SIZE | FATTR_FH;
    truncate.fh = handle;
    CHECK(client.set_attributes(file, truncate).error == EPERM);
    CHECK(tree.read("log") == "one two three ");

    const FuseReply by_create = client.create(root, "log", O_WRONLY | O_APPEND, 0640);
    REQUIRE(by_create.error == 0);
    fuse_open_out opened{};
    std::memcpy(&opened, by_create.data.data() + sizeof(fuse_entry_out), sizeof(opened));
    CHECK(client.write(file, opened.fh, 0, "four", O_WRONLY | O_APPEND).error == 0);
    CHECK(client.write(file, opened.fh, 0, "X", O_WRONLY).error == EPERM);
    CHECK(tree.read("log") == "one two three four");
    CHECK(tree.read("program") == "one ");
}

TEST_CASE("share: files are read", "[share]") {
    const Tree tree;
    std::string content(3'000'000, '\0');
    std::mt19937 random(1);  // NOLINT(bugprone-random-generator-seed): repeatable
    std::ranges::generate(content, [&random] { return static_cast<char>(random()); });
    tree.write("large", content);
    FuseClient client(tree.path(), false);
    const std::uint64_t node = client.node({"large"});
    const std::uint64_t handle = client.open_handle(node);
    std::string got;
    for (;;) {
        const FuseReply part = client.read(node, handle, got.size(), 1 << 20);
        REQUIRE(part.error == 0);
        if (part.data.empty()) {
            break;
        }
        got.append(part.data.begin(), part.data.end());
    }
    CHECK(got == content);
    CHECK(client.counter("bytes_read") == content.size());
    CHECK(client.counter("reads") == 4);
    CHECK(client.read(node, handle, content.size() - 3, 100).data.size() == 3);
    CHECK(client.read(node, handle, 0, 0).error == 0);

    SECTION("sizes, offsets, handles and nodes that are wrong") {
        const fuse_read_in too_large{.fh = handle,
                                     .offset = 0,
                                     .size = (1 << 20) + 1,
                                     .read_flags = 0,
                                     .lock_owner = 0,
                                     .flags = 0,
                                     .padding = 0};
        CHECK(client.call(FUSE_READ, node, bytes_of(too_large), (1 << 20) + 100).error == EINVAL);
        const fuse_read_in no_room{.fh = handle,
                                   .offset = 0,
                                   .size = 4097,
                                   .read_flags = 0,
                                   .lock_owner = 0,
                                   .flags = 0,
                                   .padding = 0};
        CHECK(client.call(FUSE_READ, node, bytes_of(no_room), 4096 + 16).error == EINVAL);
        CHECK(client.read(node, handle, ~std::uint64_t{0}, 1).error == EINVAL);
        CHECK(client.read(node, handle, INT64_MAX, 1).error == EINVAL);
        CHECK(client.read(node, handle, INT64_MAX - 1, 1).data.empty());
        CHECK(client.read(node, handle + 1, 0, 1).error == EBADF);
        CHECK(client.read(client.node({"file"}), handle, 0, 1).error == EBADF);
        const std::uint64_t directory = client.open_handle(root, 0, FUSE_OPENDIR);
        CHECK(client.read(root, directory, 0, 1).error == EBADF);
        fuse_release_in release{};
        release.fh = handle;
        CHECK(client.call(FUSE_RELEASEDIR, node, bytes_of(release)).error == EBADF);
        CHECK(client.call(FUSE_RELEASE, node, bytes_of(release)).error == 0);
        CHECK(client.call(FUSE_RELEASE, node, bytes_of(release)).error == EBADF);
        CHECK(client.read(node, handle, 0, 1).error == EBADF);
    }
    SECTION("the file shrinks on the host") {
        fs::resize_file(tree.shared / "large", 10);
        CHECK(client.read(node, handle, 0, 100).data.size() == 10);
        CHECK(client.read(node, handle, 1000, 100).data.empty());
    }
    SECTION("data and holes are found") {
        const auto seek = [&](std::uint64_t offset, std::uint32_t whence) {
            return client.call(
                FUSE_LSEEK, node,
                bytes_of(fuse_lseek_in{.fh = handle, .offset = offset, .whence = whence, .padding = 0}));
        };
        CHECK(seek(5, SEEK_DATA).as<fuse_lseek_out>().offset == 5);
        CHECK(seek(5, SEEK_HOLE).as<fuse_lseek_out>().offset == content.size());
        CHECK(seek(content.size(), SEEK_DATA).error == ENXIO);
        CHECK(seek(0, SEEK_END).error == EINVAL);
        CHECK(seek(~std::uint64_t{0}, SEEK_DATA).error == EINVAL);
    }
}

TEST_CASE("share: files are created and written", "[share]") {
    const Tree tree;
    FuseClient client(tree.path());
    const FuseReply created = client.create(root, "new", O_RDWR, 0640);
    const auto entry = created.as<fuse_entry_out>();
    fuse_open_out opened{};
    REQUIRE(created.data.size() == sizeof(entry) + sizeof(opened));
    std::memcpy(&opened, created.data.data() + sizeof(entry), sizeof(opened));
    CHECK(entry.attr.mode == (S_IFREG | 0640U));
    CHECK(entry.attr.uid == ::geteuid());
    CHECK(client.write(entry.nodeid, opened.fh, 0, "hello world").as<fuse_write_out>().size == 11);
    CHECK(client.write(entry.nodeid, opened.fh, 6, "W").as<fuse_write_out>().size == 1);
    CHECK(tree.read("new") == "hello World");
    CHECK(client.read(entry.nodeid, opened.fh, 6, 5).data == Bytes{'W', 'o', 'r', 'l', 'd'});
    CHECK(client.counter("bytes_written") == 12);
    CHECK(client.node({"new"}) == entry.nodeid);
    const auto synchronize = [&](std::uint32_t opcode, std::uint64_t node, std::uint64_t handle) {
        return client
            .call(opcode, node, bytes_of(fuse_fsync_in{.fh = handle, .fsync_flags = 0, .padding = 0}))
            .error;
    };
    CHECK(synchronize(FUSE_FSYNC, entry.nodeid, opened.fh) == 0);
    CHECK(synchronize(FUSE_FSYNC, entry.nodeid, 99) == EBADF);
    CHECK(synchronize(FUSE_FSYNCDIR, root, client.open_handle(root, 0, FUSE_OPENDIR)) == 0);
    CHECK(synchronize(FUSE_FSYNCDIR, entry.nodeid, opened.fh) == EBADF);
    fuse_flush_in flush{};
    flush.fh = opened.fh;
    CHECK(client.call(FUSE_FLUSH, entry.nodeid, bytes_of(flush)).error == 0);
    CHECK(client.call(FUSE_FLUSH, root, bytes_of(flush)).error == EBADF);

    SECTION("an existing file") {
        CHECK(client.create(root, "new", O_RDWR | O_EXCL, 0666).error == EEXIST);
        CHECK(client.create(root, "new", O_RDWR, 0666).as<fuse_entry_out>().nodeid == entry.nodeid);
        CHECK(tree.read("new") == "hello World");
        CHECK(client.create(root, "new", O_RDWR | O_TRUNC, 0666).error == 0);
        CHECK(tree.read("new").empty());
        CHECK(client.create(root, "sub", O_RDWR, 0666).error == EISDIR);
    }
    SECTION("a handle that is not for writing, and wrong sizes") {
        const std::uint64_t reader = client.open_handle(entry.nodeid, O_RDONLY);
        CHECK(client.write(entry.nodeid, reader, 0, "x").error == EBADF);
        const std::uint64_t writer = client.open_handle(entry.nodeid, O_WRONLY);
        CHECK(client.read(entry.nodeid, writer, 0, 1).error == EBADF);
        fuse_write_in in{};
        in.fh = writer;
        in.size = 5;
        CHECK(client.call(FUSE_WRITE, entry.nodeid, bytes_of(in) + Bytes(4)).error == EINVAL);
        in.size = (1 << 20) + 1;
        CHECK(client.call(FUSE_WRITE, entry.nodeid, bytes_of(in) + Bytes(in.size)).error == EINVAL);
        CHECK(client.write(entry.nodeid, writer, ~std::uint64_t{0} - 5, "abc").error == EINVAL);
        CHECK(tree.read("new") == "hello World");
    }
    SECTION("appending") {
        const std::uint64_t appender = client.open_handle(entry.nodeid, O_WRONLY | O_APPEND);
        CHECK(client.write(entry.nodeid, appender, 0, "!", O_WRONLY | O_APPEND).error == 0);
        CHECK(tree.read("new") == "hello World!");
        // Pages that the guest has mapped are written through any handle, and have their place.
        CHECK(client.write(entry.nodeid, appender, 0, "H", 0, FUSE_WRITE_CACHE).error == 0);
        CHECK(client.write(entry.nodeid, appender, 1, "E", O_WRONLY | O_APPEND, FUSE_WRITE_CACHE).error == 0);
        CHECK(tree.read("new") == "HEllo World!");
        // fcntl(F_SETFL) has cleared or set the flag since the file was opened.
        CHECK(client.write(entry.nodeid, appender, 2, "L", O_WRONLY).error == 0);
        CHECK(client.write(entry.nodeid, opened.fh, 0, "?", O_RDWR | O_APPEND).error == 0);
        CHECK(tree.read("new") == "HELlo World!?");
        const FuseReply by_create = client.create(root, "new", O_RDWR | O_APPEND, 0640);
        std::memcpy(&opened, by_create.data.data() + sizeof(fuse_entry_out), sizeof(opened));
        CHECK(client.write(entry.nodeid, opened.fh, 3, "L", 0, FUSE_WRITE_CACHE).error == 0);
        CHECK(client.write(entry.nodeid, opened.fh, 0, "!", O_RDWR | O_APPEND | O_DSYNC).error == 0);
        CHECK(client.write(entry.nodeid, opened.fh, 4, "O", O_RDWR | O_SYNC).error == 0);
        CHECK(tree.read("new") == "HELLO World!?!");
    }
    SECTION("flags that the host must not see are left out") {
        const std::uint64_t direct =
            client.open_handle(entry.nodeid, O_RDWR | O_DIRECT | O_NOATIME | O_ASYNC | O_PATH);
        CHECK(client.write(entry.nodeid, direct, 1, "3").error == 0);
        CHECK(client.read(entry.nodeid, direct, 0, 3).data == Bytes{'h', '3', 'l'});
    }
    SECTION("space is allocated, and given back") {
        const auto allocate = [&](std::uint32_t mode, std::uint64_t offset, std::uint64_t length) {
            return client
                .call(FUSE_FALLOCATE, entry.nodeid,
                      bytes_of(fuse_fallocate_in{
                          .fh = opened.fh, .offset = offset, .length = length, .mode = mode, .padding = 0}))
                .error;
        };
        CHECK(allocate(0, 0, 10000) == 0);
        CHECK(fs::file_size(tree.shared / "new") == 10000);
        CHECK(allocate(FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 0, 5) == 0);
        CHECK(tree.read("new").substr(0, 11) == std::string("\0\0\0\0\0 World", 11));
        CHECK(allocate(FALLOC_FL_COLLAPSE_RANGE, 0, 4096) == EOPNOTSUPP);
        CHECK(allocate(0, 1, INT64_MAX) == EFBIG);
        CHECK(allocate(0, ~std::uint64_t{0}, 1) == EFBIG);
        CHECK(allocate(0, 0, 0) == EINVAL);
    }
    SECTION("a range is copied") {
        const std::uint64_t from = client.node({"file"});
        fuse_copy_file_range_in in{};
        in.fh_in = client.open_handle(from);
        in.off_in = 1;
        in.nodeid_out = entry.nodeid;
        in.fh_out = opened.fh;
        in.off_out = 2;
        in.len = 3;
        CHECK(client.call(FUSE_COPY_FILE_RANGE, from, bytes_of(in)).as<fuse_write_out>().size == 3);
        CHECK(tree.read("new") == "heell World");
        in.nodeid_out = root;
        CHECK(client.call(FUSE_COPY_FILE_RANGE, from, bytes_of(in)).error == EBADF);
        in.nodeid_out = entry.nodeid;
        in.off_in = ~std::uint64_t{0};
        CHECK(client.call(FUSE_COPY_FILE_RANGE, from, bytes_of(in)).error == EINVAL);
        in.off_in = 0;
        in.flags = 1;
        CHECK(client.call(FUSE_COPY_FILE_RANGE, from, bytes_of(in)).error == EINVAL);
    }
}

TEST_CASE("share: attributes are changed", "[share]") {
    const Tree tree;
    FuseClient client(tree.path());
    const std::uint64_t file = client.node({"file"});
    fuse_setattr_in in{};
    SECTION("size") {
        in.valid = FATTR_SIZE;
        in.size = 2;
        CHECK(client.set_attributes(file, in).as<fuse_attr_out>().attr.size == 2);
        CHECK(tree.read("file") == "he");
        in.valid |= FATTR_FH;
        in.fh = client.open_handle(file, O_RDWR);
        in.size = 1;
        CHECK(client.set_attributes(file, in).error == 0);
        CHECK(tree.read("file") == "h");
        CHECK(client.set_attributes(client.node({"sub"}), in).error == EBADF);
        in.fh = client.open_handle(file, O_RDONLY);
        CHECK(client.set_attributes(file, in).error == EINVAL);
        in.size = ~std::uint64_t{0};
        CHECK(client.set_attributes(file, in).error == EFBIG);
        in.valid = FATTR_SIZE;
        in.size = 0;
        CHECK(client.set_attributes(client.node({"sub"}), in).error == EISDIR);
        CHECK(tree.read("file") == "h");
    }
    SECTION("times") {
        in.valid = FATTR_MTIME | FATTR_ATIME;
        in.mtime = 1'000'000'000;
        in.mtimensec = 5;
        in.atime = 7;
        const auto attributes = client.set_attributes(file, in).as<fuse_attr_out>().attr;
        CHECK(attributes.mtime == 1'000'000'000);
        CHECK(attributes.mtimensec == 5);
        CHECK(attributes.atime == 7);
        // UTIME_NOW and UTIME_OMIT of the host are no numbers of nanoseconds.
        for (const long special : {1'000'000'000L, UTIME_NOW, UTIME_OMIT, 0xFFFF'FFFFL}) {
            in.mtimensec = static_cast<std::uint32_t>(special);
            CHECK(client.set_attributes(file, in).error == EINVAL);
        }
        in.valid = FATTR_MTIME | FATTR_MTIME_NOW;
        in.mtimensec = 0;
        const auto now = client.set_attributes(file, in).as<fuse_attr_out>().attr;
        CHECK(now.mtime > 1'000'000'000);
        CHECK(now.atime == 7);
    }
    SECTION("mode, without the bits by which a program gets its owner's rights") {
        in.valid = FATTR_MODE;
        in.mode = 06755;
        CHECK(client.set_attributes(file, in).as<fuse_attr_out>().attr.mode == (S_IFREG | 0755U));
        CHECK(client.set_attributes(client.node({"sub"}), in).as<fuse_attr_out>().attr.mode ==
              (S_IFDIR | 02755U));
        CHECK(client.create(root, "c", O_RDWR, 06777).as<fuse_entry_out>().attr.mode == (S_IFREG | 0777U));
        const fuse_mknod_in node{.mode = S_IFREG | 06777U, .rdev = 0, .umask = 0, .padding = 0};
        CHECK(
            client.call(FUSE_MKNOD, root, bytes_of(node) + name_bytes("n")).as<fuse_entry_out>().attr.mode ==
            (S_IFREG | 0777U));
        const fuse_mkdir_in directory{.mode = 07777, .umask = 0};
        CHECK(client.call(FUSE_MKDIR, root, bytes_of(directory) + name_bytes("d"))
                  .as<fuse_entry_out>()
                  .attr.mode == (S_IFDIR | 01777U));
    }
    SECTION("a program of the host that is opened for writing loses those bits") {
        const int way = GENERATE(0, 1, 2);
        REQUIRE(::chmod((tree.shared / "file").c_str(), 06755) == 0);
        client.open_handle(file, O_RDONLY);
        CHECK(fs::status(tree.shared / "file").permissions() == fs::perms(06755));
        if (way == 0) {
            client.open_handle(file, O_WRONLY);
        } else if (way == 1) {
            CHECK(client.create(root, "file", O_RDWR, 0).error == 0);
        } else {
            in.valid = FATTR_SIZE;
            CHECK(client.set_attributes(file, in).error == 0);
        }
        CHECK(fs::status(tree.shared / "file").permissions() == fs::perms(0755));
    }
    SECTION("owner") {
        in.valid = FATTR_UID | FATTR_GID;
        in.uid = ::geteuid();
        in.gid = ::getegid();
        CHECK(client.set_attributes(file, in).error == 0);
        in.valid = 0;
        CHECK(client.set_attributes(file, in).error == 0);
    }
}

TEST_CASE("share: directories are changed", "[share]") {
    const Tree tree;
    FuseClient client(tree.path());
    const std::uint64_t sub = client.node({"sub"});
    const std::uint64_t file = client.node({"file"});
    SECTION("links") {
        const std::string target(PATH_MAX - 1, 'x');
        CHECK(S_ISLNK(client.call(FUSE_SYMLINK, root, name_bytes("l") + name_bytes("/etc/passwd"))
                          .as<fuse_entry_out>()
                          .attr.mode));
        CHECK(fs::read_symlink(tree.shared / "l") == "/etc/passwd");
        CHECK(client.call(FUSE_SYMLINK, root, name_bytes("m") + name_bytes(target)).error == 0);
        CHECK(client.call(FUSE_SYMLINK, root, name_bytes("n") + name_bytes(target + 'x')).error ==
              ENAMETOOLONG);
        CHECK(client.call(FUSE_SYMLINK, root, name_bytes("n") + name_bytes("")).error == ENOENT);
        CHECK(client.call(FUSE_SYMLINK, root, name_bytes("n")).error == EINVAL);
        const auto hard = client.call(FUSE_LINK, sub, bytes_of(fuse_link_in{file}) + name_bytes("hard"))
                              .as<fuse_entry_out>();
        CHECK(hard.nodeid == file);
        CHECK(hard.attr.nlink == 2);
        CHECK(tree.read("sub/hard") == "hello");
        const std::uint64_t link = client.node({"l"});
        CHECK(client.call(FUSE_LINK, sub, bytes_of(fuse_link_in{link}) + name_bytes("l2"))
                  .as<fuse_entry_out>()
                  .nodeid == link);
        CHECK(fs::read_symlink(tree.shared / "sub/l2") == "/etc/passwd");
        CHECK(client.call(FUSE_LINK, root, bytes_of(fuse_link_in{sub}) + name_bytes("d")).error == EPERM);
        CHECK(client.call(FUSE_LINK, root, bytes_of(fuse_link_in{client.node({"fifo"})}) + name_bytes("d"))
                  .error == EPERM);
        CHECK(client.call(FUSE_LINK, root, bytes_of(fuse_link_in{999}) + name_bytes("d")).error == ESTALE);
    }
    SECTION("renaming") {
        CHECK(
            client
                .call(FUSE_RENAME, root, bytes_of(fuse_rename_in{sub}) + name_bytes("file") + name_bytes("b"))
                .error == 0);
        CHECK(tree.read("sub/b") == "hello");
        CHECK(client.node({"sub", "b"}) == file);
        const auto rename2 = [&](std::uint32_t flags, std::string_view from, std::string_view to) {
            return client
                .call(FUSE_RENAME2, sub,
                      bytes_of(fuse_rename2_in{.newdir = sub, .flags = flags, .padding = 0}) +
                          name_bytes(from) + name_bytes(to))
                .error;
        };
        CHECK(rename2(RENAME_NOREPLACE, "b", "inner") == EEXIST);
        CHECK(rename2(RENAME_EXCHANGE, "b", "inner") == 0);
        CHECK(tree.read("sub/b") == "inner");
        CHECK(rename2(0, "none", "x") == ENOENT);
        CHECK(
            client
                .call(FUSE_RENAME, root, bytes_of(fuse_rename_in{file}) + name_bytes("sub") + name_bytes("b"))
                .error == ENOTDIR);
        CHECK(
            client
                .call(FUSE_RENAME, root, bytes_of(fuse_rename_in{sub}) + name_bytes("sub") + name_bytes("b"))
                .error == EINVAL);
    }
    SECTION("making and removing") {
        const fuse_mkdir_in mode{.mode = 0755, .umask = 0};
        const auto made = client.call(FUSE_MKDIR, sub, bytes_of(mode) + name_bytes("d")).as<fuse_entry_out>();
        CHECK(S_ISDIR(made.attr.mode));
        CHECK(client.call(FUSE_MKDIR, sub, bytes_of(mode) + name_bytes("d")).error == EEXIST);
        CHECK(client.call(FUSE_UNLINK, sub, name_bytes("d")).error == EISDIR);
        CHECK(client.call(FUSE_RMDIR, root, name_bytes("sub")).error == ENOTEMPTY);
        CHECK(client.call(FUSE_RMDIR, root, name_bytes("file")).error == ENOTDIR);
        CHECK(client.call(FUSE_RMDIR, sub, name_bytes("d")).error == 0);
        CHECK(client.call(FUSE_UNLINK, sub, name_bytes("inner")).error == 0);
        CHECK(fs::is_empty(tree.shared / "sub"));
        // In a directory that is gone.
        CHECK(client.call(FUSE_MKDIR, made.nodeid, bytes_of(mode) + name_bytes("x")).error == ENOENT);
    }
    CHECK(client.call(FUSE_SYNCFS, root, bytes_of(fuse_syncfs_in{})).error == 0);
    CHECK(slurp(tree.secret) == secret_text);
}

TEST_CASE("share: directories are listed", "[share]") {
    const Tree tree;
    for (int i = 0; i < 1000; ++i) {
        tree.write("sub/" + std::to_string(i) + std::string(static_cast<std::size_t>(i) % 200, 'n'), "");
    }
    FuseClient client(tree.path(), false);
    const std::uint64_t sub = client.node({"sub"});
    const std::uint32_t opcode = GENERATE(FUSE_READDIR, FUSE_READDIRPLUS);
    const std::uint32_t size = GENERATE(2048U, 4096U, 65536U);
    const auto entries = client.list(sub, opcode, size);
    std::set<std::string> names;
    for (const ListedEntry& entry : entries) {
        CHECK(names.insert(entry.name).second);
        const bool dots = entry.name == "." || entry.name == "..";
        CHECK((entry.node != 0) == (opcode == FUSE_READDIRPLUS && !dots));
        CHECK(entry.type == (dots ? DT_DIR : DT_REG));
    }
    CHECK(names.size() == 1003);  // with inner, "." and ".."
    CHECK(client.server.files().objects() == (opcode == FUSE_READDIRPLUS ? 1002 : 1));
    CHECK(client.server.files().handles() == 0);

    SECTION("the parent of the root is not shown") {
        struct stat above{};
        struct stat shared{};
        REQUIRE(::stat((tree.scratch / "").c_str(), &above) == 0);
        REQUIRE(::stat(tree.path().c_str(), &shared) == 0);
        for (const ListedEntry& entry : client.list(root, opcode)) {
            CHECK(entry.inode != above.st_ino);
            if (entry.name == "..") {
                CHECK(entry.inode == shared.st_ino);
            }
        }
    }
    SECTION("from any offset, by a handle of a directory only") {
        fuse_read_in in{};
        in.fh = client.open_handle(sub, 0, FUSE_OPENDIR);
        in.size = 4096;
        for (const std::uint64_t offset :
             {std::uint64_t{1} << 40U, std::uint64_t{INT64_MAX}, std::uint64_t{77}}) {
            in.offset = offset;
            client.call(opcode, sub, bytes_of(in));
        }
        in.offset = ~std::uint64_t{0};
        CHECK(client.call(opcode, sub, bytes_of(in)).error == EINVAL);
        in.offset = 0;
        CHECK(client.call(opcode, sub, bytes_of(in), 4096).error == EINVAL);  // 16 bytes too few
        CHECK(client.call(opcode, root, bytes_of(in)).error == EBADF);
        in.size = 8;
        CHECK(client.call(opcode, sub, bytes_of(in)).error == EINVAL);
        in.size = 4096;
        CHECK(client.call(opcode, sub, bytes_of(in)).error == 0);
    }
}

TEST_CASE("share: a directory whose entries are removed while it is listed loses all of them", "[share]") {
    // As rm -r does. On tmpfs the offset of an entry is the number of those before it.
    const char* const temporary = std::getenv("TMPDIR");
    ::setenv("TMPDIR", fs::is_directory("/dev/shm") ? "/dev/shm" : "/tmp", 1);
    const Tree tree;
    temporary != nullptr ? ::setenv("TMPDIR", temporary, 1) : ::unsetenv("TMPDIR");
    FuseClient client(tree.path());
    for (int i = 0; i < 500; ++i) {
        tree.write("sub/" + std::to_string(i), "");
    }
    const std::uint64_t sub = client.node({"sub"});
    fuse_read_in in{};
    in.fh = client.open_handle(sub, 0, FUSE_OPENDIR);
    in.size = 4096;
    const std::uint32_t opcode = GENERATE(FUSE_READDIR, FUSE_READDIRPLUS);
    for (;;) {
        const FuseReply reply = client.call(opcode, sub, bytes_of(in));
        REQUIRE(reply.error == 0);
        if (reply.data.empty()) {
            break;
        }
        std::span<const std::uint8_t> rest(reply.data);
        while (!rest.empty()) {
            const std::size_t at = opcode == FUSE_READDIRPLUS ? sizeof(fuse_entry_out) : 0;
            fuse_dirent head{};
            std::memcpy(&head, rest.data() + at, FUSE_NAME_OFFSET);
            const std::string name(reinterpret_cast<const char*>(rest.data()) + at + FUSE_NAME_OFFSET,
                                   head.namelen);
            if (name != "." && name != "..") {
                CHECK(client.call(FUSE_UNLINK, sub, name_bytes(name)).error == 0);
            }
            in.offset = head.off;
            rest = rest.subspan(at + FUSE_REC_ALIGN(FUSE_NAME_OFFSET + head.namelen));
        }
    }
    CHECK(client.call(FUSE_RMDIR, root, name_bytes("sub")).error == 0);
}

TEST_CASE("share: the descriptors that a guest can occupy are limited", "[share]") {
    const Tree tree;
    for (int i = 0; i < 20; ++i) {
        tree.write("sub/" + std::to_string(i), "");
    }
    FuseClient client(tree.path(), true, {.objects = 5, .handles = 2});
    const std::uint64_t sub = client.node({"sub"});
    for (int i = 0; i < 4; ++i) {
        CHECK(client.look_up(sub, std::to_string(i)).error == 0);
    }
    const auto descriptors = [] {
        return std::distance(fs::directory_iterator("/proc/self/fd"), fs::directory_iterator());
    };
    const auto before = descriptors();
    CHECK(client.look_up(sub, "4").error == ENFILE);
    CHECK(client.look_up(sub, "0").error == 0);  // it is known already
    CHECK(client.create(root, "new", O_RDWR, 0666).error == ENFILE);
    // A listing still has all names.
    const auto entries = client.list(sub, FUSE_READDIRPLUS);
    CHECK(entries.size() == 23);
    CHECK(std::ranges::count_if(entries, [](const ListedEntry& entry) { return entry.node != 0; }) == 4);
    CHECK(client.server.files().objects() == 5);
    CHECK(descriptors() == before);
    const std::uint64_t file = client.node({"sub", "0"});
    client.open_handle(file);
    client.open_handle(file);
    CHECK(client.open(file).error == ENFILE);
    CHECK(client.open(sub, 0, FUSE_OPENDIR).error == ENFILE);
    CHECK(client.server.files().handles() == 2);
    client.server.reset();
    CHECK(descriptors() == before - 5 - 2 + 2);  // before there were no handles
}

TEST_CASE("share: a name that the host swaps meanwhile does not lead out", "[share]") {
    const Tree tree;
    FuseClient client(tree.path());
    fs::create_directory(tree.shared / "swap");
    tree.write("swap/secret", "inside");
    // A directory "swap", and a link of that name to the directory above.
    fs::create_directory_symlink(tree.scratch / "", tree.shared / "other");
    tree.write("plain", "inside");
    fs::create_symlink(tree.secret, tree.shared / "link");
    std::atomic<bool> stop{false};
    std::thread host([&] {
        while (!stop) {
            ::renameat2(AT_FDCWD, (tree.shared / "swap").c_str(), AT_FDCWD, (tree.shared / "other").c_str(),
                        RENAME_EXCHANGE);
            ::renameat2(AT_FDCWD, (tree.shared / "plain").c_str(), AT_FDCWD, (tree.shared / "link").c_str(),
                        RENAME_EXCHANGE);
        }
    });
    int inside = 0;
    int links = 0;
    const auto check_content = [&](const FuseReply& entry, bool created) {
        const auto node = entry.as<fuse_entry_out>();
        std::uint64_t handle = 0;
        if (created) {
            fuse_open_out opened{};
            std::memcpy(&opened, entry.data.data() + sizeof(node), sizeof(opened));
            handle = opened.fh;
        } else {
            const FuseReply opened = client.open(node.nodeid);
            if (opened.error != 0) {
                links += opened.error == ELOOP ? 1 : 0;
                return;
            }
            handle = opened.as<fuse_open_out>().fh;
        }
        const FuseReply content = client.read(node.nodeid, handle, 0, 100);
        CHECK(std::string(content.data.begin(), content.data.end()) == "inside");
        ++inside;
    };
    for (int i = 0; i < 20'000 || ((inside == 0 || links == 0) && i < 1'000'000); ++i) {
        client.server.reset();
        REQUIRE(client.call(FUSE_INIT, 0, fuse_init_argument()).error == 0);
        check_content(client.look_up(root, "plain"), false);
        if (const FuseReply created = client.create(root, "plain", O_RDWR, 0666); created.error == 0) {
            check_content(created, true);
        } else {
            CHECK(created.error == ELOOP);
        }
        const auto directory = client.look_up(root, "swap").as<fuse_entry_out>();
        if (const FuseReply entry = client.look_up(directory.nodeid, "secret"); entry.error == 0) {
            check_content(entry, false);
        } else {
            CHECK(entry.error == ENOTDIR);
        }
    }
    stop = true;
    host.join();
    CHECK(inside > 0);
    CHECK(links > 0);
    CHECK(slurp(tree.secret) == secret_text);
}

TEST_CASE("share: what is not offered is answered with ENOSYS", "[share]") {
    const Tree tree;
    FuseClient client(tree.path());
    for (const std::uint32_t opcode :
         {FUSE_SETXATTR, FUSE_GETXATTR, FUSE_LISTXATTR, FUSE_REMOVEXATTR, FUSE_GETLK, FUSE_SETLK, FUSE_SETLKW,
          FUSE_BMAP, FUSE_IOCTL, FUSE_POLL, FUSE_NOTIFY_REPLY, FUSE_SETUPMAPPING, FUSE_REMOVEMAPPING,
          FUSE_TMPFILE}) {
        CHECK(client.call(opcode, root, Bytes(200)).error == ENOSYS);
    }
    for (const std::uint32_t opcode : {0U, 7U, 19U, 52U, 4096U, 1048576U, 436207616U, ~0U}) {
        CHECK(client.call(opcode, root, Bytes(200)).error == ENOSYS);
        CHECK(client.call(opcode, root).error == ENOSYS);
    }
    CHECK(client.call(FUSE_INTERRUPT, 0, bytes_of(fuse_interrupt_in{1})).size == 0);
    CHECK(client.counter("errors") == 0);
}

TEST_CASE("share: requests of wrong lengths", "[share]") {
    const Tree tree;
    FuseClient client(tree.path());
    const auto before = tree.listing();
    SECTION("without a whole header there is no answer") {
        const Bytes good = fuse_request(FUSE_GETATTR, root, bytes_of(fuse_getattr_in{}));
        for (std::size_t size = 0; size < sizeof(fuse_in_header); ++size) {
            CHECK(client.send(Bytes(good.begin(), good.begin() + static_cast<std::ptrdiff_t>(size))).size ==
                  0);
        }
        CHECK(client.counter("refused") == sizeof(fuse_in_header));
    }
    SECTION("a length that is not that of the request") {
        Bytes request = fuse_request(FUSE_GETATTR, root, bytes_of(fuse_getattr_in{}));
        for (const std::uint32_t length : {0U, 39U, 40U, 55U, 57U, ~0U}) {
            std::memcpy(request.data(), &length, sizeof(length));
            CHECK(client.send(request).error == EINVAL);
        }
        const std::uint32_t right = 56;
        std::memcpy(request.data(), &right, sizeof(right));
        CHECK(client.send(request + Bytes(100)).error == 0);  // what follows does not belong to it
    }
    SECTION("every operation with every length, and every room for the answer") {
        for (std::uint32_t opcode = 0; opcode < 64; ++opcode) {
            if (opcode == FUSE_DESTROY || opcode == FUSE_INIT) {
                continue;
            }
            for (std::size_t size = 0; size < 100; ++size) {
                client.call(opcode, root, Bytes(size));
                client.call(opcode, root, Bytes(size, 0xFF));
            }
            for (std::size_t room = 0; room < 200; ++room) {
                const FuseReply reply = client.call(opcode, root, Bytes(88), room);
                CHECK((reply.size == 0 || room >= sizeof(fuse_out_header)));
            }
        }
        CHECK(tree.listing() == before);
        CHECK(client.server.files().objects() == 0);
    }
    SECTION("an entry for which there is no room is not counted as known") {
        CHECK(client.call(FUSE_LOOKUP, root, name_bytes("file"), 16 + sizeof(fuse_entry_out) - 1).error ==
              EINVAL);
        CHECK(client.server.files().objects() == 0);
        CHECK(client.call(FUSE_LOOKUP, root, name_bytes("file"), 16 + sizeof(fuse_entry_out)).error == 0);
    }
}

TEST_CASE("share: random requests change nothing outside of the directory", "[share]") {
    const Tree tree;
    const bool writable = GENERATE(false, true);
    FuseClient client(tree.path(), writable, {.objects = 50, .handles = 20});
    const auto before = tree.listing();
    std::mt19937 random(writable ? 1 : 2);  // NOLINT(bugprone-random-generator-seed): repeatable
    const auto pick = [&random](std::uint64_t below) { return random() % below; };
    const std::vector<std::string> names{"file",
                                         "sub",
                                         "inner",
                                         "absolute",
                                         "relative",
                                         "up",
                                         "fifo",
                                         "socket",
                                         "a",
                                         "b",
                                         "..",
                                         ".",
                                         "",
                                         "../secret",
                                         "up/secret",
                                         std::string(255, 'l'),
                                         std::string(256, 'l')};
    std::array<std::uint64_t, 40> errors{};
    for (int i = 0; i < 100'000; ++i) {
        const auto opcode = static_cast<std::uint32_t>(pick(50) == 0 ? random() : pick(54));
        Bytes argument;
        for (std::uint64_t words = pick(12); words != 0; --words) {
            const std::uint64_t word = pick(8) == 0 ? ~std::uint64_t{0} >> pick(64) : pick(30);
            argument = argument + bytes_of(word);
        }
        for (std::uint64_t count = pick(4); count > 1; --count) {
            argument = argument + name_bytes(names[pick(names.size())]);
        }
        if (pick(2) == 0) {
            argument = name_bytes(names[pick(names.size())]);
        }
        if (opcode == FUSE_INIT || opcode == FUSE_DESTROY) {
            if (pick(20) != 0) {
                continue;
            }
            client.call(opcode, root, argument);
            REQUIRE(client.call(FUSE_INIT, 0, fuse_init_argument()).error == 0);
            continue;
        }
        const FuseReply reply = client.call(opcode, pick(40), argument, pick(6000));
        ++errors.at(std::min<std::size_t>(static_cast<std::size_t>(reply.error), errors.size() - 1));
        REQUIRE(client.server.files().objects() <= 50);
        REQUIRE(client.server.files().handles() <= 20);
    }
    CHECK(errors[0] > 1000);
    CHECK(slurp(tree.secret) == secret_text);
    if (!writable) {
        CHECK(tree.listing() == before);
    }
    // Beside the shared directory there is what there was.
    CHECK(std::distance(fs::directory_iterator(tree.scratch / ""), fs::directory_iterator()) == 2);
}

TEST_CASE("share: a directory that cannot be shared is refused", "[share]") {
    const Tree tree;
    const auto reason = [](const std::string& path) -> std::string {
        try {
            virtio::SharedRoot root_directory(path);
            return {};
        } catch (const VmmError& error) {
            CHECK(error.code() == ExitCode::bad_file);
            return error.what();
        }
    };
    CHECK(reason(tree.path()).empty());
    CHECK(reason((tree.shared / "file").string()).ends_with("file': is a regular file, not a directory"));
    CHECK(reason((tree.shared / "fifo").string()).ends_with("fifo': is a FIFO or pipe, not a directory"));
    CHECK(reason((tree.shared / "none").string()).ends_with("cannot be opened: No such file or directory"));
    CHECK(reason("/proc").ends_with("is in /proc, which would give the guest this program's memory"));
    CHECK(reason("/proc/self/fd").ends_with("is in /proc, which would give the guest this program's memory"));
    // The user may name it by a link.
    CHECK(reason((tree.shared / "up").string()).empty());
}

TEST_CASE("share: what is mounted below the directory is not entered", "[share]") {
    virtio::SharedRoot slash("/");
    Counters counters;
    virtio::SharedDirectory files(slash, {});
    const auto proc = files.look_up(**files.object(virtio::SharedDirectory::root_id), "proc");
    REQUIRE_FALSE(proc);
    CHECK(proc.error().number == EXDEV);
}
