# SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
"""A Linux guest under kvm_vmm, with a shell on its console or a command to run."""

import contextlib
import dataclasses
import os
import pathlib
import re

from machine import cpio, debian

# The names of the command's streams in run_command().
STDOUT, STDERR, STATUS = "command stdout", "command stderr", "status"


@dataclasses.dataclass
class Image:
    """The files that a guest needs, with their names on this computer."""

    kvm_vmm: str
    kernel: str
    initramfs: pathlib.Path
    cmdline: str = ""
    # Files of the session beside those for the command or the shell (see guest-init): name -> content.
    session: dict = dataclasses.field(default_factory=dict)

    @staticmethod
    def of_debian(kvm_vmm, report):
        """Debian's kernel and our initramfs, out of the cache."""
        cache = debian.cache_directory()
        kernel = debian.kernel(cache, report)
        return Image(kvm_vmm, str(kernel.image), debian.guest_initramfs(cache, kernel))


def session_archive(files):
    """An addition to the initramfs that specifies the session for guest-init."""
    archive = cpio.Archive()
    for name, content in files.items():
        archive.file(f"session/{name}", content)
    return archive.finish()


def has_option(arguments, option):
    """Whether kvm_vmm arguments hold this option."""
    return any(argument == option or argument.startswith(option + "=") for argument in arguments)


def command_line(machine, image, session, serials, arguments):
    """kvm_vmm's command line, after its files were copied to the machine. Options in `arguments` are not repeated."""
    line = [machine.put(image.kvm_vmm)]
    if not has_option(arguments, "--kernel"):
        line += ["--kernel", machine.put(image.kernel)]
    if not has_option(arguments, "--initrd"):
        archive = session_archive({**session, **image.session})
        line += ["--initrd", machine.put(image.initramfs.read_bytes() + archive, "initrd")]
    if not has_option(arguments, "--cmdline"):
        # reboot=k: reset through the keyboard controller, which every PC has. panic=-1: a panic reboots at
        # once.
        line += ["--cmdline", f"console=ttyS0 reboot=k panic=-1 {image.cmdline}".rstrip()]
    for serial in serials:
        line += ["--serial", serial]
    return line + list(arguments)


def run_command(machine, image, command, arguments=(), stdin="/dev/null"):
    """Starts a guest that runs a command with sh -c and ends. COM1 carries the kernel's log (the run's stdout), the
    next three ports the command's output, its errors, and its status (see `status_of`)."""
    session = {"command": os.fsencode(command), "stdout": b"ttyS1\n", "stderr": b"ttyS2\n", "status": b"ttyS3\n"}
    streams = machine.streams(STDOUT, STDERR, STATUS)
    serials = ["stdio", *(f"file={path}" for path in streams.values())]
    line = command_line(machine, image, session, serials, arguments)
    return machine.run(line, streams, stdin=stdin, directory=os.getcwd())


def shell_session(machine, image, arguments=()):
    """What a guest with a shell needs: kvm_vmm's command line, and the streams to pass with it. COM2 reports when the
    shell starts, and that it was left in good order (see `status_of`)."""
    session = {"status": b"ttyS1\n", "term": os.fsencode(os.environ.get("TERM") or "vt100") + b"\n"}
    with contextlib.suppress(OSError):
        size = os.get_terminal_size(0)
        if size.columns and size.lines:
            session["rows"] = f"{size.lines}\n".encode()
            session["columns"] = f"{size.columns}\n".encode()
    # With the user's own initramfs or serial ports there are no such messages.
    if has_option(arguments, "--serial") or has_option(arguments, "--initrd"):
        return command_line(machine, image, session, [], arguments), {}
    streams = machine.streams(STATUS)
    serials = ["stdio", *(f"file={path}" for path in streams.values())]
    return command_line(machine, image, session, serials, arguments), streams


def status_of(text):
    """The exit status in the output of the status port, or None."""
    match = re.search(rb"(?:^|\n)exit (\d+)\n", text)
    return int(match.group(1)) if match else None
