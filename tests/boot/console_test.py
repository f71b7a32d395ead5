# SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
"""kvm_vmm boots an unmodified Debian kernel to user space, and its console works."""

import hashlib
import random
import unittest

from boot_test_support import PATIENCE, PROMPT, MachineTest

CTRL_A = b"\x01"


class ConsoleTest(MachineTest):
    """All in the guests of one machine."""

    def test_typing_pasting_and_reboot(self):
        """One guest, as a user would have it."""
        run = self.shell()

        # A command typed on stdin is answered.
        run.send(b"echo $((6 * 7)) answered\n")
        run.expect(rb"42 answered\r\n", PATIENCE)
        run.expect(PROMPT, PATIENCE)

        # 4 KiB pasted at once arrive complete, whatever bytes these are.
        pasted = random.Random(4096).randbytes(4096)
        self.assertIn(CTRL_A, pasted)
        self.assertEqual(self.paste(run, pasted, b""), hashlib.md5(pasted).hexdigest())

        # They also wait for a guest that does not read at once.
        lines = b"".join(b"line %04d of this\n" % number for number in range(256))
        self.assertEqual(self.paste(run, lines, b"sleep 1;"), hashlib.md5(lines).hexdigest())

        # Ctrl-C reaches the guest and interrupts what runs there.
        run.send(b"echo runn''ing; sleep 1000\n")
        run.expect(rb"running\r\n", PATIENCE)
        run.send(b"\x03")
        run.expect(PROMPT, PATIENCE)
        run.send(b"echo status $?\n")
        run.expect(rb"status 130\r\n", PATIENCE)

        # A BREAK is the kernel's key to its own menu.
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
        """Pastes into a program of the guest that reads so many bytes; their checksum there."""
        # In raw mode, since a terminal's own line buffer holds 4095 bytes only.
        run.send(b"stty raw -echo; echo read''y; %s head -c %d >/tmp/pasted; stty sane; md5sum /tmp/pasted\n"
                 % (delay, len(data)))
        run.expect(rb"ready\r?\n", PATIENCE)
        run.send(data.replace(CTRL_A, CTRL_A + CTRL_A))
        checksum = run.expect(rb"([0-9a-f]{32})  /tmp/pasted", PATIENCE).group(1).decode()
        run.expect(PROMPT, PATIENCE)
        return checksum

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
            with self.subTest(stdin=stdin):
                done = self.in_guest("uname -s", stdin=stdin)
                self.assertEqual((done.stdout, done.stderr, done.status), (b"Linux\n", b"", 0))
                self.assertEqual(done.vmm_status, 10)

    def test_a_wrong_kernel_is_one_clear_line(self):
        run = self.kvm_vmm("--kernel", self.machine.put(b"This is a text.\n" * 1000))
        self.assertEqual(run.wait(PATIENCE), 3)
        self.assertRegex(run.stderr, rb"\A[^\n]+\n\Z")
        self.assertEqual(run.stdout, b"")


if __name__ == "__main__":
    unittest.main(verbosity=2)
