# SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
"""kvm_vmm boots an unmodified Debian kernel to user space, and its console works."""

import hashlib
import os
import random
import re
import shlex
import unittest

from boot_test_support import PATIENCE, PROMPT, MachineTest
from machine import guest

CTRL_A = b"\x01"
# The seconds for which a reader of the console pauses, and the number of lines that a guest prints during and
# after that.
PAUSE = 10
LINES = int(os.environ.get("VMSUPERIO_PAUSE_LINES", "2000"))


class ConsoleTest(MachineTest):
    """All in the guests of one machine."""

    def test_typing_pasting_and_reboot(self):
        """One guest, used as by a user."""
        run = self.shell()

        # A command typed on stdin is answered.
        run.send(b"echo $((6 * 7)) answered\n")
        run.expect(rb"42 answered\r\n", PATIENCE)
        run.expect(PROMPT, PATIENCE)

        # 4 KiB that are pasted at once arrive completely, whatever bytes these are.
        pasted = random.Random(4096).randbytes(4096)
        self.assertIn(CTRL_A, pasted)
        self.assertEqual(self.paste(run, pasted, b""), hashlib.md5(pasted).hexdigest())

        # They also wait for a guest that does not read at once.
        lines = b"".join(b"line %04d of this\n" % number for number in range(256))
        self.assertEqual(self.paste(run, lines, b"sleep 1;"), hashlib.md5(lines).hexdigest())

        # Ctrl-C reaches the guest and interrupts the program there. A single process prints that it runs and
        # then sleeps, because a shell that is interrupted between two commands continues with the next one.
        run.send(b"sh -c \"echo runn''ing; exec sleep 1000\"\n")
        run.expect(rb"running\r\n", PATIENCE)
        run.send(b"\x03")
        run.expect(PROMPT, PATIENCE)
        run.send(b"echo status $?\n")
        run.expect(rb"status 130\r\n", PATIENCE)

        # A BREAK starts a SysRq command of the kernel.
        run.send(b"echo 1 >/proc/sys/kernel/sysrq; echo 7 >/proc/sys/kernel/printk; echo sys''rq is on\n")
        run.expect(rb"sysrq is on", PATIENCE)
        run.expect(PROMPT, PATIENCE)
        run.send(CTRL_A + b"b" + b"m")
        run.expect(rb"sysrq: Show Memory", PATIENCE)
        run.send(b"\n")
        run.expect(PROMPT, PATIENCE)

        # A reboot ends kvm_vmm with the documented code.
        run.send(b"reboot -f\n")
        self.assertEqual(run.wait(PATIENCE), 10)

    def paste(self, run, data, delay):
        """Pastes into a program of the guest that reads that many bytes; returns their checksum there."""
        # In raw mode, because a terminal's own line buffer holds only 4095 bytes.
        run.send(b"stty raw -echo; echo read''y; %s head -c %d >/tmp/pasted; stty sane; md5sum /tmp/pasted\n"
                 % (delay, len(data)))
        run.expect(rb"ready\r?\n", PATIENCE)
        run.send(data.replace(CTRL_A, CTRL_A + CTRL_A))
        checksum = run.expect(rb"([0-9a-f]{32})  /tmp/pasted", PATIENCE).group(1).decode()
        run.expect(PROMPT, PATIENCE)
        return checksum

    def test_a_reader_that_pauses_costs_the_guest_no_time_and_no_byte(self):
        line, streams = guest.shell_session(self.machine, self.image)
        tool = self.machine.put(os.environ["VMSUPERIO_GUEST_TOOL"])
        run = self.machine.run(["sh", "-c", f"{shlex.join(line)} | {tool} pausing-cat PAUSE {PAUSE}"], streams)
        run.expect(PROMPT, PATIENCE)
        run.send(b"echo 8 >/proc/sys/kernel/printk; echo on >/proc/sys/kernel/printk_devkmsg\n"
                 b"(while :; do cut -d' ' -f1 /proc/uptime >>/tmp/ticks; sleep 0.5; done) &\n")
        # A program's output waits for the transmitter's interrupt; the kernel's own waits a limited time for
        # each byte.
        for name, command, number in (("a program", b"seq 1 %d", rb"(?:^|\n)(\d+)\r"),
                                      ("the kernel", b"for i in $(seq 1 %d); do echo number $i. >/dev/kmsg; done",
                                       rb"number (\d+)\.")):
            start = len(run.stdout)
            run.send(b"echo PA''USE; " + command % LINES + b"; echo all''-said\n")
            run.expect(rb"PAUSE\r\n.*all-said.*" + PROMPT, PATIENCE)
            numbers = [int(found) for found in re.findall(number, run.stdout[start:])]
            self.assertEqual(numbers, list(range(1, LINES + 1)), name)
        # Another process in the guest was running all the time.
        run.send(b"awk 'NR > 1 && $1 - last > gap { gap = $1 - last } { last = $1 } END { print \"gap of\", gap \".\" }'"
                 b" /tmp/ticks\n")
        gap = float(run.expect(rb"gap of ([\d.]+)\.\r", PATIENCE).group(1))
        print(f"with its console's reader pausing for {PAUSE} s, the guest stood still for {gap - 0.5:.2f} s at most")
        self.assertLess(gap, PAUSE / 2)
        self.assertNotRegex(run.stdout, rb"stall|lockup|blocked for")
        run.send(CTRL_A + b"x")
        run.wait(PATIENCE)

    def test_ctrl_a_x_ends_the_guest_and_boots_again(self):
        for _ in range(2):
            run = self.shell()
            run.send(CTRL_A + b"x")
            self.assertEqual(run.wait(PATIENCE), 0)

    def test_a_termination_signal_ends_kvm_vmm(self):
        run = self.shell()
        run.kill()
        self.assertEqual(run.wait(PATIENCE), 128 + 15)

    def test_a_guest_needs_no_stdin(self):
        for stdin in ("/dev/null", None):
            done = self.in_guest("uname -s", stdin=stdin)
            self.assertEqual((done.stdout, done.stderr, done.status), (b"Linux\n", b"", 0), stdin)
            self.assertEqual(done.vmm_status, 10)

    def test_a_wrong_kernel_is_one_clear_line(self):
        run = self.kvm_vmm("--kernel", self.machine.put(b"This is a text.\n" * 1000))
        self.assertEqual(run.wait(PATIENCE), 3)
        self.assertRegex(run.stderr, rb"\A[^\n]+\n\Z")
        self.assertEqual(run.stdout, b"")


if __name__ == "__main__":
    unittest.main(verbosity=2)
