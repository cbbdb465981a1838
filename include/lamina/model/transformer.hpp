// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// How a host transformer presents itself: one traits struct and a ladder of concepts over it.
#pragma once

#include <concepts>
#include <cstdint>
#include <type_traits>
#include <vector>

#include "lamina/backend/backend.hpp"
#include "lamina/core/parameter.hpp"
#include "lamina/layers/backward_plan.hpp"
#include "lamina/layers/tensor_selection.hpp"

LAMINA_NAMESPACE_BEGIN

namespace detail {
template <class M>
struct batch_type_of {};
template <class M>
requires requires { typename M::batch_type; }
struct batch_type_of<M> {
  using batch_type = typename M::batch_type;
};
}  // namespace detail

/// The host's side of the contract. The primary template forwards to members of M; an engine that
/// cannot be touched specialises it and provides the same static functions.
///
/// layer_count(m)               number of decoder layers
/// parameters(m, layer)         range of parameter_view<T> of one decoder layer
/// outer_parameters(m)          range of parameter_view<T> outside the layers: embeddings, final
///                              norm, head (a tied head is one tensor, listed once)
/// forward(m, batch, plan)      logits [tokens, vocab], owned by the model, valid until the next
///                              forward; the caller may overwrite them with d loss / d logits
/// backward(m, dlogits, plan)   fills the gradients of the planned parameters (overwrites)
/// forward_prefix(m, batch, layer)
///                              the residual stream [tokens, width] that enters `layer`, owned by
///                              the model, valid until its next forward of any kind; tokens in the
///                              order of the batch. layer = layer_count: what leaves the last layer
/// forward_suffix(m, batch, layer, stream, plan)
///                              logits as of forward, from the stream that enters `layer` on; the
///                              plan trains nothing below. backward follows as after forward
/// save_layer(m, layer)         a value that restore_layer(m, layer, value) brings back bit for
///                              bit; layer = outside_layers means the outer parameters
/// weight_version(m, layer)     a number that is another one whenever the weights of the layer, or
///                              those outside (outside_layers), may have changed; see prefix_cache
template <class M>
struct model_traits : detail::batch_type_of<M> {
  static index_t layer_count(M const& model) requires requires {
    { model.layer_count() } -> std::convertible_to<index_t>;
  }
  { return model.layer_count(); }
  static auto parameters(M& model, index_t layer) requires requires { model.parameters(layer); }
  { return model.parameters(layer); }
  static auto outer_parameters(M& model) requires requires { model.outer_parameters(); }
  { return model.outer_parameters(); }
  template <class Batch>
  requires requires(M& m, Batch const& b, backward_plan const& p) { m.forward(b, p); }
  static auto forward(M& model, Batch const& batch, backward_plan const& plan) {
    return model.forward(batch, plan);
  }
  template <class T>
  requires requires(M& m, matrix_view<T const> d, backward_plan const& p) { m.backward(d, p); }
  static void backward(M& model, matrix_view<T const> d_logits, backward_plan const& plan) {
    model.backward(d_logits, plan);
  }
  template <class Batch>
  requires requires(M& m, Batch const& b, index_t layer) { m.forward_prefix(b, layer); }
  static auto forward_prefix(M& model, Batch const& batch, index_t layer) {
    return model.forward_prefix(batch, layer);
  }
  template <class Batch, class T>
  requires requires(M& m, Batch const& b, index_t layer, matrix_view<T const> s,
                    backward_plan const& p) {
    m.forward_suffix(b, layer, s, p);
  }
  static auto forward_suffix(M& model, Batch const& batch, index_t layer,
                             matrix_view<T const> stream, backward_plan const& plan) {
    return model.forward_suffix(batch, layer, stream, plan);
  }
  static std::uint64_t weight_version(M const& model, index_t layer) requires requires {
    { model.weight_version(layer) } -> std::convertible_to<std::uint64_t>;
  }
  { return model.weight_version(layer); }
  static auto save_layer(M& model, index_t layer) requires requires { model.save_layer(layer); }
  { return model.save_layer(layer); }
  template <class State>
  requires requires(M& m, index_t layer, State const& s) { m.restore_layer(layer, s); }
  static void restore_layer(M& model, index_t layer, State const& state) {
    model.restore_layer(layer, state);
  }
};

/// A range of parameter_view<T>.
template <class R>
concept parameter_range = requires(R const& range) {
  typename std::remove_cvref_t<decltype(*range.begin())>::scalar_type;
  requires std::same_as<
      std::remove_cvref_t<decltype(*range.begin())>,
      parameter_view<typename std::remove_cvref_t<decltype(*range.begin())>::scalar_type>>;
  range.end();
};

/// A model whose decoder layers can be listed: all that an optimizer or an audit needs.
template <class M>
concept layered_model = requires(M& model, M const& constant, index_t layer) {
  { model_traits<M>::layer_count(constant) } -> std::same_as<index_t>;
  { model_traits<M>::parameters(model, layer) } -> parameter_range;
};

/// A model that also lists what lies outside its layers; full training and "head only" need it.
template <class M>
concept whole_model = layered_model<M> && requires(M& model) {
  { model_traits<M>::outer_parameters(model) } -> parameter_range;
};

/// The scalar type of a model's parameters.
template <layered_model M>
using model_scalar_t = typename std::remove_cvref_t<
    decltype(*model_traits<M>::parameters(std::declval<M&>(), index_t{}).begin())>::scalar_type;

namespace detail {
template <class M>
using logits_view_t = decltype(model_traits<M>::forward(
    std::declval<M&>(), std::declval<typename model_traits<M>::batch_type const&>(),
    std::declval<backward_plan const&>()));

// A matrix_view<T> of what a model of scalar `Scalar` computes in: logits and streams may be wider
// than the weights, but not of another precision of arithmetic.
template <class View, class Scalar>
concept activations_of = std::same_as<View, matrix_view<typename View::element_type>> &&
    storage_scalar<std::remove_const_t<typename View::element_type>> &&
    std::same_as<compute_t<std::remove_const_t<typename View::element_type>>, compute_t<Scalar>>;
}  // namespace detail

/// The scalar type of a model's logits: that of its parameters, or the one it computes in.
template <layered_model M>
using model_logit_t = typename detail::logits_view_t<M>::element_type;

/// A model that runs forward and backward by a plan: what a train step needs.
template <class M>
concept trainable_model = layered_model<M> && requires {
  requires detail::activations_of<detail::logits_view_t<M>, model_scalar_t<M>>;
  requires !std::is_const_v<model_logit_t<M>>;
  requires requires(M & model, matrix_view<model_logit_t<M> const> d_logits,
                    backward_plan const& plan) {
    { model_traits<M>::backward(model, d_logits, plan) } -> std::same_as<void>;
  };
};

namespace detail {
template <class M>
using stream_view_t = decltype(model_traits<M>::forward_prefix(
    std::declval<M&>(), std::declval<typename model_traits<M>::batch_type const&>(), index_t{}));
}  // namespace detail

/// The scalar type of a model's residual stream.
template <trainable_model M>
using model_stream_t = std::remove_const_t<typename detail::stream_view_t<M>::element_type>;

/// A model that can stop before a layer and go on from there, so that what its frozen layers
/// compute may be kept: what a prefix_cache needs. Prefix and suffix together have the bits of
/// forward.
template <class M>
concept prefix_model = trainable_model<M> && requires {
  requires detail::activations_of<detail::stream_view_t<M>, model_scalar_t<M>>;
  requires requires(M & model, typename model_traits<M>::batch_type const& batch, index_t layer,
                    matrix_view<model_stream_t<M> const> stream, backward_plan const& plan) {
    {
      model_traits<M>::forward_suffix(model, batch, layer, stream, plan)
      } -> std::same_as<matrix_view<model_logit_t<M>>>;
  };
};

/// A model whose layers can be put back as they were: what a sweep needs, and only a sweep. A model
/// that lists its parameters in host memory need not do anything: see model_snapshot.
template <class M>
concept restorable_model = layered_model<M> && requires(M& model, index_t layer) {
  model_traits<M>::restore_layer(model, layer, model_traits<M>::save_layer(model, layer));
};

/// Says which requirement a model misses, one sentence a rung, in every compiler.
/// Use: static_assert(lamina::check_trainable_model<my_model>());
template <class M>
consteval bool check_trainable_model() {
  static_assert(
      requires(M const& m) {
        { model_traits<M>::layer_count(m) } -> std::same_as<index_t>;
      },
      "lamina: a model needs layer_count() const that returns index_t");
  static_assert(
      requires(M & m, index_t layer) {
        { model_traits<M>::parameters(m, layer) } -> parameter_range;
      },
      "lamina: a model needs parameters(layer) that returns a range of parameter_view<T>");
  static_assert(
      requires { typename model_traits<M>::batch_type; },
      "lamina: a trainable model needs batch_type, in the model or in its model_traits");
  static_assert(trainable_model<M>,
                "lamina: a trainable model needs forward(batch, plan) that returns matrix_view<T> "
                "logits [tokens, vocab], and backward(matrix_view<T const>, plan)");
  return trainable_model<M>;
}

/// The same for a model whose frozen prefix is to be cached.
template <class M>
consteval bool check_prefix_model() {
  static_assert(check_trainable_model<M>());
  static_assert(
      requires(M & m, typename model_traits<M>::batch_type const& batch, index_t layer) {
        {
          model_traits<M>::forward_prefix(m, batch, layer)
          } -> detail::activations_of<model_scalar_t<M>>;
      },
      "lamina: a prefix model needs forward_prefix(batch, layer) that returns the matrix_view<T> "
      "[tokens, width] which enters the layer");
  static_assert(prefix_model<M>,
                "lamina: a prefix model needs forward_suffix(batch, layer, matrix_view<T const> "
                "stream, plan) that returns what forward returns");
  return prefix_model<M>;
}

/// Every parameter of the model: the outer ones (where the model lists them) first, then layer by
/// layer. The views stay valid as long as the host keeps its tensors where they are.
template <layered_model M>
std::vector<parameter_view<model_scalar_t<M>>> all_parameters(M& model) {
  std::vector<parameter_view<model_scalar_t<M>>> result;
  if constexpr (whole_model<M>) {
    for (auto const& parameter : model_traits<M>::outer_parameters(model)) {
      result.push_back(parameter);
    }
  }
  index_t const layer_count = model_traits<M>::layer_count(model);
  for (index_t layer = 0; layer < layer_count; ++layer) {
    for (auto const& parameter : model_traits<M>::parameters(model, layer)) {
      result.push_back(parameter);
    }
  }
  return result;
}

/// The parameters `plan` trains, in the order of all_parameters.
///
/// Throws config_error if the plan was made for another layer count or trains something outside
/// the layers that the model does not list, and selection_error if the plan's roles match no
/// tensor of a selected layer.
template <layered_model M>
std::vector<parameter_view<model_scalar_t<M>>> trained_parameters(M& model,
                                                                  backward_plan const& plan) {
  index_t const layer_count = model_traits<M>::layer_count(model);
  if (plan.layer_count() != layer_count) {
    throw_config_error("trained_parameters: the plan is for ", plan.layer_count(),
                       " layers, the model has ", layer_count);
  }
  std::vector<parameter_view<model_scalar_t<M>>> result;
  layer_set reached;
  bool embeddings = false, final_norm = false, head = false;
  for (auto const& parameter : all_parameters(model)) {
    if (!plan.weight_gradient(parameter.layer, parameter.role)) continue;
    if (parameter.layer != outside_layers) reached.insert(parameter.layer);
    embeddings |= parameter.role == parameter_role::embedding;
    final_norm |= parameter.role == parameter_role::final_norm;
    head |= parameter.role == parameter_role::head;
    result.push_back(parameter);
  }
  if (!(plan.layers() == reached)) {
    throw_selection_error("trained_parameters: layer ", (plan.layers() - reached).lowest(),
                          " is selected, but none of its tensors has a trained role");
  }
  // A tied head is listed once, as the embedding, so it answers for both.
  if ((plan.trains_embeddings() && !embeddings) || (plan.trains_final_norm() && !final_norm) ||
      (plan.trains_head() && !head && !embeddings)) {
    throw_config_error("trained_parameters: the plan trains ",
                       plan.trains_embeddings() && !embeddings   ? "embeddings"
                       : plan.trains_final_norm() && !final_norm ? "final_norm"
                                                                 : "head",
                       ", the model lists no such parameter outside its layers");
  }
  return result;
}

/// The model's tensors as a selection sees them: parse_selection(text, layer_count,
/// model_tensors(m)).
template <layered_model M>
std::vector<model_tensor> model_tensors(M& model) {
  std::vector<model_tensor> tensors;
  for (auto const& parameter : all_parameters(model)) tensors.push_back(as_tensor(parameter));
  return tensors;
}

/// The parameters `selection` selects, in the order of all_parameters: what to hand to an optimizer
/// next to plan_backward(layer_count, selection.covering()), which may cover more.
///
/// Throws as trained_parameters for that plan, and selection_error if a layer keeps no tensor, a
/// pattern matches none, or one that the plan does not cover: the selection was read for tensors of
/// other names or roles.
template <layered_model M>
std::vector<parameter_view<model_scalar_t<M>>> trained_parameters(
    M& model, tensor_selection const& selection) {
  backward_plan const plan =
      plan_backward(model_traits<M>::layer_count(model), selection.covering());
  static_cast<void>(trained_parameters(model, plan));
  std::vector<parameter_view<model_scalar_t<M>>> result;
  layer_set reached;
  for (auto const& parameter : all_parameters(model)) {
    if (!selection.contains(as_tensor(parameter))) continue;
    if (!plan.weight_gradient(parameter.layer, parameter.role)) {
      throw_selection_error("trained_parameters: ", parameter.name,
                            " is selected, but was not among the tensors that the selection was "
                            "read for, or had another layer or role there");
    }
    if (parameter.layer != outside_layers) reached.insert(parameter.layer);
    result.push_back(parameter);
  }
  for (pattern_item const& item : selection.patterns()) {
    bool matched = false;
    for (auto const& parameter : result) matched |= item.selects(parameter.name);
    if (!matched) {
      throw_selection_error("trained_parameters: ", item.text(), " selects no tensor of the model");
    }
  }
  if (!(plan.layers() == reached)) {
    throw_selection_error("trained_parameters: layer ", (plan.layers() - reached).lowest(),
                          " is selected, but none of its tensors is");
  }
  return result;
}

LAMINA_NAMESPACE_END
