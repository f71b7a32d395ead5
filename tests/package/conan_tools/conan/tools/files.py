# SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
import fnmatch
import pathlib
import shutil


def load(_recipe, path):
    return pathlib.Path(path).read_text(encoding="utf-8")


def copy(_recipe, pattern, src, dst):
    """The pattern's * matches slashes as well."""
    copied = []
    for path in sorted(pathlib.Path(src).rglob("*")):
        name = path.relative_to(src).as_posix()
        if path.is_file() and fnmatch.fnmatchcase(name, pattern):
            target = pathlib.Path(dst) / name
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(path, target)
            copied.append(str(target))
    return copied
