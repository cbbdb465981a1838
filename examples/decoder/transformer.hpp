// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// A decoder-only transformer of the Llama, Qwen2 and Qwen3 family over a lamina backend: forward,
// and a backward pass that does what a plan asks and nothing else.
#pragma once

#include "examples/decoder/batch_attention.hpp"
#include "examples/decoder/layer_backward.hpp"
#include "lamina/model/transformer.hpp"

namespace decoder {

/// Models lamina::prefix_model and lamina::whole_model. Movable, not copyable: parameter views
/// point into it (copy_weights copies values).
///
/// Bits: a planned gradient has the same bits under every plan that trains it, and with any number
/// of threads in the backend's parallel_for hook.
///
/// Weight  what weights and their gradients are stored in. With lamina::bf16 they take half the
///         memory of float: weights are widened piece by piece where they are used, gradients are
///         computed wide and rounded once, and an optimizer keeps masters of what it trains. A
///         backend with products of narrow matrices (cuda_backend) multiplies the stored weights
///         by activations and gradients rounded to the same type, with sums in float; the residual
///         stream, and all that lies between products, stays wide.
///
/// On a device nothing waits but what moves weights (initialize, copy_weights): passes can be asked
/// for one after another, and captured in a graph once their memory has grown to the batch's size.
template <lamina::tensor_backend Backend, class Weight = typename Backend::scalar_type>
class transformer {
 public:
  using backend_type = Backend;
  using scalar_type = typename Backend::scalar_type;
  using weight_type = Weight;
  /// token_batch on a host, device_batch on a device.
  using batch_type = batch_for<Backend>;
  using parameter_type = lamina::parameter_view<Weight>;

  /// Weights are zero until initialize(), copy_weights() or a checkpoint fills them.
  /// Throws config_error if the shape makes no sense.
  transformer(Backend backend, config const& shape)
      : backend_(std::move(backend)),
        shape_((check(shape), shape)),
        rotary_(backend_),
        stream_memory_(backend_),
        working_(backend_),
        outside_(backend_),
        attention_(backend_),
        wide_(backend_) {
    blocks_.reserve(static_cast<std::size_t>(shape_.layer_count) + 1);
    blocks_.emplace_back(backend_, outer_tensor_specs(shape_), lamina::outside_layers, "");
    for (index_t layer = 0; layer < shape_.layer_count; ++layer) {
      blocks_.emplace_back(backend_, layer_tensor_specs(shape_), layer,
                           "model.layers." + std::to_string(layer) + ".");
      saved_.emplace_back(backend_);
    }
    activations_.resize(saved_.size());
    needs_.resize(saved_.size());
  }
  transformer(transformer&&) = default;
  transformer& operator=(transformer&&) = default;

  Backend const& backend() const { return backend_; }
  config const& shape() const { return shape_; }
  index_t layer_count() const { return shape_.layer_count; }

  /// Tensors of a layer, or of what lies outside the layers (lamina::outside_layers).
  tensor_block<Backend, Weight> const& block(index_t layer) const {
    return blocks_[static_cast<std::size_t>(layer + 1)];
  }
  /// The matrix that turns hidden states into logits [vocab, width].
  matrix_view<Weight> head() const {
    return block(lamina::outside_layers)
        .weight(shape_.tied_head ? outer_tensor::embedding : outer_tensor::head);
  }

  /// Parameters under the names of Hugging Face. A gradient is empty until prepare() or forward()
  /// has seen a plan that trains the tensor; from then on it stays where it is.
  /// Throws shape_error if the layer does not exist.
  std::span<parameter_type const> parameters(index_t layer) const {
    if (layer < 0 || layer >= shape_.layer_count) {
      lamina::throw_shape_error("decoder::parameters: layer is ", layer, ", expected 0..",
                                shape_.layer_count - 1);
    }
    return block(layer).parameters();
  }
  /// Embedding, final norm and head; a tied head is the embedding, listed once.
  std::span<parameter_type const> outer_parameters() const {
    return block(lamina::outside_layers).parameters();
  }

  /// Draws all weights; the same for the same seed and shape, whatever the backend.
  void initialize(std::uint64_t seed) {
    for (auto& tensors : blocks_) tensors.initialize(backend_, seed);
  }

  /// Takes over the weights of a model of the same shape, of this backend or another one, rounded
  /// if this one stores them narrower. Waits for devices. Throws config_error for another shape.
  template <class OtherBackend, class Other>
  void copy_weights(transformer<OtherBackend, Other> const& other) {
    if (!(shape_ == other.shape())) {
      lamina::throw_config_error("decoder::copy_weights: the models differ in shape");
    }
    for (index_t layer = lamina::outside_layers; layer < shape_.layer_count; ++layer) {
      read_values(other.backend(), vector_view<Other const>(other.block(layer).weights()),
                  [&](vector_view<Other const> from) {
                    write_values(backend_, block(layer).weights(), [from](index_t i) {
                      return lamina::stored<Weight>(static_cast<lamina::compute_t<Other>>(from[i]));
                    });
                  });
    }
  }

  /// Gives gradients to the parameters the plan trains, so that an optimizer can be built before
  /// the first forward.
  /// Throws config_error if the plan is for another layer count, or trains a tied head alone.
  void prepare(lamina::backward_plan const& plan) {
    check_plan("decoder::prepare", plan);
    for (index_t layer = lamina::outside_layers; layer < shape_.layer_count; ++layer) {
      blocks_[static_cast<std::size_t>(layer + 1)].train(
          backend_, [&](parameter_role role) { return plan.weight_gradient(layer, role); });
    }
  }

  /// Frees the gradients of all parameters that the plan does not train: of a selection that is
  /// left behind. Views of them are invalid afterwards; an optimizer has to be bound anew first.
  /// Throws as prepare.
  void release(lamina::backward_plan const& plan) {
    check_plan("decoder::release", plan);
    for (index_t layer = lamina::outside_layers; layer < shape_.layer_count; ++layer) {
      blocks_[static_cast<std::size_t>(layer + 1)].release(
          backend_, [&](parameter_role role) { return plan.weight_gradient(layer, role); });
    }
  }

  /// Logits [logit_rows, vocab] of the wanted positions; valid until the next forward, may be
  /// overwritten. Keeps what backward reads for this plan, and nothing else.
  /// Throws what check(batch) and prepare(plan) throw, before anything runs.
  matrix_view<scalar_type> forward(batch_type const& batch, lamina::backward_plan const& plan) {
    check(batch, shape_);
    prepare(plan);
    begin(batch, true, &plan);
    embed();
    run_layers(0, shape_.layer_count);
    return run_head();
  }
  /// The same logits, keeping nothing.
  matrix_view<scalar_type> forward(batch_type const& batch) {
    check(batch, shape_);
    begin(batch, true, nullptr);
    embed();
    run_layers(0, shape_.layer_count);
    return run_head();
  }

  /// The residual stream [tokens, width] that enters a layer, or leaves the last one (layer =
  /// layer_count()); valid until the next forward. Computes no logits and keeps nothing.
  /// Throws what check(batch) throws, and config_error if there is no such layer.
  matrix_view<scalar_type const> forward_prefix(batch_type const& batch, index_t layer) {
    check(batch, shape_);
    check_layer("decoder::forward_prefix", layer);
    begin(batch, false, nullptr);
    embed();
    run_layers(0, layer);
    return stream_;
  }

  /// forward from the stream that enters a layer: the layers below are not run. With the result of
  /// forward_prefix, logits and gradients have the bits of forward.
  ///
  /// stream  [tokens, width]  of the tokens of `batch`; may be what forward_prefix returned
  /// Throws as forward, shape_error if the stream is of another shape, and config_error if there
  /// is no such layer or the plan trains something below it.
  matrix_view<scalar_type> forward_suffix(batch_type const& batch, index_t layer,
                                          matrix_view<scalar_type const> stream,
                                          lamina::backward_plan const& plan) {
    check(batch, shape_);
    check_layer("decoder::forward_suffix", layer);
    if (stream.rows != batch.token_count() || stream.cols != shape_.width) {
      lamina::throw_shape_error("decoder::forward_suffix: the stream is ", stream.rows, " x ",
                                stream.cols, ", expected tokens x width = ", batch.token_count(),
                                " x ", shape_.width);
    }
    if (plan.stop_layer() < layer) {
      lamina::throw_config_error("decoder::forward_suffix: the plan stops at layer ",
                                 plan.stop_layer(), ", the stream enters layer ", layer);
    }
    prepare(plan);
    begin(batch, true, &plan);
    if (stream.data != stream_.data) {
      backend_.executor().run(stream.rows, copy_row<T>{stream, stream_});
    }
    run_layers(layer, shape_.layer_count);
    return run_head();
  }

  /// Fills the gradients of the planned parameters from d loss / d logits of the last forward, and
  /// touches no others. The plan may be narrower than the one of the forward pass.
  /// Throws shape_error if there was no forward or d_logits has another shape, config_error if the
  /// plan needs activations that the forward pass did not keep.
  void backward(matrix_view<scalar_type const> d_logits, lamina::backward_plan const& plan);

  /// Elements of memory held for the activations of a layer; 0 until a plan keeps them.
  index_t kept_activations(index_t layer) const {
    return saved_[static_cast<std::size_t>(layer)].size();
  }

 private:
  using T = scalar_type;
  using activations = activations_for<Backend, Weight>;

  void check_plan(char const* function, lamina::backward_plan const& plan) const {
    if (plan.layer_count() != shape_.layer_count) {
      lamina::throw_config_error(function, ": the plan is for ", plan.layer_count(),
                                 " layers, the model has ", shape_.layer_count);
    }
    if (shape_.tied_head && plan.trains_head() && !plan.trains_embeddings()) {
      lamina::throw_config_error(function,
                                 ": the plan trains the head without the embeddings, but the head "
                                 "is tied to them; train embeddings instead");
    }
  }

  void check_layer(char const* function, index_t layer) const {
    if (layer < 0 || layer > shape_.layer_count) {
      lamina::throw_config_error(function, ": layer is ", layer, ", expected 0..",
                                 shape_.layer_count);
    }
  }
  void check_kept(lamina::backward_plan const& plan) const;

  void begin(batch_type const& batch, bool with_logits, lamina::backward_plan const* plan);
  void embed();
  void run_layers(index_t first, index_t last);
  matrix_view<T> run_head();
  void backward_outside(matrix_view<T const> d_logits, lamina::backward_plan const& plan,
                        gradients_for<Backend, Weight> const& g, bool into_layers);
  vector_view<T const> final_norm() {
    return wide_vector(backend_, wide_,
                       block(lamina::outside_layers).vector(outer_tensor::final_norm));
  }
  void embedding_gradient(matrix_view<T const> d_logits, matrix_view<T const> d_stream);

  planned_gradients<Backend, Weight> gradients(lamina::backward_plan const& plan,
                                               index_t layer) const {
    return {block(layer), plan, layer};
  }

  Backend backend_;
  config shape_;
  std::vector<tensor_block<Backend, Weight>> blocks_;  // outside the layers, then layer by layer
  rotary_cache<Backend> rotary_;

  // The last forward pass.
  placed_batch<Backend> batch_;
  index_t stop_layer_ = lamina::max_layers;  // layers below kept nothing
  std::vector<layer_needs> needs_;           // [layers] what they kept
  std::vector<arena<Backend>> saved_;        // [layers]
  std::vector<activations> activations_;     // [layers]
  arena<Backend> stream_memory_;
  arena<Backend> working_;      // of one layer at a time, forward or backward
  arena<Backend> outside_;      // what follows the stream
  matrix_view<T> stream_;       // [tokens, width] residual stream
  matrix_view<T> last_;         // [logit rows, width] its wanted rows
  matrix_view<T> hidden_;       // [logit rows, width] normalised
  vector_view<T> inverse_rms_;  // [logit rows]
  matrix_view<T> logits_;       // [logit rows, vocab]

  batch_attention<Backend, Weight> attention_;
  widening<Backend> wide_;
};

/// Takes over a batch and makes room for it: for its logits, if they are wanted, and for what the
/// backward pass of `plan` reads, if there is one.
template <lamina::tensor_backend Backend, class Weight>
void transformer<Backend, Weight>::begin(batch_type const& batch, bool with_logits,
                                         lamina::backward_plan const* plan) {
  batch_.assign(batch);
  index_t const tokens = batch_.token_count(), d = shape_.width;
  index_t const logit_rows = with_logits ? batch_.logit_rows().size : 0;
  stop_layer_ = plan != nullptr ? plan->stop_layer() : lamina::max_layers;
  stream_memory_.reset(backend_, tokens * d);
  stream_ = stream_memory_.take(tokens, d);
  outside_.reset(backend_, logit_rows * (2 * d + 1 + shape_.vocab));
  last_ = outside_.take(logit_rows, d);
  hidden_ = outside_.take(logit_rows, d);
  logits_ = outside_.take(logit_rows, shape_.vocab);
  inverse_rms_ = flat(outside_.take(1, logit_rows));

  for (index_t layer = 0; layer < shape_.layer_count; ++layer) {
    needs_[static_cast<std::size_t>(layer)] =
        plan != nullptr ? layer_needs(*plan, layer) : layer_needs();
  }
  rotary_.cover(backend_, shape_, batch_.longest());
}

template <lamina::tensor_backend Backend, class Weight>
void transformer<Backend, Weight>::embed() {
  backend_.executor().run(
      stream_.rows,
      gather_rows<T, std::int32_t, Weight>{
          block(lamina::outside_layers).weight(outer_tensor::embedding), batch_.tokens(), stream_});
}

/// Takes the stream through layers [first, last).
template <lamina::tensor_backend Backend, class Weight>
void transformer<Backend, Weight>::run_layers(index_t first, index_t last) {
  forward_pass<Backend> const run{backend_, shape_, rotary_, batch_.positions(), wide_, {}};
  for (index_t layer = first; layer < last; ++layer) {
    auto const i = static_cast<std::size_t>(layer);
    activations& a = activations_[i];
    a = activations::lay_out(backend_, saved_[i], working_, shape_, run.token_count(), needs_[i]);
    forward_layer(run, block(layer), a, stream_,
                  [&](matrix_view<T const> qkv, matrix_view<T> mixed) {
                    attention_.forward(backend_, shape_, batch_, qkv, mixed, a.log_sums);
                  });
  }
}

template <lamina::tensor_backend Backend, class Weight>
matrix_view<typename Backend::scalar_type> transformer<Backend, Weight>::run_head() {
  vector_view<index_t const> const rows = batch_.logit_rows();
  auto const epsilon = static_cast<T>(shape_.norm_epsilon);
  backend_.executor().run(rows.size, gather_rows<T, index_t>{stream_, rows, last_});
  backend_.executor().run(rows.size,
                          rms_norm<T>{last_, final_norm(), epsilon, hidden_, {}, inverse_rms_});
  forward_pass<Backend> const run{backend_, shape_, rotary_, rows, wide_, {}};
  run.project(hidden_, head(), logits_);
  return logits_;
}

template <lamina::tensor_backend Backend, class Weight>
void transformer<Backend, Weight>::check_kept(lamina::backward_plan const& plan) const {
  if (plan.stop_layer() < stop_layer_) {
    lamina::throw_config_error("decoder::backward: the plan stops at layer ", plan.stop_layer(),
                               ", the forward pass kept activations from layer ", stop_layer_,
                               " on");
  }
  for (index_t layer = plan.stop_layer(); layer < shape_.layer_count; ++layer) {
    if (!needs_[static_cast<std::size_t>(layer)].covers(layer_needs(plan, layer))) {
      lamina::throw_config_error("decoder::backward: the plan trains tensors of layer ", layer,
                                 " that the plan of the forward pass did not: it kept no "
                                 "activations for them");
    }
  }
}

template <lamina::tensor_backend Backend, class Weight>
void transformer<Backend, Weight>::backward(matrix_view<scalar_type const> d_logits,
                                            lamina::backward_plan const& plan) {
  check_plan("decoder::backward", plan);
  if (logits_.rows == 0) {
    lamina::throw_shape_error("decoder::backward: no forward pass came before");
  }
  if (d_logits.rows != logits_.rows || d_logits.cols != logits_.cols) {
    lamina::throw_shape_error("decoder::backward: d_logits is ", d_logits.rows, " x ",
                              d_logits.cols, ", the logits are ", logits_.rows, " x ",
                              logits_.cols);
  }
  check_kept(plan);
  prepare(plan);

  bool const into_layers = plan.stop_layer() < shape_.layer_count;
  auto const g =
      gradients_for<Backend, Weight>::lay_out(backend_, working_, shape_, batch_.token_count());
  backward_outside(d_logits, plan, g, into_layers);
  if (!into_layers) return;

  backward_pass<Backend> const run{backend_, shape_, rotary_, batch_.positions(), wide_};
  for (index_t layer = shape_.layer_count - 1; layer >= plan.stop_layer(); --layer) {
    layer_needs const needs(plan, layer);
    auto const grads = gradients(plan, layer);
    auto const& a = activations_[static_cast<std::size_t>(layer)];
    backward_mlp(run, needs, block(layer), grads, a, g);
    if (!needs.middle) return;
    backward_attention(run, needs, block(layer), grads, a, g,
                       [&](auto const& saved, auto const& d) {
                         attention_.backward(backend_, shape_, batch_, saved, d.mixed, d.qkv);
                       });
  }
  if (plan.trains_embeddings()) embedding_gradient(d_logits, g.stream);
}

/// Head and final norm; leaves the gradient of the residual stream in g.stream if layers follow.
template <lamina::tensor_backend Backend, class Weight>
void transformer<Backend, Weight>::backward_outside(matrix_view<T const> d_logits,
                                                    lamina::backward_plan const& plan,
                                                    gradients_for<Backend, Weight> const& g,
                                                    bool into_layers) {
  backward_pass<Backend> const run{backend_, shape_, rotary_, {}, wide_};
  auto const grads = gradients(plan, lamina::outside_layers);
  // A tied head is the embedding, whose gradient comes last.
  if (!shape_.tied_head)
    run.weight_gradient(d_logits, 0, hidden_, grads.matrix(outer_tensor::head));
  vector_view<Weight> const d_norm = grads.vector(outer_tensor::final_norm);
  if (d_norm.empty() && !into_layers) return;

  vector_view<index_t const> const rows = batch_.logit_rows();
  matrix_view<T> const d_hidden = g.branch.row_block(0, rows.size);
  run.input_gradient(d_logits, head(), d_hidden);
  run.norm_weight_gradient(last_, inverse_rms_, d_hidden, d_norm);
  if (!into_layers) return;
  backend_.executor().run(g.stream.rows, zero_rows<T>{g.stream});
  backend_.executor().run(
      rows.size, rms_norm_backward<T>{last_, final_norm(), inverse_rms_, d_hidden, g.stream, rows});
}

template <lamina::tensor_backend Backend, class Weight>
void transformer<Backend, Weight>::embedding_gradient(matrix_view<T const> d_logits,
                                                      matrix_view<T const> d_stream) {
  token_order_view const order = batch_.order(shape_.vocab);
  auto const write = [&](auto d, auto hidden) {
    write_gradient(backend_, wide_, block(lamina::outside_layers).gradient(outer_tensor::embedding),
                   [&](index_t first, matrix_view<T> part) {
                     if (shape_.tied_head) {
                       backend_.gemm(transpose::yes, transpose::no, T(1),
                                     columns(d, first, part.rows), hidden, T(0), part);
                     }
                     backend_.executor().run(
                         part.rows,
                         sum_by_token<T>{d_stream, order.first.subview(first, part.rows + 1),
                                         order.positions, shape_.tied_head, part});
                   });
  };
  if constexpr (narrow_products<Backend, Weight>) {
    if (shape_.tied_head) {
      write(narrowed<Weight>(backend_, wide_.left, d_logits),
            narrowed<Weight>(backend_, wide_.right, hidden_));
      return;
    }
  }
  write(d_logits, matrix_view<T const>(hidden_));
}

}  // namespace decoder
