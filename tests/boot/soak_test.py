# SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
"""Many boots one after another on one host, each to user space and through a power-off or a reset.

Environment: VMSUPERIO_BOOTS is the number of boots. Each is shortened: the guest's init only reports that it runs.
"""

import os
import statistics
import unittest

from boot_test_support import PATIENCE, MachineTest
from machine import cpio, debian

BOOTS = int(os.environ.get("VMSUPERIO_BOOTS", "4"))
INIT = b"""#!/bin/busybox sh
busybox echo "up with $(busybox nproc) CPUs"
busybox %s -f
"""


def initramfs(end):
    archive = cpio.Archive()
    archive.character_device("dev/console", 5, 1)
    archive.file("bin/busybox", debian.BUSYBOX.read_bytes(), 0o755)
    archive.file("init", INIT % end, 0o755)
    return archive.finish()


class SoakTest(MachineTest):
    """All on one machine."""

    memory_mib = 256

    def boot(self, number, kernel, initrd, status):
        """One boot; returns how long it took."""
        cpus = 1 + number % 2
        # A CPU that hangs must print where.
        cmdline = "console=ttyS0 quiet reboot=k panic=-1 softlockup_panic=1"
        run = self.kvm_vmm("--kernel", kernel, "--initrd", initrd, "--cmdline", cmdline, "--memory", "128M", "--cpus", str(cpus))
        self.assertEqual(run.wait(PATIENCE), status, (number, run.stdout + run.stderr))
        self.assertIn(b"up with %d CPUs" % cpus, run.stdout)
        self.assertEqual(run.stderr, b"")
        return run.seconds

    def test_each_of_many_boots_comes_up_and_ends(self):
        kernel = self.machine.put(self.image.kernel)
        ends = [(self.machine.put(initramfs(command)), status) for command, status in ((b"poweroff", 0), (b"reboot", 10))]
        seconds = []
        for number in range(BOOTS):
            seconds.append(self.boot(number, kernel, *ends[number // 2 % 2]))
            self.machine.stop_run(PATIENCE)
        print(f"{len(seconds)} of {BOOTS} boots: median {statistics.median(seconds):.2f} s, {min(seconds):.2f} to {max(seconds):.2f} s")


if __name__ == "__main__":
    unittest.main()
