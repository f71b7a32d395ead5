#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
"""Builds the Debian packages with dpkg-buildpackage, checks them with Lintian, installs them into a directory with dpkg,
and uses what is there."""

import os
import shutil
import subprocess
import sys
import tempfile
import unittest
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent
COMPILER = os.environ["CXX"]
BUILD = Path(os.environ["VMSUPERIO_BUILD_DIR"])
NEEDED = ("dpkg-buildpackage", "dh", "lintian", "fakeroot")
# In a fresh Debian, as root; the packages and the consumer are in /tmp.
IN_FRESH_SYSTEM = r"""
set -eu
files() {
    find / -xdev '(' -path /proc -o -path /sys -o -path /dev -o -path /tmp -o -path /var/cache -o -path /var/log \
        -o -path /var/lib/apt -o -path '/var/lib/dpkg/*-old' ')' -prune -o -print | LC_ALL=C sort
}
files >/tmp/before
apt-get -q install -y --no-install-recommends /tmp/*.deb
kvm_vmm --version
status=0
kvm_vmm --kernel /bin/true 2>/tmp/refusal || status=$?
[ $status = 4 ] && [ "$(wc -l </tmp/refusal)" = 1 ] && grep -q '^kvm_vmm: cannot open /dev/kvm: ' /tmp/refusal
cmake -S /tmp/consumer -B /tmp/build
cmake --build /tmp/build
/tmp/build/consumer
apt-get -q purge -y kvm-vmm libvmsuperio-dev
files >/tmp/after
diff /tmp/before /tmp/after
echo "nothing is left"
"""


def run(*command, **options):
    return subprocess.run([str(word) for word in command], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
                          check=False, **options)


class DebianTest(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        # The same path each time, so that ccache finds the objects of the last run.
        cls.scratch = BUILD / "debian"
        if cls.scratch.exists():
            shutil.rmtree(cls.scratch)
        cls.addClassCleanup(shutil.rmtree, cls.scratch)
        sources = cls.scratch / "vmsuperio"
        shutil.copytree(ROOT, sources, ignore=shutil.ignore_patterns(".git", "build", "build-*", "__pycache__"))
        shutil.copytree(ROOT / "packaging" / "debian", sources / "debian")
        environment = {name: value for name, value in os.environ.items() if name not in ("CXX", "CXXFLAGS", "MAKEFLAGS")}
        if shutil.which("ccache"):
            environment["CMAKE_CXX_COMPILER_LAUNCHER"] = "ccache"
        result = run("dpkg-buildpackage", "--unsigned-changes", "--unsigned-source", "--build=binary", cwd=sources,
                     env=environment)
        assert result.returncode == 0, "\n".join(result.stdout.splitlines()[-60:])
        cls.packages = {path.name.split("_")[0]: path for path in cls.scratch.glob("*.deb")}
        cls.changes = next(cls.scratch.glob("*.changes"))

    def install(self, *names):
        """Installs packages with dpkg below a directory. What they depend on is not there, and they have no scripts."""
        root = Path(tempfile.mkdtemp(dir=self.scratch))
        admin = root / "var/lib/dpkg"
        (admin / "info").mkdir(parents=True)
        (admin / "updates").mkdir()
        (admin / "status").touch()
        result = run("fakeroot", "dpkg", f"--root={root}", "--force-depends", "--force-script-chrootless", "--log=/dev/null",
                     "--install", *(self.packages[name] for name in names))
        self.assertEqual(result.returncode, 0, result.stdout)
        return root

    def test_both_packages_are_built_and_lintian_finds_nothing(self):
        self.assertEqual(set(self.packages) - {"kvm-vmm-dbgsym"}, {"libvmsuperio-dev", "kvm-vmm"})
        result = run("lintian", "--fail-on=error,warning", "--tag-display-limit=0", "--allow-root",
                     # There is no bug in a distribution that these packages would close.
                     "--suppress-tags=initial-upload-closes-no-bugs", self.changes)
        self.assertEqual((result.returncode, result.stdout.strip()), (0, ""))

    def test_a_consumer_of_the_headers(self):
        prefix = self.install("libvmsuperio-dev") / "usr"
        build = self.scratch / "consumer"
        result = run("cmake", "-S", ROOT / "packaging/conan/test_package", "-B", build, "-G", "Ninja",
                     f"-DCMAKE_CXX_COMPILER={COMPILER}", f"-DCMAKE_PREFIX_PATH={prefix}")
        self.assertEqual(result.returncode, 0, result.stdout)
        result = run("cmake", "--build", build)
        self.assertEqual(result.returncode, 0, result.stdout)
        self.assertEqual(run(build / "consumer").returncode, 0)
        environment = dict(os.environ, PKG_CONFIG_LIBDIR=str(prefix / "share/pkgconfig"))
        self.assertEqual(run("pkg-config", "--variable=includedir", "vmdevice", env=environment).stdout.strip().rstrip("/"),
                         str(prefix / "share/pkgconfig/../../include"))

    @unittest.skipUnless(os.environ.get("VMSUPERIO_FRESH_DEBIAN"), "takes minutes and the network: see scripts/release-check")
    def test_installed_in_a_fresh_system_and_purged_without_a_trace(self):
        copied = self.scratch / "copied"
        shutil.copytree(ROOT / "packaging/conan/test_package", copied / "consumer")
        for name in ("libvmsuperio-dev", "kvm-vmm"):
            shutil.copy(self.packages[name], copied)
        (copied / "script").write_text(IN_FRESH_SYSTEM)
        result = run("mmdebstrap", "--variant=apt", "--include=g++,cmake,make,liburing2,libseccomp2",
                     f"--customize-hook=cp -r '{copied}'/* \"$1\"/tmp", '--customize-hook=chroot "$1" sh /tmp/script', "bookworm",
                     "/dev/null", stdin=subprocess.DEVNULL)
        self.assertEqual(result.returncode, 0, "\n".join(result.stdout.splitlines()[-60:]))
        self.assertIn("nothing is left", result.stdout)

    def test_the_program(self):
        root = self.install("kvm-vmm", "libvmsuperio-dev")
        program = root / "usr/bin/kvm_vmm"
        self.assertRegex(run(program, "--version").stdout, r"^kvm_vmm \d+\.\d+\.\d+\n$")
        # What it needs and the distribution must provide.
        depends = run("dpkg-deb", "--field", self.packages["kvm-vmm"], "Depends").stdout
        for library in ("libc6", "libseccomp2", "libstdc++6", "liburing2"):
            self.assertIn(library, depends)
        manual = run("man", "--warnings", "-l", root / "usr/share/man/man1/kvm_vmm.1.gz",
                     env=dict(os.environ, MANWIDTH="100", LC_ALL="C")) if shutil.which("man") else None
        if manual:
            self.assertIn("--kernel IMAGE", manual.stdout)
            self.assertNotRegex(manual.stdout, r"(?m)^(troff|groff|man|<standard input>):")
        listed = run("dpkg", f"--root={root}", "--listfiles", "kvm-vmm").stdout.splitlines()
        self.assertFalse([name for name in listed if name.startswith("/usr/include")])


if __name__ == "__main__":
    missing = [name for name in NEEDED if not shutil.which(name)]
    if missing:
        print("SKIPPED: there is no " + ", ".join(missing))
        sys.exit(0)
    sys.exit(unittest.main(verbosity=2))
