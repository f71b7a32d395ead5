# SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
"""Directories of the host, which an unmodified Debian kernel mounts as virtiofs."""

import re
import unittest

from boot_test_support import MachineTest

# In the directory to share: 1000 files, a tree, links and special files. The names of the paths are the test's.
PREPARE = """set -e
rm -rf {d}; mkdir -p {d}/read/many {d}/write
cd {d}/read
echo hello > file
ln -s /etc/name link
ln -s ../secret above
mkfifo fifo
dd if=/dev/urandom of=large bs=1M count=32 2>/dev/null
i=0; while [ $i -lt 1000 ]; do echo $i > many/file$i; i=$((i+1)); done
for a in 1 2 3 4 5 6 7 8; do for b in 1 2 3 4 5 6 7 8; do mkdir -p tree/$a/$b; echo $a$b > tree/$a/$b/leaf; done; done
echo host > {d}/secret
mkdir -p /etc; echo host > /etc/name
cat large | md5sum
"""
MOUNT = "modprobe virtio_mmio; modprobe virtiofs; mkdir -p /read /write; mount -t virtiofs share0 /read"


class ShareTest(MachineTest):
    """All in the guests of one machine."""

    # The files of the test are in the machine's memory.
    memory_mib = 768
    directory = "/tmp/vmsuperio-share-test"

    def prepare(self):
        status, output = self.machine.shell(PREPARE.replace("{d}", self.directory), 120)
        self.assertEqual(status, 0, output)
        return re.search(rb"[0-9a-f]{32}", output).group()

    def on_host(self, script):
        status, output = self.machine.shell(script, 60)
        self.assertEqual(status, 0, output)
        return output

    def test_reading(self):
        checksum = self.prepare()
        done = self.in_guest(
            f"set -e; {MOUNT}; cat /read/file; ls /read/many | wc -l; ls -l /read/many | wc -l;"
            "cat /read/many/* | wc -l; find /read/tree -name leaf | wc -l; cat /read/tree/*/*/leaf | sort -u | wc -l;"
            "cat /read/large | md5sum; umount /read; mount -t virtiofs share0 /read; cat /read/file;"
            # A link is the guest's to follow: to its own file, and not out of the shared directory.
            "mkdir -p /etc; echo guest > /etc/name; cat /read/link; ! cat /read/above;"
            # Nothing can be changed, whatever the mount allows.
            "! echo x > /read/file; ! touch /read/new; ! rm /read/file; ! mkdir /read/d; ! chmod 777 /read/file;"
            "! ln -s x /read/s; ! mv /read/file /read/other; ! ln /read/file /read/hard; stat -c %A /read/fifo",
            "--share", f"{self.directory}/read")
        self.assertEqual(done.status, 0, (done.stderr, done.log[-3000:]))
        self.assertEqual(done.stdout.split(b"\n")[:6], [b"hello", b"1000", b"1001", b"1000", b"64", b"64"])
        self.assertEqual(done.stdout.split(b"\n")[6].split()[0], checksum)
        self.assertEqual(done.stdout.split(b"\n")[7:10], [b"hello", b"guest", b"prw-r--r--"])
        self.assertEqual(done.stderr.count(b"Read-only file system"), 8, done.stderr)
        self.assertNotIn(b"host", done.stdout)
        self.assertNotRegex(done.log, rb"(?i)virtiofs.*(error|fail)|fuse.*(error|fail)|BUG:|hung task")

    def test_writing(self):
        self.prepare()
        done = self.in_guest(
            f"set -e; {MOUNT}; mount -t virtiofs work /write; cd /write;"
            "umask 022; mkdir public; touch public/file; stat -c %a public public/file; rm -r public;"
            "dd if=/dev/urandom of=large bs=1M count=32 2>/dev/null; cat large | md5sum;"
            "echo one > a; mkdir -p d/e; mv a d/e/b; ln d/e/b hard; ln -s ../../secret soft; echo two >> hard;"
            "cat d/e/b; truncate -s 2 hard; chmod 4750 hard; stat -c '%A %h' hard; ! cat soft; ! mkfifo fifo;"
            "! mknod device c 1 5; cp -a /read/many many; ls many | wc -l; rm -r many; ls; sync",
            "--share", f"{self.directory}/read", "--share", f"{self.directory}/write,tag=work,writable")
        self.assertEqual(done.status, 0, (done.stderr, done.log[-3000:]))
        lines = done.stdout.split(b"\n")
        self.assertEqual(lines[:2], [b"755", b"644"])
        del lines[:2]
        # Without the set-user-id bit.
        self.assertEqual(lines[1:], [b"one", b"two", b"-rwxr-x--- 2", b"1000", b"d", b"hard", b"large", b"soft", b""])
        self.assertEqual(done.stderr.count(b"Operation not permitted"), 2, done.stderr)
        self.assertEqual(self.on_host(f"cat {self.directory}/write/large | md5sum").split()[0], lines[0].split()[0])
        self.assertEqual(self.on_host(f"cd {self.directory}/write; cat hard; stat -c ' %a' hard; cat ../secret"),
                         b"on 750\nhost\n")

    def test_changes_of_the_host_are_seen(self):
        self.prepare()
        # The second share is the way by which the guest changes the host's side of the first one.
        done = self.in_guest(
            f"set -e; {MOUNT}; mount -t virtiofs again /write; cat /read/file; echo changed > /write/file;"
            "echo new > /write/new; rm /write/fifo; sleep 1.5; cat /read/file /read/new; ls /read",
            "--share", f"{self.directory}/read", "--share", f"{self.directory}/read,tag=again,writable")
        self.assertEqual(done.status, 0, (done.stderr, done.log[-3000:]))
        self.assertEqual(done.stdout, b"hello\nchanged\nnew\nabove\nfile\nlarge\nlink\nmany\nnew\ntree\n")


if __name__ == "__main__":
    unittest.main()
