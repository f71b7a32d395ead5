#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
"""Compiles the C++ of the documentation: see "Code in the documentation" in CONTRIBUTING.md.

snippets.py generate ROOT OUT   writes the sources, and snippets.cmake, which builds and runs them
snippets.py check ROOT OUT      fails unless OUT is what `generate` would write; prints what is compiled and what is not
snippets.py run PROGRAM FILE    runs a program, whose output must be that of FILE ("..." is any number of lines)
"""
import dataclasses
import pathlib
import re
import subprocess
import sys

LANGUAGES = ("cmake", "cpp", "json", "output", "sh", "text")
FENCE = re.compile(r"^(```+|~~~+)\s*(.*)$")
MARKER = re.compile(r"^<!-- not compiled: (.*\S) -->$")
TOKEN = re.compile(
    r"""//[^\n]*|/\*.*?\*/|R"(\w*)\(.*?\)\1"|"(?:\\.|[^"\\\n])*"|\d[\w']*|\w+|'(?:\\.|[^'\\\n])+'|\s+|.""", re.DOTALL)
DEFINITIONS = {"class", "concept", "enum", "inline", "namespace", "static_assert", "struct", "template", "typedef",
               "union", "using"}
# What may precede the brace of a function's body.
FUNCTION = re.compile(r"(?!(?:do|else|for|if|switch|while|\[) ).*\w \(.*\)(?: const| noexcept| - > [\w :<>*&]+)*$")
STATEMENTS = {"do", "else", "for", "if", "switch", "while"}


class SnippetError(Exception):
    """A fault of a document."""


@dataclasses.dataclass
class Block:
    """A fenced block."""
    line: int  # of its first line of text
    language: str
    text: str
    marker: str = ""  # why it is not compiled
    output: str | None = None  # of a program

    def is_program(self):
        return re.search(r"^int main\(", self.text, re.MULTILINE) is not None


def read_blocks(path, name):
    """The fenced blocks of a Markdown file, or of the comments of a header."""
    blocks, block, fence, marker = [], None, "", ""
    header = path.suffix == ".hpp"
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        if header:
            comment = re.match(r"\s*/// ?(.*)", line)
            line = comment[1] if comment else ""
            if block is not None and not comment:
                raise SnippetError(f"{name}:{block.line - 1}: the block does not end within its comment")
        match = FENCE.match(line.strip())
        if block is None:
            if match:
                fence, language = match.groups()
                if language and language not in LANGUAGES:
                    raise SnippetError(f"{name}:{number}: the language '{language}' is none of {', '.join(LANGUAGES)}")
                block = Block(number + 1, language, "", marker)
                marker = ""
            elif "```" in line:
                raise SnippetError(f"{name}:{number}: a fence is not at the beginning of its line")
            elif MARKER.match(line.strip()):
                marker = MARKER.match(line.strip())[1]
            elif line.strip():
                if marker:
                    raise SnippetError(f"{name}:{number}: a block must follow the line 'not compiled'")
        elif match and match[1] == fence and not match[2]:
            if block.language == "output":
                if not blocks or blocks[-1].language != "cpp" or not blocks[-1].is_program():
                    raise SnippetError(f"{name}:{block.line - 1}: the block before this output is not a program")
                blocks[-1].output = block.text
            if block.marker and block.language != "cpp":
                raise SnippetError(f"{name}:{block.line - 1}: only a block of C++ may be marked as not compiled")
            blocks.append(block)
            block = None
        else:
            block.text += line + "\n"
    if block is not None:
        raise SnippetError(f"{name}:{block.line - 1}: the block does not end")
    return blocks


def split_items(text):
    """Splits C++ into triples: "include", "definition" or "statement"; its line; its text."""
    items, words, start, position, depth, function = [], [], 0, 0, 0, False
    while position < len(text):
        token = TOKEN.match(text, position)[0]
        line_start, position = position, position + len(token)
        if token.isspace() or token.startswith(("//", "/*")):
            continue
        if token == "#" and not words:
            position = (text + "\n").index("\n", position) + 1
            items.append(("include", text.count("\n", 0, line_start) + 1, text[line_start:position]))
            start = position  # comments before it belong to nothing
            continue
        if token in ("(", "[", "{"):
            if token == "{" and depth == 0:
                function = "=" not in words and FUNCTION.match(" ".join(words)) is not None
            depth += 1
        elif token in (")", "]", "}"):
            depth -= 1
        words.append(token)
        block = function or words[0] in STATEMENTS or words[0] in ("namespace", "{")
        if depth == 0 and (token == ";" or token == "}" and block):
            if words[0] == "if" and re.match(r"\s*else\b", text[position:]):
                continue
            variable = words[0] in ("class", "enum", "struct", "union") and "{" not in words and len(words) > 3
            definition = function or words[0] in DEFINITIONS and not variable
            items.append(("definition" if definition else "statement", text.count("\n", 0, start) + 1,
                          text[start:position]))
            words, start, function = [], position, False
    if depth or words:
        raise SnippetError("the last statement does not end")
    return items


def fragment_source(name, blocks, prologue):
    """One source with all the fragments of a file, each in a namespace of its own within that of the prologue."""
    includes, bodies = [], []
    for block in blocks:
        try:
            items = split_items(block.text)
        except SnippetError as error:
            raise SnippetError(f"{name}:{block.line}: {error}") from error
        definitions, statements = [], []
        for kind, line, text in items:
            # An item begins where the one before it ended, which may be in the middle of a line.
            positioned = f'#line {block.line + line - 1} "{name}"\n{text}\n'
            {"include": includes, "definition": definitions, "statement": statements}[kind].append(positioned)
        if len(blocks) == 1 and not statements:
            bodies = definitions  # a source file as it stands
        else:
            bodies.append(f"namespace snippets::snippet_{block.line} {{\n{''.join(definitions)}"
                          f"void snippet();\nvoid snippet() {{\n{''.join(statements)}}}\n}}\n")
    first = f'#include "{prologue}"\n' if prologue else ""
    return first + "".join(includes) + "".join(bodies)


def documents(root):
    """The Markdown files and headers of the repository, without what was built."""
    found = []
    for path in sorted(root.rglob("*")):
        parts = path.relative_to(root).parts
        if parts[0].startswith((".", "build")) or path.suffix not in (".md", ".hpp") or not path.is_file():
            continue
        if path.suffix == ".hpp" and parts[0] not in ("include", "fuzz", "examples"):
            continue
        found.append(path)
    return found


def generate(root):
    """The files to write, by name; and a list of (document, line, what is done with the block)."""
    files, blocks_of, cmake, depends = {}, [], [], []
    for path in documents(root):
        name = path.relative_to(root).as_posix()
        blocks = [block for block in read_blocks(path, name) if block.language == "cpp"]
        if path.suffix == ".md" or blocks:
            depends.append(name)
        fragments = []
        stem = re.sub(r"\W", "_", name.removesuffix(path.suffix))
        for block in blocks:
            if block.marker:
                blocks_of.append((name, block.line, "not compiled: " + block.marker))
            elif block.is_program():
                program = f"{stem}_{sum(1 for file in files if file.startswith(stem + '_')) + 1}"
                files[program + "_program.cpp"] = f'#line {block.line} "{name}"\n{block.text}'
                if block.output is not None:
                    files[program + "_output.txt"] = block.output
                    cmake.append(f"add_snippet_program({program} {program}_program.cpp {program}_output.txt)")
                else:
                    cmake.append(f"add_snippet_program({program} {program}_program.cpp)")
                blocks_of.append((name, block.line, "run" if block.output is None else "run, output compared"))
            else:
                fragments.append(block)
                blocks_of.append((name, block.line, "compiled"))
        if fragments:
            prologue = root / "tests/docs/prologue" / path.relative_to(root).with_suffix(".hpp")
            include = ""
            if prologue.is_file():
                include = prologue.relative_to(root).as_posix()
                depends.append(include)
            files[stem + ".cpp"] = fragment_source(name, fragments, include)
            cmake.append(f"add_snippet_fragments({stem} {stem}.cpp)")
    depends = "".join(f'  "${{PROJECT_SOURCE_DIR}}/{name}"\n' for name in depends)
    files["snippets.cmake"] = ("set_property(DIRECTORY APPEND PROPERTY CMAKE_CONFIGURE_DEPENDS\n" + depends + ")\n" +
                               "\n".join(cmake) + "\n")
    return files, blocks_of


def write(root, out):
    files, _ = generate(root)
    out.mkdir(parents=True, exist_ok=True)
    for old in out.iterdir():
        if old.name not in files:
            old.unlink()
    for name, text in files.items():
        path = out / name
        # An unchanged file keeps its time, so that nothing is compiled again.
        if not path.is_file() or path.read_text(encoding="utf-8") != text:
            path.write_text(text, encoding="utf-8")


def check(root, out):
    files, blocks = generate(root)
    status = 0
    for name, text in files.items():
        path = out / name
        if not path.is_file() or path.read_text(encoding="utf-8") != text:
            print(f"{name} was built from other documents: configure and build again")
            status = 1
    for name, line, what in blocks:
        print(f"{name}:{line}: {what}")
    kinds = [what.split(":")[0] for _, _, what in blocks]
    print(f"{len(blocks)} blocks of C++: {kinds.count('run, output compared')} run with their output compared, "
          f"{kinds.count('run')} run, {kinds.count('compiled')} compiled, {kinds.count('not compiled')} not compiled")
    return status


def same_output(expected, actual):
    """Whether the lines are those expected, where "..." stands for any number of lines."""
    pattern = "".join(r"(?:.*\n)*" if line.strip() == "..." else re.escape(line) + r"\n"
                      for line in expected.splitlines())
    return re.fullmatch(pattern, actual) is not None


def run_program(program, output):
    result = subprocess.run([program], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True, check=False)
    if result.returncode == 77:
        return 77
    if result.returncode:
        print(f"exit status {result.returncode}")
        return 1
    expected = pathlib.Path(output).read_text(encoding="utf-8")
    if not same_output(expected, result.stdout):
        print(f"expected:\n{expected}\nprinted:\n{result.stdout}")
        return 1
    return 0


def main(arguments):
    try:
        if len(arguments) == 3 and arguments[0] == "generate":
            return write(pathlib.Path(arguments[1]), pathlib.Path(arguments[2]))
        if len(arguments) == 3 and arguments[0] == "check":
            return check(pathlib.Path(arguments[1]), pathlib.Path(arguments[2]))
        if len(arguments) == 3 and arguments[0] == "run":
            return run_program(arguments[1], arguments[2])
    except SnippetError as error:
        print(error, file=sys.stderr)
        return 1
    print(__doc__, file=sys.stderr)
    return 2


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
