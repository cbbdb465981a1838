#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
"""Trains small byte-level BPE tokenizers with Hugging Face's tokenizers, one for every kind of
component that examples/decoder/tokenizer_json.hpp reads, and records what they make of some texts.

Run: python3 tests/reference/tokenizer_vectors.py > tests/reference/tokenizer_vectors.json
Made with tokenizers 0.23.3.
"""
import json
import unicodedata

from tokenizers import AddedToken, Regex, Tokenizer
from tokenizers import decoders, models, normalizers, pre_tokenizers, processors, trainers

# The patterns in the tokenizer.json files of openai-community/gpt2, meta-llama/Llama-3.2-1B and
# Qwen/Qwen2-0.5B.
CONTRACTIONS = "(?i:'s|'t|'re|'ve|'m|'ll|'d)"
TAIL = r" ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
LLAMA3 = CONTRACTIONS + r"|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}|" + TAIL
QWEN2 = CONTRACTIONS + r"|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}|" + TAIL
GPT2 = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"

CORPUS = [
    "A layer that is not selected keeps its weights; the layers between carry the gradient on.",
    "If the reward of every answer is the same, there is nothing to learn from the group.",
    "She'll say it's 3 + 4 = 7, and they've said that 12345 isn't 12,346. I'm sure he'd agree.",
    "for (int i = 0; i < count; ++i) { sum += values[i] * 2; }\n    return sum;\n",
    "def add(a, b):\n\treturn a + b\n\n\nprint(add(10, 200), 3000)\r\n",
    "Se\u00f1or M\u00fcller a\u00df \u00e0 la carte: caf\u00e9, cr\u00e8me br\u00fbl\u00e9e.",
    "\u65e5\u672c\u8a9e\u306e\u6587\u7ae0 \u4e2d\u6587\u53e5\u5b50 \ud55c\uad6d\uc5b4",
] * 4

TEXTS = [
    "", " ", "  ", "   a", "a   ", "\n", " \n ", "\n\n\n", "\r\n\r\n x", "\t\tif x:",
    "a\u00a0\u00a0b",
    "\u3000\u3000x \u2003y", "a \u0085b", "the layers", " the  layers   carry",
    "it's they've I'm he'd she'll we're 'tis don't", "IT'S THEY'VE I'M HE'D SHE'LL WE'RE DON'T",
    "it'\u017f 'Re 'vE 'lL 'L 'r '", "a'b''s'", "7", "42 1234567890 3.14159 1,000,000 -5e-3",
    "a1b22c333d4444", "x\u00b2 \u00bd \u2167 \u0663\u0664\u0665 \u2460",
    "values[i] += 2; // ++i\n\n\treturn;", "!!! ... --- \"\" ({[]})\n\n\n", "#\n?\r\n!",
    "se\u00f1or cafe\u0301 e\u0301\u0300 \u212b \u1e9b\u0323 q\u0307\u0323 \u0344",
    "\u1100\u1161\u11a8 \uac00\u11a8 \ud55c\uad6d\uc5b4",
    "\u65e5\u672c\u8a9e\u3001\u4e2d\u6587\u3002",
    "\u0939\u093f\u0928\u094d\u0926\u0940 \u0e44\u0e17\u0e22",
    "\u0645\u0631\u062d\u0628\u0627 \u05e9\u05dc\u05d5\u05dd \u0395\u03bb\u03bb\u03ac\u03b4\u03b1",
    "\U0001f600\U0001f468\u200d\U0001f469\u200d\U0001f467 \U0001f44d\U0001f3fd \ufe0f",
    "\u200b\u2028\u2029\ufeff\u0001\u007f", "\ud7ff\ue000\uffff\U00010000\U0010ffff",
    "<s>the layer</s>", "</s></s> <s> x", "<s", "<|tool|>call<|tool|>", "a<mask>b  <mask>  c",
    "a \t<left>b<left> <right>\n c <both>  <both> d",
    "word xword word. word_ (word) words \u00e9word",
    "caf\u00e9 cafe\u0301 <caf\u00e9> <cafe\u0301>", "</s>word<s>", "Qzx Qzxw a Qzx",
]
SOME = [text for text in TEXTS if "<" in text]


def train(pre_tokenizer, normalizer=None, alphabet=True, unknown=None, size=340, **model):
    tokenizer = Tokenizer(models.BPE(unk_token=unknown, **model))
    tokenizer.pre_tokenizer = pre_tokenizer
    tokenizer.decoder = decoders.ByteLevel()
    if normalizer:
        tokenizer.normalizer = normalizer
    special = ["<s>", "</s>"] + ([unknown] if unknown else [])
    tokenizer.train_from_iterator(CORPUS, trainers.BpeTrainer(
        vocab_size=size, special_tokens=special, show_progress=False,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet() if alphabet else []))
    return tokenizer


def byte_level(prefix=False, regex=True):
    return pre_tokenizers.ByteLevel(add_prefix_space=prefix, use_regex=regex)


def split(pattern):
    return pre_tokenizers.Sequence(
        [pre_tokenizers.Split(Regex(pattern), "isolated"), byte_level(regex=False)])


def digits(individual):
    return pre_tokenizers.Sequence([pre_tokenizers.Digits(individual), byte_level()])


def around(first, last=None):
    special = [(token, number) for token, number in ((first, 0), (last, 1)) if token]
    return processors.TemplateProcessing(
        single=f"{first} $A" + (f" {last}" if last else ""), special_tokens=special)


def tokenizers():
    made = {"gpt2": train(byte_level()), "split_gpt2": train(split(GPT2)),
            "prefix_space": train(byte_level(prefix=True)),
            "smollm": train(digits(True)), "digit_runs": train(digits(False)),
            "llama3": train(split(LLAMA3)), "qwen2": train(split(QWEN2), normalizers.NFC())}
    made["gpt2"].post_processor = processors.ByteLevel(trim_offsets=False)
    made["smollm"].post_processor = around("<s>", "</s>")
    made["llama3"].post_processor = processors.Sequence(
        [processors.ByteLevel(trim_offsets=False), around("<s>")])
    # Added tokens of every kind; some of them in the vocabulary, most behind it.
    made["added"] = train(byte_level(), normalizers.Sequence([normalizers.NFC()]))
    made["added"].add_tokens([
        AddedToken("<|tool|>", normalized=False), AddedToken("<|tool|>call", normalized=False),
        AddedToken("<left>", lstrip=True, normalized=False), AddedToken("<right>", rstrip=True),
        AddedToken("<both>", lstrip=True, rstrip=True), AddedToken("word", single_word=True),
        AddedToken("<cafe\u0301>", normalized=True), AddedToken("the", normalized=False)])
    made["added"].add_special_tokens([AddedToken("<mask>", lstrip=True)])
    # Vocabularies without all bytes.
    made["dropping"] = train(byte_level(), alphabet=False, size=120)
    made["unknown"] = train(byte_level(), alphabet=False, size=120, unknown="<unk>")
    made["fused_unknown"] = train(byte_level(), alphabet=False, size=120, unknown="<unk>",
                                  fuse_unk=True)
    return made


def description(name, tokenizer):
    """The tokenizer.json, in some cases as other releases write it."""
    text = json.loads(tokenizer.to_str())
    if name == "llama3":  # tokens that no merge makes
        text["model"]["ignore_merges"] = True
        for token in ("\u0120Qzx", "Qzx"):
            text["model"]["vocab"][token] = len(text["model"]["vocab"])
    if name == "gpt2":  # merges as before release 0.20
        text["model"]["merges"] = [" ".join(pair) for pair in text["model"]["merges"]]
    return text


def whole(text):
    """Null where the tokens make up no whole characters, for which the decoder puts U+FFFD. It does
    that in an added token with a character beyond ASCII too."""
    return None if "\ufffd" in text else text


def main():
    cases = []
    for name, tokenizer in tokenizers().items():
        text = description(name, tokenizer)
        tokenizer = Tokenizer.from_str(json.dumps(text))
        ids = [tokenizer.encode(t).ids for t in TEXTS]
        cases.append({
            "name": name, "tokenizer": text, "ids": ids,
            "plain_ids": [tokenizer.encode(t, add_special_tokens=False).ids for t in SOME],
            # Of texts that do not come back as they were.
            "decoded": {i: whole(decoded) for i, t in enumerate(TEXTS)
                        if (decoded := tokenizer.decode(ids[i], skip_special_tokens=False)) != t},
            "decoded_without_special": [whole(tokenizer.decode(tokenizer.encode(t).ids))
                                        for t in SOME]})
        tokenizer.encode_special_tokens = True
        cases[-1]["split_ids"] = [tokenizer.encode(t).ids for t in SOME]
    # A case in which the input is not composed already.
    assert any(unicodedata.normalize("NFC", t) != t for t in TEXTS)
    print(json.dumps({"texts": TEXTS, "some": SOME, "tokenizers": cases}, separators=(",", ":")))


if __name__ == "__main__":
    main()
