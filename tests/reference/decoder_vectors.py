#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
"""Writes decoder_vectors.json: logits and gradients, in float64, of tiny Llama, Qwen2 and Qwen3
models of Hugging Face transformers.

Weight t of a model, in the order of the file, has the elements base + 0.4 sin(1.3 (i + 1) + 0.7 t)
with base 1 for norms and 0 for all else. The loss is sum_n c_n logits_n over all logits of all
sequences, with c_n = sin(0.9 n + 0.2).

Made with torch 2 and transformers 5.23: python3 decoder_vectors.py > decoder_vectors.json
"""
import json
import math

import torch
import transformers

torch.set_default_dtype(torch.float64)
# The models take norms, softmax and rotary angles through float32 whatever their own type is.
torch.float32 = torch.float = torch.float64
torch.Tensor.float = torch.Tensor.double
SEQUENCES = [[3, 1, 4, 1, 5, 8, 2, 6, 5, 3, 5, 8], [2, 7, 1, 8, 2], [6]]
SHAPE = dict(hidden_size=8, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2,
             head_dim=4, intermediate_size=10, vocab_size=9, max_position_embeddings=64,
             rms_norm_eps=1e-5, attn_implementation="eager", attention_dropout=0.0,
             rope_parameters={"rope_type": "default", "rope_theta": 500.0})


def numbers(tensor):
    return [float(f"{x:.14g}") for x in tensor.detach().reshape(-1).tolist()]


def vectors(name, model):
    model = model.double().eval()
    parameters = dict(model.named_parameters())  # a tied head is listed once, as the embedding
    for t, (key, weight) in enumerate(parameters.items()):
        base = 1.0 if "norm" in key else 0.0
        values = [base + 0.4 * math.sin(1.3 * (i + 1) + 0.7 * t) for i in range(weight.numel())]
        weight.data = torch.tensor(values).reshape(weight.shape)
    model.tie_weights()
    logits = torch.cat([model(torch.tensor([s])).logits[0] for s in SEQUENCES])
    coefficients = torch.sin(0.9 * torch.arange(logits.numel()) + 0.2).reshape(logits.shape)
    (coefficients * logits).sum().backward()
    return {"name": name, "logits": numbers(logits),
            "gradients": [{"name": k, "values": numbers(p.grad)} for k, p in parameters.items()]}


def main():
    llama = transformers.LlamaForCausalLM(transformers.LlamaConfig(**SHAPE))
    qwen2 = transformers.Qwen2ForCausalLM(
        transformers.Qwen2Config(**SHAPE, use_sliding_window=False))
    qwen3 = transformers.Qwen3ForCausalLM(
        transformers.Qwen3Config(**SHAPE, use_sliding_window=False, tie_word_embeddings=True))
    document = {
        "made_with": f"torch {torch.__version__.split('+')[0]}, "
                     f"transformers {transformers.__version__}",
        "sequences": SEQUENCES,
        "models": [vectors("llama", llama), vectors("qwen2", qwen2), vectors("qwen3", qwen3)],
    }
    print(json.dumps(document))


main()
