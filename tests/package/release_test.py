#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
"""scripts/release-check accepts a tree whose versions agree, and refuses each kind of tree that must not be released."""

import re
import shutil
import subprocess
import sys
import tempfile
import unittest
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent
GIT = ["git", "-c", "user.name=test", "-c", "user.email=test@localhost", "-c", "commit.gpgsign=false"]


class ReleaseTest(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.scratch = Path(tempfile.mkdtemp(prefix="vmsuperio-release-"))
        cls.tree = cls.scratch / "tree"
        shutil.copytree(ROOT, cls.tree, ignore=shutil.ignore_patterns(".git", "build", "build-*", "__pycache__"))
        # The changelog of a version that is being worked on has no date yet.
        path = cls.tree / "CHANGELOG.md"
        path.write_text(re.sub(r"^(## \[\d.*\]) - .*$", r"\1 - 2026-01-31", path.read_text(), count=1, flags=re.MULTILINE))
        cls.git("init", "-q")
        cls.commit()

    @classmethod
    def tearDownClass(cls):
        shutil.rmtree(cls.scratch)

    @classmethod
    def git(cls, *words):
        subprocess.run([*GIT, *words], cwd=cls.tree, check=True, stdout=subprocess.DEVNULL)

    @classmethod
    def commit(cls):
        cls.git("add", "-A")
        cls.git("commit", "-q", "--allow-empty", "-m", "tree")

    def check(self):
        result = subprocess.run([self.tree / "scripts/release-check", "--versions"], stdout=subprocess.PIPE,
                                stderr=subprocess.STDOUT, text=True, check=False)
        return result.returncode, result.stdout

    def refused(self, name, pattern, replacement, message, commit=True):
        with self.subTest(name=name, replacement=replacement):
            path = self.tree / name
            before = path.read_text()
            after = re.sub(pattern, replacement, before, count=1, flags=re.MULTILINE)
            self.assertNotEqual(before, after)
            path.write_text(after)
            if commit:
                self.commit()
            status, output = self.check()
            path.write_text(before)
            self.commit()
            self.assertEqual(status, 1, output)
            self.assertIn(message, output)
            self.assertIn("cannot be released", output)

    def test_a_tree_whose_versions_agree_is_accepted(self):
        status, output = self.check()
        self.assertEqual(status, 0, output)
        self.assertNotIn("cannot", output)

    def test_each_file_with_another_version_is_refused_by_name(self):
        for name, pattern, replacement in (
                ("include/vmsuperio/version.hpp", r"_PATCH \d+", "_PATCH 99"),
                ("include/vmdevice/version.hpp", r"_MINOR \d+", "_MINOR 99"),
                ("include/vmsuperio/version.hpp", r'_STRING ".*"', '_STRING "9.9.9"'),
                ("CHANGELOG.md", r"^## \[\d[^\]]*\]", "## [9.9.9]"),
                ("packaging/debian/changelog", r"^vmsuperio \([^)]+\)", "vmsuperio (9.9.9)"),
                ("packaging/vcpkg/ports/vmsuperio/vcpkg.json", r'"version": "[^"]+"', '"version": "9.9.9"'),
                ("include/vmsuperio/serial.hpp", r"inline v\d+_\d+", "inline v9_9"),
                ("docs/vmdevice.md", r"find_package\(vmsuperio [\d.]+", "find_package(vmsuperio 9.9")):
            self.refused(name, pattern, replacement, name)
        self.refused("CMakeLists.txt", r"^  VERSION .*$", "  VERSION 9.9.9", "and CMakeLists.txt 9.9.9")

    def test_what_is_not_committed_is_refused(self):
        self.refused("SECURITY.md", "Security", "Safety", "not committed: SECURITY.md", commit=False)
        (self.tree / "forgotten.txt").write_text("")
        status, output = self.check()
        (self.tree / "forgotten.txt").unlink()
        self.assertEqual(status, 1)
        self.assertIn("not committed: forgotten.txt", output)

    def test_a_changelog_without_a_past_date_is_refused(self):
        self.refused("CHANGELOG.md", r"\] - 2026-01-31$", "] - unreleased", "CHANGELOG.md has no section")
        self.refused("CHANGELOG.md", r"\] - 2026-01-31$", "] - 2999-01-31", "in the future")

    def test_an_old_single_header_is_refused(self):
        self.refused("single_include/vmdevice.hpp", r"^#pragma once$", "#pragma once\n", "is not current: run scripts/amalgamate")


if __name__ == "__main__":
    sys.exit(unittest.main(verbosity=2))
