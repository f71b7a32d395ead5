# SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
"""What the boot tests share. A test class boots one machine (see scripts/lib/machine/machine.py) and runs any number of
guests on it, because starting an emulated machine takes seconds.

    class SmpTest(MachineTest):
        def test_all_cpus_come_up(self):
            done = self.in_guest("nproc", "--cpus", "4")
            self.assertEqual((done.stdout, done.status), (b"4\n", 0))

Environment: VMSUPERIO_KVM_VMM is the program (a static one, if the machine is emulated); VMSUPERIO_MACHINE may be
"direct" or "nested" to choose the machine.
"""

import dataclasses
import fcntl
import functools
import os
import pathlib
import pty
import re
import select
import signal
import subprocess
import sys
import tempfile
import termios
import time
import traceback
import unittest

REPOSITORY = pathlib.Path(__file__).resolve().parents[2]
sys.path.insert(0, str(REPOSITORY / "scripts" / "lib"))

from machine import guest, machine  # noqa: E402  pylint: disable=wrong-import-position

# Seconds. Only a hang should reach this limit: an emulated machine on a busy host is slow.
PATIENCE = 150
STOP_PATIENCE = 60
PROMPT = rb"guest:[^\r\n]*# "


@dataclasses.dataclass
class Finished:
    """A command that ran in a guest, and the guest it ran in."""

    status: int  # of the command; None if the guest ended before the command did
    stdout: bytes
    stderr: bytes
    log: bytes  # what the guest's first serial port printed
    vmm_status: int
    vmm_stderr: bytes


def again_if_lost(test):
    """A test method that is tried again if the machine's emulation lost its guest the first time. The failure is only
    noticed if it leaves the method: no guest may be started inside of subTest()."""

    @functools.wraps(test)
    def tried(self):
        try:
            return test(self)
        except Exception:
            with open(self._log.name, "rb") as log:  # pylint: disable=protected-access
                print(f"--- end of the log of the {self.machine.kind} machine:\n"
                      + log.read()[-2000:].decode(errors="replace"))
            if not self.machine.lost_guest():
                raise
            traceback.print_exc(file=sys.stdout)
        print(f"{self.id()}: once more, because the emulated machine lost the guest")
        self.tearDown()
        self.setUp()
        return test(self)

    return tried


class MachineTest(unittest.TestCase):
    """Tests that share a machine."""

    # The memory that the largest guest of the class may have.
    memory_mib = 512
    # Images of this computer that the machine has, under the names machine.disks.
    disks = ()
    network = False
    machine = None

    def __init_subclass__(cls, **arguments):
        super().__init_subclass__(**arguments)
        for name in unittest.defaultTestLoader.getTestCaseNames(cls):
            if name in vars(cls):
                setattr(cls, name, again_if_lost(vars(cls)[name]))

    @classmethod
    def setUpClass(cls):
        kvm_vmm = os.environ.get("VMSUPERIO_KVM_VMM", str(REPOSITORY / "build/static/examples/kvm_vmm/src/kvm_vmm"))
        kind = os.environ.get("VMSUPERIO_MACHINE") or ("nested" if machine.why_not_direct() else "direct")
        cls.image = guest.Image.of_debian(kvm_vmm, print)
        cls._log = tempfile.NamedTemporaryFile(prefix="vmsuperio-boot-test-", suffix=".log")
        cls.addClassCleanup(cls._log.close)
        cls.machine_kind = kind
        cls.open_machine()
        cls.addClassCleanup(cls.close_machine)

    @classmethod
    def open_machine(cls):
        cls.machine = machine.open_machine(cls.machine_kind, print, cls._log.name, cls.memory_mib, cls.disks, cls.network)

    @classmethod
    def add_guest_tool(cls, **session):
        """Makes guest_tool, whose path here is cls.guest_tool, /session/guest_tool of each guest. `session` are the
        empty files that switch parts of the guest's init on."""
        cls.guest_tool = os.environ["VMSUPERIO_GUEST_TOOL"]
        with tempfile.NamedTemporaryFile(prefix="vmsuperio-initramfs-", delete=False) as file:
            file.write(cls.image.initramfs.read_bytes()
                       + guest.session_archive({"guest_tool": pathlib.Path(cls.guest_tool).read_bytes()}))
        cls.addClassCleanup(os.unlink, file.name)
        cls.image = dataclasses.replace(cls.image, initramfs=pathlib.Path(file.name),
                                        session=session or cls.image.session)

    @classmethod
    def close_machine(cls):
        if cls.machine is not None:
            cls.machine.close()
            cls.machine = None

    def setUp(self):
        if self.machine is None:
            self.open_machine()

    def tearDown(self):
        """A test that failed leaves its guest running, which must not affect the next one."""
        try:
            self.machine.stop_run(STOP_PATIENCE)
        except (machine.MachineError, OSError) as error:
            print(f"a new machine is started, because {error}")
            self.close_machine()

    def shell(self, *arguments):
        """A guest that shows its shell's prompt."""
        line, streams = guest.shell_session(self.machine, self.image, arguments)
        run = self.machine.run(line, streams)
        run.expect(PROMPT, PATIENCE)
        return run

    def kvm_vmm(self, *arguments, stdin="/dev/null"):
        """kvm_vmm with only these arguments."""
        return self.machine.run([self.machine.put(self.image.kvm_vmm), *arguments], stdin=stdin)

    def in_guest(self, command, *arguments, cmdline="", stdin="/dev/null"):
        """Runs a command in a guest of its own; kvm_vmm gets these arguments."""
        image = dataclasses.replace(self.image, cmdline=cmdline)
        run = guest.run_command(self.machine, image, command, arguments, stdin)
        run.wait(PATIENCE)
        status = guest.status_of(run.stream(guest.STATUS))
        return Finished(status, run.stream(guest.STDOUT), run.stream(guest.STDERR), run.stdout, run.status, run.stderr)


class Terminal:
    """A program that runs in its own terminal."""

    def __init__(self, command, rows=30, columns=100):
        master, slave = pty.openpty()
        self._file = master
        self._slave = slave
        os.set_blocking(master, False)
        self.output = bytearray()
        self._matched = 0
        subprocess.run(["stty", "rows", str(rows), "cols", str(columns)], stdin=slave, check=True)
        self.mode_before = self.mode()

        def own_terminal():
            fcntl.ioctl(slave, termios.TIOCSCTTY, 0)

        # pylint: disable-next=consider-using-with
        self.process = subprocess.Popen(command, stdin=slave, stdout=slave, stderr=slave, start_new_session=True,
                                        preexec_fn=own_terminal)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        os.close(self._slave)
        os.close(self._file)

    def mode(self):
        """All settings of the terminal."""
        return subprocess.run(["stty", "-a"], stdin=self._slave, capture_output=True, check=True).stdout

    def type(self, data):
        os.write(self._file, data)

    def expect(self, pattern, timeout=PATIENCE):
        """Waits until the output after the last match matches."""
        deadline = time.monotonic() + timeout
        while True:
            found = re.compile(pattern, re.DOTALL).search(self.output, self._matched)
            if found:
                self._matched = found.end()
                return found
            if time.monotonic() > deadline or (not self._read(0.2) and self.process.poll() is not None):
                raise AssertionError(f"{pattern!r} did not come; the end of the output:\n"
                                     + bytes(self.output[-2000:]).decode(errors="replace"))

    def wait(self, timeout=PATIENCE):
        """Waits for the end of the program; returns its status."""
        deadline = time.monotonic() + timeout
        while self.process.poll() is None:
            self._read(0.1)
            if time.monotonic() > deadline:
                raise AssertionError("the program did not end; the end of the output:\n"
                                     + bytes(self.output[-2000:]).decode(errors="replace"))
        while self._read(0):
            pass
        return self.process.returncode

    def kill(self, number=signal.SIGTERM):
        self.process.send_signal(number)

    def _read(self, timeout):
        if not select.select([self._file], [], [], timeout)[0]:
            return False
        try:
            data = os.read(self._file, machine.CHUNK)
        except OSError:
            return False
        self.output += data
        return bool(data)
