#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
"""The layer sweep on a chat model from a file: what it trains, reports, refuses and resumes."""
import json
import pathlib
import signal
import tempfile
import time
import unittest

import layer_sweep_chat_model
from layer_sweep_program import REPORTS, reports, run, start

FAST = ("--steps 2 --prompts 2 --group-size 2 --mini-batches 1 --seeds 2 --evaluation-prompts 4 "
        "--evaluation-samples 2 --response-length 4 --threads 2").split()


class Models(unittest.TestCase):
    def setUp(self):
        holder = tempfile.TemporaryDirectory(prefix="layer_sweep_")
        self.addCleanup(holder.cleanup)
        self.directory = pathlib.Path(holder.name)
        self.model = self.directory / "tiny.gguf"
        layer_sweep_chat_model.write(self.model)
        self.out = self.directory / "out"

    def sweep(self, *arguments, status=0):
        result = run("--model", self.model, *FAST, "--out", self.out, *arguments)
        self.assertEqual(result.returncode, status, result.stderr)
        return result

    def profile(self):
        return json.loads((self.out / "profile.json").read_text())

    def refused(self, expected, *arguments):
        result = run(*arguments)
        self.assertEqual(result.returncode, 2, result.stderr)
        self.assertEqual(len(result.stderr.splitlines()), 1, result.stderr)
        self.assertIn(expected, result.stderr)

    def test_both_tasks_train_every_layer_and_say_on_what(self):
        for task in ("words", "brief"):
            with self.subTest(task):
                self.sweep("--task", task)
                profile = self.profile()
                self.assertEqual([row["name"] for row in profile["variants"]],
                                 ["base", "full", "layer:0", "layer:1"])
                settings = {entry["key"]: entry["value"] for entry in profile["settings"]}
                self.assertEqual(settings["task"], task)
                self.assertIn("tiny.gguf", settings["model"])
                self.assertIn("259 tokens", settings["tokenizer"])
                self.assertIn("4 tokens", settings["longest response"])
                for key in ("system prompt", "chat template", "learning rate of layers",
                            "learning rate of full training", "evaluation"):
                    self.assertTrue(settings[key])
                for row in profile["variants"]:
                    for made in row["runs"]:
                        self.assertLessEqual(made["extras"]["response tokens"], 4)
                        self.assertGreaterEqual(made["extras"]["truncated"], 0)
                        self.assertIn("greedy score", made["extras"])
                        self.assertEqual(made["extras"].get("frozen tensors changed", 0), 0)
                self.assertIn("response tokens", (self.out / "report.md").read_text())

    def test_a_part_of_the_layers_is_reported_as_a_part(self):
        self.sweep("--profile", "1", "--select", "0-1:mlp")
        self.assertEqual([row["name"] for row in self.profile()["variants"]],
                         ["base", "full", "layer:1", "0-1:mlp"])
        self.assertIsNone(self.profile()["contributions_by_layer"][0])

    def test_more_layers_continue_a_sweep_and_give_the_bytes_of_one_that_had_them(self):
        self.sweep("--profile", "0-1")
        expected = reports(self.out)
        self.out = self.directory / "grown"
        self.sweep("--profile", "1", "--seeds", "1")
        self.sweep("--profile", "0-1", "--resume")
        self.assertEqual(reports(self.out), expected)

    def test_a_sweep_that_is_stopped_reports_what_it_has_and_goes_on(self):
        self.sweep()
        expected = reports(self.out)
        self.out = self.directory / "stopped"
        process = start("--model", self.model, *FAST, "--threads", "1", "--out", self.out,
                        "--steps", "2")
        journal = self.out / "journal.txt"
        while not journal.exists() or len(journal.read_text().splitlines()) < 3:
            self.assertIsNone(process.poll())
            time.sleep(0.002)
        process.send_signal(signal.SIGTERM)
        status = process.wait()
        if status != 0:  # else it was faster
            self.assertEqual(status, 128 + signal.SIGTERM)
            self.assertIn("incomplete", self.profile()["title"])
        self.sweep("--resume")
        self.assertEqual(reports(self.out), expected)

    def test_report_only_reads_what_there_is_and_trains_nothing(self):
        self.sweep("--profile", "1", "--threads", "1")  # runs end in the order of the plan
        whole = (self.out / "journal.txt").read_bytes()
        lines = whole.splitlines(keepends=True)
        (self.out / "journal.txt").write_bytes(b"".join(lines[:4]))
        result = self.sweep("--profile", "1", "--report-only")
        self.assertIn("Incomplete", result.stdout)
        self.assertIn("(incomplete: 3 of 5 runs)", self.profile()["title"])
        (self.out / "journal.txt").write_bytes(lines[0])
        self.refused("expected at least one of base and one of full", "--model", self.model, *FAST,
                     "--profile", "1", "--out", self.out, "--report-only")

    def test_the_plan_is_printed_and_nothing_is_made(self):
        result = self.sweep("--plan")
        for word in ("layer:0", "layer:1", "peak", "speed-up"):
            self.assertIn(word, result.stdout)
        self.assertFalse(self.out.exists())

    def test_what_is_not_right_is_named(self):
        model = ["--model", str(self.model), *FAST, "--out", str(self.out)]
        self.refused("none.gguf", "--model", self.directory / "none.gguf")
        self.refused("--task is 'math', expected words or brief", *model, "--task", "math")
        self.refused("needs a pretrained model, but --model is not given", "--task", "words")
        self.refused("--bases is given, which means nothing with --model", *model, "--bases", "2")
        self.refused("--temperature is given, which means nothing without --model",
                     "--temperature", "0.7")
        self.refused("the model has layers 0..1", *model, "--select", "none")
        self.refused("expected 0..1", *model, "--profile", "7")
        self.refused("--report-only and --plan", *model, "--report-only", "--plan")
        self.refused("--evaluation-samples is '1'", *model, "--evaluation-samples", "1")
        self.refused("1000 held-out problems are asked for, task brief", *model, "--task", "brief",
                     "--evaluation-prompts", "1000")
        self.assertFalse(self.out.exists())
        whole = self.model.read_bytes()
        self.model.write_bytes(whole[:-100])
        self.refused("tiny.gguf", *model)

    def test_results_of_another_model_are_refused(self):
        self.sweep("--profile", "1")
        layer_sweep_chat_model.write(self.model, seed=2)
        before = (self.out / "journal.txt").read_bytes()
        result = self.sweep("--profile", "1", "--resume", status=2)
        self.assertIn("other settings", result.stderr)
        self.assertEqual((self.out / "journal.txt").read_bytes(), before)


if __name__ == "__main__":
    unittest.main()
