// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#include "lamina/policy/whitening.hpp"

#include <doctest/doctest.h>

#include <cmath>
#include <limits>
#include <vector>

#include "tests/support/random_rewards.hpp"

using namespace lamina;

namespace {

double const nan_value = std::numeric_limits<double>::quiet_NaN();

template <real T>
std::vector<T> whitened(std::vector<T> values, std::vector<std::uint8_t> const& mask,
                        token_whitening const& options = {}) {
  whiten_tokens(vector_view<T>(values), mask, options);
  return values;
}

}  // namespace

TEST_CASE("whitening by hand: 1, 2, 3, 4 have mean 2.5 and variance 5/3") {
  double const s = std::sqrt(5.0 / 3.0);
  token_whitening const exact{.epsilon = 0, .count_epsilon = 0};
  CHECK(testing::agree(whitened<double>({1, 2, 3, 4}, {}, exact),
                       {-1.5 / s, -0.5 / s, 0.5 / s, 1.5 / s}, 1e-15));
  // epsilon stands inside the root: 5/3 + 7/3 = 4.
  token_whitening const soft{.epsilon = 7.0 / 3.0, .count_epsilon = 0};
  CHECK(
      testing::agree(whitened<double>({1, 2, 3, 4}, {}, soft), {-0.75, -0.25, 0.25, 0.75}, 1e-15));
  // count_epsilon in both means: mean 10 / 5, variance (1 + 0 + 1 + 4) / 5 * 4/3.
  token_whitening const counted{.epsilon = 0, .count_epsilon = 1};
  double const root = std::sqrt(1.6);
  CHECK(testing::agree(whitened<double>({1, 2, 3, 4}, {}, counted),
                       {-1 / root, 0, 1 / root, 2 / root}, 1e-15));
}

TEST_CASE("without shift_mean the mean is added back") {
  token_whitening const options{.epsilon = 0, .count_epsilon = 0, .shift_mean = false};
  double const s = std::sqrt(5.0 / 3.0);
  CHECK(testing::agree(whitened<double>({1, 2, 3, 4}, {}, options),
                       {2.5 - 1.5 / s, 2.5 - 0.5 / s, 2.5 + 0.5 / s, 2.5 + 1.5 / s}, 1e-15));
}

TEST_CASE_TEMPLATE("masked entries are not read and become exactly 0", T, float, double) {
  T const nan = std::numeric_limits<T>::quiet_NaN();
  auto const packed = whitened<T>({1, 5, 2}, {});
  auto const gaps = whitened<T>({nan, 1, 5, nan, 2, nan}, {0, 1, 1, 0, 1, 0});
  CHECK(gaps == std::vector<T>{0, packed[0], packed[1], 0, packed[2], 0});
  CHECK(whitened<T>({nan, nan}, {0, 0}) == std::vector<T>{0, 0});
  CHECK(whitened<T>({}, {}).empty());
}

TEST_CASE("fewer than two active values, or equal ones, become exactly 0") {
  CHECK(whitened<double>({3}, {}) == std::vector<double>{0});
  CHECK(whitened<double>({3, 9}, {1, 0}) == std::vector<double>{0, 0});
  token_whitening const sharp{.epsilon = 0};
  CHECK(whitened<double>(std::vector<double>(8, 0.7), {}, sharp) == std::vector<double>(8, 0.0));
  CHECK(whitened<double>({0, 1e-200}, {}, sharp) == std::vector<double>{0, 0});
  CHECK(whitened<double>({3}, {}, {.count_epsilon = 0, .shift_mean = false}) ==
        std::vector<double>{3});
}

TEST_CASE("laws: mean 0, variance 1, shift, scale, and a large common offset") {
  counter_generator random(5);
  token_whitening const exact{.epsilon = 0, .count_epsilon = 0};
  for (int round = 0; round < 30; ++round) {
    std::vector<double> values;
    std::vector<std::uint8_t> mask;
    for (std::uint32_t t = 2 + random.below(20); t > 0; --t) {
      values.push_back(random.uniform() * 4 - 1);
      mask.push_back(t < 3 || random.below(3) != 0);
    }
    auto const w = whitened(values, mask, exact);
    double sum = 0, squares = 0, count = 0;
    for (std::size_t t = 0; t < w.size(); ++t) {
      sum += w[t];
      squares += w[t] * w[t];
      count += mask[t];
    }
    CHECK(std::abs(sum) < 1e-12);
    CHECK(squares == doctest::Approx(count - 1).epsilon(1e-12));
    auto moved = values;
    for (double& x : moved) x = 3 * x + 1e6;
    CHECK(testing::agree(whitened(moved, mask, exact), w, 1e-8));
  }
}

TEST_CASE("bad input is named with its value, and nothing is written") {
  std::vector<double> values{1, nan_value, 2};
  std::vector<std::uint8_t> const all{1, 1, 1}, gap{1, 0, 1}, two{1, 1};
  auto const view = vector_view<double>(values);
  CHECK_THROWS_WITH_AS(whiten_tokens(view, all),
                       "whiten_tokens: values[1] is nan, expected a finite number of magnitude "
                       "1e+150 at most",
                       config_error);
  CHECK_THROWS_WITH_AS(whiten_tokens(view, two),
                       "whiten_tokens: values has 3 entries, mask 2; expected equal counts or an "
                       "empty mask",
                       shape_error);
  CHECK_THROWS_WITH_AS(whiten_tokens(view, gap, {.epsilon = -1}),
                       "token_whitening: epsilon is -1, expected a finite value >= 0",
                       config_error);
  CHECK_THROWS_WITH_AS(whiten_tokens(view, gap, {.count_epsilon = -1}),
                       "token_whitening: count_epsilon is -1, expected a finite value >= 0",
                       config_error);
  CHECK(values[0] == 1);
  CHECK(values[2] == 2);
  CHECK_NOTHROW(whiten_tokens(view, gap));
}

TEST_CASE("batch whitening: rollouts without an advantage stay out of the statistics") {
  std::vector<double> const values{-1, nan_value, 1, 0, nan_value};
  std::vector<double> out(5, 9.0);
  std::vector<double> const none(5);
  vector_view<double> const view(out);
  batch_whitening{.epsilon = 0.5}.run(host_rows<>{}, values, none, view);
  CHECK(testing::agree(out, {-1 / 1.5, 0, 1 / 1.5, 0, 0}, 1e-15));
  CHECK(out[1] == 0);
  std::vector<double> const equal{2, 2, nan_value};
  out.resize(3);
  batch_whitening{.epsilon = 0}.run(host_rows<>{}, equal, equal, vector_view<double>(out));
  CHECK(out == std::vector<double>{0, 0, 0});
}

TEST_CASE("no whitening leaves advantages as they are, 0 where there are none") {
  std::vector<double> const values{-1, nan_value, 4};
  std::vector<double> out(3, 9.0);
  no_whitening::run(host_rows<>{}, values, values, vector_view<double>(out));
  CHECK(out == std::vector<double>{-1, 0, 4});
  no_whitening::run(host_rows<>{}, vector_view<double>(out), {});
  CHECK(out == std::vector<double>{-1, 0, 4});
}
