// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// Attention in blocks against a plain loop in double, over many blocks, groups and widths.
#include "examples/decoder/attention.hpp"

#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <vector>

#include "examples/decoder/key_value_cache.hpp"
#include "lamina/backend/eigen.hpp"
#include "lamina/core/random.hpp"
#include "tests/support/backends.hpp"

using namespace decoder;

namespace {

struct shape_case {
  index_t heads, kv_heads, width;
};
// Groups of 1, 2, 3, 7 and 26 heads (more than a block); widths that fill no tile, one, and more.
constexpr shape_case shapes[] = {{2, 2, 4}, {4, 2, 16}, {3, 1, 20}, {7, 1, 6}, {26, 1, 8}};

template <class T>
std::vector<T> random_values(index_t count, std::uint64_t seed) {
  lamina::counter_generator draws(seed);
  std::vector<T> values;
  for (index_t i = 0; i < count; ++i) values.push_back(static_cast<T>(2 * draws.uniform() - 1));
  return values;
}

template <class T>
struct problem {
  config shape;
  std::vector<index_t> offsets{0};
  std::vector<T> qkv, d_mixed;
  index_t longest = 0;

  problem(shape_case const& c, std::vector<index_t> const& lengths) {
    shape.head_count = c.heads;
    shape.kv_head_count = c.kv_heads;
    shape.head_width = c.width;
    for (index_t const length : lengths) {
      offsets.push_back(offsets.back() + length);
      longest = std::max(longest, length);
    }
    qkv = random_values<T>(tokens() * shape.qkv_width(), 5);
    d_mixed = random_values<T>(tokens() * shape.query_width(), 6);
  }
  index_t tokens() const { return offsets.back(); }
  attention_layout layout() const { return {&shape, vector_view<index_t const>(offsets)}; }
};

template <class T>
struct outcome {
  std::vector<T> mixed, log_sums, d_qkv;
};

/// The definition: every head and query by itself, all gradients from the probabilities.
template <class T>
outcome<double> by_definition(problem<T> const& p) {
  config const& s = p.shape;
  index_t const w = s.head_width, group = s.head_count / s.kv_head_count;
  outcome<double> r{std::vector<double>(p.d_mixed.size()),
                    std::vector<double>(static_cast<std::size_t>(p.tokens() * s.head_count)),
                    std::vector<double>(p.qkv.size())};
  auto const at = [](auto& values, index_t i) -> auto& {
    return values[static_cast<std::size_t>(i)];
  };
  double const scale = 1 / std::sqrt(static_cast<double>(w));
  for (std::size_t q = 0; q + 1 < p.offsets.size(); ++q) {
    for (index_t head = 0; head < s.head_count; ++head) {
      for (index_t i = p.offsets[q]; i < p.offsets[q + 1]; ++i) {
        index_t const query = i * s.qkv_width() + head * w;
        auto const key = [&](index_t j) {
          return j * s.qkv_width() + s.query_width() + head / group * w;
        };
        auto const value = [&](index_t j) { return key(j) + s.key_width(); };
        index_t const out = i * s.query_width() + head * w;
        std::vector<double> weight, d_weight;
        double total = 0, mean = 0;
        for (index_t j = p.offsets[q]; j <= i; ++j) {
          double score = 0, d = 0;
          for (index_t c = 0; c < w; ++c) {
            score += double(at(p.qkv, query + c)) * double(at(p.qkv, key(j) + c));
            d += double(at(p.d_mixed, out + c)) * double(at(p.qkv, value(j) + c));
          }
          weight.push_back(scale * score);
          d_weight.push_back(d);
        }
        double const peak = *std::max_element(weight.begin(), weight.end());
        for (double& x : weight) total += x = std::exp(x - peak);
        at(r.log_sums, i * s.head_count + head) = peak + std::log(total);
        for (std::size_t j = 0; j < weight.size(); ++j) {
          weight[j] /= total;
          mean += weight[j] * d_weight[j];
        }
        for (index_t j = p.offsets[q]; j <= i; ++j) {
          double const a = at(weight, j - p.offsets[q]);
          double const ds = a * (at(d_weight, j - p.offsets[q]) - mean) * scale;
          for (index_t c = 0; c < w; ++c) {
            at(r.mixed, out + c) += a * double(at(p.qkv, value(j) + c));
            at(r.d_qkv, value(j) + c) += a * double(at(p.d_mixed, out + c));
            at(r.d_qkv, query + c) += ds * double(at(p.qkv, key(j) + c));
            at(r.d_qkv, key(j) + c) += ds * double(at(p.qkv, query + c));
          }
        }
      }
    }
  }
  return r;
}

template <class T>
matrix_view<T> as_matrix(std::vector<T>& values, index_t cols) {
  return {values.data(), static_cast<index_t>(values.size()) / cols, cols};
}

template <class T>
outcome<T> in_blocks(problem<T>& p) {
  config const& s = p.shape;
  lamina::host_rows<> const run{};
  outcome<T> r{std::vector<T>(p.d_mixed.size()),
               std::vector<T>(static_cast<std::size_t>(p.tokens() * s.head_count)),
               std::vector<T>(p.qkv.size())};
  auto const qkv = as_matrix(p.qkv, s.qkv_width());
  auto const sums = as_matrix(r.log_sums, s.head_count);
  index_t const size = std::max(attention<T>::scratch_size(s, p.longest),
                                attention_backward<T>::scratch_size(s, p.longest));
  // What is in the scratch before must not matter.
  std::vector<T> memory(static_cast<std::size_t>(attention_worker_count * size),
                        std::numeric_limits<T>::quiet_NaN());
  auto const scratch = as_matrix(memory, size);
  run.run(attention_worker_count,
          attention<T>{p.layout(), qkv, as_matrix(r.mixed, s.query_width()), sums, scratch});
  std::fill(memory.begin(), memory.end(), std::numeric_limits<T>::quiet_NaN());
  run.run(attention_worker_count,
          attention_backward<T>{p.layout(), qkv, sums, as_matrix(p.d_mixed, s.query_width()),
                                as_matrix(r.d_qkv, s.qkv_width()), scratch});
  return r;
}

template <class T>
double largest_gap(std::vector<T> const& a, std::vector<double> const& b) {
  double gap = 0;
  for (std::size_t i = 0; i < a.size(); ++i) {
    double const difference = std::abs(static_cast<double>(a[i]) - b[i]) / (1 + std::abs(b[i]));
    if (!(difference <= gap)) gap = difference;
  }
  return gap;
}

}  // namespace

TEST_CASE_TEMPLATE("decoder::attention: forward and backward are those of the definition", T, float,
                   double) {
  double const allowed = sizeof(T) == 4 ? 4e-6 : 1e-14;
  for (shape_case const& c : shapes) {
    CAPTURE(c.heads);
    CAPTURE(c.width);
    problem<T> p(c, {33, 1, 70, 24, 8});
    auto const expected = by_definition(p);
    auto const found = in_blocks(p);
    CHECK(largest_gap(found.mixed, expected.mixed) < allowed);
    CHECK(largest_gap(found.log_sums, expected.log_sums) < allowed);
    CHECK(largest_gap(found.d_qkv, expected.d_qkv) < allowed * 5);
  }
}

TEST_CASE("decoder::attention: scores far apart neither overflow nor lose the largest") {
  problem<float> p(shapes[1], {40});
  for (float& x : p.qkv) x *= 30;
  auto const found = in_blocks(p);
  auto const expected = by_definition(p);
  CHECK(*std::max_element(expected.log_sums.begin(), expected.log_sums.end()) > 1000);
  CHECK(largest_gap(found.mixed, expected.mixed) < 1e-3);
  CHECK(largest_gap(found.log_sums, expected.log_sums) < 1e-5);
}

TEST_CASE("decoder::cached_attention: the bits of a token, alone or with those before it") {
  using T = float;
  for (shape_case const& c : shapes) {
    CAPTURE(c.heads);
    index_t const length = 37;
    problem<T> p(c, {length});
    config const& s = p.shape;
    auto const qkv = as_matrix(p.qkv, s.qkv_width());
    lamina::eigen_backend<T> const backend;
    std::vector<T> expected;
    for (index_t const step : {length, index_t{1}, index_t{5}}) {
      CAPTURE(step);
      key_value_cache<lamina::eigen_backend<T>> cache(backend);
      config one_layer = s;
      one_layer.layer_count = 1;
      cache.reset(backend, one_layer, 3, length);
      index_t const size = cached_attention<T>::scratch_size(s, length);
      std::vector<T> memory(static_cast<std::size_t>(attention_worker_count * size));
      std::vector<T> mixed(static_cast<std::size_t>(length * s.query_width()));
      for (index_t first = 0; first < length; first += step) {
        index_t const count = std::min(step, length - first);
        std::vector<index_t> rows(static_cast<std::size_t>(count), 2), positions;
        for (index_t i = 0; i < count; ++i) positions.push_back(first + i);
        new_tokens const added{rows, positions};
        auto const part = qkv.row_block(first, count);
        backend.executor().run(count, store_heads<T>{cache.layer(0), added, part});
        backend.executor().run(
            attention_worker_count,
            cached_attention<T>{cache.layer(0), added, part,
                                as_matrix(mixed, s.query_width()).row_block(first, count),
                                as_matrix(memory, size)});
      }
      if (expected.empty()) expected = mixed;
      CHECK(mixed == expected);
    }
    CHECK(largest_gap(expected, by_definition(p).mixed) < 4e-6);
  }
}
