// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// A policy loss on hidden states on a device, chunk by chunk of rows.
#pragma once

#include "lamina/policy/detail/hidden_pass.hpp"
#include "lamina/policy/device_loss.hpp"

LAMINA_NAMESPACE_BEGIN

/// Logits of a chunk are kept in what they are computed in.
struct wide_logits {};
/// Logits of a chunk are rounded to bf16, as PyTorch under autocast and Liger keep them: half the
/// memory and half the traffic, for an error of up to |logit| * 2^-9 in each.
struct narrow_logits {};

namespace detail {

template <class Backend, class In, class Out>
concept multiplies = requires(Backend const& backend, typename Backend::scalar_type s,
                              matrix_view<In const> in, matrix_view<Out> out) {
  backend.template gemm<In, Out>(transpose::no, transpose::no, s, in, in, s, out);
};

// Row r of a chunk belongs to token first + r.
struct token_of_chunk {
  index_t first;
  LAMINA_HOST_DEVICE index_t operator()(index_t row) const noexcept { return first + row; }
};

// What products read. Hidden states and head as they lie where the backend multiplies them so; not
// f16, in which d logits would underflow: c p falls below 6e-8 as soon as a batch has 1000 tokens.
template <class Backend, class T, class Head>
using operand_of = std::conditional_t<std::same_as<T, typename Head::scalar_type> &&
                                          (real<T> || (std::same_as<T, bf16> &&
                                                       multiplies<Backend, T, compute_t<T>> &&
                                                       multiplies<Backend, T, T>)),
                                      T, compute_t<T>>;

// Scratch of a chunk of `rows` tokens: logits [rows, vocab] as Logits says, which become d logits
// as they are multiplied; hidden rows where the host's cannot be used; a block of the head where it
// has to be converted. Rows begin at multiples of 32 bytes.
template <class Backend, storage_scalar T, output_head Head, class Logits = wide_logits>
struct device_hidden_layout {
  using scalar = compute_t<T>;
  using operand = operand_of<Backend, T, Head>;
  using logit = std::conditional_t<std::same_as<Logits, narrow_logits>, operand, scalar>;
  static_assert(std::same_as<Logits, wide_logits> || std::same_as<operand, bf16>,
                "lamina: narrow_logits need bf16 hidden states, a bf16 head and a backend that "
                "multiplies bf16 as it lies");
  static constexpr bool converts_hidden = !std::same_as<T, operand>;
  static constexpr bool converts_head = !std::same_as<typename Head::scalar_type, operand>;
  static constexpr index_t most_block = 2048;
  index_t vocab;
  index_t width;

  device_hidden_layout(hidden_states<T> const& states, Head const& head)
      : vocab(head.weights.rows), width(states.hidden.cols) {}

  index_t vocab_stride() const {  // in logits
    constexpr index_t step = 32 / static_cast<index_t>(sizeof(logit));
    return (vocab + step - 1) / step * step;
  }
  index_t logits_size() const {  // of a row, in scalars
    return vocab_stride() * static_cast<index_t>(sizeof(logit)) /
           static_cast<index_t>(sizeof(scalar));
  }
  index_t width_stride() const { return (width + 7) / 8 * 8; }  // in scalars, whatever they hold
  index_t row_size() const {
    return logits_size() + (converts_hidden || Head::trained ? width_stride() : 0);
  }
  index_t block_rows() const {
    return converts_head && vocab > most_block ? index_t(most_block) : vocab;
  }
  index_t fixed_size() const { return converts_head ? block_rows() * width : 0; }
  index_t size(index_t rows) const { return rows * row_size() + fixed_size(); }
  index_t rows_in(index_t size) const { return (size - fixed_size()) / row_size(); }
};

// Rows of a chunk, in the type of the product; all zeros where nothing flows back, so that what is
// not finite there meets no product.
template <storage_scalar From, storage_scalar To>
struct gradient_rows_body {
  using compute = compute_t<From>;
  matrix_view<From const> from;
  matrix_view<To> to;
  policy_batch<compute> batch;
  policy_outputs<compute> outputs;
  token_of_chunk token_of;

  template <lane_group Lanes>
  LAMINA_HOST_DEVICE void operator()(Lanes lanes, index_t row) const {
    index_t const t = token_of(row);
    bool const flows =
        batch.active(t) && (outputs.d_log_probs[t] != 0 ||
                            (outputs.d_entropies.size > 0 && outputs.d_entropies[t] != 0));
    From const* const source = from.row(row).data;
    To* const target = to.row(row).data;
    for_each_element(lanes, 0, to.cols, [source, target, flows](index_t i) {
      target[i] = flows ? static_cast<To>(static_cast<compute>(source[i])) : To(0.0f);
    });
  }
};

// Coefficient 1 for every token that has a log-prob.
template <real T>
struct unit_coefficients_body {
  static constexpr row_schedule schedule = row_schedule::thread;
  policy_batch<T> batch;
  policy_outputs<T> outputs;
  token_of_chunk token_of;

  template <lane_group Lanes>
  LAMINA_HOST_DEVICE void operator()(Lanes lanes, index_t row) const {
    if (lanes.lane() != 0) return;
    index_t const t = token_of(row);
    outputs.d_log_probs[t] = batch.active(t) && is_finite(outputs.log_probs[t]) ? T(1) : T(0);
    if (outputs.d_entropies.size > 0) outputs.d_entropies[t] = 0;
  }
};

template <storage_scalar T>
struct scale_hidden_body {
  matrix_view<T> d_hidden;
  vector_view<compute_t<T> const> factors;

  template <lane_group Lanes>
  LAMINA_HOST_DEVICE void operator()(Lanes lanes, index_t row) const {
    T* const values = d_hidden.row(row).data;
    compute_t<T> const factor = factors[row];
    for_each_element(lanes, 0, d_hidden.cols, [values, factor](index_t i) {
      values[i] = static_cast<T>(factor * static_cast<compute_t<T>>(values[i]));
    });
  }
};

// One call of a policy loss in the hidden form.
template <device_backend Backend, policy_objective Estimator, storage_scalar T, output_head Head,
          class Logits>
struct device_hidden_pass {
  using scalar = compute_t<T>;
  using layout_type = device_hidden_layout<Backend, T, Head, Logits>;
  using operand = typename layout_type::operand;
  using logit = typename layout_type::logit;
  struct chunk {
    index_t begin, rows;
  };

  Backend const& backend;
  Estimator const& estimator;
  hidden_states<T> const& states;
  Head const& head;
  policy_batch<scalar> const& batch;
  policy_outputs<scalar> const& outputs;
  layout_type layout;
  index_t most_rows;
  scalar* scratch;
  report_memory memory;

  void run() const {
    if constexpr (token_local<Estimator>) {
      visit_once();
    } else if constexpr (!Head::trained) {
      if (estimator.entropy.active()) {
        visit_twice();
      } else {
        visit_and_scale();
      }
    } else {
      visit_twice();
    }
  }

 private:
  // A token's coefficient needs nothing but the token.
  void visit_once() const {
    backend.executor().run(batch.sequence_count(),
                           active_tokens_body<scalar>{batch, outputs.d_log_probs, memory.call});
    for_each_chunk([this](chunk c) {
      multiply(c);
      run_with_entropies(backend, c.rows, !outputs.entropies.empty(), [&](auto with) {
        return policy_logits_body<with(), logit, Estimator, token_of_chunk, operand>{
            logits(c), batch, outputs, estimator, {c.begin}};
      });
      propagate(c);
    });
    reduce();
  }

  // Coefficients need other tokens, but d hidden of a token is proportional to its own: each row
  // goes back with coefficient 1 and is scaled once the coefficients are known.
  void visit_and_scale() const {
    for_each_chunk([this](chunk c) {
      multiply(c);
      summarize(c);
      backend.executor().run(c.rows, unit_coefficients_body<scalar>{batch, outputs, {c.begin}});
      differentiate(c);
    });
    reduce();
    backend.executor().run(states.d_hidden.rows,
                           scale_hidden_body<T>{states.d_hidden, outputs.d_log_probs});
  }

  // Log-probs of all tokens first, gradients then. The logits of the last chunk serve both.
  void visit_twice() const {
    chunk last{};
    for_each_chunk([&](chunk c) {
      multiply(c);
      summarize(c);
      last = c;
    });
    reduce();
    if (last.rows > 0) differentiate(last);
    for_each_chunk([&](chunk c) {
      if (c.begin == last.begin) return;
      multiply(c);
      differentiate(c);
    });
  }

  template <class F>
  void for_each_chunk(F const& f) const {
    for (index_t begin = 0; begin < states.hidden.rows; begin += most_rows) {
      index_t const left = states.hidden.rows - begin;
      f(chunk{begin, left < most_rows ? left : most_rows});
    }
  }

  matrix_view<logit> logits(chunk c) const {
    return {reinterpret_cast<logit*>(scratch), c.rows, layout.vocab, layout.vocab_stride()};
  }
  // The same once they are d logits in the type of the product.
  matrix_view<operand const> d_logits(chunk c, index_t first, index_t count) const {
    index_t const each = static_cast<index_t>(sizeof(logit) / sizeof(operand));
    return {reinterpret_cast<operand const*>(scratch) + first, c.rows, count,
            each * layout.vocab_stride()};
  }
  matrix_view<operand> rows(chunk c) const {
    return {reinterpret_cast<operand*>(scratch + most_rows * layout.logits_size()), c.rows,
            layout.width};
  }
  scalar* head_block() const { return scratch + most_rows * layout.row_size(); }

  template <class In, class Out>
  void product(transpose ta, transpose tb, matrix_view<In const> a, matrix_view<In const> b,
               scalar beta, matrix_view<Out> c) const {
    if constexpr (std::same_as<In, scalar> && std::same_as<Out, scalar>) {
      backend.gemm(ta, tb, scalar(1), a, b, beta, c);
    } else {
      backend.template gemm<In, Out>(ta, tb, scalar(1), a, b, beta, c);
    }
  }

  template <class F>
  void for_each_head_block(F const& f) const {
    detail::for_each_head_block<layout_type::converts_head>(backend, head, layout.block_rows(),
                                                            head_block(), f);
  }

  void multiply(chunk c) const {
    matrix_view<operand const> hidden{};
    if constexpr (layout_type::converts_hidden) {
      backend.executor().run(c.rows, copy_rows_body<T, operand, token_of_chunk, token_of_row>{
                                         states.hidden, rows(c), {c.begin}});
      hidden = rows(c);
    } else {
      hidden = states.hidden.row_block(c.begin, c.rows);
    }
    for_each_head_block([&](index_t first, matrix_view<operand const> weights) {
      product<operand, logit>(
          transpose::no, transpose::yes, hidden, weights, 0,
          {logits(c).data + first, c.rows, weights.rows, layout.vocab_stride()});
    });
  }
  void summarize(chunk c) const {
    std::uint8_t const* const mask = batch.mask.empty() ? nullptr : batch.mask.data;
    run_with_entropies(backend, c.rows, !outputs.entropies.empty(), [&](auto with) {
      return token_log_prob_body<with(), logit, token_of_chunk>{
          logits(c),
          batch.token_ids.data,
          mask,
          static_cast<scalar>(1.0 / batch.temperature),
          outputs.log_probs,
          outputs.entropies,
          {c.begin}};
    });
  }
  void reduce() const {
    run_sequences<Backend, Estimator, scalar>(backend, estimator, batch, outputs, memory);
  }
  void differentiate(chunk c) const {
    backend.executor().run(c.rows, logits_gradient_body<logit, token_of_chunk, operand>{
                                       logits(c), batch, outputs, {c.begin}});
    propagate(c);
  }

  // d logits -> d hidden and d head.
  void propagate(chunk c) const {
    if constexpr (Head::trained) {
      backend.executor().run(
          c.rows,
          gradient_rows_body<T, operand>{
              states.hidden.row_block(c.begin, c.rows), rows(c), batch, outputs, {c.begin}});
      product<operand, scalar>(transpose::yes, transpose::no, d_logits(c, 0, layout.vocab), rows(c),
                               1, head.d_weights);
    }
    matrix_view<T> const d_hidden = states.d_hidden.row_block(c.begin, c.rows);
    matrix_view<operand> out{};
    if constexpr (layout_type::converts_hidden) {
      out = rows(c);
    } else {
      out = d_hidden;
    }
    for_each_head_block([&](index_t first, matrix_view<operand const> weights) {
      product<operand, operand>(transpose::no, transpose::no, d_logits(c, first, weights.rows),
                                weights, first == 0 ? 0 : 1, out);
    });
    if constexpr (layout_type::converts_hidden) {
      backend.executor().run(
          c.rows, copy_rows_body<operand, T, token_of_row, token_of_row>{rows(c), d_hidden});
    }
  }
};

}  // namespace detail

LAMINA_NAMESPACE_END
