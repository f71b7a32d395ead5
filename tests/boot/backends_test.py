# SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
"""The targets of serial ports, and the observation of a VM from outside, with a real kernel."""

import collections
import json
import os
import re
import shlex
import time
import unittest

from boot_test_support import PATIENCE, MachineTest
from machine import guest

SOCKET, FILE = "/tmp/com1", "/tmp/com3"
METRICS, TRACE, LOG = "/tmp/metrics.json", "/tmp/trace", "/tmp/log"


class BackendsTest(MachineTest):
    """One guest with a port of each kind; the rest of it is in the other files, which use stdio."""

    def talk(self, target, text, expected):
        """Has a program on the host communicate with one of the guest's ports; returns what it received."""
        tool = self.machine.put(os.environ["VMSUPERIO_GUEST_TOOL"])
        status, heard = self.machine.shell(shlex.join([tool, "talk", target, text, expected]), PATIENCE)
        self.assertEqual(status, 0, heard.decode(errors="replace")[-3000:])
        return heard

    def visit(self, target, milliseconds):
        """Has a program on the host open one of the ports, read nothing, and leave."""
        tool = self.machine.put(os.environ["VMSUPERIO_GUEST_TOOL"])
        status, _ = self.machine.shell(shlex.join([tool, "visit", target, str(milliseconds)]), PATIENCE)
        self.assertEqual(status, 0)

    def while_the_kernel_boots(self, pty):
        """Clients connect and disconnect while no program in the guest listens; each one gets the new part of the log."""
        console = f"unix:{SOCKET}"
        self.talk(console, "", "Linux version")
        self.visit(pty, 300)
        self.visit(console, 300)
        # Input of a client that has disconnected before the guest listens waits for the guest.
        second = self.talk(console, "echo early''-bird\n", "Run /init")
        self.assertNotIn(b"Linux version", second, "output that another client has received")
        third = self.talk(console, "", "early-bird")
        self.assertNotIn(b"Run /init", third, "output that another client has received")

    def command(self, text, expected):
        return self.talk(f"unix:{SOCKET}", f"{text}\n", expected)

    def test_each_back_end_and_the_observers(self):
        ports = [f"unix={SOCKET}", "pty", f"file={FILE}", "null"]
        line, streams = guest.shell_session(
            self.machine, self.image,
            [*(word for port in ports for word in ("--serial", port)),
             "--metrics", METRICS, "--trace-io", TRACE, "--log", LOG, "--log-level", "debug"])
        run = self.machine.run(line, streams, stdin="/dev/null")
        pty = run.expect(rb"serial port on (/dev/pts/\d+)\n", PATIENCE, "stderr").group(1).decode()

        # The console is a socket; each connection is another client.
        self.while_the_kernel_boots(pty)
        self.command("echo $((6 * 7)) answered", "42 answered")
        self.command("echo 8 >/dev/ttyS3; echo eight''-sent", "eight-sent")

        # Each program that opens the terminal communicates with COM2.
        self.command("stty -F /dev/ttyS1 raw -echo clocal; while read word; do echo got-$word; done </dev/ttyS1 >/dev/ttyS1 &"
                     " echo listen''ing", "listening")
        for word in ("ping", "again"):
            self.talk(pty, f"{word}\n", f"got-{word}")
        # Output while no program has the terminal open does not block the guest, and the next program
        # receives it.
        self.command("seq 1 4000 >/dev/ttyS1; echo count''ed", "counted")
        heard = self.talk(pty, "", "4000\n")
        self.assertTrue(heard.endswith(b"\n3999\n4000\n"), heard[-100:])

        self.command("echo to a file >/dev/ttyS2; cat /proc/uptime; echo writ''ten", "written")
        self.assertEqual(self.machine.get(FILE), b"to a file\r\n")

        with self.subTest("a signal writes the metrics"):
            before = json.loads(self.machine.get(METRICS))
            self.assertEqual(before["exits"]["total"], 0)
            run.kill(10)  # SIGUSR1
            # The event loop does it; the clock of the test is a command that the guest answers.
            self.command("echo still''-here", "still-here")
            during = json.loads(self.machine.get(METRICS))
            self.assertIsNone(during["exit_code"])
            self.assertGreater(during["exits"]["total"], 1000)

        # No program has the terminal open, and a power-off does not wait for one.
        self.command("seq 1 4000 >/dev/ttyS1; echo count''ed", "counted")
        self.talk(f"unix:{SOCKET}", "poweroff -f\n", "Power down")
        started = time.monotonic()
        self.assertEqual(run.wait(PATIENCE), 0, run.stderr)
        self.assertLess(time.monotonic() - started, 2)
        status, heard = self.machine.shell(f"ls {SOCKET}", PATIENCE)
        self.assertIn(f"{SOCKET}: No such file".encode(), heard, "the socket is still there")
        self.assertNotEqual(status, 0)
        self.assertEqual(run.stdout, b"")

        self.check_observers()

    def check_observers(self):
        """The three files describe the whole run, and are consistent with each other."""
        metrics = json.loads(self.machine.get(METRICS))
        trace = self.machine.get(TRACE).decode().splitlines()
        log = self.machine.get(LOG).decode()
        ports = metrics["ports"]
        exits = metrics["exits"]
        with self.subTest("counts add up"):
            self.assertEqual(metrics["exit_code"], 0)
            self.assertEqual(sum(count for name, count in exits.items() if name != "total"), exits["total"])
            # There are fewer exits than accesses, because string I/O is one exit.
            accesses = {way: sum(port[way] for port in ports.values()) for way in ("reads", "writes", "unclaimed")}
            self.assertLessEqual(exits["port_read"], accesses["reads"])
            self.assertLessEqual(exits["port_write"], accesses["writes"])
            self.assertEqual(metrics["unclaimed"]["port_accesses"], accesses["unclaimed"])
            for name, device in metrics["devices"].items():
                of_device = [port for port in ports.values() if port["device"] == name]
                self.assertEqual(device["port_reads"], sum(port["reads"] for port in of_device), name)
                self.assertEqual(device["port_writes"], sum(port["writes"] for port in of_device), name)
                self.assertEqual(device["errors"], 0, name)
        with self.subTest("returns of KVM_RUN stay as few as they are (docs/performance.md)"):
            serial_ports = {name: metrics["serial"][name]["bytes_out"] for name in ("COM1", "COM2", "COM3", "COM4")}
            # Everything but serial ports. The writes to the CMOS clock's index do not return.
            machine_accesses = sum(port["reads"] + port["writes"] for number, port in ports.items()
                                   if port["device"] not in serial_ports and int(number, 16) != 0x70)
            self.assertLess(machine_accesses, 300)
            # pci=off: Linux does not look for PCI.
            pci = sum(port["reads"] + port["writes"] for number, port in ports.items() if 0xCF8 <= int(number, 16) <= 0xCFF)
            self.assertLess(pci, 16)
            # One for each byte that printk sends (it reads LSR), and the set-up. For a program that writes a line of four
            # bytes at a time, 0.6 to 1.5: each interrupt costs some, and a busy computer has more of them. If the bytes
            # themselves returned, there would be one more for each.
            self.assertLess(exits["total"], 1.1 * serial_ports["COM1"] + 1.9 * serial_ports["COM2"] + 1500, exits)
            self.assertGreater(metrics["coalesced_writes"], 0.95 * sum(serial_ports.values()))
        with self.subTest("the serial ports' bytes"):
            self.assertEqual(metrics["serial"]["COM3"]["bytes_out"], len(b"to a file\r\n"))
            self.assertGreater(metrics["serial"]["COM1"]["bytes_out"], 10000)
            self.assertGreater(metrics["serial"]["COM1"]["bytes_in"], 200)
            for name, serial in metrics["serial"].items():
                # COM1 had a client that disconnected without reading.
                lost = 0 if name == "COM1" else serial["bytes_lost"]
                self.assertEqual((lost, serial["overruns"], serial["trigger_failures"]), (0, 0, 0), name)
        with self.subTest("the trace has each access with its register's name"):
            self.assertRegex(trace[0], r"\A# ")
            counted = collections.Counter()
            names = {}
            last = 0.0
            for line in trace[1:]:
                match = re.fullmatch(r"(\d+\.\d{6}) \d+ pio ([rw]) 0x([0-9a-f]{4}) [124] ((?:,?0x[0-9a-f]+)+) (\S+)", line)
                self.assertIsNotNone(match, line)
                seconds, way, port, values, name = match.groups()
                self.assertGreaterEqual(float(seconds), last)
                last = float(seconds)
                counted[port, way] += values.count("0x")
                names.setdefault(port, set()).add(name)
            for port, counts in ports.items():
                self.assertEqual((counted[port[2:], "r"], counted[port[2:], "w"]), (counts["reads"], counts["writes"]), port)
                self.assertEqual(any(name == "-" for name in names[port[2:]]), counts["device"] is None, port)
            self.assertEqual(names["03f8"], {"COM1.RBR", "COM1.THR", "COM1.DLL"})
            self.assertEqual(names["03fd"], {"COM1.LSR"})
            self.assertIn("CMOS.index", names["0070"])
            print(f"{exits['total']} exits, {len(trace) - 1} lines of trace; the busiest ports:",
                  sorted(((port["reads"] + port["writes"], name) for name, port in ports.items()), reverse=True)[:6])
        with self.subTest("the log records what happened"):
            for pattern in (r"info: a VM with 1 CPU", r"debug: CPU 0 starts\n", r"info: ended with exit code 0\n\Z"):
                self.assertRegex(log, pattern)
            self.assertNotRegex(log, r" (warning|error): ")


if __name__ == "__main__":
    unittest.main()
