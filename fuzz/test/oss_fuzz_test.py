#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
"""The build script of OSS-Fuzz and ClusterFuzzLite works as in their image, as far as that is possible without a network.

OSS_FUZZ_TARGETS names the targets to build; without it, two are built, one of the library and one of kvm_vmm.
"""
import os
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile
import unittest
import zipfile

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent
CLANG = shutil.which("clang++-19")
TARGETS = os.environ.get("OSS_FUZZ_TARGETS", "debug_ports command_line").split()
FOLDERS = (ROOT / "fuzz/oss-fuzz", ROOT / ".clusterfuzzlite")


def all_targets():
    text = (ROOT / "fuzz/CMakeLists.txt").read_text(encoding="utf-8")
    return re.findall(r"^ *add_fuzz_target\((\w+)", text, re.MULTILINE)


class OssFuzzTest(unittest.TestCase):
    def test_each_target_has_seeds_and_a_dictionary_has_a_target(self):
        self.assertGreater(len(all_targets()), 14)
        for target in all_targets():
            self.assertTrue(list((ROOT / "fuzz/corpus" / target).iterdir()), target)
        self.assertEqual({path.stem for path in (ROOT / "fuzz/dict").iterdir()} - set(all_targets()), set())

    def test_the_configuration_is_complete(self):
        for folder in FOLDERS:
            self.assertTrue(os.access(folder / "build.sh", os.X_OK), folder)
            project = (folder / "project.yaml").read_text(encoding="utf-8")
            self.assertIn("\nlanguage: c++\n", "\n" + project)
            # What the library needs is in this system only, and the image must be the same.
            system = re.search(r"^base_os_version: (\S+)$", project, re.MULTILINE)[1]
            docker = (folder / "Dockerfile").read_text(encoding="utf-8")
            self.assertEqual(re.findall(r"^FROM (\S+)$", docker, re.MULTILINE),
                             [f"gcr.io/oss-fuzz-base/base-builder:{system}"])
            for needed in ("cmake", "liburing-dev", "ninja-build", "pkg-config", "zip"):
                self.assertRegex(docker, rf"\b{needed}\b")
            self.assertIn("build.sh $SRC/", docker)
            # No shell option is lost where bash is not started by the first line.
            subprocess.run(["bash", "-n", folder / "build.sh"], check=True)
        for key in ("homepage", "main_repo", "primary_contact", "fuzzing_engines", "sanitizers"):
            self.assertRegex((FOLDERS[0] / "project.yaml").read_text(encoding="utf-8"), rf"(?m)^{key}:")

    @unittest.skipUnless(CLANG and shutil.which("zip"), "clang++-19 or zip is missing")
    def test_the_script_builds_targets_that_run(self):
        with tempfile.TemporaryDirectory() as folder:
            source, work, out = (pathlib.Path(folder, name) for name in ("src", "work", "out"))
            for path in (source, work, out):
                path.mkdir()
            (source / "vmsuperio").symlink_to(ROOT)
            flags = "-O1 -gline-tables-only -fsanitize=address -fsanitize=fuzzer-no-link"
            environment = {**os.environ, "SRC": str(source), "WORK": str(work), "OUT": str(out), "CC": "clang-19",
                           "CXX": CLANG, "CFLAGS": flags, "CXXFLAGS": flags, "LIB_FUZZING_ENGINE": "-fsanitize=fuzzer",
                           "FUZZ_TARGETS": " ".join(TARGETS), "SANITIZER": "address"}
            # The way of ClusterFuzzLite, which calls the other.
            built = subprocess.run([ROOT / ".clusterfuzzlite/build.sh"], cwd=source, env=environment, stdin=subprocess.DEVNULL,
                                   stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)
            self.assertEqual(built.returncode, 0, built.stdout[-3000:])
            self.assertEqual({path.name for path in out.glob("fuzz_*") if not path.suffix and "corpus" not in path.name},
                             {f"fuzz_{target}" for target in TARGETS})
            for target in TARGETS:
                self.check_target(out, target, pathlib.Path(folder, "corpus_" + target))

    def check_target(self, out, target, corpus):
        with zipfile.ZipFile(out / f"fuzz_{target}_seed_corpus.zip") as archive:
            self.assertEqual({name for name in archive.namelist()}, {path.name for path in (ROOT / "fuzz/corpus" / target).iterdir()})
            archive.extractall(corpus)
        options = ["-runs=2000", "-seed=1", "-max_len=256"]
        dictionary = ROOT / f"fuzz/dict/{target}.dict"
        self.assertEqual((out / f"fuzz_{target}.dict").is_file(), dictionary.is_file())
        if dictionary.is_file():
            options.append(f"-dict={out}/fuzz_{target}.dict")
        # The machine that runs it has the programs only.
        linked = subprocess.run(["ldd", out / f"fuzz_{target}"], stdout=subprocess.PIPE, text=True, check=True).stdout
        self.assertNotIn("liburing", linked)
        result = subprocess.run([out / f"fuzz_{target}", *options, corpus], cwd=out, stdin=subprocess.DEVNULL,
                                stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)
        self.assertEqual(result.returncode, 0, result.stdout[-3000:])
        # It is guided: the counters of the library's code are there, not of the target's file alone.
        self.assertGreater(int(re.search(r"Loaded 1 modules +\((\d+) inline", result.stdout)[1]), 500)
        self.assertRegex(result.stdout, r"Done 2\d{3} runs")


if __name__ == "__main__":
    if len(sys.argv) > 1 and sys.argv[1] == "--all":
        del sys.argv[1]
        TARGETS = all_targets()
    unittest.main()
