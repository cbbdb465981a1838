#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
"""The layer sweep as a command: its help, its reports, and what it says to bad input."""
import csv
import json
import pathlib
import resource
import signal
import tempfile
import unittest

from layer_sweep_program import REPORTS, TINY, reports, run, start


class Directory(unittest.TestCase):
    def setUp(self):
        holder = tempfile.TemporaryDirectory(prefix="layer_sweep_")
        self.addCleanup(holder.cleanup)
        self.directory = pathlib.Path(holder.name)
        self.out = self.directory / "out"

    def refused(self, expected, *arguments, **options):
        """Exit status 2 and, but for progress, one line on the error stream: `expected` in it."""
        result = run(*arguments, **options)
        lines = [line for line in result.stderr.splitlines()
                 if not line.startswith(("run ", "pretraining "))]
        self.assertEqual(result.returncode, 2, result.stderr)
        self.assertEqual(len(lines), 1, result.stderr)
        self.assertTrue(lines[0].startswith("layer_sweep: "), lines[0])
        self.assertIn(expected, lines[0])
        return lines[0]


class Arguments(Directory):
    def test_help_lists_every_option_and_succeeds(self):
        result = run("--help")
        self.assertEqual((result.returncode, result.stderr), (0, ""))
        for option in ("task layers bases seeds steps algorithm select learning-rate "
                       "layer-learning-rate threads resume out quick full help").split():
            self.assertIn("--" + option, result.stdout)

    def test_bad_arguments_are_named_with_their_value_and_what_was_expected(self):
        for expected, arguments in {
                "--task is 'maths', expected math, chain, code or agent": ["--task", "maths"],
                "--algorithm is 'ppo', expected grpo or dr_grpo": ["--algorithm", "ppo"],
                "--seeds is '0', expected a whole number from 1 to 1000": ["--seeds", "0"],
                "--steps is '-3', expected a whole number from 1": ["--steps=-3"],
                "--steps is '3x', expected a whole number from 1": ["--steps", "3x"],
                "--layers is '65', expected a whole number from 1 to 64": ["--layers", "65"],
                "--bases is '1.5', expected a whole number": ["--bases", "1.5"],
                "--group-size is '1', expected a whole number from 2": ["--group-size", "1"],
                "--mini-batches is '3', expected a divisor of --prompts 16":
                    ["--mini-batches", "3"],
                "--mini-batches is '17', expected a whole number from 1 to 16":
                    ["--mini-batches", "17"],
                "--learning-rate is 'nan', expected a number above 0": ["--learning-rate", "nan"],
                "--learning-rate is '0', expected a number above 0": ["--learning-rate", "0"],
                "--layer-learning-rate is '-1e-3', expected a number above 0":
                    ["--layer-learning-rate=-1e-3"],
                "--threads is '0', expected a whole number from 1": ["--threads", "0"],
                "--out is '', expected a directory": ["--out", ""],
                "--quick and --full are both given": ["--quick", "--full"],
                "--speed": ["--speed", "3"],
                "--seeds": ["--seeds"],
                "surplus": ["surplus"],
        }.items():
            with self.subTest(arguments):
                self.refused(expected, *arguments)

    def test_bad_selections(self):
        for expected, selection in {
                "layer 8 does not exist, expected 0..7": "8",
                "the range 5-2 is reversed": "5-2",
                "k is 9, expected 1..8": "middle:9",
                "\"mid\" in \"mid\"": "mid",
                "\"none\" selects nothing; the model has layers 0..7": "none",
                "selects every layer without saying so": "!none",
                "\"mpl\" is no role": "1:mpl",
                "needs a contribution profile": "top:2",
                "lost.json": "top:2@lost.json",
                "the item is empty": "1,,2",
        }.items():
            with self.subTest(selection):
                self.refused(expected, "--select", selection, "--out", self.out)
                self.assertFalse(self.out.exists())

    def test_an_output_directory_that_cannot_be_one(self):
        file = self.directory / "file"
        file.write_text("mine")
        self.refused(f"'{file}' is a file, expected a directory", *TINY, "--out", file)
        self.refused(f"'{file}' is a file, expected a directory", *TINY, "--out", file / "below")
        self.refused("/proc/lamina", *TINY, "--out", "/proc/lamina")
        self.assertEqual(file.read_text(), "mine")


    def test_a_disk_that_is_full_leaves_no_half_file(self):
        limit = lambda: (signal.signal(signal.SIGXFSZ, signal.SIG_IGN),
                         resource.setrlimit(resource.RLIMIT_FSIZE, (20000, 20000)))
        self.refused("File too large", *TINY, "--out", self.out, preexec_fn=limit)
        self.assertEqual(sorted(path.name for path in self.out.iterdir()),
                         [".lock", "journal.txt"])


class Reports(Directory):
    def sweep(self, *arguments):
        result = run(*TINY, "--out", self.out, *arguments)
        self.assertEqual(result.returncode, 0, result.stderr)
        return result

    def profile(self):
        return json.loads((self.out / "profile.json").read_text())

    def test_a_sweep_has_every_row_and_every_file(self):
        result = self.sweep()
        names = [row["name"] for row in self.profile()["variants"]]
        self.assertEqual(names, [
            "base", "full", "layer:0", "layer:1", "head only", "layers only", "middle:1",
            "last:1", "top:1", "boost top:1", "boost all", "shuffled best", "shuffled full"])
        for name in names:
            self.assertIn(name, result.stdout)
        with open(self.out / "profile.csv", newline="") as file:
            self.assertEqual([row["variant"] for row in csv.DictReader(file)], names)
        self.assertEqual(sorted(path.name for path in self.out.iterdir()
                                if path.suffix != ".checkpoint"),
                         sorted([".lock", "journal.txt", *REPORTS]))

    def test_progress_in_a_pipe_is_a_few_plain_lines_and_the_base_is_pretrained_once(self):
        first = self.sweep().stderr
        self.assertNotIn("\r", first)
        self.assertIn("pretraining base 0 20/20", first)
        self.assertIn("run 25/25", first)
        self.assertLess(len(first.splitlines()), 25)
        self.assertNotIn("pretraining", self.sweep("--steps", "3").stderr)

    def test_budget_and_both_learning_rates_are_stated(self):
        self.sweep("--learning-rate", "2e-4", "--layer-learning-rate", "5e-4")
        rows = {row["name"]: row for row in self.profile()["variants"]}
        self.assertEqual(rows["full"]["learning_rate"], 2e-4)
        self.assertEqual(rows["layers only"]["learning_rate"], 2e-4)
        for name in ("layer:0", "layer:1", "head only", "middle:1", "shuffled best"):
            self.assertEqual(rows[name]["learning_rate"], 5e-4)
        self.assertEqual({row["steps"] for row in rows.values()}, {0, 2})

    def test_frozen_tensors_are_reported_unchanged_after_every_run(self):
        self.sweep("--pretraining-steps", "60")
        for row in self.profile()["variants"]:
            for made in row["runs"]:
                if row["kind"] != "base":
                    self.assertEqual(made["extras"]["frozen tensors changed"], 0)

    def test_training_that_breaks_the_model_is_reported_without_contributions(self):
        result = self.sweep("--learning-rate", "1", "--steps", "40", "--pretraining-steps", "100")
        self.assertIn("expected a positive gain of full training", result.stdout)
        self.assertIn("Warning: S_base is 0.0", result.stdout)
        self.assertFalse(self.profile()["measurable"])
        self.assertTrue(all(row["contribution"] is None for row in self.profile()["variants"]))

    def test_threads_change_no_byte(self):
        self.sweep("--threads", "1")
        alone = reports(self.out)
        self.sweep("--threads", "3")
        self.assertEqual(reports(self.out), alone)

    def test_one_selection_is_trained_instead_of_every_layer(self):
        self.sweep("--select", "0-1")
        self.assertEqual([row["name"] for row in self.profile()["variants"]],
                         ["base", "full", "0-1"])

    def test_every_task_and_both_algorithms_run(self):
        for task in ("math", "chain", "code", "agent"):
            for algorithm in ("grpo", "dr_grpo"):
                with self.subTest(task=task, algorithm=algorithm):
                    self.sweep("--task", task, "--algorithm", algorithm, "--select", "1",
                               "--seeds", "1")
                    settings = {entry["key"]: entry["value"]
                                for entry in self.profile()["settings"]}
                    self.assertEqual(settings["task"], task)
                    self.assertIn("Dr. GRPO" if algorithm == "dr_grpo" else "GRPO:",
                                  settings["algorithm"])


class Journals(Directory):
    def setUp(self):
        super().setUp()
        run(*TINY, "--out", self.out)
        self.journal = self.out / "journal.txt"

    def test_an_earlier_journal_is_kept_when_a_new_sweep_starts(self):
        before = self.journal.read_bytes()
        self.assertEqual(run(*TINY, "--out", self.out, "--select", "1").returncode, 0)
        self.assertEqual((self.out / "journal.previous.txt").read_bytes(), before)

    def test_more_seeds_continue_a_sweep(self):
        arguments = TINY.copy()
        arguments[arguments.index("--seeds") + 1] = "3"
        self.assertEqual(run(*arguments, "--out", self.out, "--resume").returncode, 0)
        self.assertEqual(len(self.journal.read_text().splitlines()), 1 + 1 + 3 * 12)

    def test_a_journal_of_other_settings_is_refused_and_kept(self):
        before = self.journal.read_bytes()
        arguments = TINY.copy()
        arguments[arguments.index("--steps") + 1] = "3"
        line = self.refused("other settings", *arguments, "--out", self.out, "--resume")
        self.assertIn("budget: 2 steps", line)
        self.assertIn("budget: 3 steps", line)
        self.assertEqual(self.journal.read_bytes(), before)

    def test_a_damaged_journal_is_refused_and_kept(self):
        whole = self.journal.read_bytes()
        damaged = whole.replace(b"layer:1", b"layer:0", 1)
        foreign = b"name,score\nfull,0.9\n"
        for content, expected in ((damaged, "the checksum does not match the line"),
                                  (foreign, "this is not a sweep journal")):
            with self.subTest(expected):
                self.journal.write_bytes(content)
                self.refused(expected, *TINY, "--out", self.out, "--resume")
                self.assertEqual(self.journal.read_bytes(), content)

    def test_a_checkpoint_that_is_truncated_corrupt_or_foreign_is_refused(self):
        (checkpoint,) = self.out.glob("base-*.checkpoint")
        whole = checkpoint.read_bytes()
        flipped = bytearray(whole)
        flipped[-1] ^= 1
        for content, expected in ((whole[:-7], "it is truncated"), (bytes(flipped), "corrupt"),
                                  (b"PK\x03\x04", "does not begin with")):
            with self.subTest(expected):
                checkpoint.write_bytes(content)
                line = self.refused(expected, *TINY, "--out", self.out)
                self.assertIn(str(checkpoint), line)
                self.assertEqual(checkpoint.read_bytes(), content)

    def test_two_sweeps_in_one_directory_are_refused(self):
        first = start(*TINY, "--steps=100000", "--out", self.out / "shared")
        self.addCleanup(first.wait)
        self.addCleanup(first.kill)
        while not (self.out / "shared" / "journal.txt").exists():
            self.assertIsNone(first.poll())
        self.refused("another process", *TINY, "--out", self.out / "shared")


if __name__ == "__main__":
    unittest.main()
