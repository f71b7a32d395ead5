# SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
"""The figures of `scripts/measure devices`: what one request, packet or text costs under each VMM."""

import statistics

from machine import peers

PING_COUNT = 300
TCP_MIB = 32
# Each byte on ttyS0 costs two exits, so there is less to wait for.
TEXT_KIB = {"hvc0": 64, "ttyS0": 8}
DISK_REQUESTS = {("read", 1): 1000, ("read", 16): 2000, ("randread", 1): 2000, ("randread", 16): 6000, ("write", 1): 1000,
                 ("write", 16): 2000, ("randwrite", 1): 2000, ("randwrite", 16): 6000}
GROUPS = ("disk", "net", "console")


def exits_to_user_space(counts):
    """The accesses to registers of virtio that KVM passed to the VMM. Notifications are not among them (they are ioeventfds),
    and neither is what the programs print on the serial port (`io_exits`)."""
    return counts["mmio_exits"]


def disk(guest):
    """Requests with O_DIRECT, so that each one reaches the device: 4 KiB at random, 64 KiB in sequence."""
    figures = {}
    for (mode, depth), count in DISK_REQUESTS.items():
        size = 4 if mode.startswith("rand") else 64
        line = (f"chroot {peers.ROOT} sh -c 'cd /tmp && exec fio --name=job --filename='$DATA' --ioengine=libaio --direct=1 --rw={mode} --bs={size}k"
                f" --iodepth={depth} --size=128M --number_ios={count} --io_size={count * size}k --randrepeat=1 --output-format=terse"
                " --terse-version=3 --exec_prerun=true'")
        before = _disk_requests(guest)
        _, seconds, counts = guest.counted(line, rb"output of prerun")
        done = _disk_requests(guest) - before
        figures[f"{mode} {size} KiB, depth {depth}"] = (done / seconds, "requests/s", exits_to_user_space(counts) / done,
                                                        counts["exits"] / done)
    return figures


def _disk_requests(guest):
    words = guest.command("cat /sys/block/${DATA##*/}/stat").split()
    return int(words[0]) + int(words[4])


def net(guest):
    """Round trips, and TCP in both directions."""
    figures = {}
    _, seconds, counts = guest.counted(f"chroot {peers.ROOT} ping -q -c {PING_COUNT} -i 0.002 {peers.HOST_ADDRESS}", rb"PING")
    figures["ping"] = (PING_COUNT / seconds, "round trips/s", exits_to_user_space(counts) / PING_COUNT,
                       counts["exits"] / PING_COUNT)
    for name, option in (("TCP from the guest", ""), ("TCP to the guest", " -R")):
        _, seconds, counts = guest.counted(f"chroot {peers.ROOT} iperf3 --forceflush -i 0 -c {peers.HOST_ADDRESS} -n {TCP_MIB}M{option}",
                                           rb"connected to")
        figures[name] = (TCP_MIB / seconds, "MiB/s", exits_to_user_space(counts) / TCP_MIB, counts["exits"] / TCP_MIB)
    return figures


def console(guest):
    """Text on a virtio console and on the serial port."""
    figures = {}
    for device, size in TEXT_KIB.items():
        _, seconds, counts = guest.counted(f"stty -F /dev/{device} raw -echo; echo measure''-begin;"
                                           f" head -c {size}k /tmp/text >/dev/{device}", rb"measure-begin")
        user = counts["mmio_exits"] + counts["io_exits"]
        figures[f"text on {device}"] = (size / seconds, "KiB/s", user / size, counts["exits"] / size)
    return figures


def measure(bench, vmms, groups, devices, rounds, report, results):
    """Fills in `results`: name of a figure -> name of a VMM -> its values of all rounds. The VMMs take turns."""
    functions = {"disk": disk, "net": net, "console": console}
    for number in range(rounds):
        for vmm in vmms:
            report(f"round {number + 1} of {rounds}: {vmm.name}")
            guest = bench.start(vmm, devices)
            try:
                for group in groups:
                    for name, value in functions[group](guest).items():
                        results.setdefault(name, {}).setdefault(vmm.name, []).append(value)
            finally:
                guest.stop()


def table(results, vmms):
    """The medians as a table in Markdown, with the ratios of the first VMM to each other one. Figures that not every VMM has are left out."""
    results = {name: values for name, values in results.items() if len(values) == len(vmms)}
    first, *others = [vmm.name for vmm in vmms]
    unit_of = {name: next(iter(values.values()))[0][1] for name, values in results.items()}
    head = ["", *(name for name in (first, *others)), *(f"ratio to {name}" for name in others),
            *(f"exits to user space, {name}" for name in (first, *others)), *(f"all exits, {name}" for name in (first, *others))]
    lines = ["| " + " | ".join(head) + " |", "| --- |" + " ---: |" * (len(head) - 1)]

    def median(name, vmm, index):
        return statistics.median(value[index] for value in results[name][vmm])

    for name, unit in unit_of.items():
        rates = [median(name, vmm, 0) for vmm in (first, *others)]
        cells = [f"{name} ({unit})", *(f"{rate:.0f}" if rate >= 20 else f"{rate:.1f}" for rate in rates),
                 *(f"{rates[0] / rate:.2f}" for rate in rates[1:]),
                 *(f"{median(name, vmm, 2):.2f}" for vmm in (first, *others)),
                 *(f"{median(name, vmm, 3):.2f}" for vmm in (first, *others))]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)
