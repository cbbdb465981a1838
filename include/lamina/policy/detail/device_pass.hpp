// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// A policy loss in the log-prob form as row bodies: a row is a sequence, its sums go to a record,
// the records of a call are folded into its result.
#pragma once

#include "lamina/policy/detail/group_totals.hpp"
#include "lamina/policy/detail/sequence_pass.hpp"

LAMINA_NAMESPACE_BEGIN

namespace detail {

// What a row leaves of its sequence.
struct sequence_record {
  sequence_totals sums{};
  value_range ratios{}, corrections{};
  index_t active = 0;
  group_totals group{};  // instead, where a row is a group
};

// What a call leaves in device memory.
struct call_record {
  policy_result result{};
  index_t broken_offsets = 0;  // entries that make no sense: nothing has been computed then
};

struct report_memory {
  vector_view<sequence_record> records;  // [sequences], or [groups]
  call_record* call;
};

// Tokens [begin, end) of a row, and how many of them are active.
struct row_tokens {
  index_t begin, end, active;
};
// Those of a sequence; where offsets are broken, an even share of all tokens, none of which counts.
LAMINA_HOST_DEVICE inline row_tokens share_of_row(index_t tokens, index_t row, index_t rows) {
  return {tokens * row / rows, tokens * (row + 1) / rows, 0};
}
template <lane_group Lanes, real T>
LAMINA_HOST_DEVICE row_tokens tokens_of_row(Lanes lanes, policy_batch<T> const& batch,
                                            index_t tokens, index_t row, bool broken) {
  if (broken) return share_of_row(tokens, row, batch.sequence_count());
  index_t const begin = batch.offsets[row], end = batch.offsets[row + 1];
  if (batch.mask.size == 0) return {begin, end, end - begin};
  double active = 0;
  for (index_t t = begin + lanes.lane(); t < end; t += lanes.count()) {
    active += batch.mask[t] != 0 ? 1 : 0;
  }
  return {begin, end, static_cast<index_t>(lanes.sum(active))};
}

// count_active_tokens, a row a sequence.
template <real T>
struct active_tokens_body {
  static constexpr row_schedule schedule = row_schedule::block;
  policy_batch<T> batch;
  vector_view<T> d_log_probs;
  call_record const* call;

  template <lane_group Lanes>
  LAMINA_HOST_DEVICE void operator()(Lanes lanes, index_t row) const {
    row_tokens const own =
        tokens_of_row(lanes, batch, d_log_probs.size, row, call->broken_offsets != 0);
    for (index_t t = own.begin + lanes.lane(); t < own.end; t += lanes.count()) {
      d_log_probs[t] = static_cast<T>(own.active);
    }
  }
};

// No gradient for the tokens of a row.
template <lane_group Lanes, real T>
LAMINA_HOST_DEVICE void clear_tokens(Lanes lanes, row_tokens const& own, T* d_log_probs,
                                     T* d_entropies) {
  for (index_t t = own.begin + lanes.lane(); t < own.end; t += lanes.count()) {
    d_log_probs[t] = 0;
    if (d_entropies != nullptr) d_entropies[t] = 0;
  }
}

// Coefficients and sums of a sequence.
template <policy_estimator Estimator, real T>
struct sequence_body {
  static constexpr row_schedule schedule = row_schedule::block;
  using number = number_of<Estimator, T>;
  sequence_pass<number, Estimator, T> pass;
  index_t tokens;
  call_record const* call;
  sequence_record* records;

  template <lane_group Lanes>
  LAMINA_HOST_DEVICE void operator()(Lanes lanes, index_t row) const {
    bool const broken = call->broken_offsets != 0;
    row_tokens const own = tokens_of_row(lanes, pass.batch, tokens, row, broken);
    if (broken) {
      clear_tokens(lanes, own, pass.d_log_probs, pass.d_entropies);
      if (lanes.lane() == 0) records[row] = {.active = own.end - own.begin};
      return;
    }
    token_range<number> ratios, corrections;
    sequence_totals const sums = pass.visit(lanes, row, own.active, ratios, corrections);
    value_range const all_ratios = over_lanes(lanes, ratios);
    value_range const all_corrections =
        has_correction<Estimator>() ? over_lanes(lanes, corrections) : value_range{};
    if (lanes.lane() == 0) records[row] = {sums, all_ratios, all_corrections, own.active};
  }

 private:
  template <lane_group Lanes>
  LAMINA_HOST_DEVICE static value_range over_lanes(Lanes lanes, token_range<number> const& range) {
    value_range const own = range.total();
    return {-lanes.max(-own.least), lanes.max(own.most)};
  }
};

// The result of a call: lane i adds records i, i + n, i + 2n ... of n lanes, in this order.
template <policy_estimator Estimator, real T>
struct fold_body {
  static constexpr row_schedule schedule = row_schedule::block;
  Estimator estimator;
  loss_denominators denominators;
  vector_view<sequence_record const> records;
  call_record* call;

  template <lane_group Lanes>
  LAMINA_HOST_DEVICE void operator()(Lanes lanes, index_t /*row*/) const {
    loss_totals<Estimator, T> totals;
    value_range ratios, corrections;
    for (index_t i = lanes.lane(); i < records.size; i += lanes.count()) {
      sequence_record const record = records[i];
      totals.add(estimator, denominators, record.active, record.sums);
      widen(ratios, record.ratios);
      widen(corrections, record.corrections);
    }
    totals.combine(lanes);
    policy_result const result =
        totals.finish({-lanes.max(-ratios.least), lanes.max(ratios.most)},
                      {-lanes.max(-corrections.least), lanes.max(corrections.most)});
    if (lanes.lane() == 0) call->result = result;
  }

 private:
  LAMINA_HOST_DEVICE static void widen(value_range& to, value_range const& from) {
    to.least = from.least < to.least ? from.least : to.least;
    to.most = from.most > to.most ? from.most : to.most;
  }
};

// Coefficients and sums of a prompt group; Pass is what Objective::groups_of gives.
template <class Pass>
struct group_body {
  static constexpr row_schedule schedule = row_schedule::block;
  Pass pass;
  index_t tokens;
  call_record const* call;
  vector_view<sequence_record> records;

  template <lane_group Lanes>
  LAMINA_HOST_DEVICE void operator()(Lanes lanes, index_t row) const {
    group_totals totals;
    if (call->broken_offsets != 0) {
      row_tokens const own = share_of_row(tokens, row, records.size);
      clear_tokens(lanes, own, pass.d_log_probs, pass.d_entropies);
      totals.active = totals.nonfinite = static_cast<double>(own.end - own.begin);
    } else {
      totals = pass.visit(lanes, row);
    }
    if (lanes.lane() == 0) records[row].group = totals;
  }
};

struct group_fold_body {
  static constexpr row_schedule schedule = row_schedule::block;
  vector_view<sequence_record const> records;
  call_record* call;

  template <lane_group Lanes>
  LAMINA_HOST_DEVICE void operator()(Lanes lanes, index_t /*row*/) const {
    group_totals totals;
    for (index_t g = lanes.lane(); g < records.size; g += lanes.count()) {
      totals.add(records[g].group);
    }
    totals.combine(lanes);
    if (lanes.lane() == 0) call->result = totals.finish();
  }
};

}  // namespace detail

LAMINA_NAMESPACE_END
