#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
"""The folders of kvm_vmm are in layers: a file includes files of its own folder and of lower ones only."""

import pathlib
import re
import sys
import unittest

# From the lowest layer to the highest.
LAYERS = ["util", "sandbox", "event", "memory", "machine", "acpi", "boot", "kvm", "arch/x86_64", "console", "observe",
          "virtio", "devices", "vmm", "."]
SOURCES = pathlib.Path(sys.argv.pop(1) if len(sys.argv) > 1 else "examples/kvm_vmm/src")


def folder_of(path):
    return str(path.parent)


def includes():
    for file in sorted(SOURCES.rglob("*.?pp")):
        for included in re.findall(r'^#include "([^"]+)"', file.read_text(encoding="utf-8"), re.MULTILINE):
            yield file.relative_to(SOURCES), pathlib.PurePosixPath(included)


class LayersTest(unittest.TestCase):
    def test_each_folder_is_in_a_layer(self):
        self.assertEqual({folder_of(file) for file, _ in includes()}, set(LAYERS))

    def test_no_include_goes_to_a_higher_layer(self):
        uphill = [f"{file} includes {included}" for file, included in includes()
                  if LAYERS.index(folder_of(included)) > LAYERS.index(folder_of(file))]
        self.assertEqual(uphill, [])

    def test_each_include_names_a_file(self):
        self.assertEqual([str(included) for _, included in includes() if not (SOURCES / included).is_file()], [])


if __name__ == "__main__":
    unittest.main()
