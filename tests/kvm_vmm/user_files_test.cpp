// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
// What kvm_vmm may do to a user's files: two or three options at a time name objects of every kind by every
// kind of name. Nothing may be lost that was not named as an output.
#include <algorithm>
#include <cerrno>
#include <fcntl.h>
#include <iterator>
#include <map>
#include <optional>
#include <random>
#include <set>
#include <string>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>
#include <utility>
#include <vector>

#include <vmsuperio/linux/unique_fd.hpp>

#include "program.hpp"
#include "sanitizer.hpp"
#include "util/log.hpp"
#include "vmm/opened_files.hpp"
#include "vmm/options.hpp"

using namespace kvm_vmm::test;
using vmsuperio::UniqueFd;

namespace {

// The exit code of a run that opened all files. With KVM, the guest of these tests resets; without KVM there
// is no guest.
constexpr int opened_without_guest = 10;

/// Does everything except running a guest: opens the files that the options name, writes a byte to each
/// output, and ends.
[[noreturn]] void open_only(const std::vector<std::string>& arguments) {
    std::vector<const char*> argv{"kvm_vmm"};
    for (const std::string& argument : arguments) {
        argv.push_back(argument.c_str());
    }
    int code = 1;
    try {
        const auto parsed = kvm_vmm::parse_options(static_cast<int>(argv.size()), argv.data());
        const auto& config = std::get<kvm_vmm::VmmConfig>(parsed);
        kvm_vmm::OpenedFiles files = kvm_vmm::open_files(config);
        kvm_vmm::Observer observer(std::move(files.observe), config.observe.log_level);
        code = opened_without_guest;
        if (files.error) {
            kvm_vmm::report(files.error->what());
            code = static_cast<int>(files.error->code());
        }
        std::ranges::move(files.consoles, std::back_inserter(files.serials));
        if (files.debug_console) {
            files.serials.push_back(std::move(*files.debug_console));
        }
        for (const kvm_vmm::SerialTarget& target : files.serials) {
            if (target.file) {
                (void)!::write(target.file->fd(), "!", 1);
            } else if (target.kind == kvm_vmm::SerialConfig::Kind::stdio && code == opened_without_guest) {
                (void)!::write(STDOUT_FILENO, "!", 1);
            }
        }
        files.serials.clear();  // as at the end of a session: removes the sockets
        observer.flush(code);
    } catch (const kvm_vmm::VmmError& error) {
        kvm_vmm::report(error.what());
        code = static_cast<int>(error.code());
    }
    ::_exit(code);
}

/// An object in the user's directory, as it was before the run.
struct Object {
    struct stat status{};
    std::string content;  // of a regular file
};

std::optional<struct stat> look(const fs::path& path, bool follow) {
    struct stat status{};
    if ((follow ? ::stat(path.c_str(), &status) : ::lstat(path.c_str(), &status)) != 0) {
        return std::nullopt;
    }
    return status;
}

vmsuperio::UniqueFd bound_socket(const fs::path& path, bool live) {
    sockaddr_un address{};
    address.sun_family = AF_UNIX;
    std::strncpy(address.sun_path, path.c_str(), sizeof(address.sun_path) - 1);
    vmsuperio::UniqueFd fd(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
    REQUIRE(::bind(fd.get(), reinterpret_cast<const sockaddr*>(&address), sizeof(address)) == 0);
    if (live) {
        REQUIRE(::listen(fd.get(), 16) == 0);
    }
    return fd;
}

struct Option {
    std::string name;    // as the user writes it, "--serial file="
    std::string target;  // a name in the directory, or an absolute path
    bool input{false};
    bool socket{false};
    bool appends{false};
    bool replaces{false};
};

/// A user's directory, a command line, and the outcomes that are permitted.
class World {
public:
    World(unsigned seed, bool real_program) : random_(seed), real_program_(real_program) {
        fill();
        choose();
    }

    void run_and_check() {
        const std::map<std::string, Object> before = list();
        expect(before);
        std::vector<std::string> arguments;
        for (const Option& option : options_) {
            const std::string path = option.target.starts_with('/') ? option.target : spell(option.target);
            if (option.name.ends_with('=')) {
                arguments.push_back(option.name.substr(0, option.name.find(' ')));
                arguments.push_back(option.name.substr(option.name.find(' ') + 1) + path);
            } else {
                arguments.push_back(option.name);
                arguments.push_back(path);
            }
            line_ += ' ' + arguments[arguments.size() - 2] + ' ' + arguments.back();
        }
        arguments.insert(arguments.end(), {"--memory", "32M"});
        line_ += " <" + stdin_ + " >>" + stdout_ + " 2>>" + stderr_;
        INFO(line_);
        const int code = run(arguments);
        const std::string errors = slurp(directory_ / stderr_).substr(before.at(stderr_).content.size());
        INFO("exit code " << code << ", stderr: " << errors);
        CHECK((code == 3 || code == opened_without_guest));
        if (bad_ || !collisions_.empty()) {
            CHECK(code == 3);
        }
        if (!bad_ && !collisions_.empty() && !log_on_stderr_) {
            CHECK(line_count(errors) == 1);
            CHECK_THAT(errors, Catch::Matchers::Contains("are the same file"));
            CHECK(std::ranges::any_of(collisions_, [&](const auto& pair) {
                return errors.find(word(pair.first)) < errors.find(" and ") &&
                       errors.find(word(pair.second), errors.find(" and ")) != std::string::npos;
            }));
        }
        if (!bad_ && collisions_.empty()) {
            CHECK(code == opened_without_guest);
        }
        check_objects(before, list(), code);
    }

    [[nodiscard]] bool refused() const { return !collisions_.empty(); }
    [[nodiscard]] bool opened() const { return !bad_ && collisions_.empty(); }

private:
    unsigned pick(std::size_t count) {
        return std::uniform_int_distribution<unsigned>(0, static_cast<unsigned>(count) - 1)(random_);
    }
    template <class T>
    const T& any_of(const std::vector<T>& choices) {
        return choices[pick(choices.size())];
    }

    void fill() {
        directory_.write("kernel", make_bzimage(reset_code));
        directory_.write("initrd", "an initrd");
        directory_.write("other", "a file of the user's\n");
        directory_.write("input", "typed\n");
        directory_.write("out", "earlier output\n");
        directory_.write("err", "earlier errors\n");
        fs::create_directory(directory_ / "folder");
        directory_.write("folder/inside", "inside");
        fs::create_directory_symlink(".", directory_ / "alias");
        fs::create_hard_link(directory_ / any_of<std::string>({"kernel", "initrd", "other", "out"}),
                             directory_ / "hard");
        fs::create_symlink(any_of<std::string>({"kernel", "initrd", "other", "hard"}), directory_ / "soft");
        fs::create_symlink("soft", directory_ / "softer");
        fs::create_symlink("made", directory_ / "dangling");
        REQUIRE(::mkfifo((directory_ / "fifo").c_str(), 0600) == 0);
        REQUIRE(::mkfifo((directory_ / "lonely").c_str(), 0600) == 0);
        reader_ =
            vmsuperio::UniqueFd(::open((directory_ / "fifo").c_str(), O_RDONLY | O_NONBLOCK | O_CLOEXEC));
        (void)bound_socket(directory_ / "stale", false);
        live_ = bound_socket(directory_ / "live", true);
    }

    void choose() {
        static const std::vector<std::string> usual{"other", "initrd", "new",  "new2",   "hard",    "soft",
                                                    "other", "kernel", "made", "softer", "dangling"};
        static const std::vector<std::string> odd{
            "fifo",       "lonely",    "folder",          "stale",         "live",        "out",
            "err",        "input",     "missing/x",       "/dev/null",     "/dev/stdout", "/dev/stderr",
            "/dev/stdin", "/dev/fd/1", "/proc/self/fd/2", "folder/inside", "/dev/full/x"};
        const auto target = [&] { return pick(5) == 0 ? any_of(odd) : any_of(usual); };
        std::vector<Option> outputs{{"--serial file=", target()},
                                    {"--serial unix=", target(), false, true},
                                    {"--debug-console file=", target()},
                                    {"--log", target(), false, false, true},
                                    {"--metrics", target(), false, false, false, true},
                                    {"--trace-io", target()},
                                    {"--serial file=", target()},
                                    {"--serial unix=", target(), false, true},
                                    {"--console file=", target()},
                                    {"--console unix=", target(), false, true}};
        std::shuffle(outputs.begin(), outputs.end(), random_);
        outputs.resize(2 + pick(2));
        options_.push_back({"--kernel", pick(8) == 0 ? "hard" : "kernel", true});
        if (pick(2) == 0) {
            options_.push_back(
                {"--initrd", any_of<std::string>({"initrd", "initrd", "soft", "kernel"}), true});
        }
        options_.insert(options_.end(), outputs.begin(), outputs.end());
        if (options_[0].target == "hard" && !fs::equivalent(directory_ / "hard", directory_ / "kernel")) {
            options_[0].target = "kernel";
        }
        stdin_ = pick(3) == 0 ? "input" : "/dev/null";
        stdout_ = pick(6) == 0 ? any_of<std::string>({"other", "hard"}) : "out";
        if (fs::equivalent(directory_ / stdout_, directory_ / "kernel")) {
            stdout_ = "out";
        }
    }

    std::string spell(const std::string& name) {
        const std::string parent = (directory_ / "x").parent_path().string();
        switch (pick(4)) {
            case 0:
                return parent + "/alias/" + name;
            case 1:
                return parent + "/folder/.././" + name;
            case 2:
                return parent + "//" + name;
            default:
                return parent + '/' + name;
        }
    }

    int run(const std::vector<std::string>& arguments) {
        const pid_t child = fork_child();
        if (child == 0) {
            const auto redirect = [this](const std::string& name, int flags, int fd) {
                ::dup2(::open((name.starts_with('/') ? fs::path(name) : directory_ / name).c_str(), flags),
                       fd);
            };
            redirect(stdin_, O_RDONLY, STDIN_FILENO);
            redirect(stdout_, O_WRONLY | O_APPEND, STDOUT_FILENO);
            redirect(stderr_, O_WRONLY | O_APPEND, STDERR_FILENO);
            ::umask(0);
            ::alarm(30);
            if (real_program_) {
                exec(arguments);
            }
            open_only(arguments);
        }
        int status = 0;
        REQUIRE(::waitpid(child, &status, 0) == child);
        return exit_code_of(status);
    }

    [[nodiscard]] std::map<std::string, Object> list() const {
        std::map<std::string, Object> objects;
        const fs::path root = (directory_ / "x").parent_path();
        for (const auto& entry : fs::recursive_directory_iterator(root)) {
            Object object{*look(entry.path(), false), {}};
            if (S_ISREG(object.status.st_mode)) {
                object.content = slurp(entry.path());
            }
            objects.emplace(entry.path().lexically_relative(root).string(), object);
        }
        return objects;
    }

    // The file that an option names, after links: a name in the directory, or "" for none.
    [[nodiscard]] std::string resolve(const Option& option) const {
        std::string name = option.target;
        if (name == "/dev/stdout" || name == "/dev/fd/1") {
            return stdout_;
        }
        if (name == "/dev/stderr" || name == "/proc/self/fd/2") {
            return stderr_;
        }
        if (name == "/dev/stdin") {
            return stdin_;
        }
        while (!option.socket && fs::is_symlink(directory_ / name)) {
            name = fs::read_symlink(directory_ / name).string();
        }
        return name;
    }

    static std::string word(const std::string& option) { return option.substr(0, option.find(' ')); }

    void expect(const std::map<std::string, Object>& before) {
        // Files by inode, or by name if they do not exist yet.
        std::map<std::string, std::vector<const Option*>> users;
        const auto key = [&](const std::string& name) {
            const auto found = before.find(name);
            return found == before.end() ? name : std::to_string(found->second.status.st_ino);
        };
        for (const Option& option : options_) {
            const std::string name = resolve(option);
            const auto found = before.find(name);
            const mode_t mode = found == before.end() ? 0 : found->second.status.st_mode;
            if (name == "missing/x" || name == "/dev/full/x" || S_ISDIR(mode)) {
                bad_ = true;
            } else if (option.socket) {
                bad_ = bad_ || name.starts_with('/') || option.target.starts_with('/') || name == "live" ||
                       (found != before.end() && !S_ISSOCK(mode));
                // If its directory entry is another option's file, that is the better message.
                users[key(name)].push_back(&option);
            } else if (S_ISSOCK(mode) || name == "lonely") {
                bad_ = true;
            } else if (name == "input" && option.target == "/dev/stdin") {
                bad_ = true;  // it is not open for writing
            } else if (!name.starts_with('/') && name != "fifo") {
                users[key(name)].push_back(&option);
                if (!option.input) {
                    (option.replaces ? replaced_ : written_).insert(name);
                    if (option.appends) {
                        appended_.insert(key(name));
                    } else if (!option.replaces) {
                        truncated_.insert(key(name));
                    }
                }
            }
        }
        for (const auto& [file, options] : users) {
            for (const Option* const one : options) {
                for (const Option* const other : options) {
                    if (one != other && (!one->input || !other->input)) {
                        collisions_.emplace_back(one->name, other->name);
                    }
                }
            }
        }
        for (const auto& [stream, fd] : {std::pair{stdin_, 0}, {stdout_, 1}, {stderr_, 2}}) {
            for (const Option* const option : users[key(stream)]) {
                const bool by_descriptor =
                    option->target.starts_with("/dev/") || option->target.starts_with("/proc/");
                const bool shared = fd != 0 && (option->appends || by_descriptor);
                if (!shared && !(option->input && fd == 0)) {
                    collisions_.emplace_back(option->name, fd == 0 ? "stdin" : fd == 1 ? "stdout" : "stderr");
                }
            }
            streams_.insert(key(stream));
        }
        for (const Option& option : options_) {
            log_on_stderr_ = log_on_stderr_ || (option.appends && resolve(option) == stderr_);
        }
    }

    void check_objects(const std::map<std::string, Object>& before,
                       const std::map<std::string, Object>& after, int code) const {
        for (const auto& [name, object] : before) {
            INFO(name);
            const bool left_behind = name == "stale";
            const bool named = std::ranges::any_of(
                options_, [&](const Option& option) { return option.socket && option.target == "stale"; });
            const auto found = after.find(name);
            if (left_behind && named) {
                continue;
            }
            REQUIRE(found != after.end());
            const Object& now = found->second;
            CHECK((now.status.st_mode & S_IFMT) == (object.status.st_mode & S_IFMT));
            CHECK(now.status.st_mode == object.status.st_mode);
            const std::string key = std::to_string(object.status.st_ino);
            // The log and the metrics are written even if a port's target cannot be opened.
            const bool observed = code != 3 || bad_;
            if (!streams_.contains(key) && observed && replaced_.contains(name)) {
                continue;
            }
            CHECK(now.status.st_ino == object.status.st_ino);
            if (streams_.contains(key) || (observed && appended_.contains(key))) {
                CHECK(now.content.starts_with(object.content));
            } else if (code == 3 || !truncated_.contains(key)) {
                CHECK((now.content == object.content));
            }
        }
        for (const auto& [name, object] : after) {
            if (!before.contains(name)) {
                INFO("new: " << name);
                CHECK((written_.contains(name) || replaced_.contains(name)));
                CHECK((bad_ || collisions_.empty()));
                CHECK((object.status.st_mode & 07777U) == 0600U);
            }
        }
    }

    std::mt19937 random_;
    bool real_program_;
    ScratchDirectory directory_;
    vmsuperio::UniqueFd reader_;
    vmsuperio::UniqueFd live_;
    std::vector<Option> options_;
    std::string stdin_;
    std::string stdout_;
    std::string stderr_{"err"};
    std::string line_;
    bool bad_{false};
    bool log_on_stderr_{false};
    std::vector<std::pair<std::string, std::string>> collisions_;  // in either order
    std::set<std::string> appended_;                               // by inode
    std::set<std::string> truncated_;                              // by inode
    std::set<std::string> written_;
    std::set<std::string> replaced_;
    std::set<std::string> streams_;
};

void check_worlds(unsigned first, unsigned count, bool real_program) {
    unsigned refused = 0;
    unsigned opened = 0;
    for (unsigned seed = first; seed < first + count; ++seed) {
        INFO("seed " << seed);
        World world(seed, real_program);
        world.run_and_check();
        refused += world.refused() ? 1U : 0U;
        opened += world.opened() ? 1U : 0U;
    }
    // The cases must not all be of one kind.
    CHECK(refused > count / 10);
    CHECK(opened > count / 10);
}

}  // namespace

TEST_CASE("User files: nothing is lost that was not named as an output, whatever options share it",
          "[files]") {
    check_worlds(1, 600, false);
}

TEST_CASE("kvm_vmm: nothing is lost that was not named as an output, whatever options share it",
          "[program][files]") {
    REQUIRE_KVM();
    check_worlds(10'000, 60, true);
}

TEST_CASE("kvm_vmm: no output may be the kernel or the initrd under any name", "[program][files]") {
    const ScratchDirectory directory;
    const fs::path kernel = directory.write("kernel", make_bzimage({0xF4}));
    const std::string content = slurp(kernel);
    const fs::path initrd = directory.write("initrd", "an initrd");
    fs::create_symlink(kernel, directory / "link to the kernel");
    fs::create_hard_link(initrd, directory / "another name of the initrd");
    for (const std::string option :
         {"--log", "--metrics", "--trace-io", "--serial", "--console", "--debug-console"}) {
        const std::string form = option == "--serial" || option.ends_with("console") ? "file=" : "";
        for (const fs::path& output :
             {kernel, initrd, directory / "link to the kernel", directory / "another name of the initrd"}) {
            CAPTURE(option, output.string());
            const Result result = run(directory, {"--kernel", kernel.string(), "--initrd", initrd.string(),
                                                  option, form + output.string()});
            CHECK(result.exit_code == static_cast<int>(kvm_vmm::ExitCode::bad_file));
            CHECK_THAT(result.errors, Catch::Matchers::Contains("are the same file"));
            CHECK(slurp(kernel) == content);
            CHECK(slurp(initrd) == "an initrd");
        }
    }
}

TEST_CASE("kvm_vmm: a restarted guest uses the files that were opened, whatever is at their paths now",
          "[program][files]") {
    REQUIRE_KVM();
    const ScratchDirectory directory;
    // mov al, '!'; out 0xE9, al; mov al, 0xFE; out 0x64, al; hlt
    const fs::path kernel =
        directory.write("kernel", make_bzimage({0xB0, '!', 0xE6, 0xE9, 0xB0, 0xFE, 0xE6, 0x64, 0xF4}));
    const fs::path initrd = directory.write("initrd", "initrd");
    const fs::path precious = directory.write("precious", "precious");
    const fs::path debug = directory / "debug";
    const fs::path opened = directory / "opened";
    const pid_t child = fork_child();
    if (child == 0) {
        ::alarm(30);
        exec({"--kernel", kernel.string(), "--initrd", initrd.string(), "--memory", "64M", "--serial", "null",
              "--on-reboot", "restart", "--debug-console", "file=" + debug.string()});
    }
    const auto wait_for = [&](const fs::path& path, std::size_t size) {
        for (int i = 0; i < 2000 && slurp(path).size() < size; ++i) {
            ::usleep(5'000);
        }
        return slurp(path).size() >= size;
    };
    CHECK(wait_for(debug, 2));
    fs::rename(debug, opened);
    fs::create_symlink("precious", debug);
    fs::remove(kernel);
    fs::remove(initrd);
    directory.write("kernel", "no kernel at all");
    const std::size_t before = slurp(opened).size();
    CHECK(wait_for(opened, before + 3));
    CHECK(slurp(precious) == "precious");
    ::kill(child, SIGTERM);
    int status = 0;
    REQUIRE(::waitpid(child, &status, 0) == child);
    CHECK(exit_code_of(status) == 128 + SIGTERM);
    CHECK(slurp(opened).find_first_not_of('!') == std::string::npos);
    CHECK(slurp(precious) == "precious");
}

TEST_CASE("kvm_vmm: with too few descriptors it ends with one line, and the files are unchanged",
          "[program][files]") {
    if (vmsuperio_test::sanitizer_needs_descriptors) {
        VMSUPERIO_SKIP("the sanitizer opens a pipe to look at an object");
    }
    REQUIRE_KVM();
    const ScratchDirectory directory;
    const std::string image = make_bzimage(reset_code);
    const fs::path kernel = directory.write("kernel", image);
    const std::string socket = (directory / "socket").string();
    int ended = 0;
    // With fewer descriptors, the dynamic linker cannot start the program.
    for (rlim_t limit = 8; limit < 64; limit += limit < 20 ? 1 : 4) {
        INFO(limit);
        const fs::path log = directory.write("log", "earlier\n");
        const Result result = run(
            directory,
            {"--kernel", kernel.string(), "--memory", "32M", "--serial",
             "file=" + (directory / "serial").string(), "--serial", "unix=" + socket, "--log", log.string(),
             "--metrics", (directory / "metrics").string(), "--trace-io", (directory / "trace").string()},
            "/dev/null", [limit] {
                const rlimit descriptors{limit, limit};
                ::setrlimit(RLIMIT_NOFILE, &descriptors);
            });
        CHECK((result.exit_code == 1 || result.exit_code == 3 || result.exit_code == 4 ||
               result.exit_code == 10));
        CHECK(line_count(result.errors) == (result.exit_code == 10 ? 0 : 1));
        CHECK(slurp(log).starts_with("earlier\n"));
        CHECK((slurp(kernel) == image));
        CHECK_FALSE(fs::exists(socket));
        ended += result.exit_code == 10 ? 1 : 0;
    }
    CHECK(ended > 0);
}

TEST_CASE("kvm_vmm: only the owner may access the files that it creates", "[program][files]") {
    REQUIRE_KVM();
    const ScratchDirectory directory;
    const fs::path kernel = directory.write("kernel", make_bzimage(reset_code));
    const auto file = [&](const char* name) { return (directory / name).string(); };
    const Result result = run(directory,
                              {"--kernel", kernel.string(), "--memory", "64M", "--serial",
                               "file=" + file("serial"), "--debug-console", "file=" + file("debug"), "--log",
                               file("log"), "--metrics", file("metrics"), "--trace-io", file("trace")},
                              "/dev/null", [] { ::umask(0); });
    CHECK(result.exit_code == 10);
    for (const char* const name : {"serial", "debug", "log", "metrics", "trace"}) {
        INFO(name);
        CHECK((look(directory / name, false)->st_mode & 07777U) == 0600U);
    }
}

TEST_CASE("kvm_vmm: SIGUSR1 writes what the trace has buffered", "[program][files]") {
    REQUIRE_KVM();
    const ScratchDirectory directory;
    // mov al, 0x42; out 0x80, al; mov al, 0xFF; out 0x21, al; out 0xA1, al; sti; hlt; jmp back
    const fs::path kernel = directory.write(
        "kernel",
        make_bzimage({0xB0, 0x42, 0xE6, 0x80, 0xB0, 0xFF, 0xE6, 0x21, 0xE6, 0xA1, 0xFB, 0xF4, 0xEB, 0xFC}));
    const fs::path trace = directory / "trace";
    const fs::path metrics = directory / "metrics";
    Terminal terminal({"--kernel", kernel.string(), "--memory", "64M", "--trace-io", trace.string(),
                       "--metrics", metrics.string()});
    terminal.wait_until_raw();
    ::usleep(300'000);
    CHECK(line_count(slurp(trace)) == 1);
    const std::string at_start = slurp(metrics);
    terminal.send(SIGUSR1);
    for (int i = 0; i < 500 && slurp(metrics) == at_start; ++i) {
        ::usleep(10'000);
    }
    CHECK_THAT(slurp(trace), Catch::Matchers::Contains("pio w 0x0080 1 0x42"));
    CHECK(slurp(trace).back() == '\n');
    CHECK(slurp(metrics) != at_start);
    CHECK_FALSE(terminal.ended());
    terminal.type("\x01x");
    CHECK(terminal.wait() == 0);
}
