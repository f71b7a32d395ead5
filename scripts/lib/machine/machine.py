# SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
"""Machines on which kvm_vmm can run a real kernel.

`DirectMachine` is this computer, if its CPU has hardware virtualization. `NestedMachine` is a small Linux under QEMU,
whose emulated CPU has SVM, so that /dev/kvm appears inside it. Both run any number of programs one after another and
hand out the same `Run`: bytes to stdin, bytes from stdout, stderr and further streams, and an exit status.

    with open_machine(...) as machine:
        kernel = machine.put(path)
        run = machine.run([kvm_vmm, "--kernel", kernel])
        run.expect(rb"# ", timeout=60)
        run.send(b"reboot -f\\n")
        assert run.wait(timeout=60) == 10

Everything happens in the caller's thread, inside `pump()`, which the waiting functions call.
"""

import contextlib
import ctypes
import dataclasses
import os
import pathlib
import re
import secrets
import selectors
import shlex
import signal
import socket
import subprocess
import tempfile
import time

from machine import debian

CHUNK = 65536
# How many streams a run may have beside stdin, stdout and stderr (one per UART but the first).
STREAMS = 4
# The message of kvm_vmm after a triple fault.
TRIPLE_FAULT = b"kvm_vmm: triple fault"


class MachineError(Exception):
    """The machine itself failed; the text is for the user."""


class TimeoutExpired(MachineError):
    """An expected event did not happen in time."""


@dataclasses.dataclass(frozen=True)
class Disk:
    """A raw image, or a block device, of this computer."""

    path: str
    readonly: bool = False


def why_not_direct():
    """The reason why kvm_vmm cannot run a kernel directly on this computer, or None if it can."""
    try:
        flags = re.search(r"^flags\s*:(.*)$", pathlib.Path("/proc/cpuinfo").read_text(encoding="utf-8"), re.MULTILINE)
    except OSError:
        flags = None
    if not flags or not {"vmx", "svm"} & set(flags.group(1).split()):
        return "this CPU has neither vmx nor svm"
    try:
        os.close(os.open("/dev/kvm", os.O_RDWR | os.O_CLOEXEC))
    except OSError as error:
        return f"/dev/kvm cannot be opened ({error.strerror})"
    return None


class Output:
    """One output stream of a run: keeps the bytes, or passes them to a function."""

    def __init__(self, name, mark=None):
        self.name = name
        self.data = bytearray()
        self.deliver = self.data.extend
        self.ended = False
        self._mark = mark
        self._held = b""

    def feed(self, chunk):
        """Takes what has arrived; b"" is the end of the stream."""
        if not chunk:
            self.end()
            return
        if self._mark is None:
            self.deliver(chunk)
            return
        chunk = self._held + chunk
        at = chunk.find(self._mark)
        if at >= 0:
            self._held = b""
            chunk = chunk[:at]
        else:
            # The start of the mark may have arrived before the rest of it.
            keep = next(size for size in range(len(self._mark) - 1, -1, -1) if chunk.endswith(self._mark[:size]))
            self._held = chunk[len(chunk) - keep:]
            chunk = chunk[:len(chunk) - keep]
        if chunk:
            self.deliver(chunk)
        if at >= 0:
            self.end()

    def end(self):
        if self._held:
            self.deliver(self._held)
            self._held = b""
        self.ended = True


class Run:
    """A program running on a machine."""

    def __init__(self, machine, outputs):
        self._machine = machine
        self._pending = bytearray()
        self._matched = {}
        self.outputs = outputs
        # Called when all bytes that were sent have been taken.
        self.on_drained = None
        self.status = None
        self.started = time.monotonic()
        self.seconds = None

    @property
    def stdout(self):
        return bytes(self.outputs["stdout"].data)

    @property
    def stderr(self):
        return bytes(self.outputs["stderr"].data)

    def stream(self, name):
        return bytes(self.outputs[name].data)

    def done(self):
        return self.status is not None and all(output.ended for output in self.outputs.values())

    def send(self, data):
        """Queues bytes for stdin. Nothing is lost if the program reads slowly; `unsent()` returns how many wait."""
        self._pending += data
        self._machine._want_stdin(self)

    def unsent(self):
        return len(self._pending)

    def close_stdin(self):
        self._machine._close_stdin(self)

    def kill(self, number=signal.SIGTERM):
        self._machine._kill(self, number)

    def wait(self, timeout):
        """Waits until the program has ended and all its output has arrived; returns the exit status as a shell does."""
        self._machine.pump_until(self.done, timeout, lambda: "the program did not end" + self._tail())
        return self.status

    def expect(self, pattern, timeout, stream="stdout"):
        """Waits until the output after the last match in this stream matches a regular expression; returns the match."""
        found = None

        def look():
            nonlocal found
            found = re.compile(pattern, re.DOTALL).search(self.outputs[stream].data, self._matched.get(stream, 0))
            return found is not None or self.done()

        self._machine.pump_until(look, timeout, lambda: f"{pattern!r} did not come on {stream}" + self._tail())
        if found is None:
            raise MachineError(f"the program ended with {self.status} before {pattern!r} came on {stream}" + self._tail())
        self._matched[stream] = found.end()
        return found

    def _tail(self):
        texts = []
        for output in self.outputs.values():
            last = bytes(output.data[-2000:]).decode(errors="replace")
            if last:
                texts.append(f"\n--- end of {output.name}:\n{last}")
        return "".join(texts)

    def _drained(self):
        if self.on_drained is not None:
            self.on_drained()

    def _finish(self, status):
        self.status = status
        self.seconds = time.monotonic() - self.started


class Machine:
    """The part that both kinds share: the event loop."""

    def __init__(self):
        self.selector = selectors.DefaultSelector()
        self._resources = contextlib.ExitStack()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def close(self):
        self._resources.close()
        self.selector.close()

    def watch(self, file, events, function):
        """Calls `function(events)` whenever the file is ready. The caller may add files of its own."""
        self.selector.register(file, events, function)

    def unwatch(self, file):
        with contextlib.suppress(KeyError, ValueError):
            self.selector.unregister(file)

    def pump(self, timeout):
        for key, events in self.selector.select(timeout):
            # An earlier function of this round may have unregistered the file.
            if key.fd in self.selector.get_map():
                key.data(events)

    def pump_until(self, condition, timeout, describe, interval=1.0):
        """Serves the files until the condition holds; it is checked after each event and each interval (seconds)."""
        deadline = time.monotonic() + timeout
        while not condition():
            self._check()
            left = deadline - time.monotonic()
            if left <= 0:
                raise TimeoutExpired(f"{describe()}\n(waited {timeout:.0f} s)")
            self.pump(min(left, interval))

    def stop_run(self, timeout):
        """Kills the program if it still runs and waits for its end, so that another one can be started."""
        for run in self._running():
            run.kill(signal.SIGKILL)
            run.wait(timeout)

    def lost_guest(self):
        """Whether a fault of this machine's emulation ended the last guest."""
        return False

    def _running(self):
        return []

    def _check(self):
        """Raises an exception if the machine has died."""

    def _new_output(self, run_outputs, name, file, mark=None):
        output = run_outputs[name] = Output(name, mark)

        def ready(_):
            try:
                chunk = os.read(file, CHUNK)
            except BlockingIOError:
                return
            except OSError:
                chunk = b""
            output.feed(chunk)
            if output.ended:
                self.unwatch(file)
                if mark is None:
                    os.close(file)

        self.watch(file, selectors.EVENT_READ, ready)
        return output


def _die_with_parent():
    """Called in a child: has it killed when this process ends in any way."""
    pr_set_pdeathsig = 1
    ctypes.CDLL(None, use_errno=True).prctl(pr_set_pdeathsig, signal.SIGKILL)


class DirectMachine(Machine):
    """This computer."""

    kind = "direct"

    def __init__(self, disks=()):
        super().__init__()
        # The names of the disks on this machine.
        self.disks = [disk.path for disk in disks]
        self._directory = self._resources.enter_context(tempfile.TemporaryDirectory(prefix="vmsuperio-"))
        self._stdin = {}
        self._processes = {}
        self._streams = 0

    def network(self):
        """What a guest's network is connected to: a value for kvm_vmm's --net."""
        return "passt"

    def put(self, source, _name=None):
        """The name under which a program on this machine opens a file, or these bytes."""
        if isinstance(source, (bytes, bytearray)):
            with tempfile.NamedTemporaryFile(dir=self._directory, delete=False) as file:
                file.write(source)
            return file.name
        return str(source)

    def get(self, path):
        return pathlib.Path(path).read_bytes()

    def busy_seconds(self):
        """A clock (see NestedMachine)."""
        return time.monotonic()

    def shell(self, script, timeout):
        """Runs `script` with sh beside the program under way; its status, and its stdout and stderr as one."""
        with tempfile.TemporaryFile(dir=self._directory) as output:
            with subprocess.Popen(["sh", "-c", script], stdin=subprocess.DEVNULL, stdout=output, stderr=output,
                                  preexec_fn=_die_with_parent) as process:
                try:
                    self.pump_until(lambda: process.poll() is not None, timeout, lambda: f"{script!r} did not end", 0.02)
                finally:
                    self._end(process)
            output.seek(0)
            return process.returncode, output.read()

    def _running(self):
        return [run for run, process in self._processes.items() if run.status is None]

    def streams(self, *names):
        """Paths of new streams: what the next run writes there comes out of `run.stream(name)`."""
        paths = {}
        for name in names:
            self._streams += 1
            paths[name] = os.path.join(self._directory, f"stream{self._streams}")
            os.mkfifo(paths[name])
        return paths

    def run(self, command, streams=None, stdin="stream", directory=None):
        """Starts a program. stdin: "stream" (see `Run.send`), None (closed), or the path of a file."""
        outputs = {}
        run = Run(self, outputs)
        out_read, out_write = os.pipe()
        err_read, err_write = os.pipe()
        in_read = in_write = None
        if stdin == "stream":
            in_read, in_write = os.pipe()
        elif stdin is not None:
            in_read = os.open(stdin, os.O_RDONLY)
        for name, path in (streams or {}).items():
            # Also open for writing, because otherwise the FIFO would be at its end until the program opens
            # it.
            reader = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
            self._new_output(outputs, name, reader)
        holders = [os.open(path, os.O_WRONLY | os.O_CLOEXEC) for path in (streams or {}).values()]
        self._new_output(outputs, "stdout", out_read)
        self._new_output(outputs, "stderr", err_read)

        def prepare():
            _die_with_parent()
            if in_read is None:
                os.close(0)

        # pylint: disable-next=consider-using-with
        process = subprocess.Popen([os.fsencode(argument) for argument in command], stdin=in_read, stdout=out_write,
                                   stderr=err_write, cwd=directory, preexec_fn=prepare, start_new_session=True)
        for file in (in_read, out_write, err_write):
            if file is not None:
                os.close(file)
        self._resources.callback(self._end, process)
        self._processes[run] = process
        if in_write is not None:
            os.set_blocking(in_write, False)
            self._stdin[run] = in_write
        ended = os.pidfd_open(process.pid)

        def reap(_):
            self.unwatch(ended)
            os.close(ended)
            code = process.wait()
            for holder in holders:
                os.close(holder)
            self._close_stdin(run)
            run._finish(code if code >= 0 else 128 - code)

        self.watch(ended, selectors.EVENT_READ, reap)
        return run

    @staticmethod
    def _end(process):
        if process.poll() is None:
            process.kill()
            process.wait()

    def _want_stdin(self, run):
        file = self._stdin.get(run)
        if not run._pending:
            return
        if file is not None and file not in self.selector.get_map():
            self.watch(file, selectors.EVENT_WRITE, lambda _: self._write_stdin(run, file))

    def _write_stdin(self, run, file):
        try:
            written = os.write(file, run._pending[:CHUNK])
        except BlockingIOError:
            return
        except OSError:
            self._close_stdin(run)
            return
        del run._pending[:written]
        if not run._pending:
            self.unwatch(file)
            run._drained()

    def _close_stdin(self, run):
        file = self._stdin.pop(run, None)
        if file is not None:
            self.unwatch(file)
            os.close(file)

    def _kill(self, run, number):
        process = self._processes[run]
        if process.poll() is None:
            process.send_signal(number)


class NestedMachine(Machine):
    """A Linux with KVM under QEMU (see level1-init, which is its PID 1)."""

    kind = "nested"
    # stdin and stdout are two ports: Linux's driver may lose the arrival of input on a port (no wake-up for a thread
    # that waits in epoll) when another thread polls the same port for room to write.
    _CONTROL, _FILES, _STDIN, _STDOUT, _STDERR, _FIRST_STREAM = range(1, 7)

    def __init__(self, kernel, initramfs, log, memory_mib=1024, start_timeout=180, disks=(), network=False):
        super().__init__()
        # The images are drives of this machine: nothing is copied, and what a guest writes is in them at once.
        self.disks = [f"/dev/vd{chr(ord('a') + index)}" for index in range(len(disks))]
        self._network = network
        self._log = log
        self._answers = {}
        self._answered = bytearray()
        self._files = {}
        self._copied = {}
        self._ready = None
        self._run = None
        self._pid = None
        self._stdin_open = False
        self._stdin_dirty = False
        sockets = {}
        ports = range(self._CONTROL, self._FIRST_STREAM + STREAMS)
        command = ["qemu-system-x86_64", "-nodefaults", "-no-user-config", "-display", "none", "-no-reboot",
                   # Without xsave: this emulation hides XSETBV from the nested KVM, which then misreports the
                   # size of the saved state, so that every guest prints a warning.
                   # Without the instructions for AES and GCM: the self-tests of the drivers that udev loads for them take
                   # minutes here, and a system waits for them.
                   "-machine", "q35", "-accel", "tcg,thread=multi", "-cpu", "max,-xsave,-aes,-pclmulqdq,-sha-ni",
                   # One CPU is hardly slower for a guest of one CPU, and reliable: if QEMU emulates several
                   # in parallel, code that one of them modifies while another executes it is sometimes lost,
                   # which crashes the nested host or its guest.
                   "-smp", "1",
                   "-m", f"{memory_mib}M", "-kernel", str(kernel.image), "-initrd", str(initramfs),
                   # The nested host runs only our own guest, so mitigations would only cost time.
                   "-append", "console=ttyS0 quiet mitigations=off panic=-1",
                   "-serial", f"file:{log}", "-device", f"virtio-serial-pci,max_ports={len(ports) + 1}"]
        for index, disk in enumerate(disks):
            path = os.path.abspath(disk.path).replace(",", ",,")
            command += ["-drive", f"file={path},format=raw,if=none,id=disk{index},readonly={'on' if disk.readonly else 'off'}",
                        "-device", f"virtio-blk-pci,drive=disk{index}"]
        if network:
            command += ["-netdev", "user,id=net", "-device", "virtio-net-pci,netdev=net"]
        for port in ports:
            ours, theirs = socket.socketpair()
            sockets[port] = (ours, theirs)
            command += ["-chardev", f"socket,id=port{port},fd={theirs.fileno()}",
                        "-device", f"virtserialport,nr={port},chardev=port{port}"]
        try:
            # pylint: disable-next=consider-using-with
            self._qemu = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                                          stderr=subprocess.STDOUT, start_new_session=True, preexec_fn=_die_with_parent,
                                          pass_fds=[theirs.fileno() for _, theirs in sockets.values()])
        except FileNotFoundError as error:
            raise MachineError("qemu-system-x86_64 is not installed (package qemu-system-x86)") from error
        self._resources.callback(self._stop)
        for port, (ours, theirs) in sockets.items():
            theirs.close()
            ours.setblocking(False)
            self._files[port] = self._resources.enter_context(ours)
        self.watch(self._files[self._CONTROL], selectors.EVENT_READ, self._control_ready)
        self.pump_until(lambda: self._ready is not None, start_timeout, lambda: "the nested host did not start")
        if self._ready != "ready":
            raise MachineError(f"the nested host failed: {self._ready}; its log is {log}")

    def network(self):
        """Connects a tap device to this machine's network card; returns a value for kvm_vmm's --net. The guest gets an
        address from QEMU's DHCP server, which also leads to the networks of the computer."""
        if not self._network:
            raise MachineError("this nested host was started without a network")
        status, output = self.shell("[ -e /sys/class/net/tap0 ] || { brctl addbr br0 && ip link set eth0 up master br0 &&"
                                    " tunctl -t tap0 && ip link set tap0 up master br0 && ip link set br0 up; }", 60)
        if status != 0:
            raise MachineError(f"the nested host cannot set up a network: {output.decode(errors='replace')}")
        return "tap=tap0"

    def put(self, source, name=None):
        """Copies a file, or bytes, to the nested host; returns the path there. A file is not sent a second time."""
        if isinstance(source, (bytes, bytearray)):
            content, mode = bytes(source), 0o644
            path = f"/tmp/{name or secrets.token_hex(4)}"
        else:
            path = name or os.path.abspath(source)
            about = os.stat(source)
            version = (str(source), about.st_mtime_ns, about.st_size)
            if self._copied.get(path) == version:
                return path
            content = pathlib.Path(source).read_bytes()
            mode = about.st_mode & 0o777
            self._copied[path] = version
        port = self._files[self._FILES]
        answer = self._call("receive", str(len(content)), f"{mode:o}", path)
        view = memoryview(content)

        def write(_):
            nonlocal view
            view = view[port.send(view[:1 << 20]):]
            if not view:
                self.unwatch(port)

        if content:
            self.watch(port, selectors.EVENT_WRITE, write)
        if self._wait_answer(answer, 300) != ["0"]:
            raise MachineError(f"the nested host has no room for {source!r:.80} ({len(content)} bytes)")
        return path

    def get(self, path):
        """A file of the nested host."""
        closed = []
        answer = self._wait_answer(self._call("send", self._identity(closed.extend), path), 60)
        if answer[0] != "0":
            raise MachineError(f"the nested host has no file {path}")
        content = bytearray()
        port = self._files[self._FILES]
        self.watch(port, selectors.EVENT_READ, lambda _: content.extend(port.recv(CHUNK)))
        try:
            self.pump_until(lambda: len(content) >= int(answer[1]), 300, lambda: f"{path} did not arrive")
        finally:
            self.unwatch(port)
        self._wait_answer(closed, 60)
        return bytes(content)

    def shell(self, script, timeout):
        """Runs `script` with sh beside the program under way; its status, and its stdout and stderr as one."""
        path = self.put(os.fsencode(script))
        answer = self._call("execute", path, path + ".output", background=True)
        self.pump_until(lambda: answer, timeout, lambda: f"{script!r} did not end on the nested host")
        output = self.get(path + ".output")
        self._wait_answer(self._call("remove", path, path + ".output"), 60)
        return int(answer[0]), output

    def _running(self):
        return [self._run] if self._run is not None and not self._run.done() else []

    def lost_guest(self):
        # A spurious triple fault of the nested host itself or of its guest.
        return self._qemu.poll() is not None or (self._run is not None and self._run.done() and
                                                 TRIPLE_FAULT in self._run.stderr)

    def streams(self, *names):
        """Paths of the streams of the next run: what it writes there comes out of `run.stream(name)`."""
        if len(names) > STREAMS:
            raise ValueError(f"at most {STREAMS} streams")
        return {name: f"/dev/vport0p{self._FIRST_STREAM + index}" for index, name in enumerate(names)}

    def run(self, command, streams=None, stdin="stream", directory=None):
        """Starts a program; one at a time. stdin: "stream" (see `Run.send`), None (closed), or the path of a file."""
        if self._run is not None and not self._run.done():
            raise MachineError("a program is still running on the nested host")
        token = secrets.token_hex(16)
        mark = b"\0\xff" + token.encode() + b"\n"
        outputs = {}
        run = self._run = Run(self, outputs)
        used = [("stdout", self._STDOUT), ("stderr", self._STDERR)]
        used += [(name, int(path.rpartition("p")[2])) for name, path in (streams or {}).items()]
        for name, port in used:
            self._new_output(outputs, name, self._files[port].fileno(), mark)
        source = {"stream": f"</dev/vport0p{self._STDIN}", None: "<&-"}.get(stdin) or f"<{shlex.quote(stdin)}"
        redirection = f"{source} >/dev/vport0p{self._STDOUT} 2>/dev/vport0p{self._STDERR}"
        directory = directory or "/"
        # A file instead of the control line, because arguments may contain a line break. The shell prints its
        # process id and becomes the program.
        script = (f"echo pid $$ >&3; exec 3>&-; mkdir -p {shlex.quote(directory)}; cd {shlex.quote(directory)}\n"
                  f"exec {shlex.join(command)}\n")
        path = self.put(os.fsencode(script), "run")
        if self._stdin_dirty:
            self._drain_stdin()
        ports = " ".join(str(port) for _, port in used)
        identity = self._identity(lambda words: run._finish(int(words[0])))
        self._pid = None
        run.started = time.monotonic()
        self._command(f"( sh {path} {redirection}; finish {identity} $? {token} {ports} ) &")
        self._stdin_open = stdin == "stream"
        return run

    def busy_seconds(self):
        """How long the CPUs of this machine have been at work. Unlike a clock, this does not include the time in which this
        computer did something else; with one CPU it is otherwise the time that has passed while the machine was not idle."""
        tasks = pathlib.Path(f"/proc/{self._qemu.pid}/task").iterdir()
        return sum(int((task / "schedstat").read_text(encoding="ascii").split()[0]) for task in tasks) / 1e9

    def _drain_stdin(self):
        """Discards the input that an earlier program left unread; some of it may still be in a socket."""
        token = secrets.token_hex(16)
        answer = self._call("drain", token)
        view = memoryview(b"\n" + token.encode() + b"\n")
        port = self._files[self._STDIN]
        while view:
            with contextlib.suppress(BlockingIOError):
                view = view[port.send(view):]
            self.pump(0.01)
            self._check()
        self._wait_answer(answer, 60)
        self._stdin_dirty = False

    def _want_stdin(self, run):
        if run is not self._run or run.status is not None or not self._stdin_open:
            run._pending.clear()
        elif run._pending and self._files[self._STDIN].fileno() not in self.selector.get_map():
            self.watch(self._files[self._STDIN].fileno(), selectors.EVENT_WRITE, lambda _: self._write_stdin(run))

    def _write_stdin(self, run):
        port = self._files[self._STDIN]
        if run.status is not None:
            run._pending.clear()
        else:
            self._stdin_dirty = True
            with contextlib.suppress(BlockingIOError):
                del run._pending[:port.send(run._pending[:CHUNK])]
        if not run._pending:
            self.unwatch(port.fileno())
            run._drained()

    def _close_stdin(self, run):
        # A port has no end of file, so a run whose stdin must end reads a file instead.
        raise MachineError("stdin of a nested run cannot be closed; give a file as stdin")

    def _kill(self, run, number):
        if run is self._run and run.status is None:
            self.pump_until(lambda: self._pid is not None or run.status is not None, 60, lambda: "no process id")
            self._command(f"kill -{int(number)} {self._pid}")

    def _identity(self, function):
        identity = secrets.token_hex(4)
        self._answers[identity] = function
        return identity

    def _command(self, line):
        if "\n" in line:
            raise ValueError(f"line break in {line!r}")
        data = memoryview(os.fsencode(line) + b"\n")
        control = self._files[self._CONTROL]
        while data:
            try:
                data = data[control.send(data):]
            except BlockingIOError:
                self.pump(0.1)
                self._check()
            except BrokenPipeError as error:
                raise MachineError(f"the nested host has ended; its log is {self._log}") from error

    def _call(self, function, *arguments, background=False):
        answer = []
        identity = self._identity(answer.extend)
        self._command(" ".join([function, identity, *(shlex.quote(argument) for argument in arguments)])
                      + (" &" if background else ""))
        return answer

    def _wait_answer(self, answer, timeout):
        self.pump_until(lambda: answer, timeout, lambda: "the nested host did not answer")
        return answer

    def _control_ready(self, _):
        try:
            chunk = self._files[self._CONTROL].recv(CHUNK)
        except BlockingIOError:
            return
        except OSError:
            chunk = b""
        if not chunk:
            self.unwatch(self._files[self._CONTROL])
            return
        self._answered += chunk
        *lines, self._answered = self._answered.split(b"\n")
        for line in lines:
            text = line.decode(errors="replace")
            if self._ready is None:
                self._ready = text
                continue
            word, *rest = text.split()
            if word == "pid":
                self._pid = int(rest[0])
            elif word in self._answers:
                self._answers.pop(word)(rest)

    def _check(self):
        if self._qemu.poll() is not None:
            output = self._qemu.stdout.read().decode(errors="replace").strip()
            raise MachineError(f"the nested host ended (QEMU's exit status {self._qemu.returncode}); its log is {self._log}"
                               + (f"\n{output}" if output else ""))

    def _stop(self):
        if self._qemu.poll() is None:
            self._qemu.kill()
        self._qemu.wait()
        self._qemu.stdout.close()


def open_machine(kind, report, log, memory_mib=512, disks=(), network=False):
    """The requested machine: "direct" or "nested" (whose guest may have this much memory). Its attribute `disks` has the
    names that these disks have there; network() may be called if `network` is given."""
    if kind == "direct":
        return DirectMachine(disks)
    cache = debian.cache_directory()
    kernel = debian.kernel(cache, report)
    initramfs = debian.level1_initramfs(cache, kernel)
    total_mib = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") >> 20
    # Beside the guest there are the files we send and the nested host's own kernel.
    wanted = min(memory_mib + 384, max(total_mib * 3 // 4, 768))
    return NestedMachine(kernel, initramfs, log, wanted, disks=disks, network=network)
