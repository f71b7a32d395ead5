# SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
"""Initramfs archives ("newc" cpio, Linux Documentation/driver-api/early-userspace/buffer-format.rst).

Written here rather than by the cpio program because device nodes and root ownership then need no privilege.
"""

import stat


class Archive:
    """An archive in memory. The parent directories of a file are added automatically."""

    def __init__(self):
        self._data = bytearray()
        self._names = set()

    def directory(self, name, mode=0o755):
        self._parents(name)
        if name not in self._names:
            self._entry(name, stat.S_IFDIR | mode, links=2)

    def file(self, name, content, mode=0o644):
        self._parents(name)
        self._entry(name, stat.S_IFREG | mode, content)

    def symlink(self, name, target):
        self._parents(name)
        self._entry(name, stat.S_IFLNK | 0o777, target.encode())

    def character_device(self, name, major, minor, mode=0o600):
        self._parents(name)
        self._entry(name, stat.S_IFCHR | mode, device=(major, minor))

    def finish(self):
        """The archive's bytes. Archives may follow one another: the kernel unpacks each."""
        trailer = Archive()
        trailer._entry("TRAILER!!!", 0)
        data = bytes(self._data) + bytes(trailer._data)
        return data + b"\0" * (-len(data) % 512)

    def _parents(self, name):
        parent = name.rpartition("/")[0]
        if parent:
            self.directory(parent)

    def _entry(self, name, mode, content=b"", links=1, device=(0, 0)):
        self._names.add(name)
        encoded = name.encode() + b"\0"
        # Hard links are never used, so every entry has its own number.
        numbers = (len(self._names), mode, 0, 0, links, 0, len(content), 0, 0, *device, len(encoded), 0)
        header = b"070701" + b"".join(b"%08X" % number for number in numbers)
        for part in (header + encoded, content):
            self._data += part + b"\0" * (-len(part) % 4)
