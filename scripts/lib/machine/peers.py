# SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
"""VMMs that are measured beside one another: kvm_vmm and QEMU's microvm, with the same devices, kernel and initramfs.

`Bench` prepares a machine on which they run: the disk image of `distribution.TOOLS`, a disk in memory that the guests
write to, and a tap interface. The guest runs the commands that are sent to its first serial port (see GUEST_INIT).
"""

import dataclasses
import pathlib

from machine import cpio, debian, distribution, machine

HOST_ADDRESS, GUEST_ADDRESS = "10.0.2.1", "10.0.2.2"
TAP = "tap0"
ROOT = "/tools"
# A disk whose requests cost as little as possible, in memory: null_blk. Unlike a file in a tmpfs, it supports
# O_DIRECT and requests that do not block, as disks do.
DISK = "/dev/nullb0"
MODULES = ("ext4", "null_blk", "vhost_net")
COUNTERS = ("exits", "mmio_exits", "io_exits", "halt_exits", "irq_injections", "signal_exits")
GUEST_MEMORY_MIB = 512
QEMU = "/usr/bin/qemu-system-x86_64"
# The same devices of a PC as in kvm_vmm, except the keyboard controller.
MICROVM = "microvm,auto-kernel-cmdline=off,acpi=on,pic=on,pit=on,rtc=on,isa-serial=on"

# Finds the disk with the tools by its serial number, because VMMs differ in the order of devices. A command's end is
# marked, because a terminal has no other.
GUEST_INIT = f"""#!/bin/busybox sh
export PATH=/bin:/sbin HOME=/
mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t devtmpfs devtmpfs /dev
mount -t tmpfs tmpfs /tmp
ln -sf /proc/self/fd /dev/fd
stty -F /dev/console raw -echo
echo measure''-started
modprobe virtio_mmio
for module in virtio_blk virtio_net virtio_console ext4; do modprobe $module; done 2>/dev/null
mkdir -p {ROOT}
for disk in /sys/block/vd*; do
    [ -e $disk ] || break
    name=/dev/${{disk##*/}}
    if [ "$(cat $disk/serial)" = tools ]; then
        mount -t ext4 -o ro $name {ROOT}
        for directory in dev proc sys tmp; do mount -o bind /$directory {ROOT}/$directory; done
    else
        DATA=$name
        echo none >$disk/queue/scheduler
    fi
done
ip link set lo up
if [ -e /sys/class/net/eth0 ]; then ip addr add {GUEST_ADDRESS}/24 dev eth0; ip link set eth0 up; fi
if [ -d {ROOT}/usr ]; then chroot {ROOT} fio --version >/dev/null; fi
yes "a line of text like those that programs print, with some length" | head -c 65536 >/tmp/text
echo measure''-ready
while IFS= read -r line; do
    eval "$line" </dev/null
    echo measure''-end $?
done
"""


@dataclasses.dataclass(frozen=True)
class Devices:
    """The virtio devices of a guest."""

    disks: bool = True
    net: bool = True
    console: bool = True
    # Whether the page cache of the host is bypassed.
    direct: bool = True


class KvmVmm:
    """How kvm_vmm is started."""

    name = "kvm_vmm"

    def command(self, bench, devices, words):
        command = [bench.kvm_vmm, "--memory", f"{GUEST_MEMORY_MIB}M", "--kernel", bench.kernel, "--initrd", bench.initramfs,
                   "--cmdline", words]
        if devices.disks or devices.net:
            command += ["--disk", f"{bench.tools},readonly=on,id=tools"]
        if devices.disks:
            command += ["--disk", f"{DISK},id=data,cache={'direct' if devices.direct else 'writeback'}"]
        if devices.net:
            command += ["--net", f"tap={TAP}"]
        if devices.console:
            command += ["--console", "file=/dev/null"]
        return command

    def process(self, bench):
        return f"pidof {pathlib.Path(bench.kvm_vmm).name}"


class Microvm:
    """How QEMU's microvm is started: with the devices that its documentation names, and the engine that is the fastest one
    for the disk."""

    def __init__(self, name="QEMU microvm", aio="io_uring", iothread=False, vhost=False):
        self.name = name
        self._aio = aio
        self._iothread = iothread
        self._vhost = vhost

    def command(self, bench, devices, words):
        command = ["chroot", ROOT, QEMU, "-M", MICROVM, "-global", "virtio-mmio.force-legacy=false", "-enable-kvm", "-cpu",
                   "host", "-m", f"{GUEST_MEMORY_MIB}M", "-nodefaults", "-no-user-config", "-display", "none", "-serial",
                   "stdio", "-no-reboot", "-kernel", bench.kernel, "-initrd", bench.initramfs, "-append", words]
        thread = ""
        if self._iothread and devices.disks:
            command += ["-object", "iothread,id=disks"]
            thread = ",iothread=disks"
        if devices.disks or devices.net:
            command += ["-drive", f"if=none,id=tools,file={bench.tools},format=raw,readonly=on,aio=threads",
                        "-device", f"virtio-blk-device,drive=tools,serial=tools{thread}"]
        if devices.disks:
            cache = "none" if devices.direct else "writeback"
            command += ["-drive", f"if=none,id=data,file={DISK},format=raw,cache={cache},aio={self._aio},discard=unmap",
                        "-device", f"virtio-blk-device,drive=data,serial=data{thread}"]
        if devices.net:
            command += ["-netdev", f"tap,id=net,ifname={TAP},script=no,downscript=no,vhost={'on' if self._vhost else 'off'}",
                        "-device", "virtio-net-device,netdev=net"]
        if devices.console:
            command += ["-device", "virtio-serial-device", "-chardev", "file,id=console,path=/dev/null",
                        "-device", "virtconsole,chardev=console"]
        return command

    def process(self, _bench):
        return "pidof qemu-system-x86_64"


class Bench:
    """A machine that is prepared for the VMMs."""

    def __init__(self, image, kind, log, report):
        cache = debian.cache_directory()
        tools = distribution.root(cache, distribution.TOOLS, report)
        # The disk image may be larger than the memory, because only what is read of it is kept.
        self.host = machine.open_machine(kind, report, log, 3 * GUEST_MEMORY_MIB, [machine.Disk(str(tools.disk), readonly=True)])
        self.tools = self.host.disks[0]
        kernel = debian.kernel(cache, report)
        for number, file in enumerate(kernel.with_dependencies(MODULES)):
            parameters = " gb=1 memory_backed=1 queue_mode=2 irqmode=0 bs=512" if file.stem == "null_blk" else ""
            self.shell(f"[ -d /sys/module/{file.stem.replace('-', '_')} ] || insmod {self.host.put(file.read_bytes(), f'{number}.ko')}{parameters}")
        self.shell(f"mkdir -p {ROOT} && mount -t ext4 -o ro {self.tools} {ROOT} &&"
                   f" for directory in dev proc sys tmp; do mount -o bind /$directory {ROOT}/$directory; done")
        self.shell(f"tunctl -t {TAP} && ip addr add {HOST_ADDRESS}/24 dev {TAP} && ip link set {TAP} up")
        self.shell(f"chroot {ROOT} iperf3 -s -D </dev/null >/dev/null 2>&1")
        archive = cpio.Archive()
        archive.file("session/measure", GUEST_INIT.encode(), 0o755)
        self.kvm_vmm = self.host.put(image.kvm_vmm)
        self.kernel = self.host.put(pathlib.Path(image.kernel).read_bytes(), "kernel")
        self.initramfs = self.host.put(image.initramfs.read_bytes() + archive.finish(), "initrd")

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.host.close()

    def shell(self, script, timeout=60):
        """Runs a script on the machine; its output."""
        status, output = self.host.shell(script, timeout)
        if status != 0:
            raise machine.MachineError(f"{script!r} failed: {output.decode(errors='replace')}")
        return output.decode(errors="replace")

    def counters(self):
        """KVM's own counts: name -> number."""
        text = self.shell(f"cd /sys/kernel/debug/kvm && cat {' '.join(COUNTERS)}")
        return dict(zip(COUNTERS, (int(word) for word in text.split())))

    def start(self, vmm, devices):
        """Starts a guest; returns when it waits for commands."""
        words = "console=ttyS0 quiet reboot=k panic=-1 rdinit=/session/measure"
        run = self.host.run(vmm.command(self, devices, words))
        run.expect(rb"measure-ready", 300)
        return Guest(self, run)


class Guest:
    """A guest that runs commands."""

    def __init__(self, bench, run):
        self._bench = bench
        self._run = run

    def command(self, line, timeout=120, begin=None):
        """Runs a command; its output. With `begin`, returns as well how long the machine was busy after this pattern had come."""
        self._run.send(line.encode() + b"\n")
        text = b""
        if begin is not None:
            found = self._run.expect(rb".*?" + begin, timeout)
            text = found.group(0)
        started = self._bench.host.busy_seconds()
        found = self._run.expect(rb"(.*?)measure-end (\d+)\r?\n", timeout)
        seconds = self._bench.host.busy_seconds() - started
        text = (text + found.group(1)).decode(errors="replace")
        if found.group(2) != b"0":
            raise machine.MachineError(f"{line!r} failed in the guest: {text}")
        return text if begin is None else (text, seconds)

    def counted(self, line, begin, timeout=120):
        """Runs a command; its output, how long the machine was busy with it, and the growth of KVM's counters."""
        before = self._bench.counters()
        output, seconds = self.command(line, timeout, begin)
        after = self._bench.counters()
        return output, seconds, {name: after[name] - before[name] for name in COUNTERS}

    def stop(self):
        self._bench.host.stop_run(60)
