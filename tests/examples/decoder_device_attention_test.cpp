// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// The attention of devices alone, by one, 7 and 33 lanes that share memory: the numbers of the
// host's, and the same bits for any number of lanes.
#include "examples/decoder/device/attention.hpp"

#include <doctest/doctest.h>

#include "examples/decoder/batch_attention.hpp"
#include "tests/examples/decoder_device_cases.hpp"

using namespace decoder;
using namespace decoder::testing;

namespace {

struct shape_case {
  index_t heads, kv_heads, width, longest;
};
// Groups of 1, 3, and more than a tile; widths that fill no quad, and whole ones; sequences of more
// than a tile, and of less.
constexpr shape_case shapes[] = {{1, 1, 8, 33}, {6, 2, 6, 12}, {35, 1, 4, 3}};

config shape_of(shape_case const& c) {
  return {.layer_count = 1,
          .width = 8,
          .head_count = c.heads,
          .kv_head_count = c.kv_heads,
          .head_width = c.width};
}

struct outcome {
  std::vector<double> mixed, log_sums, d_qkv;
};

struct problem {
  config shape;
  token_batch batch;
  std::vector<double> qkv, d_mixed;

  explicit problem(shape_case const& c) : shape(shape_of(c)), batch{{}, {0}, {0}} {
    for (index_t const length : {c.longest, index_t{2}, index_t{1}})
      batch.offsets.push_back(batch.offsets.back() + length);
    batch.tokens.assign(static_cast<std::size_t>(batch.offsets.back()), 0);
    qkv = random_coefficients<double>(tokens() * shape.qkv_width(), 5);
    for (double& x : qkv) x *= 4;
    d_mixed = random_coefficients<double>(tokens() * shape.query_width(), 6);
  }
  index_t tokens() const { return batch.token_count(); }

  outcome on_host() const {
    lamina::eigen_backend<double> const backend;
    auto const zeros = [&](index_t cols) {
      return std::vector<double>(static_cast<std::size_t>(tokens() * cols));
    };
    outcome r{zeros(shape.query_width()), zeros(shape.head_count), zeros(shape.qkv_width())};
    auto const matrix = [](std::vector<double>& values, index_t cols) {
      return matrix_view<double>{values.data(), static_cast<index_t>(values.size()) / cols, cols};
    };
    batch_attention<lamina::eigen_backend<double>> attend(backend);
    host_batch placed;
    placed.assign(batch);
    layer_activations<double> saved;
    auto qkv_copy = qkv;
    saved.qkv = matrix(qkv_copy, shape.qkv_width());
    saved.log_sums = matrix(r.log_sums, shape.head_count);
    attend.forward(backend, shape, placed, saved.qkv, matrix(r.mixed, shape.query_width()),
                   saved.log_sums);
    attend.backward(backend, shape, placed, saved, as_matrix(d_mixed, shape.query_width()),
                    matrix(r.d_qkv, shape.qkv_width()));
    return r;
  }

  template <class Device>
  outcome on_device() const {
    Device const backend;
    device_batch<Device> const placed(backend, batch, shape);
    index_t const q = shape.query_width(), heads = shape.head_count;
    uploaded in(backend, qkv), d_out(backend, d_mixed);
    auto const make = [&](index_t cols) { return backend.make_matrix(tokens(), cols); };
    auto mixed = make(q), log_sums = make(heads), d_qkv = make(shape.qkv_width());
    batch_attention<Device> attend(backend);
    layer_activations<double> saved;
    saved.qkv = in.matrix(shape.qkv_width());
    saved.mixed = Device::view(mixed);
    saved.log_sums = Device::view(log_sums);
    attend.forward(backend, shape, placed, saved.qkv, saved.mixed, saved.log_sums);
    attend.backward(backend, shape, placed, saved, d_out.matrix(q), Device::view(d_qkv));
    return {fetch(backend, Device::view(mixed)), fetch(backend, Device::view(log_sums)),
            fetch(backend, Device::view(d_qkv))};
  }
};

}  // namespace

TEST_CASE("device attention: values and gradients are those of the host, for any lanes") {
  for (shape_case const& c : shapes) {
    CAPTURE(c.heads);
    problem const p(c);
    outcome const expected = p.on_host(), one = p.on_device<simulated_device<double>>();
    CHECK(distance(one.mixed, expected.mixed) < 1e-13);
    CHECK(distance(one.log_sums, expected.log_sums) < 1e-13);
    CHECK(distance(one.d_qkv, expected.d_qkv) < 1e-13);
    for (outcome const& many : {p.on_device<simulated_device<double, 7>>(),
                                p.on_device<simulated_device<double, 33>>()}) {
      CHECK(same_bits(many.mixed, one.mixed));
      CHECK(same_bits(many.log_sums, one.log_sums));
      CHECK(same_bits(many.d_qkv, one.d_qkv));
    }
  }
}

TEST_CASE("device attention: tiles of every width fit the memory of a block") {
  for (index_t const width : {2, 32, 64, 80, 96, 128, 192, 256, 512}) {
    CAPTURE(width);
    config shape = shape_of({8, 2, width, 1});
    auto const tiling = attention_tiling::of<float>(shape);
    CHECK(tiling.rows >= (width <= 128 ? 32 : 8));
    CHECK(attention_tiling::chip_bytes<float>(width, tiling.rows) <= (index_t{112} << 10));
  }
}
