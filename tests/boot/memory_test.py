# SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
"""The balloon, with the driver of an unmodified Debian kernel: memory returns to the host, and to the guest when it needs it."""

import json
import unittest

from boot_test_support import PATIENCE, PROMPT, MachineTest

CTRL_A = b"\x01"
METRICS = "/tmp/memory-metrics.json"
MIB = 1 << 20
TARGET = 128
# What the guest fills, and then needs although most of its memory is in the balloon.
FILLED = 160


class MemoryTest(MachineTest):
    """One guest of 384 MiB."""

    memory_mib = 512

    def resident_mib(self):
        status, output = self.machine.shell("sed -n 's/^VmRSS:[^0-9]*//p' /proc/$(pidof kvm_vmm)/status", PATIENCE)
        self.assertEqual(status, 0, output)
        return int(output.split()[0]) // 1024

    def wait_for(self, condition, what, seconds=90):
        for _ in range(seconds):
            value = condition()
            if value:
                return value
            self.machine.shell("sleep 1", PATIENCE)
        self.fail(f"{what} did not happen; {self.resident_mib()} MiB are resident")

    def counters(self):
        """Those of the VM that runs."""
        status, output = self.machine.shell(f"rm -f {METRICS}; kill -USR1 $(pidof kvm_vmm); while [ ! -e {METRICS} ]; do sleep 0.1; done",
                                            PATIENCE)
        self.assertEqual(status, 0, output)
        return json.loads(self.machine.get(METRICS))["virtio"]["balloon0"]

    def command(self, run, command, pattern, timeout=PATIENCE):
        run.send(command + b"\n")
        found = run.expect(pattern, timeout)
        run.expect(PROMPT, PATIENCE)
        return found

    def test_memory_returns_to_the_host_and_to_a_guest_that_needs_it(self):
        run = self.shell("--memory", "384M", "--balloon", f"target={TARGET}M", "--metrics", METRICS)
        self.command(run, b"stty -echo; mount -t tmpfs -o size=100% tmpfs /mnt; grep MemTotal /proc/meminfo", rb"MemTotal: +(\d+) kB")
        before = self.resident_mib()
        self.command(run, b"dd if=/dev/urandom of=/mnt/f bs=1M count=%d 2>/dev/null; echo fil''led" % FILLED, rb"filled")
        filled = self.resident_mib()
        # Some of it was used during the start, and is free since.
        self.assertGreater(filled, before + FILLED // 2)

        # What the guest has used once stays, as long as it has no driver.
        self.command(run, b"rm /mnt/f; echo re''moved", rb"removed")
        self.assertGreater(self.resident_mib(), filled - 8)
        self.command(run, b"modprobe virtio_mmio; modprobe virtio_balloon; echo load''ed", rb"loaded")
        self.wait_for(lambda: self.counters()["inflated_bytes"] >= TARGET * MIB, "the target")
        freed = self.wait_for(lambda: (now := self.resident_mib()) < filled - FILLED // 2 and now, "the return of freed memory")
        reported = self.counters()["reported_bytes"]

        # More than is left beside the balloon: the driver deflates it, and no process is killed.
        needed = 384 - TARGET - 20
        found = self.command(run, b"dd if=/dev/zero of=/mnt/g bs=1M count=%d 2>&1 | tail -n 1; dmesg | grep -ci 'out of memory'" % needed,
                             rb"records out\r\n(\d+)\r")
        self.assertEqual(found.group(1), b"0")
        self.assertGreater(self.resident_mib(), needed)
        # The driver's statistics come every 10 s.
        self.wait_for(lambda: self.counters()["guest_free_bytes"] < 64 * MIB, "new statistics")
        run.send(CTRL_A + b"x")
        self.assertEqual(run.wait(PATIENCE), 0)
        counters = json.loads(self.machine.get(METRICS))["virtio"]["balloon0"]
        print(f"resident: {before} MiB, {filled} with a file of {FILLED}, {freed} without it; {counters}")
        self.assertGreaterEqual(counters["inflated_bytes"], TARGET * MIB)
        self.assertGreater(reported, 16 * MIB)
        self.assertGreater(counters["deflated_bytes"], 0)
        self.assertEqual((counters["driver_errors"], counters["ignored_pages"], counters["host_errors"]), (0, 0, 0))
        self.assertTrue(256 * MIB < counters["guest_total_bytes"] < 384 * MIB, counters)
        self.assertTrue(0 < counters["guest_free_bytes"] < counters["guest_total_bytes"], counters)
        self.assertGreater(counters["guest_minor_faults"], 0)


if __name__ == "__main__":
    unittest.main(verbosity=2)
