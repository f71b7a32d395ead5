# SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
import subprocess


def cmake_layout(recipe):
    recipe.source_folder = recipe.export_sources_folder
    recipe.build_folder = recipe.export_sources_folder + "-build"


class CMakeToolchain:
    def __init__(self, recipe):
        self.recipe, self.cache_variables = recipe, {}

    def generate(self):
        self.recipe.cmake_arguments = [f"-D{name}={'ON' if value is True else 'OFF' if value is False else value}"
                                       for name, value in self.cache_variables.items()]


class CMake:
    def __init__(self, recipe):
        self.recipe = recipe

    def configure(self):
        subprocess.run(["cmake", "-S", self.recipe.source_folder, "-B", self.recipe.build_folder, "-G", "Ninja",
                        f"-DCMAKE_CXX_COMPILER={self.recipe.compiler}", *self.recipe.cmake_arguments], check=True)

    def install(self):
        subprocess.run(["cmake", "--install", self.recipe.build_folder, "--prefix", self.recipe.package_folder], check=True)
