#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
"""Writes optim_vectors.json: several float64 steps of torch.optim.AdamW and torch.optim.SGD, with
gradients clipped by torch.nn.utils.clip_grad_norm_.

Made with torch 2 on the CPU: python3 optim_vectors.py > optim_vectors.json
"""
import json

import torch

torch.set_default_dtype(torch.float64)
STEPS = 6

# Two tensors: a matrix of layer 3 that decays and a norm of layer 4 that does not.
generator = torch.Generator().manual_seed(7)
WEIGHTS = [torch.randn(5, generator=generator), torch.randn(3, generator=generator)]
GRADIENTS = [[torch.randn(5, generator=generator), torch.randn(3, generator=generator)]
             for _ in range(STEPS)]
GRADIENTS[2][0][1] = 0.0  # a gradient of exactly zero
GRADIENTS[4] = [g * 40 for g in GRADIENTS[4]]  # a step that clipping cuts hard

# name, optimizer, options as lamina spells them, learning rate of every step, multiplier of layer 3
CONSTANT = [0.01] * STEPS
CASES = [
    ("defaults", "adamw", {}, [1e-3] * STEPS, 1.0),
    ("betas, epsilon and decay", "adamw",
     {"beta1": 0.8, "beta2": 0.95, "epsilon": 1e-4, "weight_decay": 0.3}, CONSTANT, 1.0),
    ("clipped", "adamw", {"clip_norm": 1.5}, CONSTANT, 1.0),
    ("a schedule and a boost", "adamw", {"weight_decay": 0.1},
     [0.002, 0.004, 0.006, 0.006, 0.003, 0.001], 2.0),
    ("plain", "sgd", {}, CONSTANT, 1.0),
    ("decay", "sgd", {"weight_decay": 0.2}, CONSTANT, 1.0),
    ("momentum", "sgd", {"momentum": 0.9}, CONSTANT, 1.0),
    ("momentum, dampening and decay", "sgd",
     {"momentum": 0.8, "dampening": 0.3, "weight_decay": 0.1}, CONSTANT, 1.0),
    ("nesterov, clipped", "sgd", {"momentum": 0.9, "nesterov": True, "clip_norm": 1.5}, CONSTANT,
     1.0),
    ("a schedule and a boost", "sgd", {"momentum": 0.5, "weight_decay": 0.1},
     [0.02, 0.04, 0.06, 0.06, 0.03, 0.01], 0.5),
]


def run(name, kind, options, rates, boost):
    parameters = [torch.nn.Parameter(w.clone()) for w in WEIGHTS]
    decay = options.get("weight_decay", 0.01 if kind == "adamw" else 0.0)
    groups = [{"params": [parameters[0]], "weight_decay": decay},
              {"params": [parameters[1]], "weight_decay": 0.0}]
    if kind == "adamw":
        optimizer = torch.optim.AdamW(
            groups, eps=options.get("epsilon", 1e-8),
            betas=(options.get("beta1", 0.9), options.get("beta2", 0.999)))
    else:
        optimizer = torch.optim.SGD(
            groups, lr=1.0, momentum=options.get("momentum", 0), nesterov="nesterov" in options,
            dampening=options.get("dampening", 0))
    steps = []
    for rate, gradients in zip(rates, GRADIENTS):
        for parameter, gradient in zip(parameters, gradients):
            parameter.grad = gradient.clone()
        norm = torch.nn.utils.clip_grad_norm_(parameters, options.get("clip_norm", float("inf")))
        optimizer.param_groups[0]["lr"] = rate * boost
        optimizer.param_groups[1]["lr"] = rate
        optimizer.step()
        steps.append({"learning_rate": rate, "gradient_norm": norm.item(),
                      "weights": [p.tolist() for p in parameters]})
    keys = ["exp_avg", "exp_avg_sq"] if kind == "adamw" else ["momentum_buffer"]
    moments = [[optimizer.state[p][key].tolist() for p in parameters] for key in keys
               if optimizer.state[parameters[0]].get(key) is not None]
    return {"name": name, "rule": kind, "options": options, "boost": boost, "steps": steps,
            "moments": moments}


print(json.dumps({
    "torch": torch.__version__,
    "weights": [w.tolist() for w in WEIGHTS],
    "gradients": [[g.tolist() for g in step] for step in GRADIENTS],
    "cases": [run(*case) for case in CASES],
}, indent=1))
