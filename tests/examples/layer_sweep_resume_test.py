#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
"""A sweep that is killed at random moments and resumed writes the reports of one that was not."""
import pathlib
import random
import tempfile
import time
import unittest

from layer_sweep_program import REPORTS, TINY, reports, run, start

KILLS = 20


class Resume(unittest.TestCase):
    def test_kill_and_resume_give_the_same_bytes(self):
        with tempfile.TemporaryDirectory(prefix="layer_sweep_") as holder:
            whole = pathlib.Path(holder) / "whole"
            began = time.monotonic()
            self.assertEqual(run(*TINY, "--out", whole).returncode, 0)
            duration = time.monotonic() - began
            expected = reports(whole)

            moments = random.Random(20)
            interrupted = 0
            attempt = 0
            while interrupted < KILLS:
                attempt += 1
                self.assertLess(attempt, 10 * KILLS, "the sweep is too fast to be killed")
                out = pathlib.Path(holder) / f"killed{attempt}"
                # Twice in each directory: in the first part and after a resume.
                for _ in range(2):
                    process = start(*TINY, "--out", out, "--resume")
                    time.sleep(moments.uniform(0, duration))
                    process.kill()
                    interrupted += process.wait() != 0
                    for name in REPORTS:  # whole or absent
                        if (out / name).exists():
                            self.assertEqual((out / name).read_bytes(), expected[name])
                self.assertEqual(run(*TINY, "--out", out, "--resume").returncode, 0)
                self.assertEqual(reports(out), expected)
                self.assertEqual([path.name for path in out.iterdir() if path.suffix == ".tmp"], [])


if __name__ == "__main__":
    unittest.main()
