# SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
"""The network of an unmodified Debian kernel: passt, run by a user without privileges, and a tap interface."""

import json
import os
import pathlib
import re
import shlex
import shutil
import subprocess
import unittest

from boot_test_support import PATIENCE, MachineTest
from machine import guest

SIZE = 10 << 20
METRICS = "/tmp/net/metrics.json"
USER = 1000
# Of the nested host: an interface with a default route, whose address passt gives to the guest, and the tap.
HOST = "192.168.77.2"
TAP, TAP_HOST, TAP_GUEST = "tap1", "192.168.78.1", "192.168.78.2"

# What passt, and a user without privileges, need of a host that has nothing but BusyBox.
PREPARE = f"""set -e
mkdir -p /etc /tmp/net
ln -sf /usr/bin/passt /bin/passt
printf '%s\\n' root:x:0:0::/:/bin/sh nobody:x:65534:65534::/:/bin/sh user:x:{USER}:{USER}::/:/bin/sh >/etc/passwd
printf '%s\\n' root:x:0: nobody:x:65534: user:x:{USER}: >/etc/group
ip link set lo up
tunctl -t uplink
ip addr add {HOST}/24 dev uplink
ip link set uplink up
ip route add default via 192.168.77.1
echo 0 2147483647 >/proc/sys/net/ipv4/ping_group_range
tunctl -t {TAP}
ip addr add {TAP_HOST}/24 dev {TAP}
ip link set {TAP} up
chown {USER} /tmp/net
chmod a+rw /dev/kvm /dev/net/tun /dev/null
"""
# passt gives up its root directory by pivot_root(2), which is impossible while that is the initial one.
OWN_ROOT = """set -e
mkdir -p /own
mount -t tmpfs own /own
cd /own
for directory in /*; do
    if [ -d "$directory" ] && [ "$directory" != /own ]; then mkdir ".$directory" && mount --rbind "$directory" ".$directory"; fi
done
mount --move . /
exec chroot . "$@"
"""


class NetTest(MachineTest):
    """One guest with an interface for each kind of network."""

    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        if shutil.which("passt") is None:
            raise unittest.SkipTest("passt is not installed")
        cls.add_guest_tool(devices=b"", network=b"")

    def on_host(self, script):
        status, output = self.machine.shell(script, PATIENCE)
        self.assertEqual(status, 0, output.decode(errors="replace")[-3000:])
        return output.decode()

    def prepare_host(self):
        for file in ("/usr/bin/passt", *re.findall(r"/\S+", subprocess.run(
                ["ldd", "/usr/bin/passt"], capture_output=True, text=True, check=True).stdout)):
            self.machine.put(file)
        self.on_host(PREPARE)

    def run_as_user(self, script, arguments):
        """guest.run_command(), without privileges."""
        session = {"command": script.encode(), "stdout": b"ttyS1\n", "stderr": b"ttyS2\n", "status": b"ttyS3\n"}
        streams = self.machine.streams(guest.STDOUT, guest.STDERR, guest.STATUS)
        serials = ["stdio", *(f"file={path}" for path in streams.values())]
        line = guest.command_line(self.machine, self.image, session, serials, arguments)
        if self.machine.kind == "nested":
            files = [word for word in map(os.fspath, line) if os.path.isabs(word) and word != METRICS]
            directories = {str(parent) for file in files for parent in pathlib.PurePath(file).parents}
            self.on_host(f"chmod a+rw {shlex.join(streams.values())}; chmod a+x {shlex.join(directories)}; chmod a+r {shlex.join(files)}")
            line = ["unshare", "-m", "sh", "-c", OWN_ROOT, "sh", "su", "-s", "/bin/sh", "user", "-c",
                    "PATH=/bin exec " + shlex.join(os.fspath(word) for word in line)]
        return self.machine.run(line, streams, stdin="/dev/null")

    def test_ten_mebibytes_both_ways_through_passt_and_tap_as_an_ordinary_user(self):
        nested = self.machine.kind == "nested"
        arguments = ["--net", "passt,forward=tcp:2222:22", "--metrics", METRICS]
        if nested:
            self.prepare_host()
            arguments[2:2] = ["--net", f"tap={TAP}"]
        tool = self.machine.put(self.guest_tool)
        # The servers of the host. passt leads the address of the guest's gateway to the host itself.
        self.on_host(f"mkdir -p /tmp/net; for port in 5001 5002; do {tool} tcp-echo $port 1 >/tmp/net/$port 2>&1 </dev/null & done")
        commands = [
            "cp /session/guest_tool /tmp/t; chmod +x /tmp/t; set -e",
            "gateway=$(ip route | sed -n 's/^default via \\([^ ]*\\).*/\\1/p')",
            "ip -4 -o addr show dev eth0; cat /sys/class/net/eth0/mtu",
            f"/tmp/t tcp-exchange $gateway 5001 {SIZE}",
            # Before the other interface has an address of that network. (passt sends pings only to what the host reaches.)
            *([f"ping -q -c 3 -W 20 {TAP_HOST} | grep received"] if nested else [])]
        if nested:
            commands += [
                f"ip addr add {TAP_GUEST}/24 dev eth1; ip link set eth1 up",
                f"ping -q -c 3 -W 20 {TAP_HOST} | grep received",
                f"/tmp/t tcp-exchange {TAP_HOST} 5002 {SIZE}"]
        commands += [f"/tmp/t tcp-echo 22 {2 if nested else 1}"]
        run = self.run_as_user("; ".join(commands), arguments)
        run.expect(rb"listening\n", PATIENCE, guest.STDOUT)
        # kvm_vmm, passt, and the process that starts passt, which has a name of its own.
        users = self.on_host("sed -n 's/^Name:\\t//p; s/^Uid:\\t\\([0-9]*\\).*/\\1/p' /proc/[0-9]*/status 2>/dev/null"
                             " | sed -n '/^kvm_vmm$\\|^passt/{N;s/\\n/ /p}'")
        print(self.on_host(f"{tool} tcp-exchange 127.0.0.1 2222 {SIZE}"), end="")
        if nested:
            print(self.on_host(f"{tool} tcp-exchange {TAP_GUEST} 22 {SIZE}"), end="")
        run.wait(PATIENCE)
        output = run.stream(guest.STDOUT).decode(errors="replace")
        print(output)
        self.assertEqual((guest.status_of(run.stream(guest.STATUS)), run.stream(guest.STDERR)), (0, b""), output)
        self.assertEqual(output.count(f"exchanged {SIZE} bytes"), 2 if nested else 1)
        self.assertEqual(output.count(f"echoed {SIZE} bytes"), 2 if nested else 1)
        self.assertEqual(output.count("3 packets received"), 2 if nested else 0)
        self.assertIn(f"echoed {SIZE} bytes", self.on_host("cat /tmp/net/5001"))
        counters = json.loads(self.machine.get(METRICS))["virtio"]
        print(counters["net0"], counters.get("net1"))
        if nested:
            names = {line.split(".")[0].split()[0]: line.split()[1] for line in users.splitlines()}
            self.assertEqual(names, {name: str(USER) for name in ("kvm_vmm", "passt", "passt-launcher")})
            self.assertRegex(output, rf"inet {re.escape(HOST)}/24")
            self.assertIn("\n65520\n", output)
        for name in ("net0", "net1")[:2 if nested else 1]:
            # Both directions of both transfers.
            self.assertGreater(counters[name]["rx_bytes"], 2 * SIZE)
            self.assertGreater(counters[name]["tx_bytes"], 2 * SIZE)
            self.assertEqual((counters[name]["driver_errors"], counters[name]["tx_dropped"]), (0, 0))
        # passt ends with kvm_vmm.
        self.on_host("for i in $(seq 50); do pidof passt >/dev/null || exit 0; sleep 0.1; done; exit 1")


if __name__ == "__main__":
    unittest.main(verbosity=2)
