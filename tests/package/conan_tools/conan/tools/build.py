# SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
def check_min_cppstd(recipe, minimum):
    if int(recipe.settings.get_safe("compiler.cppstd")) < minimum:
        raise ValueError(f"C++{minimum} is needed")
