#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
"""Installs the libraries and uses them as other projects do: find_package, pkg-config, add_subdirectory."""

import os
import shutil
import subprocess
import sys
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

    @classmethod
    def tearDownClass(cls):
        shutil.rmtree(cls.scratch)

    def configure(self, source, components, version="0.1", prefix=None):
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
        for version, found in (("0.1", True), ("0.1.0", True), ("0.1.1", False), ("0.2", False), ("0.0", False),
                               ("1.0", False)):
            with self.subTest(version):
                _, result = self.configure("both.cpp", ["vmsuperio", "vmdevice"], version)
                self.assertEqual(result.returncode == 0, found, result.stdout)

    def test_pkg_config(self):
        environment = dict(os.environ, PKG_CONFIG_PATH=str(self.prefix / "share" / "pkgconfig"))
        for module in ("vmsuperio", "vmdevice"):
            with self.subTest(module):
                result = run("pkg-config", "--modversion", module, env=environment)
                self.assertEqual(result.stdout.strip(), "0.1.0")
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
