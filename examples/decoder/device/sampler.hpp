// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// Batched sampling on a device: one step draws a token for every row, and no step needs the host,
// so that it can be captured in a graph and replayed.
#pragma once

#include <optional>

#include "examples/decoder/device/attend.hpp"
#include "examples/decoder/device/draw.hpp"
#include "examples/decoder/sampler.hpp"

namespace decoder {

/// target[first[i] + positions[i], :] = source[i, :]: keys and values of new tokens go to their
/// places in the cache.
template <real T>
struct store_rows {
  matrix_view<T const> source;
  vector_view<index_t const> first;
  vector_view<index_t const> positions;
  matrix_view<T> target;

  template <lane_group Lanes>
  LAMINA_HOST_DEVICE void operator()(Lanes lanes, index_t row) const {
    T const* const from = source.row(row).data;
    T* const to = target.row(first[row] + positions[row]).data;
    lamina::for_each_element(lanes, 0, source.cols, [=](index_t c) { to[c] = from[c]; });
  }
};

/// The cache of a prompt becomes that of its other rollouts. Run over the rows of the cache.
///
/// cache    [rows x max_length, 2 key_width]
/// lengths  [rows]  positions that are filled
template <real T>
struct share_prompts {
  matrix_view<T> cache;
  vector_view<index_t const> lengths;
  index_t max_length;
  index_t copies;

  template <lane_group Lanes>
  LAMINA_HOST_DEVICE void operator()(Lanes lanes, index_t line) const {
    index_t const row = line / max_length, position = line % max_length;
    if (row % copies == 0 || position >= lengths[row]) return;
    T const* const from = cache.row(line - row % copies * max_length).data;
    T* const to = cache.row(line).data;
    lamina::for_each_element(lanes, 0, cache.cols, [=](index_t c) { to[c] = from[c]; });
  }
};

/// Samples from models of one backend. Rows, noise and results are those of the host's sampler: the
/// same tokens wherever the logits agree.
///
///   sampler.start(model, prompts, copies, options, max_length);  // prompts, and the first token
///   for (...) sampler.step(model);                               // one more token a row
///   auto const rollouts = sampler.read();                        // waits
///
/// The memory of a step is that of the first one after start: every later one may be captured in a
/// graph, which stays good until the next start. A step on rows that have ended changes nothing.
template <lamina::device_backend Backend>
class device_sampler {
 public:
  using T = typename Backend::scalar_type;

  explicit device_sampler(Backend const& backend)
      : backend_(backend),
        rotary_(backend),
        cache_(backend),
        layer_memory_(backend),
        memory_(backend),
        wide_(backend) {}

  /// Runs the prompts and draws the first token of `copies` rollouts of each. Waits until earlier
  /// work is done, whose memory it takes over.
  ///
  /// end  a token that ends a row; -1 for none
  /// Throws as the host's sampler does for its arguments.
  template <class Weight>
  void start(transformer<Backend, Weight> const& model,
             std::span<std::vector<std::int32_t> const> prompts, index_t copies,
             sampling_options const& options, index_t max_length, std::int32_t end = -1) {
    check_sampling(model.shape(), prompts, copies, options, max_length);
    backend_.synchronize();
    shape_ = model.shape();
    options_ = options;
    max_length_ = max_length;
    end_ = end;
    index_t const rows = static_cast<index_t>(prompts.size()) * copies;
    index_t const cache_rows = rows * max_length, cols = 2 * shape_.key_width();
    cache_.reset(backend_, shape_.layer_count * cache_rows * cols);
    layers_.clear();
    for (index_t layer = 0; layer < shape_.layer_count; ++layer) {
      layers_.push_back(cache_.take(cache_rows, cols));
    }
    rotary_.cover(backend_, shape_, max_length);
    state_.emplace(backend_, prompts, copies, max_length);

    index_t const block = device_attention<Backend, Weight>::tiling(shape_).positions();
    prefill const first(backend_, block, prompts, copies, max_length);
    auto const logits = run(model, {first.tokens.view(), first.positions.view(), first.keys.view(),
                                    first.blocks.view(), first.wanted.view()});
    for (matrix_view<T> const& layer : layers_) {
      backend_.executor().run(layer.rows,
                              share_prompts<T>{layer, state_->lengths.view(), max_length, copies});
    }
    draw(logits, copies);
    backend_.synchronize();  // the arrays of the prompts go
  }

  /// Draws a token for every row that goes on. Nothing waits.
  template <class Weight>
  void step(transformer<Backend, Weight> const& model) {
    draw(run(model, {state_->pending_tokens.view(),
                     state_->pending_positions.view(),
                     state_->keys.view(),
                     state_->blocks.view(),
                     {}}),
         1);
  }

  /// Waits, and says how many rows go on.
  index_t active_count() const {
    auto const active = state_->active.to_host(backend_);
    return static_cast<index_t>(std::count(active.begin(), active.end(), 1));
  }

  /// What has been sampled since start, in the memory of the device; good until the next start.
  growing_rollouts on_device() { return state_->views(); }

  /// Waits, and returns what has been sampled since start.
  rollouts read() const {
    auto const tokens = state_->tokens.to_host(backend_);
    auto const sampled = state_->sampled.to_host(backend_);
    auto const log_probs = state_->log_probs.to_host(backend_);
    auto const log_kept = state_->log_kept.to_host(backend_);
    auto const lengths = state_->lengths.to_host(backend_);
    rollouts result;
    result.prompt_lengths = state_->prompt_lengths;
    result.offsets.push_back(0);
    for (std::size_t row = 0; row < lengths.size(); ++row) {
      index_t const first = static_cast<index_t>(row) * max_length_, last = first + lengths[row];
      auto const append = [first, last](auto& to, auto const& from) {
        to.insert(to.end(), from.begin() + first, from.begin() + last);
      };
      append(result.tokens, tokens);
      append(result.sampled, sampled);
      append(result.log_probs, log_probs);
      append(result.log_kept, log_kept);
      result.offsets.push_back(static_cast<index_t>(result.tokens.size()));
    }
    return result;
  }

 private:
  template <class U>
  using mirrored = mirrored_array<Backend, U>;
  template <class U>
  using device = lamina::device_vector<Backend, U>;

  // Tokens that the cache has not seen.
  struct new_tokens {
    vector_view<std::int32_t const> tokens;
    vector_view<index_t const> positions;
    vector_view<index_t const> keys;  // the cache row of each one's first position
    vector_view<attention_block const> blocks;
    vector_view<index_t const> wanted;  // whose logits are wanted; empty for all
  };

  // The tokens of the prompts, packed.
  struct prefill {
    // Blocks of at most `block` queries.
    prefill(Backend const& backend, index_t block,
            std::span<std::vector<std::int32_t> const> prompts, index_t copies, index_t max_length)
        : prefill(backend, packed(block, prompts, copies, max_length)) {}

    mirrored<std::int32_t> tokens;
    mirrored<index_t> positions;
    mirrored<index_t> keys;
    mirrored<attention_block> blocks;
    mirrored<index_t> wanted;

   private:
    struct arrays {
      std::vector<std::int32_t> tokens;
      std::vector<index_t> positions, keys, wanted;
      std::vector<attention_block> blocks;
    };
    static arrays packed(index_t block, std::span<std::vector<std::int32_t> const> prompts,
                         index_t copies, index_t max_length) {
      arrays a;
      for (std::size_t p = 0; p < prompts.size(); ++p) {
        index_t const begin = static_cast<index_t>(a.tokens.size());
        index_t const length = static_cast<index_t>(prompts[p].size());
        index_t const keys = static_cast<index_t>(p) * copies * max_length;
        a.tokens.insert(a.tokens.end(), prompts[p].begin(), prompts[p].end());
        for (index_t i = 0; i < length; ++i) {
          a.positions.push_back(i);
          a.keys.push_back(keys);
          if (i % block != 0) continue;
          a.blocks.push_back({begin + i, std::min(block, length - i), keys, begin + length});
        }
        a.wanted.push_back(begin + length - 1);
      }
      return a;
    }
    prefill(Backend const& backend, arrays a)
        : tokens(backend, std::move(a.tokens)),
          positions(backend, std::move(a.positions)),
          keys(backend, std::move(a.keys)),
          blocks(backend, std::move(a.blocks)),
          wanted(backend, std::move(a.wanted)) {}
  };

  // The rollouts, and what does not change from step to step.
  struct state {
    state(Backend const& backend, std::span<std::vector<std::int32_t> const> prompts,
          index_t copies, index_t max_length_)
        : state(backend, static_cast<index_t>(prompts.size()) * copies, max_length_) {
      std::vector<std::int32_t> held(static_cast<std::size_t>(tokens.size()));
      for (index_t row = 0; row < lengths.size(); ++row) {
        auto const& prompt = prompts[static_cast<std::size_t>(row / copies)];
        std::copy(prompt.begin(), prompt.end(), held.begin() + row * max_length_);
        prompt_lengths.push_back(static_cast<index_t>(prompt.size()));
      }
      std::vector<std::uint8_t> const ones(static_cast<std::size_t>(active.size()), 1);
      tokens.assign(backend, held);
      lengths.assign(backend, prompt_lengths);
      active.assign(backend, ones);
      backend.synchronize();
    }

    device<std::int32_t> tokens;
    device<std::uint8_t> sampled;
    device<float> log_probs, log_kept;
    device<index_t> lengths;
    device<std::uint8_t> active;
    device<std::int32_t> pending_tokens;
    device<index_t> pending_positions;
    mirrored<index_t> keys;
    mirrored<attention_block> blocks;
    index_t max_length;
    std::vector<index_t> prompt_lengths;

    growing_rollouts views() {
      index_t const rows = lengths.size();
      auto const matrix = [&](auto& array) {
        return matrix_view(array.view().data, rows, max_length);
      };
      return {matrix(tokens), matrix(sampled), matrix(log_probs),     matrix(log_kept),
              lengths.view(), active.view(),   pending_tokens.view(), pending_positions.view()};
    }

   private:
    state(Backend const& backend, index_t rows, index_t max_length_)
        : tokens(backend, rows * max_length_),
          sampled(backend, rows * max_length_),
          log_probs(backend, rows * max_length_),
          log_kept(backend, rows * max_length_),
          lengths(backend, rows),
          active(backend, rows),
          pending_tokens(backend, rows),
          pending_positions(backend, rows),
          keys(backend, first_keys(rows, max_length_)),
          blocks(backend, single_tokens(rows, max_length_)),
          max_length(max_length_) {}
    static std::vector<index_t> first_keys(index_t rows, index_t max_length) {
      std::vector<index_t> keys;
      for (index_t row = 0; row < rows; ++row) keys.push_back(row * max_length);
      return keys;
    }
    static std::vector<attention_block> single_tokens(index_t rows, index_t max_length) {
      std::vector<attention_block> blocks;
      for (index_t row = 0; row < rows; ++row)
        blocks.push_back({row, 1, row * max_length, row + 1});
      return blocks;
    }
  };

  // Logits [wanted, vocab].
  template <class Weight>
  matrix_view<T> run(transformer<Backend, Weight> const& model, new_tokens const& added) {
    using attend = device_attention<Backend, Weight>;
    index_t const tokens = added.tokens.size, d = shape_.width, k = shape_.key_width();
    index_t const wanted = added.wanted.empty() ? tokens : added.wanted.size;
    memory_.reset(backend_, tokens * d + wanted * (d + shape_.vocab));
    matrix_view<T> const stream = memory_.take(tokens, d);
    matrix_view<T> const hidden = memory_.take(wanted, d);
    matrix_view<T> const logits = memory_.take(wanted, shape_.vocab);
    auto const a =
        activations_for<Backend, Weight>::lay_out(backend_, layer_memory_, shape_, tokens);

    tensor_block<Backend, Weight> const& outer = model.block(lamina::outside_layers);
    forward_pass<Backend> const pass{backend_, shape_, rotary_, added.positions, wide_, {}};
    pass.each_token(gather_rows<T, std::int32_t, Weight>{outer.weight(outer_tensor::embedding),
                                                         added.tokens, stream});
    for (index_t layer = 0; layer < shape_.layer_count; ++layer) {
      matrix_view<T> const cache = layers_[static_cast<std::size_t>(layer)];
      forward_layer(pass, model.block(layer), a, stream,
                    [&](matrix_view<T const> qkv, matrix_view<T> mixed) {
                      pass.each_token(store_rows<T>{columns(qkv, shape_.query_width(), 2 * k),
                                                    added.keys, added.positions, cache});
                      attend::forward(backend_, {attend::tiling(shape_),
                                                 added.blocks,
                                                 qkv,
                                                 columns<T const>(cache, 0, k),
                                                 columns<T const>(cache, k, k),
                                                 added.positions,
                                                 mixed,
                                                 {}});
                    });
    }
    matrix_view<T> last = stream;
    if (!added.wanted.empty()) {
      backend_.executor().run(wanted, gather_rows<T, index_t>{stream, added.wanted, hidden});
      last = hidden;
    }
    auto const norm = wide_vector(backend_, wide_, outer.vector(outer_tensor::final_norm));
    backend_.executor().run(
        wanted, rms_norm<T>{last, norm, static_cast<T>(shape_.norm_epsilon), hidden, {}, {}});
    pass.project(hidden, model.head(), logits);
    return logits;
  }

  void draw(matrix_view<T const> logits, index_t copies) {
    growing_rollouts const views = state_->views();
    backend_.executor().run(views.lengths.size,
                            draw_and_append<T>{options_, logits, copies, end_, views});
  }

  Backend backend_;
  config shape_;
  sampling_options options_;
  index_t max_length_ = 0;
  std::int32_t end_ = -1;
  rotary_cache<Backend> rotary_;
  arena<Backend> cache_;
  std::vector<matrix_view<T>> layers_;  // [rows x max_length, 2 key_width]: keys, then values
  arena<Backend> layer_memory_;
  arena<Backend> memory_;
  widening<Backend> wide_;
  std::optional<state> state_;
};

/// Samples until every row has ended. Asks how many go on, which waits, every `patience` steps.
template <lamina::device_backend Backend, class Weight>
rollouts sample_on_device(device_sampler<Backend>& sampler,
                          transformer<Backend, Weight> const& model,
                          std::span<std::vector<std::int32_t> const> prompts, index_t copies,
                          sampling_options const& options, index_t max_length,
                          std::int32_t end = -1, index_t patience = 32) {
  sampler.start(model, prompts, copies, options, max_length, end);
  while (sampler.active_count() > 0) {
    for (index_t step = 0; step < patience; ++step) sampler.step(model);
  }
  return sampler.read();
}

}  // namespace decoder
