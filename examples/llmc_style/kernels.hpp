// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// The kernels of the engine: forward and backward of each operation of a GPT-2 block, over plain
// arrays. Sizes: B sequences, T tokens each, BT = B T rows; C width, NH heads.
//
// Backward kernels add to dx, dw, db; any of the three may be null and is then not computed.
#pragma once

#include <cmath>
#include <cstring>

// Sixteen sums side by side, so that the loop is vector code.
inline float dot(float const* a, float const* b, long n) {
  float sums[16] = {};
  long i = 0;
  for (; i + 16 <= n; i += 16) {
    for (long k = 0; k < 16; ++k) sums[k] += a[i + k] * b[i + k];
  }
  float total = 0;
  for (; i < n; ++i) total += a[i] * b[i];
  for (float sum : sums) total += sum;
  return total;
}

// out[n] += x[0..k) w[k, n]
inline void add_product(float* out, float const* x, float const* w, long k, long n) {
  long c = 0;
  for (; c + 4 <= k; c += 4) {
    float const *w0 = w + c * n, *w1 = w0 + n, *w2 = w1 + n, *w3 = w2 + n;
    for (long j = 0; j < n; ++j) {
      out[j] += x[c] * w0[j] + x[c + 1] * w1[j] + x[c + 2] * w2[j] + x[c + 3] * w3[j];
    }
  }
  for (; c < k; ++c) {
    for (long j = 0; j < n; ++j) out[j] += x[c] * w[c * n + j];
  }
}

// out[rows, n] = x[rows, k] w[k, n] + b[n]
inline void linear_forward(float* out, float const* x, float const* w, float const* b, long rows,
                           long k, long n) {
  for (long r = 0; r < rows; ++r) {
    std::memcpy(out + r * n, b, static_cast<size_t>(n) * sizeof(float));
    add_product(out + r * n, x + r * k, w, k, n);
  }
}

inline void linear_backward(float* dx, float* dw, float* db, float const* dout, float const* x,
                            float const* w, long rows, long k, long n) {
  for (long r = 0; r < rows; ++r) {
    float const* const d = dout + r * n;
    if (dx) {
      for (long c = 0; c < k; ++c) dx[r * k + c] += dot(d, w + c * n, n);
    }
    if (db) {
      for (long j = 0; j < n; ++j) db[j] += d[j];
    }
  }
  if (!dw) return;
  for (long c = 0; c < k; ++c) {
    for (long r = 0; r < rows; ++r) {
      float const a = x[r * k + c];
      for (long j = 0; j < n; ++j) dw[c * n + j] += a * dout[r * n + j];
    }
  }
}

// Keeps mean and reciprocal standard deviation of each row.
inline void layernorm_forward(float* out, float* mean, float* rstd, float const* x, float const* w,
                              float const* b, long rows, long C) {
  for (long r = 0; r < rows; ++r) {
    float const* const in = x + r * C;
    float m = 0, v = 0;
    for (long c = 0; c < C; ++c) m += in[c];
    m /= static_cast<float>(C);
    for (long c = 0; c < C; ++c) v += (in[c] - m) * (in[c] - m);
    float const s = 1.0f / std::sqrt(v / static_cast<float>(C) + 1e-5f);
    for (long c = 0; c < C; ++c) out[r * C + c] = (in[c] - m) * s * w[c] + b[c];
    mean[r] = m;
    rstd[r] = s;
  }
}

inline void layernorm_backward(float* dx, float* dw, float* db, float const* dout, float const* x,
                               float const* mean, float const* rstd, float const* w, long rows,
                               long C) {
  for (long r = 0; r < rows; ++r) {
    float const *const d = dout + r * C, *const in = x + r * C;
    float const m = mean[r], s = rstd[r];
    float sum = 0, sum_normed = 0;
    for (long c = 0; c < C; ++c) {
      float const normed = (in[c] - m) * s, dn = d[c] * w[c];
      sum += dn;
      sum_normed += dn * normed;
      if (dw) dw[c] += d[c] * normed;
      if (db) db[c] += d[c];
    }
    if (!dx) continue;
    float const n = static_cast<float>(C);
    for (long c = 0; c < C; ++c) {
      float const normed = (in[c] - m) * s;
      dx[r * C + c] += s * (d[c] * w[c] - sum / n - normed * sum_normed / n);
    }
  }
}

// GPT-2's form of GELU: x / 2 (1 + tanh u) = x sigmoid(2 u), u = sqrt(2 / pi) (x + 0.044715 x^3).
inline float gelu_gate(float x) {
  return 1.0f / (1.0f + std::exp(-1.59576912f * (x + 0.044715f * x * x * x)));
}

inline void gelu_forward(float* out, float const* x, long n) {
  for (long i = 0; i < n; ++i) out[i] = x[i] * gelu_gate(x[i]);
}

// In place.
inline void gelu_backward(float* d, float const* x, long n) {
  for (long i = 0; i < n; ++i) {
    float const gate = gelu_gate(x[i]), slope = 1.59576912f * (1.0f + 0.134145f * x[i] * x[i]);
    d[i] *= gate + x[i] * gate * (1.0f - gate) * slope;
  }
}

// Causal attention. qkv[BT, 3C] -> out[BT, C]; keeps att[B, NH, T, T], the weights.
inline void attention_forward(float* out, float* att, float const* qkv, long B, long T, long C,
                              long NH) {
  long const H = C / NH;
  float const scale = 1.0f / std::sqrt(static_cast<float>(H));
  std::memset(out, 0, static_cast<size_t>(B * T * C) * sizeof(float));
  for (long b = 0; b < B; ++b) {
    for (long h = 0; h < NH; ++h) {
      float const* const q = qkv + b * T * 3 * C + h * H;
      float const *const k = q + C, *const v = q + 2 * C;
      for (long t = 0; t < T; ++t) {
        float* const a = att + ((b * NH + h) * T + t) * T;
        float peak = -INFINITY, sum = 0;
        for (long s = 0; s <= t; ++s) {
          a[s] = scale * dot(q + t * 3 * C, k + s * 3 * C, H);
          peak = a[s] > peak ? a[s] : peak;
        }
        for (long s = 0; s <= t; ++s) sum += a[s] = std::exp(a[s] - peak);
        float* const o = out + (b * T + t) * C + h * H;
        for (long s = 0; s <= t; ++s) {
          a[s] /= sum;
          for (long i = 0; i < H; ++i) o[i] += a[s] * v[s * 3 * C + i];
        }
      }
    }
  }
}

// row[T] is scratch.
inline void attention_backward(float* dqkv, float* row, float const* dout, float const* att,
                               float const* qkv, long B, long T, long C, long NH) {
  long const H = C / NH;
  float const scale = 1.0f / std::sqrt(static_cast<float>(H));
  for (long b = 0; b < B; ++b) {
    for (long h = 0; h < NH; ++h) {
      float const* const q = qkv + b * T * 3 * C + h * H;
      float const *const k = q + C, *const v = q + 2 * C;
      float* const dq = dqkv + b * T * 3 * C + h * H;
      float *const dk = dq + C, *const dv = dq + 2 * C;
      for (long t = 0; t < T; ++t) {
        float const* const a = att + ((b * NH + h) * T + t) * T;
        float const* const d = dout + (b * T + t) * C + h * H;
        float mean = 0;
        for (long s = 0; s <= t; ++s) {
          row[s] = dot(d, v + s * 3 * C, H);
          mean += a[s] * row[s];
        }
        for (long s = 0; s <= t; ++s) {
          float const da = scale * a[s] * (row[s] - mean);
          for (long i = 0; i < H; ++i) {
            dv[s * 3 * C + i] += a[s] * d[i];
            dq[t * 3 * C + i] += da * k[s * 3 * C + i];
            dk[s * 3 * C + i] += da * q[t * 3 * C + i];
          }
        }
      }
    }
  }
}
