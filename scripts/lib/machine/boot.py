# SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
"""The part of scripts/boot that follows the preparation; that script checks the options."""

import argparse
import contextlib
import fcntl
import os
import pathlib
import re
import secrets
import selectors
import signal
import subprocess
import sys
import termios
import time
import tty

from machine import debian, distribution, guest, machine

PROGRAM = "scripts/boot"
NO_STATUS = 125
# kvm_vmm's name for "the guest rebooted".
GUEST_RESET = 10
LOGS_KEPT = 10
# The byte that a terminal sends for the end of the input: Ctrl-D.
END_OF_INPUT = b"\x04"
report = debian.report_to_stderr(PROGRAM)


class Signalled(Exception):
    """A signal that ends a program was received."""

    def __init__(self, number):
        super().__init__()
        self.number = number


def parse(arguments):
    parser = argparse.ArgumentParser(prog=PROGRAM)
    parser.add_argument("--kind", choices=("direct", "nested"), required=True)
    parser.add_argument("--reason", required=True)
    parser.add_argument("--kvm-vmm", required=True)
    parser.add_argument("--prepare", action="store_true")
    parser.add_argument("--exec", dest="command")
    parser.add_argument("--debian", action="store_true")
    parser.add_argument("--net", action="store_true")
    parser.add_argument("--disk", dest="disks", action="append", default=[])
    for name in ("--kernel", "--append", "--memory", "--cpus"):
        parser.add_argument(name)
    arguments, _, rest = _split(arguments)
    options = parser.parse_args(arguments)
    options.rest = rest
    return options


def _split(arguments):
    if "--" in arguments:
        at = arguments.index("--")
        return arguments[:at], "--", arguments[at + 1:]
    return arguments, None, []


def value_of(rest, option):
    """The last value of an option among kvm_vmm arguments, or None."""
    value = None
    for index, argument in enumerate(rest):
        if argument == option and index + 1 < len(rest):
            value = rest[index + 1]
        elif argument.startswith(option + "="):
            value = argument.partition("=")[2]
    return value


def disk_of(text):
    """A value of --disk: an image, with ",readonly=on" after it if it must not be changed."""
    path, separator, ending = text.rpartition(",readonly=")
    if separator and ending in ("on", "off"):
        return machine.Disk(path, ending == "on")
    return machine.Disk(text)


def device_arguments(options, the_machine, disks):
    """The arguments of kvm_vmm for the disks and the network."""
    arguments = []
    for disk, path in zip(disks, the_machine.disks):
        # On a nested host the page cache is lost when that host ends.
        cache = ",cache=direct" if the_machine.kind == "nested" else ""
        arguments += ["--disk", "path=" + path.replace(",", ",,") + cache + (",readonly=on" if disk.readonly else "")]
    if options.net:
        arguments += ["--net", the_machine.network()]
    return arguments


def size_mib(text):
    """A size in kvm_vmm's notation, in MiB. An invalid one counts as the default, and kvm_vmm will report it."""
    match = re.fullmatch(r"(\d+)(?:([KMGT])(?:i?B)?)?", text or "512M", re.IGNORECASE)
    if not match:
        return 512
    shift = {"K": 0, "M": 10, "G": 20, "T": 30}[(match.group(2) or "M").upper()]
    return max(1, (int(match.group(1)) << shift) >> 10)


def copy_named_files(the_machine, rest):
    """Copies the files that kvm_vmm arguments name to the same paths on a nested host."""
    for argument in rest:
        for candidate in {argument, *re.split(r"[=,]", argument)}:
            if candidate and os.path.isfile(candidate) and os.access(candidate, os.R_OK):
                the_machine.put(candidate)


def kvm_vmm_arguments(options, devices):
    """The arguments of kvm_vmm other than those for the guest's files."""
    arguments = list(devices)
    for name in ("memory", "cpus"):
        if getattr(options, name) is not None:
            arguments += [f"--{name}", getattr(options, name)]
    return arguments + options.rest


def run_command(options, image, the_machine, devices, log_path):
    """--exec."""
    with open(log_path, "ab", buffering=0) as log:
        run = guest.run_command(the_machine, image, options.command, kvm_vmm_arguments(options, devices))
        for name, deliver in (("stdout", log.write), ("stderr", log.write), (guest.STDOUT, writer(1)),
                              (guest.STDERR, writer(2))):
            run.outputs[name].deliver = deliver

        def status():
            return guest.status_of(run.stream(guest.STATUS))

        # No limit: the command may run for as long as it likes.
        the_machine.pump_until(lambda: run.done() or status() is not None, float("inf"), str)
        if status() is not None:
            # The guest is ending; its output has been sent, but may not have arrived.
            with contextlib.suppress(machine.TimeoutExpired):
                run.wait(20)
            return status()
    message = complaint(log_path)
    report(f"the guest ended before the command had a status (kvm_vmm's exit status is {run.status}"
           + (f": {message}" if message else "") + f"); its log is {log_path}")
    return NO_STATUS


def complaint(log_path):
    """The last message of kvm_vmm itself."""
    lines = re.findall(rb"^kvm_vmm: (.*?)\r?$", pathlib.Path(log_path).read_bytes()[-65536:], re.MULTILINE)
    return lines[-1].decode(errors="replace") if lines else None


def writer(file):
    """A function that writes everything to a descriptor until its reader has closed it."""
    def write(data):
        nonlocal file
        view = memoryview(data)
        while view and file is not None:
            try:
                view = view[os.write(file, view):]
            except BlockingIOError:
                time.sleep(0.01)
            except BrokenPipeError:
                file = None
    return write


def run_shell(options, image, the_machine, devices):
    """The interactive session."""
    arguments = kvm_vmm_arguments(options, devices)
    if options.debian:
        command, streams = distribution.command_line(the_machine, image, options.append, arguments), {}
    else:
        command, streams = guest.shell_session(the_machine, image, arguments)
    if the_machine.kind == "direct" and os.isatty(0):
        status, text = shell_directly(command, streams)
    else:
        status, text = shell_relayed(the_machine, command, streams)
    return 0 if status == GUEST_RESET and guest.status_of(text) == 0 else status


def shell_directly(command, streams):
    """kvm_vmm has the terminal itself."""
    reader = None
    if streams:
        reader = os.open(streams[guest.STATUS], os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    with subprocess.Popen(command) as process:
        try:
            code = process.wait()
        except BaseException:
            # SIGTERM, so that kvm_vmm restores the terminal.
            process.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(5)
            process.kill()
            raise
    text = os.read(reader, machine.CHUNK) if reader is not None else b""
    return (code if code >= 0 else 128 - code), text


def shell_relayed(the_machine, command, streams):
    """kvm_vmm has ports or pipes; every byte is passed unchanged in both directions, including Ctrl-C and Ctrl-A."""
    run = the_machine.run(command, streams, directory=os.getcwd())
    run.outputs["stdout"].deliver = writer(1)
    run.outputs["stderr"].deliver = writer(2)
    at_terminal = os.isatty(0)
    if streams and not at_terminal:
        # A script's input waits for the shell: the guest's driver discards bytes that arrive before the port
        # is opened.
        the_machine.pump_until(lambda: run.done() or run.stream(guest.STATUS), float("inf"), str)
    with raw_terminal(0), relayed_stdin(the_machine, run) as ended:
        while not run.done():
            with contextlib.suppress(machine.TimeoutExpired):
                the_machine.pump_until(run.done, 0.5, str)
            # Repeatedly, because every reader must see the end, and a Ctrl-D that arrives while the shell
            # switches the terminal's mode is lost.
            if ended() and not at_terminal and run.unsent() == 0:
                run.send(END_OF_INPUT)
    return run.status, run.stream(guest.STATUS) if streams else b""


@contextlib.contextmanager
def raw_terminal(file):
    """Makes a terminal pass every byte, and restores it afterwards in every case."""
    if not os.isatty(file):
        yield
        return
    before = termios.tcgetattr(file)
    try:
        tty.setraw(file, termios.TCSADRAIN)
        yield
    finally:
        # There is nothing to restore if the terminal no longer exists.
        with contextlib.suppress(termios.error):
            termios.tcsetattr(file, termios.TCSADRAIN, before)


@contextlib.contextmanager
def relayed_stdin(the_machine, run):
    """Passes on stdin. While the guest is behind, the rest stays unread. Yields a function: is stdin at its end?"""
    watched = False
    at_end = False

    def read(_=None):
        nonlocal watched, at_end
        try:
            data = os.read(0, machine.CHUNK)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if watched and (not data or run.unsent() > 0):
            the_machine.unwatch(0)
            watched = False
        if data:
            run.on_drained = resume
            run.send(data)
        else:
            run.on_drained = None
            at_end = True

    def resume():
        nonlocal watched
        if watched:
            return
        try:
            the_machine.watch(0, selectors.EVENT_READ, read)
            watched = True
        except OSError:
            # Regular files and the like are always ready; epoll refuses them.
            read()

    resume()
    try:
        yield lambda: at_end
    finally:
        run.on_drained = None
        if watched:
            the_machine.unwatch(0)


def keep_descriptors():
    """Makes sure that 0, 1 and 2 are open; otherwise a file that is opened later would get their numbers."""
    while True:
        file = os.open(os.devnull, os.O_RDWR)
        if file > 2:
            os.close(file)
            return
        os.set_inheritable(file, True)


def new_log(cache):
    directory = cache / "log"
    directory.mkdir(exist_ok=True)
    for old in sorted(directory.iterdir(), key=lambda path: path.stat().st_mtime)[:-LOGS_KEPT]:
        old.unlink(missing_ok=True)
    return directory / f"{time.strftime('%Y%m%d-%H%M%S')}-{secrets.token_hex(2)}.log"


def run(options):
    cache = debian.cache_directory()
    image = guest.Image.of_debian(options.kvm_vmm, report)
    if options.prepare:
        debian.level1_initramfs(cache, debian.kernel(cache, report))
        return 0
    image.kernel = options.kernel or image.kernel
    disks = [disk_of(text) for text in options.disks]
    if options.debian:
        root = distribution.debian_root(cache, report)
        image.kernel, image.initramfs = options.kernel or str(root.kernel), root.initramfs
        disks.insert(0, machine.Disk(str(root.disk)))
        options.net = True
        report("log in as root, without a password; `poweroff` or Ctrl-A x ends the guest. What it writes is kept in"
               f" {root.disk}")
    if disks or options.net:
        image.session["devices"] = b""
    if options.net:
        image.session["network"] = b""
    # quiet: no one reads the console, and each byte on it costs two exits.
    words = [] if options.command is None else ["quiet"]
    image.cmdline = " ".join(words + ([options.append] if options.append else []))
    report(f"running {'directly' if options.kind == 'direct' else 'nested in QEMU'}, because {options.reason}")
    log = new_log(cache)
    host_log = log.with_suffix(".host.log")
    memory = size_mib(value_of(options.rest, "--memory") or options.memory)
    with machine.open_machine(options.kind, report, host_log, memory, disks, options.net) as the_machine:
        if options.kind == "nested":
            copy_named_files(the_machine, options.rest)
        devices = device_arguments(options, the_machine, disks)
        if options.command is None:
            status = run_shell(options, image, the_machine, devices)
        else:
            status = run_command(options, image, the_machine, devices, log)
    if status != NO_STATUS:
        log.unlink(missing_ok=True)
    host_log.unlink(missing_ok=True)
    return status


def main():
    keep_descriptors()
    fatal = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT)

    # End in the same way as in all other cases, so that the terminal is restored and the child processes are
    # ended; a second signal must not interrupt that.
    def on_signal(number, _):
        for other in fatal:
            signal.signal(other, signal.SIG_IGN)
        raise Signalled(number)

    for number in fatal:
        signal.signal(number, on_signal)
    try:
        return run(parse(sys.argv[1:]))
    except Signalled as signalled:
        return 128 + signalled.number
    except debian.PrepareError as error:
        report(str(error))
        return 1
    except machine.MachineError as error:
        report(str(error))
        return NO_STATUS
    except OSError as error:
        report(f"{error.filename or 'error'}: {error.strerror}")
        return NO_STATUS


if __name__ == "__main__":
    sys.exit(main())
