# SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
"""coverage_summary.py [--missing] [--only REGEX] DIRECTORY... < list of "PROFILE PROGRAM" lines

Line and branch coverage of the sources below the directories. Each program is evaluated with its own profile, and a
line or the side of a branch counts as covered if any program has executed it in any instantiation. (llvm-cov's own
report of several programs takes the best instantiation of each function instead of all of them together.) Lines
without code and the branches of comparisons that the compiler writes (`= default`) do not count.
"""
import argparse
import collections
import json
import pathlib
import re
import subprocess
import sys


def export(program, profile, directories, kind):
    return subprocess.run(["llvm-cov-19", "export", f"--format={kind}", program, f"-instr-profile={profile}", *directories],
                          stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, check=True, text=True).stdout


def sources(name):
    """The lines of a source without their comments; the first has the index 1."""
    return [""] + [line.split("//")[0] for line in pathlib.Path(name).read_text().split("\n")]


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--missing", action="store_true")
    parser.add_argument("--only", type=re.compile, default=re.compile(""))
    parser.add_argument("directories", nargs="+")
    options = parser.parse_args()
    missing = options.missing
    directories = [str(pathlib.Path(name).resolve()) for name in options.directories]
    lines = collections.defaultdict(dict)     # file -> line -> whether covered
    branches = collections.defaultdict(dict)  # file -> position -> [true taken, false taken]
    for entry in sys.stdin.read().split("\n"):
        if not entry:
            continue
        profile, program = entry.split(" ")
        name = None
        for line in export(program, profile, directories, "lcov").split("\n"):
            if line.startswith("SF:"):
                name = line[3:]
            elif line.startswith("DA:"):
                number, count = line[3:].split(",")[:2]
                lines[name][int(number)] = lines[name].get(int(number), False) or int(count) > 0
        for unit in json.loads(export(program, profile, directories, "text"))["data"]:
            for file in unit["files"]:
                for branch in file["branches"]:
                    sides = branches[file["filename"]].setdefault(tuple(branch[:4]), [False, False])
                    sides[0] = sides[0] or branch[4] > 0
                    sides[1] = sides[1] or branch[5] > 0

    totals = [0, 0, 0, 0]

    def row(name, counts):
        taken, of, sides, of_sides = counts
        share = lambda part, whole: f"{100 * part / whole:6.2f} %" if whole else "       -"
        print(f"{name:44} lines {taken:5} of {of:5} {share(taken, of)}   branches {sides:5} of {of_sides:5} {share(sides, of_sides)}")

    for name in sorted(lines):
        # llvm-cov shows all files where none is in the directories.
        if not name.startswith(tuple(directory + "/" for directory in directories)) or not options.only.search(name):
            continue
        code = sources(name)
        lines[name] = {number: hit for number, hit in lines[name].items() if code[number].strip(" }")}
        branches[name] = {at: pair for at, pair in branches[name].items() if not code[at[0]].rstrip().endswith("= default;")}
        covered = lines[name].values()
        sides = [side for pair in branches[name].values() for side in pair]
        if options.only.pattern and not any(covered):
            continue  # not part of this program
        counts = [sum(covered), len(covered), sum(sides), len(sides)]
        totals = [a + b for a, b in zip(totals, counts)]
        short = name
        for directory in directories:
            short = short.removeprefix(directory + "/")
        row(short, counts)
        if missing:
            print("".join(f"    line {number}\n" for number, hit in sorted(lines[name].items()) if not hit), end="")
            for (line, column, *_), (true, false) in sorted(branches[name].items()):
                if not (true and false):
                    print(f"    branch {line}:{column} never {' nor '.join(['true'] * (not true) + ['false'] * (not false))}")
    row("total", totals)


main()
