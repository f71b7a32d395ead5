#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
"""Installs the libraries and uses them as other projects do: find_package, pkg-config, add_subdirectory, FetchContent,
the single headers, the Common Package Specification; and in the surroundings in which that must work."""

import json
import os
import re
import shutil
import stat
import subprocess
import sys
import tarfile
import tempfile
import unittest
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent
COMPILER = os.environ["CXX"]
BUILD = Path(os.environ["VMSUPERIO_BUILD_DIR"])


def run(*command, **options):
    return subprocess.run(
        [str(word) for word in command], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, **options
    )


def copy_sources(destination):
    """The files of the repository, without what was built in it."""
    shutil.copytree(ROOT, destination, ignore=shutil.ignore_patterns(".git", "build", "build-*", "__pycache__"))


def modification_times(folder):
    return {path: path.lstat().st_mtime_ns for path in folder.rglob("*")}


class PackageTest(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.scratch = Path(tempfile.mkdtemp(prefix="vmsuperio-package-"))
        installed = cls.scratch / "installed here"
        result = run("cmake", "--install", BUILD, "--prefix", installed)
        assert result.returncode == 0, result.stdout
        # Moved: nothing installed may hold the path that it was installed to.
        cls.prefix = cls.scratch / "moved there"
        installed.rename(cls.prefix)
        # Another user must be able to read what is not written by that user.
        cls.scratch.chmod(0o755)
        cls.sources = cls.scratch / "vmsuperio sources"
        copy_sources(cls.sources)

    @classmethod
    def tearDownClass(cls):
        shutil.rmtree(cls.scratch)

    def configure(self, source, components, version="0.2", prefix=None):
        build = Path(tempfile.mkdtemp(dir=self.scratch))
        result = run(
            "cmake", "-S", HERE / "consumer", "-B", build, "-G", "Ninja", f"-DCMAKE_CXX_COMPILER={COMPILER}",
            f"-DCMAKE_PREFIX_PATH={prefix or self.prefix}", f"-DVERSION={version}",
            f"-DCOMPONENTS={';'.join(components)}", f"-DSOURCE={source}",
        )
        return build, result

    def build_and_run(self, build, name="consumer"):
        result = run("cmake", "--build", build)
        self.assertEqual(result.returncode, 0, result.stdout)
        return run(build / name)

    def use(self, source, components):
        build, result = self.configure(source, components)
        self.assertEqual(result.returncode, 0, result.stdout)
        result = self.build_and_run(build)
        self.assertEqual(result.returncode, 0, result.stdout)
        return result.stdout

    def test_both_libraries(self):
        self.assertEqual(self.use("both.cpp", ["vmsuperio", "vmdevice"]), "ok")

    def test_each_library_alone(self):
        for name in ("vmsuperio", "vmdevice"):
            with self.subTest(name):
                self.use(f"{name}.cpp", [name])

    def test_each_library_without_the_other_on_disk(self):
        for name, other in (("vmsuperio", "vmdevice"), ("vmdevice", "vmsuperio")):
            with self.subTest(name):
                prefix = self.scratch / f"only {name}"
                shutil.copytree(self.prefix, prefix)
                shutil.rmtree(prefix / "include" / other)
                build, result = self.configure(f"{name}.cpp", [name], prefix=prefix)
                self.assertEqual(result.returncode, 0, result.stdout)
                self.assertEqual(self.build_and_run(build).returncode, 0)

    def test_an_unknown_component_is_refused_by_name(self):
        _, result = self.configure("both.cpp", ["vmsuperio", "vmfrobnicator"])
        self.assertNotEqual(result.returncode, 0)
        self.assertIn("vmfrobnicator", result.stdout)

    def test_only_a_compatible_version_is_found(self):
        for version, found in (("0.2", True), ("0.2.0", True), ("0.1", True), ("0.1.0", True), ("0.0", False),
                               ("0.2.1", False), ("0.3", False), ("1.0", False), ("0.2...<0.3", True),
                               ("0.1...0.2.0", True), ("0.1...<0.2", False), ("0.3...0.9", False)):
            with self.subTest(version):
                _, result = self.configure("both.cpp", ["vmsuperio", "vmdevice"], version)
                self.assertEqual(result.returncode == 0, found, result.stdout)

    def test_without_components_both_libraries_are_found(self):
        build = self.scratch / "no components"
        (build / "source").mkdir(parents=True)
        shutil.copy(HERE / "consumer" / "both.cpp", build / "source")
        (build / "source" / "CMakeLists.txt").write_text(
            "cmake_minimum_required(VERSION 3.25)\nproject(my_vmm LANGUAGES CXX)\n"
            "find_package(vmsuperio CONFIG REQUIRED)\nadd_executable(consumer both.cpp)\n"
            "target_link_libraries(consumer PRIVATE vmsuperio::vmsuperio vmsuperio::vmdevice)\n")
        self.configure_project(build / "source", build, f"-DCMAKE_PREFIX_PATH={self.prefix}")
        self.assertEqual(self.build_and_run(build).stdout, "ok")

    def configure_project(self, source, build, *arguments, **options):
        result = run("cmake", "-S", source, "-B", build, "-G", "Ninja", f"-DCMAKE_CXX_COMPILER={COMPILER}", *arguments,
                     **options)
        self.assertEqual(result.returncode, 0, result.stdout)
        return result.stdout

    def compile(self, program, *words):
        result = run(COMPILER, "-std=c++23", "-Wall", "-Wextra", "-Werror", *words, "-o", program)
        self.assertEqual(result.returncode, 0, result.stdout)
        return run(program)

    def test_common_package_specification(self):
        path = self.prefix / "share" / "cps" / "vmsuperio.cps"
        package = json.loads(path.read_text())
        self.assertEqual(package["version"], "0.2.0")
        # The folder of this file says where the prefix is.
        self.assertTrue(package["cps_path"].startswith("@prefix@/"))
        prefix = str(path.parent).removesuffix(package["cps_path"].removeprefix("@prefix@"))
        self.assertEqual(prefix, str(self.prefix))
        for name in ("vmsuperio", "vmdevice"):
            with self.subTest(name):
                component = package["components"][name]
                self.assertEqual(component["type"], "interface")
                self.assertEqual(component["compile_features"], ["c++23"])
                includes = ["-I" + folder.replace("@prefix@", prefix) for folder in component["includes"]]
                result = self.compile(self.scratch / f"cps_{name}", *includes, HERE / "consumer" / f"{name}.cpp")
                self.assertEqual(result.returncode, 0)
        self.assertEqual(set(package["default_components"]), set(package["components"]))

    def test_fetch_content(self):
        archive = self.scratch / "vmsuperio-0.2.0.tar.gz"
        with tarfile.open(archive, "w:gz", compresslevel=1) as tar:
            tar.add(self.sources, "vmsuperio-0.2.0")
        ways = {
            "archive": [f"-DARCHIVE={archive}"],
            "local copy": ["-DARCHIVE=http://127.0.0.1:1/none.tar.gz",
                           f"-DFETCHCONTENT_SOURCE_DIR_VMSUPERIO={self.sources}", "-DFETCHCONTENT_FULLY_DISCONNECTED=ON"],
        }
        for name, arguments in ways.items():
            with self.subTest(name):
                build = self.scratch / f"fetched {name}"
                self.configure_project(HERE / "fetched", build, *arguments)
                self.assertEqual(self.build_and_run(build).stdout, "ok")

    def test_single_headers(self):
        # Nothing but the two files is there.
        folder = self.scratch / "two files"
        folder.mkdir()
        for name in ("vmsuperio.hpp", "vmdevice.hpp"):
            shutil.copy(self.prefix / "share" / "vmsuperio" / "single_include" / name, folder)
            self.assertNotIn(" <vmsuperio/linux", (folder / name).read_text())
        result = self.compile(folder / "program", "-Wundef", "-Wconversion", f"-I{folder}", HERE / "consumer" / "single.cpp")
        self.assertEqual((result.returncode, result.stdout), (0, "ok"))

    @unittest.skipUnless(shutil.which("clang++-19"), "there is no Clang 19")
    def test_modules(self):
        clang = ["clang++-19", "-std=c++23", "-Wall", "-Wextra", "-Werror", f"-I{self.prefix}/include"]
        objects, modules = [], []
        for name in ("vmdevice", "vmsuperio"):
            compiled, built = self.scratch / f"{name}.pcm", self.scratch / f"{name}_module.o"
            source = self.prefix / "share" / "vmsuperio" / "modules" / f"{name}.cppm"
            for words in ([clang, "--precompile", source, "-o", compiled], [clang[:2], "-c", compiled, "-o", built]):
                result = run(*words[0], *words[1:])
                self.assertEqual((result.returncode, result.stdout), (0, ""))
            objects.append(built)
            modules.append(f"-fmodule-file={name}={compiled}")
        program = self.scratch / "module_program"
        result = run(*clang, *modules, HERE / "consumer" / "module.cpp", *objects, "-o", program)
        self.assertEqual((result.returncode, result.stdout), (0, ""))
        result = run(program)
        self.assertEqual((result.returncode, result.stdout), (0, "ok"))

    def test_without_exceptions_and_type_information(self):
        for folder in ("include", "share/vmsuperio/single_include"):
            source = "single.cpp" if "single" in folder else "both.cpp"
            with self.subTest(folder):
                result = self.compile(self.scratch / "plain", "-fno-exceptions", "-fno-rtti", f"-I{self.prefix / folder}",
                                      HERE / "consumer" / source)
                self.assertEqual((result.returncode, result.stdout), (0, "ok"))

    def test_two_source_files(self):
        result = self.compile(self.scratch / "units", f"-I{self.prefix}/include", HERE / "consumer" / "unit_one.cpp",
                              HERE / "consumer" / "unit_two.cpp")
        self.assertEqual(result.returncode, 0)

    def test_two_versions_in_one_program(self):
        def old(namespace):
            """An object file compiled with other headers, in which two texts differ."""
            include = self.scratch / f"old {namespace}"
            shutil.copytree(self.prefix / "include", include)
            for path in include.rglob("*.hpp"):
                text = path.read_text().replace("inline v0_2", f"inline {namespace}")
                path.write_text(text.replace('"no device at', '"old: none at').replace('"the receive FIFO', '"the old FIFO'))
            built = self.scratch / f"{namespace}.o"
            result = run(COMPILER, "-std=c++23", "-O0", "-c", f"-I{include}", HERE / "consumer" / "version_old.cpp", "-o", built)
            self.assertEqual(result.returncode, 0, result.stdout)
            return built

        words = ["-O0", f"-I{self.prefix}/include", HERE / "consumer" / "version_new.cpp"]
        self.assertEqual(self.compile(self.scratch / "versions", *words, old("v0_1")).returncode, 0)
        # The test can fail: the same, if both had one namespace.
        self.assertNotEqual(self.compile(self.scratch / "confused", *words, old("v0_2")).returncode, 0)

    def test_every_header_is_in_the_namespace_of_the_version(self):
        for path in (ROOT / "include").rglob("*.hpp"):
            text = path.read_text()
            for name in re.findall(r"^namespace (?:vmsuperio|vmdevice)\b.*$", text, re.MULTILINE):
                self.assertRegex(name, r"^namespace (vmsuperio|vmdevice)::inline v0_2(::\w+)? {$", str(path))

    def test_destdir(self):
        stage = self.scratch / "stage dir"
        result = run("cmake", "--install", BUILD, "--prefix", "/opt/some where", env=dict(os.environ, DESTDIR=str(stage)))
        self.assertEqual(result.returncode, 0, result.stdout)
        build, result = self.configure("both.cpp", ["vmsuperio", "vmdevice"], prefix=stage / "opt" / "some where")
        self.assertEqual(result.returncode, 0, result.stdout)
        self.assertEqual(self.build_and_run(build).stdout, "ok")
        # Nothing that was installed holds a path of this computer.
        for path in stage.rglob("*"):
            if path.is_file():
                self.assertNotIn(str(BUILD), path.read_text(), str(path))
                self.assertNotIn("some where", path.read_text(), str(path))

    def test_a_read_only_source_tree_and_an_ordinary_user(self):
        sources = self.scratch / "read only"
        shutil.copytree(self.sources, sources)
        for path in [sources, *sources.rglob("*")]:
            path.chmod(path.stat().st_mode & ~(stat.S_IWUSR | stat.S_IWGRP | stat.S_IWOTH) | stat.S_IRUSR | stat.S_IRGRP | stat.S_IROTH)
        before = modification_times(sources)
        home = self.scratch / "home of a user"
        home.mkdir()
        # Root may write everywhere; nobody may not.
        options = {"env": dict(os.environ, HOME=str(home), CCACHE_DISABLE="1")}
        if os.getuid() == 0:
            os.chown(home, 65534, 65534)
            options |= {"user": 65534, "group": 65534, "extra_groups": []}
        build = home / "build"
        self.configure_project(sources, build, "-DVMSUPERIO_BUILD_TESTS=OFF", "-DVMSUPERIO_BUILD_EXAMPLES=OFF", **options)
        for command in (["--build", build], ["--install", build, "--prefix", home / "local"]):
            result = run("cmake", *command, **options)
            self.assertEqual(result.returncode, 0, result.stdout)
        self.assertTrue((home / "local/include/vmsuperio/serial.hpp").is_file())
        self.assertEqual(modification_times(sources), before)

    def test_a_project_with_its_own_standard_and_warnings(self):
        build = self.scratch / "strict"
        sources = ";".join(str(HERE / "consumer" / name) for name in ("unit_one.cpp", "unit_two.cpp"))
        self.configure_project(HERE / "strict", build, f"-DLIBRARY_DIR={self.sources}", f"-DSOURCES={sources}")
        self.assertEqual(self.build_and_run(build).returncode, 0)

    def test_an_installed_and_a_vendored_copy(self):
        for first in ("package", "copy"):
            with self.subTest(first):
                build = self.scratch / f"twice {first}"
                self.configure_project(HERE / "twice", build, f"-DFIRST={first}", f"-DLIBRARY_DIR={self.sources}",
                                       f"-DCMAKE_PREFIX_PATH={self.prefix}")
                self.assertEqual(self.build_and_run(build).stdout, "ok")
                # All of it comes from the copy that came first.
                commands = run("ninja", "-C", build, "-t", "commands").stdout
                used, unused = (self.prefix, self.sources) if first == "package" else (self.sources, self.prefix)
                self.assertIn(str(used).replace(" ", "\\ ") if str(used) not in commands else str(used), commands)
                self.assertNotIn(unused.name, commands)

    def test_an_old_cmake(self):
        # What the package's files see there.
        for version, works in (("3.19.8", False), ("3.20.0", True)):
            with self.subTest(version):
                build = self.scratch / f"cmake {version}"
                build.mkdir()
                old = build / "old.cmake"
                old.write_text(f"set(CMAKE_VERSION {version})\n")
                result = run("cmake", "-S", HERE / "consumer", "-B", build / "build", "-G", "Ninja",
                             f"-DCMAKE_CXX_COMPILER={COMPILER}", f"-DCMAKE_PREFIX_PATH={self.prefix}", "-DVERSION=0.2",
                             f"-DCMAKE_PROJECT_INCLUDE={old}", "-DCOMPONENTS=vmsuperio;vmdevice", "-DSOURCE=both.cpp")
                if works:
                    self.assertEqual(result.returncode, 0, result.stdout)
                    self.assertEqual(self.build_and_run(build / "build").stdout, "ok")
                else:
                    self.assertNotEqual(result.returncode, 0)
                    text = " ".join(result.stdout.split())
                    self.assertIn("vmsuperio needs CMake 3.20 or newer, which knows C++23; this is 3.19.8.", text)
                    self.assertEqual(text.count("CMake Error"), 1, result.stdout)
        # In the tree of a project, and to build or install: CMake itself says so.
        for path in ("CMakeLists.txt", "packaging/conan/test_package/CMakeLists.txt"):
            self.assertIn("cmake_minimum_required(VERSION 3.25)", (ROOT / path).read_text().splitlines()[1])

    def test_an_old_standard_library_is_refused_in_one_line(self):
        # That of GCC 11: C++23, but no <expected>.
        old = self.scratch / "old library"
        old.mkdir()
        (old / "version").write_text("")
        (old / "expected").write_text("#error there is no <expected>\n")
        for path in sorted((self.prefix / "include").rglob("*.hpp")):
            if "#include <expected>" not in path.read_text() or path.name.endswith("json.hpp"):
                continue
            header = path.relative_to(self.prefix / "include")
            with self.subTest(header):
                result = run(COMPILER, "-std=c++23", "-fsyntax-only", "-isystem", old, f"-I{self.prefix}/include", "-x", "c++",
                             "-", input=f"#include <{header}>\n")
                errors = [line for line in result.stdout.splitlines() if "error:" in line]
                self.assertEqual(len(errors), 2, result.stdout)
                self.assertRegex(errors[0], r"needs std::expected: use GCC 12 or later, or Clang 19 or later with libstdc\+\+ 12")

    def test_an_old_standard_is_refused_in_one_line(self):
        for folder, header in (("include", "vmsuperio/vmsuperio.hpp"), ("include", "vmdevice/bus.hpp"),
                               ("share/vmsuperio/single_include", "vmdevice.hpp")):
            with self.subTest(header):
                result = run(COMPILER, "-std=c++20", "-fsyntax-only", f"-I{self.prefix / folder}", "-x", "c++", "-",
                             input=f"#include <{header}>\n")
                self.assertNotEqual(result.returncode, 0)
                errors = [line for line in result.stdout.splitlines() if "error:" in line]
                self.assertEqual(len(errors), 2, result.stdout)  # the message, and the end of the compilation
                self.assertIn("needs C++23: compile with -std=c++23 (GCC 12 or later, Clang 19 or later)", errors[0])

    def test_pkg_config(self):
        environment = dict(os.environ, PKG_CONFIG_PATH=str(self.prefix / "share" / "pkgconfig"))
        for module in ("vmsuperio", "vmdevice"):
            with self.subTest(module):
                result = run("pkg-config", "--modversion", module, env=environment)
                self.assertEqual(result.stdout.strip(), "0.2.0")
                flags = run("pkg-config", "--cflags", module, env=environment).stdout.strip()
                program = self.scratch / f"{module}_program"
                result = subprocess.run(
                    f"{COMPILER} -std=c++23 {flags} '{HERE}/consumer/{module}.cpp' -o '{program}'",
                    shell=True, capture_output=True, text=True, check=False,
                )
                self.assertEqual(result.returncode, 0, result.stderr)
                self.assertEqual(run(program).returncode, 0)

    def test_a_fuzz_target_of_another_project(self):
        build = self.scratch / "fuzzer"
        result = run(
            "cmake", "-S", HERE / "fuzzer", "-B", build, "-G", "Ninja", f"-DCMAKE_CXX_COMPILER={COMPILER}",
            f"-DCMAKE_PREFIX_PATH={self.prefix}",
        )
        self.assertEqual(result.returncode, 0, result.stdout)
        result = run("cmake", "--build", build)
        self.assertEqual(result.returncode, 0, result.stdout)
        # The planted fault is found, and the sequence that leads there is printed.
        result = run(build / "fuzz_my_device", "-runs=100000", "-seed=1", cwd=build)
        self.assertNotEqual(result.returncode, 0, result.stdout)
        self.assertIn("does not hold: register 3 is never 7", result.stdout)
        self.assertRegex(result.stdout, r"\(void\)io\.pio_write\w*\(\{0x20[0-3]\}, .*0x07")

    def test_as_a_subproject_it_builds_nothing_of_its_own(self):
        build = self.scratch / "subproject"
        result = run(
            "cmake", "-S", HERE / "subproject", "-B", build, "-G", "Ninja", f"-DCMAKE_CXX_COMPILER={COMPILER}",
            f"-DLIBRARY_DIR={ROOT}",
        )
        self.assertEqual(result.returncode, 0, result.stdout)
        self.assertEqual(self.build_and_run(build).stdout, "ok")

    def test_every_public_header_is_installed_and_no_other(self):
        include = self.prefix / "include"
        installed = {str(path.relative_to(include)) for path in include.rglob("*") if path.is_file()}
        public = {str(path.relative_to(ROOT / "include")) for path in (ROOT / "include").rglob("*.hpp")}
        self.assertEqual(installed, public)


if __name__ == "__main__":
    sys.exit(unittest.main(verbosity=2))
