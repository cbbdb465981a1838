#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
"""Joins a header and all lamina headers it includes into one file.

amalgamate.py INCLUDE_DIR OUTPUT [HEADER ...]     HEADER is lamina/lamina.hpp by default; name
                                                  lamina/backend/eigen.hpp too for the Eigen backend
"""
import os
import re
import sys


def expand(include_dir, header, done):
    """The text of `header` with lamina's includes replaced by their text, each header once."""
    if header in done:
        return ""
    done.add(header)
    text = ""
    with open(os.path.join(include_dir, header), encoding="utf-8") as file:
        for line in file:
            include = re.match(r'#include "(lamina/[^"]+)"', line)
            if include:
                text += expand(include_dir, include.group(1), done)
            elif not line.startswith(("#pragma once", "// SPDX-")):
                text += line
    return text


def main():
    include_dir, output, *headers = sys.argv[1:]
    done = set()
    text = "// SPDX-License-" + "Identifier: Apache-2.0 WITH LLVM-exception\n#pragma once\n"
    for header in headers or ["lamina/lamina.hpp"]:
        text += expand(include_dir, header, done)
    os.makedirs(os.path.dirname(os.path.abspath(output)), exist_ok=True)
    with open(output, "w", encoding="utf-8") as file:
        file.write(text)


if __name__ == "__main__":
    main()
