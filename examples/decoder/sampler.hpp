// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// Batched sampling: prompts are run once, what was seen of them is copied to every rollout, and the
// rollouts that still go on advance together.
#pragma once

#include "examples/decoder/cached_forward.hpp"
#include "examples/decoder/draw.hpp"

namespace decoder {

/// Sampled sequences, packed. Row r belongs to prompt r / copies.
///
/// tokens          [tokens]    prompt, then what was drawn and what the session forced
/// offsets         [rows + 1]
/// prompt_lengths  [rows]
/// sampled         [tokens]    1 where the policy drew the token
/// log_probs       [tokens]    of drawn tokens at the sampling temperature, without a cut; else 0
/// log_kept        [tokens]    of the probability that the cut left (see draw_tokens), else 0
struct rollouts {
  std::vector<std::int32_t> tokens;
  std::vector<index_t> offsets;
  std::vector<index_t> prompt_lengths;
  std::vector<std::uint8_t> sampled;
  std::vector<float> log_probs;
  std::vector<float> log_kept;

  index_t row_count() const { return static_cast<index_t>(offsets.size()) - 1; }
};

/// Throws what sample throws for its arguments.
inline void check_sampling(config const& shape, std::span<std::vector<std::int32_t> const> prompts,
                           index_t copies, sampling_options const& options, index_t max_length) {
  if (prompts.empty()) lamina::throw_shape_error("decoder::sample: there are no prompts");
  if (copies < 1) {
    lamina::throw_config_error("decoder::sample: copies is ", copies, ", expected at least 1");
  }
  if (!lamina::is_finite(options.temperature) || options.temperature <= 0) {
    lamina::throw_config_error("decoder::sample: temperature is ", options.temperature,
                               ", expected a finite number > 0 (greedy = true draws the mode)");
  }
  truncation const& allowed = options.allowed;
  if (allowed.top_k < 0) {
    lamina::throw_config_error("decoder::sample: top_k is ", allowed.top_k,
                               ", expected a number of tokens, or 0 for all");
  }
  if (!(allowed.top_p > 0 && allowed.top_p <= 1)) {
    lamina::throw_config_error("decoder::sample: top_p is ", allowed.top_p,
                               ", expected a share in (0, 1]");
  }
  if (!(allowed.min_p >= 0 && allowed.min_p <= 1)) {
    lamina::throw_config_error("decoder::sample: min_p is ", allowed.min_p,
                               ", expected a share in [0, 1]");
  }
  for (std::size_t p = 0; p < prompts.size(); ++p) {
    index_t const size = static_cast<index_t>(prompts[p].size());
    if (size == 0) lamina::throw_shape_error("decoder::sample: prompts[", p, "] is empty");
    if (size >= max_length) {
      lamina::throw_config_error("decoder::sample: prompts[", p, "] has ", size,
                                 " tokens, max_length is ", max_length,
                                 ", expected room for at least one more");
    }
    if (index_t const i = first_outside(prompts[p], shape.vocab); i >= 0) {
      lamina::throw_config_error("decoder::sample: prompts[", p, "][", i, "] is ",
                                 prompts[p][static_cast<std::size_t>(i)], ", expected 0..",
                                 shape.vocab - 1);
    }
  }
}

/// Decides how an episode goes on: advance(row, token, forced) is told each drawn token, row by row
/// in ascending order; it may append tokens to `forced` (observations, which follow the drawn one)
/// and returns whether the episode goes on.
template <class S>
concept sampling_session = requires(S& session, index_t row, std::int32_t token,
                                    std::vector<std::int32_t>& forced) {
  { session.advance(row, token, forced) } -> std::convertible_to<bool>;
};

/// A session whose episodes end at max_length.
struct fixed_length {
  bool advance(index_t, std::int32_t, std::vector<std::int32_t>&) const { return true; }
};

/// Samples from models of one backend type; keeps its memory between calls.
template <lamina::host_backend Backend>
class sampler {
 public:
  explicit sampler(Backend const& backend) : forward_(backend) {}

  /// `copies` rollouts of every prompt; row = prompt x copies + copy. A rollout ends when its
  /// session says so or when it has max_length tokens, prompt included. What a row becomes depends
  /// on its prompt, its number, seed and step, not on the rows beside it.
  ///
  /// Throws shape_error for no prompts or an empty one; config_error for copies < 1, a temperature
  /// that is not a finite number > 0, top_k < 0, top_p outside (0, 1], min_p outside [0, 1], a
  /// token id outside the vocabulary (also a forced one), a prompt without room for one more token,
  /// forced tokens past max_length.
  template <class Weight, class Session>
  rollouts sample(transformer<Backend, Weight> const& model,
                  std::span<std::vector<std::int32_t> const> prompts, index_t copies,
                  Session&& session, sampling_options const& options, index_t max_length) {
    static_assert(sampling_session<std::remove_reference_t<Session>>,
                  "decoder: a session needs advance(index_t row, std::int32_t token, "
                  "std::vector<std::int32_t>& forced) that returns bool");
    check_sampling(model.shape(), prompts, copies, options, max_length);
    index_t const prompt_count = static_cast<index_t>(prompts.size());
    max_length_ = max_length;
    start(prompts, copies);
    forward_.reset(model, prompt_count * copies, max_length);

    index_t draws_per_row = copies;  // at first, all copies draw from their prompt's logits
    while (!active_.empty()) {
      auto const logits =
          forward_.run(model, pending_tokens_, {pending_rows_, pending_positions_}, wanted_);
      for (index_t row = 0; draws_per_row > 1 && row < prompt_count * copies; ++row) {
        if (row % copies != 0) forward_.copy_row(row - row % copies, row, length(row));
      }
      draw(model.backend(), logits, draws_per_row, options);
      advance(model.shape(), session);
      draws_per_row = 1;
    }
    return pack(prompts, copies);
  }

 private:
  // Index of a row's position in the arrays [rows, max_length].
  std::size_t place(index_t row, index_t position) const {
    return static_cast<std::size_t>(row * max_length_ + position);
  }
  index_t& length(index_t row) { return lengths_[static_cast<std::size_t>(row)]; }

  // Leaves position `position` of `row` for the next forward pass.
  void add_pending(index_t row, index_t position) {
    pending_tokens_.push_back(tokens_[place(row, position)]);
    pending_rows_.push_back(row);
    pending_positions_.push_back(position);
  }
  void clear_pending() {
    pending_tokens_.clear();
    pending_rows_.clear();
    pending_positions_.clear();
    wanted_.clear();
  }

  void start(std::span<std::vector<std::int32_t> const> prompts, index_t copies);
  template <class T>
  void draw(Backend const& backend, matrix_view<T> logits, index_t draws_per_row,
            sampling_options const& options);
  template <class Session>
  void advance(config const& shape, Session& session);
  rollouts pack(std::span<std::vector<std::int32_t> const> prompts, index_t copies) const;

  cached_forward<Backend> forward_;
  index_t max_length_ = 0;
  std::vector<std::int32_t> tokens_;   // [rows, max_length]
  std::vector<std::uint8_t> sampled_;  // [rows, max_length]
  std::vector<float> log_probs_;       // [rows, max_length]
  std::vector<float> log_kept_;        // [rows, max_length]
  std::vector<index_t> lengths_;       // [rows]
  std::vector<index_t> active_;        // rows that go on, ascending
  std::vector<std::int32_t> forced_;   // what the session appended

  std::vector<std::int32_t> pending_tokens_;  // tokens the cache has not seen
  std::vector<index_t> pending_rows_;
  std::vector<index_t> pending_positions_;
  std::vector<index_t> wanted_;  // the last pending token of each sequence

  std::vector<index_t> draw_positions_;  // [active]
  std::vector<std::int32_t> drawn_;      // [active]
  std::vector<float> drawn_log_probs_;   // [active]
  std::vector<float> drawn_log_kept_;    // [active]
};

/// The same with memory of its own: for a caller who samples once.
template <lamina::host_backend Backend, class Weight, class Session>
rollouts sample(transformer<Backend, Weight> const& model,
                std::span<std::vector<std::int32_t> const> prompts, index_t copies,
                Session&& session, sampling_options const& options, index_t max_length) {
  sampler<Backend> once(model.backend());
  return once.sample(model, prompts, copies, session, options, max_length);
}

/// Every row holds its prompt; the first copies' prompts are pending.
template <lamina::host_backend Backend>
void sampler<Backend>::start(std::span<std::vector<std::int32_t> const> prompts, index_t copies) {
  std::size_t const rows = prompts.size() * static_cast<std::size_t>(copies);
  std::size_t const size = rows * static_cast<std::size_t>(max_length_);
  tokens_.assign(size, 0);
  sampled_.assign(size, 0);
  log_probs_.assign(size, 0);
  log_kept_.assign(size, 0);
  lengths_.resize(rows);
  active_.clear();
  clear_pending();
  for (index_t row = 0; row < static_cast<index_t>(rows); ++row) {
    auto const& prompt = prompts[static_cast<std::size_t>(row / copies)];
    std::copy(prompt.begin(), prompt.end(), tokens_.begin() + row * max_length_);
    length(row) = static_cast<index_t>(prompt.size());
    active_.push_back(row);
    if (row % copies != 0) continue;
    for (index_t p = 0; p < length(row); ++p) add_pending(row, p);
    wanted_.push_back(static_cast<index_t>(pending_tokens_.size()) - 1);
  }
}

/// One token for every active row.
template <lamina::host_backend Backend>
template <class T>
void sampler<Backend>::draw(Backend const& backend, matrix_view<T> logits, index_t draws_per_row,
                            sampling_options const& options) {
  draw_positions_.clear();
  for (index_t const row : active_) draw_positions_.push_back(length(row));
  drawn_.resize(active_.size());
  drawn_log_probs_.resize(active_.size());
  drawn_log_kept_.resize(active_.size());
  backend.executor().run(static_cast<index_t>(active_.size()),
                         draw_tokens<T>{options, logits, draws_per_row, active_, draw_positions_,
                                        drawn_, drawn_log_probs_, drawn_log_kept_});
}

/// Appends what was drawn and what the session answers; drops the rows that end.
template <lamina::host_backend Backend>
template <class Session>
void sampler<Backend>::advance(config const& shape, Session& session) {
  clear_pending();
  std::size_t kept = 0;
  for (std::size_t i = 0; i < active_.size(); ++i) {
    index_t const row = active_[i], position = length(row);
    tokens_[place(row, position)] = drawn_[i];
    sampled_[place(row, position)] = 1;
    log_probs_[place(row, position)] = drawn_log_probs_[i];
    log_kept_[place(row, position)] = drawn_log_kept_[i];
    forced_.clear();
    bool const goes_on = session.advance(row, drawn_[i], forced_);
    index_t const end = position + 1 + static_cast<index_t>(forced_.size());
    if (end > max_length_) {
      lamina::throw_config_error("decoder::sample: the session forced ", forced_.size(),
                                 " tokens on row ", row, ", which then has ", end,
                                 ", expected at most max_length = ", max_length_);
    }
    if (index_t const f = first_outside(forced_, shape.vocab); f >= 0) {
      lamina::throw_config_error("decoder::sample: the session forced token ",
                                 forced_[static_cast<std::size_t>(f)], " on row ", row,
                                 ", expected 0..", shape.vocab - 1);
    }
    std::copy(forced_.begin(), forced_.end(), tokens_.begin() + row * max_length_ + position + 1);
    length(row) = end;
    if (!goes_on || end == max_length_) continue;
    for (index_t p = position; p < end; ++p) add_pending(row, p);
    wanted_.push_back(static_cast<index_t>(pending_tokens_.size()) - 1);
    active_[kept++] = row;
  }
  active_.resize(kept);
}

template <lamina::host_backend Backend>
rollouts sampler<Backend>::pack(std::span<std::vector<std::int32_t> const> prompts,
                                index_t copies) const {
  rollouts result;
  result.offsets.push_back(0);
  for (std::size_t row = 0; row < lengths_.size(); ++row) {
    index_t const first = static_cast<index_t>(row) * max_length_, end = first + lengths_[row];
    auto const append = [first, end](auto& to, auto const& from) {
      to.insert(to.end(), from.begin() + first, from.begin() + end);
    };
    append(result.tokens, tokens_);
    append(result.sampled, sampled_);
    append(result.log_probs, log_probs_);
    append(result.log_kept, log_kept_);
    result.offsets.push_back(static_cast<index_t>(result.tokens.size()));
    auto const& prompt = prompts[row / static_cast<std::size_t>(copies)];
    result.prompt_lengths.push_back(static_cast<index_t>(prompt.size()));
  }
  return result;
}

}  // namespace decoder
