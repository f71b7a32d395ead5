# SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
"""The cache: Debian's cloud kernel, and the initramfs archives made from it and from BusyBox.

Each entry is created under another name and renamed when it is complete, so that a later run cannot mistake an
incomplete entry of an interrupted run for a complete one.
"""

import contextlib
import fcntl
import hashlib
import lzma
import os
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile
import time

from machine import cpio, kvm_holder

META_PACKAGE = "linux-image-cloud-amd64"
BUSYBOX = pathlib.Path("/usr/bin/busybox")
DAYS_UNUSED = 14
HERE = pathlib.Path(__file__).resolve().parent

# The modules that a nested host needs to run a KVM guest, for its disks and network, and to communicate with us. kvm-intel is left out,
# because QEMU emulates only AMD's SVM.
LEVEL1_MODULES = ("virtio_pci", "virtio_console", "virtio_blk", "virtio_net", "tun", "bridge", "loop",
                  "kvm-amd")
# Modules that may be useful in a guest: every virtio driver that a VMM of this kind can serve, the usual file
# system of a disk, and the one that reports a panic.
GUEST_MODULES = ("virtio_mmio", "virtio_pci", "virtio_blk", "virtio_net", "virtio_console", "virtio_balloon", "virtio-rng",
                 "vmw_vsock_virtio_transport", "virtiofs", "ext4", "pvpanic-mmio")


class PrepareError(Exception):
    """Something could not be prepared; the text is for the user."""


def cache_directory():
    """Where prepared files are kept: $VMSUPERIO_CACHE, or the user's cache directory."""
    chosen = os.environ.get("VMSUPERIO_CACHE")
    if not chosen:
        base = os.environ.get("XDG_CACHE_HOME") or os.path.join(os.path.expanduser("~"), ".cache")
        chosen = os.path.join(base, "vmsuperio")
    path = pathlib.Path(chosen).absolute()
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise PrepareError(f"cannot create the cache directory {path}: {error.strerror}"
                           " (VMSUPERIO_CACHE names another)") from error
    return path


@contextlib.contextmanager
def locked(cache, name="lock"):
    """Excludes other runs that prepare the same cache."""
    with open(cache / name, "w", encoding="ascii") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


class Kernel:
    """An unpacked kernel package."""

    def __init__(self, path):
        self.path = path
        self.image = path / "vmlinuz"
        self.release = (path / "release").read_text(encoding="ascii").strip()
        self._modules = None

    def modules(self):
        """Module name (with underscores) -> file."""
        if self._modules is None:
            files = (self.path / "modules").rglob("*.ko")
            self._modules = {file.stem.replace("-", "_"): file for file in files}
        return self._modules

    def unpack_modules(self):
        """Newer kernels have compressed modules, which BusyBox cannot load."""
        for file in (self.path / "modules").rglob("*.ko.xz"):
            file.with_suffix("").write_bytes(lzma.decompress(file.read_bytes()))
            file.unlink()

    def with_dependencies(self, names):
        """The named modules and their dependencies, each after its dependencies. Built-in modules are skipped."""
        ordered = []

        def visit(name):
            name = name.replace("-", "_")
            file = self.modules().get(name)
            if file is None or file in ordered:
                return
            for needed in module_info(file).get("depends", [""])[0].split(","):
                visit(needed)
            ordered.append(file)

        for name in names:
            visit(name)
        return ordered


def module_info(file):
    """The .modinfo section of a module: key -> values."""
    info = {}
    for key, value in re.findall(rb"\0(depends|alias|softdep)=([^\0]*)(?=\0)", file.read_bytes()):
        info.setdefault(key.decode(), []).append(value.decode())
    return info


def kernel(cache, report):
    """The cached kernel, downloaded first if there is none."""
    with locked(cache):
        store = cache / "kernel"
        store.mkdir(exist_ok=True)
        found = sorted((path for path in store.iterdir() if not path.name.startswith(".")),
                       key=lambda path: path.stat().st_mtime)
        if found:
            return Kernel(found[-1])
        return Kernel(_download_kernel(store, report))


def _download_kernel(store, report):
    for leftover in store.glob(".new-*"):
        shutil.rmtree(leftover, ignore_errors=True)
    with tempfile.TemporaryDirectory(prefix=".new-", dir=store) as scratch_name:
        scratch = pathlib.Path(scratch_name)
        package = _kernel_package()
        if package is None or not _apt_download(package, scratch, report):
            # The package lists are missing or older than the mirror.
            report("updating the package lists")
            run(_as_root(package, "apt-get", "-q", "update"))
            package = _kernel_package()
            if package is None:
                raise PrepareError(f"apt knows no {META_PACKAGE}: is this Debian on x86-64?")
            if not _apt_download(package, scratch, report):
                raise PrepareError(f"cannot download {package} (apt-get download): is the network reachable?")
        (archive,) = scratch.glob("*.deb")
        unpacked = scratch / "unpacked"
        run(["dpkg", "-x", str(archive), str(unpacked)])
        (image,) = (unpacked / "boot").glob("vmlinuz-*")
        release = image.name.partition("-")[2]
        modules = unpacked / "lib" / "modules" / release / "kernel"
        if not modules.is_dir():
            modules = unpacked / "usr" / "lib" / "modules" / release / "kernel"
        entry = scratch / "entry"
        entry.mkdir()
        image.rename(entry / "vmlinuz")
        modules.rename(entry / "modules")
        (entry / "release").write_text(release + "\n", encoding="ascii")
        Kernel(entry).unpack_modules()
        final = store / archive.stem
        entry.rename(final)
        return final


def _kernel_package():
    result = subprocess.run(["apt-cache", "depends", META_PACKAGE], stdin=subprocess.DEVNULL, capture_output=True, text=True,
                            check=False)
    found = re.search(r"Depends: (linux-image-\S+)", result.stdout)
    return found.group(1) if found else None


def _apt_download(package, directory, report):
    report(f"downloading {package}")
    # Without this option apt, when run as root, warns that its own user cannot write here.
    command = ["apt-get", "-q", "-o", "APT::Sandbox::User=root", "download", package]
    result = subprocess.run(command, cwd=directory, stdin=subprocess.DEVNULL, capture_output=True, check=False)
    return result.returncode == 0


def _as_root(package, *command):
    if os.geteuid() == 0:
        return list(command)
    if not shutil.which("sudo"):
        raise PrepareError(f"apt's package lists lack {package or META_PACKAGE}, or are older than the mirror, and without root"
                           f" or sudo cannot be updated: run `{' '.join(command)}` as root")
    return ["sudo", *command]


def run(command, environment=None):
    """Runs a program of the preparation. Its output is shown only if it fails."""
    try:
        subprocess.run(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=True,
                       env=environment)
    except FileNotFoundError as error:
        raise PrepareError(f"{command[0]}: not found") from error
    except subprocess.CalledProcessError as error:
        output = error.stdout.decode(errors="replace").strip()
        raise PrepareError(f"`{' '.join(command)}` failed:\n{output}") from error


def _cached_archive(cache, name, inputs, make):
    """An archive file, which is created again whenever one of its inputs changes."""
    digest = hashlib.sha256()
    for item in inputs:
        digest.update(len(item).to_bytes(8, "little") + item)
    with locked(cache):
        store = cache / "initramfs"
        store.mkdir(exist_ok=True)
        final = store / f"{name}-{digest.hexdigest()[:16]}.cpio"
        if not final.exists():
            _remove_unused(store)
            with tempfile.NamedTemporaryFile(dir=store, prefix=".new-", delete=False) as scratch:
                scratch.write(make())
            os.replace(scratch.name, final)
        os.utime(final)
        return final


def _remove_unused(store):
    """Removes entries that no run has used lately. Other checkouts may share the cache and need their own archives."""
    limit = time.time() - DAYS_UNUSED * 86400
    for old in store.iterdir():
        if old.stat().st_mtime < limit:
            old.unlink()


def _busybox():
    try:
        return BUSYBOX.read_bytes()
    except OSError as error:
        raise PrepareError(f"cannot read {BUSYBOX} (package busybox-static): {error.strerror}") from error


def _own_sources():
    return [(HERE / name).read_bytes() for name in ("cpio.py", "debian.py")]


def level1_initramfs(cache, the_kernel):
    """The root file system of the nested host: BusyBox, the modules it loads, and its agent."""
    agent = (HERE / "level1-init").read_bytes()
    holder = kvm_holder.program()
    busybox = _busybox()

    def make():
        archive = cpio.Archive()
        _base(archive, busybox, ())
        for number, file in enumerate(the_kernel.with_dependencies(LEVEL1_MODULES)):
            archive.file(f"modules/{number:02}-{file.name}", file.read_bytes())
        archive.file("bin/kvm-holder", holder, 0o755)
        archive.file("init", agent, 0o755)
        return archive.finish()

    return _cached_archive(cache, "level1", [busybox, agent, holder, the_kernel.path.name.encode(), *_own_sources()], make)


def guest_initramfs(cache, the_kernel):
    """The root file system of the guest: BusyBox with a link per applet, some virtio modules, and its init."""
    init = (HERE / "guest-init").read_bytes()
    busybox = _busybox()

    def make():
        archive = cpio.Archive()
        applets = subprocess.run([BUSYBOX, "--list"], capture_output=True, text=True, check=True).stdout.split()
        _base(archive, busybox, applets)
        for name in ("root", "tmp", "run", "etc", "mnt", "sbin", "usr/bin", "usr/sbin"):
            archive.directory(name)
        archive.file("etc/passwd", b"root:x:0:0:root:/root:/bin/sh\n")
        archive.file("etc/group", b"root:x:0:\n")
        archive.file("init", init, 0o755)
        _guest_modules(archive, the_kernel)
        return archive.finish()

    return _cached_archive(cache, "guest", [busybox, init, the_kernel.path.name.encode(), *_own_sources()], make)


def _base(archive, busybox, applets):
    for name in ("dev", "proc", "sys"):
        archive.directory(name)
    # The kernel opens this before /dev is mounted.
    archive.character_device("dev/console", 5, 1)
    archive.file("bin/busybox", busybox, 0o755)
    for applet in applets:
        if applet != "busybox":
            archive.symlink(f"bin/{applet}", "busybox")


def _guest_modules(archive, the_kernel):
    directory = f"lib/modules/{the_kernel.release}"
    depends = []
    aliases = []
    for file in the_kernel.with_dependencies(GUEST_MODULES):
        archive.file(f"{directory}/{file.name}", file.read_bytes())
        needed = the_kernel.with_dependencies([file.stem])[:-1]
        depends.append(f"{file.name}: {' '.join(item.name for item in reversed(needed))}".rstrip() + "\n")
        aliases += [f"alias {alias} {file.stem.replace('-', '_')}\n" for alias in module_info(file).get("alias", [])]
    archive.file(f"{directory}/modules.dep", "".join(depends).encode())
    archive.file(f"{directory}/modules.alias", "".join(aliases).encode())


def report_to_stderr(program):
    """A function that writes one line of progress."""
    return lambda text: print(f"{program}: {text}", file=sys.stderr, flush=True)
