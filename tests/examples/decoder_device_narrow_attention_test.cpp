// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// The attention of models with bfloat16 weights on devices that multiply such numbers: as far from
// the host's in double as rounding its factors takes it, and the same bits for any number of lanes.
#include "examples/decoder/device/narrow_attention.hpp"

#include <doctest/doctest.h>

#include "tests/examples/decoder_attention_cases.hpp"
#include "tests/examples/decoder_device_cases.hpp"
#include "tests/support/emulated_warp.hpp"

using namespace decoder;
using namespace decoder::testing;
using lamina::bf16;
using lamina::testing::with_emulated_warps;

namespace {

template <class Device>
attention_outcome rounded(attention_problem const& p) {
  using narrow_device = with_narrow_products<Device>;
  return p.on<narrow_device, bf16>(narrow_device{});
}

// Half a unit in the last of the 8 bits of a number near 1.
constexpr double unit = 1.0 / 512;

double largest(std::vector<double> const& values) {
  double most = 0;
  for (double const x : values) most = std::max(most, std::abs(x));
  return most;
}

// Groups of 1, 3, and more than a tile; widths that fill no chunk, and both of tiles; sequences of
// more than a tile, and of less.
constexpr attention_shape shapes[] = {
    {1, 1, 16, 131}, {6, 2, 6, 45}, {4, 2, 100, 37}, {130, 1, 16, 2}, {2, 1, 128, 70}};

}  // namespace

TEST_CASE("narrow attention: only probabilities are rounded where all factors are bfloat16") {
  for (attention_shape const& c : {attention_shape{3, 1, 16, 70}, attention_shape{2, 2, 64, 67}}) {
    CAPTURE(c.width);
    attention_problem p(c);
    for (double& x : p.qkv) x = bf16(static_cast<float>(x));
    for (double& x : p.d_mixed) x = bf16(static_cast<float>(x));
    attention_outcome const expected = p.on_host(), got = rounded<simulated_device<float>>(p);
    CHECK(distance(got.log_sums, expected.log_sums) < 1e-6);
    // |sum p' v - sum p v| <= unit sum p |v|
    double difference = 0;
    for (std::size_t i = 0; i < got.mixed.size(); ++i) {
      difference = std::max(difference, std::abs(got.mixed[i] - expected.mixed[i]));
    }
    CHECK(difference < unit * largest(p.qkv));
    CHECK(difference > 0);
    // p and ds are rounded, and D comes from rounded p.
    CHECK(distance(got.d_qkv, expected.d_qkv) < 2 * unit);
  }
}

TEST_CASE("narrow attention: values and gradients are near those of the host, for any lanes") {
  for (attention_shape const& c : shapes) {
    CAPTURE(c.heads);
    CAPTURE(c.width);
    attention_problem const p(c);
    attention_outcome const expected = p.on_host(), one = rounded<simulated_device<float>>(p);
    CHECK(distance(one.mixed, expected.mixed) < 4 * unit);
    CHECK(distance(one.log_sums, expected.log_sums) < 2 * unit);
    CHECK(distance(one.d_qkv, expected.d_qkv) < 4 * unit);
    for (attention_outcome const& many :
         {rounded<simulated_device<float, 7>>(p), rounded<simulated_device<float, 33>>(p)}) {
      CHECK(same_bits(many.mixed, one.mixed));
      CHECK(same_bits(many.log_sums, one.log_sums));
      CHECK(same_bits(many.d_qkv, one.d_qkv));
    }
  }
}

TEST_CASE("narrow attention: warps that multiply give the numbers of plain loops") {
  // Heads that fill tiles of either width, and of those more than one.
  for (attention_shape const& c : {attention_shape{3, 1, 64, 21}, attention_shape{1, 1, 128, 33}}) {
    CAPTURE(c.width);
    attention_problem const p(c);
    attention_outcome const plain = rounded<simulated_device<float>>(p);
    attention_outcome const warps = rounded<with_emulated_warps<simulated_device<float>>>(p);
    CHECK(distance(warps.mixed, plain.mixed) < 1e-6);
    CHECK(distance(warps.log_sums, plain.log_sums) < 1e-6);
    CHECK(distance(warps.d_qkv, plain.d_qkv) < unit / 4);  // a rounding may fall the other way
  }
}

TEST_CASE("narrow attention: heads that are too wide for it keep the precision of float") {
  attention_problem const p({2, 1, 160, 5});
  attention_outcome const expected = p.on_host(), got = rounded<simulated_device<float>>(p);
  CHECK(distance(got.mixed, expected.mixed) < 1e-5);
  CHECK(distance(got.d_qkv, expected.d_qkv) < 1e-5);
}
