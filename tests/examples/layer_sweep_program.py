# SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
"""Runs the layer sweep with settings so small that a whole sweep takes a fraction of a second."""
import pathlib
import subprocess
import sys

PROGRAM = sys.argv.pop(1)
TINY = ("--layers 2 --steps 2 --pretraining-steps 20 --evaluation-prompts 20 --seeds 2 "
        "--prompts 4 --group-size 4").split()
REPORTS = ["profile.csv", "profile.json", "profile.svg", "report.html", "report.md"]


def run(*arguments, **options):
    """The finished process; output as text."""
    return subprocess.run([PROGRAM, *map(str, arguments)], capture_output=True, text=True,
                          check=False, **options)


def start(*arguments):
    """A process that goes on."""
    return subprocess.Popen([PROGRAM, *map(str, arguments)], stdout=subprocess.DEVNULL,
                            stderr=subprocess.DEVNULL)


def reports(directory):
    """The bytes of all report files, by name."""
    return {name: (pathlib.Path(directory) / name).read_bytes() for name in REPORTS}
