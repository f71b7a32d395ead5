# SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
"""Tests of scripts/extract-vmlinux on images made here. The script's path is the first argument."""
import bz2
import gzip
import lzma
import pathlib
import shutil
import struct
import subprocess
import sys
import tempfile
import unittest

SCRIPT = sys.argv.pop(1)
VMLINUX = b"\x7fELF" + bytes(range(256)) * 40


def bzimage(payload, version=0x020F, setup_sects=1, payload_offset=0x2CC):
    """A bzImage whose compressed kernel is `payload`."""
    image = bytearray((setup_sects + 1) * 512 + payload_offset)
    image[0x1F1] = setup_sects
    image[0x1FE:0x200] = b"\x55\xaa"
    image[0x202:0x206] = b"HdrS"
    struct.pack_into("<H", image, 0x206, version)
    struct.pack_into("<II", image, 0x248, payload_offset, len(payload))
    return bytes(image) + payload + b"what follows the payload"


def with_size(compressed):
    """As the kernel's build does for formats that do not keep the size."""
    return compressed + struct.pack("<I", len(VMLINUX))


def piped(*command):
    return subprocess.run(command, input=VMLINUX, stdout=subprocess.PIPE, check=True).stdout


class ExtractVmlinux(unittest.TestCase):
    def setUp(self):
        directory = tempfile.TemporaryDirectory()
        self.addCleanup(directory.cleanup)
        self.image = pathlib.Path(directory.name) / "bzImage"
        self.target = pathlib.Path(directory.name) / "vmlinux"

    def run_script(self, image):
        self.image.write_bytes(image)
        return subprocess.run([sys.executable, SCRIPT, self.image, self.target], capture_output=True, text=True,
                              check=False)

    def assert_extracted(self, payload, **layout):
        result = self.run_script(bzimage(payload, **layout))
        self.assertEqual((result.returncode, result.stderr), (0, ""))
        self.assertEqual(self.target.read_bytes(), VMLINUX)

    def assert_refused(self, image, reason):
        result = self.run_script(image)
        self.assertEqual(result.returncode, 1)
        self.assertIn(reason, result.stderr)
        self.assertEqual(result.stderr.count("\n"), 1, result.stderr)
        self.assertFalse(self.target.exists())

    def test_formats_of_the_standard_library(self):
        self.assert_extracted(gzip.compress(VMLINUX))
        self.assert_extracted(with_size(bz2.compress(VMLINUX)))
        self.assert_extracted(with_size(lzma.compress(VMLINUX)))
        self.assert_extracted(with_size(lzma.compress(VMLINUX, lzma.FORMAT_ALONE)))
        self.assert_extracted(VMLINUX)

    @unittest.skipUnless(shutil.which("lz4"), "lz4 is not installed")
    def test_lz4(self):
        self.assert_extracted(with_size(piped("lz4", "-l", "-c")))

    @unittest.skipUnless(shutil.which("zstd"), "zstd is not installed")
    def test_zstd(self):
        self.assert_extracted(with_size(piped("zstd", "-q", "-c")))

    def test_other_layouts(self):
        self.assert_extracted(gzip.compress(VMLINUX), setup_sects=39, payload_offset=0)

    def test_what_cannot_be_extracted_is_refused_in_one_line(self):
        good = bzimage(gzip.compress(VMLINUX))
        self.assert_refused(b"", "not a bzImage")
        self.assert_refused(b"#!/bin/sh\n" * 100, "not a bzImage")
        self.assert_refused(bzimage(gzip.compress(VMLINUX), version=0x0207), "boot protocol 2.07")
        self.assert_refused(good[:1800], "truncated")
        self.assert_refused(bzimage(b"no magic at all"), "unknown compression")
        self.assert_refused(bzimage(gzip.compress(b"not a kernel")), "not an ELF file")
        self.assert_refused(bzimage(gzip.compress(VMLINUX)[:60]), "extract-vmlinux:")
        self.assert_refused(bzimage(with_size(lzma.compress(VMLINUX)[:60])), "extract-vmlinux:")

    def test_wrong_usage(self):
        result = subprocess.run([sys.executable, SCRIPT], capture_output=True, text=True, check=False)
        self.assertEqual(result.returncode, 2)
        self.assertIn("usage:", result.stderr)


if __name__ == "__main__":
    unittest.main()
