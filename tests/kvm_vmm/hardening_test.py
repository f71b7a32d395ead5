#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
"""The program kvm_vmm is built with what compiler, linker and C library offer against attacks.

Usage: hardening_test.py [--static] KVM_VMM [LIBRARY]: the program, which --static says to be one file that needs no
other, and libkvm_vmm_lib.a, whose objects are checked for CET.
"""

import re
import subprocess
import sys
import unittest

STATIC = sys.argv[1] == "--static"
if STATIC:
    del sys.argv[1]
PROGRAM = sys.argv[1]
LIBRARY = sys.argv[2] if len(sys.argv) > 2 else None
del sys.argv[1:]


def readelf(*arguments):
    return subprocess.run(["readelf", "--wide", *arguments], check=True, capture_output=True, text=True).stdout


def symbols():
    """The names of all symbols that the program defines or uses."""
    text = subprocess.run(["nm", PROGRAM], capture_output=True, text=True, check=False).stdout
    text += subprocess.run(["nm", "-D", PROGRAM], capture_output=True, text=True, check=False).stdout
    return {line.split()[-1].split("@")[0] for line in text.splitlines() if line.split()}


class HardeningTest(unittest.TestCase):
    def test_it_can_be_loaded_at_any_address(self):
        self.assertRegex(readelf("--file-header", PROGRAM), r"Type:\s+DYN")
        self.assertRegex(readelf("--dynamic", PROGRAM), r"FLAGS_1.*\bPIE\b")

    def test_only_a_static_program_needs_no_loader_and_no_library(self):
        self.assertNotEqual("INTERP" in readelf("--program-headers", PROGRAM), STATIC)
        self.assertNotEqual("(NEEDED)" in readelf("--dynamic", PROGRAM), STATIC)

    def test_addresses_of_functions_are_read_only_after_the_start(self):
        self.assertIn("GNU_RELRO", readelf("--program-headers", PROGRAM))
        self.assertRegex(readelf("--dynamic", PROGRAM), r"BIND_NOW|FLAGS_1.*\bNOW\b")

    def test_no_memory_is_writable_and_executable(self):
        headers = readelf("--program-headers", PROGRAM)
        segments = re.findall(r"^\s+(LOAD|GNU_STACK)\s+(?:0x[0-9a-f]+\s+){5}([RWE ]{3})", headers, re.MULTILINE)
        self.assertIn("GNU_STACK", [name for name, _ in segments])
        self.assertGreaterEqual(len(segments), 4, headers)
        for name, flags in segments:
            self.assertFalse("W" in flags and "E" in flags, (name, flags))
            self.assertFalse(name == "GNU_STACK" and "E" in flags, flags)

    def test_no_text_relocation(self):
        self.assertNotIn("TEXTREL", readelf("--dynamic", PROGRAM))

    def test_no_library_is_searched_where_others_may_write(self):
        self.assertNotRegex(readelf("--dynamic", PROGRAM), r"\((RPATH|RUNPATH)\)")

    def test_the_stack_is_protected(self):
        self.assertTrue({"__stack_chk_fail", "__stack_chk_fail_local"} & symbols())

    def test_the_c_library_checks_the_sizes_of_buffers(self):
        checked = {name for name in symbols() if re.fullmatch(r"__\w+_chk", name) and "stack_chk" not in name}
        self.assertTrue(checked & {"__read_chk", "__memcpy_chk", "__snprintf_chk", "__poll_chk", "__fdelt_chk",
                                   "__pread64_chk", "__recv_chk", "__ppoll_chk", "__vsnprintf_chk"}, checked)

    @unittest.skipIf(LIBRARY is None, "without libkvm_vmm_lib.a")
    def test_each_object_supports_indirect_branch_tracking_and_shadow_stacks(self):
        notes = readelf("--notes", LIBRARY)
        objects = notes.count("File: ")
        self.assertGreater(objects, 50)
        self.assertEqual(len(re.findall(r"x86 feature: .*\bIBT\b.*\bSHSTK\b", notes)), objects)

    @unittest.skipIf(LIBRARY is None, "without libkvm_vmm_lib.a")
    def test_large_stack_frames_are_touched_page_by_page(self):
        code = subprocess.run(["objdump", "--disassemble", "--no-show-raw-insn", LIBRARY], check=True,
                              capture_output=True, text=True).stdout
        # GCC and Clang: or $0x0,(%rsp), or movq $0x0,(%rsp), after each 4 KiB.
        self.assertRegex(code, r"sub\s+\$0x1000,%rsp\n.*(orq?|movq)\s+\$0x0,(0x\w+)?\(%rsp\)")


if __name__ == "__main__":
    unittest.main()
