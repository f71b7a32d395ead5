// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
#include "util/output_file.hpp"

#include <array>
#include <fcntl.h>
#include <string>
#include <sys/stat.h>
#include <unistd.h>

#include "scratch_directory.hpp"
#include "util/error.hpp"

using namespace kvm_vmm;
using kvm_vmm::test::ScratchDirectory;
using kvm_vmm::test::slurp;
namespace fs = std::filesystem;
using Catch::Matchers::Contains;
using Content = OutputFile::Content;

namespace {

std::string refusal(const std::string& path) {
    try {
        const OutputFile file("log file", path, Content::discarded);
        return {};
    } catch (const VmmError& error) {
        CHECK(error.code() == ExitCode::bad_file);
        return error.what();
    }
}

void write(const OutputFile& file, const std::string& text) {
    REQUIRE(::write(file.fd(), text.data(), text.size()) == static_cast<ssize_t>(text.size()));
}

mode_t mode_of(const fs::path& path) {
    struct stat status{};
    REQUIRE(::stat(path.c_str(), &status) == 0);
    return status.st_mode & 07777U;
}

}  // namespace

TEST_CASE("OutputFile: the file system is unchanged until keep() is called", "[files]") {
    const ScratchDirectory directory;
    const fs::path path = directory.write("file", "precious");
    {
        OutputFile file("log file", path, Content::discarded);
        CHECK(file.is_regular());
        CHECK_FALSE(file.named_descriptor());
        CHECK(slurp(path) == "precious");
        const OutputFile fresh("log file", directory / "fresh", Content::discarded);
        CHECK(fs::exists(directory / "fresh"));
    }
    CHECK(slurp(path) == "precious");
    CHECK_FALSE(fs::exists(directory / "fresh"));
}

TEST_CASE("OutputFile: a kept file stays, and is truncated on request", "[files]") {
    const ScratchDirectory directory;
    const fs::path path = directory.write("file", "older ");
    {
        OutputFile file("log file", path, Content::kept);
        file.keep();
        write(file, "newer");
    }
    CHECK(slurp(path) == "older newer");
    {
        OutputFile file("log file", path, Content::discarded);
        file.keep();
        CHECK(slurp(path).empty());
        write(file, "a");
        fs::resize_file(path, 0);  // a log that is rotated
        write(file, "b");
    }
    CHECK(slurp(path) == "b");
    {
        OutputFile file("log file", directory / "fresh", Content::discarded);
        OutputFile moved(std::move(file));
        moved.keep();
    }
    CHECK(fs::exists(directory / "fresh"));
}

TEST_CASE("OutputFile: only its owner may access a new file, whatever the umask; an old one keeps its mode",
          "[files]") {
    const ScratchDirectory directory;
    for (const mode_t mask : {0000U, 0022U, 0777U}) {
        const mode_t before = ::umask(mask);
        OutputFile file("log file", directory / "fresh", Content::discarded);
        ::umask(before);
        CHECK(mode_of(directory / "fresh") == 0600);
    }
    const fs::path path = directory.write("file", "");
    fs::permissions(path, fs::perms(0644));
    OutputFile file("log file", path, Content::discarded);
    file.keep();
    CHECK(mode_of(path) == 0644);
}

TEST_CASE("OutputFile: for a dangling link, the target is created, and removed again", "[files]") {
    const ScratchDirectory directory;
    const fs::path link = directory / "link";
    fs::create_symlink("target", link);
    {
        const OutputFile file("log file", link, Content::discarded);
        CHECK(mode_of(directory / "target") == 0600);
    }
    CHECK(fs::is_symlink(link));
    CHECK_FALSE(fs::exists(directory / "target"));
    {
        OutputFile file("log file", link, Content::discarded);
        file.keep();
    }
    CHECK(fs::exists(directory / "target"));
}

TEST_CASE("OutputFile: it removes only a file that it created, and only while that is empty", "[files]") {
    const ScratchDirectory directory;
    const fs::path path = directory / "fresh";
    {
        const OutputFile file("log file", path, Content::discarded);
        std::ofstream(path) << "another program's";
    }
    CHECK(slurp(path) == "another program's");
    {
        const OutputFile file("log file", directory / "b", Content::discarded);
        fs::rename(path, directory / "b");
    }
    CHECK(slurp(directory / "b") == "another program's");
}

TEST_CASE("OutputFile: the error for a path that cannot be written is one line with the path and the reason",
          "[files]") {
    const ScratchDirectory directory;
    const std::string root = (directory / "x").parent_path().string() + "/";
    REQUIRE(::mkfifo((root + "fifo").c_str(), 0600) == 0);
    CHECK_THAT(refusal(root + "fifo"),
               Contains("log file '" + root + "fifo'") && Contains("no program reads"));
    CHECK_THAT(refusal(root), Contains("is a directory"));
    CHECK_THAT(refusal(root + "no/such"), Contains("No such file or directory"));
    CHECK_THAT(refusal(""), Contains("No such file or directory"));
    CHECK_THAT(refusal(root + std::string(256, 'x')), Contains("File name too long"));
    CHECK_THAT(refusal("/proc/self/no\x1B[2Jsuch"), Contains("no\\x1b[2Jsuch"));
    fs::create_symlink("loop", root + "loop");
    CHECK_THAT(refusal(root + "loop"), Contains("symbolic links"));
    if (::mknod((root + "block").c_str(), S_IFBLK | 0600, 0x0700) == 0) {  // needs root
        CHECK_THAT(refusal(root + "block"), Contains("is a block device"));
    }
    CHECK(refusal("/dev/null").empty());
}

TEST_CASE("OutputFile: a path that leads to a descriptor means that descriptor", "[files]") {
    const ScratchDirectory directory;
    const fs::path path = directory.write("file", "kept ");
    const vmsuperio::UniqueFd fd(::open(path.c_str(), O_WRONLY | O_APPEND | O_CLOEXEC));
    const std::string number = std::to_string(fd.get());
    fs::create_symlink("/dev/fd/" + number, directory / "link");
    for (const std::string& name :
         {"/dev/fd/" + number, "/proc/self/fd/" + number, (directory / "link").string(),
          "/proc/" + std::to_string(::getpid()) + "/fd/" + number}) {
        INFO(name);
        CHECK(named_descriptor(name) == fd.get());
        OutputFile file("log file", name, Content::discarded);
        CHECK(file.named_descriptor() == fd.get());
        file.keep();
        write(file, "x");
    }
    CHECK(slurp(path) == "kept xxxx");
    const vmsuperio::UniqueFd read_only(::open(path.c_str(), O_RDONLY | O_CLOEXEC));
    CHECK_THAT(refusal("/dev/fd/" + std::to_string(read_only.get())), Contains("not open for writing"));
    for (const std::string& name :
         {path.string(), std::string("/dev/fd"), std::string("/dev/fd/x"), std::string("/dev/null"),
          "/proc/1/fd/" + number, (directory / number).string()}) {
        CHECK_FALSE(named_descriptor(name));
    }
}

TEST_CASE("OutputFile: a shared descriptor has one position", "[files]") {
    const ScratchDirectory directory;
    const fs::path path = directory.write("file", "");
    const vmsuperio::UniqueFd fd(::open(path.c_str(), O_WRONLY | O_CLOEXEC));  // does not append
    OutputFile file("log file", path, Content::kept);
    file.share(fd.get());
    for (int i = 0; i < 3; ++i) {
        write(file, "a");
        REQUIRE(::write(fd.get(), "b", 1) == 1);
    }
    CHECK(slurp(path) == "ababab");
}
