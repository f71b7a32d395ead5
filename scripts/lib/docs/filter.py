#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
"""Doxygen's input filter: prints a header with the documentation that follows from the code itself.

A comment behind a declaration documents it, a comment above the first of several overloads documents them all, and a
few declarations mean the same wherever they occur: a register's fields, a state's visit(), types for other templates.
Everything else has a comment of its own; scripts/docs fails if one is missing. Line numbers do not change.
"""
import re
import sys

TOKEN = re.compile(r'//[^\n]*|/\*.*?\*/|R"(\w*)\(.*?\)\1"|"(?:\\.|[^"\\\n])*"|\'(?:\\.|[^\'\\\n])\'|\d[\w\']*|\w+|\n|.',
                   re.DOTALL)
ACCESS = {"": "writable", "read_only": "read only",
          "self_clearing": "the device acts on a 1, and reads as 0", "write_one_to_clear": "writing 1 clears it"}
# What a name means wherever it is declared.
VOCABULARY = {
    "error_type": "The error that a failing trigger returns.",
    "trigger_type": "The type of the trigger.",
    "clock_type": "The type of the clock.",
    "events_type": "The type that is notified of events.",
    "writer_type": "The type that takes the output.",
    "device_type": "The type of the device.",
    "address_type": "The type of the addresses.",
    "offset_type": "The unsigned integer behind an address.",
    "range_type": "The type of the ranges.",
    "value_type": "The unsigned integer behind the register.",
    "register_count": "How many offsets belong to the device, from 0 on: the size of its range of ports.",
    "snapshot_format": "The tag and the versions of the encoded state (docs/states.md).",
    "visit": "Names every member once; text, differences, bytes and JSON are derived from it (docs/states.md).",
    "to_string": "One line of text for people: logs, error messages.",
    "fields": "The implemented bits by their names, for inspect() and for traces.",
    "clock": "The clock that the device reads.",
    "events": "What the device notifies of events.",
    "begin": "The first element.",
    "end": "One past the last element.",
    "duration": "The unit of the clock.",
    "rep": "The integer that counts the unit.",
    "period": "The unit in seconds, as a ratio.",
    "time_point": "A time on the clock.",
    "is_steady": "Whether the clock can only advance.",
    "now": "The present time.",
    "buffer_read": "The guest has read a byte from RBR.",
    "out_byte": "The writer has taken a byte.",
    "tx_lost_byte": "A byte that the guest sent is lost: the writer failed, or there was no room.",
    "in_buffer_empty": "The receive FIFO has become empty: offer more input.",
    "input_resumed": "Loopback has ended: offer input again.",
    "overrun": "A received byte found no room (LSR bit 1).",
    "break_received": "A break has been received (LSR bit 4).",
    "break_control": "The guest has begun or ended a break (LCR bit 6).",
    "line_format_changed": "The guest has changed word length, stop bits or parity (LCR).",
    "divisor_changed": "The guest has changed the divisor: 115200 / divisor is the rate in baud.",
    "data_terminal_ready": "The guest has changed DTR (MCR bit 0).",
    "request_to_send": "RTS has changed, by the guest (MCR bit 1) or by automatic flow control.",
    "dropped_bytes": "So many received bytes were discarded, by a FIFO reset or for lack of room.",
    "characters_dropped": "These received bytes were discarded.",
    "fifo_reset": "The guest has cleared a FIFO.",
    "invalid_access": "The guest has accessed an offset that does not exist.",
    "interrupt_raised": "The interrupt line has risen.",
    "trigger_failed": "The trigger failed during a read, which cannot return the error.",
    "host_error": "A trigger or writer has failed.",
    "set_error_handler": "Sets what is called with each error that the model returns; the guest never sees them.",
    "keyboard_interrupt": "The trigger of IRQ 1.",
    "aux_interrupt": "The trigger of IRQ 12, the mouse.",
    "reset_evt": "The trigger that resets the CPU.",
    "interrupt_evt": "The trigger of the interrupt line.",
    "sci": "The trigger of the system control interrupt.",
    "core": "The state machine of the device, which makes no calls.",
    "line": "The interrupt line with its trigger.",
    "inner": "The writer that receives the output.",
    "writer": "The writer that takes the output.",
    "trigger": "Raises the interrupt once: an edge. Returns the error of the host, for example of an eventfd.",
    "set_level": "Sets the level of the interrupt line. Returns the error of the host.",
    "options": "The options with which the device was made.",
    "peek": "What a read of this offset would return, without its side effects.",
    "within": "If set, the allocator chooses inside this range only.",
    "align": "The base is a multiple of this power of two.",
    "empty": "Whether there is none.",
}


class Declaration:
    """A declaration in a namespace or class: its lines (from 0), its text without comments, its scope."""

    def __init__(self, line, last, text, scope):
        self.line, self.last, self.text, self.scope = line, last, " ".join(text.split()), scope


def opens_scope(text):
    """The kind of scope that a brace after this text opens, or None if it is a body or an initializer."""
    text = re.sub(r"^(?:template <.*?> )+(?=(?:class|struct|union|requires|concept))", "", text)
    text = re.sub(r"^requires .*? (?=(?:class|struct)\b)", "", text)
    match = re.match(r"(?:inline )?(namespace|class|struct|union|enum)\b", text)
    if not match or (match[1] != "namespace" and re.search(r"[=(]", text.split(":")[0])):
        return None
    return match[1]


def declarations(source):
    """All declarations in namespaces and classes."""
    found, scopes, text, start, line, nested, parens, brace = [], ["file"], "", None, 0, 0, 0, 0
    for match in TOKEN.finditer(source):
        token = match[0]
        if token == "\n" or token.startswith(("//", "/*")):
            line += token.count("\n")
            text += " "
            continue
        if token.isspace():
            text += " "
            continue
        if not text.strip():
            if token == "#":
                text, start = "#", line
                continue
            text, start = "", line
        if text.startswith("#"):
            if line > start and not source.splitlines()[line - 1].endswith("\\"):
                text, start = "", line
            else:
                continue
        text += token
        if token in "([":
            parens += 1
        elif token in ")]":
            parens -= 1
        elif token == "{":
            if nested == 0 and parens == 0 and opens_scope(" ".join(text[:-1].split())):
                found.append(Declaration(start, line, text[:-1], scopes[-1]))
                scopes.append(opens_scope(" ".join(text[:-1].split())))
                text = ""
            else:
                if nested == 0 and parens == 0:
                    brace = len(text) - 1
                nested += 1
        elif token == "}":
            if nested:
                nested -= 1
                # The end of a function's body; the brace of an initializer is followed by a semicolon.
                if nested == 0 and parens == 0 and re.search(r"\)[^=]*$", text[:brace]) and \
                        not re.match(r"\s*;", source[match.end():]):
                    found.append(Declaration(start, line, text, scopes[-1]))
                    text = ""
            else:
                scopes.pop()
                text = ""
        elif token == ";" and not nested and not parens:
            if text.strip() != ";":
                found.append(Declaration(start, line, text, scopes[-1]))
            text = ""
        elif token == ":" and text.strip() in ("public:", "private:", "protected:"):
            text = ""
        elif token == "," and scopes[-1] == "enum" and not nested and not parens:
            found.append(Declaration(start, line, text, "enum"))
            text = ""
    return found


def name_of(text):
    """The name that a declaration declares, or an empty text."""
    text = re.sub(r"\[\[.*?\]\] ?", "", text)
    if match := re.match(r"(?:template <.*> )?(?:using|concept) (\w+) =", text):
        return match[1]
    if match := re.search(r"\boperator *[^\w\s]+", text.split(" = ")[0]):
        return match[0]
    # Without parameters of templates, and what is within them.
    while (shorter := re.sub(r"<[^<>]*>", "", text)) != text:
        text = shorter
    text = re.sub(r"^template (?:requires .*? (?=static|constexpr|auto|void|explicit|inline|std))?", "", text)
    match = re.match(r"[^=({;]*?(\w+)(?:\[\])? ?(?:[=({;,]|$)", text)
    return match[1] if match else ""


def derived(text, name):
    """The documentation that follows from the code, or None."""
    field = re.search(r"constexpr (?:typename )?(?:Register::)?(Bit|Field)<([^>]*)>", text)
    if field:
        arguments = [part.strip() for part in field[2].split(",")]
        numbers = [part for part in arguments if re.fullmatch(r"\w+", part)]
        access = next((part.split("::")[1] for part in arguments if part.startswith("Access::")), "")
        if numbers:
            bits = f"Bit {numbers[0]}" if field[1] == "Bit" else f"Bits {numbers[-1]}:{numbers[0]}"
            return f"{bits}; {ACCESS.get(access, ACCESS[''])}."
    if name == "name" and "string_view" in text:
        return "The register's name in the datasheet."
    return VOCABULARY.get(name)


def is_hidden(text):
    """Declarations that documentation does not show: what the compiler makes (copies, comparisons), deduction guides."""
    return (re.search(r"\) (?:noexcept )?= default;$|\) = delete;$", text) is not None or
            re.match(r"(?:template <.*?> )?(?:requires .*)?[A-Z]\w*\([^;]*\) -> [A-Z][^;]*;$", text) is not None or
            re.match(r"using (\w+)::\1;", text) is not None or text.startswith("friend class ") or
            re.match(r"using .*::operator=;$", text) is not None)


def documented(source):
    """The header as Doxygen reads it."""
    # The namespace of the version is not part of a name.
    source = re.sub(r"::inline v\d+_\d+", "", source)
    lines = source.splitlines()
    previous = None  # the declaration before, its name and its comment
    for declaration in declarations(source):
        first, last = declaration.line, declaration.last
        if is_hidden(declaration.text):
            for at in range(first, last + 1):
                lines[at] = ""
            previous = None
            continue
        above = first - 1
        comment = []
        while above >= 0 and lines[above].lstrip().startswith("///"):
            comment.insert(0, lines[above].strip())
            above -= 1
        name = name_of(declaration.text)
        trailing = re.match(r"(.*?[^\s/])\s*//(?!/)\s*(.*)$", lines[last])
        if trailing and not lines[first].lstrip().startswith("//"):
            text = derived(declaration.text, name) if not comment else None
            lines[last] = f"{trailing[1]}  ///< {text + ' ' if text else ''}{trailing[2]}"
            while last + 1 < len(lines) and re.match(r"\s{12,}// ", lines[last + 1]):
                lines[last + 1] = lines[last + 1].replace("// ", "///< ", 1)
                last += 1
            comment = comment or ["/// " + trailing[2]]
        elif not comment and "///<" not in lines[last]:
            text = derived(declaration.text, name)
            if previous and previous[0].last == first - 1 and previous[1] == name and previous[2]:
                comment = previous[2]
                text = text or "\n".join(line[4:] for line in comment if line.startswith("/// "))
            if text and "```" not in text:
                indent = len(lines[first]) - len(lines[first].lstrip())
                text = " ".join(text.split())
                lines[first] = f"{' ' * indent}/** {text} */ {lines[first].lstrip()}"
                comment = ["/// " + text]
        previous = (declaration, name, comment)
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    with open(sys.argv[1], encoding="utf-8") as header:
        sys.stdout.write(documented(header.read()))
