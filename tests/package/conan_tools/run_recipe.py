#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
"""run_recipe.py RECIPE SCRATCH PACKAGE COMPILER: calls a recipe's methods in Conan's order, and prints what it describes
as one line of JSON."""

import importlib.util
import json
import os
import sys


def main(path, scratch, package, compiler):
    specification = importlib.util.spec_from_file_location("recipe", path)
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    recipe = next(value for name, value in vars(module).items() if name.endswith("Conan"))()
    recipe.recipe_folder = os.path.dirname(os.path.abspath(path))
    recipe.set_version()
    recipe.export_sources_folder = os.path.join(scratch, "export_source")
    recipe.export_sources()
    # What follows must not need the repository.
    recipe.recipe_folder = os.path.join(scratch, "export")
    recipe.package_folder, recipe.compiler = package, compiler
    for method in ("layout", "validate", "generate", "build", "package", "package_id", "package_info"):
        getattr(recipe, method)()
    components = recipe.cpp_info.components
    print(json.dumps({"name": recipe.name, "version": recipe.version,
                      "targets": {name: component.properties["cmake_target_name"] for name, component in components.items()},
                      "libdirs": [folder for component in components.values() for folder in component.libdirs]}))


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
