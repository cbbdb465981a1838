#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
"""Tokens per second of a GRPO training step in PyTorch: the peer of the training-step benchmark.

The model is Hugging Face's LlamaForCausalLM in the shape of SmolLM2-135M with random weights in
float32; the batch is sequences of one length, of which a part is the response. A step is: forward,
head and log-probabilities at response positions only, clipped surrogate, backward, AdamW. Only the
selected layers require a gradient, so that autograd keeps nothing below the lowest of them; weights
outside the layers (embedding, last norm, head) are frozen but under --embedding.

With --epochs 2 --reference the batch is trained on twice, with the log-probabilities of the first
epoch as the old ones, after one pass of a frozen copy that gives the KL term (k3).

  benchmarks/model/torch_step.py --threads 1 2 --selections all middle first last
  benchmarks/model/torch_step.py --epochs 2 --reference --selections middle

Prints one JSON object; times are medians over --steps steps after --warm-up ones.
Needs torch and transformers; it is no part of the build.
"""
import argparse
import copy
import json
import platform
import statistics
import sys
import time

import torch
import transformers

NAMED = {"all": lambda n: range(n), "first": lambda n: range(1), "last": lambda n: range(n - 1, n),
         "quarter": lambda n: range(n // 4, n // 4 + 1),
         "middle": lambda n: range(n // 2, n // 2 + 1),
         "three_quarters": lambda n: range(3 * n // 4, 3 * n // 4 + 1),
         "middle10": lambda n: range((n - 10) // 2, (n - 10) // 2 + 10)}


def layers_of(selection, layer_count):
    """The layers of a name of NAMED, of 17, or of 10-19."""
    if selection in NAMED:
        layers = NAMED[selection](layer_count)
    else:
        first, _, last = selection.partition("-")
        layers = range(int(first), int(last or first) + 1)
    if len(layers) == 0 or layers[0] < 0 or layers[-1] >= layer_count:
        sys.exit(f"selection {selection}: expected layers within 0..{layer_count - 1}")
    return layers


def make_model(options):
    torch.manual_seed(1)
    config = transformers.LlamaConfig(
        hidden_size=576, num_hidden_layers=options.layers, num_attention_heads=9,
        num_key_value_heads=3, head_dim=64, intermediate_size=1536, vocab_size=options.vocab,
        tie_word_embeddings=True, rms_norm_eps=1e-5, max_position_embeddings=8192, use_cache=False,
        attn_implementation="sdpa")
    return transformers.LlamaForCausalLM(config).float()


def make_batch(options):
    generator = torch.Generator().manual_seed(2)
    tokens = torch.randint(options.vocab, (options.sequences, options.length), generator=generator)
    rewards = torch.randn(options.sequences, generator=generator)
    advantages = (rewards - rewards.mean()) / (rewards.std() + 1e-6)
    # The first response token is predicted at the last position of the prompt.
    responses = options.length - options.prompt
    return tokens, advantages.repeat_interleave(responses)


def response_log_probs(model, tokens, prompt):
    """log p of the response tokens, [sequences x responses]: no other row meets the head."""
    hidden = model.model(input_ids=tokens).last_hidden_state
    rows = hidden[:, prompt - 1:-1].reshape(-1, hidden.shape[-1])
    logits = model.lm_head(rows)
    chosen = logits.gather(1, tokens[:, prompt:].reshape(-1, 1)).squeeze(1)
    return chosen - torch.logsumexp(logits, 1)


def loss_of(log_probs, old, reference, advantages, options):
    ratio = torch.exp(log_probs - old)
    clipped = ratio.clamp(1 - options.clip, 1 + options.clip)
    loss = -torch.minimum(ratio * advantages, clipped * advantages)
    if reference is not None:
        difference = reference - log_probs
        loss = loss + options.kl * (torch.exp(difference) - difference - 1)
    return loss.mean()


def step(model, reference, optimizer, batch, options):
    tokens, advantages = batch
    reference_log_probs = None
    if reference is not None:
        with torch.no_grad():
            reference_log_probs = response_log_probs(reference, tokens, options.prompt)
    old = None
    for _ in range(options.epochs):
        log_probs = response_log_probs(model, tokens, options.prompt)
        if old is None:
            old = log_probs.detach()
        loss = loss_of(log_probs, old, reference_log_probs, advantages, options)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
    return loss.item()


def measure(selection, threads, options):
    torch.set_num_threads(threads)
    model = make_model(options)
    reference = copy.deepcopy(model).requires_grad_(False) if options.reference else None
    layers = layers_of(selection, options.layers)
    model.requires_grad_(False)
    for layer in layers:
        model.model.layers[layer].requires_grad_(True)
    if options.embedding:
        model.model.embed_tokens.requires_grad_(True)
    trained = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=1e-5, weight_decay=0.01, fused=True)
    batch = make_batch(options)
    times, processor_times = [], []
    for i in range(options.warm_up + options.steps):
        start, processor_start = time.perf_counter(), time.process_time()
        loss = step(model, reference, optimizer, batch, options)
        if i >= options.warm_up:
            times.append(time.perf_counter() - start)
            processor_times.append(time.process_time() - processor_start)
    seconds = statistics.median(times)
    token_count = options.sequences * options.length
    return {"selection": selection, "layers": [layers[0], layers[-1]], "threads": threads,
            "trained_parameters": sum(p.numel() for p in trained), "loss": loss,
            "seconds": seconds, "processor_seconds": statistics.median(processor_times),
            "fastest_seconds": min(times),
            "slowest_seconds": max(times), "tokens_per_second": token_count / seconds}


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--selections", nargs="+", default=["all", "middle", "first", "last"],
                        help=f"{', '.join(NAMED)}, a layer or a range such as 10-19")
    parser.add_argument("--sequences", type=int, default=8)
    parser.add_argument("--length", type=int, default=256, help="tokens of a sequence")
    parser.add_argument("--prompt", type=int, default=64, help="of these, tokens of the prompt")
    parser.add_argument("--epochs", type=int, default=1)
    parser.add_argument("--reference", action="store_true", help="KL to a frozen copy")
    parser.add_argument("--embedding", action="store_true", help="train the tied embedding too")
    parser.add_argument("--steps", type=int, default=5)
    parser.add_argument("--warm-up", type=int, default=1)
    parser.add_argument("--layers", type=int, default=30)
    parser.add_argument("--vocab", type=int, default=49152)
    parser.add_argument("--clip", type=float, default=0.2)
    parser.add_argument("--kl", type=float, default=0.001)
    options = parser.parse_args()
    if not 1 <= options.prompt < options.length:
        parser.error(f"--prompt is {options.prompt}, expected 1..{options.length - 1}")
    results = [measure(selection, threads, options)
               for threads in options.threads for selection in options.selections]
    print(json.dumps({"torch": torch.__version__, "transformers": transformers.__version__,
                      "machine": platform.processor() or platform.machine(),
                      "blas": "mkl" if torch.backends.mkl.is_available() else "other",
                      "options": vars(options), "results": results}, indent=2))


if __name__ == "__main__":
    main()
