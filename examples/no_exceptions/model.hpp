// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// The engine's transformer: RMS norms, causal attention with one head, squared ReLU, learned
// positions, an untied head. Every number lies in the arena.
#pragma once

#include <cmath>

#include "examples/no_exceptions/runtime.hpp"

namespace engine {

/// Uniform in [0, 1), by xorshift64*.
inline float uniform(unsigned long* state) {
  *state ^= *state >> 12, *state ^= *state << 25, *state ^= *state >> 27;
  return static_cast<float>((*state * 0x2545f4914f6cdd1du) >> 40) * 0x1p-24f;
}

struct shape {
  long vocab, tokens, layers, width;  // `tokens` in a sequence
};

/// A weight matrix and, while it is trained, its gradient.
struct tensor {
  char name[24];
  matrix weight, gradient;  // [inputs, outputs]; a norm is [1, width]
};

enum layer_tensor { norm1, query, key, value, output, norm2, up, down, layer_tensor_count };

struct layer {
  tensor tensors[layer_tensor_count];
};

/// What the backward pass of a layer reads.
struct activations {
  matrix input, normed1, queries, keys, values, weights, mixed, middle, normed2, inner, active;
};

struct model {
  static constexpr long most_layers = 8;

  runtime* host;
  shape size;
  tensor embedding, positions, final_norm, head;  // head is [vocab, width]
  layer layers[most_layers];

  long rows;                      // of the activations: sequences * tokens
  activations kept[most_layers];  // several may be the same
  matrix last, normed, logits;    // logits only of the last token of each sequence
  matrix d_stream, d_normed, d_mixed, d_queries, d_keys, d_values, d_inner, d_last;
  int const* tokens;  // of the last forward pass
};

inline tensor make_tensor(runtime* host, char const* name, long number, long rows, long cols,
                          float scale, unsigned long* random) {
  tensor t{{}, host->make_matrix(rows, cols), {}};
  if (number < 0) {
    std::snprintf(t.name, sizeof t.name, "%s", name);
  } else {
    std::snprintf(t.name, sizeof t.name, "blocks.%d.%s", static_cast<int>(number), name);
  }
  for (long i = 0; i < t.weight.size(); ++i) {
    t.weight.data[i] = scale == 0 ? 1.0f : scale * (2 * uniform(random) - 1);
  }
  return t;
}

inline model make_model(runtime* host, shape size, unsigned long seed) {
  model m{};
  m.host = host;
  m.size = size;
  long const C = size.width;
  float const gain = 1.7f / std::sqrt(static_cast<float>(C));
  auto const make = [&](char const* name, long number, long rows, long cols, float scale) {
    return make_tensor(host, name, number, rows, cols, scale, &seed);
  };
  m.embedding = make("embedding", -1, size.vocab, C, 0.7f);
  m.positions = make("positions", -1, size.tokens, C, 0.7f);
  m.final_norm = make("final_norm", -1, 1, C, 0);
  m.head = make("head", -1, size.vocab, C, gain);
  for (long l = 0; l < size.layers; ++l) {
    tensor* const t = m.layers[l].tensors;
    t[norm1] = make("norm1", l, 1, C, 0);
    t[query] = make("query", l, C, C, gain);
    t[key] = make("key", l, C, C, gain);
    t[value] = make("value", l, C, C, gain);
    t[output] = make("output", l, C, C, gain / 2);
    t[norm2] = make("norm2", l, 1, C, 0);
    t[up] = make("up", l, C, 4 * C, gain);
    t[down] = make("down", l, 4 * C, C, gain / 4);
  }
  return m;
}

/// Calls f for every tensor of the model.
template <class Model, class F>
void for_each_tensor(Model& m, F&& f) {
  f(m.embedding), f(m.positions), f(m.final_norm), f(m.head);
  for (long l = 0; l < m.size.layers; ++l) {
    for (auto& t : m.layers[l].tensors) f(t);
  }
}

/// A model with the same weights, without room for passes.
inline model copy_of(model const& from) {
  model m = from;
  for_each_tensor(m, [&](tensor& t) {
    matrix const source = t.weight;
    t.weight = m.host->make_like(source);
    t.gradient = {};
    std::memcpy(t.weight.data, source.data,
                static_cast<std::size_t>(source.size()) * sizeof(float));
  });
  return m;
}

inline activations make_activations(runtime* host, shape const& size, long rows) {
  long const C = size.width;
  auto const make = [&](long cols) { return host->make_matrix(rows, cols); };
  return {make(C), make(C), make(C), make(C),     make(C),    make(size.tokens),
          make(C), make(C), make(C), make(4 * C), make(4 * C)};
}

/// Room for passes over `sequences`. The first `shared` layers keep their activations in one
/// place, so that no backward pass may enter them.
inline void reserve(model* m, long sequences, long shared) {
  long const C = m->size.width;
  m->rows = sequences * m->size.tokens;
  auto const make = [m](long rows, long cols) { return m->host->make_matrix(rows, cols); };
  for (long l = 0; l < m->size.layers; ++l) {
    m->kept[l] = l > 0 && l < shared ? m->kept[0] : make_activations(m->host, m->size, m->rows);
  }
  m->last = make(m->rows, C);
  m->normed = make(sequences, C);
  m->logits = make(sequences, m->size.vocab);
  for (matrix* d :
       {&m->d_stream, &m->d_normed, &m->d_mixed, &m->d_queries, &m->d_keys, &m->d_values}) {
    *d = make(m->rows, C);
  }
  m->d_inner = make(m->rows, 4 * C);
  m->d_last = make(sequences, C);
}

/// The rows of the last token of each sequence.
inline matrix last_tokens(model const* m, matrix all) {
  long const T = m->size.tokens;
  return {all.row(T - 1), all.rows / T, all.cols, T * all.stride};
}

inline void rms_norm(matrix in, matrix weight, matrix out) {
  for (long r = 0; r < in.rows; ++r) {
    float const *const x = in.row(r), *const w = weight.data;
    float square = 1e-6f;
    for (long c = 0; c < in.cols; ++c) square += x[c] * x[c] / static_cast<float>(in.cols);
    float const scale = 1 / std::sqrt(square);
    for (long c = 0; c < in.cols; ++c) out.row(r)[c] = x[c] * scale * w[c];
  }
}

/// Adds to d_in and, where there is one, to the gradient of the weight.
inline void rms_norm_backward(matrix in, tensor const& norm, matrix d_out, matrix d_in) {
  float const n = static_cast<float>(in.cols);
  float* const d_weight = norm.gradient.data;
  for (long r = 0; r < in.rows; ++r) {
    float const *const x = in.row(r), *const w = norm.weight.data, *const d = d_out.row(r);
    float square = 1e-6f, along = 0;
    for (long c = 0; c < in.cols; ++c) square += x[c] * x[c] / n;
    for (long c = 0; c < in.cols; ++c) along += d[c] * w[c] * x[c];
    float const scale = 1 / std::sqrt(square);
    for (long c = 0; c < in.cols; ++c) {
      d_in.row(r)[c] += scale * (d[c] * w[c] - x[c] * along * scale * scale / n);
      if (d_weight) d_weight[c] += d[c] * x[c] * scale;
    }
  }
}

/// Causal, within each sequence: mixed = softmax(queries keys^T / sqrt(width)) values.
inline void attend(model* m, activations const& a) {
  long const T = m->size.tokens, C = m->size.width;
  float const scale = 1 / std::sqrt(static_cast<float>(C));
  m->host->threads.run(m->rows, T, [&](long begin, long end) {
    for (long r = begin; r < end; ++r) {
      long const first = r / T * T;
      float *const w = a.weights.row(r), *const out = a.mixed.row(r);
      float peak = -INFINITY, sum = 0;
      for (long s = first; s <= r; ++s) {
        float score = 0;
        for (long c = 0; c < C; ++c) score += scale * a.queries.row(r)[c] * a.keys.row(s)[c];
        w[s - first] = score;
        peak = score > peak ? score : peak;
      }
      for (long s = first; s <= r; ++s) sum += w[s - first] = std::exp(w[s - first] - peak);
      for (long c = 0; c < C; ++c) out[c] = 0;
      for (long s = first; s <= r; ++s) {
        w[s - first] /= sum;
        for (long c = 0; c < C; ++c) out[c] += w[s - first] * a.values.row(s)[c];
      }
    }
  });
}

inline void attend_backward(model* m, activations const& a) {
  long const T = m->size.tokens, C = m->size.width;
  float const scale = 1 / std::sqrt(static_cast<float>(C));
  for (matrix const& d : {m->d_queries, m->d_keys, m->d_values}) clear(d);
  m->host->threads.run(m->rows / T, 1, [&](long begin, long end) {
    for (long r = begin * T; r < end * T; ++r) {
      long const first = r / T * T;
      float const *const w = a.weights.row(r), *const d = m->d_mixed.row(r);
      float mean = 0;
      auto const d_weight = [&](long s) {
        float sum = 0;
        for (long c = 0; c < C; ++c) sum += d[c] * a.values.row(s)[c];
        return sum;
      };
      for (long s = first; s <= r; ++s) mean += w[s - first] * d_weight(s);
      for (long s = first; s <= r; ++s) {
        float const slope = scale * w[s - first] * (d_weight(s) - mean);
        for (long c = 0; c < C; ++c) {
          m->d_values.row(s)[c] += w[s - first] * d[c];
          m->d_queries.row(r)[c] += slope * a.keys.row(s)[c];
          m->d_keys.row(s)[c] += slope * a.queries.row(r)[c];
        }
      }
    }
  });
}

inline void add(matrix to, matrix from) {
  for (long i = 0; i < to.size(); ++i) to.data[i] += from.data[i];
}

inline void layer_forward(model* m, long l) {
  tensor const* const t = m->layers[l].tensors;
  activations const& a = m->kept[l];
  matrix const out = l + 1 < m->size.layers ? m->kept[l + 1].input : m->last;
  auto const times = [&](matrix in, layer_tensor weight, matrix result) {
    product(*m->host, false, false, 1, in, t[weight].weight, 0, result);
  };
  rms_norm(a.input, t[norm1].weight, a.normed1);
  times(a.normed1, query, a.queries);
  times(a.normed1, key, a.keys);
  times(a.normed1, value, a.values);
  attend(m, a);
  times(a.mixed, output, a.middle);
  add(a.middle, a.input);
  rms_norm(a.middle, t[norm2].weight, a.normed2);
  times(a.normed2, up, a.inner);
  for (long i = 0; i < a.inner.size(); ++i) {
    float const x = a.inner.data[i] > 0 ? a.inner.data[i] : 0;
    a.active.data[i] = x * x;
  }
  times(a.active, down, out);
  add(out, a.middle);
}

/// The normed hidden state of the last token of each sequence, m->normed.
inline void forward(model* m, int const* tokens) {
  long const T = m->size.tokens, C = m->size.width;
  m->tokens = tokens;
  for (long r = 0; r < m->rows; ++r) {
    float const *const token = m->embedding.weight.row(tokens[r]), *const place =
                                                                       m->positions.weight.row(r %
                                                                                               T);
    for (long c = 0; c < C; ++c) m->kept[0].input.row(r)[c] = token[c] + place[c];
  }
  for (long l = 0; l < m->size.layers; ++l) layer_forward(m, l);
  rms_norm(last_tokens(m, m->last), m->final_norm.weight, m->normed);
}

inline void forward_logits(model* m, int const* tokens) {
  forward(m, tokens);
  product(*m->host, false, true, 1, m->normed, m->head.weight, 0, m->logits);
}

/// From d loss / d normed to the output of the last layer, in m->d_stream.
inline void norm_backward(model* m, matrix d_normed) {
  clear(m->d_stream);
  rms_norm_backward(last_tokens(m, m->last), m->final_norm, d_normed, last_tokens(m, m->d_stream));
}

/// From the output of a layer to its input, in m->d_stream, which is left half-way unless
/// input_gradient. Gradients of the layer's tensors are added where there are any.
inline void layer_backward(model* m, long l, bool input_gradient) {
  tensor const* const t = m->layers[l].tensors;
  activations const& a = m->kept[l];
  // d_in = d_out weight^T (+ d_in), and the gradient of the weight.
  auto const back = [&](layer_tensor weight, matrix in, matrix d_out, float keep, matrix d_in) {
    if (t[weight].gradient.data)
      product(*m->host, true, false, 1, in, d_out, 1, t[weight].gradient);
    product(*m->host, false, true, 1, d_out, t[weight].weight, keep, d_in);
  };
  back(down, a.active, m->d_stream, 0, m->d_inner);
  for (long i = 0; i < m->d_inner.size(); ++i) {
    m->d_inner.data[i] *= a.inner.data[i] > 0 ? 2 * a.inner.data[i] : 0;
  }
  back(up, a.normed2, m->d_inner, 0, m->d_normed);
  rms_norm_backward(a.middle, t[norm2], m->d_normed, m->d_stream);
  back(output, a.mixed, m->d_stream, 0, m->d_mixed);
  attend_backward(m, a);
  back(query, a.normed1, m->d_queries, 0, m->d_normed);
  back(key, a.normed1, m->d_keys, 1, m->d_normed);
  back(value, a.normed1, m->d_values, 1, m->d_normed);
  if (input_gradient || t[norm1].gradient.data) {
    rms_norm_backward(a.input, t[norm1], m->d_normed, m->d_stream);
  }
}

}  // namespace engine
