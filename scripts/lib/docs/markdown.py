#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
"""Doxygen's input filter for Markdown: prints a page whose links lead to pages of the site.

markdown.py ROOT FILE

A link to a page of the site becomes one to its HTML, a link to another file of the repository becomes its name. Headings
get the anchors that they have where Markdown is shown by itself. Line numbers do not change.
"""
import pathlib
import re
import sys

FENCE = re.compile(r"^\s*(```+|~~~+)")
LINK = re.compile(r"(!?)\[((?:[^\[\]]|\[[^\]]*\])+)\]\(([^()\s]+)\)")
# Folders and files that are pages of the site.
PAGES = ("docs/", "fuzz/README.md", "fuzz/COVERAGE.md", "examples/kvm_vmm/README.md", "CONTRIBUTING.md", "CHANGELOG.md",
         "SECURITY.md")
MAIN_PAGE = "docs/embedding.md"


def is_page(name):
    return name.endswith(".md") and name.startswith(PAGES)


def page_file(name):
    """The name of a page's HTML."""
    if name == MAIN_PAGE:
        return "index.html"
    return "md_" + re.sub(r"[/.-]", lambda m: {"/": "_", "-": "_", ".": "_8"}[m[0]], name.removesuffix(".md")) + ".html"


def slug(heading):
    """The anchor of a heading where Markdown is shown by itself."""
    text = re.sub(r"[`*]|\[([^\]]*)\]\([^)]*\)", lambda m: m[1] or "", heading).strip().lower()
    return re.sub(r"[^\w\- ]", "", text).replace(" ", "-")


def anchor(name, fragment):
    return f"{page_file(name).removesuffix('.html')}-{fragment}"


def converted(root, path):
    name = path.relative_to(root).as_posix()
    lines, fence, seen = [], "", {}

    def link(match):
        image, text, target = match.groups()
        if re.match(r"[a-z]+:", target):
            return match[0]
        file, _, fragment = target.partition("#")
        aim = (path.parent / file).resolve() if file else path
        try:
            aim_name = aim.relative_to(root).as_posix()
        except ValueError:
            return match[0]
        if image:
            return f"![{text}]({aim.name})"
        if aim.is_dir() and (aim / "README.md").is_file():
            aim_name += "/README.md"
        if is_page(aim_name) and (root / aim_name).is_file():
            aim_page = page_file(aim_name) if file else ""
            return f"[{text}]({aim_page}{'#' + anchor(aim_name, fragment) if fragment else ''})"
        if not aim.exists():
            return f"[{text}](missing:{aim_name})"
        return text if text.strip("`") in (aim_name, aim.name, aim_name + "/") else f"{text} (`{aim_name}`)"

    for line in path.read_text(encoding="utf-8").splitlines():
        match = FENCE.match(line)
        if match and (not fence or match[1] == fence):
            fence = "" if fence else match[1]
            line = re.sub(r"```(output|sh|json|cmake|text)$", "```", line)
        elif not fence:
            # Inline code is not a link.
            parts = re.split(r"(`[^`]*`)", LINK.sub(link, line))
            heading = re.match(r"(##+) (.*\S)\s*$", line)
            line = "".join(parts)
            if heading:
                fragment = slug(heading[2])
                seen[fragment] = seen.get(fragment, -1) + 1
                line = f"{line} {{#{anchor(name, fragment)}{f'-{seen[fragment]}' if seen[fragment] else ''}}}"
            if line.startswith("<!--") and line.endswith("-->"):
                line = ""
        lines.append(line)
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    sys.stdout.write(converted(pathlib.Path(sys.argv[1]).resolve(), pathlib.Path(sys.argv[2]).resolve()))
