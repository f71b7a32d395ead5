#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
"""The packages in packaging/: the port of vcpkg and the recipe of Conan are run, with the few functions of those tools
that they call, and the results are used. Where the tool itself is installed, it is run as well."""

import json
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
PORT = ROOT / "packaging/vcpkg/ports/vmsuperio"
RECIPE = ROOT / "packaging/conan"


def run(*command, **options):
    return subprocess.run([str(word) for word in command], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
                          check=False, **options)


class PortsTest(unittest.TestCase):
    def setUp(self):
        self.scratch = Path(tempfile.mkdtemp(prefix="vmsuperio-ports-"))
        self.addCleanup(shutil.rmtree, self.scratch)

    def succeed(self, *command, **options):
        result = run(*command, **options)
        self.assertEqual(result.returncode, 0, result.stdout)
        return result.stdout

    def consume(self, *arguments):
        """Builds the program of Conan's test package, which asks for the package without saying how."""
        build = self.scratch / "consumer"
        self.succeed("cmake", "-S", RECIPE / "test_package", "-B", build, "-G", "Ninja",
                     f"-DCMAKE_CXX_COMPILER={COMPILER}", *arguments)
        self.succeed("cmake", "--build", build)
        self.succeed(build / "consumer")

    def test_vcpkg_manifest(self):
        manifest = json.loads((PORT / "vcpkg.json").read_text())
        # The members that vcpkg knows and needs (docs/vcpkg.schema.json of vcpkg-tool).
        self.assertLessEqual(set(manifest), {"$schema", "name", "version", "description", "homepage", "license",
                                             "supports", "dependencies", "features", "port-version"})
        self.assertEqual(manifest["name"], PORT.name)
        self.assertRegex(manifest["version"], r"^\d+\.\d+\.\d+$")
        self.assertEqual(manifest["license"], "Apache-2.0 OR BSD-3-Clause")
        helpers = {dependency["name"] for dependency in manifest["dependencies"]}
        called = (PORT / "portfile.cmake").read_text()
        self.assertEqual("vcpkg-cmake" in helpers, "vcpkg_cmake_configure" in called)
        self.assertEqual("vcpkg-cmake-config" in helpers, "vcpkg_cmake_config_fixup" in called)

    def test_vcpkg_port(self):
        packages = self.scratch / "packages" / "vmsuperio_x64-linux"
        self.succeed("cmake", f"-DPORT_DIR={PORT}", f"-DPACKAGES_DIR={packages}", f"-DBUILD_DIR={self.scratch / 'build'}",
                     f"-DCOMPILER={COMPILER}", "-P", HERE / "vcpkg" / "run_port.cmake")
        share = packages / "share" / "vmsuperio"
        for name in ("vmsuperioConfig.cmake", "vmsuperioConfigVersion.cmake", "copyright", "usage",
                     "fuzz/fuzz_any_device.hpp"):
            self.assertTrue((share / name).is_file(), name)
        # What vcpkg's checks after the build refuse.
        for name in ("debug", "share/doc", "lib/cmake", "cmake", "share/cmake"):
            self.assertFalse((packages / name).exists(), name)
        self.assertIn("Apache License", (share / "copyright").read_text())
        self.assertIn("BSD 3-Clause", (share / "copyright").read_text())
        self.consume(f"-Dvmsuperio_DIR={share}")
        fuzzer = self.scratch / "fuzzer"
        self.succeed("cmake", "-S", HERE / "fuzzer", "-B", fuzzer, "-G", "Ninja", f"-DCMAKE_CXX_COMPILER={COMPILER}",
                     f"-Dvmsuperio_DIR={share}")

    def test_conan_recipe(self):
        package = self.scratch / "package"
        environment = dict(os.environ, PYTHONPATH=str(HERE / "conan_tools"))
        output = self.succeed(sys.executable, "-B", HERE / "conan_tools" / "run_recipe.py", RECIPE / "conanfile.py",
                              self.scratch / "conan", package, COMPILER, env=environment)
        recipe = json.loads(output.splitlines()[-1])
        version = json.loads((PORT / "vcpkg.json").read_text())["version"]
        self.assertEqual((recipe["name"], recipe["version"]), ("vmsuperio", version))
        self.assertEqual(recipe["targets"], {"vmsuperio": "vmsuperio::vmsuperio", "vmdevice": "vmsuperio::vmdevice"})
        self.assertEqual(recipe["libdirs"], [])
        self.assertTrue((package / "licenses" / "LICENSE-APACHE").is_file())
        # The package holds every header, and the exported sources no more than they need.
        installed = {path.relative_to(package / "include") for path in (package / "include").rglob("*.hpp")}
        self.assertEqual(installed, {path.relative_to(ROOT / "include") for path in (ROOT / "include").rglob("*.hpp")})
        self.assertFalse((self.scratch / "conan" / "export_source" / "tests").exists())
        self.consume(f"-DCMAKE_PREFIX_PATH={package}")
        compile((RECIPE / "test_package/conanfile.py").read_text(), "conanfile.py", "exec")

    @unittest.skipUnless(shutil.which("conan"), "there is no conan")
    def test_conan_itself(self):
        environment = dict(os.environ, CONAN_HOME=str(self.scratch / "home"), CXX=COMPILER)
        self.succeed("conan", "profile", "detect", env=environment)
        self.succeed("conan", "create", RECIPE, "-s", "compiler.cppstd=23", "--build=missing", env=environment)


if __name__ == "__main__":
    sys.exit(unittest.main(verbosity=2))
