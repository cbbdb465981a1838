#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
"""lamina's benchmarks on a GPU beside PyTorch and Liger at the same work in the same run.

compare_gpu.py BUILD_DIR [--only ceilings,logits,hidden,adamw,attention,step] [--out FOLDER]

BUILD_DIR has lamina's *_cuda_bench programs; those that are missing are named. Every section runs
lamina's program first and its peers after it on the same card, over the same numbers, and prints a
row of a markdown table as soon as it is known; FOLDER gets all of them as compare_gpu.json.

Times are medians by CUDA events after warm-up; compilation and autotuning lie outside. Memory is
the peak over the inputs, gradients included; of a training step it is all of the memory. AdamW of
that step has float masters and moments in lamina, bf16 moments and no masters in PyTorch. The loss
is that of lamina's grpo preset: clip 0.2 on both sides, no KL, mean over the tokens of a sequence
and then over sequences. What a peer computes is held against the same function in float64: `loss
off` in units of an advantage, `gradient off` the largest difference relative to the largest
gradient.

Needs torch; the sections that time them need liger_kernel or transformers, and say so without.
"""
import argparse
import gc
import importlib
import importlib.metadata
import json
import os
import re
import statistics
import subprocess
import sys
import time

import torch
import torch.nn.attention
import torch.nn.functional as F

CLIP = 0.2
COLUMNS = ["what", "shape", "program", "median ms", "peak extra MB", "/ lamina", "notes"]
# Tensors of a layer of Qwen3-1.7B, [out, in].
LAYER = [(2048, 2048), (1024, 2048), (1024, 2048), (2048, 2048), (6144, 2048), (6144, 2048),
         (2048, 6144), (2048,), (2048,), (128,), (128,)]
QWEN3 = {"hidden_size": 2048, "num_hidden_layers": 28, "num_attention_heads": 16,
         "num_key_value_heads": 8, "head_dim": 128, "intermediate_size": 6144,
         "vocab_size": 151936}


class Bench:
    """The device, its clock, and the table."""

    def __init__(self, options):
        self.options = options
        self.device = torch.device(options.device)
        self.cuda = self.device.type == "cuda"
        self.deadline = time.monotonic() + options.budget
        self.rows, self.notes, self.lamina = [], [], {}
        self.about = self.describe()

    def describe(self):
        about = {"torch": torch.__version__, "device": str(self.device)}
        if self.cuda:
            properties = torch.cuda.get_device_properties(self.device)
            about["device"] = properties.name
            about["multiprocessors"] = properties.multi_processor_count
            about["memory_GB"] = round(properties.total_memory / 1e9, 1)
        for name in ("triton", "liger_kernel", "transformers"):
            try:
                about[name] = importlib.metadata.version(name)
            except ImportError:
                about[name] = None
        return about

    def save(self):
        if not self.options.out:
            return
        os.makedirs(self.options.out, exist_ok=True)
        path = os.path.join(self.options.out, "compare_gpu.json")
        with open(path, "w", encoding="ascii") as file:
            json.dump({"about": self.about, "rows": self.rows, "notes": self.notes}, file, indent=1)

    def note(self, text):
        self.notes.append(text)
        print(f"| {text} | | | | | | |", flush=True)
        self.save()

    def row(self, what, shape, program, milliseconds, extra=None, notes=""):
        """Adds and prints a row; extra is in bytes, or None where nobody knows."""
        if program == "lamina":
            self.lamina[what, shape] = milliseconds
        base = self.lamina.get((what, shape))
        self.rows.append({"what": what, "shape": shape, "program": program,
                          "median_ms": milliseconds,
                          "peak_extra_MB": None if extra is None else extra / 1e6,
                          "over_lamina": milliseconds / base if base else None, "notes": notes})
        cells = [what, shape, program, f"{milliseconds:.3f}",
                 "" if extra is None else f"{extra / 1e6:.1f}",
                 f"{milliseconds / base:.2f}" if base else "", notes]
        print("| " + " | ".join(cells) + " |", flush=True)
        self.save()

    def allocated(self):
        return torch.cuda.memory_allocated() if self.cuda else 0

    def elapsed(self, f):
        """(milliseconds of f, what it returned)"""
        if not self.cuda:
            start = time.perf_counter()
            result = f()
            return (time.perf_counter() - start) * 1e3, result
        begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        torch.cuda._sleep(1_000_000)  # so that launches of small kernels are queued, not waited for
        begin.record()
        result = f()
        end.record()
        end.synchronize()
        return begin.elapsed_time(end), result

    def measure(self, f, before=None, resting=None, seconds=0.5):
        """(median ms, peak bytes over `resting` or else over what lies there before a call, first
        result); `before` is not timed."""
        before = before or (lambda: None)
        before()
        first = detached(f())
        before()
        if self.cuda:
            torch.cuda.synchronize()
            torch.cuda.reset_peak_memory_stats()
        resting = self.allocated() if resting is None else resting
        once = self.elapsed(f)[0]
        peak = torch.cuda.max_memory_allocated() - resting if self.cuda else None
        times = []
        for _ in range(max(3, min(20, int(seconds * 1e3 / max(once, 1e-3))))):
            before()
            times.append(self.elapsed(f)[0])
        return statistics.median(times), peak, first

    def peer(self, what, shape, program, make, notes=None, resting=None):
        """A row for the function that make() returns, alone or with what has to be done before it.
        notes(first result) makes the last column. A failure becomes a line, and nothing else."""
        if time.monotonic() > self.deadline:
            self.note(f"{program}: {what}, {shape}: not measured, out of time")
            return
        try:
            made = make()
            f, before = made if isinstance(made, tuple) else (made, None)
            median, peak, first = self.measure(f, before, resting)
            self.row(what, shape, program, median, peak, notes(first, median) if notes else "")
        except Exception as error:  # whatever a peer dies of, the others are still to be measured
            self.note(f"{program}: {what}, {shape}: failed, {brief(error)}")
        made = f = before = first = None
        self.clear()

    def clear(self):
        gc.collect()
        if self.cuda:
            torch.cuda.empty_cache()

    def programs(self, name, pattern, describe, repetitions=3):
        """Rows of lamina's program for the benchmarks that match `pattern`: describe(a benchmark's
        name, arguments, counters) is (what, shape, extra bytes or None, notes) and, for what no
        peer does, the name of the row."""
        places = [os.path.join(self.options.build_dir, folder, name) for folder in
                  ("benchmarks", "")]
        if time.monotonic() > self.deadline:
            self.note(f"lamina: {name}: not measured, out of time")
            return
        program = next((p for p in places if os.path.exists(p)), None)
        if program is None:
            self.note(f"lamina: {name}: missing in {self.options.build_dir}")
            return
        self.clear()
        try:
            done = subprocess.run(
                [program, "--benchmark_format=json", f"--benchmark_filter={pattern}",
                 f"--benchmark_repetitions={repetitions}", "--benchmark_min_time=0.1"],
                capture_output=True, text=True, timeout=90)
            if done.returncode != 0:
                raise RuntimeError(f"exit {done.returncode}: {(done.stdout + done.stderr)[-200:]}")
            report = json.loads(done.stdout)
        except Exception as error:
            self.note(f"lamina: {name}: failed, {brief(error)}")
            return
        for benchmark, arguments, counters in medians(report):
            if "error" in counters:
                self.note(f"lamina: {benchmark}: failed, {brief(counters['error'])}")
                continue
            try:
                what, shape, extra, notes, *own = describe(benchmark, arguments, counters)
            except KeyError as missing:  # a benchmark that this script does not know
                self.note(f"lamina: {name}: {benchmark} {arguments} has no {missing}")
                continue
            self.row(what, shape, own[0] if own else "lamina", counters["ms"], extra, notes)


def medians(report):
    """(name without arguments, arguments, numbers) of every benchmark of a JSON report."""
    runs = {}
    for entry in report["benchmarks"]:
        name = entry.get("run_name", entry["name"])
        if entry.get("error_occurred"):
            runs.setdefault(name, {})["error"] = entry.get("error_message", "")
        elif entry.get("aggregate_name") == "median" or entry.get("run_type") == "iteration":
            scale = {"ns": 1e-6, "us": 1e-3, "ms": 1.0, "s": 1e3}[entry["time_unit"]]
            numbers = {k: v for k, v in entry.items() if isinstance(v, float)}
            # Medians come after the runs that they are of.
            runs.setdefault(name, {}).update(numbers, ms=entry["real_time"] * scale)
    for name, counters in runs.items():
        arguments = {k: int(v) for k, v in re.findall(r"/(\w+):(\d+)", name)}
        parts = [p for p in name.split("/") if ":" not in p and p != "manual_time"]
        yield "/".join(parts), arguments, counters


def brief(error):
    text = " ".join(str(error).split()).replace("|", "/")
    return f"{type(error).__name__}: {text[:300]}" if isinstance(error, Exception) else text[:300]


def detached(result):
    """The tensors of a result, so that their graph goes."""
    if torch.is_tensor(result):
        return result.detach()
    if isinstance(result, (tuple, list)):
        return tuple(detached(r) for r in result)
    return result


def filled(rows, columns, size, dtype, device):
    """The numbers that lamina's benchmarks fill their matrices with, in [-size, size)."""
    out = torch.empty(rows, columns, dtype=dtype, device=device)
    column = torch.arange(columns, device=device)
    for begin in range(0, rows, 256):
        row = torch.arange(begin, min(rows, begin + 256), device=device)
        number = ((row[:, None] * 7919 + column) & 0xffffffff) * 2654435761 & 0xffffffff
        out[begin:begin + 256] = ((number >> 8).float() * 2.0 ** -23 - 1.0) * size
    return out


class Batch:
    """Tokens [sequences, length], their old log-probs, and an advantage a sequence."""

    def __init__(self, sequences, length, vocab, device):
        tokens = torch.arange(sequences * length, device=device)
        self.ids = (tokens * 31 % vocab).view(sequences, length)
        self.old = torch.zeros(sequences, length, device=device)
        self.advantages = 1.0 - 2.0 * (torch.arange(sequences, device=device) % 2)
        self.mask = torch.ones(sequences, length, device=device)

    def sampled_from(self, logits_of):
        """Takes the log-probs of today's logits [length, vocab] of every sequence for the old ones:
        a first update, in which no token is clipped."""
        for s in range(self.ids.shape[0]):
            log_probs = torch.log_softmax(logits_of(s).float(), -1)
            self.old[s] = log_probs.gather(-1, self.ids[s][:, None])[:, 0]

    def part(self, s):
        """Sequence s as a batch of its own, whose loss weighs as much as the whole batch's."""
        some = object.__new__(Batch)
        for name in ("ids", "old", "advantages", "mask"):
            setattr(some, name, getattr(self, name)[s:s + 1])
        return some

    def arguments(self):
        return self.ids, self.old, self.advantages


def surrogate(log_probs, old, advantages):
    ratio = torch.exp(log_probs - old)
    advantage = advantages[:, None]
    clipped = ratio.clamp(1 - CLIP, 1 + CLIP)
    return -torch.minimum(ratio * advantage, clipped * advantage).mean(1).mean()


def gather_loss(logits, ids, old, advantages):
    log_probs = torch.log_softmax(logits.float(), -1).gather(-1, ids[..., None]).squeeze(-1)
    return surrogate(log_probs, old, advantages)


def narrow_gather_loss(logits, ids, old, advantages):
    log_probs = torch.log_softmax(logits, -1).gather(-1, ids[..., None]).squeeze(-1)
    return surrogate(log_probs.float(), old, advantages)


def cross_entropy_loss(logits, ids, old, advantages):
    flat = logits.flatten(0, -2).float()
    log_probs = -F.cross_entropy(flat, ids.flatten(), reduction="none").view(ids.shape)
    return surrogate(log_probs, old, advantages)


def compiled(loss):
    return torch.compile(loss, dynamic=False)


def double_reference(batch, logits_of, head=None, hidden=None, tokens=16, words=64):
    """The loss in float64, d loss / d logits of the first tokens of every sequence, and with a head
    d loss / d hidden of the same tokens and d loss / d head of the first words."""
    sequences = batch.ids.shape[0]
    loss, d_logits, d_hidden, d_head = 0.0, [], [], 0.0
    for s in range(sequences):
        part = batch.part(s)
        logits = logits_of(s).double()[None].requires_grad_()
        log_probs = torch.log_softmax(logits, -1).gather(-1, part.ids[..., None]).squeeze(-1)
        own = surrogate(log_probs, part.old.double(), part.advantages.double()) / sequences
        gradient, = torch.autograd.grad(own, logits)
        loss += own.item()
        if head is None:
            d_logits.append(gradient[0, :tokens].clone())
        else:
            d_hidden.append(gradient[0, :tokens] @ head)
            d_head = d_head + gradient[0, :, :words].T @ hidden[s].double()
    if head is None:
        return loss, torch.stack(d_logits)
    return loss, torch.stack(d_hidden), d_head


def difference(expected):
    """notes() of peer: how far (loss, gradient ...) lies from (loss, gradient ...) in float64, of
    which the latter are leading parts."""
    def notes(first, _):
        if expected is None:
            return ""
        off = []
        for got, want in zip(first[1:], expected[1:]):
            for axis, size in enumerate(want.shape):
                got = got.narrow(axis, 0, size)
            off.append(((got.double() - want).abs().max() / want.abs().max()).item())
        loss_off = abs(float(first[0]) - expected[0])
        return f"loss off {loss_off:.1e}, gradient off " + ", ".join(f"{o:.1e}" for o in off)
    return notes


def attempt(bench, name, f):
    """f(), or None and a line that says why not."""
    try:
        return f()
    except Exception as error:
        bench.note(f"{name}: failed, {brief(error)}")
        return None


def liger(module, name):
    """Something of Liger's, without what it imports for patching models only."""
    absent = "peft" not in sys.modules
    if absent:
        sys.modules["peft"] = None
    try:
        return getattr(importlib.import_module("liger_kernel." + module), name)
    finally:
        if absent:
            del sys.modules["peft"]


def ceilings(bench):
    size = 1 << 12 if bench.options.tiny else 1 << 31
    source, target = (torch.ones(size // 4, device=bench.device) for _ in range(2))
    bench.peer("copy on the device", f"{size / 1e9:.2f} GB", "PyTorch",
               lambda: lambda: target.copy_(source),
               lambda _, ms: f"{2 * size / ms / 1e9:.2f} TB/s, read and written")
    del source, target
    shapes = [(64, 64, 64)] if bench.options.tiny else [(8192, 8192, 8192), (1024, 151936, 2048),
                                                        (8192, 151936, 2048)]
    for m, n, k in shapes:
        a, b = (torch.randn(rows, k, device=bench.device, dtype=torch.bfloat16) for rows in (m, n))
        out = torch.empty(m, n, device=bench.device, dtype=torch.bfloat16)
        bench.peer("product, bf16", f"{m} x {n} x {k}", "PyTorch",
                   lambda a=a, b=b, out=out: lambda: torch.matmul(a, b.T, out=out),
                   lambda _, ms, f=2 * m * n * k: f"{f / ms / 1e9:.0f} TFLOP/s")
        del a, b, out


def logits_losses(bench):
    gradient_of = "GRPO loss and gradient from bf16 logits"
    log_probs_of = "log-probs from bf16 logits"

    def describe(name, arguments, counters):
        shape = f"{arguments['tokens']} x {arguments['vocab']}"
        notes = f"{counters['copies']:.2f} copies, floor {counters['floor']:.2f}"
        if name.startswith("log_probs"):
            return log_probs_of, shape, None, notes
        entropy = " and entropies" if arguments.get("entropy") else ""
        return gradient_of + entropy, shape, None, notes + ", in place"

    bench.programs("policy.logits_loss_cuda_bench", "bf16", describe)
    sequences, length = (2, 24) if bench.options.tiny else (8, 1024)
    for vocab in (300,) if bench.options.tiny else (151936, 32768):
        shape = f"{sequences * length} x {vocab}"
        batch = Batch(sequences, length, vocab, bench.device)
        pristine = filled(sequences * length, vocab, 2.0, torch.bfloat16, bench.device)
        logits = pristine.view(sequences, length, vocab).requires_grad_()
        batch.sampled_from(lambda s: logits[s].detach())
        expected = attempt(bench, "float64 reference", lambda: double_reference(
            batch, lambda s: logits[s].detach()))
        if expected:
            clipped = (expected[1].abs().amax(-1) == 0).float().mean().item()
            bench.note(f"{shape}: {clipped:.0%} of the tokens are clipped and get no gradient")
        bench.clear()

        def own(loss):
            def f():
                value = loss(logits, *batch.arguments())
                return value, *torch.autograd.grad(value, logits)
            return f

        for name, make in [
                ("PyTorch eager, log_softmax", lambda: own(gather_loss)),
                ("PyTorch eager, log_softmax in bf16", lambda: own(narrow_gather_loss)),
                ("PyTorch eager, cross_entropy", lambda: own(cross_entropy_loss)),
                ("torch.compile, log_softmax", lambda: own(compiled(gather_loss))),
                ("torch.compile, cross_entropy", lambda: own(compiled(cross_entropy_loss)))]:
            bench.peer(gradient_of, shape, name, make, difference(expected))

        def liger_loss():
            function = liger("ops.grpo_loss", "GrpoLossFunction")
            # One row more a sequence, which Liger leaves out.
            room = torch.zeros(sequences, length + 1, vocab, dtype=torch.bfloat16,
                               device=bench.device, requires_grad=True)

            def f():
                value, _, _ = function.apply(
                    room, batch.old, None, batch.ids, batch.advantages, batch.mask, 1.0, 0.0,
                    CLIP, CLIP, True, "grpo", None, True)
                return value, *torch.autograd.grad(value, room)

            def before():
                room.data[:, :-1].copy_(logits.data)
            return f, before

        bench.peer(gradient_of, shape, "Liger GrpoLossFunction, in place", liger_loss,
                   difference(expected))

        def without_gradient(loss):
            def f():
                with torch.no_grad():
                    return loss(logits, batch.ids)
            return f
        bench.peer(log_probs_of, shape, "PyTorch eager, cross_entropy", lambda: without_gradient(
            lambda x, ids: -F.cross_entropy(x.flatten(0, 1).float(), ids.flatten(),
                                            reduction="none")))
        bench.peer(log_probs_of, shape, "PyTorch eager, logsumexp in bf16",
                   lambda: without_gradient(lambda x, ids: x.gather(-1, ids[..., None]).squeeze(-1)
                                            - torch.logsumexp(x, -1)))

        def liger_log_probs():
            function = liger("ops.grpo_loss", "fused_selective_log_softmax")
            room = torch.zeros(sequences, length + 1, vocab, dtype=torch.bfloat16,
                               device=bench.device)
            room[:, :-1].copy_(logits.detach())
            return lambda: function(room, batch.ids, 1.0)
        bench.peer(log_probs_of, shape, "Liger fused_selective_log_softmax", liger_log_probs)
        del logits, pristine, expected
        bench.clear()


def hidden_losses(bench):
    what = {False: "GRPO loss and gradients from bf16 hidden states, frozen head",
            True: "GRPO loss and gradients from bf16 hidden states, trained head"}

    def describe(name, arguments, counters):
        tokens, vocab, width = (arguments[k] for k in ("tokens", "vocab", "width"))
        trained = "true" in name
        # What the peers' peak has beside scratch: the gradients.
        gradients = 2 * tokens * width + (4 * vocab * width if trained else 0)
        return (what[trained], f"{tokens} x {width} x {vocab}",
                counters["scratch_MB"] * 1e6 + gradients,
                f"{counters['TFLOP/s']:.0f} TFLOP/s, {counters['over_products']:.2f} of its "
                f"products, scratch {counters['scratch_MB']:.0f} MB",
                "lamina, logits in bf16" if "narrow" in name else "lamina")

    bench.programs("policy.hidden_loss_cuda_bench", ".", describe)
    tiny = bench.options.tiny
    sequences, length, vocab = (2, 24, 300) if tiny else (8, 1024, 151936)
    batch = Batch(sequences, length, vocab, bench.device)
    whole = compiled(cross_entropy_loss)
    for width in (32,) if tiny else (2048, 2560, 4096):
        shape = f"{sequences * length} x {width} x {vocab}"
        hidden = filled(sequences * length, width, 1.0, torch.bfloat16, bench.device)
        hidden = hidden.view(sequences, length, width).requires_grad_()
        head = filled(vocab, width, 0.05, torch.bfloat16, bench.device)
        batch.sampled_from(lambda s: hidden[s].detach() @ head.T)

        def reference():
            wide = head.double()
            return double_reference(batch, lambda s: hidden[s].detach().double() @ wide.T, wide,
                                    hidden.detach())
        # Once is enough, and float64 takes its time.
        expected = attempt(bench, "float64 reference", reference) if width <= 2048 else None
        bench.clear()

        for trained in (False, True):
            head.requires_grad_(trained)
            wanted = [hidden, head] if trained else [hidden]

            def at_once(loss):
                def f():
                    value = loss(hidden @ head.T, *batch.arguments())
                    return value, *torch.autograd.grad(value, wanted)
                return f

            def by_sequence(loss):
                def f():
                    value, d_hidden = 0.0, torch.empty_like(hidden)
                    d_head = torch.zeros(head.shape, device=bench.device) if trained else None
                    for s in range(sequences):
                        rows = hidden[s:s + 1].detach().requires_grad_()
                        part = batch.part(s)
                        own = loss(rows @ head.T, *part.arguments()) / sequences
                        gradients = torch.autograd.grad(own, [rows] + wanted[1:])
                        d_hidden[s:s + 1] = gradients[0]
                        if trained:
                            d_head += gradients[1]
                        value = value + own.detach()
                    return (value, d_hidden, d_head) if trained else (value, d_hidden)
                return f

            def liger_loss(chunk, precision):
                module = liger("chunked_loss.grpo_loss", "LigerFusedLinearGRPOLoss")(
                    beta=0.0, compiled=True, use_ref_model=False, chunk_size=chunk,
                    epsilon_low=CLIP, epsilon_high=CLIP, loss_type="grpo", temperature=1.0)

                def f():
                    torch.set_float32_matmul_precision(precision)
                    try:
                        value, _ = module(hidden, head, batch.ids, batch.mask, batch.advantages,
                                          old_per_token_logps=batch.old)
                        return value, *torch.autograd.grad(value, wanted)
                    finally:
                        torch.set_float32_matmul_precision("highest")
                return f

            part = expected and expected[:3 if trained else 2]
            for name, make in [
                    ("PyTorch eager", lambda: at_once(gather_loss)),
                    ("PyTorch eager, by sequence", lambda: by_sequence(gather_loss)),
                    ("torch.compile loss, by sequence", lambda: by_sequence(whole)),
                    ("Liger FusedLinearGRPO", lambda: liger_loss(1, "highest")),
                    ("Liger FusedLinearGRPO, one chunk, TF32",
                     lambda: liger_loss(sequences, "high"))]:
                bench.peer(what[trained], shape, name, make, difference(part))
        del hidden, head, expected
        bench.clear()


def adamw_steps(bench):
    def describe(name, arguments, counters):
        kind = "bf16, float masters" if "bf16" in name else "float"
        layers = f"{arguments['layers']} layer(s) of Qwen3-1.7B"
        what = "gradient norm" if name.startswith("gradient_norms") else "AdamW and clipping"
        if what == "gradient norm":
            kind = kind.split(",")[0]
        return (f"{what}, {kind}", layers, None,
                f"{counters['copies']:.2f} copies, floor {counters['floor']:.2f}, "
                f"{counters['TB/s']:.2f} TB/s")

    bench.programs("optim.adamw_cuda_bench", ".", describe)
    for layers in (1, 10):
        shape = f"{layers} layer(s) of Qwen3-1.7B"
        sizes = [(8, 4), (4,)] if bench.options.tiny else LAYER

        def tensors(dtype, size, layers=layers, sizes=sizes):
            return [torch.randn(s, device=bench.device, dtype=torch.float32).mul_(size).to(dtype)
                    for _ in range(layers) for s in sizes]

        def parameters(dtype):
            weights = [torch.nn.Parameter(t) for t in tensors(dtype, 0.04)]
            for weight, gradient in zip(weights, tensors(dtype, 1.0)):
                weight.grad = gradient
            return weights, torch.optim.AdamW(weights, lr=1e-5, weight_decay=0.01, fused=True)

        def plain(dtype):
            weights, optimizer = parameters(dtype)

            def f():
                torch.nn.utils.clip_grad_norm_(weights, 1.0, foreach=True)
                optimizer.step()
            return f

        def with_masters():
            masters, optimizer = parameters(torch.float32)
            weights = tensors(torch.bfloat16, 0.04)
            gradients = tensors(torch.bfloat16, 1.0)
            wide = [m.grad for m in masters]

            def f():
                torch._foreach_copy_(wide, gradients)
                torch.nn.utils.clip_grad_norm_(masters, 1.0, foreach=True)
                optimizer.step()
                torch._foreach_copy_(weights, [m.detach() for m in masters])
            return f

        def norm(dtype):
            gradients = tensors(dtype, 1.0)
            return lambda: torch.nn.utils.get_total_norm(gradients, foreach=True)

        what = "AdamW and clipping, "
        for name, program, make in [
                (what + "bf16, float masters", "PyTorch fused AdamW and clip_grad_norm_",
                 with_masters),
                (what + "bf16, float masters", "the same without masters, moments in bf16",
                 lambda: plain(torch.bfloat16)),
                (what + "float", "PyTorch fused AdamW and clip_grad_norm_",
                 lambda: plain(torch.float32)),
                ("gradient norm, bf16", "PyTorch get_total_norm", lambda: norm(torch.bfloat16)),
                ("gradient norm, float", "PyTorch get_total_norm", lambda: norm(torch.float32))]:
            bench.peer(name, shape, program, make)


def attention(bench):
    what = {"attention_forward": "causal attention, forward",
            "attention_backward": "causal attention, backward"}

    def describe(name, arguments, counters):
        rounded = name.endswith("_bf16")
        return (what[name.removesuffix("_bf16")],
                f"{arguments['sequences']} x {arguments['length']}", None,
                f"{counters['TFLOP/s']:.0f} TFLOP/s, from float",
                "lamina" if rounded else "lamina, float tiles")

    bench.programs("examples.attention_cuda_bench", ".", describe)
    sequences, length, heads, kv_heads, width = (2, 8, 4, 2, 16) if bench.options.tiny else (
        8, 1024, 16, 8, 128)
    shape = f"{sequences} x {length}"
    flop = 2 * heads * width * length * sequences * length  # 2 q T a token, half of all pairs
    backends = torch.nn.attention.SDPBackend
    for dtype, backend, name in [
            (torch.bfloat16, backends.FLASH_ATTENTION, "SDPA, flash, bf16"),
            (torch.bfloat16, backends.CUDNN_ATTENTION, "SDPA, cuDNN, bf16"),
            (torch.float32, backends.EFFICIENT_ATTENTION, "SDPA, memory-efficient, float")]:
        if not bench.cuda:
            backend, name = backends.MATH, name + " (math on a CPU)"

        def make(backward, dtype=dtype, backend=backend):
            shared = backend != backends.EFFICIENT_ATTENTION  # which wants a key for every query
            q, k, v = (torch.randn(sequences, n, length, width, device=bench.device, dtype=dtype,
                                   requires_grad=True)
                       for n in (heads, kv_heads, kv_heads))

            def f():
                groups = 1 if shared else heads // kv_heads
                with torch.nn.attention.sdpa_kernel(backend):
                    return F.scaled_dot_product_attention(
                        q, k.repeat_interleave(groups, 1) if groups > 1 else k,
                        v.repeat_interleave(groups, 1) if groups > 1 else v,
                        is_causal=True, enable_gqa=shared)
            if not backward:
                return f
            out = f()
            d_out = torch.randn_like(out)
            return lambda: torch.autograd.grad(out, (q, k, v), d_out, retain_graph=True)

        for backward, key, factor in [(False, "attention_forward", 1.0),
                                      (True, "attention_backward", 2.5)]:
            bench.peer(what[key], shape, name, lambda b=backward, make=make: make(b),
                       lambda _, ms, f=flop * factor: f"{f / ms / 1e9:.0f} TFLOP/s")


def training_steps(bench):
    options = bench.options
    what = "training step, Qwen3-1.7B"

    def describe(name, arguments, counters):
        _, selection, kind = name.split("/")
        own = "lamina" if kind == "step" else f"lamina, {kind}"
        notes = f"{counters['tokens/s']:.0f} tokens/s"
        if "speed_up" in counters:
            notes += (f", full training takes {counters['speed_up']:.2f} times as long, "
                      f"{counters['ratio']:.2f} of the formula's {counters['formula']:.2f}")
        # Its batch is 4 sequences of 1,024 tokens.
        return what, f"{selection}, 4 x 1024", counters["peak_GB"] * 1e9, notes, own

    bench.programs("model.selective_step_cuda_bench", "^1.7B/", describe, repetitions=1)
    transformers = importlib.import_module("transformers")
    shape = dict(QWEN3)
    sequences, length = options.sequences, options.length
    if options.tiny:
        shape.update(hidden_size=64, num_hidden_layers=3, num_attention_heads=4, head_dim=16,
                     num_key_value_heads=2, intermediate_size=96, vocab_size=300)
        sequences, length = 2, 8
    config = transformers.Qwen3Config(**shape, tie_word_embeddings=True, use_cache=False,
                                      max_position_embeddings=40960, rms_norm_eps=1e-6,
                                      attn_implementation="sdpa")
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.bfloat16)
    try:
        with bench.device:
            model = transformers.Qwen3ForCausalLM(config)
    finally:
        torch.set_default_dtype(before)
    model.train()
    batch = Batch(sequences, length, shape["vocab_size"], bench.device)
    inputs = (batch.ids * 17 + 3) % shape["vocab_size"]
    depth = shape["num_hidden_layers"]
    selections = [("full", None), ("middle layer", [depth // 2]), ("last layer", [depth - 1]),
                  ("middle 10", range(max(0, (depth - 10) // 2), min(depth, (depth + 10) // 2)))]

    def step(layers, loss):
        model.requires_grad_(layers is None)
        for layer in layers or []:
            model.model.layers[layer].requires_grad_(True)
        trained = [p for p in model.parameters() if p.requires_grad]
        optimizer = torch.optim.AdamW(trained, lr=1e-6, weight_decay=0.01, fused=True)

        def f():
            hidden = model.model(input_ids=inputs).last_hidden_state
            value = loss(model.lm_head(hidden), *batch.arguments())
            value.backward()
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
            return value
        return f

    times = {}
    for kind, loss in [("eager loss", gather_loss),
                       ("compiled loss", compiled(cross_entropy_loss))]:
        for name, layers in selections:
            def notes(_, milliseconds, kind=kind, name=name):
                times[kind, name] = milliseconds
                full = times.get((kind, "full"))
                return f"{sequences * length / milliseconds * 1e3:.0f} tokens/s" + (
                    f", full training takes {full / milliseconds:.2f} times as long"
                    if full and name != "full" else "")
            bench.peer(what, f"{name}, {sequences} x {length}", f"transformers, SDPA, {kind}",
                       lambda l=layers, f=loss: step(l, f), notes, 0)
            model.zero_grad(set_to_none=True)


SECTIONS = {"ceilings": ceilings, "logits": logits_losses, "hidden": hidden_losses,
            "adamw": adamw_steps, "attention": attention, "step": training_steps}


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("build_dir")
    parser.add_argument("--only", default=",".join(SECTIONS), help=", ".join(SECTIONS))
    parser.add_argument("--out", help="folder for compare_gpu.json")
    parser.add_argument("--sequences", type=int, default=4, help="of the training step")
    parser.add_argument("--length", type=int, default=1024, help="tokens of such a sequence")
    parser.add_argument("--budget", type=float, default=150, help="seconds after which no "
                        "further peer is begun")
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--tiny", action="store_true",
                        help="shapes so small that the times mean nothing: tries the script only")
    options = parser.parse_args()
    names = options.only.split(",")
    if not set(names) <= set(SECTIONS):
        parser.error(f"--only has {', '.join(set(names) - set(SECTIONS))}; there are "
                     f"{', '.join(SECTIONS)}")
    if options.device == "cuda" and not torch.cuda.is_available():
        sys.exit("compare_gpu.py: no CUDA device")
    if options.device == "cpu":
        os.environ["TRITON_INTERPRET"] = "1"  # before Triton is imported
    bench = Bench(options)
    print(", ".join(f"{k} {v}" for k, v in bench.about.items()))
    if options.tiny:
        print("Tiny shapes: these times mean nothing, they try the script.")
    print("\n| " + " | ".join(COLUMNS) + " |\n|" + "---|" * len(COLUMNS), flush=True)
    for name in names:
        start = time.monotonic()
        attempt(bench, name, lambda section=SECTIONS[name]: section(bench) or True)
        bench.clear()
        print(f"{name}: {time.monotonic() - start:.0f} s", file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
