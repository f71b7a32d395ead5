# SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
"""Time as a guest sees it while the host's clock is set, and while kvm_vmm does not run."""

import dataclasses
import os
import pathlib
import signal
import tempfile
import time
import unittest

from boot_test_support import PATIENCE, PROMPT, MachineTest
from machine import guest

CTRL_A = b"\x01"
# Seconds: how far away an alarm is, and for how long kvm_vmm is stopped. Linux reports a soft lockup after twice its
# watchdog_thresh, which is 10 seconds by default.
ALARM = 6
STOP = int(os.environ.get("VMSUPERIO_STOP_SECONDS", "20"))
WATCHDOG_THRESHOLD = 5 if STOP < 40 else 10


class TimeTest(MachineTest):
    """All in one guest."""

    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        tool = pathlib.Path(os.environ["VMSUPERIO_GUEST_TOOL"]).read_bytes()
        with tempfile.NamedTemporaryFile(prefix="vmsuperio-initramfs-", delete=False) as file:
            file.write(cls.image.initramfs.read_bytes() + guest.session_archive({"guest_tool": tool}))
        cls.addClassCleanup(os.unlink, file.name)
        cls.image = dataclasses.replace(cls.image, initramfs=pathlib.Path(file.name))

    def set_host_clock(self, step):
        status, output = self.machine.shell(f"date -s @$(($(date +%s) + {step}))", PATIENCE)
        self.assertEqual(status, 0, output)

    def check_alarm(self, run, step):
        """An alarm occurs when it is due, although the host's clock is set while the guest waits for it."""
        run.send(b"echo wait''ing; /tmp/t rtc-alarm %d; echo status''=$?\n" % ALARM)
        run.expect(rb"waiting\r\n", PATIENCE)
        time.sleep(1)
        self.set_host_clock(step)
        found = run.expect(rb"alarm after (\d+) ms\r\nstatus=0", PATIENCE)
        run.expect(PROMPT, PATIENCE)
        self.set_host_clock(-step)
        after = int(found.group(1))
        print(f"alarm in {ALARM} s, the host's clock set by {step} s: after {after} ms")
        self.assertTrue((ALARM - 1.5) * 1000 <= after <= (ALARM + 8) * 1000, after)

    def check_stop(self, run):
        """A busy guest that has not run for a while reports no lockup."""
        run.send(b"echo %d >/proc/sys/kernel/watchdog_thresh; dmesg -c >/dev/null; (while :; do :; done) & sleep 1; "
                 b"echo is''-busy\n" % WATCHDOG_THRESHOLD)
        run.expect(rb"is-busy\r\n", PATIENCE)
        run.expect(PROMPT, PATIENCE)
        run.kill(signal.SIGSTOP)
        # Whatever the guest sends now, it is stopped.
        time.sleep(STOP)
        run.kill(signal.SIGCONT)
        # The watchdog looks five times in twice the threshold.
        run.send(b"cat /proc/sys/kernel/watchdog; sleep 5; kill $!; dmesg; echo looked''-at\n")
        seen = run.expect(rb"\r\n1\r\n(.*)looked-at\r\n", PATIENCE).group(1)
        run.expect(PROMPT, PATIENCE)
        self.assertNotRegex(seen, rb"(?i)lockup|stall|blocked for")
        self.assertNotRegex(run.stdout, rb"(?i)soft lockup|rcu.*stall")

    def test_set_clock_and_stop(self):
        run = self.shell()
        run.send(b"cp /session/guest_tool /tmp/t; chmod +x /tmp/t\n")
        run.expect(PROMPT, PATIENCE)
        self.check_stop(run)
        # Setting the clock of the user's own computer is not acceptable.
        if self.machine.kind == "nested":
            self.check_alarm(run, -3600)
            self.check_alarm(run, 3600)
        run.send(CTRL_A + b"x")
        self.assertEqual(run.wait(PATIENCE), 0)


if __name__ == "__main__":
    unittest.main()
