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

        with self.subTest("a command typed on stdin is answered"):
            run.send(b"echo $((6 * 7)) answered\n")
            run.expect(rb"42 answered\r\n", PATIENCE)
            run.expect(PROMPT, PATIENCE)

        with self.subTest("4 KiB pasted at once arrive complete"):
            pasted = random.Random(4096).randbytes(4096)
            self.assertIn(CTRL_A, pasted)
            run.send(b"stty raw -echo; echo read''y; head -c 4096 >/tmp/pasted; stty sane; md5sum /tmp/pasted\n")
            run.expect(rb"ready\r?\n", PATIENCE)
            run.send(pasted.replace(CTRL_A, CTRL_A + CTRL_A))
            self.assertEqual(run.expect(rb"([0-9a-f]{32})  /tmp/pasted", PATIENCE).group(1).decode(),
                             hashlib.md5(pasted).hexdigest())
            run.expect(PROMPT, PATIENCE)

        with self.subTest("4 KiB of lines pasted while nobody reads arrive complete"):
            # In raw mode, since a terminal's own line buffer holds 4095 bytes only.
            lines = b"".join(b"line %04d of this\n" % number for number in range(256))
            run.send(b"stty raw -echo; echo read''y; sleep 1; head -c %d >/tmp/pasted; stty sane; md5sum /tmp/pasted\n"
                     % len(lines))
            run.expect(rb"ready\r?\n", PATIENCE)
            run.send(lines)
            self.assertEqual(run.expect(rb"([0-9a-f]{32})  /tmp/pasted", PATIENCE).group(1).decode(),
                             hashlib.md5(lines).hexdigest())
            run.expect(PROMPT, PATIENCE)

        with self.subTest("Ctrl-C reaches the guest"):
            # Not before the command runs: a shell that is about to start one takes no notice.
            run.send(b"sh -c 'echo star''ted; exec sleep 1000'; echo not here\n")
            run.expect(rb"started\r\n", PATIENCE)
            run.send(b"\x03")
            # The shell gives up the whole line.
            run.expect(PROMPT, PATIENCE)
            run.send(b"echo status $?\n")
            run.expect(rb"status 130\r\n", PATIENCE)

        with self.subTest("reboot ends kvm_vmm with the documented code"):
            run.send(b"reboot -f\n")
            self.assertEqual(run.wait(PATIENCE), 10)

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
