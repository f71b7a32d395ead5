#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
"""Draws the charts of docs/pictures from the figures that the documentation and the recorded boot contain.

charts.py ROOT OUT   writes dispatch.svg, console.svg and boot.svg to OUT
"""
import html
import math
import pathlib
import re
import sys

STYLE = """<style>
.page { fill: #ffffff } text { fill: #1f2328; font: 13px system-ui, "DejaVu Sans", sans-serif }
.small { font-size: 11.5px } .soft { fill: #59636e } .title { font-size: 15px; font-weight: 600 }
.grid { stroke: #d1d9e0 } .axis { stroke: #6e7781 }
.s1 { stroke: #8250df; fill: #8250df } .s2 { stroke: #1a7f37; fill: #1a7f37 }
.s3 { stroke: #bc4c00; fill: #bc4c00 } .s4 { stroke: #0969da; fill: #0969da }
.line { fill: none; stroke-width: 2.5 } text.s1, text.s2, text.s3, text.s4 { stroke: none }
@media (prefers-color-scheme: dark) {
.page { fill: #0d1117 } text { fill: #e6edf3 } .soft { fill: #9198a1 } .grid { stroke: #3d444d } .axis { stroke: #8b949e }
.s1 { stroke: #bc8cff; fill: #bc8cff } .s2 { stroke: #3fb950; fill: #3fb950 }
.s3 { stroke: #ffa657; fill: #ffa657 } .s4 { stroke: #58a6ff; fill: #58a6ff }
}
</style>"""


def tables(path):
    """The tables of a Markdown file: lists of rows, each a list of cells without markup."""
    found, rows = [], []
    for line in [*path.read_text(encoding="utf-8").splitlines(), ""]:
        if line.startswith("|"):
            cells = [cell.strip().strip("`") for cell in line.strip("|").split("|")]
            if not all(re.fullmatch(r":?-+:?", cell) for cell in cells):
                rows.append(cells)
        elif rows:
            found.append(rows)
            rows = []
    return found


def table_with(path, *words):
    """The table whose first row contains the words."""
    for rows in tables(path):
        if all(any(word in cell for cell in rows[0]) for word in words):
            return rows
    raise ValueError(f"{path}: no table has the columns {words}")


def text(x, y, words, extra="", anchor="start"):
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}"{" class=" + chr(34) + extra + chr(34) if extra else ""}>' \
           f"{html.escape(words)}</text>"


def line(x1, y1, x2, y2, extra):
    return f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" class="{extra}"/>'


def svg(width, height, title, parts):
    return "\n".join([
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}" '
        f'role="img" aria-label="{html.escape(title)}">',
        "<!-- scripts/picture draws this. -->", STYLE, f'<rect class="page" width="{width}" height="{height}"/>',
        text(16, 26, title, "title"), *parts, "</svg>", ""])


def dispatch(root):
    """Lines: nanoseconds of a dispatch against the number of devices, both logarithmic."""
    rows = table_with(root / "docs/vmdevice.md", "mutex and map", "rwlock and map")
    head, body = rows[0], rows[1:]
    series = [("ports", "this library, ports", "s1", 14), ("memory", "this library, memory", "s2", -9),
              ("mutex and map", "mutex and ordered map (crosvm's design)", "s3", -12),
              ("rwlock and map", "reader-writer lock and map (cloud-hypervisor's)", "s4", 21)]
    left, top, width, height, low, high = 60, 62, 600, 250, 1, 64
    counts = [int(row[0]) for row in body]
    x_of = lambda n: left + width * math.log(n) / math.log(counts[-1])
    y_of = lambda ns: top + height * (1 - math.log(ns / low) / math.log(high / low))
    parts = [text(16, 45, "nanoseconds of CPU time for a read of one byte, one of N devices (build/gcc/bench/vmdevice_ratios)",
                  "small soft")]
    for ns in (1, 2, 4, 8, 16, 32, 64):
        parts += [line(left, y_of(ns), left + width, y_of(ns), "grid"), text(left - 8, y_of(ns) + 4, str(ns), "small soft", "end")]
    for n in counts:
        parts.append(text(x_of(n), top + height + 20, str(n), "small soft", "middle"))
    parts.append(text(left + width, top + height + 38, "devices on the bus", "small soft", "end"))
    for column, name, style, shift in series:
        values = [float(row[head.index(column)]) for row in body]
        points = " ".join(f"{x_of(n):.1f},{y_of(ns):.1f}" for n, ns in zip(counts, values))
        parts.append(f'<polyline points="{points}" class="{style} line"/>')
        parts += [f'<circle cx="{x_of(n):.1f}" cy="{y_of(ns):.1f}" r="3.5" class="{style}"/>' for n, ns in zip(counts, values)]
        parts.append(text(x_of(2), y_of(values[0]) + shift, name, style))
    return svg(700, 360, "What a dispatch costs", parts)


def console(root):
    """Bars: returns of KVM_RUN for each byte of a console."""
    rows = table_with(root / "examples/kvm_vmm/README.md", "--coalesce on", "--coalesce off")
    number = lambda cell: float(cell.replace(",", ""))
    log = next(row for row in rows if "the log on the console" in row[0])
    quiet = next(row for row in rows if "quiet" in row[0])
    program = next(row for row in rows if "64 KiB of output" in row[0])
    size = number(re.search(r"\(([\d,]+) bytes\)", log[0])[1])
    bars = [("the kernel's log (its driver polls LSR before each byte)", (number(log[1]) - number(quiet[1])) / size,
             (number(log[2]) - number(quiet[2])) / size),
            ("a program's output (the driver fills the FIFO)", number(program[1]), number(program[2]))]
    parts = [text(16, 45, "returns of KVM_RUN for each byte that the guest sends on ttyS0 (scripts/measure)", "small soft")]
    y = 74
    for name, coalesced, plain in bars:
        parts.append(text(16, y, name))
        for label, value, style in (("coalesced", coalesced, "s1"), ("one exit for each access", plain, "s3")):
            y += 26
            parts += [f'<rect x="16" y="{y - 15}" width="{value * 200:.1f}" height="19" rx="3" class="{style}"/>',
                      text(16 + value * 200 + 8, y, f"{value:.2f}  {label}", "small")]
        y += 36
    return svg(700, y - 12, "What a console costs", parts)


def boot(root):
    """A time line of the recorded boot."""
    sys.path.insert(0, str(root / "scripts/lib"))
    import tour  # pylint: disable=import-outside-toplevel

    accesses = tour.read_trace(root / tour.TRACE)
    steps = []
    for step in tour.steps(accesses):
        times = [access.seconds for access, _, _ in step.lines]
        # Interrupts that come later, while the device is in use, are not part of what the step does.
        last = next((before for before, after in zip(times, times[1:]) if after - before > 0.5), times[-1])
        steps.append((step.title, times[0], last))
    end = accesses[-1].seconds
    left, width = 16, 668
    x_of = lambda seconds: left + width * seconds / end
    parts = [text(16, 45, f"the boot that scripts/tour explains, nested in QEMU: {end:.2f} s from the first KVM_RUN to the reset",
                  "small soft"), line(left, 78, left + width, 78, "axis")]
    for second in range(int(end) + 1):
        parts += [line(x_of(second), 74, x_of(second), 82, "axis"), text(x_of(second), 68, f"{second} s", "small soft", "middle" if second else "start")]
    y = 104
    for at, (title, begin, last) in enumerate(steps):
        style = f"s{at % 4 + 1}"
        wide = max(x_of(last) - x_of(begin), 3)
        right = x_of(begin) > left + width * 0.55
        parts += [f'<rect x="{x_of(begin):.1f}" y="{y - 12}" width="{wide:.1f}" height="16" rx="2" class="{style}"/>',
                  text(x_of(begin) - 8 if right else x_of(begin) + wide + 8, y,
                       f"{title}: {(last - begin) * 1000:.1f} ms", "small", "end" if right else "start")]
        y += 26
    return svg(700, y, "The time line of a boot, by its accesses to devices", parts)


def charts(root):
    return {"dispatch.svg": dispatch(root), "console.svg": console(root), "boot.svg": boot(root)}


if __name__ == "__main__":
    for name, picture in charts(pathlib.Path(sys.argv[1]).resolve()).items():
        (pathlib.Path(sys.argv[2]) / name).write_text(picture, encoding="utf-8")
