// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// The least a trainable, whole model can be: a residual stack of elementwise layers with the
// gradient written by hand.
#pragma once

#include <algorithm>
#include <cmath>
#include <string>
#include <vector>

#include "lamina/core/random.hpp"
#include "lamina/model/transformer.hpp"

namespace lamina::testing {

/// h_0 = embedding[token];  h_{k+1} = h_k + tanh(w_k * h_k);  logits = h_L (width = vocab).
template <real T>
class minimal_model {
 public:
  using batch_type = std::vector<std::int32_t>;

  minimal_model(index_t layers, index_t vocab, std::uint64_t seed = 1)
      : vocab_(vocab), embedding_(at(vocab * vocab)), embedding_gradient_(embedding_.size()) {
    counter_generator random(seed);
    for (T& x : embedding_) x = static_cast<T>(random.uniform() - 0.5);
    for (index_t k = 0; k < layers; ++k) {
      names_.push_back("layers." + std::to_string(k) + ".weight");
      weights_.emplace_back(at(vocab));
      gradients_.emplace_back(at(vocab));
      for (T& w : weights_.back()) w = static_cast<T>(random.uniform() - 0.5);
    }
  }

  index_t layer_count() const { return static_cast<index_t>(weights_.size()); }
  std::vector<parameter_view<T>> parameters(index_t layer) {
    return {{names_[at(layer)], layer, parameter_role::mlp_up, weights_[at(layer)],
             gradients_[at(layer)]}};
  }
  std::vector<parameter_view<T>> outer_parameters() {
    return {
        {"embedding", outside_layers, parameter_role::embedding, embedding_, embedding_gradient_}};
  }

  matrix_view<T> forward(batch_type const& tokens, backward_plan const&) {
    embed(tokens);
    run_layers(0, layer_count());
    return state(layer_count());
  }

  void backward(matrix_view<T const> d_logits, backward_plan const& plan) {
    for (std::size_t k = 0; k < weights_.size(); ++k) {
      if (plan.weight_gradient(static_cast<index_t>(k))) gradients_[k].assign(at(vocab_), T(0));
    }
    if (plan.trains_embeddings()) embedding_gradient_.assign(embedding_.size(), T(0));
    for (std::size_t t = 0; t < tokens_.size(); ++t) {
      for (std::size_t v = 0; v < at(vocab_); ++v) {
        T d = d_logits(static_cast<index_t>(t), static_cast<index_t>(v));
        for (index_t k = layer_count() - 1; k >= plan.stop_layer(); --k) {
          T const h = states_[at(k)][t * at(vocab_) + v];
          T const y = std::tanh(weights_[at(k)][v] * h);
          if (plan.weight_gradient(k)) gradients_[at(k)][v] += d * (1 - y * y) * h;
          if (plan.activation_gradient(k)) d += d * (1 - y * y) * weights_[at(k)][v];
        }
        if (plan.trains_embeddings()) embedding_gradient_[at(tokens_[t]) * at(vocab_) + v] += d;
      }
    }
  }

  std::vector<std::vector<T>> const& weights() const { return weights_; }
  std::vector<std::vector<T>> const& gradients() const { return gradients_; }
  std::vector<T> const& embedding() const { return embedding_; }

 protected:
  void embed(batch_type const& tokens) {
    tokens_ = tokens;
    states_.assign(weights_.size() + 1, std::vector<T>(tokens.size() * at(vocab_)));
    for (std::size_t i = 0; i < states_[0].size(); ++i) {
      states_[0][i] = embedding_[at(tokens[i / at(vocab_)]) * at(vocab_) + i % at(vocab_)];
    }
  }
  void run_layers(index_t first, index_t last) {
    for (index_t k = first; k < last; ++k) {
      std::vector<T> const& from = states_[at(k)];
      for (std::size_t i = 0; i < from.size(); ++i) {
        states_[at(k) + 1][i] = from[i] + std::tanh(weights_[at(k)][i % at(vocab_)] * from[i]);
      }
    }
  }
  /// What enters a layer [tokens, vocab].
  matrix_view<T> state(index_t layer) {
    return {states_[at(layer)].data(), static_cast<index_t>(tokens_.size()), vocab_};
  }

 private:
  static std::size_t at(index_t i) { return static_cast<std::size_t>(i); }

  index_t vocab_;
  std::vector<T> embedding_, embedding_gradient_;
  std::vector<std::string> names_;
  std::vector<std::vector<T>> weights_, gradients_, states_;
  batch_type tokens_;
};

/// The least a prefix model can be; counts the layers it runs.
template <real T>
class minimal_prefix_model : public minimal_model<T> {
 public:
  using typename minimal_model<T>::batch_type;
  using minimal_model<T>::minimal_model;

  matrix_view<T const> forward_prefix(batch_type const& tokens, index_t layer) {
    this->embed(tokens);
    this->run_layers(0, layer);
    layer_runs += layer;
    return this->state(layer);
  }
  matrix_view<T> forward_suffix(batch_type const& tokens, index_t layer,
                                matrix_view<T const> stream, backward_plan const&) {
    std::vector<T> const copy(stream.data, stream.data + stream.rows * stream.cols);
    this->embed(tokens);
    std::copy(copy.begin(), copy.end(), this->state(layer).data);
    this->run_layers(layer, this->layer_count());
    layer_runs += this->layer_count() - layer;
    return this->state(this->layer_count());
  }

  index_t layer_runs = 0;
};

static_assert(check_trainable_model<minimal_model<float>>());
static_assert(check_prefix_model<minimal_prefix_model<float>>());
static_assert(!prefix_model<minimal_model<float>>);
static_assert(whole_model<minimal_model<double>> && !restorable_model<minimal_model<double>>);

}  // namespace lamina::testing
