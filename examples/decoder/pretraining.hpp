// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// Supervised next-token training, split over a fixed number of shards: as many threads as there
// are, the same bits with any number of them.
#pragma once

#include <cmath>

#include "examples/decoder/transformer.hpp"
#include "lamina/optim/adamw.hpp"
#include "lamina/policy/token_logprob.hpp"

namespace decoder {

/// Packed sequences and the tokens the loss is taken over.
///
/// tokens   [tokens]
/// offsets  [sequences + 1]
/// targets  [tokens]  1 where the token is to be predicted; never the first of a sequence
struct supervised_batch {
  std::vector<std::int32_t> tokens;
  std::vector<index_t> offsets;
  std::vector<std::uint8_t> targets;
};

/// losses[row] = -log p(targets[row] | logits[row, :]); logits become the gradient of
/// scale sum(losses), which is scale (p - onehot).
template <real T>
struct cross_entropy {
  matrix_view<T> logits;
  vector_view<std::int32_t const> targets;
  T scale;
  vector_view<double> losses;

  template <lane_group Lanes>
  void operator()(Lanes lanes, index_t row) const {
    T* const x = logits.row(row).data;
    index_t const target = targets[row];
    auto const summary = lamina::summarize_row<false, Lanes, T>(lanes, x, logits.cols, T(1));
    double const chosen = static_cast<double>(x[target]);
    if (lanes.lane() == 0) losses[row] = -summary.log_prob(chosen);
    T const peak = static_cast<T>(summary.peak);
    T const factor = static_cast<T>(static_cast<double>(scale) / summary.total);
    T const left = scale;
    lamina::for_each_element(lanes, 0, logits.cols, [=](index_t v) {
      T const p = factor * lamina::fast_exp(x[v] - peak);
      x[v] = v == target ? p - left : p;
    });
  }
};

/// The optimizer is AdamW over every parameter; the rate of each step comes from the caller.
///
/// shard_count  parts a batch is cut into, each worked by a replica of the model. Results depend
///              on it, and not on threads.
struct pretraining_options {
  double beta1 = 0.9;
  double beta2 = 0.95;
  double weight_decay = 0.01;
  double clip_norm = 1.0;
  index_t shard_count = 4;
};

/// What one step did: the mean loss over its targets before the update, and the optimizer's report.
struct pretraining_result {
  double loss = 0;
  lamina::step_status optimizer;
};

/// Trains all parameters of a model, which must outlive it and stay where it is.
template <lamina::tensor_backend Backend, lamina::parallel_for ParallelFor = lamina::serial_for>
class pretrainer {
 public:
  using scalar_type = typename Backend::scalar_type;

  /// Throws config_error for options that make no sense.
  pretrainer(transformer<Backend>& model, pretraining_options const& options,
             ParallelFor parallel = {})
      : model_(model),
        plan_(lamina::plan_full(model.layer_count())),
        parallel_(std::move(parallel)),
        optimizer_(model.backend(), prepared(model, plan_),
                   {.beta1 = options.beta1,
                    .beta2 = options.beta2,
                    .weight_decay = options.weight_decay,
                    .clip_norm = options.clip_norm}) {
    if (options.shard_count < 1 || options.shard_count > 1024) {
      lamina::throw_config_error("decoder::pretrainer: shard_count is ", options.shard_count,
                                 ", expected 1..1024");
    }
    for (index_t s = 0; s < options.shard_count; ++s) {
      shards_.push_back({transformer<Backend>(model.backend(), model.shape()), {}, {}, {}});
      shards_.back().model.prepare(plan_);
    }
  }

  /// One step: mean loss over the batch's targets, its gradient summed shard by shard, one update.
  /// Throws shape_error or config_error, before anything changes, if the batch has no target, a
  /// first token as target, sizes that differ, or a token outside the vocabulary.
  pretraining_result step(supervised_batch const& batch, double learning_rate) {
    index_t const target_count = divide(batch);
    auto const scale = static_cast<scalar_type>(1.0 / static_cast<double>(target_count));
    parallel_(static_cast<index_t>(shards_.size()), 1, [&](index_t begin, index_t end) {
      for (index_t s = begin; s < end; ++s) work(shards_[static_cast<std::size_t>(s)], scale);
    });
    double loss = 0;
    for (shard const& part : shards_) {
      for (double const token_loss : part.losses) loss += token_loss;
    }
    for (index_t layer = lamina::outside_layers; layer < model_.layer_count(); ++layer) {
      add_gradients(layer);
    }
    return {loss / static_cast<double>(target_count), optimizer_.step(learning_rate)};
  }

 private:
  struct shard {
    transformer<Backend> model;
    token_batch batch;
    std::vector<std::int32_t> targets;
    std::vector<double> losses;
  };

  static std::vector<lamina::parameter_view<scalar_type>> prepared(
      transformer<Backend>& model, lamina::backward_plan const& plan) {
    model.prepare(plan);
    return lamina::trained_parameters(model, plan);
  }

  // Gives every shard its contiguous share of the sequences; returns the number of targets.
  index_t divide(supervised_batch const& batch) {
    char const* const function = "decoder::pretrainer";
    check_offsets(function, batch.offsets, static_cast<index_t>(batch.tokens.size()));
    check_tokens(function, batch.tokens, model_.shape().vocab);
    std::vector<std::int32_t> targets;
    token_batch const whole = predict(batch.tokens, batch.offsets, batch.targets, &targets);
    if (targets.empty()) {
      lamina::throw_shape_error(function, ": no token of the batch is a target");
    }
    index_t const shard_count = static_cast<index_t>(shards_.size());
    auto next = targets.begin();
    for (index_t s = 0; s < shard_count; ++s) {
      shard& part = shards_[static_cast<std::size_t>(s)];
      part.batch = slice(whole, whole.sequence_count() * s / shard_count,
                         whole.sequence_count() * (s + 1) / shard_count);
      auto const end = next + static_cast<std::ptrdiff_t>(part.batch.logit_rows.size());
      part.targets.assign(next, end);
      part.losses.resize(part.targets.size());
      next = end;
    }
    return static_cast<index_t>(targets.size());
  }

  // Forward, loss and backward of one shard; nothing if there are fewer sequences than shards.
  void work(shard& part, scalar_type scale) const {
    if (part.targets.empty()) return;
    part.model.copy_weights(model_);
    auto const logits = part.model.forward(part.batch, plan_);
    model_.backend().executor().run(
        logits.rows, cross_entropy<scalar_type>{logits, part.targets, scale, part.losses});
    part.model.backward(logits, plan_);
  }

  // The model's gradients of a layer: the sum of the shards', in their order.
  void add_gradients(index_t layer) {
    auto const sums = model_.block(layer).parameters();
    bool first = true;
    for (shard const& part : shards_) {
      if (part.targets.empty()) continue;
      auto const terms = part.model.block(layer).parameters();
      for (std::size_t p = 0; p < sums.size(); ++p) {
        scalar_type* const sum = sums[p].gradient.data;
        scalar_type const* const term = terms[p].gradient.data;
        for (index_t i = 0; i < sums[p].gradient.size; ++i) {
          sum[i] = first ? term[i] : sum[i] + term[i];
        }
      }
      first = false;
    }
  }

  transformer<Backend>& model_;
  lamina::backward_plan plan_;
  ParallelFor parallel_;
  lamina::adamw<Backend, scalar_type> optimizer_;
  std::vector<shard> shards_;
};

}  // namespace decoder
