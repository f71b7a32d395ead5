#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
"""scripts/tour explains each access of the recorded boot, by the right names, wherever its output goes."""
import os
import pathlib
import pty
import subprocess
import sys
import tempfile
import unittest

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent
sys.path.insert(0, str(ROOT / "scripts/lib"))
import tour  # pylint: disable=wrong-import-position

TOUR = str(ROOT / "scripts/tour")
# By the datasheet: offset -> names of a read, of a write, and while DLAB is set.
UART = {0: ("RBR", "THR", "DLL"), 1: ("IER", "IER", "DLM"), 2: ("IIR", "FCR", None), 3: ("LCR", "LCR", None),
        4: ("MCR", "MCR", None), 5: ("LSR", "LSR", None), 6: ("MSR", "MSR", None), 7: ("SCR", "SCR", None)}


def run(*arguments, **options):
    return subprocess.run([TOUR, *arguments], stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False, **options)


class TourTest(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.accesses = tour.read_trace(ROOT / tour.TRACE)
        cls.steps = tour.steps(cls.accesses)

    def test_each_access_to_the_two_devices_is_explained_once(self):
        explained = [access for step in self.steps for access, _, _ in step.lines]
        self.assertEqual(explained, [access for access in self.accesses if access.device in tour.DEVICES])
        self.assertGreater(len(explained), 300)
        for step in self.steps:
            for access, shown, sentence in step.lines:
                self.assertTrue(sentence, f"{step.title}: {access}")
                self.assertRegex(sentence, r"^[A-Z0].*\.$", shown)

    def test_the_steps_are_those_of_linux(self):
        titles = [step.title for step in self.steps]
        order = ["The console is set up", "A line is printed", "The 8250 driver probes the port",
                 "The i8042 driver looks for a controller", "The keyboard driver sets up the keyboard",
                 "The mouse driver looks for a mouse", "A program opens the console", "The guest restarts"]
        self.assertEqual([title for at, title in enumerate(titles) if title not in titles[:at]], order)
        self.assertIn("Pulses the CPU's reset line", self.steps[-1].lines[-1][2])

    def test_registers_have_the_datasheets_names(self):
        dlab = False
        for step in self.steps:
            for access, shown, _ in step.lines:
                if access.device == "COM1":
                    names = UART[access.address - 0x3F8]
                    name = names[2] if dlab and names[2] else names[access.write]
                    self.assertTrue(shown.startswith(f"{name}=0x{access.value:02X}"), shown)
                    dlab = bool(access.value & 0x80) if name == "LCR" and access.write else dlab
                else:
                    self.assertIn(access.address, (0x60, 0x64))
                    self.assertRegex(shown, r"^(status|command|command_byte|data)=0x[0-9A-F]{2}")

    def test_bits_have_their_names(self):
        shown = {text for step in self.steps for _, text, _ in step.lines}
        self.assertIn("LSR=0x60 [thr_empty transmitter_empty]", shown)
        self.assertIn("IER=0x0F [received_data thr_empty line_status modem_status]", shown)
        self.assertIn("status=0x35 [output_full system_flag not_locked aux_data]", shown)
        self.assertIn("status=0x1C [system_flag last_command not_locked]", shown)
        self.assertIn("command=0xFE pulse_output", shown)

    def test_without_a_terminal_there_are_no_colours(self):
        result = run()
        self.assertEqual((result.returncode, result.stderr), (0, ""))
        self.assertNotIn("\033", result.stdout)
        self.assertIn("PCI: Fatal: No config space access function found", result.stdout)
        self.assertLessEqual(max(map(len, result.stdout.splitlines())), 130)
        # All bytes of the printed lines on request.
        self.assertGreater(len(run("--all").stdout.splitlines()), len(result.stdout.splitlines()) + 50)

    def on_a_terminal(self, **environment):
        master, slave = pty.openpty()
        with subprocess.Popen([TOUR, "--step", "1"], stdin=subprocess.DEVNULL, stdout=slave, stderr=subprocess.PIPE,
                              env={**os.environ, "TERM": "xterm", **environment}) as process:
            os.close(slave)
            output = b""
            try:
                while chunk := os.read(master, 4096):
                    output += chunk
            except OSError:
                pass  # the other side is closed
            os.close(master)
            self.assertEqual((process.wait(), process.stderr.read()), (0, b""))
        return output

    def test_a_terminal_has_colours_unless_no_color_is_set(self):
        environment = {"NO_COLOR": ""}
        self.assertIn(b"\033[", self.on_a_terminal(**environment))
        self.assertNotIn(b"\033[", self.on_a_terminal(NO_COLOR="1"))
        self.assertNotIn(b"\033[", self.on_a_terminal(NO_COLOR="", TERM="dumb"))

    def test_a_reader_may_leave(self):
        with subprocess.Popen([TOUR, "--all"], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
            process.stdout.readline()
            process.stdout.close()
            self.assertEqual(process.stderr.read(), b"")
            self.assertIn(process.wait(), (0, -13))

    def test_wrong_usage_and_other_traces(self):
        self.assertEqual(run("--step", "99").returncode, 2)
        self.assertEqual(run("--nonsense").returncode, 2)
        self.assertEqual(run("--trace", "/nonexistent").returncode, 1)
        with tempfile.TemporaryDirectory() as folder:
            trace = pathlib.Path(folder, "trace")
            trace.write_text("what is this\n", encoding="utf-8")
            self.assertIn("this is not a line of a trace", run("--trace", str(trace)).stderr)
            # A command that no driver of Linux sends here.
            trace.write_text("# x\n1.0 0 pio w 0x0064 1 0x99 i8042.command\n", encoding="utf-8")
            result = run("--trace", str(trace))
            self.assertEqual(result.returncode, 1)
            self.assertIn("(not explained)", result.stdout)


if __name__ == "__main__":
    unittest.main()
