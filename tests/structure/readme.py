#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
"""Documents say what is there.

Code: a ```cpp block of README.md or docs/**/*.md that follows a line `<!-- from FILE MARKER -->` is
the text between `// [MARKER]` and `// [/MARKER]` in FILE, indentation aside. README.md has at least
one such block. In docs/maths, docs/translation.md and docs/which_estimator.md every ```cpp block is
one, and FILE is a test.
Lines: `<!-- adoption FILE ... -->N` is followed by the number of lines that are neither blank nor
comment between `// [adopt]` and `// [/adopt]` in the files.
Presets: docs/maths/index.md names every preset of visit_preset.hpp.
Links: relative ones lead to files.

readme.py ROOT
"""
import pathlib
import re
import sys
import textwrap

BLOCK = re.compile(r"<!-- from (\S+) (\S+) -->\n+```cpp\n(.*?)```", re.S)
ADOPTION = re.compile(r"<!-- adoption ([^>]+?) -->\s*(\d+)")
LINK = re.compile(r"\]\(([^)#:\s]+)(?:#[^)]*)?\)")
TESTED = ("docs/maths/", "docs/translation.md", "docs/which_estimator.md")


def region(path, marker):
    text = path.read_text() if path.is_file() else ""
    match = re.search(rf"// \[{marker}\]\n(.*?)^\s*// \[/{marker}\]", text, re.S | re.M)
    return textwrap.dedent(match.group(1)) if match else None


def check_code(root, name, text):
    blocks = BLOCK.findall(text)
    complaints = []
    for file, marker, code in blocks:
        expected = region(root / file, marker)
        if expected is None:
            complaints.append(f"{name}: {file} has no region [{marker}]")
        elif textwrap.dedent(code) != expected:
            complaints.append(f"{name}: the block from {file} [{marker}] has drifted")
        if name.startswith(TESTED) and not file.startswith("tests/"):
            complaints.append(f"{name}: the block [{marker}] is from {file}, expected a test")
    loose = text.count("```cpp") - len(blocks)
    if name.startswith(TESTED) and loose:
        complaints.append(f"{name}: {loose} ```cpp blocks are not from a test")
    if name == "README.md" and not blocks:
        complaints.append("README.md quotes no compiled example")
    return complaints


def adoption_lines(path):
    """Lines of code between the marks of a file, all regions together; None without a region."""
    regions = re.findall(r"// \[adopt\]\n(.*?)^\s*// \[/adopt\]", path.read_text(), re.S | re.M)
    code = [line for text in regions for line in text.split("\n")
            if line.strip() and not line.strip().startswith("//")]
    return len(code) if regions else None


def check_adoption(root, name, text):
    complaints = []
    for files, stated in ADOPTION.findall(text):
        counts = [adoption_lines(root / file) if (root / file).is_file() else None
                  for file in files.split()]
        if None in counts:
            complaints.append(f"{name}: a file of \"{files}\" has no region [adopt]")
        elif sum(counts) != int(stated):
            complaints.append(f"{name}: adoption is {stated} lines, {files} have {sum(counts)}")
    return complaints


def check_links(path, name, text):
    return [f"{name}: {target} does not exist" for target in LINK.findall(text)
            if not (path.parent / target).exists()]


def check_presets(root):
    names = re.search(r"preset_names = \{(.*?)\}",
                      (root / "include/lamina/policy/visit_preset.hpp").read_text(), re.S).group(1)
    index = (root / "docs/maths/index.md").read_text()
    return [f"docs/maths/index.md: the preset {name} is missing"
            for name in re.findall(r'"(\w+)"', names) if f"`{name}`" not in index]


def main(root):
    complaints = check_presets(root)
    for path in [root / "README.md", *sorted((root / "docs").rglob("*.md"))]:
        name, text = str(path.relative_to(root)), path.read_text()
        complaints += (check_code(root, name, text) + check_adoption(root, name, text)
                       + check_links(path, name, text))
    print("\n".join(complaints))
    return 1 if complaints else 0


if __name__ == "__main__":
    sys.exit(main(pathlib.Path(sys.argv[1])))
