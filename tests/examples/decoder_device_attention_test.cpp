// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// The attention of devices alone, by one, 7 and 33 lanes that share memory: the numbers of the
// host's, and the same bits for any number of lanes.
#include "examples/decoder/device/attention.hpp"

#include <doctest/doctest.h>

#include "tests/examples/decoder_attention_cases.hpp"
#include "tests/examples/decoder_device_cases.hpp"

using namespace decoder;
using namespace decoder::testing;

namespace {

// Groups of 1, 3, and more than a tile; widths that fill no quad, and whole ones; sequences of more
// than a tile, and of less.
constexpr attention_shape shapes[] = {{1, 1, 8, 33}, {6, 2, 6, 12}, {35, 1, 4, 3}};

}  // namespace

TEST_CASE("device attention: values and gradients are those of the host, for any lanes") {
  for (attention_shape const& c : shapes) {
    CAPTURE(c.heads);
    attention_problem const p(c);
    attention_outcome const expected = p.on_host(), one = p.on(simulated_device<double>{});
    CHECK(distance(one.mixed, expected.mixed) < 1e-13);
    CHECK(distance(one.log_sums, expected.log_sums) < 1e-13);
    CHECK(distance(one.d_qkv, expected.d_qkv) < 1e-13);
    for (attention_outcome const& many :
         {p.on(simulated_device<double, 7>{}), p.on(simulated_device<double, 33>{})}) {
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
