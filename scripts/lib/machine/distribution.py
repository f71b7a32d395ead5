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

# systemd-networkd asks for an address on each Ethernet card.
NETWORK = "[Match]\nName=en* eth*\n[Network]\nDHCP=yes\n"


@dataclasses.dataclass(frozen=True)
class Recipe:
    """What is on a disk image. `customize` are commands that run on this computer when the packages are installed, with the
    root directory as $1 and the file of `network` as $NETWORK_FILE."""

    name: str
    what: str
    packages: tuple[str, ...]
    size: str
    customize: tuple[str, ...] = ()
    network: str = ""
    # Whether the kernel and the initial RAM disk in /boot are wanted as well.
    kernel: bool = False

    def digest(self):
        return hashlib.sha256(repr(self).encode()).hexdigest()[:16]


DEBIAN = Recipe(
    "debian", "a Debian disk image",
    ("systemd-sysv", "systemd-resolved", "dbus", "udev", "kmod", "linux-image-cloud-amd64", "iproute2", "iputils-ping",
     "netbase", "ca-certificates", "curl", "less", "procps", "vim-tiny"), "4G",
    ('chroot "$1" passwd -d root',
     'echo debian >"$1/etc/hostname"',
     'echo "127.0.0.1 localhost debian" >"$1/etc/hosts"',
     'echo "/dev/vda / ext4 defaults 0 1" >"$1/etc/fstab"',
     'cp "$NETWORK_FILE" "$1/etc/systemd/network/20-wired.network"',
     'chroot "$1" systemctl enable systemd-networkd systemd-resolved'), NETWORK, kernel=True)

# What scripts/measure runs on the nested host and in the guest.
TOOLS = Recipe("tools", "a disk image with QEMU and the programs that measure",
               ("qemu-system-x86", "fio", "iperf3", "iputils-ping"), "2G")


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
    return root(cache, DEBIAN, report)


def root(cache, recipe, report):
    """The image of a recipe out of the cache; the first time it is created."""
    with debian.locked(cache, "root.lock"):
        store = cache / "root"
        store.mkdir(exist_ok=True)
        made = Root(store / f"{recipe.name}-{recipe.digest()}")
        if not made.directory.exists():
            for leftover in store.glob(".new-*"):
                shutil.rmtree(leftover, ignore_errors=True)
            report(f"making {recipe.what} (this takes some minutes, and happens once)")
            scratch = pathlib.Path(tempfile.mkdtemp(prefix=".new-", dir=store))
            try:
                _install(recipe, scratch)
                scratch.rename(made.directory)
            except BaseException:
                shutil.rmtree(scratch, ignore_errors=True)
                raise
        return made


def command_line(machine, image, append, arguments):
    """kvm_vmm's command line for a system on the first disk."""
    words = f"root=/dev/vda rw console=ttyS0 {append or ''}".strip()
    return [machine.put(image.kvm_vmm), "--kernel", machine.put(image.kernel), "--initrd", machine.put(str(image.initramfs)),
            "--cmdline", words, "--on-reboot", "restart", *arguments]


def _install(recipe, directory):
    archive = directory / "root.tar"
    network = directory / "network"
    network.write_text(recipe.network, encoding="ascii")
    hooks = [f"--customize-hook={hook}" for hook in recipe.customize]
    codename = _output(["sh", "-c", '. /etc/os-release && echo "$VERSION_CODENAME"']).strip()
    sources = _sources(codename)
    mode = "root" if os.geteuid() == 0 else "unshare"
    _run(["mmdebstrap", "--variant=minbase", f"--mode={mode}", f"--include={','.join(recipe.packages)}", *hooks, codename, str(archive),
          *sources], NETWORK_FILE=str(network))
    # Without root: fakeroot pretends that root owns the files, and mke2fs fills the file system without mounting it. The
    # device nodes are left out, because the kernel makes its own.
    script = ('mkdir "$1/tree" && tar -xpf "$1/root.tar" -C "$1/tree" --exclude="./dev/*" &&'
              f' mke2fs -q -t ext4 -L root -d "$1/tree" "$1/disk.img" {recipe.size}')
    if recipe.kernel:
        script += ' && cp "$1/tree"/boot/vmlinuz-* "$1/vmlinuz" && cp "$1/tree"/boot/initrd.img-* "$1/initrd.img"'
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
