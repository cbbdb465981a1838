// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// The host engine: a decoder-only transformer as one writes it in LibTorch. It knows nothing of
// lamina.
#pragma once

#include <torch/torch.h>

#include <cmath>
#include <cstdint>
#include <limits>

namespace libtorch {

struct transformer_options {
  std::int64_t vocab = 10;
  std::int64_t context = 8;
  std::int64_t width = 64;
  std::int64_t head_count = 4;
  std::int64_t layer_count = 4;
};

inline torch::nn::Linear without_bias(std::int64_t in, std::int64_t out) {
  return torch::nn::Linear(torch::nn::LinearOptions(in, out).bias(false));
}

/// Causal multi-head self-attention.
struct attention_impl : torch::nn::Module {
  explicit attention_impl(transformer_options const& options)
      : head_count(options.head_count),
        query(register_module("query", without_bias(options.width, options.width))),
        key(register_module("key", without_bias(options.width, options.width))),
        value(register_module("value", without_bias(options.width, options.width))),
        out(register_module("out", without_bias(options.width, options.width))) {}

  /// [batch, length, width] to the same.
  torch::Tensor forward(torch::Tensor const& x) {
    auto const length = x.size(1);
    auto const heads = [&](torch::nn::Linear& projection) {  // [batch, heads, length, head width]
      return projection(x).view({x.size(0), length, head_count, -1}).transpose(1, 2);
    };
    auto const future = torch::ones({length, length}, x.options().dtype(torch::kBool)).triu(1);
    auto const scale = std::sqrt(static_cast<double>(head_count) / static_cast<double>(x.size(2)));
    auto const scores = torch::matmul(heads(query), heads(key).transpose(-2, -1)) * scale;
    auto const weights =
        scores.masked_fill(future, -std::numeric_limits<double>::infinity()).softmax(-1);
    return out(torch::matmul(weights, heads(value)).transpose(1, 2).flatten(2));
  }

  std::int64_t head_count;
  torch::nn::Linear query, key, value, out;
};
TORCH_MODULE_IMPL(attention, attention_impl);

struct mlp_impl : torch::nn::Module {
  explicit mlp_impl(transformer_options const& options)
      : fc1(register_module("fc1", torch::nn::Linear(options.width, 4 * options.width))),
        fc2(register_module("fc2", torch::nn::Linear(4 * options.width, options.width))) {}

  torch::Tensor forward(torch::Tensor const& x) { return fc2(torch::gelu(fc1(x))); }

  torch::nn::Linear fc1, fc2;
};
TORCH_MODULE_IMPL(mlp, mlp_impl);

/// A pre-norm decoder layer.
struct decoder_layer_impl : torch::nn::Module {
  explicit decoder_layer_impl(transformer_options const& options)
      : attention_norm(register_module("attention_norm", norm_of(options))),
        self_attention(register_module("attention", attention(options))),
        mlp_norm(register_module("mlp_norm", norm_of(options))),
        feed_forward(register_module("mlp", mlp(options))) {}

  static torch::nn::LayerNorm norm_of(transformer_options const& options) {
    return torch::nn::LayerNorm(torch::nn::LayerNormOptions({options.width}));
  }
  torch::Tensor forward(torch::Tensor const& x) {
    auto const attended = x + self_attention(attention_norm(x));
    return attended + feed_forward(mlp_norm(attended));
  }

  torch::nn::LayerNorm attention_norm;
  attention self_attention;
  torch::nn::LayerNorm mlp_norm;
  mlp feed_forward;
};
TORCH_MODULE_IMPL(decoder_layer, decoder_layer_impl);

struct transformer_impl : torch::nn::Module {
  explicit transformer_impl(transformer_options const& with = {})
      : options(with),
        embedding(register_module("embedding", torch::nn::Embedding(with.vocab, with.width))),
        positions(
            register_module("position_embeddings", torch::nn::Embedding(with.context, with.width))),
        layers(register_module("layers", torch::nn::ModuleList())),
        norm(register_module("norm", decoder_layer_impl::norm_of(with))),
        head(register_module("head", without_bias(with.width, with.vocab))) {
    for (std::int64_t k = 0; k < with.layer_count; ++k) layers->push_back(decoder_layer(with));
  }

  /// Logits [batch, length - first, vocab] of what follows the tokens [batch, length] from position
  /// `first` on.
  torch::Tensor forward(torch::Tensor const& tokens, std::int64_t first = 0) {
    auto const length = tokens.size(1);
    auto x = embedding(tokens) + positions(torch::arange(length, tokens.options()));
    for (auto const& layer : *layers) x = layer->as<decoder_layer>()->forward(x);
    return head(norm(x.slice(1, first)));
  }

  transformer_options options;
  torch::nn::Embedding embedding, positions;
  torch::nn::ModuleList layers;
  torch::nn::LayerNorm norm;
  torch::nn::Linear head;
};
TORCH_MODULE_IMPL(transformer, transformer_impl);

}  // namespace libtorch
