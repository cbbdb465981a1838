// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// Small decoders of every kind, and batches for them.
#pragma once

#include <cstring>
#include <string>
#include <type_traits>
#include <vector>

#include "examples/decoder/transformer.hpp"
#include "lamina/core/random.hpp"

namespace decoder::testing {

struct named_config {
  std::string name;
  config shape;
};

/// Every option of the family, alone and together; grouped queries in all but the first.
inline std::vector<named_config> small_configs() {
  config const base{.layer_count = 3,
                    .width = 8,
                    .head_count = 4,
                    .kv_head_count = 2,
                    .head_width = 4,
                    .ffn_width = 12,
                    .vocab = 11};
  config plain = base, bias = base, norm = base, tied = base, everything = base;
  plain.kv_head_count = 4;
  bias.qkv_bias = true;
  norm.qk_norm = true;
  tied.tied_head = true;
  everything.kv_head_count = 1;
  everything.qkv_bias = everything.qk_norm = everything.tied_head = true;
  return {{"plain", plain},
          {"grouped queries and bias", bias},
          {"grouped queries and query/key norm", norm},
          {"grouped queries and tied head", tied},
          {"everything", everything}};
}

/// Weights from initialize(), moved a little, so that no norm is 1 and no bias 0.
template <class Model>
void randomize(Model& model, std::uint64_t seed) {
  model.initialize(seed);
  lamina::counter_generator draws(seed, 7);
  for (auto const& parameter : lamina::all_parameters(model)) {
    for (auto& weight : parameter.weight) {
      weight += static_cast<typename Model::scalar_type>(0.4 * (draws.uniform() - 0.5));
    }
  }
}

/// Ragged sequences of random tokens; the logits of every third position are wanted.
inline token_batch random_batch(config const& shape, std::vector<index_t> const& lengths,
                                std::uint64_t seed) {
  lamina::counter_generator draws(seed);
  token_batch batch;
  batch.offsets.push_back(0);
  for (index_t const length : lengths) {
    for (index_t t = 0; t < length; ++t) {
      if ((t + length) % 3 != 0) batch.logit_rows.push_back(batch.token_count());
      batch.tokens.push_back(
          static_cast<std::int32_t>(draws.below(static_cast<std::uint32_t>(shape.vocab))));
    }
    batch.offsets.push_back(batch.token_count());
  }
  return batch;
}

/// d loss / d logits of the loss sum_ij coefficient_ij logits_ij.
template <class T>
std::vector<T> random_coefficients(index_t count, std::uint64_t seed) {
  lamina::counter_generator draws(seed, 3);
  std::vector<T> values;
  for (index_t i = 0; i < count; ++i) values.push_back(static_cast<T>(draws.uniform() - 0.5));
  return values;
}

template <class T>
lamina::matrix_view<T const> as_matrix(std::vector<T> const& values, index_t cols) {
  return {values.data(), static_cast<index_t>(values.size()) / cols, cols};
}

/// Whether two vectors hold the same bits.
template <class A, class B>
bool same_bits(A const& a, B const& b) {
  auto const size = [](auto const& v) {
    if constexpr (requires { v.size(); }) {
      return static_cast<std::size_t>(v.size());
    } else {
      return static_cast<std::size_t>(v.size);
    }
  };
  auto const data = [](auto const& v) {
    if constexpr (requires { v.data(); }) {
      return v.data();
    } else {
      return v.data;
    }
  };
  return size(a) == size(b) &&
         (size(a) == 0 || std::memcmp(data(a), data(b), size(a) * sizeof(*data(a))) == 0);
}

template <class T>
std::vector<std::remove_const_t<T>> copy_of(lamina::vector_view<T> view) {
  return {view.begin(), view.end()};
}
template <class T>
std::vector<std::remove_const_t<T>> copy_of(lamina::matrix_view<T> view) {
  return {view.data, view.data + view.rows * view.cols};
}

}  // namespace decoder::testing
