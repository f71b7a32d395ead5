# SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
# Conan 2: conan create packaging/conan
import os
import re

from conan import ConanFile
from conan.tools.build import check_min_cppstd
from conan.tools.cmake import CMake, CMakeToolchain, cmake_layout
from conan.tools.files import copy, load

required_conan_version = ">=2.0"


class VmsuperioConan(ConanFile):
    name = "vmsuperio"
    description = "Emulated legacy devices and device buses for virtual machine monitors (header-only, C++23)"
    license = "Apache-2.0 OR BSD-3-Clause"
    topics = ("virtualization", "kvm", "vmm", "emulation", "header-only")
    package_type = "header-library"
    settings = "os", "arch", "compiler", "build_type"
    no_copy_source = True

    @property
    def _root(self):
        return os.path.join(self.recipe_folder, "..", "..")

    def set_version(self):
        text = load(self, os.path.join(self._root, "CMakeLists.txt"))
        self.version = re.search(r"^  VERSION (\d+\.\d+\.\d+)$", text, re.MULTILINE)[1]

    def export_sources(self):
        for pattern in ("CMakeLists.txt", "LICENSE-*", "cmake/*", "include/*", "single_include/*", "modules/*", "fuzz/*.hpp",
                        "fuzz/support/*"):
            copy(self, pattern, src=self._root, dst=self.export_sources_folder)

    def layout(self):
        cmake_layout(self)

    def validate(self):
        if self.settings.get_safe("compiler.cppstd"):
            check_min_cppstd(self, 23)

    def generate(self):
        toolchain = CMakeToolchain(self)
        for part in ("TESTS", "BENCH", "FUZZ", "EXAMPLES"):
            toolchain.cache_variables[f"VMSUPERIO_BUILD_{part}"] = False
        toolchain.cache_variables["VMSUPERIO_INSTALL"] = True
        toolchain.generate()

    def build(self):
        CMake(self).configure()

    def package(self):
        CMake(self).install()
        copy(self, "LICENSE-*", src=self.source_folder, dst=os.path.join(self.package_folder, "licenses"))

    def package_id(self):
        self.info.clear()

    def package_info(self):
        self.cpp_info.set_property("cmake_file_name", "vmsuperio")
        for library in ("vmsuperio", "vmdevice"):
            component = self.cpp_info.components[library]
            component.set_property("cmake_target_name", f"vmsuperio::{library}")
            component.set_property("pkg_config_name", library)
            component.bindirs = []
            component.libdirs = []
