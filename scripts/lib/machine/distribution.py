# SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
"""A Debian system on a disk image: created once with mmdebstrap, from the archives that apt uses on this computer."""

import dataclasses
import hashlib
import os
import pathlib
import shutil
import subprocess
import tempfile

from machine import debian

PACKAGES = ("systemd-sysv", "systemd-resolved", "dbus", "udev", "kmod", "linux-image-cloud-amd64", "iproute2", "iputils-ping",
            "netbase", "ca-certificates", "curl", "less", "procps", "vim-tiny")
DISK_SIZE = "4G"
# systemd-networkd asks for an address on each Ethernet card.
NETWORK = "[Match]\nName=en* eth*\n[Network]\nDHCP=yes\n"
CUSTOMIZE = (
    'chroot "$1" passwd -d root',
    'echo debian >"$1/etc/hostname"',
    'echo "127.0.0.1 localhost debian" >"$1/etc/hosts"',
    'echo "/dev/vda / ext4 defaults 0 1" >"$1/etc/fstab"',
    'cp "$NETWORK_FILE" "$1/etc/systemd/network/20-wired.network"',
    'chroot "$1" systemctl enable systemd-networkd systemd-resolved',
)


@dataclasses.dataclass
class Root:
    """An installed system: its disk, and the kernel and initial RAM disk that are in its /boot."""

    directory: pathlib.Path

    @property
    def disk(self):
        return self.directory / "disk.img"

    @property
    def kernel(self):
        return self.directory / "vmlinuz"

    @property
    def initramfs(self):
        return self.directory / "initrd.img"


def debian_root(cache, report):
    """The system in the cache; the first time it is created, which takes minutes and downloads about 100 MB."""
    recipe = hashlib.sha256(repr((PACKAGES, DISK_SIZE, NETWORK, CUSTOMIZE)).encode()).hexdigest()[:16]
    with debian.locked(cache, "root.lock"):
        store = cache / "root"
        store.mkdir(exist_ok=True)
        root = Root(store / f"debian-{recipe}")
        if not root.directory.exists():
            for leftover in store.glob(".new-*"):
                shutil.rmtree(leftover, ignore_errors=True)
            report("making a Debian disk image (this takes some minutes, and happens once)")
            scratch = pathlib.Path(tempfile.mkdtemp(prefix=".new-", dir=store))
            try:
                _install(scratch)
                scratch.rename(root.directory)
            except BaseException:
                shutil.rmtree(scratch, ignore_errors=True)
                raise
        return root


def command_line(machine, image, append, arguments):
    """kvm_vmm's command line for a system on the first disk."""
    words = f"root=/dev/vda rw console=ttyS0 {append or ''}".strip()
    return [machine.put(image.kvm_vmm), "--kernel", machine.put(image.kernel), "--initrd", machine.put(str(image.initramfs)),
            "--cmdline", words, "--on-reboot", "restart", *arguments]


def _install(directory):
    archive = directory / "root.tar"
    network = directory / "network"
    network.write_text(NETWORK, encoding="ascii")
    hooks = [f"--customize-hook={hook}" for hook in CUSTOMIZE]
    codename = _output(["sh", "-c", '. /etc/os-release && echo "$VERSION_CODENAME"']).strip()
    sources = _sources(codename)
    mode = "root" if os.geteuid() == 0 else "unshare"
    _run(["mmdebstrap", "--variant=minbase", f"--mode={mode}", f"--include={','.join(PACKAGES)}", *hooks, codename, str(archive),
          *sources], NETWORK_FILE=str(network))
    # Without root: fakeroot pretends that root owns the files, and mke2fs fills the file system without mounting it. The
    # device nodes are left out, because the kernel makes its own.
    script = ('mkdir "$1/tree" && tar -xpf "$1/root.tar" -C "$1/tree" --exclude="./dev/*" &&'
              f' mke2fs -q -t ext4 -L root -d "$1/tree" "$1/disk.img" {DISK_SIZE} &&'
              ' cp "$1/tree"/boot/vmlinuz-* "$1/vmlinuz" && cp "$1/tree"/boot/initrd.img-* "$1/initrd.img"')
    _run(["fakeroot", "sh", "-c", script, "sh", str(directory)], PATH=os.environ.get("PATH", "") + ":/usr/sbin:/sbin")
    _run(["chmod", "-R", "u+rwX", str(directory / "tree")])
    shutil.rmtree(directory / "tree")
    archive.unlink()
    network.unlink()


def _sources(codename):
    """Lines of a sources.list with the archives of this release that apt knows here."""
    lines = []
    for line in _output(["apt-get", "indextargets", "--format", "$(ORIGIN)|$(CODENAME)|$(REPO_URI)|$(COMPONENT)",
                         "Created-By: Packages"]).splitlines():
        origin, suite, address, component = line.split("|")
        if origin == "Debian" and suite.startswith(codename) and component == "main":
            source = f"deb {address} {suite} main"
            if source not in lines:
                lines.append(source)
    if not lines:
        raise debian.PrepareError(f"apt knows no archive of Debian {codename}: run apt-get update")
    return lines


def _output(command):
    return subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False).stdout


def _run(command, **environment):
    debian.run(command, {**os.environ, **environment})
