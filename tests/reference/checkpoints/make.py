#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
"""Writes the checkpoints beside it: tiny random Llama, Qwen2 and Qwen3 models, as directories of
Hugging Face transformers and as GGUF files, and in float64 what they compute.

<name>/                 config.json, safetensors as save_pretrained writes them
<name>/expected.safetensors  logits [tokens, vocab], gradient.<parameter> of every parameter
<name>.gguf             models of one layer, in one type each
gguf_expected.safetensors  <name> [tokens, vocab]: their logits
rope.json               frequencies of configs with every kind of rope scaling

Sequences have LENGTHS tokens; token n of them all is (n n + 3 n) mod vocab. The loss is
sum_n c_n logits_n over all logits, with c_n = sin(0.9 n + 0.2).

Made with numpy 2, torch 2.15, transformers 5.24, safetensors and gguf 0.19: python3 make.py
"""
import json
import pathlib
import shutil

import gguf
import numpy as np
import safetensors.numpy
import safetensors.torch
import torch
import transformers

HERE = pathlib.Path(__file__).parent
LENGTHS = [24, 1, 7]
SHAPE = dict(hidden_size=8, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2,
             intermediate_size=12, vocab_size=16, max_position_embeddings=64, rms_norm_eps=1e-5)
# One layer, every row a multiple of the 32 elements of a block.
GGUF_SHAPE = dict(SHAPE, hidden_size=32, num_hidden_layers=1, intermediate_size=32, head_dim=16,
                  num_attention_heads=2, num_key_value_heads=1)
PLAIN = {"rope_type": "default", "rope_theta": 100.0}
LLAMA3 = {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
          "original_max_position_embeddings": 32}
YARN = {"rope_type": "yarn", "factor": 4.0, "beta_fast": 4.0, "beta_slow": 0.5,
        "original_max_position_embeddings": 32}
FAMILIES = {
    "llama": (transformers.LlamaConfig, transformers.LlamaForCausalLM),
    "qwen2": (transformers.Qwen2Config, transformers.Qwen2ForCausalLM),
    "qwen3": (transformers.Qwen3Config, transformers.Qwen3ForCausalLM),
}


def random_model(family, seed, **shape):
    """Weights of deviation 0.4, norms around 1."""
    make_config, make_model = FAMILIES[family]
    model = make_model(make_config(**shape))
    torch.manual_seed(seed)
    for name, parameter in model.named_parameters():
        base = 1.0 if "norm" in name else 0.0
        parameter.data = base + 0.4 * torch.randn(parameter.shape)
    model.tie_weights()
    return model


def write_directory(name, model, dtype=torch.float32, shard=None, old_rope=None):
    directory = HERE / name
    shutil.rmtree(directory, ignore_errors=True)
    sharding = {"max_shard_size": shard} if shard else {}
    model.to(dtype).save_pretrained(directory, **sharding)
    (directory / "generation_config.json").unlink()
    if old_rope is not None:  # as files were before rope_parameters
        path = directory / "config.json"
        config = json.loads(path.read_text())
        del config["rope_parameters"]
        config.update(rope_theta=100.0, rope_scaling=old_rope)
        path.write_text(json.dumps(config, indent=2) + "\n")


def write_directories():
    write_directory("llama", random_model("llama", 1, **SHAPE, rope_parameters=PLAIN))
    write_directory("llama_llama3_tied_bf16",
                    random_model("llama", 2, **SHAPE, head_dim=8, tie_word_embeddings=True,
                                 rope_parameters=dict(LLAMA3, rope_theta=100.0)),
                    dtype=torch.bfloat16)
    write_directory("llama_linear_f16_sharded",
                    random_model("llama", 3, **SHAPE, head_dim=6, rope_parameters=PLAIN),
                    dtype=torch.float16, shard=1500, old_rope={"type": "linear", "factor": 4.0})
    write_directory("qwen2_tied_sharded",
                    random_model("qwen2", 4, **SHAPE, tie_word_embeddings=True,
                                 rope_parameters=PLAIN), shard="3KB")
    write_directory("qwen3_yarn",
                    random_model("qwen3", 5, **SHAPE, head_dim=8,
                                 rope_parameters=dict(YARN, rope_theta=100.0)))


def gguf_name(name):
    for a, b in [("model.layers.", "blk."), ("model.embed_tokens", "token_embd"),
                 ("model.norm", "output_norm"), ("lm_head", "output"),
                 ("input_layernorm", "attn_norm"), ("post_attention_layernorm", "ffn_norm"),
                 ("self_attn.o_proj", "attn_output"), ("self_attn.q_norm", "attn_q_norm"),
                 ("self_attn.k_norm", "attn_k_norm"), ("_proj", ""), ("self_attn.", "attn_"),
                 ("mlp.", "ffn_")]:
        name = name.replace(a, b)
    return name


def interleaved(rows, heads):
    """Rows of heads in the order of llama.cpp's Llama: pairs (i, i + half) become neighbours."""
    shape = rows.shape
    return rows.reshape(heads, 2, shape[0] // heads // 2, -1).swapaxes(1, 2).reshape(shape)


def write_gguf(name, family, seed, kind, alignment=None, rope=None, **changes):
    """Writes a file; returns the config and the weights that it stands for."""
    model = random_model(family, seed, **GGUF_SHAPE, **changes,
                         rope_parameters=dict(PLAIN, rope_theta=10000.0))
    config = model.config
    config.rms_norm_eps = float(np.float32(config.rms_norm_eps))  # as the file has it
    writer = gguf.GGUFWriter(HERE / f"{name}.gguf", family)
    if alignment:
        writer.add_custom_alignment(alignment)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_key_length(config.head_dim if family != "qwen2" else 16)
    writer.add_value_length(config.head_dim if family != "qwen2" else 16)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_rope_freq_base(10000.0)
    writer.add_vocab_size(config.vocab_size)
    writer.add_tokenizer_model("gpt2")
    writer.add_token_list([f"t{i}" for i in range(config.vocab_size)])
    if rope == "linear":
        writer.add_rope_scaling_type(gguf.RopeScalingType.LINEAR)
        writer.add_rope_scaling_factor(4.0)
        config.rope_parameters = {"rope_type": "linear", "rope_theta": 10000.0, "factor": 4.0}
    if rope == "yarn":
        writer.add_rope_scaling_type(gguf.RopeScalingType.YARN)
        writer.add_rope_scaling_factor(4.0)
        writer.add_rope_scaling_orig_ctx_len(32)
        config.rope_parameters = {"rope_type": "yarn", "rope_theta": 10000.0, "factor": 4.0,
                                  "original_max_position_embeddings": 32}
    if rope == "llama3":
        config.rope_parameters = dict(LLAMA3, rope_theta=10000.0,
                                      original_max_position_embeddings=8192)
        turns = 8192 * 10000.0 ** (-np.arange(0, 16, 2) / 16) / (2 * np.pi)
        kept = np.clip((turns - 1) / (4 - 1), 0, 1)
        writer.add_tensor("rope_freqs.weight", (1 / (kept + (1 - kept) / 8)).astype(np.float32))
    weights = {}
    for key, weight in model.state_dict().items():
        if key == "lm_head.weight" and config.tie_word_embeddings:
            continue
        values = weight.float().numpy()
        dtype = kind if values.ndim == 2 else gguf.GGMLQuantizationType.F32
        stored = gguf.quants.quantize(values, dtype)
        weights[key] = gguf.quants.dequantize(stored, dtype).copy()
        if family == "llama" and ("q_proj" in key or "k_proj" in key):
            heads = config.num_attention_heads if "q_proj" in key else config.num_key_value_heads
            stored = np.ascontiguousarray(interleaved(stored, heads))
        writer.add_tensor(gguf_name(key), stored, raw_dtype=dtype)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    check_with_transformers(name, config, weights)
    return name, family, config, weights


def check_with_transformers(name, config, weights):
    """Transformers' own reader of GGUF files must find the same weights."""
    read = transformers.AutoModelForCausalLM.from_pretrained(
        HERE, gguf_file=f"{name}.gguf", config=config, dtype=torch.float32).state_dict()
    for key, values in weights.items():
        assert torch.equal(read[key], torch.from_numpy(values)), (name, key)


def write_ggufs():
    kinds = gguf.GGMLQuantizationType
    tied = dict(tie_word_embeddings=True)
    return [
        write_gguf("llama_f32", "llama", 11, kinds.F32),
        write_gguf("llama_f16_linear", "llama", 12, kinds.F16, rope="linear"),
        write_gguf("llama_bf16_llama3", "llama", 13, kinds.BF16, alignment=64, rope="llama3",
                   **tied),
        write_gguf("llama_q8_0_yarn", "llama", 14, kinds.Q8_0, rope="yarn", **tied),
        write_gguf("llama_q4_0", "llama", 15, kinds.Q4_0),
        write_gguf("llama_q4_1", "llama", 16, kinds.Q4_1, **tied),
        write_gguf("qwen2_q8_0", "qwen2", 17, kinds.Q8_0, alignment=8, **tied),
        write_gguf("qwen3_q4_1", "qwen3", 18, kinds.Q4_1),
    ]


def rope_cases():
    """Configs, in old and new spelling, and what transformers makes of them."""
    base = dict(architectures=["LlamaForCausalLM"], num_hidden_layers=1, hidden_size=64,
                num_attention_heads=2, intermediate_size=8, vocab_size=16, rms_norm_eps=1e-5,
                max_position_embeddings=4096)
    qwen = dict(base, architectures=["Qwen3ForCausalLM"], num_key_value_heads=2)
    llama3 = {"factor": 32.0, "high_freq_factor": 4.0, "low_freq_factor": 1.0,
              "original_max_position_embeddings": 8192, "rope_type": "llama3"}
    return [
        base,
        dict(base, rope_theta=500000.0, rope_scaling=None),
        dict(base, rope_parameters={"rope_type": "default", "rope_theta": 1000000}),
        dict(base, rope_theta=20000.0, rope_scaling={"type": "linear", "factor": 2.5}),
        dict(base, rope_parameters={"rope_type": "linear", "rope_theta": 100, "factor": 8}),
        dict(base, rope_theta=500000.0, rope_scaling=llama3, head_dim=64),
        dict(base, rope_parameters=dict(llama3, rope_theta=500000.0, factor=8.0)),
        dict(base, original_max_position_embeddings=1024,
             rope_parameters=dict(llama3, rope_theta=10000.0)),
        dict(qwen, rope_theta=1000000, rope_scaling={
            "rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 32768}),
        dict(qwen, head_dim=64, rope_theta=10000, rope_scaling={"type": "yarn", "factor": 16.0}),
        dict(base, rope_parameters={
            "rope_type": "yarn", "rope_theta": 10000.0, "factor": 40.0, "mscale": 0.7,
            "mscale_all_dim": 1.3, "beta_fast": 16, "beta_slow": 2, "truncate": False,
            "original_max_position_embeddings": 1000}),
        dict(base, rope_parameters={
            "rope_type": "yarn", "rope_theta": 10000.0, "factor": 0.5, "attention_factor": 1.25,
            "original_max_position_embeddings": 2048}),
    ]


def in_double():
    """The models take norms, softmax and angles through float32 whatever their own type is."""
    torch.set_default_dtype(torch.float64)
    torch.float32 = torch.float = torch.float64
    torch.Tensor.float = torch.Tensor.double


def run(model):
    vocab = model.config.vocab_size
    first, sequences = 0, []
    for length in LENGTHS:
        sequences.append([(n * n + 3 * n) % vocab for n in range(first, first + length)])
        first += length
    return torch.cat([model(torch.tensor([s])).logits[0] for s in sequences])


def array(tensor):
    return np.ascontiguousarray(tensor.detach().numpy().astype(np.float64))


def read_directory(directory):
    weights = {}
    for path in directory.glob("model*.safetensors"):
        weights.update(safetensors.torch.load_file(path))
    return weights


def expect_directory(directory, weights):
    config = transformers.AutoConfig.from_pretrained(directory, attn_implementation="eager")
    model = FAMILIES[config.model_type][1](config).double().eval()
    missing, extra = model.load_state_dict({k: w.double() for k, w in weights.items()},
                                           strict=False)
    assert not extra and missing == (["lm_head.weight"] if config.tie_word_embeddings else [])
    model.tie_weights()
    logits = run(model)
    coefficients = torch.sin(0.9 * torch.arange(logits.numel()) + 0.2).reshape(logits.shape)
    (coefficients * logits).sum().backward()
    result = {"logits": array(logits)}
    for name, parameter in model.named_parameters():
        result[f"gradient.{name}"] = array(parameter.grad)
    safetensors.numpy.save_file(result, directory / "expected.safetensors")


def expect_gguf(family, config, weights):
    config._attn_implementation = "eager"
    model = FAMILIES[family][1](config).double().eval()
    model.load_state_dict({k: torch.from_numpy(w).double() for k, w in weights.items()},
                          strict=not config.tie_word_embeddings)
    model.tie_weights()
    return array(run(model))


def expect_rope(case):
    path = HERE / "config.json"
    path.write_text(json.dumps(dict(case, model_type=case["architectures"][0][:5].lower())))
    config = transformers.AutoConfig.from_pretrained(HERE)
    path.unlink()
    rotary = FAMILIES[config.model_type][1](config).model.rotary_emb
    return {"config": case, "frequencies": rotary.inv_freq.double().tolist(),
            "magnitude": float(rotary.attention_scaling)}


def main():
    write_directories()
    files = write_ggufs()
    directories = {path: read_directory(path) for path in HERE.iterdir() if path.is_dir()}
    in_double()
    for path, weights in directories.items():
        expect_directory(path, weights)
    safetensors.numpy.save_file(
        {name: expect_gguf(family, config, weights) for name, family, config, weights in files},
        HERE / "gguf_expected.safetensors")
    rope = [expect_rope(case) for case in rope_cases()]
    (HERE / "rope.json").write_text(json.dumps(rope, indent=1) + "\n")


main()
