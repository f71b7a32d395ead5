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

from machine import cpio, debian, machine

PROGRAM = "scripts/boot"
NO_STATUS = 125
# kvm_vmm's name for "the guest rebooted".
GUEST_RESET = 10
LOGS_KEPT = 10
# What a terminal sends for the end of the input: Ctrl-D.
END_OF_INPUT = b"\x04"
report = debian.report_to_stderr(PROGRAM)


class Signalled(Exception):
    """One of the signals that end a program has come."""

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


def given(rest, option):
    """Whether kvm_vmm arguments hold this option."""
    return any(argument == option or argument.startswith(option + "=") for argument in rest)


def value_of(rest, option):
    """The last value of an option among kvm_vmm arguments, or None."""
    value = None
    for index, argument in enumerate(rest):
        if argument == option and index + 1 < len(rest):
            value = rest[index + 1]
        elif argument.startswith(option + "="):
            value = argument.partition("=")[2]
    return value


def size_mib(text):
    """A size as kvm_vmm takes it, in MiB; a wrong one counts as the default, and kvm_vmm will say what is wrong."""
    match = re.fullmatch(r"(\d+)(?:([KMGT])(?:i?B)?)?", text or "512M", re.IGNORECASE)
    if not match:
        return 512
    shift = {"K": 0, "M": 10, "G": 20, "T": 30}[(match.group(2) or "M").upper()]
    return max(1, (int(match.group(1)) << shift) >> 10)


def session_archive(files):
    archive = cpio.Archive()
    for name, content in files.items():
        archive.file(f"session/{name}", content)
    return archive.finish()


def vmm_command(options, on_machine, initrd, serials):
    """kvm_vmm's command line. `on_machine` turns the name of a file here into its name there."""
    rest = options.rest
    kernel = options.kernel or str(options.debian_kernel.image)
    command = [on_machine(options.kvm_vmm)]
    if not given(rest, "--kernel"):
        command += ["--kernel", on_machine(kernel)]
    if not given(rest, "--initrd"):
        command += ["--initrd", initrd]
    if not given(rest, "--cmdline"):
        # reboot=k: the keyboard controller is the reset line that every PC has. panic=-1: a panic reboots at once.
        # quiet: nobody watches, and a console byte costs two exits.
        words = ["console=ttyS0 reboot=k panic=-1"]
        words += ["quiet"] if options.command is not None else []
        words += [options.append] if options.append else []
        command += ["--cmdline", " ".join(words)]
    for name in ("memory", "cpus"):
        if getattr(options, name) is not None:
            command += [f"--{name}", getattr(options, name)]
    for serial in serials:
        command += ["--serial", serial]
    return command + rest


def copy_named_files(the_machine, rest):
    """Puts the files that kvm_vmm arguments name where the same name leads to them on a nested host."""
    for argument in rest:
        for candidate in {argument, *re.split(r"[=,]", argument)}:
            if candidate and os.path.isfile(candidate) and os.access(candidate, os.R_OK):
                the_machine.put(candidate)


def exit_status(text):
    """The status in what guest-init wrote, or None."""
    match = re.fullmatch(rb"exit (\d+)\r?\n", text)
    return int(match.group(1)) if match else None


def run_command(options, the_machine, log_path):
    """--exec. The first UART carries the kernel's log, the next three the command's output, errors and status."""
    files = {"command": os.fsencode(options.command), "stdout": b"ttyS1\n", "stderr": b"ttyS2\n", "status": b"ttyS3\n"}
    initrd = the_machine.put(options.initramfs.read_bytes() + session_archive(files))
    streams = the_machine.streams("command stdout", "command stderr", "status")
    serials = ["stdio", *(f"file={path}" for path in streams.values())]
    with open(log_path, "ab", buffering=0) as log:
        command = vmm_command(options, the_machine.put, initrd, serials)
        run = the_machine.run(command, streams, stdin="/dev/null", directory=os.getcwd())
        for name, deliver in (("stdout", log.write), ("stderr", log.write), ("command stdout", writer(1)),
                              ("command stderr", writer(2))):
            run.outputs[name].deliver = deliver
        # No limit: the command may run for as long as it likes.
        the_machine.pump_until(lambda: run.done() or exit_status(run.stream("status")) is not None, float("inf"), str)
        status = exit_status(run.stream("status"))
        if status is not None:
            # The guest is on its way out; what it wrote has been sent, but may not have arrived.
            with contextlib.suppress(machine.TimeoutExpired):
                run.wait(20)
            return status
    message = complaint(log_path)
    report(f"the guest ended before the command had a status (kvm_vmm's exit status is {run.status}"
           + (f": {message}" if message else "") + f"); its log is {log_path}")
    return NO_STATUS


def complaint(log_path):
    """The last thing that kvm_vmm itself said."""
    lines = re.findall(rb"^kvm_vmm: (.*?)\r?$", pathlib.Path(log_path).read_bytes()[-65536:], re.MULTILINE)
    return lines[-1].decode(errors="replace") if lines else None


def writer(file):
    """A function that writes all it is given to a descriptor, until nobody reads there any more."""
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


def shell_files():
    """What the guest should know about the terminal."""
    files = {"status": b"ttyS1\n", "term": os.fsencode(os.environ.get("TERM") or "vt100") + b"\n"}
    with contextlib.suppress(OSError):
        size = os.get_terminal_size(0)
        if size.columns and size.lines:
            files["rows"] = f"{size.lines}\n".encode()
            files["columns"] = f"{size.columns}\n".encode()
    return files


def run_shell(options, the_machine):
    """The interactive session. The second UART tells when the shell starts, and that it was left in good order."""
    initrd = the_machine.put(options.initramfs.read_bytes() + session_archive(shell_files()))
    # With an initramfs or serial ports of the user's own there are no such messages.
    own = given(options.rest, "--serial") or given(options.rest, "--initrd")
    streams = {} if own else the_machine.streams("status")
    serials = ["stdio", *(f"file={path}" for path in streams.values())] if streams else []
    command = vmm_command(options, the_machine.put, initrd, serials)
    if the_machine.kind == "direct" and os.isatty(0):
        status, text = shell_directly(command, streams)
    else:
        status, text = shell_relayed(the_machine, command, streams)
    return 0 if status == GUEST_RESET and text.endswith(b"exit 0\n") else status


def shell_directly(command, streams):
    """kvm_vmm has the terminal itself."""
    reader = None
    if streams:
        reader = os.open(streams["status"], os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    with subprocess.Popen(command) as process:
        try:
            code = process.wait()
        except BaseException:
            # Politely, so that kvm_vmm gives the terminal back as it was.
            process.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(5)
            process.kill()
            raise
    text = os.read(reader, machine.CHUNK) if reader is not None else b""
    return (code if code >= 0 else 128 - code), text


def shell_relayed(the_machine, command, streams):
    """kvm_vmm has ports or pipes; every byte goes from our stdin to there and back as it is, Ctrl-C and Ctrl-A too."""
    run = the_machine.run(command, streams, directory=os.getcwd())
    run.outputs["stdout"].deliver = writer(1)
    run.outputs["stderr"].deliver = writer(2)
    at_terminal = os.isatty(0)
    if streams and not at_terminal:
        # A script's input waits for the shell: the guest's driver throws away what comes before it opens the port.
        the_machine.pump_until(lambda: run.done() or run.stream("status"), float("inf"), str)
    with raw_terminal(0), relayed_stdin(the_machine, run) as ended:
        while not run.done():
            with contextlib.suppress(machine.TimeoutExpired):
                the_machine.pump_until(run.done, 0.5, str)
            # Again and again, as every reader is to see the end, and a Ctrl-D that comes while the shell switches the
            # terminal's mode is lost.
            if ended() and not at_terminal and run.unsent() == 0:
                run.send(END_OF_INPUT)
    return run.status, run.stream("status") if streams else b""


@contextlib.contextmanager
def raw_terminal(file):
    """Makes a terminal pass every byte; as it was afterwards, however that comes about."""
    if not os.isatty(file):
        yield
        return
    before = termios.tcgetattr(file)
    try:
        tty.setraw(file, termios.TCSADRAIN)
        yield
    finally:
        # Nothing to restore where the terminal has gone away.
        with contextlib.suppress(termios.error):
            termios.tcsetattr(file, termios.TCSADRAIN, before)


@contextlib.contextmanager
def relayed_stdin(the_machine, run):
    """Hands on what comes in. While the guest is behind, the rest stays unread. Gives a function: is stdin at its end?"""
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
            # Regular files and the like are always ready, which epoll says by refusing them.
            read()

    resume()
    try:
        yield lambda: at_end
    finally:
        run.on_drained = None
        if watched:
            the_machine.unwatch(0)


def keep_descriptors():
    """Makes sure that 0, 1 and 2 exist, or a file opened later would take their place."""
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
    options.debian_kernel = debian.kernel(cache, report)
    options.initramfs = debian.guest_initramfs(cache, options.debian_kernel)
    if options.prepare:
        debian.level1_initramfs(cache, options.debian_kernel)
        return 0
    report(f"running {'directly' if options.kind == 'direct' else 'nested in QEMU'}, because {options.reason}")
    log = new_log(cache)
    host_log = log.with_suffix(".host.log")
    memory = size_mib(value_of(options.rest, "--memory") or options.memory)
    with machine.open_machine(options.kind, report, host_log, memory) as the_machine:
        if options.kind == "nested":
            copy_named_files(the_machine, options.rest)
        status = run_shell(options, the_machine) if options.command is None else run_command(options, the_machine, log)
    if status != NO_STATUS:
        log.unlink(missing_ok=True)
    host_log.unlink(missing_ok=True)
    return status


def main():
    keep_descriptors()
    fatal = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT)

    # Ends by the same way out as everything else, so that the terminal and the child processes are seen to; a second
    # signal must not cut that short.
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
