#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
"""links.py FOLDER: each link of the site's pages leads to a page, an anchor or an image that is there."""
import html.parser
import pathlib
import sys
import urllib.parse


class Page(html.parser.HTMLParser):
    def __init__(self, text):
        super().__init__()
        self.anchors, self.links = set(), set()
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        for key, value in attributes:
            if key in ("id", "name") and value:
                self.anchors.add(value)
            elif value and (key in ("href", "src") or key == "data" and tag == "object"):
                self.links.add(value)


def faults(folder):
    pages = {path.name: Page(path.read_text(encoding="utf-8")) for path in folder.glob("*.html")}
    for name, page in sorted(pages.items()):
        for link in sorted(page.links):
            url = urllib.parse.urlsplit(link)
            if url.scheme in ("http", "https", "javascript"):
                continue
            target = urllib.parse.unquote(url.path) or name
            if url.scheme or not (folder / target).is_file():
                yield f"{name}: there is no {link}"
            elif url.fragment == "nested-classes":
                continue  # Doxygen's own link to a heading that it leaves out if all of these classes are private
            elif url.fragment and target in pages and urllib.parse.unquote(url.fragment) not in pages[target].anchors:
                yield f"{name}: {target} has no #{url.fragment}"


if __name__ == "__main__":
    found = list(faults(pathlib.Path(sys.argv[1])))
    print("\n".join(found))
    sys.exit(1 if found else 0)
