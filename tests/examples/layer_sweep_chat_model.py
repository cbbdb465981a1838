# SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
"""Writes a chat model so small that a sweep of it takes a second: a GGUF file with two layers of
random weights, a token for every byte, and the chat template of SmolLM2."""
import json
import pathlib
import random
import struct

LAYERS, WIDTH, HEADS, FFN = 2, 16, 2, 24
REFERENCE = pathlib.Path(__file__).resolve().parent.parent / "reference"
UINT32, FLOAT32, STRING, ARRAY, INT32 = 4, 6, 8, 9, 5


def spelled(byte):
    """How byte-level BPE spells a byte."""
    if byte in (*range(33, 127), *range(161, 173), *range(174, 256)):
        return chr(byte)
    return chr(256 + sum(b < byte for b in (*range(33), *range(127, 161), 173)))


def text(value):
    data = value.encode()
    return struct.pack("<Q", len(data)) + data


def entry(key, kind, value):
    return text(key) + struct.pack("<I", kind) + value


def array(key, kind, values):
    return entry(key, ARRAY, struct.pack("<IQ", kind, len(values)) + b"".join(values))


def write(path, seed=1):
    """A Llama model; another seed is another model."""
    draw = random.Random(seed).gauss
    template = json.loads((REFERENCE / "chat_template_vectors.json").read_text())
    tokens = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", *map(spelled, range(256))]
    integers = {"block_count": LAYERS, "embedding_length": WIDTH, "feed_forward_length": FFN,
                "attention.head_count": HEADS, "attention.head_count_kv": 1, "context_length": 512,
                "rope.dimension_count": WIDTH // HEADS}
    metadata = [entry("general.architecture", STRING, text("llama")),
                *(entry("llama." + key, UINT32, struct.pack("<I", value))
                  for key, value in integers.items()),
                entry("llama.attention.layer_norm_rms_epsilon", FLOAT32, struct.pack("<f", 1e-5)),
                entry("tokenizer.ggml.model", STRING, text("gpt2")),
                entry("tokenizer.ggml.pre", STRING, text("smollm")),
                array("tokenizer.ggml.tokens", STRING, [text(token) for token in tokens]),
                array("tokenizer.ggml.merges", STRING, []),
                array("tokenizer.ggml.token_type", INT32,
                      [struct.pack("<i", 3 if i < 3 else 1) for i in range(len(tokens))]),
                entry("tokenizer.ggml.eos_token_id", UINT32, struct.pack("<I", 2)),
                entry("tokenizer.chat_template", STRING, text(template["templates"]["smollm2"]))]
    shapes = {"token_embd": (WIDTH, len(tokens)), "output_norm": (WIDTH,)}
    for layer in range(LAYERS):
        shapes |= {f"blk.{layer}.{name}": shape for name, shape in {
            "attn_norm": (WIDTH,), "attn_q": (WIDTH, WIDTH), "attn_k": (WIDTH, WIDTH // HEADS),
            "attn_v": (WIDTH, WIDTH // HEADS), "attn_output": (WIDTH, WIDTH), "ffn_norm": (WIDTH,),
            "ffn_gate": (WIDTH, FFN), "ffn_up": (WIDTH, FFN), "ffn_down": (FFN, WIDTH)}.items()}
    tensors, data = [], b""
    for name, shape in shapes.items():
        tensors.append(text(name + ".weight") + struct.pack("<I", len(shape)) +
                       struct.pack(f"<{len(shape)}Q", *shape) + struct.pack("<IQ", 0, len(data)))
        count = shape[0] * (shape[1] if len(shape) == 2 else 1)
        data += struct.pack(f"<{count}f", *(draw(1 if len(shape) == 1 else 0, 0.2)
                                            for _ in range(count)))
        data += bytes(-len(data) % 32)
    head = struct.pack("<4sIQQ", b"GGUF", 3, len(tensors), len(metadata))
    head += b"".join(metadata) + b"".join(tensors)
    pathlib.Path(path).write_bytes(head + bytes(-len(head) % 32) + data)
