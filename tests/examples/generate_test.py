#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
"""The program that puts a prompt to a model: its answers are those of Hugging Face transformers."""
import pathlib
import subprocess
import sys
import tempfile
import unittest

import layer_sweep_chat_model

PROGRAM = sys.argv.pop(1)

# Greedy, 12 tokens at most, by transformers 5.24.0 and torch 2.15 on the same file:
#   AutoModelForCausalLM.from_pretrained(DIRECTORY, gguf_file=NAME).generate(ids, do_sample=False)
CONTINUED = "2222b0505050500101010101"   # of "hello"
ANSWERED = "5ff22222222222222222b0b0"    # to "hello", in the chat template with its system prompt


class Generate(unittest.TestCase):
    def setUp(self):
        holder = tempfile.TemporaryDirectory(prefix="generate_")
        self.addCleanup(holder.cleanup)
        self.model = pathlib.Path(holder.name) / "tiny.gguf"
        layer_sweep_chat_model.write(self.model)

    def run_it(self, *arguments, status=0):
        result = subprocess.run([PROGRAM, *map(str, arguments)], capture_output=True, check=False)
        self.assertEqual(result.returncode, status, result.stderr)
        return result

    def generated(self, *arguments):
        result = self.run_it("--model", self.model, "--prompt", "hello", "--max-tokens", 12,
                             *arguments)
        self.assertTrue(result.stdout.endswith(b"\n"))
        return result.stdout[:-1]

    def test_greedy_answers_are_those_of_transformers(self):
        self.assertEqual(self.generated("--raw").hex(), CONTINUED)
        self.assertEqual(self.generated().hex(), ANSWERED)

    def test_draws_depend_on_the_seed_alone(self):
        drawn = [self.generated("--temperature", "1", "--seed", seed) for seed in (3, 3, 4)]
        self.assertEqual(drawn[0], drawn[1])
        self.assertNotEqual(drawn[0], drawn[2])

    def test_what_cannot_be_opened_is_said_in_one_line(self):
        self.model.write_bytes(self.model.read_bytes()[:100])
        result = self.run_it("--model", self.model, "--prompt", "hello", status=2)
        self.assertEqual(result.stdout, b"")
        self.assertEqual(len(result.stderr.splitlines()), 1)
        self.assertIn(b"tiny.gguf", result.stderr)


if __name__ == "__main__":
    unittest.main()
