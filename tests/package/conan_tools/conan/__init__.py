# SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
"""What a recipe for a package of headers uses of Conan 2, for a computer without it."""


class Component:
    def __init__(self):
        self.properties, self.components = {}, {}
        self.bindirs, self.libdirs = ["bin"], ["lib"]

    def set_property(self, name, value):
        self.properties[name] = value


class Components(dict):
    def __missing__(self, name):
        self[name] = Component()
        return self[name]


class Settings(dict):
    def get_safe(self, name):
        return self.get(name)


class ConanFile:
    def __init__(self):
        self.settings = Settings({"compiler.cppstd": "23"})
        self.cpp_info = Component()
        self.cpp_info.components = Components()
        self.info = Settings()
