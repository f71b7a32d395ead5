# SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
"""Every kind of kernel and machine boots, and every way to end ends with its documented code."""

import pathlib
import re
import subprocess
import tempfile
import unittest

from boot_test_support import PATIENCE, PROMPT, REPOSITORY, MachineTest


class MachineKindsTest(MachineTest):
    """All in the guests of one machine."""

    memory_mib = 5 * 1024

    def check_boot(self, *arguments, cpus=1, memory_mib=512, cmdline=""):
        """Boots, and checks CPUs, RAM and that the log has no complaint about ACPI."""
        done = self.in_guest(
            "nproc; awk '/MemTotal/ { print int($2 / 1024) }' /proc/meminfo; dmesg",
            "--cpus", str(cpus), "--memory", f"{memory_mib}M", *arguments, cmdline=cmdline)
        self.assertEqual(done.status, 0, (arguments, cpus, memory_mib, cmdline, done.vmm_stderr + done.log[-3000:]))
        seen_cpus, seen_memory, log = done.stdout.split(b"\n", 2)
        self.assertEqual(int(seen_cpus), cpus)
        # The kernel keeps its own code and its page array out of the total.
        self.assertTrue(0.85 * memory_mib - 60 < int(seen_memory) <= memory_mib, seen_memory)
        # Less the advice that the kernel gives on every machine without PCI.
        log = re.sub(rb"[^\n]*and report a bug\n", b"", log)
        self.assertNotRegex(log, rb"(?i)ACPI[^\n]*(error|warn|fail|bug)")

    def vmlinux(self):
        """Debian's kernel as an ELF file."""
        with tempfile.TemporaryDirectory() as directory:
            path = pathlib.Path(directory) / "vmlinux"
            subprocess.run([REPOSITORY / "scripts/extract-vmlinux", self.image.kernel, path], check=True)
            return self.machine.put(path.read_bytes())

    def test_bzimage_with_one_cpu_and_little_memory(self):
        self.check_boot(memory_mib=128)

    def test_without_acpi_and_io_apic(self):
        # Debian's cloud kernel has no parser for MP tables either, so that it finds one CPU.
        self.check_boot(cmdline="acpi=off noapic")

    def test_four_cpus_and_memory_beyond_4_gib(self):
        self.check_boot(cpus=4, memory_mib=4608)

    def test_elf_kernel_by_either_protocol(self):
        vmlinux = self.vmlinux()
        for protocol, cpus in (("linux", 1), ("pvh", 2)):
            self.check_boot("--kernel", vmlinux, "--boot-protocol", protocol, cpus=cpus)

    def test_the_ways_to_end(self):
        for command, code in (("poweroff -f", 0), ("reboot -f", 10), ("halt -f", 13), ("echo c >/proc/sysrq-trigger", 10),
                              # The panic is reported before the reset.
                              ("modprobe pvpanic-mmio; echo c >/proc/sysrq-trigger", 11)):
            done = self.in_guest(command)
            self.assertEqual(done.vmm_status, code, (command, done.vmm_stderr))

    def test_each_way_to_reset(self):
        # k: keyboard controller, a: ACPI, p: port 0xCF9, t: triple fault
        for how, code in (("a", 10), ("p", 10), ("t", 12)):
            done = self.in_guest("reboot -f", cmdline=f"reboot={how}")
            self.assertEqual(done.vmm_status, code, (how, done.vmm_stderr))

    def test_restart_in_place(self):
        run = self.shell("--on-reboot", "restart")
        for boot in range(2):
            run.send(b"cat /proc/uptime; echo boot''-%d\n" % boot)
            run.expect(rb"boot-%d" % boot, PATIENCE)
            run.expect(PROMPT, PATIENCE)
            if boot == 0:
                run.send(b"date -u -s '2031-02-03 04:05:06' && hwclock -w -u; echo set''=$?\n")
                run.expect(rb"set=0", PATIENCE)
                run.expect(PROMPT, PATIENCE)
            else:
                # As the kernel took it from the clock at its start, and as the clock says now.
                run.send(b"date -u +kernel''=%Y-%m-%d; hwclock -r -u; echo read''=$?\n")
                run.expect(rb"kernel=2031-02-03", PATIENCE)
                run.expect(rb"Feb +3 04:0\d:\d\d 2031", PATIENCE)
                run.expect(rb"read=0", PATIENCE)
                run.expect(PROMPT, PATIENCE)
            run.send(b"reboot -f\n")
            run.expect(PROMPT, PATIENCE)
        run.send(b"poweroff -f\n")
        self.assertEqual(run.wait(PATIENCE), 0)
        self.assertEqual(len(re.findall(rb"Linux version", run.stdout)), 3)


if __name__ == "__main__":
    unittest.main()
