// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// A GPT-2 in plain C: one block of parameters in which the tensors of all layers are stacked, one
// block of activations, forward and backward by hand, plain SGD.
#pragma once

#include <cstdlib>

#include "examples/llmc_style/kernels.hpp"

struct gpt2_config {
  long vocab, max_tokens, layers, heads, width;
};

// The tensors: those of a layer, stacked [layers, ...] in the block, then those outside.
enum gpt2_tensor {
  ln1_w,   // [C]
  ln1_b,   // [C]
  qkv_w,   // [C, 3C]
  qkv_b,   // [3C]
  proj_w,  // [C, C]
  proj_b,  // [C]
  ln2_w,   // [C]
  ln2_b,   // [C]
  fc_w,    // [C, 4C]
  fc_b,    // [4C]
  out_w,   // [4C, C]
  out_b,   // [C]
  wte,     // [V, C], also the head
  wpe,     // [T, C]
  lnf_w,   // [C]
  lnf_b,   // [C]
  tensor_count,
  layer_tensors = wte
};

// The activations of a layer, stacked likewise.
enum gpt2_activation {
  act_x,  // [BT, C] the stream that enters the layer
  act_ln1,
  act_mean1,
  act_rstd1,
  act_qkv,     // [BT, 3C]
  act_att,     // [B, NH, T, T]
  act_heads,   // [BT, C]
  act_middle,  // [BT, C] the stream between attention and MLP
  act_ln2,
  act_mean2,
  act_rstd2,
  act_fc,    // [BT, 4C]
  act_gelu,  // [BT, 4C]
  layer_acts
};

struct gpt2 {
  gpt2_config config;
  long sizes[tensor_count];      // elements of a tensor, of one layer where it is stacked
  float* params;                 // the block
  float* tensors[tensor_count];  // where each tensor, or stack, begins in it
  long param_count;

  float* grads;  // a block of the same layout, or null
  float* grad_tensors[tensor_count];

  long B, T;  // what the activations have room for
  long act_sizes[layer_acts];
  float* acts;
  float* act_tensors[layer_acts];
  float *last, *lnf, *mean, *rstd, *logits;             // what follows the layers
  float *dx, *dmiddle, *dbranch, *dinner, *dqkv, *row;  // of the backward pass
  int const* tokens;                                    // [B, T] of the last forward
};

inline float* gpt2_alloc(long count) {
  void* const memory = std::calloc(static_cast<size_t>(count), sizeof(float));
  if (!memory) std::abort();
  return static_cast<float*>(memory);
}

inline void gpt2_zero(float* values, long count) {
  std::memset(values, 0, static_cast<size_t>(count) * sizeof(float));
}

// Elements of a tensor, all layers taken together.
inline long gpt2_size(gpt2 const* m, int t) {
  return m->sizes[t] * (t < layer_tensors ? m->config.layers : 1);
}

inline void gpt2_point_into(gpt2 const* m, float* block, float** tensors) {
  for (int t = 0; t < tensor_count; ++t) {
    tensors[t] = block;
    block += gpt2_size(m, t);
  }
}

// Uniform in [0, 1), by splitmix64.
inline float gpt2_uniform(unsigned long* state) {
  unsigned long z = *state += 0x9e3779b97f4a7c15u;
  z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
  z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
  return static_cast<float>((z ^ (z >> 31)) >> 40) * 0x1p-24f;
}

inline void gpt2_build(gpt2* m, gpt2_config config, unsigned long seed) {
  *m = gpt2{};
  m->config = config;
  long const C = config.width;
  for (int t : {ln1_w, ln1_b, proj_b, ln2_w, ln2_b, out_b, lnf_w, lnf_b}) m->sizes[t] = C;
  m->sizes[qkv_w] = 3 * C * C, m->sizes[qkv_b] = 3 * C;
  m->sizes[proj_w] = C * C;
  m->sizes[fc_w] = m->sizes[out_w] = 4 * C * C, m->sizes[fc_b] = 4 * C;
  m->sizes[wte] = config.vocab * C, m->sizes[wpe] = config.max_tokens * C;
  for (int t = 0; t < tensor_count; ++t) m->param_count += gpt2_size(m, t);
  m->params = gpt2_alloc(m->param_count);
  gpt2_point_into(m, m->params, m->tensors);

  // Biases stay 0; what writes into the stream begins small.
  auto const fill = [&](int t, float scale) {
    for (long i = 0; i < gpt2_size(m, t); ++i) {
      m->tensors[t][i] = scale * (2 * gpt2_uniform(&seed) - 1);
    }
  };
  float const gain = 1.7f / std::sqrt(static_cast<float>(C));
  float const small = gain / std::sqrt(2 * static_cast<float>(config.layers));
  fill(wte, 0.3f), fill(wpe, 0.3f);
  fill(qkv_w, gain), fill(proj_w, small), fill(fc_w, gain), fill(out_w, small / 2);
  for (int t : {ln1_w, ln2_w, lnf_w}) {
    for (long i = 0; i < gpt2_size(m, t); ++i) m->tensors[t][i] = 1;
  }
}

// Room for B sequences of T tokens.
inline void gpt2_reserve(gpt2* m, long B, long T) {
  long const C = m->config.width, BT = B * T;
  m->B = B, m->T = T;
  for (int a : {act_x, act_ln1, act_heads, act_middle, act_ln2}) m->act_sizes[a] = BT * C;
  for (int a : {act_mean1, act_rstd1, act_mean2, act_rstd2}) {
    m->act_sizes[a] = BT;
  }
  m->act_sizes[act_qkv] = BT * 3 * C;
  m->act_sizes[act_att] = BT * T * m->config.heads;
  m->act_sizes[act_fc] = m->act_sizes[act_gelu] = BT * 4 * C;
  long count = BT * (2 * C + 2 + m->config.vocab) + BT * (3 * C + 4 * C + 3 * C) + T;
  for (long size : m->act_sizes) count += size * m->config.layers;
  std::free(m->acts);
  float* place = m->acts = gpt2_alloc(count);
  auto const take = [&place](long size) { return (place += size) - size; };
  for (int a = 0; a < layer_acts; ++a) m->act_tensors[a] = take(m->act_sizes[a] * m->config.layers);
  m->last = take(BT * C), m->lnf = take(BT * C), m->mean = take(BT), m->rstd = take(BT);
  m->logits = take(BT * m->config.vocab);
  m->dx = take(BT * C), m->dmiddle = take(BT * C), m->dbranch = take(BT * C);
  m->dinner = take(BT * 4 * C), m->dqkv = take(BT * 3 * C), m->row = take(T);
}

inline void gpt2_free_grads(gpt2* m) {
  std::free(m->grads);
  m->grads = nullptr;
}

inline void gpt2_free(gpt2* m) {
  gpt2_free_grads(m);
  std::free(m->params);
  std::free(m->acts);
}

inline float const* gpt2_weight(gpt2 const* m, int t, long layer) {
  return m->tensors[t] + layer * m->sizes[t];
}
inline float* gpt2_act(gpt2 const* m, int a, long layer) {
  return m->act_tensors[a] + layer * m->act_sizes[a];
}

inline void gpt2_layer_forward(gpt2* m, long l) {
  long const B = m->B, T = m->T, BT = B * T, C = m->config.width;
  auto const w = [&](int t) { return gpt2_weight(m, t, l); };
  auto const act = [&](int a) { return gpt2_act(m, a, l); };
  float* const next = l + 1 < m->config.layers ? gpt2_act(m, act_x, l + 1) : m->last;
  layernorm_forward(act(act_ln1), act(act_mean1), act(act_rstd1), act(act_x), w(ln1_w), w(ln1_b),
                    BT, C);
  linear_forward(act(act_qkv), act(act_ln1), w(qkv_w), w(qkv_b), BT, C, 3 * C);
  attention_forward(act(act_heads), act(act_att), act(act_qkv), B, T, C, m->config.heads);
  linear_forward(act(act_middle), act(act_heads), w(proj_w), w(proj_b), BT, C, C);
  for (long i = 0; i < BT * C; ++i) act(act_middle)[i] += act(act_x)[i];
  layernorm_forward(act(act_ln2), act(act_mean2), act(act_rstd2), act(act_middle), w(ln2_w),
                    w(ln2_b), BT, C);
  linear_forward(act(act_fc), act(act_ln2), w(fc_w), w(fc_b), BT, C, 4 * C);
  gelu_forward(act(act_gelu), act(act_fc), BT * 4 * C);
  linear_forward(next, act(act_gelu), w(out_w), w(out_b), BT, 4 * C, C);
  for (long i = 0; i < BT * C; ++i) next[i] += act(act_middle)[i];
}

// logits[BT, vocab] of tokens[B, T].
inline void gpt2_forward(gpt2* m, int const* tokens) {
  long const BT = m->B * m->T, C = m->config.width, V = m->config.vocab;
  m->tokens = tokens;
  for (long r = 0; r < BT; ++r) {
    float const* const token = m->tensors[wte] + tokens[r] * C;
    float const* const position = m->tensors[wpe] + r % m->T * C;
    for (long c = 0; c < C; ++c) m->act_tensors[act_x][r * C + c] = token[c] + position[c];
  }
  for (long l = 0; l < m->config.layers; ++l) gpt2_layer_forward(m, l);
  layernorm_forward(m->lnf, m->mean, m->rstd, m->last, m->tensors[lnf_w], m->tensors[lnf_b], BT, C);
  for (long r = 0; r < BT; ++r) {
    for (long v = 0; v < V; ++v) {
      m->logits[r * V + v] = dot(m->lnf + r * C, m->tensors[wte] + v * C, C);
    }
  }
}

// From dlogits[BT, vocab] down to the output of the last layer, dx. Gradients are added to
// g[tensor_count], of which any may be null.
inline void gpt2_head_backward(gpt2* m, float const* dlogits, float* const* g) {
  long const BT = m->B * m->T, C = m->config.width, V = m->config.vocab;
  gpt2_zero(m->dbranch, BT * C);
  for (long r = 0; r < BT; ++r) {
    add_product(m->dbranch + r * C, dlogits + r * V, m->tensors[wte], V, C);
    for (long v = 0; g[wte] && v < V; ++v) {
      for (long c = 0; c < C; ++c) g[wte][v * C + c] += dlogits[r * V + v] * m->lnf[r * C + c];
    }
  }
  gpt2_zero(m->dx, BT * C);
  layernorm_backward(m->dx, g[lnf_w], g[lnf_b], m->dbranch, m->last, m->mean, m->rstd,
                     m->tensors[lnf_w], BT, C);
}

// From the output of a layer to its input, both in dx, which is left half-way unless
// input_gradient. Gradients of the layer's tensors are added to g[layer_tensors], of which any may
// be null.
inline void gpt2_layer_backward(gpt2* m, long l, float* const* g, bool input_gradient) {
  long const B = m->B, T = m->T, BT = B * T, C = m->config.width;
  auto const w = [&](int t) { return gpt2_weight(m, t, l); };
  auto const act = [&](int a) { return gpt2_act(m, a, l); };
  gpt2_zero(m->dinner, BT * 4 * C);
  linear_backward(m->dinner, g[out_w], g[out_b], m->dx, act(act_gelu), w(out_w), BT, 4 * C, C);
  gelu_backward(m->dinner, act(act_fc), BT * 4 * C);
  gpt2_zero(m->dbranch, BT * C);
  linear_backward(m->dbranch, g[fc_w], g[fc_b], m->dinner, act(act_ln2), w(fc_w), BT, C, 4 * C);
  layernorm_backward(m->dx, g[ln2_w], g[ln2_b], m->dbranch, act(act_middle), act(act_mean2),
                     act(act_rstd2), w(ln2_w), BT, C);

  gpt2_zero(m->dbranch, BT * C);
  linear_backward(m->dbranch, g[proj_w], g[proj_b], m->dx, act(act_heads), w(proj_w), BT, C, C);
  gpt2_zero(m->dqkv, BT * 3 * C);
  attention_backward(m->dqkv, m->row, m->dbranch, act(act_att), act(act_qkv), B, T, C,
                     m->config.heads);
  gpt2_zero(m->dbranch, BT * C);
  linear_backward(m->dbranch, g[qkv_w], g[qkv_b], m->dqkv, act(act_ln1), w(qkv_w), BT, C, 3 * C);
  layernorm_backward(input_gradient ? m->dx : nullptr, g[ln1_w], g[ln1_b], m->dbranch, act(act_x),
                     act(act_mean1), act(act_rstd1), w(ln1_w), BT, C);
}

// Adds dx, now that of the embedded tokens, to the gradients of the embeddings.
inline void gpt2_embedding_backward(gpt2* m, float* const* g) {
  long const BT = m->B * m->T, C = m->config.width;
  for (long r = 0; r < BT; ++r) {
    for (long c = 0; c < C; ++c) {
      g[wte][m->tokens[r] * C + c] += m->dx[r * C + c];
      g[wpe][r % m->T * C + c] += m->dx[r * C + c];
    }
  }
}

// The gradients of everything, into m->grads.
inline void gpt2_backward(gpt2* m, float const* dlogits) {
  if (!m->grads) m->grads = gpt2_alloc(m->param_count);
  gpt2_zero(m->grads, m->param_count);
  gpt2_point_into(m, m->grads, m->grad_tensors);
  gpt2_head_backward(m, dlogits, m->grad_tensors);
  for (long l = m->config.layers - 1; l >= 0; --l) {
    float* g[layer_tensors];
    for (int t = 0; t < layer_tensors; ++t) g[t] = m->grad_tensors[t] + l * m->sizes[t];
    gpt2_layer_backward(m, l, g, true);
  }
  gpt2_embedding_backward(m, m->grad_tensors);
}

inline void gpt2_sgd(gpt2* m, float learning_rate) {
  for (long i = 0; i < m->param_count; ++i) m->params[i] -= learning_rate * m->grads[i];
}
