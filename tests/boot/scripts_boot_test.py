# SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
"""scripts/boot does what its help says."""

import os
import re
import signal
import subprocess
import unittest

from boot_test_support import PATIENCE, PROMPT, REPOSITORY, Terminal
from machine import machine

BOOT = str(REPOSITORY / "scripts" / "boot")


def boot(*arguments, stdin=subprocess.DEVNULL):
    def once():
        return subprocess.run([BOOT, *arguments], stdin=stdin, capture_output=True, timeout=PATIENCE, check=False)

    done = once()
    if machine.TRIPLE_FAULT in done.stderr and machine.why_not_direct():
        print(f"once more, because the emulated machine lost the guest: {done}")
        done = once()
    return done


class UsageTest(unittest.TestCase):
    """No guest is started here."""

    def test_help(self):
        done = boot("--help")
        self.assertEqual((done.returncode, done.stderr), (0, b""))
        for option in (b"--exec", b"--kernel", b"--append", b"--memory", b"--cpus"):
            self.assertIn(option, done.stdout)

    def test_wrong_usage_is_one_clear_line_and_status_2(self):
        for arguments in (["--no-such-option"], ["stray"], ["--exec"], ["--kernel", "/no/such/file"], ["--memory", "much"],
                          ["--cpus", "0"], ["--cpus=two"]):
            with self.subTest(arguments=arguments):
                done = boot(*arguments)
                self.assertEqual((done.returncode, done.stdout), (2, b""))
                self.assertRegex(done.stderr, rb"\Ascripts/boot: [^\n]+\n\Z")


class ExecTest(unittest.TestCase):
    """Each of these starts a guest."""

    def test_output_errors_and_status_come_out_exactly(self):
        done = boot("--append", "vmsuperio.word=seen", "--exec",
                    "uname -r; grep -c 16550A /proc/tty/driver/serial; printf 'a\\r\\n\\000\\001\\377\\tb'"
                    " | tee /dev/stderr; grep -o 'word=seen' /proc/cmdline; cat; exit 7")
        lines = done.stdout.split(b"\n", 2)
        self.assertRegex(lines[0], rb"\A\d+\.\d+\.\d+\S*\Z")
        self.assertGreaterEqual(int(lines[1]), 1)
        self.assertEqual(lines[2], b"a\r\n\0\x01\xff\tbword=seen\n")
        report, _, errors = done.stderr.partition(b"\n")
        self.assertRegex(report, rb"\Ascripts/boot: running (directly|nested in QEMU), because \S")
        self.assertEqual(errors, b"a\r\n\0\x01\xff\tb")
        self.assertEqual(done.returncode, 7)

    def test_a_guest_that_dies_is_reported_with_its_log(self):
        done = boot("--exec", "echo before; echo dying >/dev/kmsg; echo c >/proc/sysrq-trigger; echo after")
        self.assertEqual((done.returncode, done.stdout), (125, b"before\n"))
        log = re.search(rb"its log is (\S+)\n", done.stderr)
        self.assertIsNotNone(log, done.stderr)
        with open(log.group(1), "rb") as file:
            self.assertIn(b"sysrq triggered crash", file.read())
        os.unlink(log.group(1))

    def test_arguments_after_two_dashes_go_to_kvm_vmm(self):
        done = boot("--exec", "nproc", "--", "--no-such-option")
        self.assertEqual((done.returncode, done.stdout), (125, b""))
        self.assertIn(b"kvm_vmm's exit status is 2", done.stderr)


class ShellTest(unittest.TestCase):
    """The interactive session, at a terminal."""

    def test_a_session_ends_with_the_shell_and_leaves_the_terminal_as_it_was(self):
        with Terminal([BOOT], rows=33, columns=117) as terminal:
            terminal.expect(PROMPT)
            terminal.type(b"stty size; echo $((6 * 7)) answered\r")
            terminal.expect(rb"33 117\r\n42 answered\r\n")
            terminal.expect(PROMPT)
            # Job control: Ctrl-Z and Ctrl-C go to the guest, not to the script.
            terminal.type(b"sh -c \"trap 'echo resumed' CONT; echo started; while :; do sleep 1; done\"\r")
            terminal.expect(rb"started\r\n")
            terminal.type(b"\x1a")
            terminal.expect(rb"Stopped")
            terminal.type(b"fg\r")
            terminal.expect(rb"resumed\r\n")
            terminal.type(b"\x03")
            terminal.expect(PROMPT)
            terminal.type(b"exit 3\r")
            self.assertEqual(terminal.wait(), 0)
            self.assertEqual(terminal.mode(), terminal.mode_before)

    def test_ctrl_a_x_leaves_and_restores_the_terminal(self):
        with Terminal([BOOT]) as terminal:
            terminal.expect(PROMPT)
            self.assertNotEqual(terminal.mode(), terminal.mode_before)
            terminal.type(b"\x01x")
            self.assertEqual(terminal.wait(), 0)
            self.assertEqual(terminal.mode(), terminal.mode_before)

    def test_a_signal_leaves_and_restores_the_terminal(self):
        with Terminal([BOOT]) as terminal:
            terminal.expect(rb"Linux version")
            self.assertNotEqual(terminal.mode(), terminal.mode_before)
            terminal.kill(signal.SIGTERM)
            self.assertEqual(terminal.wait(), 128 + signal.SIGTERM)
            self.assertEqual(terminal.mode(), terminal.mode_before)

    def test_a_script_on_stdin_is_typed_into_the_shell(self):
        done = subprocess.run([BOOT], input=b"echo $((6 * 7)) answered\n", capture_output=True, timeout=PATIENCE, check=False)
        self.assertIn(b"\r\n42 answered\r\n", done.stdout)
        self.assertEqual(done.returncode, 0)


if __name__ == "__main__":
    unittest.main(verbosity=2)
