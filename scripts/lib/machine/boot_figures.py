# SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
"""The figures of `scripts/measure --peers`: what the boot of a guest and its output cost under each VMM.

All VMMs run on one nested host, in turn, with the same kernel, initramfs, command line, RAM, and the same devices as far as they
have them: one serial port and a virtio console. Returns to the VMM are events of the tracepoint kvm:kvm_userspace_exit;
`exits` in debugfs also counts what KVM handles itself.
"""

import dataclasses
import pathlib
import re
import shlex
import statistics
import subprocess

from machine import cpio, machine, peers

GUEST_MEMORY_MIB = 256
TEXT_KIB = 64
IDLE_SECONDS = 10
FIRMWARE = ("bios-microvm.bin", "bios-256k.bin", "linuxboot_dma.bin", "kvmvapic.bin")
TRACING = "/sys/kernel/tracing"
LOG, QUIET = "log", "quiet"
WORDS = "console=ttyS0 reboot=k panic=-1 rdinit=/session/measure"

# Each step waits for a line, so that the counts are read while the guest is idle.
GUEST_INIT = f"""#!/bin/busybox sh
echo measure''-up
read -r line
mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t devtmpfs devtmpfs /dev
mount -t tmpfs tmpfs /tmp
stty -F /dev/ttyS0 raw -echo
yes "a line of text like those that programs print, with some length" | head -c {TEXT_KIB * 1024} >/tmp/text
for module in virtio_mmio virtio_pci virtio_console; do modprobe $module; done 2>/dev/null
hvc=/dev/null
# The driver creates it when the device has answered.
for _ in $(seq 50); do [ ! -c /dev/hvc0 ] || break; usleep 100000; done
if [ -c /dev/hvc0 ]; then hvc=/dev/hvc0; stty -F $hvc raw -echo; fi
echo measure''-ready $hvc
read -r line
cat /tmp/text >/dev/ttyS0
stty -F /dev/ttyS0 raw
echo measure''-text
read -r line
cat /tmp/text >$hvc
echo measure''-console
read -r line
sleep 1000
"""


@dataclasses.dataclass(frozen=True)
class Vmm:
    """A VMM, and its command line with {kernel}, {initrd}, {cmdline} and {memory} (MiB) for what it has to run."""

    name: str
    template: tuple

    @staticmethod
    def of_option(text):
        """NAME=COMMAND, where COMMAND is split as by a shell. Its program is copied to the nested host."""
        name, separator, command = text.partition("=")
        words = tuple(shlex.split(command))
        if not separator or not name or not words:
            raise ValueError
        return Vmm(name, words)

    def command(self, **values):
        return [word.format(**values) for word in self.template]


def vmms(kvm_vmm, further):
    """kvm_vmm, and those that it is compared with. The first one of these is what the ratios refer to."""
    common = ("-enable-kvm", "-cpu", "host", "-m", "{memory}M", "-nodefaults", "-no-user-config", "-display", "none", "-serial",
              "stdio", "-no-reboot", "-kernel", "{kernel}", "-initrd", "{initrd}", "-append", "{cmdline}", "-chardev",
              "file,id=console,path=/dev/null")
    return [Vmm("kvm_vmm", (kvm_vmm, "--memory", "{memory}M", "--kernel", "{kernel}", "--initrd", "{initrd}", "--cmdline",
                            "{cmdline}", "--serial", "stdio", "--console", "file=/dev/null")),
            Vmm("QEMU microvm", (peers.QEMU, "-M", peers.MICROVM, "-global", "virtio-mmio.force-legacy=false", *common, "-device",
                                 "virtio-serial-device", "-device", "virtconsole,chardev=console")),
            Vmm("QEMU q35", (peers.QEMU, "-M", "q35", *common, "-device", "virtio-serial-pci", "-device",
                             "virtconsole,chardev=console")),
            *further]


def put_program(host, program):
    """Copies a program and its libraries to the same paths as here."""
    if host.kind == "direct":
        return
    libraries = subprocess.run(["ldd", program], capture_output=True, text=True, check=False).stdout
    for file in [program, *re.findall(r"(/\S+) \(0x", libraries)]:
        host.put(file)


def put_qemu(host):
    put_program(host, peers.QEMU)
    if host.kind == "direct":
        return
    for name in FIRMWARE:
        (file,) = [path for folder in ("qemu", "seabios") if (path := pathlib.Path("/usr/share", folder, name)).exists()][:1]
        host.put(file, f"/usr/share/qemu/{name}")


class Bench:
    """A machine on which the VMMs run, with its counters."""

    def __init__(self, host, image, chosen):
        self.host = host
        for program in {vmm.template[0] for vmm in chosen}:
            put_program(host, program)
        put_qemu(host)
        archive = cpio.Archive()
        archive.file("session/measure", GUEST_INIT.encode(), 0o755)
        self._kernel = host.put(pathlib.Path(image.kernel).read_bytes(), "kernel")
        self._initrd = host.put(image.initramfs.read_bytes() + archive.finish(), "initrd")
        # In an instance of its own, the recording ends at the first entry of the guest; the counts continue.
        self.shell(f"[ -e {TRACING}/events ] || mount -t tracefs tracefs {TRACING}; cd {TRACING} &&"
                   " echo hist:keys=reason >>events/kvm/kvm_userspace_exit/trigger && mkdir instances/start &&"
                   " cd instances/start && echo traceoff >>events/kvm/kvm_entry/trigger &&"
                   " echo 1 >events/sched/sched_process_exec/enable && echo 1 >events/kvm/kvm_entry/enable")

    def shell(self, script, timeout=60):
        status, output = self.host.shell(script, timeout)
        if status != 0:
            raise machine.MachineError(f"{script!r} failed: {output.decode(errors='replace')}")
        return output.decode(errors="replace")

    def _returns(self):
        text = self.shell(f"cat {TRACING}/events/kvm/kvm_userspace_exit/hist")
        return sum(int(count) for count in re.findall(r"hitcount: +(\d+)", text))

    def _time_to_first_run(self, vmm):
        """In milliseconds, from the exec of the program to the first entry of the guest."""
        text = self.shell(f"cat {TRACING}/instances/start/trace")
        execs = re.findall(rf" ([\d.]+): sched_process_exec: filename={re.escape(vmm.template[0])} ", text)
        entry = re.search(r" ([\d.]+): kvm_entry:", text)
        if not execs or entry is None:
            raise machine.MachineError(f"the start of {vmm.name} was not recorded: {text[-1000:]}")
        return 1000 * (float(entry.group(1)) - float(execs[-1]))

    def _resident(self, vmm):
        """Of the program, in KiB, without the guest's RAM."""
        name = pathlib.Path(vmm.template[0]).name
        text = self.shell(f"cat /proc/$(pidof {shlex.quote(name)})/smaps")
        kib = 0
        for start, end, rss in re.findall(r"^([0-9a-f]+)-([0-9a-f]+) .*\n(?:\w+: .*\n)*?Rss: +(\d+) kB", text, re.MULTILINE):
            if int(end, 16) - int(start, 16) < GUEST_MEMORY_MIB << 19:
                kib += int(rss)
        return kib

    def _idle_switches(self, vmm):
        """Of all threads. Those of a CPU's thread are the guest's own timers."""
        name = shlex.quote(pathlib.Path(vmm.template[0]).name)
        count = f"cat /proc/$(pidof {name})/task/*/status | grep '^voluntary_ctxt'"
        text = self.shell(f"sleep 3; {count}; echo then; sleep {IDLE_SECONDS}; {count}", 120)
        before, after = (sum(int(number) for number in re.findall(r"\d+", part)) for part in text.split("then"))
        return after - before

    def boot(self, vmm, kind):
        """Starts a guest; its figures: name -> number."""
        words = WORDS + (" quiet" if kind == QUIET else "")
        self.shell(f"cd {TRACING} && echo hist:keys=reason:clear >>events/kvm/kvm_userspace_exit/trigger &&"
                   " cd instances/start && echo >trace && echo 1 >tracing_on")
        busy = self.host.busy_seconds()
        run = self.host.run(vmm.command(kernel=self._kernel, initrd=self._initrd, cmdline=words, memory=GUEST_MEMORY_MIB))
        try:
            run.expect(rb"measure-up\r?\n", 300)
            figures = {f"boot, {kind}: time": self.host.busy_seconds() - busy, f"boot, {kind}: returns": self._returns(),
                       f"bytes, {kind}": len(run.stdout)}
            if kind == QUIET:
                figures["start: time to the first KVM_RUN"] = self._time_to_first_run(vmm)
                figures["resident memory beside the guest's RAM"] = self._resident(vmm)
                figures[f"idle guest: context switches in {IDLE_SECONDS} s"] = self._idle_switches(vmm)
                self._output(run, figures)
            return figures
        finally:
            self.host.stop_run(60)

    def _output(self, run, figures):
        run.send(b"\n")
        device = run.expect(rb"measure-ready (\S+)\r?\n", 300).group(1)
        for name, end in (("ttyS0", rb"measure-text\r?\n"), ("hvc0", rb"measure-console\r?\n")):
            before, busy = self._returns(), self.host.busy_seconds()
            run.send(b"\n")
            run.expect(end, 600)
            if name == "hvc0" and device != b"/dev/hvc0":
                continue
            figures[f"{TEXT_KIB} KiB on {name}: time"] = self.host.busy_seconds() - busy
            figures[f"{TEXT_KIB} KiB on {name}: returns per byte"] = (self._returns() - before) / (TEXT_KIB * 1024)


def measure(bench, chosen, rounds, report, results):
    """Fills in `results`: name of a figure -> name of a VMM -> its values of all rounds."""
    for number in range(rounds):
        for vmm in chosen:
            report(f"round {number + 1} of {rounds}: {vmm.name}")
            figures = bench.boot(vmm, QUIET) | bench.boot(vmm, LOG)
            more_bytes = figures["bytes, log"] - figures["bytes, quiet"]
            figures["printk: returns per byte"] = (figures["boot, log: returns"] - figures["boot, quiet: returns"]) / more_bytes
            for name, value in figures.items():
                if not name.startswith("bytes"):
                    results.setdefault(name, {}).setdefault(vmm.name, []).append(value)


def medians(results):
    return {name: {vmm: statistics.median(values) for vmm, values in of.items()} for name, of in results.items()}


def _text(name, value):
    if value is None:
        return "-"
    if "time to the first" in name:
        return f"{value:.0f} ms"
    if "time" in name:
        return f"{value:.2f} s"
    if "memory" in name:
        return f"{value / 1024:.1f} MiB"
    if "per byte" in name:
        return f"{value:.3f}"
    return f"{value:,.0f}"


def table(results, chosen):
    """The medians in Markdown, with the ratio of the first VMM to each other one: below 1, it needs less."""
    first, *others = [vmm.name for vmm in chosen]
    lines = ["| | " + " | ".join([first, *others, *(f"ratio to {name}" for name in others)]) + " |",
             "| --- |" + " ---: |" * (1 + 2 * len(others))]
    for name, values in medians(results).items():
        cells = [_text(name, values.get(vmm.name)) for vmm in chosen]
        cells += [f"{values[first] / values[other]:.2f}" if values.get(other) and first in values else "-" for other in others]
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


# Readable in both themes of a browser.
_STYLE = ("<style>.page { fill: #ffffff } text { fill: #1f2328 }\n"
          "@media (prefers-color-scheme: dark) { .page { fill: #0d1117 } text { fill: #e6edf3 } }</style>")
_COLORS = ("#1b6ca8", "#c06c2b", "#8a8a8a", "#5a9a4a", "#8e5ea2")


def chart(results, chosen):
    """The medians as an SVG: bars in groups, relative to the second VMM."""
    of_all = medians(results)
    reference = chosen[1].name
    shown = [name for name, values in of_all.items() if values.get(reference)]
    left, unit, bar, top = 330, 260, 14, 64
    group = bar * len(chosen) + 14
    most = 1.6
    height = top + group * len(shown) + 12
    width = left + int(unit * most) + 150
    parts = [f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" font-family="sans-serif" font-size="12">',
             _STYLE, f'<rect class="page" width="{width}" height="{height}"/>',
             f'<text x="12" y="20" font-size="14" font-weight="bold">Relative to {reference} (shorter is better)</text>']
    x = 12
    for color, vmm in zip(_COLORS, chosen):
        parts.append(f'<rect x="{x}" y="34" width="12" height="12" fill="{color}"/><text x="{x + 17}" y="44">{vmm.name}</text>')
        x += 40 + 8 * len(vmm.name)
    y = top
    for name in shown:
        values = of_all[name]
        middle = y + bar * len(chosen) / 2 + 4
        parts.append(f'<text x="{left - 10}" y="{middle:.0f}" text-anchor="end">{name}</text>')
        for color, vmm in zip(_COLORS, chosen):
            value = values.get(vmm.name)
            if value is not None:
                ratio = value / values[reference]
                length = max(1, int(unit * min(ratio, most)))
                beyond = " \u2192" if ratio > most else ""
                parts.append(f'<rect x="{left}" y="{y}" width="{length}" height="{bar - 2}" fill="{color}"/>'
                             f'<text x="{left + length + 5}" y="{y + bar - 4}" font-size="11">{ratio:.2f}{beyond}'
                             f' ({_text(name, value)})</text>')
            y += bar
        y += 14
    parts.append(f'<line x1="{left + unit}" y1="{top - 6}" x2="{left + unit}" y2="{height - 12}" stroke="#8b949e" stroke-dasharray="3 3"/>')
    parts.append("</svg>")
    return "\n".join(parts) + "\n"
