// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// Training on one batch of rollouts as a GRPO trainer does it: log-probs of a reference, then
// epochs of forward, loss, backward and AdamW, from a prefix cache or not.
#pragma once

#include <cmath>
#include <cstdint>
#include <memory>
#include <optional>
#include <utility>
#include <vector>

#include "examples/decoder/transformer.hpp"
#include "lamina/backend/backend_vector.hpp"
#include "lamina/layers/step_flops.hpp"
#include "lamina/model/prefix_cache.hpp"
#include "lamina/model/train_step.hpp"
#include "lamina/optim/adamw.hpp"
#include "lamina/policy/presets.hpp"

namespace model_bench {

using lamina::index_t;

/// What is done with a batch.
struct procedure {
  index_t epochs = 1;
  bool reference = false;
  bool prefix_reuse = false;
};

/// The step as lamina::plan_memory and lamina::count_flops want it.
inline lamina::step_shape step_of(decoder::token_batch const& batch, procedure const& p) {
  return {.sequences = lamina::sequences_at(batch.offsets),
          .logit_rows = static_cast<index_t>(batch.logit_rows.size()),
          .epochs = p.epochs,
          .reference = p.reference,
          .prefix_reuse = p.prefix_reuse};
}

/// a and b change places.
template <lamina::storage_scalar T>
struct swap_body {
  lamina::vector_view<T> a, b;

  static constexpr index_t elements = 4096;  // of a row
  static constexpr auto schedule = lamina::row_schedule::block;

  index_t row_count() const { return (a.size + elements - 1) / elements; }

  template <lamina::lane_group Lanes>
  LAMINA_HOST_DEVICE void operator()(Lanes lanes, index_t row) const {
    index_t const first = row * elements, left = a.size - first;
    lamina::for_each_element(lanes, first, first + (left < elements ? left : elements),
                             [a = a.data, b = b.data](index_t i) {
                               T const kept = a[i];
                               a[i] = b[i];
                               b[i] = kept;
                             });
  }
};

/// What training on a host needs besides its model and its arrays.
template <class Model, lamina::tensor_backend Backend>
class place {
 public:
  using cache_type = lamina::prefix_cache<Model>;

  place(Backend const&, index_t /*sequences*/) {}
  static decoder::token_batch const& batch(Model const&, decoder::token_batch const& tokens) {
    return tokens;
  }
  static std::unique_ptr<cache_type> cache(Model const& model, lamina::backward_plan const& plan) {
    return std::make_unique<cache_type>(model, plan);
  }
  /// Calls train(), or train(report) where results need a place.
  template <class Train>
  void with_report(Train const& train) {
    train();
  }
};

/// The same on a device. Nothing waits, so the weights below a prefix are trusted to stay.
template <class Model, lamina::device_backend Backend>
class place<Model, Backend> {
  using storage = lamina::in_device_memory<Backend, typename Backend::scalar_type>;
  struct trusting_guard {
    std::uint64_t operator()(Model&, index_t) const { return 0; }
  };

 public:
  using cache_type = lamina::prefix_cache<Model, storage, trusting_guard>;

  place(Backend const& backend, index_t sequences) : report_(backend, sequences) {}
  static decoder::device_batch<Backend> batch(Model const& model,
                                              decoder::token_batch const& tokens) {
    return {model.backend(), tokens, model.shape()};
  }
  static std::unique_ptr<cache_type> cache(Model const& model, lamina::backward_plan const& plan) {
    return std::make_unique<cache_type>(model, plan, storage(model.backend()));
  }
  template <class Train>
  void with_report(Train const& train) {
    train(report_);
  }

 private:
  lamina::policy_report<Backend> report_;
};

/// One selection of a model in training. Several may share the model.
template <lamina::tensor_backend Backend, class Weight = typename Backend::scalar_type>
class training {
 public:
  using model_type = decoder::transformer<Backend, Weight>;
  using T = typename Backend::scalar_type;

  /// The batch has as many logit rows in every sequence. `model` must outlive this.
  training(decoder::transformer<Backend, Weight>& model, lamina::backward_plan const& plan,
           decoder::token_batch const& batch, procedure const& p)
      : backend_(model.backend()),
        model_(model),
        plan_(plan),
        tokens_(place_type::batch(model, batch)),
        sequences_(batch.sequence_count()),
        rows_(static_cast<index_t>(batch.logit_rows.size())),
        procedure_(p),
        place_(backend_, sequences_),
        optimizer_(backend_, trained(), {.learning_rate = 1e-6}),
        offsets_(backend_, sequences_ + 1),
        chosen_(backend_, rows_),
        advantages_(backend_, sequences_),
        old_log_probs_(backend_, rows_),
        reference_log_probs_(backend_, rows_),
        log_probs_(backend_, rows_),
        d_log_probs_(backend_, rows_) {
    std::vector<index_t> offsets;
    std::vector<T> advantages;
    std::vector<std::int32_t> chosen;
    for (index_t s = 0; s <= sequences_; ++s) offsets.push_back(s * rows_ / sequences_);
    for (index_t s = 0; s < sequences_; ++s) advantages.push_back(s % 2 == 0 ? T(1) : T(-1));
    for (index_t const row : batch.logit_rows) {
      chosen.push_back(batch.tokens[static_cast<std::size_t>(row + 1) % batch.tokens.size()]);
    }
    // Those of uniform random weights: near enough to be clipped nowhere, and free.
    std::vector<T> const log_probs(chosen.size(), -std::log(static_cast<T>(model.shape().vocab)));
    lamina::copy_elements(backend_, offsets, offsets_.view());
    lamina::copy_elements(backend_, advantages, advantages_.view());
    lamina::copy_elements(backend_, chosen, chosen_.view());
    lamina::copy_elements(backend_, log_probs, old_log_probs_.view());
    lamina::copy_elements(backend_, log_probs, reference_log_probs_.view());
    if (p.prefix_reuse) cache_ = place_type::cache(model, plan);
    if (p.reference) {
      for (auto const& parameter : optimizer_.parameters()) {
        reference_.emplace_back(backend_, parameter.weight.size);
        lamina::copy_elements(backend_, parameter.weight, reference_.back().view());
      }
    }
    lamina::wait(backend_);
  }
  training(training const&) = delete;

  /// All that is done with one batch. A device is only asked for it.
  void run() {
    fill_prefix();
    if (procedure_.reference) take_reference_log_probs();
    for (index_t epoch = 0; epoch < procedure_.epochs; ++epoch) step();
  }

  /// Runs the frozen layers, where their output is to be reused.
  void fill_prefix() {
    if (cache_) prefix_ = cache_->fill(model_, tokens_);
  }
  /// One epoch.
  void step() {
    auto const step = [&](auto const&... from) {
      place_.with_report([&](auto&... report) {
        lamina::train_step(backend_, model_, estimator_, plan_, from..., tokens_, policy(),
                           {log_probs_.view(), d_log_probs_.view(), {}}, report..., optimizer_);
      });
    };
    prefix_ ? step(*prefix_) : step();
  }
  /// What the optimizer made of the last step; waits for a device.
  lamina::step_status status() const { return optimizer_.read_status(); }

 private:
  using place_type = place<model_type, Backend>;
  using cache_type = typename place_type::cache_type;
  template <class U>
  using array = lamina::backend_vector<Backend, U>;

  std::vector<lamina::parameter_view<Weight>> trained() {
    model_.prepare(plan_);
    return lamina::trained_parameters(model_, plan_);
  }
  lamina::policy_batch<T> policy() const {
    lamina::policy_batch<T> batch;
    batch.offsets = offsets_.view();
    batch.token_ids = chosen_.view();
    batch.old_log_probs = old_log_probs_.view();
    batch.reference_log_probs = reference_log_probs_.view();
    batch.advantages = advantages_.view();
    batch.denominators = {.sequences = sequences_, .tokens = rows_};
    return batch;
  }
  void take_reference_log_probs() {
    swap_reference();
    auto const logits =
        prefix_ ? prefix_->forward(model_, tokens_, plan_) : model_.forward(tokens_);
    lamina::token_log_probs(backend_, logits, std::as_const(chosen_).view(), {}, 1.0,
                            reference_log_probs_.view());
    swap_reference();
  }
  // The reference's copy of what is trained, into the model and out again.
  void swap_reference() {
    for (std::size_t i = 0; i < reference_.size(); ++i) {
      swap_body<Weight> const swap{optimizer_.parameters()[i].weight, reference_[i].view()};
      backend_.executor().run(swap.row_count(), swap);
    }
  }

  Backend const& backend_;
  model_type& model_;
  lamina::backward_plan plan_;
  decoder::batch_for<Backend> const tokens_;
  index_t sequences_, rows_;
  procedure procedure_;
  place_type place_;
  lamina::adamw<Backend, Weight> optimizer_;
  lamina::grpo estimator_{.kl = {.coefficient = 0.01}};
  std::unique_ptr<cache_type> cache_;  // handles point to it
  std::optional<typename cache_type::prefix_type> prefix_;
  std::vector<array<Weight>> reference_;
  array<index_t> offsets_;
  array<std::int32_t> chosen_;
  array<T> advantages_, old_log_probs_, reference_log_probs_, log_probs_, d_log_probs_;
};

}  // namespace model_bench
