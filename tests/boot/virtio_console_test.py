# SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
"""The virtio console of an unmodified Debian kernel, and a reboot in place with a share and sockets in use."""

import hashlib
import json
import random
import re
import shlex
import unittest

from boot_test_support import PATIENCE, MachineTest
from machine import guest

CTRL_A = b"\x01"
LOG = "log"
PROMPT = rb"hvc:[^\r\n]*# "
SOCKET, METRICS, SHARE = "/tmp/hvc.sock", "/tmp/hvc-metrics.json", "/tmp/hvc-share"
KIB = 1024
# What the guest runs after each start: the prompt is on hvc0, and the kernel's log on the serial port. The server is not a child of
# the shell, which would take the end of a child that it has not started for the end of its input.
SESSION = """cp /session/guest_tool /tmp/t; chmod +x /tmp/t
mkdir -p /mnt; mount -t virtiofs share0 /mnt
(/tmp/t vsock-echo 7000 1 &)
PS1='hvc:\\w# ' exec getty -n -l /bin/sh 0 hvc0 vt100
"""


class VirtioConsoleTest(MachineTest):
    """One guest, which starts twice."""

    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.add_guest_tool(devices=b"")

    def on_host(self, script):
        status, output = self.machine.shell(script, PATIENCE)
        self.assertEqual(status, 0, output.decode(errors="replace")[-3000:])
        return output

    def start(self):
        session = {"command": SESSION.encode(), "stdout": b"ttyS1\n", "stderr": b"ttyS2\n", "status": b"ttyS3\n"}
        streams = self.machine.streams(LOG, guest.STDOUT, guest.STDERR, guest.STATUS)
        line = guest.command_line(self.machine, self.image, session, [f"file={path}" for path in streams.values()], [
            "--console", "stdio", "--on-reboot", "restart", "--share", f"{SHARE},writable", "--vsock", f"cid=52,path={SOCKET}",
            "--metrics", METRICS])
        return self.machine.run(line, streams)

    def command(self, run, command, pattern):
        run.send(command + b"\n")
        found = run.expect(pattern, PATIENCE)
        run.expect(PROMPT, PATIENCE)
        return found

    def exchange(self):
        """The socket device connects a program of the host to the one in the guest."""
        self.assertIn(b"exchanged 65536 bytes",
                      self.on_host(shlex.join([self.machine.put(self.guest_tool), "unix-exchange", SOCKET, "7000", "65536"])))

    def test_text_input_and_a_reboot_with_a_share_and_sockets(self):
        self.on_host(f"rm -rf {SHARE}; mkdir {SHARE}")
        run = self.start()
        run.expect(PROMPT, PATIENCE)
        self.command(run, b"stty -echo; tty; echo $((6 * 7)) answered", rb"/dev/hvc0\r\n42 answered\r\n")

        # 64 KiB of text arrive as they are, a page for each notification.
        checksum = self.command(run, b"head -c 48k /dev/urandom | base64 >/tmp/text; sha256sum </tmp/text", rb"([0-9a-f]{64})  -").group(1)
        text = self.command(run, b"stty -opost; echo beg''in; cat /tmp/text; echo e''nd; stty opost", rb"begin\n(.*)end\n").group(1)
        self.assertGreater(len(text), 64 * KIB)
        self.assertEqual(hashlib.sha256(text).hexdigest().encode(), checksum)

        # 16 KiB are typed at once, whatever bytes these are.
        typed = random.Random(16).randbytes(16 * KIB)
        run.send(b"stty raw; echo read''y; head -c %d >/tmp/typed; stty sane -echo; sha256sum </tmp/typed\n" % len(typed))
        run.expect(rb"ready\n", PATIENCE)
        run.send(typed.replace(CTRL_A, CTRL_A + CTRL_A))
        self.assertEqual(run.expect(rb"([0-9a-f]{64})  -", PATIENCE).group(1).decode(), hashlib.sha256(typed).hexdigest())
        run.expect(PROMPT, PATIENCE)
        self.on_host(f"rm -f {METRICS}; kill -USR1 $(pidof kvm_vmm); while [ ! -e {METRICS} ]; do sleep 0.1; done")
        console = json.loads(self.machine.get(METRICS))["virtio"]["console0"]
        print(console)
        self.assertGreater(console["bytes_sent"], 64 * KIB)
        self.assertGreaterEqual(console["bytes_received"], 16 * KIB)
        self.assertEqual((console["bytes_lost"], console["driver_errors"]), (0, 0))
        # A serial port has an exit for each byte.
        self.assertLess(console["notifications"], 2000)

        # The guest reboots while it writes to the share and a connection is open.
        self.exchange()
        self.command(run, b"echo kept >/mnt/kept; sync; echo d''one", rb"done")
        run.send(b"(while :; do dd if=/dev/zero of=/mnt/busy bs=64k count=16; done) 2>/dev/null & /tmp/t vsock-echo 7001 1 & sleep 1; reboot -f\n")
        run.expect(PROMPT, PATIENCE)
        self.assertIn(b"machine restart", run.stream(LOG))
        # The new guest has its own mount, the file of the old one, and the same socket.
        self.command(run, b"stty -echo; ls /tmp/text 2>&1; cat /mnt/kept; rm /mnt/busy; echo again >/mnt/again; ls /mnt",
                     rb"No such file[^\n]*\nkept\r\nagain +kept\r\n")
        self.exchange()
        self.assertEqual(self.on_host(f"cat {SHARE}/again"), b"again\n")
        run.send(CTRL_A + b"x")
        self.assertEqual(run.wait(PATIENCE), 0)
        self.assertEqual(run.stream(guest.STDERR), b"")
        # The reset of a share that is in use is an error to its driver, but only to that of the old guest.
        log = run.stream(LOG).split(b"Linux version")
        self.assertEqual(len(log), 3)
        self.assertEqual(re.findall(rb"(?i)[^\n]*(?:BUG:|hung task|virtio[^\n]*(?:fail|error)|fuse[^\n]*error)[^\n]*", log[-1]), [])
        self.assertEqual(re.findall(rb"(?i)[^\n]*(?:BUG:|hung task)[^\n]*", log[1]), [])
        for name, counters in json.loads(self.machine.get(METRICS))["virtio"].items():
            self.assertEqual(counters["driver_errors"], 0, name)


if __name__ == "__main__":
    unittest.main(verbosity=2)
