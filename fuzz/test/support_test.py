#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
"""Checks what a fuzz target prints when it fails, also into a pipe, and that a printed sequence compiles and passes."""

import os
import pathlib
import subprocess
import sys
import tempfile
import unittest

FUZZ = pathlib.Path(__file__).resolve().parent.parent
ROOT = FUZZ.parent
PROGRAMS = pathlib.Path(os.environ["VMSUPERIO_FUZZ_DIR"])
COMPILER = os.environ["CXX"]
FLAGS = os.environ["VMSUPERIO_FLAGS"].split()
SANITIZED = any(flag.startswith("-fsanitize=address") for flag in FLAGS)

# Targets whose sequences are C++ as they stand.
PASTED = ["bus", "debug_ports", "i8042", "rtc_cmos", "rtc_pl031", "serial"]


def run(*command, **options):
    return subprocess.run([str(word) for word in command], stdin=subprocess.DEVNULL, capture_output=True, text=True,
                          timeout=300, check=False, **options)


class CrashTest(unittest.TestCase):
    def setUp(self):
        scratch = tempfile.TemporaryDirectory()
        self.addCleanup(scratch.cleanup)
        self.scratch = pathlib.Path(scratch.name)

    def crash(self, text, *options):
        path = self.scratch / "input"
        path.write_text(text)
        return run(PROGRAMS / "fuzz_crashing", *options, path, cwd=self.scratch)

    def kinds(self):
        return "nach" if SANITIZED else "nac"

    def test_the_last_line_of_the_sequence_is_the_call_that_failed(self):
        for kind in self.kinds():
            with self.subTest(kind):
                done = self.crash("ww" + kind)
                self.assertNotEqual(done.returncode, 0)
                lines = [line for line in done.stdout.splitlines() if "device." in line]
                value = "0x01);" if kind == "c" else "0);  // did not return"
                self.assertEqual(lines, ["device.write(0, 0x01);"] * 2 + [f"CHECK(device.read('{kind}') == {value}"],
                                 done.stdout + done.stderr)

    def test_replay_prints_the_same_into_a_pipe(self):
        for kind in self.kinds():
            with self.subTest(kind):
                done = self.crash("w" + kind, "--replay")
                self.assertNotEqual(done.returncode, 0)
                self.assertIn(f"device.write(0, 0x01);\nCHECK(device.read('{kind}') == ", done.stdout)
                self.assertEqual(done.stdout.count("device."), 2, done.stdout)

    def test_what_does_not_fail_prints_no_sequence(self):
        done = self.crash("wxw")
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertNotIn("device.", done.stdout)
        done = self.crash("wx", "--replay")
        self.assertEqual((done.returncode, done.stdout),
                         (0, "// 2 bytes\ndevice.write(0, 0x01);\nCHECK(device.read('x') == 0x01);\n"))

    def test_the_end_of_the_program_is_that_of_the_crash(self):
        if not SANITIZED:
            self.assertEqual(self.crash("n").returncode, -11)
            self.assertEqual(self.crash("a").returncode, -6)
            self.assertEqual(self.crash("c").returncode, -6)


class PasteTest(unittest.TestCase):
    def test_sequences_compile_without_warnings_and_pass(self):
        cases = []
        for target in PASTED:
            inputs = sorted((FUZZ / "corpus" / target).iterdir(), key=lambda path: path.stat().st_size)
            for path in inputs[-3:]:
                done = run(PROGRAMS / f"fuzz_{target}", "--replay", path)
                self.assertEqual(done.returncode, 0, done.stderr)
                cases.append(f'TEST_CASE("{target} {path.name}") {{\n{done.stdout}}}\n')
        source = (FUZZ / "test/pasted.cpp.in").read_text().replace("@CASES@", "\n".join(cases))
        with tempfile.TemporaryDirectory() as directory:
            path = pathlib.Path(directory, "pasted.cpp")
            path.write_text(source)
            program = path.with_suffix("")
            done = run(COMPILER, "-std=c++23", "-O0", *FLAGS, "-I", ROOT / "include", "-I", FUZZ, "-I", ROOT / "tests/support",
                       path, "-o", program)
            self.assertEqual(done.returncode, 0, done.stderr[:4000])
            done = run(program)
            self.assertEqual(done.returncode, 0, done.stdout[-4000:] + done.stderr[-2000:])


if __name__ == "__main__":
    sys.exit(unittest.main(verbosity=2))
