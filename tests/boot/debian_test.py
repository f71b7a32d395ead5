# SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
"""A Debian system on a disk: from power-on to a login prompt, and over a reboot."""

import hashlib
import os
import pathlib
import shutil
import subprocess
import tempfile
import unittest

from boot_test_support import PATIENCE, MachineTest
from machine import debian, distribution, machine

LOGIN = rb"debian login: "
ROOT_PROMPT = rb"root@debian:~# "
# The emulated computer needs a minute for systemd.
BOOT_PATIENCE = 400


class DebianTest(MachineTest):
    """The system that scripts/boot --debian boots, on a copy of its disk."""

    memory_mib = 512
    network = True

    @classmethod
    def setUpClass(cls):
        cls.root = distribution.debian_root(debian.cache_directory(), print)
        directory = tempfile.mkdtemp(prefix="vmsuperio-debian-")
        cls.addClassCleanup(shutil.rmtree, directory)
        cls.disk = pathlib.Path(directory) / "disk.img"
        subprocess.run(["cp", "--sparse=always", "--reflink=auto", cls.root.disk, cls.disk], check=True)
        cls.disks = (machine.Disk(str(cls.disk)),)
        super().setUpClass()

    def login(self, run):
        run.expect(LOGIN, BOOT_PATIENCE)
        run.send(b"root\n")
        run.expect(ROOT_PROMPT, PATIENCE)

    def command(self, run, command, pattern, timeout=PATIENCE):
        run.send(command + b"\n")
        found = run.expect(pattern, timeout)
        run.expect(ROOT_PROMPT, PATIENCE)
        return found

    def test_login_network_a_file_over_a_reboot_and_power_off(self):
        self.image.kernel, self.image.initramfs = str(self.root.kernel), self.root.initramfs
        cache = ",cache=direct" if self.machine.kind == "nested" else ""
        line = distribution.command_line(self.machine, self.image, "", [
            "--disk", f"path={self.machine.disks[0]}{cache}", "--net", self.machine.network()])
        run = self.machine.run(line)
        self.login(run)
        self.command(run, b"stty -echo; ip -4 -o address show dev eth0", rb"inet \d+\.\d+\.\d+\.\d+/")
        self.command(run, b"findmnt -n -o SOURCE,FSTYPE /", rb"/dev/vda ext4")
        self.command(run, b"systemctl is-system-running --wait; systemctl --failed --no-legend --plain; echo e''nd", rb"\Wrunning\W.*end\r")
        checksum = self.command(run, b"dd if=/dev/urandom of=/root/f bs=1M count=8 status=none; sync; sha256sum /root/f",
                                rb"([0-9a-f]{64})  /root/f").group(1)
        run.send(b"reboot\n")
        self.login(run)
        again = self.command(run, b"sha256sum /root/f", rb"([0-9a-f]{64})  /root/f").group(1)
        self.assertEqual(again, checksum)
        run.send(b"poweroff\n")
        self.assertEqual(run.wait(BOOT_PATIENCE), 0)
        # The file on the host's side of the disk.
        copy = self.disk.with_name("f")
        environment = {**os.environ, "PATH": os.environ.get("PATH", "") + ":/usr/sbin:/sbin"}
        subprocess.run(["debugfs", "-R", f"dump /root/f {copy}", self.disk], env=environment, capture_output=True, check=True)
        self.assertEqual(hashlib.sha256(copy.read_bytes()).hexdigest(), checksum.decode())
        check = subprocess.run(["e2fsck", "-f", "-n", self.disk], env=environment, capture_output=True, check=False)
        self.assertEqual(check.returncode, 0, check.stdout)


if __name__ == "__main__":
    unittest.main(verbosity=2)
