// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// A policy loss on hidden states, chunk by chunk of tokens.
#pragma once

#include "lamina/policy/hidden_states.hpp"
#include "lamina/policy/logits_loss.hpp"

LAMINA_NAMESPACE_BEGIN

namespace detail {

// Row to_row(i) of `to` becomes row from_row(i) of `from`, in the type of `to`.
template <storage_scalar From, storage_scalar To, class FromRow, class ToRow>
struct copy_rows_body {
  matrix_view<From const> from;
  matrix_view<To> to;
  FromRow from_row{};
  ToRow to_row{};

  template <lane_group Lanes>
  LAMINA_HOST_DEVICE void operator()(Lanes lanes, index_t row) const {
    From const* const source = from.row(from_row(row)).data;
    To* const target = to.row(to_row(row)).data;
    for_each_element(lanes, 0, to.cols, [source, target](index_t i) {
      target[i] = static_cast<To>(static_cast<compute_t<From>>(source[i]));
    });
  }
};

// f(first, rows) for the head in blocks of `most` rows: as they lie, or converted to the type of
// the product in `room`.
template <bool Converts, tensor_backend Backend, output_head Head, real Scalar, class F>
void for_each_head_block(Backend const& backend, Head const& head, index_t most, Scalar* room,
                         F const& f) {
  for (index_t first = 0; first < head.weights.rows; first += most) {
    index_t const left = head.weights.rows - first;
    auto const block = head.weights.row_block(first, left < most ? left : most);
    if constexpr (Converts) {
      matrix_view<Scalar> const converted(room, block.rows, block.cols);
      backend.executor().run(
          block.rows,
          copy_rows_body<typename Head::scalar_type, Scalar, token_of_row, token_of_row>{
              block, converted});
      f(first, matrix_view<Scalar const>(converted));
    } else {
      f(first, block);
    }
  }
}

// One call of a policy loss in the hidden form.
template <tensor_backend Backend, policy_objective Estimator, storage_scalar T, output_head Head>
struct hidden_pass {
  using scalar = compute_t<T>;
  using list = token_list<scalar>;
  using layout_type = hidden_layout<T, Head>;
  struct chunk {
    index_t begin = 0, end = 0;  // tokens it covers
    index_t rows = 0;            // tokens it lists
  };

  Backend const& backend;
  Estimator const& estimator;
  hidden_states<T> const& states;
  Head const& head;
  policy_batch<scalar> const& batch;
  policy_outputs<scalar> const& outputs;
  layout_type layout;
  index_t most_rows;  // a chunk lists at most
  scalar* scratch;

  policy_result run() const {
    for (index_t t = 0; t < batch.token_count(); ++t) {
      if (batch.active(t)) continue;
      outputs.log_probs[t] = 0;
      if (!outputs.entropies.empty()) outputs.entropies[t] = 0;
    }
    if constexpr (token_local<Estimator>) {
      return visit_once();
    } else {
      if constexpr (!Head::trained) {
        if (!estimator.entropy.active()) return visit_and_scale();
      }
      return visit_twice();
    }
  }

 private:
  // A token's coefficient needs nothing but the token.
  policy_result visit_once() const {
    count_active_tokens(batch, outputs.d_log_probs);
    for (chunk c = take_active(0); c.begin < batch.token_count(); c = take_active(c.end)) {
      multiply(c);
      run_body(c, [&](auto with_entropy) {
        return policy_logits_body<with_entropy(), scalar, Estimator, list>{
            logits(c.rows), batch, outputs, estimator, token_of()};
      });
      propagate(c);
    }
    return reduce();
  }

  // Coefficients need other tokens, but d hidden of a token is proportional to its own: each row
  // goes back with coefficient 1 and is scaled once the coefficients are known.
  policy_result visit_and_scale() const {
    for (scalar& slope : outputs.d_entropies) slope = 0;
    for (chunk c = take_active(0); c.begin < batch.token_count(); c = take_active(c.end)) {
      multiply(c);
      summarize(c);
      for (index_t t = c.begin; t < c.end; ++t) {
        outputs.d_log_probs[t] = is_finite(outputs.log_probs[t]) ? scalar(1) : scalar(0);
      }
      differentiate(c);
    }
    policy_result const result = reduce();
    for (index_t t = 0; t < batch.token_count(); ++t) {
      for (T& d : states.d_hidden.row(t)) {
        d = static_cast<T>(static_cast<scalar>(d) * outputs.d_log_probs[t]);
      }
    }
    return result;
  }

  // Log-probs of all tokens first, gradients then. The logits of the last chunk serve both.
  policy_result visit_twice() const {
    chunk last;
    for (chunk c = take_active(0); c.begin < batch.token_count(); c = take_active(c.end)) {
      multiply(c);
      summarize(c);
      last = c;
    }
    policy_result const result = reduce();
    differentiate(last);
    auto const next = [&](index_t begin) {
      return take(begin, last.begin, [this](index_t t) { return has_gradient(t); });
    };
    for (chunk c = next(0); c.begin < last.begin; c = next(c.end)) {
      multiply(c);
      differentiate(c);
    }
    return result;
  }

  matrix_view<scalar> logits(index_t rows) const { return {scratch, rows, layout.vocab}; }
  matrix_view<scalar> hidden(index_t rows) const {
    return {scratch + most_rows * layout.vocab, rows, layout.width};
  }
  scalar* block() const { return scratch + most_rows * (layout.vocab + layout.width); }
  list token_of() const { return {block() + layout.fixed_size()}; }

  // Whether a token's coefficients, once known, let anything flow back.
  bool has_gradient(index_t t) const {
    return batch.active(t) && (outputs.d_log_probs[t] != 0 ||
                               (outputs.d_entropies.size > 0 && outputs.d_entropies[t] != 0));
  }

  // Lists wanted tokens from `begin` on until the chunk is full; it covers what follows unwanted.
  template <class Wanted>
  chunk take(index_t begin, index_t end, Wanted wanted) const {
    chunk c{begin, begin, 0};
    for (; c.end < end; ++c.end) {
      if (!wanted(c.end)) continue;
      if (c.rows == most_rows) break;
      token_of().set(c.rows++, c.end);
    }
    return c;
  }

  chunk take_active(index_t begin) const {
    return take(begin, batch.token_count(), [this](index_t t) { return batch.active(t); });
  }

  template <class F>
  void for_each_head_block(index_t most, F const& f) const {
    detail::for_each_head_block<layout_type::converts_head>(backend, head, most, block(), f);
  }

  // logits = hidden rows of the listed tokens times head^T. By blocks also where nothing has to be
  // converted: a product packs the whole head anew for every chunk otherwise.
  void multiply(chunk const& c) const {
    if (c.rows == 0) return;
    matrix_view<scalar> const rows = hidden(c.rows);
    backend.executor().run(
        c.rows, copy_rows_body<T, scalar, list, token_of_row>{states.hidden, rows, token_of(), {}});
    for_each_head_block(layout_type::most_block,
                        [&](index_t first, matrix_view<scalar const> weights) {
                          backend.gemm(transpose::no, transpose::yes, scalar(1), rows, weights,
                                       scalar(0), columns(c.rows, first, weights.rows));
                        });
  }
  matrix_view<scalar> columns(index_t rows, index_t first, index_t count) const {
    return {scratch + first, rows, count, layout.vocab};
  }

  // Runs the body that make(std::true_type) gives, or make(std::false_type) without entropies.
  template <class Make>
  void run_body(chunk const& c, Make const& make) const {
    if (outputs.entropies.empty()) {
      backend.executor().run(c.rows, make(std::false_type{}));
    } else {
      backend.executor().run(c.rows, make(std::true_type{}));
    }
  }
  void summarize(chunk const& c) const {
    run_body(c, [&](auto with_entropy) {
      return token_log_prob_body<with_entropy(), scalar, list>{
          logits(c.rows),    batch.token_ids.data,
          nullptr,           static_cast<scalar>(1.0 / batch.temperature),
          outputs.log_probs, outputs.entropies,
          token_of()};
    });
  }
  policy_result reduce() const {
    return reduce_policy_loss<Estimator, scalar>(estimator, outputs.log_probs, batch,
                                                 outputs.entropies, outputs.d_log_probs,
                                                 outputs.d_entropies);
  }
  void differentiate(chunk const& c) const {
    backend.executor().run(
        c.rows, logits_gradient_body<scalar, list>{logits(c.rows), batch, outputs, token_of()});
    propagate(c);
  }

  // d logits -> d hidden and d head. Tokens without gradient take no part, so that what is not
  // finite in their hidden states meets no product.
  void propagate(chunk const& c) const {
    for (index_t t = c.begin; t < c.end; ++t) {
      if (!has_gradient(t)) clear_row(single_lane{}, states.d_hidden.row(t).data, layout.width);
    }
    index_t const count = drop_rows_without_gradient(c.rows);
    if (count == 0) return;
    matrix_view<scalar> const rows = hidden(count);
    if constexpr (Head::trained) {
      backend.gemm(transpose::yes, transpose::no, scalar(1), logits(count), rows, scalar(1),
                   head.d_weights);
    }
    index_t const block_rows = layout_type::converts_head ? layout_type::most_block : layout.vocab;
    for_each_head_block(block_rows, [&](index_t first, matrix_view<scalar const> weights) {
      backend.gemm(transpose::no, transpose::no, scalar(1), columns(count, first, weights.rows),
                   weights, scalar(first == 0 ? 0 : 1), rows);
    });
    backend.executor().run(count, copy_rows_body<scalar, T, token_of_row, list>{
                                      rows, states.d_hidden, {}, token_of()});
  }

  // Rows from the end take the places of rows without gradient; returns how many are left.
  index_t drop_rows_without_gradient(index_t rows) const {
    for (index_t row = 0;; ++row) {
      while (row < rows && has_gradient(token_of()(row))) ++row;
      while (rows > row && !has_gradient(token_of()(rows - 1))) --rows;
      if (row == rows) return rows;
      --rows;
      copy_row(logits(rows + 1), rows, row);
      if constexpr (Head::trained) copy_row(hidden(rows + 1), rows, row);
      token_of().set(row, token_of()(rows));
    }
  }
  static void copy_row(matrix_view<scalar> matrix, index_t from, index_t to) {
    std::memcpy(matrix.row(to).data, matrix.row(from).data,
                static_cast<std::size_t>(matrix.cols) * sizeof(scalar));
  }
};

}  // namespace detail

LAMINA_NAMESPACE_END
