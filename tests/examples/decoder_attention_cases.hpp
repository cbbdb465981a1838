// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// The attention of a packed batch alone, on a host in double and wherever else.
#pragma once

#include "examples/decoder/batch_attention.hpp"
#include "lamina/backend/backend_vector.hpp"
#include "tests/examples/decoder_cases.hpp"
#include "tests/support/minimal_backend.hpp"

namespace decoder::testing {

struct attention_shape {
  index_t heads, kv_heads, width, longest;
};

inline config shape_of(attention_shape const& c) {
  return {.layer_count = 1,
          .width = 8,
          .head_count = c.heads,
          .kv_head_count = c.kv_heads,
          .head_width = c.width};
}

struct attention_outcome {
  std::vector<double> mixed, log_sums, d_qkv;
};

/// Sequences of `longest` tokens, of 2 and of 1; random heads, four times as large as gradients.
struct attention_problem {
  config shape;
  token_batch batch;
  std::vector<double> qkv, d_mixed;

  explicit attention_problem(attention_shape const& c) : shape(shape_of(c)), batch{{}, {0}, {0}} {
    for (index_t const length : {c.longest, index_t{2}, index_t{1}})
      batch.offsets.push_back(batch.offsets.back() + length);
    batch.tokens.assign(static_cast<std::size_t>(batch.offsets.back()), 0);
    qkv = random_coefficients<double>(tokens() * shape.qkv_width(), 5);
    for (double& x : qkv) x *= 4;
    d_mixed = random_coefficients<double>(tokens() * shape.query_width(), 6);
  }
  index_t tokens() const { return batch.token_count(); }

  attention_outcome on_host() const { return on(lamina::testing::minimal_backend<double>{}); }
  /// By a model over `backend` whose weights are stored as Weight.
  template <class Backend, class Weight = typename Backend::scalar_type>
  attention_outcome on(Backend const& backend) const {
    using T = typename Backend::scalar_type;
    array<Backend> in(backend, qkv, shape.qkv_width()), d_out(backend, d_mixed, query_width());
    array<Backend> mixed(backend, tokens(), query_width());
    array<Backend> log_sums(backend, tokens(), shape.head_count);
    array<Backend> d_qkv(backend, tokens(), shape.qkv_width());
    layer_activations<T> saved;
    saved.qkv = in.matrix();
    saved.mixed = mixed.matrix();
    saved.log_sums = log_sums.matrix();
    auto const placed = place(backend);
    batch_attention<Backend, Weight> attend(backend);
    attend.forward(backend, shape, placed, saved.qkv, saved.mixed, saved.log_sums);
    attend.backward(backend, shape, placed, saved, d_out.matrix(), d_qkv.matrix());
    return {mixed.values(backend), log_sums.values(backend), d_qkv.values(backend)};
  }

 private:
  // A matrix where the backend works, and what was uploaded to it.
  template <class Backend>
  struct array {
    using T = typename Backend::scalar_type;

    array(Backend const& backend, index_t rows, index_t cols_)
        : cols(cols_), elements(backend, rows * cols) {}
    array(Backend const& backend, std::vector<double> const& from, index_t cols_)
        : cols(cols_), host(from.begin(), from.end()), elements(backend, size(host)) {
      lamina::copy_elements(backend, vector_view<T const>(host), elements.view());
    }
    matrix_view<T> matrix() { return {elements.view().data, elements.size() / cols, cols}; }
    std::vector<double> values(Backend const& backend) const {
      auto const result = elements.to_host(backend);
      return {result.begin(), result.end()};
    }

   private:
    static index_t size(std::vector<T> const& v) { return static_cast<index_t>(v.size()); }

    index_t cols;
    std::vector<T> host;
    lamina::backend_vector<Backend, T> elements;
  };

  index_t query_width() const { return shape.query_width(); }
  template <class Backend>
  placed_batch<Backend> place(Backend const& backend) const {
    placed_batch<Backend> placed;
    if constexpr (lamina::device_backend<Backend>) {
      placed = placed_batch<Backend>(backend, batch, shape);
    } else {
      placed.assign(batch);
    }
    return placed;
  }
};

}  // namespace decoder::testing
