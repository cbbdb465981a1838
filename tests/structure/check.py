#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
"""Rules of the source tree, each a function from a tree to a list of complaints.

check.py RULE ROOT    prints the complaints, one a line, and exits 1 if there are any
check.py --self-test  plants one offence against every rule and checks that it is found
"""
import os
import re
import shutil
import subprocess
import sys
import tempfile

# Who may include whom. A module may always include itself; `std only` is the empty set.
MAY_INCLUDE = {
    "config": set(),
    "fwd": {"config"},
    "core": {"config", "fwd"},
    "backend": {"config", "fwd", "core"},
    "layers": {"config", "fwd", "core"},
    "policy": {"config", "fwd", "core", "backend"},
    "optim": {"config", "fwd", "core", "backend", "layers"},
    "io": {"config", "fwd", "core", "backend", "layers"},
    "model": {"config", "fwd", "core", "backend", "layers", "policy", "optim", "io"},
    "study": {"config", "fwd", "core", "backend", "layers", "policy", "optim", "io", "model"},
}
MAY_INCLUDE["lamina"] = set(MAY_INCLUDE)
MODULES = {name for name in MAY_INCLUDE if name not in ("config", "fwd", "lamina")}

# Standard headers that cost too much compile time to be in a header, or print.
COSTLY = {"functional", "iostream", "random", "ranges", "filesystem", "format", "regex"}
# Foreign libraries, each in the one header that adapts it.
FOREIGN = {
    "Eigen/": "include/lamina/backend/eigen.hpp",
    "cblas": "include/lamina/backend/gemm_cblas.hpp",
    "nlohmann/": "include/lamina/io/json.hpp",
    "oneapi/": "include/lamina/backend/gemm_onednn.hpp",
    "xtensor/": "include/lamina/backend/xtensor.hpp",
}
UNTESTED_HEADERS = {"config.hpp", "fwd.hpp", "lamina.hpp"}
TOP_LEVEL = {
    "CMakeLists.txt", "CMakePresets.json", "include", "tests", "benchmarks", "examples", "docs",
    "LICENSE", "README.md", "CHANGELOG.md", "CONTRIBUTING.md", ".ci", ".clang-format",
    ".clang-tidy", ".editorconfig", ".gitignore",
}
CODE = (".hpp", ".cpp", ".cuh", ".cu", ".py", ".sh", ".cmake", "CMakeLists.txt", ".ci/run")
WITHOUT_COMMENTS = (".json", ".csv", ".svg", ".html", ".png", ".bin", ".safetensors", ".gguf",
                    "LICENSE")


def files(root):
    """Paths of the tree relative to its root: what git tracks or would track, if it is there."""
    if shutil.which("git") and os.path.exists(os.path.join(root, ".git")):
        listed = subprocess.run(
            ["git", "-C", root, "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
            capture_output=True, text=True)
        if listed.returncode == 0:
            paths = listed.stdout.split("\0")
            return sorted({p for p in paths if p and os.path.isfile(os.path.join(root, p))})
    found = []
    for folder, folders, names in os.walk(root):
        folders[:] = [f for f in folders if not f.startswith(("build", ".git", "__pycache__"))]
        found += [os.path.relpath(os.path.join(folder, name), root) for name in names]
    return sorted(found)


def lines(root, path):
    with open(os.path.join(root, path), encoding="utf-8", errors="surrogateescape") as file:
        return file.read().split("\n")


def headers(root):
    return [p for p in files(root) if p.startswith("include/") and p.endswith((".hpp", ".cuh"))]


def module_of(path_below_lamina):
    return path_below_lamina.split("/")[0].split(".")[0]


def rule_includes(root):
    """Includes point to lower floors, are spelled from include/, and cost little."""
    complaints = []
    for path in headers(root):
        module = module_of(path[len("include/lamina/"):])
        for number, line in enumerate(lines(root, path), 1):
            match = re.match(r'\s*#\s*include\s*([<"])([^>"]+)[>"]', line)
            if not match:
                continue
            quote, target = match.groups()
            complain = lambda text: complaints.append(f"{path}:{number}: {text}")
            if quote == '"' and not target.startswith("lamina/"):
                complain(f'"{target}" is not spelled from include/ as "lamina/..."')
            elif target.startswith("lamina/"):
                included = module_of(target[len("lamina/"):])
                if included != module and included not in MAY_INCLUDE.get(module, set()):
                    complain(f"{module} may not include {included} ({target})")
            elif target in COSTLY:
                complain(f"<{target}> is too costly for a header")
            for prefix, owner in FOREIGN.items():
                if target.startswith(prefix) and path != owner:
                    complain(f"<{target}> may be included by {owner} only")
    return complaints


def rule_mirror(root):
    """Every header has its test file, every test file of a module has its header."""
    present = set(files(root))
    complaints = []
    for path in headers(root):
        below = path[len("include/lamina/"):]
        if not path.endswith(".hpp") or below in UNTESTED_HEADERS or "/detail/" in below:
            continue
        test = "tests/" + below[:-len(".hpp")] + "_test.cpp"
        if test not in present:
            complaints.append(f"{path}: its test {test} is missing")
    for path in present:
        parts = path.split("/")
        if parts[0] == "tests" and parts[1] in MODULES and path.endswith("_test.cpp"):
            header = "include/lamina/" + path[len("tests/"):-len("_test.cpp")] + ".hpp"
            if header not in present:
                complaints.append(f"{path}: its header {header} is missing")
    return sorted(complaints)


def rule_spdx(root):
    """Every file that can hold a comment names the licence in its first lines, but for results,
    which are kept as the programs wrote them, and inputs of fuzz targets."""
    tag = "SPDX-License-" + "Identifier: Apache-2.0 WITH LLVM-exception"
    return [f"{path}: no SPDX line" for path in files(root)
            if not path.endswith(WITHOUT_COMMENTS)
            and (not path.startswith("docs/results/") or path.endswith("README.md"))
            and not path.startswith("tests/fuzz/corpus/")
            and not any(tag in line for line in lines(root, path)[:3])]


def rule_length(root):
    """One file, one idea: no header over 400 lines."""
    return [f"{path}: {len(lines(root, path)) - 1} lines, expected at most 400"
            for path in headers(root) if len(lines(root, path)) - 1 > 400]


def rule_macros(root):
    """Only config.hpp defines macros, all named LAMINA_; nobody undefines any."""
    complaints = []
    for path in headers(root):
        for number, line in enumerate(lines(root, path), 1):
            match = re.match(r"\s*#\s*(define|undef)\s+(\w+)", line)
            if not match:
                continue
            directive, name = match.groups()
            if directive == "undef":
                complaints.append(f"{path}:{number}: #undef {name}")
            elif path != "include/lamina/config.hpp":
                complaints.append(f"{path}:{number}: {name} is defined outside config.hpp")
            elif not name.startswith("LAMINA_"):
                complaints.append(f"{path}:{number}: {name} does not begin with LAMINA_")
    return complaints


def rule_layout(root):
    """No member shares its address: nvcc 13 lays such members out otherwise in a kernel's
    parameters than in the host's object, without a warning."""
    attribute = "no_unique" + "_address"
    return [f"{path}:{number}: {attribute}" for path in files(root)
            if path.endswith((".hpp", ".cpp", ".cuh", ".cu"))
            for number, line in enumerate(lines(root, path), 1) if attribute in line]


def rule_columns(root):
    """Code is ASCII, at most 100 columns wide, without tabs or trailing blanks."""
    complaints = []
    for path in files(root):
        if not path.endswith(CODE):
            continue
        for number, line in enumerate(lines(root, path), 1):
            if len(line) > 100:
                complaints.append(f"{path}:{number}: {len(line)} columns, expected at most 100")
            if not line.isascii():
                complaints.append(f"{path}:{number}: not ASCII")
            if "\t" in line or line != line.rstrip():
                complaints.append(f"{path}:{number}: a tab or a trailing blank")
    return complaints


def rule_top_level(root):
    """The top level is fixed."""
    entries = sorted({path.split("/")[0] for path in files(root)} - TOP_LEVEL)
    return [f"{entry}: does not belong to the top level" for entry in entries]


RULES = {name[len("rule_"):]: function for name, function in sorted(globals().items())
         if name.startswith("rule_")}

SPDX = "// SPDX-License-" + "Identifier: Apache-2.0 WITH LLVM-exception\n"
CLEAN = {
    "include/lamina/config.hpp": SPDX + "#define LAMINA_X 1\n",
    "include/lamina/core/view.hpp": SPDX + '#include <vector>\n#include "lamina/config.hpp"\n',
    "include/lamina/layers/plan.hpp": SPDX + '#include "lamina/core/view.hpp"\n',
    "include/lamina/policy/loss.hpp": SPDX + '#include "lamina/core/view.hpp"\n',
    "tests/core/view_test.cpp": SPDX,
    "tests/layers/plan_test.cpp": SPDX,
    "tests/policy/loss_test.cpp": SPDX,
    "tests/examples/program_test.cpp": SPDX,
    "LICENSE": "text\n",
}
OFFENCES = [
    ("includes", "include/lamina/core/view.hpp", SPDX + '#include "lamina/policy/loss.hpp"\n'),
    ("includes", "include/lamina/policy/loss.hpp", SPDX + '#include "lamina/layers/plan.hpp"\n'),
    ("includes", "include/lamina/layers/plan.hpp", SPDX + "#include <lamina/backend/gemm.hpp>\n"),
    ("includes", "include/lamina/layers/plan.hpp", SPDX + '#include "../core/view.hpp"\n'),
    ("includes", "include/lamina/core/view.hpp", SPDX + "#include <iostream>\n"),
    ("includes", "include/lamina/core/view.hpp", SPDX + "#  include <Eigen/Core>\n"),
    ("includes", "include/lamina/config.hpp", SPDX + '#include "lamina/fwd.hpp"\n'),
    ("mirror", "include/lamina/core/extra.hpp", SPDX),
    ("mirror", "tests/optim/adamw_test.cpp", SPDX),
    ("spdx", "docs/index.md", "# lamina\n"),
    ("length", "include/lamina/core/view.hpp", SPDX + "//\n" * 400),
    ("macros", "include/lamina/core/view.hpp", SPDX + "# define LAMINA_Y 1\n"),
    ("macros", "include/lamina/config.hpp", SPDX + "#define CHECKED 1\n"),
    ("macros", "include/lamina/core/view.hpp", SPDX + "#undef max\n"),
    ("layout", "include/lamina/core/view.hpp",
     SPDX + "struct s { [[no_unique" + "_address]] int x; };\n"),
    ("columns", "tests/core/view_test.cpp", SPDX + "// " + "x" * 98 + "\n"),
    ("columns", "tests/core/view_test.cpp", SPDX + "// caf\u00e9\n"),
    ("columns", "tests/core/view_test.cpp", SPDX + "int x; \n"),
    ("top_level", "notes.txt", SPDX),
]


def write(root, tree):
    for path, text in tree.items():
        os.makedirs(os.path.dirname(os.path.join(root, path)), exist_ok=True)
        with open(os.path.join(root, path), "w", encoding="utf-8") as file:
            file.write(text)


def self_test():
    with tempfile.TemporaryDirectory() as root:
        write(root, CLEAN)
        for name, rule in RULES.items():
            assert rule(root) == [], f"{name} complains about a clean tree: {rule(root)}"
    for name, path, text in OFFENCES:
        with tempfile.TemporaryDirectory() as root:
            write(root, {**CLEAN, path: text})
            found = RULES[name](root)
            assert any(c.startswith(path) for c in found), f"{name} misses {path}: {text!r}"
    assert {name for name, _, _ in OFFENCES} == set(RULES), "a rule without a planted offence"
    print(f"{len(OFFENCES)} planted offences found")


def main():
    if sys.argv[1:] == ["--self-test"]:
        self_test()
        return 0
    rule, root = sys.argv[1:]
    complaints = RULES[rule](root)
    print("\n".join(complaints) or f"{rule}: nothing to complain about")
    return 1 if complaints else 0


if __name__ == "__main__":
    sys.exit(main())
