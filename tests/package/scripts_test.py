#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
"""What scripts/test and scripts/boot do about packages on computers that are not as expected, and what scripts/test leaves
behind when it is ended. apt-get, dpkg-query, sudo and id are replaced by programs that record their calls."""

import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import unittest
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent
REAL = ("bash", "cat", "chmod", "cksum", "cut", "dirname", "env", "grep", "mkdir", "mktemp", "rm", "sed", "sleep", "sort", "tail", "tr")
UNREACHABLE = """W: Failed to fetch http://deb.example.org/debian/dists/bookworm/InRelease  Temporary failure resolving 'deb.example.org'
W: Some index files failed to download. They have been ignored, or old ones used instead."""


class ScriptsTest(unittest.TestCase):
    def setUp(self):
        self.scratch = Path(tempfile.mkdtemp(prefix="vmsuperio-scripts-"))
        self.addCleanup(shutil.rmtree, self.scratch)
        self.programs = self.scratch / "bin"
        self.programs.mkdir()
        for name in REAL:
            (self.programs / name).symlink_to(shutil.which(name))
        self.calls = self.scratch / "calls"
        self.calls.touch()
        self.fake("id", "echo 0")
        # All packages are installed except the one in the file "missing".
        self.missing = self.scratch / "missing"
        self.missing.write_text("")
        self.fake("dpkg-query", f'for last; do :; done; if grep -qx "$last" {self.missing}; then exit 1; fi; echo -n installed')

    def fake(self, name, text):
        path = self.programs / name
        path.write_text(f'#!{shutil.which("bash")}\necho "{name} $*" >>{self.calls}\n{text}\n')
        path.chmod(0o755)

    def install(self, *packages):
        return subprocess.run(["bash", "-c", f'. "{ROOT}/scripts/lib/packages.sh"; install_packages scripts/x "$@"', "bash", *packages],
                              env={"PATH": str(self.programs), "TMPDIR": str(self.scratch)}, stdout=subprocess.PIPE,
                              stderr=subprocess.STDOUT, text=True, check=False)

    def called(self, program):
        return [line for line in self.calls.read_text().splitlines() if line.split()[0] == program]

    def test_nothing_is_called_if_nothing_is_missing(self):
        self.fake("apt-get", "exit 1")
        result = self.install("cmake", "g++")
        self.assertEqual((result.returncode, result.stdout), (0, ""))
        self.assertEqual(self.called("apt-get"), [])

    def test_only_what_is_missing_is_installed(self):
        self.missing.write_text("lintian\n")
        self.fake("apt-get", "exit 0")
        result = self.install("cmake", "lintian")
        self.assertEqual(result.returncode, 0, result.stdout)
        self.assertEqual(len(self.called("apt-get")), 2)
        self.assertRegex(self.called("apt-get")[0], r" --download-only install --no-install-recommends lintian$")
        self.assertRegex(self.called("apt-get")[1], r"=600 install --no-install-recommends lintian$")
        self.assertEqual(list(self.scratch.glob("tmp.*")), [])

    def test_an_ordinary_user_without_sudo_reads_one_line(self):
        self.missing.write_text("lintian\nlz4\n")
        self.fake("id", "echo 1000")
        self.fake("apt-get", "exit 0")
        result = self.install("cmake", "lintian", "lz4")
        self.assertEqual(result.returncode, 1)
        self.assertEqual(result.stdout, "scripts/x: these packages are missing, and without root or sudo cannot be installed: "
                                        "lintian lz4\n")
        self.assertEqual(self.called("apt-get"), [])

    def test_an_ordinary_user_uses_sudo(self):
        self.missing.write_text("lintian\n")
        self.fake("id", "echo 1000")
        self.fake("sudo", 'case $1 in -*) ;; *) exec "$@" ;; esac')
        self.fake("apt-get", "exit 0")
        self.assertEqual(self.install("lintian").returncode, 0)
        self.assertRegex(self.called("sudo")[-1], "apt-get .*install")

    def test_a_user_whom_sudo_refuses_reads_so(self):
        self.missing.write_text("lintian\n")
        self.fake("id", "echo 1000")
        self.fake("sudo", "exit 1")
        self.fake("apt-get", "exit 0")
        result = self.install("lintian")
        self.assertEqual(result.returncode, 1)
        self.assertTrue(result.stdout.endswith("scripts/x: sudo refused, so that these packages cannot be installed: lintian\n"))
        self.assertEqual(self.called("apt-get"), [])

    def test_without_a_network_one_line_says_so(self):
        self.missing.write_text("lintian\nlz4\n")
        self.fake("apt-get", f'case "$*" in *update) echo "{UNREACHABLE}" ;; *) echo "E: Unable to locate package lz4"; exit 100 ;; '
                             "esac")
        result = self.install("cmake", "lintian", "lz4")
        self.assertEqual(result.returncode, 1)
        self.assertEqual(result.stdout.splitlines()[1:], [
            "scripts/x: apt cannot reach deb.example.org (is there a network?), and these packages are missing: lintian lz4"])

    def test_one_source_of_apt_that_cannot_be_used_is_no_obstacle(self):
        self.missing.write_text("lintian\n")
        updated = self.scratch / "updated"
        self.fake("apt-get", f'case "$*" in *update) echo >{updated}; echo "E: The repository has no Release file."; exit 100 ;; '
                             f"*) [ -e {updated} ] || exit 100 ;; esac")
        self.assertEqual(self.install("lintian").returncode, 0)

    def test_it_waits_for_another_update_of_the_lists(self):
        self.missing.write_text("lintian\n")
        tried, updated = self.scratch / "tried", self.scratch / "updated"
        self.fake("apt-get", f'case "$*" in *update) [ -e {tried} ] || {{ echo >{tried}; echo "E: Could not get lock /lists"; exit 100; }}; '
                             f"echo >{updated} ;; *) [ -e {updated} ] || exit 100 ;; esac")
        self.assertEqual(self.install("lintian").returncode, 0)
        self.assertEqual(len([call for call in self.called("apt-get") if call.endswith("update")]), 2)

    def interrupted(self, phase):
        """Types Ctrl-C while the given apt-get runs; returns the status, the output and whether that apt-get was completed."""
        self.missing.write_text("lintian\n")
        begun, completed = self.scratch / "begun", self.scratch / "completed"
        self.fake("apt-get", f'case "$*" in *"{phase}"*) echo >{begun}; sleep 2; echo >{completed} ;; esac')
        run = subprocess.Popen(["bash", "-c", f'. "{ROOT}/scripts/lib/packages.sh"; install_packages scripts/x lintian; exit'],
                               env={"PATH": str(self.programs), "TMPDIR": str(self.scratch)}, stdout=subprocess.PIPE,
                               stderr=subprocess.STDOUT, text=True, start_new_session=True,
                               preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL))
        self.addCleanup(run.kill)
        limit = time.monotonic() + 60
        while not begun.exists() and time.monotonic() < limit:
            time.sleep(0.05)
        os.killpg(run.pid, signal.SIGINT)  # as a terminal does
        output, _ = run.communicate(timeout=60)
        time.sleep(0.1 if completed.exists() else 3)
        self.assertEqual(list(self.scratch.glob("tmp.*")), [])
        return run.returncode, output, completed.exists()

    def test_ctrl_c_ends_a_download(self):
        status, _, completed = self.interrupted("--download-only")
        self.assertEqual((status, completed), (-signal.SIGINT, False))
        self.assertEqual(len(self.called("apt-get")), 1)

    def test_ctrl_c_lets_an_installation_complete(self):
        status, output, completed = self.interrupted("=600 install")
        self.assertEqual((status, completed), (130, True))
        self.assertTrue(output.endswith("scripts/x: the installation is completed first\n"), output)

    def build_static(self, tree, **environment):
        return subprocess.run(["bash", "-c", f'. "{ROOT}/scripts/lib/packages.sh"; build_static scripts/x "$1" && echo "$kvm_vmm"', "bash",
                               tree], env={"PATH": str(self.programs), "HOME": str(self.scratch / "home"), **environment},
                              stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)

    def test_a_tree_that_cannot_be_written_is_built_in_the_cache(self):
        (self.programs / "flock").symlink_to(shutil.which("flock"))
        self.fake("cmake", "exit 0")
        tree = self.scratch / "a tree"
        tree.mkdir()
        self.assertIn(f"{tree}/build/static/", self.build_static(tree).stdout)
        shutil.rmtree(tree / "build")
        # Where a folder is expected there is a file; root could write to a folder in any mode.
        (tree / "build").touch()
        result = self.build_static(tree)
        self.assertRegex(result.stdout, rf"(?m)^{self.scratch}/home/.cache/vmsuperio/build/\d+/examples/kvm_vmm/src/kvm_vmm$")
        self.assertEqual(len([call for call in self.called("cmake") if f" -B {self.scratch}/home/" in call]), 1)
        result = self.build_static(tree, VMSUPERIO_CACHE=str(tree / "build"))
        self.assertEqual((result.returncode, result.stdout.count("\n")), (1, 1), result.stdout)
        self.assertRegex(result.stdout, r"^scripts/x: cannot write to .* \(VMSUPERIO_CACHE names another place\)$")

    def test_a_copied_tree_does_not_build_the_one_that_it_is_a_copy_of(self):
        (self.programs / "flock").symlink_to(shutil.which("flock"))
        self.fake("cmake", "exit 0")
        tree = self.scratch / "tree"
        build = tree / "build/static"
        build.mkdir(parents=True)
        for home, configured in ((tree, False), (self.scratch, True)):
            (build / "build.ninja").touch()
            (build / "CMakeCache.txt").write_text(f"CMAKE_HOME_DIRECTORY:INTERNAL={home}\n")
            self.calls.write_text("")
            self.build_static(tree)
            self.assertEqual(any("--preset static" in call for call in self.called("cmake")), configured)

    def test_old_package_lists_are_updated(self):
        self.missing.write_text("lintian\n")
        updated = self.scratch / "updated"
        self.fake("apt-get", f'case "$*" in *update) echo >{updated} ;; *) [ -e {updated} ] || exit 100 ;; esac')
        self.assertEqual(self.install("lintian").returncode, 0)
        self.assertEqual([re.sub(".*? (?=update|--download-only|install)", "", call, count=1) for call in self.called("apt-get")],
                         ["--download-only install --no-install-recommends lintian", "update",
                          "--download-only install --no-install-recommends lintian", "install --no-install-recommends lintian"])

    def test_other_sources_of_apt_are_named_as_the_reason(self):
        self.missing.write_text("clang-19\nlintian\n")
        self.fake("apt-get", 'case "$*" in *update) ;; *) echo "E: Unable to locate package clang-19"; exit 100 ;; esac')
        result = self.install("cmake", "clang-19", "lintian")
        self.assertEqual(result.returncode, 1)
        self.assertEqual(result.stdout.splitlines()[1:],
                         ["scripts/x: apt's sources lack clang-19; Debian 12 and its updates have all of these packages"])

    def test_an_installation_that_was_interrupted_is_completed(self):
        self.missing.write_text("lintian\n")
        configured = self.scratch / "configured"
        self.fake("dpkg", f"echo >{configured}")
        self.fake("apt-get", f'case "$*" in *update) exit 0 ;; esac; [ -e {configured} ] || '
                             '{ echo "E: dpkg was interrupted, you must manually run \'dpkg --configure -a\'"; exit 100; }')
        result = self.install("lintian")
        self.assertEqual(result.returncode, 0, result.stdout)
        self.assertEqual(self.called("dpkg"), ["dpkg --configure -a"])

    def test_another_distribution_is_told_what_must_be_there(self):
        (self.programs / "dpkg-query").unlink()
        result = self.install("cmake", "lintian")
        self.assertEqual(result.returncode, 0)
        self.assertIn("this is not Debian; these packages' programs must be there already: cmake lintian", result.stdout)

    def test_a_run_that_is_ended_leaves_nothing_behind_and_can_be_repeated(self):
        tree = self.scratch / "tree"
        (tree / "scripts").mkdir(parents=True)
        shutil.copy(ROOT / "scripts/test", tree / "scripts")
        shutil.copytree(ROOT / "scripts/lib", tree / "scripts/lib")
        for name in ("nice", "nproc", "setsid", "date"):
            (self.programs / name).symlink_to(shutil.which(name))
        pid_file = self.scratch / "pid"
        # The stage clang waits for its cmake, and clang-tidy for another one beside it.
        self.fake("cmake", f'sleep 600 & echo $! >>{pid_file}; wait')
        environment = {"PATH": str(self.programs), "TMPDIR": str(self.scratch)}
        for ended_by in (signal.SIGTERM, signal.SIGINT):
            with self.subTest(ended_by):
                pid_file.unlink(missing_ok=True)
                # Ctrl-C reaches the whole foreground process group.
                run = subprocess.Popen([tree / "scripts/test", "tidy", "clang"], env=environment, stdout=subprocess.DEVNULL,
                                       stderr=subprocess.DEVNULL, start_new_session=True,
                                       preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL))
                self.addCleanup(run.kill)
                limit = time.monotonic() + 60
                sleepers = []
                while len(sleepers) < 2 and time.monotonic() < limit:
                    time.sleep(0.05)
                    if pid_file.exists():
                        sleepers = [Path("/proc") / pid for pid in pid_file.read_text().split()]
                self.assertEqual([sleeper.exists() for sleeper in sleepers], [True, True])
                if ended_by == signal.SIGINT:
                    os.killpg(run.pid, ended_by)
                else:
                    run.send_signal(ended_by)
                run.wait(timeout=60)
                self.assertIn(run.returncode, (-ended_by, 128 + ended_by))
                while any(sleeper.exists() for sleeper in sleepers) and time.monotonic() < limit:
                    time.sleep(0.05)
                self.assertEqual([sleeper.exists() for sleeper in sleepers], [False, False])

    def test_a_tree_that_cannot_be_written_is_one_line_before_anything_is_installed(self):
        self.missing.write_text("lintian\n")
        self.fake("apt-get", "exit 0")
        tree = self.scratch / "tree"
        (tree / "scripts").mkdir(parents=True)
        shutil.copy(ROOT / "scripts/test", tree / "scripts")
        shutil.copytree(ROOT / "scripts/lib", tree / "scripts/lib")
        (tree / "build").touch()  # where a folder is expected there is a file; root could write to a folder in any mode
        result = subprocess.run([tree / "scripts/test", "gcc"], env={"PATH": str(self.programs)}, stdout=subprocess.PIPE,
                                stderr=subprocess.STDOUT, text=True, check=False)
        self.assertEqual((result.returncode, result.stdout.count("\n")), (1, 1), result.stdout)
        self.assertIn(f"scripts/test: cannot write to {tree}/build/logs; ", result.stdout)
        self.assertEqual(self.called("apt-get"), [])

    def test_quick_says_what_it_leaves_out(self):
        text = subprocess.run([ROOT / "scripts/test", "--help"], stdout=subprocess.PIPE, text=True, check=True).stdout
        self.assertRegex(text, r"--quick +the stage gcc alone: no kernel is booted, nothing is compiled with Clang")
        result = subprocess.run([ROOT / "scripts/test", "quick"], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
                                check=False)
        self.assertEqual((result.returncode, result.stdout.count("\n")), (2, 1))


if __name__ == "__main__":
    sys.exit(unittest.main(verbosity=2))
