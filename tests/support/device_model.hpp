// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// The minimal model with everything in the memory of a device, worked by bodies.
#pragma once

#include <cmath>
#include <string>
#include <utility>
#include <vector>

#include "lamina/backend/backend_vector.hpp"
#include "lamina/model/transformer.hpp"
#include "lamina/optim/update_row.hpp"

namespace lamina::testing {

/// out(t, v) = embedding(token[t], v).
template <class T, class S>
struct embed_body {
  vector_view<std::int32_t const> tokens;
  matrix_view<T const> embedding;
  matrix_view<S> out;
  template <lane_group Lanes>
  LAMINA_HOST_DEVICE void operator()(Lanes lanes, index_t t) const {
    for (index_t v = lanes.lane(); v < out.cols; v += lanes.count()) {
      out(t, v) = widened<S>(embedding(tokens[t], v));
    }
  }
};

/// out = in + tanh(weight * in).
template <class T, class S>
struct layer_body {
  vector_view<T const> weight;
  matrix_view<S const> in;
  matrix_view<S> out;
  template <lane_group Lanes>
  LAMINA_HOST_DEVICE void operator()(Lanes lanes, index_t t) const {
    using std::tanh;
    for (index_t v = lanes.lane(); v < out.cols; v += lanes.count()) {
      out(t, v) = in(t, v) + tanh(widened<S>(weight[v]) * in(t, v));
    }
  }
};

/// Column v of a layer: its weight's gradient where there is room for one, and d taken through it.
template <class T, class S>
struct layer_gradient_body {
  vector_view<T const> weight;
  matrix_view<S const> in;
  matrix_view<S> d;
  vector_view<T> gradient;  // empty: frozen
  bool passes;
  template <lane_group Lanes>
  LAMINA_HOST_DEVICE void operator()(Lanes lanes, index_t v) const {
    using std::tanh;
    if (lanes.lane() != 0) return;
    S const w = widened<S>(weight[v]);
    S sum = 0;
    for (index_t t = 0; t < in.rows; ++t) {
      S const y = tanh(w * in(t, v));
      sum += d(t, v) * (1 - y * y) * in(t, v);
      if (passes) d(t, v) += d(t, v) * (1 - y * y) * w;
    }
    if (!gradient.empty()) gradient[v] = stored<T>(sum);
  }
};

/// minimal_model on a device: the weights T of a host's minimal_model, activations in S.
template <device_backend Backend, storage_scalar T>
class device_model {
 public:
  using scalar_type = typename Backend::scalar_type;
  /// Token ids in the device's memory.
  using batch_type = vector_view<std::int32_t const>;

  /// Takes the weights of `host` over. Every forward works in memory it asks for.
  template <class HostModel>
  device_model(Backend const& backend, HostModel& host, index_t vocab)
      : backend_(backend), vocab_(vocab), embedding_(backend, vocab * vocab) {
    auto const take = [&](auto const& from, device_vector<Backend, T>& to) {
      std::vector<T> values;
      for (auto const w : from.weight) values.push_back(stored<T>(w));
      to.assign(backend_, values);
      backend_.synchronize();
    };
    take(host.outer_parameters()[0], embedding_);
    for (index_t k = 0; k < host.layer_count(); ++k) {
      names_.push_back("layers." + std::to_string(k) + ".weight");
      weights_.emplace_back(backend, vocab);
      gradients_.emplace_back(backend, vocab);
      take(host.parameters(k)[0], weights_.back());
    }
  }

  index_t layer_count() const { return static_cast<index_t>(weights_.size()); }
  std::vector<parameter_view<T>> parameters(index_t k) {
    return {{names_[at(k)], k, parameter_role::mlp_up, weights_[at(k)].view(),
             gradients_[at(k)].view()}};
  }
  std::vector<parameter_view<T>> outer_parameters() {
    return {{"embedding", outside_layers, parameter_role::embedding, embedding_.view(), {}}};
  }
  std::uint64_t weight_version(index_t k) const {
    return versions.empty() ? 0 : versions[at(k + 1)];
  }

  matrix_view<scalar_type> forward(batch_type tokens, backward_plan const&) {
    embed(tokens);
    run_layers(0, layer_count());
    return state(layer_count());
  }
  matrix_view<scalar_type const> forward_prefix(batch_type tokens, index_t layer) {
    embed(tokens);
    run_layers(0, layer);
    return state(layer);
  }
  matrix_view<scalar_type> forward_suffix(batch_type tokens, index_t layer,
                                          matrix_view<scalar_type const> stream,
                                          backward_plan const&) {
    ask_for_states(tokens.size);
    copy_elements(backend_, {stream.data, stream.rows * vocab_}, states_[at(layer)].view());
    run_layers(layer, layer_count());
    return state(layer_count());
  }
  /// The gradient of the logits takes their place and is overwritten.
  void backward(matrix_view<scalar_type const> d_logits, backward_plan const& plan) {
    matrix_view<scalar_type> const d = state(layer_count());
    if (d.data != d_logits.data) throw_config_error("device_model: these are not its logits");
    for (index_t k = layer_count() - 1; k >= plan.stop_layer(); --k) {
      auto const gradient = plan.weight_gradient(k) ? gradients_[at(k)].view() : vector_view<T>();
      backend_.executor().run(vocab_, layer_gradient_body<T, scalar_type>{
                                          std::as_const(weights_[at(k)]).view(), state(k), d,
                                          gradient, plan.activation_gradient(k)});
    }
  }

  /// weight_version of what lies outside the layers and of each layer; empty: 0 everywhere.
  std::vector<std::uint64_t> versions;

 private:
  static std::size_t at(index_t i) { return static_cast<std::size_t>(i); }

  void ask_for_states(index_t tokens) {
    token_count_ = tokens;
    states_.clear();
    for (index_t k = 0; k <= layer_count(); ++k) states_.emplace_back(backend_, tokens * vocab_);
  }
  void embed(batch_type tokens) {
    ask_for_states(tokens.size);
    backend_.executor().run(
        tokens.size,
        embed_body<T, scalar_type>{
            tokens, {std::as_const(embedding_).view().data, vocab_, vocab_}, state(0)});
  }
  void run_layers(index_t first, index_t last) {
    for (index_t k = first; k < last; ++k) {
      backend_.executor().run(
          token_count_, layer_body<T, scalar_type>{std::as_const(weights_[at(k)]).view(), state(k),
                                                   state(k + 1)});
    }
  }
  matrix_view<scalar_type> state(index_t k) {
    return {states_[at(k)].view().data, token_count_, vocab_};
  }

  Backend backend_;
  index_t vocab_, token_count_ = 0;
  device_vector<Backend, T> embedding_;
  std::vector<std::string> names_;
  std::vector<device_vector<Backend, T>> weights_, gradients_;
  std::vector<device_vector<Backend, scalar_type>> states_;
};

}  // namespace lamina::testing
