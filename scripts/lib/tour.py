#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
"""What Linux does with the UART and the keyboard controller while it boots, from the trace of a real boot.

The trace is what `kvm_vmm --trace-io` writes. Names of registers and their bits come from the register dictionary in
include/vmsuperio/registers.
"""
import dataclasses
import pathlib
import re

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent
TRACE = "docs/tour/linux-boot.trace"
DEVICES = ("COM1", "i8042")


@dataclasses.dataclass
class Access:
    """A line of the trace."""
    seconds: float
    write: bool
    address: int
    value: int
    device: str  # empty if no device was there
    register: str


@dataclasses.dataclass
class Step:
    """Accesses that belong together: their indices, what they are for, and a sentence for each."""
    title: str
    about: str
    first: int
    last: int
    lines: list = dataclasses.field(default_factory=list)  # (access, register with its bits, sentence)


def read_trace(path):
    found = []
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        if line.startswith("#"):
            continue
        fields = line.split()
        if len(fields) != 8:
            raise ValueError(f"{path}:{number}: this is not a line of a trace: {line}")
        device, _, register = fields[7].partition(".")
        found.append(Access(float(fields[0]), fields[3] == "w", int(fields[4], 16), int(fields[6], 16),
                            "" if device == "-" else device, register))
    return found


def registers(header):
    """The fields of each register in a header of the dictionary: name -> [(low bit, high bit, field)]."""
    text = (ROOT / "include/vmsuperio/registers" / header).read_text(encoding="utf-8")
    found = {}
    for struct, body in re.findall(r"^struct (\w+) : Register<[^{]*\{(.*?)^\};", text, re.MULTILINE | re.DOTALL):
        name = re.search(r'string_view name = "(\w+)"', body)
        listed = re.search(r"FieldInfo fields\[\](.*?)\};", body, re.DOTALL)
        bits = {}
        for kind, arguments, field in re.findall(r"constexpr\s+(Bit|Field)<([^>]*)>\s+(\w+)\{\}", body):
            numbers = [int(part) for part in arguments.split(",") if part.strip().isdigit()]
            bits[field] = (numbers[0], numbers[-1] if kind == "Field" else numbers[0])
        if listed and name:
            shown = [(*bits[member], label) for label, member in re.findall(r'\{"(\w+)",\s*(\w+)\.bits', listed[1])]
            found[name[1]] = found[struct] = shown
    return found


def commands(header, enum):
    """The names of an enumeration: value -> name."""
    text = (ROOT / "include/vmsuperio/registers" / header).read_text(encoding="utf-8")
    body = re.search(rf"enum class {enum} [^{{]*\{{(.*?)^\}};", text, re.MULTILINE | re.DOTALL)[1]
    return {int(value, 16): name for name, value in re.findall(r"^ *(\w+) = (0x[0-9A-Fa-f]+)", body, re.MULTILINE)}


UART, PS2 = registers("uart16550.hpp"), registers("i8042.hpp")
CONTROLLER = commands("i8042.hpp", "Command")
KEYBOARD, MOUSE = commands("ps2.hpp", "KeyboardCommand"), commands("ps2.hpp", "MouseCommand")


def with_bits(name, value, fields):
    """A register as inspect() shows it: LSR=0x60 [thr_empty transmitter_empty]."""
    shown = []
    for low, high, field in fields:
        part = value >> low & ((1 << (high - low + 1)) - 1)
        if part:
            shown.append(field if low == high else f"{field}={part}")
    return f"{name}=0x{value:02X}" + (f" [{' '.join(shown)}]" if shown else "")


def printable(value):
    return {0x0A: "a line feed", 0x0D: "a carriage return", 0x20: "a space"}.get(
        value, f"'{chr(value)}'" if 0x20 < value < 0x7F else f"the byte 0x{value:02X}")


class Uart:
    """Explains the accesses to one UART, remembering what the driver has set."""

    def __init__(self):
        self.dlab, self.seen, self.identified, self.mode = False, set(), False, 0

    def explain(self, access, before):
        name, value = access.register, access.value
        known = {"THR": (), "RBR": (), "DLL": (), "DLM": (), "SCR": ()}
        shown = with_bits(name, value, known.get(name) if name in known else UART.get(name, ()))
        handler = getattr(self, f"{name.lower()}_{'write' if access.write else 'read'}", None)
        return shown, handler(value, before) if handler else None

    def ier_write(self, value, before):
        if value == 0x0F:
            return "Sets all four enable bits: a UART keeps exactly these, and nothing else at this port would."
        if value == 0:
            return "Turns all interrupts of the UART off, so that the driver can poll it."
        if value == 0x02:
            return "Enables the interrupt of an empty transmitter alone: it is due at once, because nothing is being sent."
        return "Enables interrupts: " + ", ".join(part for bit, part in (
            (1, "a received byte"), (2, "room to send"), (4, "errors and breaks"), (8, "modem lines")) if value & bit) + "."

    def ier_read(self, value, before):
        if value == 0x0F:
            return "All four bits are set: there is a UART here."
        return "Reads the enabled interrupts, to restore them later." if value else \
            "Reads back 0. An empty port would read 0xFF: something is here."

    def lcr_write(self, value, before):
        was, self.dlab = self.dlab, bool(value & 0x80)
        if value == 0xBF:
            return "0xBF opens the extended registers of newer UARTs. A 16550A has none, and only sees DLAB set."
        if self.dlab:
            return "Sets DLAB: offsets 0 and 1 are the divisor latch now."
        return ("Clears DLAB: offsets 0 and 1 are data and IER again. " if was else "") + \
            f"The format is {5 + (value & 3)} bits" + (", and two stop bits." if value & 4 else ", and one stop bit.")

    def lcr_read(self, value, before):
        return "Reads the format of the line, to restore it after the test."

    def dll_write(self, value, before):
        return f"The low byte of the divisor: {value}, so 115200 / {value} = {115200 // value if value else 0} baud."

    def dlm_write(self, value, before):
        return "The high byte of the divisor."

    def mcr_write(self, value, before):
        if value & 0x10:
            return "Loopback: the driver talks to itself."
        return ("Sets the modem outputs: " + ", ".join(part for bit, part in ((1, "DTR"), (2, "RTS"), (4, "OUT1"), (
            8, "OUT2, which on a PC connects the interrupt line")) if value & bit) + ".") if value & 0xF else \
            "Drops all modem outputs: the port is not in use."

    def mcr_read(self, value, before):
        return "Reads the modem outputs, to restore them after the test."

    def fcr_write(self, value, before):
        self.mode = value
        if value == 0:
            return "Turns the FIFOs off, which empties them."
        if value & 6:
            return "Turns the FIFOs on and clears both." if value & 6 == 6 else "Turns the FIFOs on and clears one of them."
        level = ("1", "4", "8", "14")[value >> 6]
        return f"Turns the FIFOs on; the receiver interrupts at {level} byte{'s' if level != '1' else ''}."

    def iir_read(self, value, before):
        if before and before.register == "FCR" and value & 0xC0 == 0xC0:
            return "Bits 7:6 are set: the FIFOs work, so this is a 16550A. An older chip would not show them."
        if value & 1:
            return "No interrupt is pending."
        return {0: "The modem lines have changed.", 2: "The transmitter is empty: the interrupt is as it should be, and "
                "reading has acknowledged it.", 4: "A byte has been received.", 6: "An error or a break has been received.",
                0xC: "Received bytes have waited for four character times."}[value & 0xE]

    def lsr_read(self, value, before):
        if value & 1:
            return "A received byte waits."
        return "Nothing received, and the transmitter is empty: there is room to send." if value & 0x20 else \
            "The transmitter still holds bytes: the driver waits."

    def msr_read(self, value, before):
        lines = [part for bit, part in ((0x10, "CTS"), (0x20, "DSR"), (0x40, "RI"), (0x80, "DCD")) if value & bit]
        return f"The other side's lines: {', '.join(lines) or 'none'} on. This also clears the change bits."

    def thr_write(self, value, before):
        return f"Sends {printable(value)}."

    def rbr_read(self, value, before):
        return "Empties the receiver; a byte that was left there is thrown away." if value == 0 else \
            f"Takes the received byte: {printable(value)}."

    def scr_write(self, value, before):
        return "Writes the scratch register, which only stores it."

    def scr_read(self, value, before):
        return "Reads the scratch register."


class Controller:
    """Explains the accesses to the keyboard controller, the keyboard and the mouse."""

    def __init__(self):
        self.command, self.asked, self.answers, self.loop = None, None, 0, None

    def explain(self, access, before):
        value = access.value
        if access.register == "status":
            return with_bits("status", value, PS2.get("status", PS2.get("Status", ()))), self.status(value)
        if access.register == "command":
            self.command = value
            name = CONTROLLER.get(value) or CONTROLLER.get(value & (0xF0 if value >= 0xF0 else 0xE0), "")
            return f"command=0x{value:02X} {name}".rstrip(), self.explain_command(value)
        if access.write:
            return self.written(value)
        return self.data(value)

    def status(self, value):
        if value & 1:
            return "A byte waits in port 0x60" + (", from the mouse's side." if value & 0x20 else ".")
        return "Ready: the last byte has been taken, and no answer waits." if not value & 2 else "Busy."

    def explain_command(self, value):
        return {
            0x20: "Asks for the command byte.", 0x60: "The next data byte is the command byte.",
            0xA7: "Turns the mouse port off.", 0xA8: "Turns the mouse port on.", 0xA9: "Asks for a test of the mouse port.",
            0xAA: "Asks for the controller's self-test.", 0xAB: "Asks for a test of the keyboard port.",
            0xAD: "Turns the keyboard port off.", 0xAE: "Turns the keyboard port on.",
            0xD3: "The next data byte comes back as if the mouse had sent it.",
            0xD4: "The next data byte is for the mouse.",
        }.get(value, "Pulses the CPU's reset line: the machine restarts. This is `reboot=k`." if value == 0xFE else None)

    def command_byte(self, value):
        parts = [f"keyboard interrupt {'on' if value & 1 else 'off'}", f"mouse interrupt {'on' if value & 2 else 'off'}",
                 f"keyboard port {'off' if value & 0x10 else 'on'}", f"mouse port {'off' if value & 0x20 else 'on'}"]
        return ", ".join(parts) + (", translation to scan code set 1" if value & 0x40 else ", no translation")

    def written(self, value):
        command, self.command = self.command, None
        if command == 0x60:
            return with_bits("command_byte", value, PS2.get("CommandByte", PS2.get("command_byte", ()))), \
                f"Sets the command byte: {self.command_byte(value)}."
        if command == 0xD3:
            self.loop = value
            return f"data=0x{value:02X}", "A byte for the loop test of the mouse port."
        if command == 0xD4:
            return self.asks(value, MOUSE, "mouse")
        return self.asks(value, KEYBOARD, "keyboard")

    def asks(self, value, names, device):
        if self.asked in (0xED, 0xF3) and self.answers == 1:
            was, self.asked, self.answers = self.asked, None, 0
            return f"data=0x{value:02X}", "Which LEDs are on: " + (f"the bits of 0x{value:02X}." if value else "none.") \
                if was == 0xED else "The rate: 0 is the fastest, 30 characters a second after 250 ms."
        self.asked, self.answers = value, 0
        sentence = {0xF2: f"Asks the {device} who it is.", 0xF5: f"Tells the {device} to stop sending.",
                    0xF4: f"Tells the {device} to send.", 0xED: "Sets the LEDs; their bits follow.",
                    0xF3: "Sets the rate at which a held key repeats; it follows." if device == "keyboard" else
                    "Sets the sample rate; it follows.", 0xF6: f"Sets the {device} to its defaults.",
                    0xFF: f"Resets the {device}.", 0xF0: "Chooses the scan code set."}.get(value)
        return f"data=0x{value:02X} {names.get(value, '')}".rstrip(), sentence

    def data(self, value):
        if self.command == 0x20:
            self.command = None
            return with_bits("command_byte", value, PS2.get("CommandByte", PS2.get("command_byte", ()))), \
                f"The command byte: {self.command_byte(value)}."
        if self.command == 0xAA:
            self.command = None
            return f"data=0x{value:02X}", "0x55: the controller works." if value == 0x55 else "The self-test has failed."
        if self.loop is not None and value == self.loop:
            self.loop = None
            return f"data=0x{value:02X}", "The byte has come back, marked as the mouse's: the mouse port exists." + \
                (" It is unchanged, so there is no multiplexer for several mice." if value in (0xF0, 0x56, 0xA4) else "")
        if self.asked is not None:
            self.answers += 1
            if value == 0xFA and self.answers == 1:
                return f"data=0x{value:02X} acknowledge", "The device has understood."
            if self.asked == 0xF2:
                if value == 0xAB:
                    return f"data=0x{value:02X}", "The first byte of a keyboard's identity."
                if value in (0x41, 0x83):
                    return f"data=0x{value:02X}", "The second byte: a keyboard" + (
                        ", translated by the controller (0x83 without)." if value == 0x41 else ".")
                if value == 0x00:
                    return f"data=0x{value:02X}", "Identity 0: a mouse with three buttons. A driver that knows wheels asks further."
        if value == 0xFA:
            return "data=0xFA acknowledge", "The device has understood."
        return f"data=0x{value:02X}", "Takes the byte that waits." if value else None


# What a stretch of accesses is for: the first access decides. (device, test, title, text)
ABOUT = {
    "early": ("The console is set up", "The boot console writes to the UART before Linux knows what it is: it sets the rate and "
              "the format, turns interrupts and FIFOs off, and polls."),
    "print": ("A line is printed", "The driver reads LSR until there is room, then writes a byte to THR. Each is an exit from "
              "the guest, unless the VMM lets KVM collect the writes."),
    "probe": ("The 8250 driver probes the port", "Is there a UART, and which one? The driver writes IER and reads it back, then "
              "looks for FIFOs in IIR. It finds a 16550A."),
    "i8042": ("The i8042 driver looks for a controller", "It reads what is left in the buffer, then reads and writes the command "
              "byte. With command 0xD3 it sends bytes around through the mouse port: an answer means that the port exists."),
    "keyboard": ("The keyboard driver sets up the keyboard", "It asks for the identity, sets LEDs and repeat rate, and lets the "
                 "keyboard send. Each byte is acknowledged with 0xFA."),
    "mouse": ("The mouse driver looks for a mouse", "Bytes for the mouse follow the command 0xD4, and its answers are marked by "
              "bit 5 of the status."),
    "open": ("A program opens the console", "The driver now uses interrupts. It tests that the transmitter's interrupt works, "
             "sets the rate again, and turns the FIFOs on."),
    "reboot": ("The guest restarts", "The drivers put the devices back as they were, and the kernel resets the CPU through the "
               "keyboard controller."),
}


def kind_of(access, state):
    """The kind of the stretch that an access belongs to, given the kind of the one before."""
    now, name, value = state["now"], access.register, access.value
    if access.device == "COM1":
        if name == "THR":
            return "print"
        if not state["configured"]:
            return "early"
        # The console's own accesses follow each other closely.
        if now == "print" and name in ("LSR", "IER", "IIR") and access.seconds - state["time"] < 0.2:
            return "print"
        if now == "print" and not state["probed"]:
            return "probe"
        if not state["probed"]:
            # The driver of the console saves IER before it prints.
            return "probe" if state["printed"] else "print"
        return "print" if now == "reboot" else "open"
    if state["reset"] or now == "reboot":
        return "reboot"
    if access.write and name == "command" and value == 0xD4 or now == "mouse" and not state["opened"]:
        return "mouse"
    if access.write and name == "data" and state["command"] is None:
        return "reboot" if state["opened"] else "keyboard"
    if now in ("keyboard", "i8042", "mouse"):
        return "reboot" if state["opened"] else now
    return "reboot" if state["opened"] else "i8042"


def steps(accesses):
    """The accesses to the first serial port and the keyboard controller, in steps."""
    uart, controller, found, before = Uart(), Controller(), [], {}
    state = {"now": "", "configured": False, "printed": False, "probed": False, "opened": False, "reset": False,
             "command": None, "time": 0.0}
    mine = [(at, access) for at, access in enumerate(accesses) if access.device in DEVICES]
    for number, (at, access) in enumerate(mine):
        following = [other for _, other in mine[number + 1:number + 4]]
        kind = kind_of(access, state)
        if kind == "print" and state["now"] == "early":
            state["configured"] = True
        if access.device == "COM1" and access.register == "MCR" and access.write:
            state["configured"] = True
        if kind == "print":
            state["printed"] = state["printed"] or access.register == "THR"
        # A status read belongs to what follows it.
        if access.register == "status" and not access.value & 1:
            ahead = next((other for other in following if other.register != "status"), None)
            if ahead is not None and ahead.device == "i8042" and ahead.write:
                kind = kind_of(ahead, {**state, "now": state["now"] if state["now"] != "keyboard" or
                                       ahead.register == "data" else state["now"]})
        # The probe's last act is to set MCR as it was; what follows is another port's, or much later.
        if kind == "probe" and access.register == "MCR" and access.write:
            state["probed"] = not (following and following[0].device == "COM1" and
                                   following[0].seconds - access.seconds < 0.1)
        if kind == "open":
            state["opened"] = True
        if access.register == "command" and access.write:
            state["command"] = access.value if access.value in (0x60, 0xD3, 0xD4) else None
        elif access.register == "data" and access.write:
            state["command"] = None
        state["now"], state["time"] = kind, access.seconds
        explainer = uart if access.device == "COM1" else controller
        shown, sentence = explainer.explain(access, before.get(access.device))
        before[access.device] = access
        title, about = ABOUT[kind]
        if not found or found[-1].title != title:
            found.append(Step(title, about, at, at))
        found[-1].last = at
        found[-1].lines.append((access, shown, sentence))
    return found
