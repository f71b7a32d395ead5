#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
"""The extractor finds every block of C++, and what it writes does not compile if a name is misspelt."""
import os
import pathlib
import subprocess
import sys
import tempfile
import textwrap
import unittest

import snippets

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent
SNIPPETS = pathlib.Path(__file__).with_name("snippets.py")

FRAGMENT = """\
    Some text.

    ```cpp
    #include <vmsuperio/serial.hpp>

    struct Device { int value; };
    int twice(int number) { return 2 * number; }
    vmsuperio::Serial uart(vmsuperio::NullTrigger{}, vmsuperio::NullWriter{});  // a device
    uart.write(0, 'x');
    if (uart.receive_fifo_room() == 0x4'0) { uart.reset(); } else { uart.read(twice(1) != 2); }
    const Device device{.value = 1};
    ```
    """
PROGRAM = """\
    ```cpp
    #include <cstdio>

    int main() {
        std::puts("one\\ntwo\\nthree");
    }
    ```
    Text in between.
    ```output
    one
    ...
    three
    ```
    """


class SnippetsTest(unittest.TestCase):
    def setUp(self):
        scratch = tempfile.TemporaryDirectory()
        self.addCleanup(scratch.cleanup)
        self.root = pathlib.Path(scratch.name) / "repository"
        self.out = pathlib.Path(scratch.name) / "sources"
        self.root.mkdir()

    def write(self, text, name="guide.md"):
        path = self.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(textwrap.dedent(text), encoding="utf-8")

    def run_tool(self, *arguments):
        return subprocess.run([sys.executable, "-B", SNIPPETS, *map(str, arguments)], capture_output=True, text=True,
                              check=False)

    def tool(self, command):
        return self.run_tool(command, self.root, self.out)

    def compile(self, source, *options):
        return subprocess.run([os.environ.get("CXX", "c++"), "-std=c++23", f"-I{ROOT / 'include'}", f"-I{self.root}",
                               *options, self.out / source], capture_output=True, text=True, check=False)

    def assert_fault(self, text, message, name="guide.md"):
        self.write(text, name)
        result = self.tool("generate")
        self.assertEqual(result.returncode, 1)
        self.assertIn(message, result.stderr)

    def test_a_fragment_compiles_and_a_misspelt_name_in_it_does_not(self):
        self.write(FRAGMENT)
        self.assertEqual(self.tool("generate").returncode, 0)
        good = self.compile("guide.cpp", "-fsyntax-only")
        self.assertEqual(good.stderr, "")
        self.assertEqual(good.returncode, 0)

        self.write(FRAGMENT.replace("uart.write(", "uart.wirte("))
        self.assertEqual(self.tool("generate").returncode, 0)
        bad = self.compile("guide.cpp", "-fsyntax-only")
        self.assertNotEqual(bad.returncode, 0)
        self.assertRegex(bad.stderr, r"guide\.md:9:\d+: error: .*wirte")

    def test_a_misspelt_name_in_the_comment_of_a_header_does_not_compile(self):
        header = """\
            #pragma once
            namespace a {
                /// Use it like this:
                ///
                /// ```cpp
                /// int number = a::one();
                /// ```
                inline int one() { return 1; }
            }
            """
        self.write('#include "include/a.hpp"\n', "tests/docs/prologue/include/a.hpp")
        for text, status in ((header, 0), (header.replace("a::one()", "a::two()"), 1)):
            self.write(text, "include/a.hpp")
            self.assertEqual(self.tool("generate").returncode, 0)
            result = self.compile("include_a.cpp", "-fsyntax-only")
            self.assertEqual(result.returncode != 0, status != 0, result.stderr)
        self.assertIn("include/a.hpp:6:", result.stderr)

    def test_the_output_of_a_program_is_compared(self):
        self.write(PROGRAM)
        self.assertEqual(self.tool("generate").returncode, 0)
        program = self.out / "guide_1"
        self.assertEqual(self.compile("guide_1_program.cpp", "-o", program).returncode, 0)
        output = self.out / "guide_1_output.txt"
        self.assertEqual(self.run_tool("run", program, output).returncode, 0)
        output.write_text("one\n...\nfour\n", encoding="utf-8")
        self.assertEqual(self.run_tool("run", program, output).returncode, 1)
        output.write_text("one\nthree\n", encoding="utf-8")
        self.assertEqual(self.run_tool("run", program, output).returncode, 1)

    def test_blocks_are_counted_and_marked_ones_are_printed(self):
        self.write(FRAGMENT + PROGRAM + "    <!-- not compiled: it is a sketch -->\n    ```cpp\n    ???\n    ```\n")
        self.assertEqual(self.tool("generate").returncode, 0)
        result = self.tool("check")
        self.assertEqual(result.returncode, 0)
        self.assertIn("not compiled: it is a sketch", result.stdout)
        self.assertIn("3 blocks of C++: 1 run with their output compared, 0 run, 1 compiled, 1 not compiled",
                      result.stdout)

    def test_a_block_that_was_not_built_is_a_failure(self):
        self.write(FRAGMENT)
        self.assertEqual(self.tool("generate").returncode, 0)
        self.write(PROGRAM, "docs/new.md")
        result = self.tool("check")
        self.assertEqual(result.returncode, 1)
        self.assertIn("configure and build again", result.stdout)

    def test_faults_of_documents(self):
        self.assert_fault("```cpp\nint a;\n", "guide.md:1: the block does not end")
        self.assert_fault("```c++\nint a;\n```\n", "guide.md:1: the language 'c++' is none of")
        self.assert_fault("```cpp\nint a\n```\n", "guide.md:2: the last statement does not end")
        self.assert_fault("Text ```cpp\nint a;\n```\n", "guide.md:1: a fence is not at the beginning")
        self.assert_fault("```output\na\n```\n", "guide.md:1: the block before this output is not a program")
        self.assert_fault("<!-- not compiled: why -->\ntext\n", "guide.md:2: a block must follow")
        self.assert_fault("<!-- not compiled: why -->\n```sh\nls\n```\n", "guide.md:2: only a block of C++")
        self.write("")
        self.assert_fault("/// ```cpp\n/// int a;\nint b;\n", "include/a.hpp:1: the block does not end",
                          "include/a.hpp")

    def test_definitions_and_statements(self):
        for text, kind in (
            ("int f(int a) { return a; }", "definition"),
            ("std::expected<void, int> f() const noexcept { return {}; }", "definition"),
            ("auto f() -> std::vector<int> { return {}; }", "definition"),
            ("struct A { int a; };", "definition"),
            ("struct stat buffer;", "statement"),
            ("struct A;", "definition"),
            ("template <class T> void f(T) {}", "definition"),
            ("using A = int;", "definition"),
            ("namespace a { int b; }", "definition"),
            ("A a{1};", "statement"),
            ("const auto f = [](int a) { return a; };", "statement"),
            ("f([](int a) { return a; });", "statement"),
            ("if (a) { b(); } else if (c) { d(); } else { e(); }", "statement"),
            ("for (int a : b) { c(\"}\", '}', 1'000); /* } */ }", "statement"),
            ("#include <a>\n", "include"),
        ):
            with self.subTest(text):
                self.assertEqual([item[0] for item in snippets.split_items(text)], [kind])


if __name__ == "__main__":
    unittest.main()
