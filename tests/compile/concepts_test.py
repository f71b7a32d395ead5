#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
"""A type that lacks something which a concept requires is refused in one short error that says what is missing.

Each concept has a type that satisfies it and the same type with a fault. The first must compile, and the second must not:
with one error, in few lines, of which one names what is missing. Every public concept has a row.
"""

import os
import re
import subprocess
import sys
import unittest
from pathlib import Path

INCLUDE = Path(__file__).resolve().parent.parent.parent / "include"
COMPILER = os.environ["CXX"]

TRIGGER = "struct T { using error_type = int; std::expected<void, int> trigger() { return {}; }\n"
EVENTS = "struct E { void buffer_read() {} void out_byte() {} void tx_lost_byte() {} void in_buffer_empty() {} };\n"
STATE = """struct S {
    int a{};
    bool operator==(const S&) const = default;
    static constexpr vmsuperio::SnapshotFormat snapshot_format{0x4D494E45, 1};
    template <class Self, class Archive> static void visit(Self& self, Archive& archive) { archive("a", self.a); }
};
"""
# (concept, its header, headers to include, what satisfies it, (text, its replacement), the use, what is named)
CASES = [
    ("Trigger", "vmsuperio/serial.hpp", TRIGGER + "};", ("trigger()", "pulse()"),
     "vmsuperio::Serial<T> use{T{}, vmsuperio::NullWriter{}};", r"t\.trigger\(\)"),
    ("LevelTrigger", "vmsuperio/trigger.hpp",
     TRIGGER + "std::expected<void, int> set_level(bool) { return {}; } };", ("set_level(bool)", "set_level()"),
     "template <vmsuperio::LevelTrigger X> struct Use {}; Use<T> use;", r"t\.set_level\(asserted\)"),
    ("Writer", "vmsuperio/serial.hpp",
     "struct W { vmsuperio::WriteResult write(std::span<const std::uint8_t> b) { return b.size(); } };",
     ("write(", "put("), "vmsuperio::Serial<vmsuperio::NullTrigger, vmsuperio::NoEvents, W> use{{}, W{}};",
     r"w\.write\(bytes\)"),
    ("SerialEvents", "vmsuperio/serial.hpp", EVENTS, ("void tx_lost_byte() {}", ""),
     "vmsuperio::Serial<vmsuperio::NullTrigger, E> use{{}, E{}, {}};", r"events\.tx_lost_byte\(\)"),
    ("Clock", "vmsuperio/rtc_pl031.hpp",
     "struct C { std::chrono::system_clock::time_point now() const { return {}; } };", ("now()", "time()"),
     "struct N {}; vmsuperio::RtcPl031<vmsuperio::NullTrigger, N, C>* use;", r"clock\.now\(\)"),
    ("AcpiPmEvents", "vmsuperio/acpi_pm.hpp", "struct E { void power_off() {} };", ("power_off", "off"),
     "vmsuperio::AcpiPm<vmsuperio::NullTrigger, E>* use;", r"events\.power_off\(\)"),
    ("Timed", "vmsuperio/timed.hpp", "struct D { void tick() {}\n"
     "std::optional<std::chrono::nanoseconds> next_deadline() const { return {}; } };", ("tick()", "advance()"),
     "template <vmsuperio::Timed X> struct Use {}; Use<D> use;", r"device\.tick\(\)"),
    ("SnapshotState", "vmsuperio/snapshot.hpp", STATE, ("snapshot_format", "format"),
     "auto use() { return vmsuperio::encode(S{}); }", r"snapshot_format"),
    ("DeviceCore", "vmsuperio/device_shell.hpp",
     "struct C { int state() const { return 0; } bool interrupt_level(std::size_t) const { return false; } };",
     ("interrupt_level", "level"), "struct N {}; vmsuperio::DeviceShell<C, N>* use;",
     r"core\.interrupt_level\("),
    ("DeviceEffects", "vmsuperio/device_shell.hpp",
     "struct F { void report(int&) const {} vmsuperio::LinePulse pulse{}; };", ("report", "tell"),
     "template <vmsuperio::DeviceEffects<int> X> struct Use {}; Use<F> use;", r"effects\.report\(events\)"),
    ("BusAddress", "vmdevice/bus.hpp", "struct A { std::uint32_t value; };", ("value", "number"),
     "vmdevice::Bus<A, int> use;", r"value"),
    ("ByteRegisters", "vmdevice/byte_device.hpp",
     "struct M { std::uint8_t read(std::uint8_t) { return 0; } void write(std::uint8_t, std::uint8_t) {} };",
     ("write", "set"), "template <vmdevice::ByteRegisters X> struct Use {}; Use<M> use;",
     r"device\.write\(offset, value\)"),
    ("SpanRegisters", "vmdevice/span_device.hpp",
     "struct M { void read(std::uint64_t, std::span<std::uint8_t>) {}\n"
     "void write(std::uint64_t, std::span<const std::uint8_t>) {} };", ("read", "get"),
     "vmdevice::SpanDevice<M>* use;", r"device\.read\(offset, in\)"),
    ("RegisterModel", "vmdevice/share.hpp",
     "struct M { std::uint8_t read(std::uint8_t) { return 0; } void write(std::uint8_t, std::uint8_t) {} };",
     ("write", "set"), "vmdevice::SharedDevice<M>* use;", r"ByteRegisters<Model>"),
    ("BusDevice", "vmdevice/device_manager.hpp", "struct B { virtual ~B() = default; }; struct D : vmdevice::DevicePio {\n"
     "void pio_read(vmdevice::PioAddress, vmdevice::PioOffset, std::span<std::uint8_t>) override {}\n"
     "void pio_write(vmdevice::PioAddress, vmdevice::PioOffset, std::span<const std::uint8_t>) override {} };",
     ("vmdevice::DevicePio {", "B {"),
     "template <vmdevice::BusDevice X> struct Use {}; Use<D> use;", r"DevicePio"),
]


class ConceptsTest(unittest.TestCase):
    def compile(self, header, source):
        return subprocess.run([COMPILER, "-std=c++23", "-fsyntax-only", "-fdiagnostics-color=never", f"-I{INCLUDE}", "-x", "c++", "-"],
                              input=f"#include <{header}>\n{source}\n", text=True, stdout=subprocess.PIPE,
                              stderr=subprocess.STDOUT, check=False)

    def test_every_concept(self):
        for name, header, good, (text, fault), use, named in CASES:
            with self.subTest(name):
                bad = good.replace(text, fault).replace("override", "" if name == "BusDevice" else "override")
                result = self.compile(header, good + "\n" + use)
                self.assertEqual((result.returncode, result.stdout), (0, ""))
                self.assertIn(text, good)
                result = self.compile(header, bad + "\n" + use)
                self.assertNotEqual(result.returncode, 0)
                lines = result.stdout.splitlines()
                errors = [line for line in lines if "error:" in line]
                self.assertTrue(errors, result.stdout)
                self.assertRegex(errors[0], r"constraint failure|constraints not satisfied|no matching function", result.stdout)
                self.assertRegex(result.stdout, named)
                self.assertLessEqual(len(lines), 45, result.stdout)

    def test_every_public_concept_has_a_row(self):
        concepts = set()
        for path in INCLUDE.rglob("*.hpp"):
            # Without what is in a namespace detail.
            text = re.sub(r"^namespace (?:\w|::| )*\bdetail \{\n.*?^\}  // namespace", "", path.read_text(), flags=re.M | re.S)
            concepts |= set(re.findall(r"^concept (\w+)", text, re.MULTILINE))
        self.assertEqual(concepts, {name for name, *_ in CASES})


if __name__ == "__main__":
    sys.exit(unittest.main(verbosity=1))
