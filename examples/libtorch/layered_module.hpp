// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// What lamina sees of LibTorch: views of tensors, and a module whose parameters know their layers.
#pragma once

// [adopt]
#include <torch/torch.h>

#include <algorithm>
#include <cstddef>
#include <string>
#include <type_traits>
#include <vector>

#include "lamina/backend/foreign.hpp"
#include "lamina/core/error.hpp"
#include "lamina/core/parameter.hpp"
#include "lamina/core/view.hpp"
#include "lamina/layers/parameter_name.hpp"
#include "lamina/layers/tensor_selection.hpp"

namespace libtorch {

/// The element type of a torch tensor whose memory is elements of T.
template <class T>
inline constexpr torch::ScalarType torch_type = torch::CppTypeToScalarType<T>::value;
template <>
inline constexpr torch::ScalarType torch_type<lamina::bf16> = torch::kBFloat16;
template <>
inline constexpr torch::ScalarType torch_type<lamina::f16> = torch::kHalf;

/// A torch tensor whose elements are known to be T in host memory, in the words of std::mdspan,
/// which lamina::make_vector_view and make_matrix_view understand. The memory stays torch's.
template <class T>
class host_tensor {
 public:
  /// Throws config_error for a tensor that is undefined, not strided in host memory, or of other
  /// elements than T.
  explicit host_tensor(torch::Tensor const& tensor) : tensor_(tensor) {
    constexpr auto type = torch_type<std::remove_const_t<T>>;
    if (!tensor.defined()) {
      lamina::throw_config_error("host_tensor: the tensor is undefined, expected one with memory");
    }
    if (!tensor.device().is_cpu() || tensor.layout() != torch::kStrided) {
      lamina::throw_config_error("host_tensor: the tensor is ", c10::str(tensor.layout()), " on ",
                                 tensor.device().str(), ", expected Strided on cpu");
    }
    if (tensor.scalar_type() != type) {
      lamina::throw_config_error("host_tensor: the tensor holds ",
                                 torch::toString(tensor.scalar_type()), ", expected ",
                                 torch::toString(type));
    }
  }

  T* data_handle() const { return static_cast<T*>(tensor_.data_ptr()); }
  lamina::index_t rank() const { return tensor_.dim(); }
  lamina::index_t extent(std::size_t axis) const { return tensor_.sizes()[axis]; }
  lamina::index_t stride(std::size_t axis) const { return tensor_.strides()[axis]; }

 private:
  torch::Tensor tensor_;
};

/// All elements of a tensor, in the order of its axes. Throws as host_tensor, and shape_error as
/// lamina::make_vector_view.
template <class T>
lamina::vector_view<T> torch_vector_view(torch::Tensor const& tensor) {
  return lamina::make_vector_view(host_tensor<T>(tensor));
}

/// The last axis of a tensor as rows: [batch, length, vocab] is [batch * length, vocab]. Throws as
/// host_tensor, and shape_error as lamina::make_matrix_view.
template <class T>
lamina::matrix_view<T> torch_matrix_view(torch::Tensor const& tensor) {
  return lamina::make_matrix_view(host_tensor<T>(tensor));
}

/// A torch module as lamina's whole_model: its parameters, each in the layer and the role that its
/// name says. Holds handles of the tensors, so that views stay valid; keep it where it is.
///
/// lamina's optimizers write weights behind autograd's back: step after a backward pass, not
/// between it and its forward pass.
template <lamina::storage_scalar T = float>
class layered_module {
 public:
  /// Places every parameter of `module`; a tied one is listed once, by its first name. Throws
  /// config_error if no name tells a decoder layer.
  explicit layered_module(torch::nn::Module const& module) {
    for (auto const& [name, tensor] : module.named_parameters().pairs()) {
      auto const& weight = tensor;
      auto const tied = [&](auto const& listed) { return listed.value().is_same(weight); };
      if (std::any_of(named_.begin(), named_.end(), tied)) continue;
      named_.insert(name, tensor);
      places_.push_back(lamina::parse_parameter_name(name));
      layer_count_ = std::max(layer_count_, places_.back().layer + 1);
    }
    if (layer_count_ == 0) {
      lamina::throw_config_error("layered_module: none of ", named_.size(),
                                 " names tells a decoder layer, expected such as layers.0.norm");
    }
    gradients_.resize(named_.size());
  }
  layered_module(layered_module const&) = delete;
  layered_module& operator=(layered_module const&) = delete;

  lamina::index_t layer_count() const noexcept { return layer_count_; }
  std::vector<lamina::parameter_view<T>> parameters(lamina::index_t layer) const {
    std::vector<lamina::parameter_view<T>> views;
    for (std::size_t i = 0; i < places_.size(); ++i) {
      if (places_[i].layer != layer) continue;
      auto const& [name, tensor] = named_.items()[i].pair();
      views.push_back({.name = name,
                       .layer = layer,
                       .role = places_[i].role,
                       .weight = torch_vector_view<T>(tensor),
                       .gradient = {},
                       .decays = tensor.dim() > 1});
      if (gradients_[i].defined()) views.back().gradient = torch_vector_view<T>(gradients_[i]);
    }
    return views;
  }
  std::vector<lamina::parameter_view<T>> outer_parameters() const {
    return parameters(lamina::outside_layers);
  }

  /// From now on autograd computes gradients of what is selected and of nothing else; they stay
  /// where they are. What is frozen loses the gradient it had.
  void select(lamina::tensor_selection const& selection) {
    for (std::size_t i = 0; i < places_.size(); ++i) {
      auto& [name, tensor] = named_[i].pair();
      bool const trained = selection.contains({name, places_[i].layer, places_[i].role});
      tensor.set_requires_grad(trained);
      gradients_[i] = trained ? torch::zeros_like(tensor) : torch::Tensor();
    }
    zero_gradients();
  }
  /// Call it before every backward pass, in place of an optimizer's or module's zero_grad, which
  /// may take the memory away.
  void zero_gradients() {
    for (std::size_t i = 0; i < places_.size(); ++i) {
      if (gradients_[i].defined()) gradients_[i].zero_();
      named_[i].value().mutable_grad() = gradients_[i];
    }
  }

 private:
  torch::OrderedDict<std::string, torch::Tensor> named_;
  std::vector<lamina::parameter_place> places_;
  std::vector<torch::Tensor> gradients_;  // undefined where frozen
  lamina::index_t layer_count_ = 0;
};

}  // namespace libtorch
// [/adopt]
