// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// Packed ragged sequences: no padding, so no masks.
#pragma once

#include <algorithm>
#include <cstdint>
#include <string_view>
#include <vector>

#include "examples/decoder/config.hpp"
#include "lamina/core/view.hpp"
#include "lamina/model/prefix_cache.hpp"

namespace decoder {

using lamina::vector_view;

/// Sequences one after another, and the positions whose logits are wanted.
///
/// tokens      [tokens]         token ids of all sequences
/// offsets     [sequences + 1]  sequence s is tokens [offsets[s], offsets[s + 1])
/// logit_rows  [logit_rows]     ascending indices into tokens; the logits at p predict token p + 1
struct token_batch {
  std::vector<std::int32_t> tokens;
  std::vector<index_t> offsets;
  std::vector<index_t> logit_rows;

  index_t token_count() const { return static_cast<index_t>(tokens.size()); }
  index_t sequence_count() const { return static_cast<index_t>(offsets.size()) - 1; }
};

/// Throws shape_error if offsets are not 0 = o[0] < o[1] < ... < o[sequences] = token_count.
inline void check_offsets(std::string_view function, std::vector<index_t> const& offsets,
                          index_t token_count) {
  index_t const count = static_cast<index_t>(offsets.size());
  if (count < 2) {
    lamina::throw_shape_error(function, ": offsets has ", count,
                              " entries, expected at least 2 (one sequence)");
  }
  if (offsets[0] != 0) {
    lamina::throw_shape_error(function, ": offsets[0] is ", offsets[0], ", expected 0");
  }
  for (std::size_t s = 1; s < offsets.size(); ++s) {
    if (offsets[s] <= offsets[s - 1]) {
      lamina::throw_shape_error(function, ": offsets[", s, "] is ", offsets[s],
                                ", expected more than offsets[", s - 1, "] = ", offsets[s - 1]);
    }
  }
  if (offsets.back() != token_count) {
    lamina::throw_shape_error(function, ": offsets ends at ", offsets.back(), ", there are ",
                              token_count, " tokens");
  }
}

/// Index of the first token id outside [0, vocab), or -1.
template <class Tokens>
index_t first_outside(Tokens const& tokens, index_t vocab) {
  for (std::size_t i = 0; i < tokens.size(); ++i) {
    if (tokens[i] < 0 || tokens[i] >= vocab) return static_cast<index_t>(i);
  }
  return -1;
}

/// Throws config_error naming the first token id outside [0, vocab).
inline void check_tokens(std::string_view function, std::vector<std::int32_t> const& tokens,
                         index_t vocab) {
  if (index_t const i = first_outside(tokens, vocab); i >= 0) {
    lamina::throw_config_error(function, ": tokens[", i, "] is ",
                               tokens[static_cast<std::size_t>(i)], ", expected 0..", vocab - 1);
  }
}

/// Throws shape_error or config_error if the batch cannot be run through a model of this shape.
inline void check(token_batch const& batch, config const& shape) {
  char const* const function = "decoder::forward";
  check_offsets(function, batch.offsets, batch.token_count());
  check_tokens(function, batch.tokens, shape.vocab);
  if (batch.logit_rows.empty()) {
    lamina::throw_shape_error(function, ": logit_rows is empty, expected at least one position");
  }
  for (std::size_t i = 0; i < batch.logit_rows.size(); ++i) {
    index_t const row = batch.logit_rows[i];
    if (row < 0 || row >= batch.token_count()) {
      lamina::throw_shape_error(function, ": logit_rows[", i, "] is ", row, ", expected 0..",
                                batch.token_count() - 1);
    }
    if (i > 0 && row <= batch.logit_rows[i - 1]) {
      lamina::throw_shape_error(function, ": logit_rows[", i, "] is ", row,
                                ", expected more than logit_rows[", i - 1,
                                "] = ", batch.logit_rows[i - 1]);
    }
  }
}

/// The batch whose logits predict the marked tokens: token p is marked, so row p - 1 is wanted.
/// Tokens after the last wanted row of a sequence can change no logit, so they are left out, and so
/// are sequences without a mark.
///
/// predicted  [tokens]  1 for tokens to predict (sampled by a policy, or targets of a loss)
/// targets    [logit_rows], out: the marked tokens in order; may be null
/// Throws shape_error if sizes differ or the first token of a sequence is marked.
inline token_batch predict(std::vector<std::int32_t> const& tokens,
                           std::vector<index_t> const& offsets,
                           std::vector<std::uint8_t> const& predicted,
                           std::vector<std::int32_t>* targets = nullptr) {
  check_offsets("decoder::predict", offsets, static_cast<index_t>(tokens.size()));
  if (predicted.size() != tokens.size()) {
    lamina::throw_shape_error("decoder::predict: predicted has ", predicted.size(),
                              " entries, expected one for each of ", tokens.size(), " tokens");
  }
  token_batch batch;
  batch.offsets.push_back(0);
  if (targets != nullptr) targets->clear();
  for (std::size_t s = 0; s + 1 < offsets.size(); ++s) {
    auto const first = static_cast<std::size_t>(offsets[s]);
    auto last = static_cast<std::size_t>(offsets[s + 1]) - 1;
    if (predicted[first] != 0) {
      lamina::throw_shape_error("decoder::predict: predicted[", first,
                                "] is set, but it is the first token of sequence ", s,
                                ": nothing comes before it");
    }
    while (last > first && predicted[last] == 0) --last;
    for (std::size_t p = first; p < last; ++p) {
      if (predicted[p + 1] != 0) {
        batch.logit_rows.push_back(batch.token_count());
        if (targets != nullptr) targets->push_back(tokens[p + 1]);
      }
      batch.tokens.push_back(tokens[p]);
    }
    if (last > first) batch.offsets.push_back(batch.token_count());
  }
  return batch;
}

/// Sequences [first, last) of a batch.
inline token_batch slice(token_batch const& batch, index_t first, index_t last) {
  auto const begin = batch.offsets.begin() + first, end = batch.offsets.begin() + last;
  auto const row_begin = std::lower_bound(batch.logit_rows.begin(), batch.logit_rows.end(), *begin);
  auto const row_end = std::lower_bound(row_begin, batch.logit_rows.end(), *end);
  token_batch part{{batch.tokens.begin() + *begin, batch.tokens.begin() + *end},
                   {begin, end + 1},
                   {row_begin, row_end}};
  index_t const shift = *begin;
  for (index_t& offset : part.offsets) offset -= shift;
  for (index_t& row : part.logit_rows) row -= shift;
  return part;
}

/// Some sequences of a batch, in the order given; a mini-batch of its own.
/// Throws shape_error if there is no such sequence, or none is given.
inline token_batch select(token_batch const& batch, vector_view<index_t const> sequences) {
  if (sequences.empty()) {
    lamina::throw_shape_error("decoder::select: no sequences are given, expected at least one");
  }
  token_batch part;
  part.offsets.push_back(0);
  for (index_t const sequence : sequences) {
    if (sequence < 0 || sequence >= batch.sequence_count()) {
      lamina::throw_shape_error("decoder::select: sequence ", sequence,
                                " is wanted, the batch has ", batch.sequence_count());
    }
    token_batch const one = slice(batch, sequence, sequence + 1);
    index_t const shift = part.token_count();
    part.tokens.insert(part.tokens.end(), one.tokens.begin(), one.tokens.end());
    for (index_t const row : one.logit_rows) part.logit_rows.push_back(shift + row);
    part.offsets.push_back(part.token_count());
  }
  return part;
}

/// Where the tokens of these sequences lie in the batch: the rows of a prefix cache that was filled
/// with the whole batch, for select(batch, sequences).
inline std::vector<lamina::row_range> token_rows(token_batch const& batch,
                                                 vector_view<index_t const> sequences) {
  std::vector<lamina::row_range> rows;
  for (index_t const sequence : sequences) {
    auto const s = static_cast<std::size_t>(sequence);
    rows.push_back({batch.offsets[s], batch.offsets[s + 1] - batch.offsets[s]});
  }
  return rows;
}

}  // namespace decoder
