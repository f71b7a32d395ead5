# SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
"""Disks, as an unmodified Debian kernel uses them."""

import dataclasses
import hashlib
import os
import pathlib
import re
import tempfile
import unittest

from boot_test_support import PATIENCE, PROMPT, MachineTest
from machine import machine

MIB = 1 << 20
CTRL_A = b"\x01"


class DiskTest(MachineTest):
    """Guests with drivers for all virtio devices. Images are files of the machine (`make_image`), except for the one that
    belongs to this computer."""

    @classmethod
    def setUpClass(cls):
        with tempfile.NamedTemporaryFile(prefix="vmsuperio-disk-", suffix=".img", delete=False) as file:
            file.truncate(64 * MIB)
        cls.own_image = pathlib.Path(file.name)
        cls.addClassCleanup(os.unlink, file.name)
        cls.disks = (machine.Disk(file.name),)
        super().setUpClass()
        cls.image = dataclasses.replace(cls.image, session={"devices": b""})

    def make_image(self, name, script):
        """Runs a script on the machine that makes the file $1."""
        path = f"/tmp/{name}"
        status, output = self.machine.shell(f"set -- {path}; {script}", PATIENCE)
        self.assertEqual(status, 0, output)
        return path

    def on_machine(self, script):
        status, output = self.machine.shell(script, PATIENCE)
        self.assertEqual(status, 0, output)
        return output

    def test_what_the_guest_writes_is_in_the_image_byte_for_byte(self):
        path = self.make_image("plain", "dd if=/dev/zero of=$1 bs=1M count=32")
        done = self.in_guest(
            "cat /sys/block/vda/size /sys/block/vda/queue/write_cache;"
            "dd if=/dev/urandom of=/dev/vda bs=1M count=16 seek=8 conv=fsync 2>&1 | tail -1;"
            "dd if=/dev/vda bs=1M count=16 skip=8 | sha256sum; cat /sys/block/vda/serial; echo",
            "--disk", f"{path},id=data-1")
        lines = done.stdout.decode().splitlines()
        self.assertEqual(done.status, 0, done.stderr)
        self.assertEqual(lines[:2], [str(32 * 2048), "write back"])
        of_guest = re.search(r"\b[0-9a-f]{64}\b", done.stdout.decode()).group(0)
        of_host = self.on_machine(f"dd if={path} bs=1M count=16 skip=8 2>/dev/null | sha256sum").decode().split()[0]
        self.assertEqual(of_guest, of_host)
        self.assertEqual(lines[-1], "data-1")
        # Nothing around it has changed.
        self.assertEqual(self.on_machine(f"(dd if={path} bs=1M count=8; dd if={path} bs=1M skip=24) 2>/dev/null | tr -d '\\0' | wc -c"),
                         b"0\n")

    def test_a_file_system_survives_a_reboot_in_place(self):
        path = self.make_image("ext", "dd if=/dev/zero of=$1 bs=1M count=32; mke2fs -F $1")
        run = self.shell("--disk", path, "--on-reboot", "restart")
        run.send(b"mount /dev/vda /mnt && dd if=/dev/urandom of=/mnt/f bs=1M count=5 && sync && sha256sum /mnt/f; echo done''1\n")
        first = run.expect(rb"([0-9a-f]{64})  /mnt/f.*done1", PATIENCE).group(1)
        # Requests are in progress when the guest resets.
        run.send(b"(while :; do dd if=/dev/urandom of=/mnt/g bs=1M count=4 oflag=direct; done) 2>/dev/null & sleep 1; reboot -f\n")
        run.expect(rb"Linux version", PATIENCE)
        run.expect(PROMPT, PATIENCE)
        run.send(b"mount /dev/vda /mnt && sha256sum /mnt/f; echo done''2\n")
        self.assertEqual(run.expect(rb"([0-9a-f]{64})  /mnt/f.*done2", PATIENCE).group(1), first)
        run.send(CTRL_A + b"x")
        self.assertEqual(run.wait(PATIENCE), 0)

    def test_a_block_device_of_the_host(self):
        path = self.make_image("behind-loop", "dd if=/dev/urandom of=$1 bs=1M count=16; modprobe -q loop; losetup -o 1048576 /dev/loop0 $1")
        try:
            # Around the two ranges that the guest changes: MiB 3 to 6, and 9 to 12.
            unchanged = "; ".join(f"dd if={path} bs=1M skip={skip} count={count} 2>/dev/null | sha256sum"
                                  for skip, count in ((0, 3), (7, 2), (13, 3)))
            before = self.on_machine(unchanged)
            self.assertEqual(len(set(before.split()) - {b"-"}), 3)
            done = self.in_guest(
                "cat /sys/block/vda/size; dd if=/dev/urandom of=/tmp/f bs=1M count=4; dd if=/tmp/f of=/dev/vda bs=1M seek=2 oflag=direct;"
                "blkdiscard -o 8388608 -l 4194304 /dev/vda; sync; sha256sum </tmp/f", "--disk", "/dev/loop0,cache=direct")
            size, of_guest = done.stdout.decode().split()[:2]
            self.assertEqual((done.status, size), (0, str(15 * 2048)), done.stderr)
            self.assertEqual(self.on_machine(f"dd if={path} bs=1M skip=3 count=4 2>/dev/null | sha256sum").decode().split()[0], of_guest)
            # What was discarded is a hole of the file, and nothing else has changed.
            self.assertEqual(self.on_machine(f"dd if={path} bs=1M skip=9 count=4 2>/dev/null | tr -d '\\0' | wc -c"), b"0\n")
            self.assertEqual(self.on_machine(unchanged), before)
        finally:
            self.on_machine("losetup -d /dev/loop0")

    def test_a_read_only_disk_refuses_writes(self):
        path = self.make_image("ro", "dd if=/dev/urandom of=$1 bs=1M count=4; chmod 444 $1")
        before = self.on_machine(f"sha256sum {path}")
        done = self.in_guest("cat /sys/block/vda/ro; dd if=/dev/zero of=/dev/vda bs=4k count=1 conv=fsync; sha256sum </dev/vda",
                             "--disk", f"{path},readonly=on")
        self.assertEqual(done.stdout.split()[:2], [b"1", before.split()[0]])
        self.assertRegex(done.stderr, rb"(?i)not permitted|read-only")
        self.assertEqual(self.on_machine(f"sha256sum {path}"), before)

    def test_a_file_that_shrinks_under_the_guest_causes_errors_there_only(self):
        path = self.make_image("shrinks", "dd if=/dev/urandom of=$1 bs=1M count=16")
        run = self.shell("--disk", path)
        self.on_machine(f"truncate -s 4M {path}")
        run.send(b"dd if=/dev/vda of=/dev/null bs=1M skip=8 count=1 iflag=direct; echo status''=$?\n")
        run.expect(rb"(?i)i/o error.*status=1\r", PATIENCE)
        run.send(b"dd if=/dev/vda of=/dev/null bs=1M count=4 iflag=direct; echo status''=$?\n")
        run.expect(rb"status=0\r", PATIENCE)
        run.send(CTRL_A + b"x")
        self.assertEqual(run.wait(PATIENCE), 0)

    def test_another_size_is_in_the_guest_after_a_signal(self):
        path = self.make_image("resized", "truncate -s 16M $1")
        behind = self.make_image("resized-behind-loop", "truncate -s 16M $1; modprobe -q loop; losetup /dev/loop0 $1")
        try:
            run = self.shell("--disk", path, "--disk", "/dev/loop0", "--on-reboot", "restart")
            show = b"until grep -qx %d /sys/block/vda/size && grep -qx %d /sys/block/vdb/size; do sleep 1; done; echo sizes''=%d\n"
            for count, (mib, mib_behind) in enumerate([(16, 16), (64, 32), (8, 16)]):
                self.on_machine(f"truncate -s {mib}M {path}; truncate -s {mib_behind}M {behind}; losetup -c /dev/loop0; killall -USR2 kvm_vmm")
                run.send(show % (mib * 2048, mib_behind * 2048, count))
                run.expect(b"sizes=%d" % count, PATIENCE)
                # All of it, and no more, can be written.
                run.send(b"dd if=/dev/urandom of=/dev/vda bs=1M seek=%d count=1 oflag=direct 2>/dev/null && "
                         b"dd if=/dev/vda bs=1M skip=%d count=1 iflag=direct | sha256sum; echo status''=$?\n" % (mib - 1, mib - 1))
                of_guest = run.expect(rb"([0-9a-f]{64})  -.*status=0\r", PATIENCE).group(1).decode()
                self.assertEqual(self.on_machine(f"dd if={path} bs=1M skip={mib - 1} 2>/dev/null | sha256sum").decode().split()[0], of_guest)
                self.assertEqual(self.on_machine(f"stat -c %s {path}").decode().strip(), str(mib * MIB))
            # What no disk has is refused, and a restart keeps the last size.
            self.on_machine(f"truncate -s 1000 {path}; killall -USR2 kvm_vmm; sleep 1; truncate -s 8M {path}")
            run.send(b"cat /sys/block/vda/size; reboot -f\n")
            run.expect(rb"\b%d\r" % (8 * 2048), PATIENCE)
            run.expect(PROMPT, PATIENCE)
            run.send(show % (8 * 2048, 16 * 2048, 3))
            run.expect(b"sizes=3", PATIENCE)
            run.send(CTRL_A + b"x")
            self.assertEqual(run.wait(PATIENCE), 0)
            self.assertRegex(run.stderr + run.stdout, rb"resized'?: its new size, 1000 bytes, is not a multiple of 512")
        finally:
            self.on_machine("losetup -d /dev/loop0")

    def test_a_full_file_system_of_the_host_causes_errors_in_the_guest_only(self):
        self.on_machine("mkdir -p /tmp/small && mount -t tmpfs -o size=8M tmpfs /tmp/small")
        try:
            path = self.make_image("small/sparse", "truncate -s 64M $1")
            done = self.in_guest(
                "dd if=/dev/zero of=/dev/vda bs=1M count=32 oflag=direct; echo status=$?;"
                "dd if=/dev/vda of=/dev/null bs=1M count=4 iflag=direct && echo still readable", "--disk", path)
            self.assertIn(b"status=1", done.stdout)
            self.assertIn(b"still readable", done.stdout)
            self.assertRegex(done.stderr, rb"(?i)input/output error|no space")
            self.assertEqual(done.status, 0)
        finally:
            self.on_machine("umount /tmp/small")

    def test_a_discarded_range_is_returned_to_the_host(self):
        path = self.make_image("discard", "dd if=/dev/urandom of=$1 bs=1M count=32; sync")
        before = int(self.on_machine(f"du -k {path}").split()[0])
        done = self.in_guest("cat /sys/block/vda/queue/discard_max_bytes; blkdiscard /dev/vda; dd if=/dev/vda bs=1M 2>/dev/null | tr -d '\\0' | wc -c",
                             "--disk", path)
        self.assertEqual(done.status, 0, done.stderr)
        maximum, left = (int(word) for word in done.stdout.split())
        self.assertGreater(maximum, 0)
        self.assertEqual(left, 0)
        self.assertLess(int(self.on_machine(f"du -k {path}").split()[0]), before // 4)

    def test_twenty_disks_keep_their_order_and_share_interrupts(self):
        arguments = []
        for number in range(20):
            path = self.make_image(f"many{number}", f"truncate -s {number + 1}M $1; echo disk{number} | dd of=$1 conv=notrunc 2>/dev/null")
            arguments += ["--disk", path]
        done = self.in_guest("for disk in /sys/block/vd*; do echo $(($(cat $disk/size) / 2048)) $(head -n 1 /dev/${disk##*/}); done;"
                             " grep -c virtio /proc/interrupts", *arguments)
        lines = done.stdout.decode().splitlines()
        self.assertEqual(lines[:20], [f"{number + 1} disk{number}" for number in range(20)], done.stderr)
        self.assertLess(int(lines[20]), 20)

    def test_a_stopped_process_goes_on_with_its_requests(self):
        path = self.make_image("stopped", "dd if=/dev/zero of=$1 bs=1M count=32")
        run = self.shell("--disk", path)
        run.send(b"(dd if=/dev/zero of=/dev/vda bs=64k count=256 oflag=direct 2>/dev/null; echo written''=$?) & echo started''.\n")
        run.expect(rb"started\.", PATIENCE)
        self.on_machine("killall -STOP kvm_vmm; sleep 2; killall -CONT kvm_vmm")
        run.expect(rb"written=0", PATIENCE)
        run.send(CTRL_A + b"x")
        self.assertEqual(run.wait(PATIENCE), 0)

    def test_an_image_of_this_computer_has_what_the_guest_wrote_even_after_ctrl_a_x(self):
        (disk,) = self.machine.disks
        direct = ",cache=direct" if self.machine.kind == "nested" else ""
        run = self.shell("--disk", disk + direct)
        run.send(b"dd if=/dev/urandom of=/tmp/f bs=1M count=4; dd if=/tmp/f of=/dev/vda bs=1M seek=2 oflag=direct;"
                 b" sha256sum </tmp/f; echo done''.\n")
        expected = run.expect(rb"([0-9a-f]{64})  -.*done\.", PATIENCE).group(1).decode()
        run.send(CTRL_A + b"x")
        self.assertEqual(run.wait(PATIENCE), 0)
        with open(self.own_image, "rb") as file:
            file.seek(2 * MIB)
            self.assertEqual(hashlib.sha256(file.read(4 * MIB)).hexdigest(), expected)


if __name__ == "__main__":
    unittest.main(verbosity=2)
