# SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
"""Sockets between the host and a guest, with an unmodified Debian kernel."""

import json
import shlex
import unittest

from boot_test_support import PATIENCE, MachineTest
from machine import guest

SOCKET, METRICS = "/tmp/v.sock", "/tmp/vsock-metrics.json"
MIB = 1 << 20
MODULES = "modprobe virtio_mmio; modprobe vmw_vsock_virtio_transport"


class VsockTest(MachineTest):
    """All in the guests of one machine."""

    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.add_guest_tool()

    def start(self, *commands):
        """A guest with a socket device that runs these commands."""
        script = "; ".join(["cp /session/guest_tool /tmp/t", "chmod +x /tmp/t", MODULES, "set -e", *commands])
        run = guest.run_command(self.machine, self.image, script,
                                ["--vsock", f"cid=52,path={SOCKET}", "--metrics", METRICS], "/dev/null")
        self.addCleanup(self.machine.shell, f"rm -f {SOCKET}*", PATIENCE)
        return run

    def on_host(self, *words):
        """guest_tool beside kvm_vmm."""
        status, output = self.machine.shell(shlex.join([self.machine.put(self.guest_tool), *words]), PATIENCE)
        self.assertEqual(status, 0, output.decode(errors="replace")[-3000:])
        return output.decode()

    def finish(self, run):
        run.wait(PATIENCE)
        output = run.stream(guest.STDOUT).decode(errors="replace")
        self.assertEqual((guest.status_of(run.stream(guest.STATUS)), run.stream(guest.STDERR)), (0, b""),
                         output + run.stdout.decode(errors="replace")[-3000:])
        counters = json.loads(self.machine.get(METRICS))["virtio"]["vsock0"]
        print(output, counters)
        return output, counters

    def test_host_connects_to_guest(self):
        run = self.start("/tmp/t vsock-echo 7000 2")
        first = self.on_host("unix-exchange", SOCKET, "7000", str(4 * MIB))
        self.assertRegex(first, r"^OK 10737418\d\d\nexchanged 4194304 bytes")
        # The end of the stream went through in both directions, and the next connection is served.
        self.assertIn("exchanged 1 bytes", self.on_host("unix-exchange", SOCKET, "7000", "1"))
        output, counters = self.finish(run)
        self.assertEqual(output.count("echoed"), 2)
        self.assertEqual(counters["connections"], 2)
        self.assertEqual(counters["rx_bytes"], 4 * MIB + 1)
        self.assertEqual(counters["tx_bytes"], 4 * MIB + 1)
        self.assertEqual((counters["driver_errors"], counters["malformed"]), (0, 0))

    def test_guest_connects_to_host(self):
        run = self.start("for i in $(seq 100); do /tmp/t vsock-exchange 2 9000 4194304 2>/tmp/error && break; sleep 0.2; done",
                         "[ $i != 100 ]",
                         # Nobody listens: refused at once.
                         "! /tmp/t vsock-exchange 2 9001 1 2>&1")
        self.assertIn("echoed 4194304 bytes", self.on_host("unix-echo", SOCKET + "_9000"))
        output, counters = self.finish(run)
        self.assertIn("exchanged 4194304 bytes", output)
        self.assertIn("guest_tool: connect: Connection reset by peer", output)
        self.assertEqual(counters["connections"], 1)
        self.assertGreaterEqual(counters["refused"], 1)
        self.assertEqual((counters["driver_errors"], counters["malformed"]), (0, 0))
        # The socket is removed with the VM.
        self.assertEqual(self.machine.shell(f"test -e {SOCKET}", PATIENCE)[0], 1)


if __name__ == "__main__":
    unittest.main()
