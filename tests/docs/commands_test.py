#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
"""The scripts, presets, targets, files and options that commands in the documentation name exist.

A command is a line of a block ```sh, or inline code that begins with a program that is known here.
"""
import json
import os
import pathlib
import re
import shlex
import subprocess
import unittest

import snippets

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent
# Options in the text on kvm_vmm that belong to other programs.
FOREIGN_OPTIONS = {"--smp"}
PROGRAMS = re.compile(r"scripts/|build/|cmake --|ctest |kvm_vmm --|g\+\+ ")


def presets():
    text = json.loads((ROOT / "CMakePresets.json").read_text(encoding="utf-8"))
    return {kind: {preset["name"] for preset in text[kind + "Presets"] if not preset.get("hidden")}
            for kind in ("configure", "build", "test")}


def targets():
    found = set()
    for path in ROOT.rglob("CMakeLists.txt"):
        if not path.relative_to(ROOT).parts[0].startswith(("build", ".")):
            found.update(re.findall(r"\badd_\w+\(\s*(\w+)", path.read_text(encoding="utf-8")))
    return found


def kvm_vmm_help():
    """What kvm_vmm --help prints, or None if it is not built here."""
    program = os.environ.get("KVM_VMM")
    if not program:
        return None
    return subprocess.run([program, "--help"], stdin=subprocess.DEVNULL, capture_output=True, text=True, check=True).stdout


PRESETS, TARGETS, KVM_VMM_HELP = presets(), targets(), kvm_vmm_help()
KVM_VMM_OPTIONS = None if KVM_VMM_HELP is None else set(re.findall(r"(?<![\w-])--[a-z][\w-]*", KVM_VMM_HELP))


def long_options(words):
    return [word.split("=")[0] for word in words if re.match(r"--[a-z]", word)]


def command_faults(words):
    """What one command names that does not exist."""
    program, arguments = words[0], words[1:]
    if program.startswith("scripts/"):
        path = ROOT / program
        if not path.is_file() or not os.access(path, os.X_OK):
            return [f"{program} is no program"]
        text = path.read_text(encoding="utf-8")
        for included in re.findall(r"scripts/lib/[\w/]+(?:\.\w+)?", text):
            if (ROOT / included).is_file():
                text += (ROOT / included).read_text(encoding="utf-8")
        return [f"{program} has no option {option}" for option in long_options(arguments)
                if not re.search(rf"(?<![\w-]){option}(?![\w-])", text)]
    if program in ("cmake", "ctest"):
        kind = "test" if program == "ctest" else "build" if "--build" in arguments else "configure"
        faults, option = [], ""
        for word in arguments:
            if word.startswith("-"):
                option = word
            elif option == "--preset" and word not in PRESETS[kind]:
                faults.append(f"there is no {kind} preset {word}")
            elif option in ("--build", "--install", "--test-dir") and word.split("/")[-1] not in PRESETS["configure"]:
                faults.append(f"no preset builds in {word}")
            elif option == "--target" and word not in TARGETS:
                faults.append(f"there is no target {word}")
        return faults
    if program == "kvm_vmm":
        return [f"kvm_vmm has no option {option}" for option in long_options(arguments)
                if KVM_VMM_OPTIONS is not None and option not in KVM_VMM_OPTIONS]
    if program.startswith("build/"):
        preset, name = program.split("/")[1], program.split("/")[-1]
        return [f"{program} is not built"] if preset not in PRESETS["configure"] or name not in TARGETS else []
    if program == "g++":
        return [f"there is no {word}" for word in arguments if "/" in word and not (ROOT / word).exists()]
    return []


def line_faults(line):
    """What a line of shell commands names that does not exist."""
    lexer = shlex.shlex(line, posix=True, punctuation_chars=True)
    lexer.whitespace_split = True
    faults, words = [], []
    for word in [*lexer, ";"]:
        if not set(word) <= set("&|;()<>"):
            words.append(word)
        elif words:
            faults += command_faults(words)
            words = []
    return faults


def commands(path, name):
    """The lines of commands in a document, each with its place."""
    found = []
    for block in snippets.read_blocks(path, name):
        if block.language == "sh":
            for offset, line in enumerate(block.text.splitlines()):
                found.append((f"{name}:{block.line + offset}", line))
    text = path.read_text(encoding="utf-8")
    for match in re.finditer(r"`([^`]+)`", re.sub(r"```.*?```", lambda fenced: re.sub(r"[^\n]", " ", fenced[0]), text,
                                                  flags=re.DOTALL)):
        code = " ".join(match[1].split())
        if PROGRAMS.match(code):
            found.append((f"{name}:{text.count(chr(10), 0, match.start()) + 1}", code))
    return found


class CommandsTest(unittest.TestCase):
    def test_what_the_commands_name_exists(self):
        faults, count = [], 0
        for path in snippets.documents(ROOT):
            if path.suffix == ".md":
                for place, line in commands(path, path.relative_to(ROOT).as_posix()):
                    count += 1
                    faults += [f"{place}: {fault}" for fault in line_faults(line)]
        print(f"{count} lines of commands")
        self.assertEqual(faults, [])
        self.assertGreater(count, 20)

    @unittest.skipIf(KVM_VMM_OPTIONS is None, "kvm_vmm is not built here")
    def test_the_options_in_the_text_on_kvm_vmm_exist(self):
        text = (ROOT / "examples/kvm_vmm/README.md").read_text(encoding="utf-8")
        text = re.sub(r"`(?:scripts|cmake|g\+\+)[^`]*`", "", re.sub(r"```.*?```", "", text, flags=re.DOTALL))
        named = {option for code in re.findall(r"`(--[^`]*)`", text) for option in long_options(code.split())}
        self.assertGreater(len(named), 15)
        self.assertEqual(named - KVM_VMM_OPTIONS, FOREIGN_OPTIONS)

    @unittest.skipIf(KVM_VMM_HELP is None, "kvm_vmm is not built here")
    def test_the_table_of_options_has_those_of_help_with_their_values_and_defaults(self):
        text = (ROOT / "examples/kvm_vmm/README.md").read_text(encoding="utf-8")
        rows = re.findall(r"^\| `(--[^`]*)` \| (?:`([^`]*)`)? *\|", text, re.MULTILINE)
        listed = sorted((option + (f"={default}" if default else "")).replace("\\|", "|") for option, default in rows)
        self.assertGreater(len(listed), 20)
        helped = sorted(re.findall(r"^  (?:-h,)?(--[\w-]+(?: \S+)?)", KVM_VMM_HELP, re.MULTILINE))
        self.assertEqual(listed, helped)

    def test_what_does_not_exist_is_found(self):
        for line, fault in (
            ("scripts/boto", "scripts/boto is no program"),
            ("scripts/boot --excec 'uname -r'", "scripts/boot has no option --excec"),
            ("cmake --preset gc && ctest --preset gcc", "there is no configure preset gc"),
            ("cmake --build --preset gcc -j 2 --target kvm_vmn", "there is no target kvm_vmn"),
            ("cmake --build build/gc", "no preset builds in build/gc"),
            ("ctest --preset static # a comment", "there is no test preset static"),
            ("build/gcc/bench/vmdevice_rations", "build/gcc/bench/vmdevice_rations is not built"),
            ("g++ -I include examples/minimal/main.cpp -o a", "there is no examples/minimal/main.cpp"),
        ):
            with self.subTest(line):
                self.assertEqual(line_faults(line), [fault])
        if KVM_VMM_OPTIONS is not None:
            self.assertEqual(line_faults("echo a | kvm_vmm --kernal a --cpus=2"), ["kvm_vmm has no option --kernal"])


if __name__ == "__main__":
    unittest.main()
