# SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
"""The devices, as an unmodified Debian kernel finds and uses them."""

import os
import re
import unittest

from boot_test_support import PATIENCE, PROMPT, MachineTest

CTRL_A = b"\x01"
# How many commands are typed while the kernel's log floods the console.
TYPED_COMMANDS = int(os.environ.get("VMSUPERIO_TYPED_COMMANDS", "100"))


class DeviceTest(MachineTest):
    """All in the guests of one machine."""

    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.add_guest_tool()

    def tool(self, *commands):
        """Runs guest_tool with each of these arguments in one guest; returns its output."""
        script = "cp /session/guest_tool /tmp/; chmod +x /tmp/guest_tool; set -e; " + "; ".join(commands)
        done = self.in_guest(script)
        self.assertEqual((done.status, done.stderr), (0, b""), done.log.decode(errors="replace")[-3000:])
        return done

    def test_serial_ports_and_clock(self):
        done = self.tool(
            "cat /proc/tty/driver/serial",
            # One of the four ports that is neither the console nor one for our own output.
            "dmesg",
            "/tmp/guest_tool rtc-alarm 2",
            "/tmp/guest_tool rtc-updates 2",
            "/tmp/guest_tool rtc-periodic 64 64",
            "hwclock -r -u",
        )
        text = done.stdout.decode()
        with self.subTest("each port is a 16550A without bugs"):
            ports = re.findall(r"^\d: uart:(\S+) .*$", text, re.MULTILINE)
            self.assertEqual(ports, ["16550A"] * 4)
            self.assertNotIn("bugs", text.lower().split("\n[")[0])
        with self.subTest("no warning about the serial ports, the keyboard controller, the clock or ACPI"):
            for line in text.splitlines():
                # A hint that the kernel prints on every machine without PCI.
                if line.endswith("and report a bug"):
                    continue
                if re.search(r"serial|ttyS|8250|i8042|atkbd|psmouse|rtc|ACPI", line):
                    self.assertNotRegex(line, r"(?i)warn|error|fail|bug\b|timeout|broken|overrun|unable|can't")
        with self.subTest("controller, keyboard, mouse port and clock are found"):
            for found in (r"serio: i8042 KBD port at 0x60,0x64 irq 1", r"serio: i8042 AUX port at 0x60,0x64 irq 12",
                          r"input: AT Translated Set 2 keyboard", r"rtc_cmos .*registered as rtc0"):
                self.assertRegex(text, found)
        with self.subTest("probing the controller takes no time"):
            first = float(re.search(r"\[ *([\d.]+)\] i8042: PNP", text).group(1))
            last = float(re.search(r"\[ *([\d.]+)\] input: AT Translated", text).group(1))
            print(f"i8042: {1000 * (last - first):.0f} ms from the first line to the keyboard")
            # A controller that does not answer costs 500 ms for each command.
            self.assertLess(last - first, 0.4)
        with self.subTest("alarm, update and periodic interrupts come"):
            alarm = int(re.search(r"alarm after (\d+) ms", text).group(1))
            self.assertTrue(900 <= alarm <= 6000, alarm)
            self.assertRegex(text, r"2 updates in \d+ ms")
            periodic = int(re.search(r"64 interrupts in (\d+) ms", text).group(1))
            self.assertTrue(900 <= periodic <= 6000, periodic)

    def test_loopback_of_64_kib(self):
        # COM1 is the console; the second port is not used by a session.
        run = self.shell("--serial", "stdio", "--serial", "null")
        run.send(b"cp /session/guest_tool /tmp/t; chmod +x /tmp/t; /tmp/t loopback /dev/ttyS1 65536; echo status''=$?\n")
        run.expect(rb"loopback of 65536 bytes is right\r\nstatus=0", PATIENCE)
        run.send(CTRL_A + b"x")
        self.assertEqual(run.wait(PATIENCE), 0)

    def test_an_absent_controller_costs_nothing(self):
        done = self.in_guest("dmesg | grep -i i8042", "--i8042", "absent", cmdline="reboot=p")
        times = [float(time) for time in re.findall(rb"^\[ *([\d.]+)\]", done.stdout, re.MULTILINE)]
        if times:
            print(f"i8042 absent: {1000 * (times[-1] - times[0]):.0f} ms")
            self.assertLess(times[-1] - times[0], 0.4)
        self.assertNotRegex(done.stdout, rb"(?i)timeout|serio")

    def test_ctrl_alt_del_reboots(self):
        run = self.shell()
        run.send(CTRL_A + b"c")
        self.assertEqual(run.wait(PATIENCE), 10)

    def test_typed_commands_survive_a_flood_of_kernel_messages(self):
        run = self.shell()
        run.send(b"echo 8 >/proc/sys/kernel/printk; echo on >/proc/sys/kernel/printk_devkmsg\n")
        run.expect(PROMPT, PATIENCE)
        run.send(b"(while :; do echo flood flood flood flood >/dev/kmsg; done) & echo start''ed\n")
        run.expect(rb"started", PATIENCE)
        for number in range(TYPED_COMMANDS):
            # The answer is longer than the echo of the input, and may contain lines of the flood.
            run.send(b"echo %d >>/tmp/typed\n" % number)
            if number % 16 == 15:
                run.send(b"echo batch''-%d-done >/dev/kmsg\n" % number)
                run.expect(rb"batch-%d-done" % number, PATIENCE)
        run.send(b"kill $!; wait; echo 1 >/proc/sys/kernel/printk; sleep 1; seq 0 %d | cmp - /tmp/typed && echo all''-there\n"
                 % (TYPED_COMMANDS - 1))
        run.expect(rb"all-there", PATIENCE)
        run.send(CTRL_A + b"x")
        self.assertEqual(run.wait(PATIENCE), 0)


if __name__ == "__main__":
    unittest.main()
