# SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
"""Writes policy_vectors.json: losses and gradients of clipped policy losses by PyTorch autograd.

Run: python3 policy_vectors.py > policy_vectors.json   (PyTorch 2.x, float64, CPU)
The losses are written with torch.clamp / torch.min on the definition, so that PyTorch's own rules
decide the gradient at the clip bounds.
"""
import json

import torch

torch.manual_seed(20260701)
torch.set_default_dtype(torch.float64)
VOCAB = 11
cases = []
for index, (aggregation, kl, beta, low, high, temperature) in enumerate([
        ("sequence_mean_token_mean", "k3", 0.04, 0.2, 0.2, 1.0),
        ("token_mean", "k2", 0.1, 0.2, 0.28, 0.7),
        ("sequence_mean_token_sum", "k1", 0.05, 0.1, 0.3, 1.3),
        ("constant_length", "k3", 0.0, 0.2, 0.2, 1.0),
]):
    lengths = [5, 1, 8, 3]
    tokens = sum(lengths)
    logits = torch.randn(tokens, VOCAB, requires_grad=True)
    chosen = torch.randint(0, VOCAB, (tokens,))
    log_probs = torch.log_softmax(logits / temperature, -1).gather(1, chosen[:, None])[:, 0]
    log_probs.retain_grad()
    old = log_probs.detach() + 0.35 * torch.randn(tokens)
    ref = log_probs.detach() + 0.5 * torch.randn(tokens)
    advantages = torch.randn(len(lengths))
    mask = torch.ones(tokens, dtype=torch.bool)
    mask[[2, 9]] = False
    sequence = torch.repeat_interleave(torch.arange(len(lengths)), torch.tensor(lengths))
    a = advantages[sequence]
    ratio = torch.exp(log_probs - old)
    term = -torch.min(ratio * a, torch.clamp(ratio, 1 - low, 1 + high) * a)
    k = log_probs - ref
    term = term + beta * {"k1": k, "k2": k * k / 2, "k3": torch.exp(-k) + k - 1}[kl]
    counts = [int(mask[sequence == i].sum()) for i in range(len(lengths))]
    n = torch.tensor(counts)[sequence].double()
    weight = {
        "sequence_mean_token_mean": 1 / (len(lengths) * n),
        "token_mean": torch.full((tokens,), 1 / sum(counts)),
        "sequence_mean_token_sum": torch.full((tokens,), 1 / len(lengths)),
        "constant_length": torch.full((tokens,), 1 / (len(lengths) * 9)),
    }[aggregation]
    loss = (term * weight)[mask].sum()
    loss.backward()
    p = torch.softmax(logits.detach() / temperature, -1)
    cases.append({
        "aggregation": aggregation, "kl": kl, "beta": beta, "clip_low": low, "clip_high": high,
        "temperature": temperature, "length": 9, "vocab": VOCAB,
        "lengths": lengths, "logits": logits.detach().flatten().tolist(),
        "token_ids": chosen.tolist(), "mask": mask.int().tolist(),
        "old_log_probs": old.tolist(), "reference_log_probs": ref.tolist(),
        "advantages": advantages.tolist(),
        "loss": float(loss.detach()), "log_probs": log_probs.detach().tolist(),
        "d_log_probs": log_probs.grad.tolist(), "d_logits": logits.grad.flatten().tolist(),
        "entropies": (-(p * torch.log(p)).sum(-1)).tolist(),
    })
print(json.dumps({"torch": torch.__version__.split("+")[0], "cases": cases}))
