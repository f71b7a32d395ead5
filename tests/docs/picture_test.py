#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
"""docs/architecture.svg shows what docs/architecture.dot says, and that is what the sources include."""
import collections
import html
import pathlib
import re
import sys
import unittest
import xml.etree.ElementTree

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent
sys.path.insert(0, str(ROOT / "scripts/lib/docs"))
import charts  # pylint: disable=wrong-import-position

INCLUDE, KVM_VMM = ROOT / "include", ROOT / "examples/kvm_vmm/src"
# They include everything, or nothing.
UMBRELLAS = {"vmdevice/vmdevice.hpp", "vmsuperio/vmsuperio.hpp", "vmdevice/version.hpp", "vmsuperio/version.hpp"}
DOT = (ROOT / "docs/architecture.dot").read_text(encoding="utf-8")
SVG = "{http://www.w3.org/2000/svg}"


def nodes():
    """The attributes of each node, by its name."""
    return {name: dict(re.findall(r'(\w+)="([^"]*)"', attributes))
            for name, attributes in re.findall(r'^ *"([^"]+)" \[(.*)\]$', DOT, re.MULTILINE)}


def edges():
    """The pairs of nodes that a statement such as "a" -> "b" -> "c" connects."""
    found = []
    for chain in re.findall(r'"[^"]+"(?: -> "[^"]+")+', DOT):
        names = re.findall(r'"([^"]+)"', chain)
        found += zip(names, names[1:])
    return found


NODES, EDGES = nodes(), edges()


def node_of(path):
    """The node whose comment lists a file, or the longest of the folders around it."""
    owners = [(len(listed), name) for name, attributes in NODES.items()
              for listed in attributes.get("comment", "").split()
              if path == listed or listed.endswith("/") and path.startswith(listed)]
    return max(owners)[1] if owners else None


def sources():
    """Each file's name as other files include it, and its text."""
    for base in (INCLUDE, KVM_VMM):
        for path in sorted(base.rglob("*.?pp")):
            yield path.relative_to(base).as_posix(), path.read_text(encoding="utf-8")


def includes():
    """What the sources of each node include of other nodes, with one example each."""
    found = collections.defaultdict(dict)
    for name, text in sources():
        if name in UMBRELLAS:
            continue
        for included in re.findall(r'^#include [<"]([^>"]+\.hpp)[>"]', text, re.MULTILINE):
            if (INCLUDE / included).is_file() or (KVM_VMM / included).is_file():
                if node_of(included) != node_of(name):
                    found[node_of(name)].setdefault(node_of(included), f"{name} includes {included}")
    return found


def reachable(start):
    seen, waiting = set(), [start]
    while waiting:
        for source, target in EDGES:
            if source == waiting[0] and target not in seen:
                seen.add(target)
                waiting.append(target)
        waiting.pop(0)
    return seen


class PictureTest(unittest.TestCase):
    def test_the_picture_has_the_nodes_and_edges_of_the_text(self):
        root = xml.etree.ElementTree.parse(ROOT / "docs/architecture.svg").getroot()
        drawn = {"node": {}, "edge": {}}
        for group in root.iter(SVG + "g"):
            kind = group.get("class", "").split()[0]
            if kind in drawn:
                drawn[kind][group.find(SVG + "title").text] = [text.text for text in group.iter(SVG + "text")]
        self.assertEqual({name: attributes["label"].split("\\n") for name, attributes in NODES.items()},
                         {name: [html.unescape(line) for line in lines] for name, lines in drawn["node"].items()},
                         "run scripts/picture")
        hidden = set(re.findall(r'^ *"([^"]+)" -> "([^"]+)" \[style=invis\]$', DOT, re.MULTILINE))
        self.assertEqual({f"{source}->{target}" for source, target in EDGES if (source, target) not in hidden},
                         set(drawn["edge"]), "run scripts/picture")

    def test_each_file_is_in_a_node_and_each_node_has_files(self):
        owners = {name: node_of(name) for name, _ in sources() if name not in UMBRELLAS}
        self.assertEqual([name for name, owner in owners.items() if owner is None], [])
        for name, attributes in NODES.items():
            for listed in attributes.get("comment", "").split():
                self.assertTrue((INCLUDE / listed).exists() or (KVM_VMM / listed).exists(), f"{name}: {listed}")
                if not listed.endswith("/"):
                    self.assertEqual(owners[listed], name)

    def test_the_edges_are_what_the_sources_include(self):
        actual = includes()
        for source, targets in actual.items():
            for target, example in targets.items():
                self.assertIn(target, reachable(source), f"there is no way from {source} to {target}: {example}")
            self.assertNotIn(source, reachable(source), "a circle")
        for source, target in EDGES:
            if "comment" in NODES[source] and "comment" in NODES[target]:
                self.assertIn(target, actual[source], f"no file of {source} includes one of {target}")

    def test_the_charts_show_the_figures_of_the_documentation(self):
        for name, picture in charts.charts(ROOT).items():
            self.assertEqual((ROOT / "docs/pictures" / name).read_text(encoding="utf-8"), picture, f"{name}: run scripts/picture")
            xml.etree.ElementTree.fromstring(picture)

    def test_the_other_pictures_have_the_labels_of_their_text(self):
        for name in ("machine", "access"):
            labels = re.findall(r' label="([^"]+)"', (ROOT / f"docs/pictures/{name}.dot").read_text(encoding="utf-8"))
            root = xml.etree.ElementTree.parse(ROOT / f"docs/pictures/{name}.svg").getroot()
            drawn = {text.text for text in root.iter(SVG + "text")}
            self.assertEqual({line for label in labels for line in label.split("\\n")} - drawn, set(), f"{name}: run scripts/picture")
            self.assertGreater(len(labels), 7)


if __name__ == "__main__":
    unittest.main()
