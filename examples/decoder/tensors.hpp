// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// The tensors of a decoder: their names, roles, shapes and initial values, and the block of memory
// that holds those of one layer.
#pragma once

#include <algorithm>
#include <cmath>
#include <span>
#include <string>
#include <vector>

#include "examples/decoder/config.hpp"
#include "lamina/backend/backend_vector.hpp"
#include "lamina/core/parameter.hpp"
#include "lamina/core/random.hpp"
#include "lamina/optim/update_row.hpp"

namespace decoder {

using lamina::matrix_view;
using lamina::parameter_role;
using lamina::vector_view;

/// A matrix without gaps between its rows, as one vector.
template <class T>
vector_view<T> flat(matrix_view<T> matrix) {
  return {matrix.data, matrix.rows * matrix.cols};
}

/// One tensor: [rows, cols], vectors with one row; no rows if the model does not have it.
///
/// name       after the layer's prefix, as Hugging Face spells it
/// mean, deviation  of the normal distribution it is initialised from
struct tensor_spec {
  std::string name;
  parameter_role role = parameter_role::other;
  index_t rows = 0;
  index_t cols = 0;
  double mean = 0;
  double deviation = 0;

  /// Matrices decay; norms and biases do not.
  bool decays() const { return deviation > 0; }
};

/// Tensors of a decoder layer, in the order of layer_tensor_specs. Neighbours that are used
/// together (query, key, value; gate, up) are one stacked matrix.
enum class layer_tensor : std::uint8_t {
  attention_norm,
  query,
  key,
  value,
  query_bias,
  key_bias,
  value_bias,
  query_norm,
  key_norm,
  attention_output,
  mlp_norm,
  gate,
  up,
  down,
};

/// Tensors outside the layers.
enum class outer_tensor : std::uint8_t { embedding, final_norm, head };

/// What a layer is made of. Matrices start from N(0, 1 / fan_in); the two that write to the
/// residual stream are scaled by 1 / sqrt(2 layers), so that its variance does not grow with depth.
inline std::vector<tensor_spec> layer_tensor_specs(config const& shape) {
  using role = parameter_role;
  index_t const d = shape.width, q = shape.query_width(), k = shape.key_width();
  index_t const f = shape.ffn_width, h = shape.head_width;
  index_t const bias = shape.qkv_bias ? 1 : 0, norm = shape.qk_norm ? 1 : 0;
  double const residual = 1 / std::sqrt(2.0 * static_cast<double>(shape.layer_count));
  auto const fan_in = [](index_t n) { return 1 / std::sqrt(static_cast<double>(n)); };
  return {
      {"input_layernorm.weight", role::attention_norm, 1, d, 1, 0},
      {"self_attn.q_proj.weight", role::attention_query, q, d, 0, fan_in(d)},
      {"self_attn.k_proj.weight", role::attention_key, k, d, 0, fan_in(d)},
      {"self_attn.v_proj.weight", role::attention_value, k, d, 0, fan_in(d)},
      {"self_attn.q_proj.bias", role::attention_query, bias, q, 0, 0},
      {"self_attn.k_proj.bias", role::attention_key, bias, k, 0, 0},
      {"self_attn.v_proj.bias", role::attention_value, bias, k, 0, 0},
      {"self_attn.q_norm.weight", role::query_norm, norm, h, 1, 0},
      {"self_attn.k_norm.weight", role::key_norm, norm, h, 1, 0},
      {"self_attn.o_proj.weight", role::attention_output, d, q, 0, fan_in(q) * residual},
      {"post_attention_layernorm.weight", role::mlp_norm, 1, d, 1, 0},
      {"mlp.gate_proj.weight", role::mlp_gate, f, d, 0, fan_in(d)},
      {"mlp.up_proj.weight", role::mlp_up, f, d, 0, fan_in(d)},
      {"mlp.down_proj.weight", role::mlp_down, d, f, 0, fan_in(f) * residual},
  };
}

/// What lies outside the layers; a tied head is the embedding, so it is not listed. Embeddings
/// start from N(0, 0.5^2), the head from 0.3 / sqrt(width), small enough for even first logits.
inline std::vector<tensor_spec> outer_tensor_specs(config const& shape) {
  using role = parameter_role;
  index_t const head_rows = shape.tied_head ? 0 : shape.vocab;
  double const head = 0.3 / std::sqrt(static_cast<double>(shape.width));
  return {
      {"model.embed_tokens.weight", role::embedding, shape.vocab, shape.width, 0,
       shape.tied_head ? head : 0.5},
      {"model.norm.weight", role::final_norm, 1, shape.width, 1, 0},
      {"lm_head.weight", role::head, head_rows, shape.width, 0, head},
  };
}

/// Memory for weights in the type they are stored in.
template <lamina::tensor_backend Backend, class Weight>
struct weight_memory {
  using type = lamina::backend_vector<Backend, Weight>;
  static type make(Backend const& backend, index_t size) { return {backend, size}; }
  static Weight* data(type& memory) { return memory.view().data; }
};
template <lamina::tensor_backend Backend>
struct weight_memory<Backend, typename Backend::scalar_type> {
  using type = typename Backend::matrix_type;
  static type make(Backend const& backend, index_t size) {
    return backend.make_matrix(size > 0 ? 1 : 0, size);
  }
  static typename Backend::scalar_type* data(type& memory) { return Backend::view(memory).data; }
};

/// values[i] = f(i), in memory of any kind; waits for a device.
template <lamina::tensor_backend Backend, class T, class F>
void write_values(Backend const& backend, vector_view<T> values, F const& f) {
  if constexpr (lamina::device_backend<Backend>) {
    std::vector<T> staged(static_cast<std::size_t>(values.size));
    for (index_t i = 0; i < values.size; ++i) staged[static_cast<std::size_t>(i)] = f(i);
    lamina::copy_elements(backend, staged, values);
    lamina::wait(backend);
  } else {
    for (index_t i = 0; i < values.size; ++i) values[i] = f(i);
  }
}

/// Calls f(values) with elements that the host can read, in memory of any kind; waits for a device.
template <lamina::tensor_backend Backend, class T, class F>
void read_values(Backend const& backend, vector_view<T const> values, F const& f) {
  if constexpr (lamina::device_backend<Backend>) {
    std::vector<T> staged(static_cast<std::size_t>(values.size));
    lamina::copy_elements(backend, values, vector_view<T>(staged));
    lamina::wait(backend);
    f(vector_view<T const>(staged));
  } else {
    f(values);
  }
}

/// The weights of one layer, or of what lies outside the layers, in one piece of memory; and the
/// gradients of those tensors that were ever trained, each in its own.
///
/// Weight  what weights and their gradients are stored in: the backend's scalar or a narrower type;
///         in the memory of a device, or of the host
template <lamina::tensor_backend Backend, class Weight = typename Backend::scalar_type>
class tensor_block {
 public:
  using scalar_type = Weight;
  using parameter_type = lamina::parameter_view<scalar_type>;

  tensor_block(Backend const& backend, std::vector<tensor_spec> specs, index_t layer,
               std::string const& prefix)
      : specs_(std::move(specs)), layer_(layer), weights_(memory::make(backend, size_of(specs_))) {
    scalar_type* next = memory::data(weights_);
    names_.reserve(specs_.size());
    for (std::size_t i = 0; i < specs_.size(); ++i) {
      tensor_spec const& spec = specs_[i];
      weight_.push_back({next, spec.rows, spec.cols});
      gradient_.push_back({nullptr, 0, spec.cols});
      gradients_.push_back(memory::make(backend, 0));
      names_.push_back(prefix + spec.name);
      next += spec.rows * spec.cols;
    }
    list_parameters();
  }

  template <class Tensor>
  parameter_role role(Tensor tensor) const {
    return specs_[static_cast<std::size_t>(tensor)].role;
  }
  /// Weight [rows, cols] of a tensor; no rows if the model does not have it.
  template <class Tensor>
  matrix_view<scalar_type> weight(Tensor tensor) const {
    return weight_[static_cast<std::size_t>(tensor)];
  }
  /// Weights of neighbouring tensors as one matrix, rows stacked.
  template <class Tensor>
  matrix_view<scalar_type> stacked(Tensor first, Tensor last) const {
    matrix_view<scalar_type> const top = weight(first), bottom = weight(last);
    return {top.data, (bottom.data - top.data) / top.cols + bottom.rows, top.cols};
  }
  /// A vector tensor; empty if the model does not have it.
  template <class Tensor>
  vector_view<scalar_type> vector(Tensor tensor) const {
    return flat(weight(tensor));
  }
  /// Neighbouring vector tensors as one vector.
  template <class Tensor>
  vector_view<scalar_type> stacked_vector(Tensor first, Tensor last) const {
    vector_view<scalar_type> const front = vector(first), back = vector(last);
    return {front.data, back.data - front.data + back.size};
  }
  /// Gradient [rows, cols] of a tensor; no rows unless train() was called for it.
  template <class Tensor>
  matrix_view<scalar_type> gradient(Tensor tensor) const {
    return gradient_[static_cast<std::size_t>(tensor)];
  }

  /// Gives a gradient to every tensor whose role satisfies `trained`; those it has stay in place.
  template <class Trained>
  void train(Backend const& backend, Trained const& trained) {
    bool grown = false;
    for (std::size_t i = 0; i < specs_.size(); ++i) {
      tensor_spec const& spec = specs_[i];
      if (spec.rows == 0 || gradient_[i].rows > 0 || !trained(spec.role)) continue;
      gradients_[i] = memory::make(backend, spec.rows * spec.cols);
      gradient_[i] = {memory::data(gradients_[i]), spec.rows, spec.cols};
      grown = true;
    }
    if (grown) list_parameters();
  }

  /// Frees the gradient of every tensor whose role does not satisfy `trained`.
  template <class Trained>
  void release(Backend const& backend, Trained const& trained) {
    for (std::size_t i = 0; i < specs_.size(); ++i) {
      if (gradient_[i].rows == 0 || trained(specs_[i].role)) continue;
      gradients_[i] = memory::make(backend, 0);
      gradient_[i] = {nullptr, 0, specs_[i].cols};
    }
    list_parameters();
  }

  /// The tensors the model has.
  std::span<parameter_type const> parameters() const { return parameters_; }

  /// All weights in one vector, tensor after tensor.
  vector_view<scalar_type> weights() const { return {weight_.front().data, size_of(specs_)}; }

  /// Draws every weight: a function of the seed, the layer, the tensor and the element alone.
  void initialize(Backend const& backend, std::uint64_t seed) {
    for (std::size_t i = 0; i < specs_.size(); ++i) {
      write_values(backend, flat(weight_[i]), [&](index_t e) {
        double value = specs_[i].mean;
        if (specs_[i].deviation > 0) value += specs_[i].deviation * normal(seed, i, e);
        return lamina::stored<scalar_type>(static_cast<lamina::compute_t<scalar_type>>(value));
      });
    }
  }

 private:
  using memory = weight_memory<Backend, Weight>;

  static index_t size_of(std::vector<tensor_spec> const& specs) {
    index_t total = 0;
    for (tensor_spec const& spec : specs) total += spec.rows * spec.cols;
    return total;
  }

  void list_parameters() {
    parameters_.clear();
    for (std::size_t i = 0; i < specs_.size(); ++i) {
      if (specs_[i].rows == 0) continue;
      parameters_.push_back({names_[i], layer_, specs_[i].role, flat(weight_[i]),
                             flat(gradient_[i]), specs_[i].decays()});
    }
  }

  /// A standard normal draw. Source: Box and Muller 1958.
  double normal(std::uint64_t seed, std::size_t tensor, index_t element) const {
    auto const low = static_cast<std::uint32_t>(element);
    auto const high = static_cast<std::uint32_t>(element >> 32);
    lamina::random_words const r = lamina::philox4x32(
        seed,
        {{low, high, static_cast<std::uint32_t>(layer_ + 1), static_cast<std::uint32_t>(tensor)}});
    double const two_pi = 6.283185307179586;
    return std::sqrt(-2 * std::log(lamina::uniform_open(r.word[0], r.word[1]))) *
           std::cos(two_pi * lamina::uniform_open(r.word[2], r.word[3]));
  }

  std::vector<tensor_spec> specs_;
  index_t layer_;
  typename memory::type weights_;
  std::vector<matrix_view<scalar_type>> weight_;
  std::vector<typename memory::type> gradients_;
  std::vector<matrix_view<scalar_type>> gradient_;
  std::vector<std::string> names_;
  std::vector<parameter_type> parameters_;
};

}  // namespace decoder
