// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// Weights and batches for models of any shape, on any backend, quickly made.
#pragma once

#include <cstdint>

#include "benchmarks/fill.hpp"
#include "examples/decoder/batch.hpp"
#include "lamina/model/transformer.hpp"

namespace model_bench {

using lamina::index_t;

/// Sequences of random tokens; the logits of the last `responses` positions of each are wanted.
inline decoder::token_batch random_batch(decoder::config const& shape, index_t sequences,
                                         index_t length, index_t responses) {
  decoder::token_batch batch;
  batch.offsets.push_back(0);
  std::uint32_t state = 1;
  for (index_t s = 0; s < sequences; ++s) {
    for (index_t t = 0; t < length; ++t) {
      if (t >= length - responses) batch.logit_rows.push_back(batch.token_count());
      state = state * 1664525u + 1013904223u;
      batch.tokens.push_back(
          static_cast<std::int32_t>((state >> 8) % static_cast<std::uint32_t>(shape.vocab)));
    }
    batch.offsets.push_back(batch.token_count());
  }
  return batch;
}

/// Weights of the size that trained ones have, quicker than initialize().
template <class Model>
void fill_weights(Model& model) {
  index_t seed = 0;
  for (auto const& parameter : lamina::all_parameters(model)) {
    if (parameter.decays) {
      lamina::benchmarks::fill(model.backend(), parameter.weight, 0.043f, 1'000'003 * ++seed);
    } else {
      lamina::benchmarks::fill(model.backend(), parameter.weight, 0.0f, 0, 1.0f);
    }
  }
}

}  // namespace model_bench
