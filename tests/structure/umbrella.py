#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
"""The umbrella header: that it holds every host-only public header, and that hosts' macros do not
break it.

umbrella.py list ROOT             complains unless lamina.hpp includes exactly those headers
umbrella.py write ROOT            writes lamina.hpp
umbrella.py traps ROOT COMPILER   compiles it with macros that other libraries define
"""
import os
import re
import subprocess
import sys
import tempfile

import check

UMBRELLA = "include/lamina/lamina.hpp"
OPENING = """\
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// The umbrella: every host-only public header. Backends are not here; include the one you use.
#pragma once

"""

# Taken by complex.h, termios.h, windows.h, X11, glog and doctest.
TAKEN = ["I", "B0", "small", "near", "far", "Success", "None", "CHECK", "INFO"]
# min and max as windows.h has them break std::min(a, b) without parentheses. With one argument or
# none they stay what they were, so that members of that name may keep it.
TRAPS = """\
#define LAMINA_TRAP_2(first, ...) \\
  first __VA_OPT__(, std_min_and_max_of_two_arguments_need_parentheses)
#define LAMINA_TRAP_1(...) LAMINA_TRAP_2(__VA_ARGS__)
#define min(...) min(LAMINA_TRAP_1(__VA_ARGS__))
#define max(...) max(LAMINA_TRAP_1(__VA_ARGS__))
""" + "".join(f"#define {name} @{name}_is_a_macro_elsewhere@\n" for name in TAKEN)


def headers_apart(root):
    """The umbrella, the adapters of foreign libraries, and what includes one of those."""
    apart = set(check.FOREIGN.values()) | {UMBRELLA}
    while True:
        names = "|".join(re.escape(p[len("include/"):]) for p in apart)
        more = {p for p in check.headers(root) if p not in apart and
                any(re.match(f'#include "({names})"', line) for line in check.lines(root, p))}
        if not more:
            return apart
        apart |= more


def public_headers(root):
    apart = headers_apart(root)
    return [p[len("include/"):] for p in check.headers(root)
            if p.endswith(".hpp") and p not in apart and "/detail/" not in p]


def umbrella_text(root):
    return OPENING + "".join(f'#include "{header}"\n' for header in public_headers(root))


def list_complaints(root):
    with open(os.path.join(root, UMBRELLA), encoding="utf-8") as file:
        present = set(re.findall(r'#include "([^"]+)"', file.read()))
    expected = set(public_headers(root))
    return ([f"{UMBRELLA}: {h} is missing" for h in sorted(expected - present)] +
            [f"{UMBRELLA}: {h} does not belong here" for h in sorted(present - expected)])


def compiles(root, compiler, extra=""):
    """Whether the umbrella compiles after the traps, and the compiler's words. The standard
    headers come first: they are not ours to protect."""
    standard = {match.group(1) for path in public_headers(root)
                for line in check.lines(root, "include/" + path)
                if (match := re.match(r"\s*#\s*include (<.+>)", line))}
    text = "".join(f"#if __has_include({name})\n#include {name}\n#endif\n"
                   for name in sorted(standard))
    text += TRAPS + '#include "lamina/lamina.hpp"\n' + extra
    with tempfile.TemporaryDirectory() as folder:
        source = os.path.join(folder, "traps.cpp")
        with open(source, "w", encoding="utf-8") as file:
            file.write(text)
        done = subprocess.run([compiler, "-std=c++20", "-fsyntax-only",
                               "-I", os.path.join(root, "include"), source],
                              capture_output=True, text=True)
    return done.returncode == 0, done.stderr


def trap_complaints(root, compiler):
    good, words = compiles(root, compiler)
    if not good:
        return [words]
    # The traps themselves must catch what they are for.
    caught = ["inline int planted = std::min(1, 2);", "inline int planted(int I) { return I; }"]
    return [f"not caught: {extra}" for extra in caught if compiles(root, compiler, extra)[0]]


def main():
    action, root, *rest = sys.argv[1:]
    if action == "write":
        with open(os.path.join(root, UMBRELLA), "w", encoding="utf-8") as file:
            file.write(umbrella_text(root))
        return 0
    complaints = {"list": list_complaints, "traps": trap_complaints}[action](root, *rest)
    print("\n".join(complaints) or f"{action}: nothing to complain about")
    return 1 if complaints else 0


if __name__ == "__main__":
    sys.exit(main())
