#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
"""Code in the documents is code that is compiled: every ```cpp block of README.md and docs/*.md
that follows a line `<!-- from FILE MARKER -->` must be the text between `// [MARKER]` and
`// [/MARKER]` in FILE, indentation aside. README.md must have at least one.

readme.py ROOT
"""
import pathlib
import re
import sys
import textwrap

BLOCK = re.compile(r"<!-- from (\S+) (\S+) -->\n+```cpp\n(.*?)```", re.S)


def region(path, marker):
    text = path.read_text()
    match = re.search(rf"// \[{marker}\]\n(.*?)^\s*// \[/{marker}\]", text, re.S | re.M)
    return textwrap.dedent(match.group(1)) if match else None


def main(root):
    complaints = []
    blocks = 0
    for document in [root / "README.md", *sorted((root / "docs").glob("*.md"))]:
        for file, marker, code in BLOCK.findall(document.read_text()):
            blocks += document.name == "README.md"
            expected = region(root / file, marker)
            if expected is None:
                complaints.append(f"{document.name}: {file} has no region [{marker}]")
            elif textwrap.dedent(code) != expected:
                complaints.append(f"{document.name}: the block from {file} [{marker}] has drifted")
    if blocks == 0:
        complaints.append("README.md quotes no compiled example")
    print("\n".join(complaints))
    return 1 if complaints else 0


if __name__ == "__main__":
    sys.exit(main(pathlib.Path(sys.argv[1])))
