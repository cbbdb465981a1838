// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#include "lamina/study/statistics.hpp"

#include <doctest/doctest.h>

#include "tests/support/reference_file.hpp"

using doctest::Approx;
using lamina::bootstrap_options;
using lamina::counter_generator;
using lamina::index_t;
using lamina::interval;

namespace {

using values_type = std::vector<double>;

values_type normal_sample(std::uint64_t stream, index_t count) {
  counter_generator generator(11, stream);
  values_type values;
  for (index_t i = 0; i < count; ++i)
    values.push_back(lamina::normal_quantile(generator.uniform()));
  return values;
}

interval interval_of_mean(values_type const& values, bootstrap_options const& options) {
  return lamina::bootstrap_interval(
      lamina::mean(values), static_cast<index_t>(values.size()),
      [&](index_t resample) {
        counter_generator generator(options.seed, static_cast<std::uint64_t>(resample));
        return lamina::resampled_mean(values, generator);
      },
      options);
}

// Share of intervals of the mean of `count` standard normal values that hold 0.
double coverage(index_t count, double confidence) {
  int const trials = 600;
  int covered = 0;
  for (int trial = 0; trial < trials; ++trial) {
    values_type const values = normal_sample(static_cast<std::uint64_t>(trial), count);
    interval const range =
        interval_of_mean(values, {.confidence = confidence, .resamples = 300, .seed = 3});
    covered += range.low <= 0 && 0 <= range.high ? 1 : 0;
  }
  return covered / static_cast<double>(trials);
}

}  // namespace

TEST_CASE("spread, ranks, quantiles and correlations agree with NumPy and SciPy") {
  auto const reference = lamina::testing::read_reference("study_statistics.json");
  for (auto const& sample : reference["samples"]) {
    values_type const x = sample["x"];
    values_type const y = sample["y"];
    CHECK(lamina::mean(x) == Approx(double(sample["mean"])).epsilon(1e-13));
    CHECK(lamina::sample_variance(x) == Approx(double(sample["variance"])).epsilon(1e-12));
    CHECK(lamina::sample_deviation(x) * lamina::sample_deviation(x) ==
          Approx(double(sample["variance"])).epsilon(1e-12));
    CHECK(lamina::standard_error(x) == Approx(double(sample["standard_error"])).epsilon(1e-12));
    CHECK(lamina::average_ranks(y) == values_type(sample["ranks_of_y"]));
    if (!sample["pearson"].is_null()) {
      CHECK(lamina::pearson(x, y) == Approx(double(sample["pearson"])).epsilon(1e-11));
      CHECK(lamina::spearman(x, y) == Approx(double(sample["spearman"])).epsilon(1e-11));
    }
    values_type ascending = x;
    std::sort(ascending.begin(), ascending.end());
    for (auto const& pair : sample["quantiles"]) {
      CHECK(lamina::quantile(ascending, pair[0]) == Approx(double(pair[1])).epsilon(1e-13));
    }
  }
}

TEST_CASE("quantiles of Student's t and of the normal agree with SciPy") {
  auto const reference = lamina::testing::read_reference("study_statistics.json");
  for (auto const& row : reference["student_t"]) {
    double const p = row[0];
    index_t const dof = row[1];
    CAPTURE(p);
    CAPTURE(dof);
    CHECK(lamina::student_t_quantile(p, dof) == Approx(double(row[2])).epsilon(1e-9));
  }
  for (auto const& row : reference["normal"]) {
    CHECK(lamina::normal_quantile(row[0]) == Approx(double(row[1])).epsilon(1e-9));
  }
  // One degree of freedom is the Cauchy distribution: tan(pi (p - 1/2)).
  CHECK(lamina::student_t_quantile(0.75, 1) == Approx(1).epsilon(1e-12));
}

TEST_CASE("too few values have no spread, nothing has no mean: NaN") {
  values_type const none, one{3};
  CHECK(lamina::is_nan(lamina::mean(none)));
  CHECK(lamina::mean(one) == 3);
  CHECK(lamina::is_nan(lamina::sample_variance(one)));
  CHECK(lamina::is_nan(lamina::sample_deviation(one)));
  CHECK(lamina::is_nan(lamina::standard_error(one)));
  CHECK(lamina::is_nan(lamina::quantile(none, 0.5)));
  CHECK(lamina::average_ranks(none).empty());
}

TEST_CASE("a correlation with a constant is NaN, also where rounding gives it a spread") {
  values_type const constant{0.1, 0.1, 0.1}, rising{1, 2, 3};
  CHECK(lamina::is_nan(lamina::pearson(constant, rising)));
  CHECK(lamina::is_nan(lamina::pearson(rising, constant)));
  CHECK(lamina::is_nan(lamina::spearman(constant, rising)));
  CHECK(lamina::is_nan(lamina::pearson(values_type{}, values_type{})));
  CHECK(lamina::is_nan(lamina::pearson(values_type{1}, values_type{2})));
  CHECK(lamina::is_nan(lamina::pearson(rising, values_type{1, lamina::not_a_number, 3})));
}

TEST_CASE(
    "spearman sees order only: any increasing map leaves it, a decreasing one turns its sign") {
  values_type const x{0.3, -1, 2, 0.9, 5, 0.31}, y{1, 0, 7, 3, 2, 4};
  values_type cubed, negated;
  for (double value : x) {
    cubed.push_back(value * value * value);
    negated.push_back(-value);
  }
  CHECK(lamina::spearman(cubed, y) == lamina::spearman(x, y));
  CHECK(lamina::spearman(negated, y) == Approx(-lamina::spearman(x, y)));
  CHECK(lamina::spearman(x, x) == Approx(1).epsilon(1e-15));
}

TEST_CASE("bad arguments of statistics are named with their value") {
  values_type const two{1, 2}, three{1, 2, 3};
  CHECK_THROWS_WITH_AS(lamina::pearson(two, three), "pearson: x has 2 values, y has 3",
                       lamina::shape_error);
  CHECK_THROWS_WITH_AS(lamina::spearman(three, two), "spearman: x has 3 values, y has 2",
                       lamina::shape_error);
  CHECK_THROWS_WITH_AS(lamina::average_ranks(values_type{1, lamina::not_a_number}),
                       "average_ranks: value 1 is NaN", lamina::config_error);
  CHECK_THROWS_WITH_AS(lamina::quantile(two, 1.5), "quantile: probability is 1.5, expected 0..1",
                       lamina::config_error);
  CHECK_THROWS_WITH_AS(lamina::normal_quantile(1),
                       "normal_quantile: probability is 1, expected more than 0 and less than 1",
                       lamina::config_error);
  CHECK_THROWS_WITH_AS(lamina::student_t_quantile(0.9, 0),
                       "student_t_quantile: degrees_of_freedom is 0, expected at least 1",
                       lamina::config_error);
  CHECK_THROWS_WITH_AS(interval_of_mean(two, {.confidence = 95}),
                       "bootstrap_interval: confidence is 95, expected more than 0 and less than 1",
                       lamina::config_error);
  CHECK_THROWS_WITH_AS(interval_of_mean(two, {.resamples = 0}),
                       "bootstrap_interval: resamples is 0, expected at least 1",
                       lamina::config_error);
}

TEST_CASE("bootstrap_interval: the same seed gives the same interval, another seed a near one") {
  values_type const values = normal_sample(1, 12);
  interval const a = interval_of_mean(values, {.seed = 1});
  interval const b = interval_of_mean(values, {.seed = 1});
  interval const c = interval_of_mean(values, {.seed = 2});
  CHECK(a.low == b.low);
  CHECK(a.high == b.high);
  CHECK(a.low != c.low);
  CHECK(c.low == Approx(a.low).epsilon(0.2));
  CHECK(c.high == Approx(a.high).epsilon(0.2));
}

TEST_CASE("bootstrap_interval: of many values it is Student's interval") {
  values_type const values = normal_sample(2, 60);
  interval const range = interval_of_mean(values, {.resamples = 4000});
  double const half = lamina::student_t_quantile(0.975, 59) * lamina::standard_error(values);
  CHECK((range.high - range.low) / (2 * half) == Approx(1).epsilon(0.04));
}

TEST_CASE("bootstrap_interval covers about what it says, from two values on") {
  CHECK(coverage(2, 0.95) == Approx(0.94).epsilon(0.03));
  CHECK(coverage(3, 0.95) == Approx(0.94).epsilon(0.03));
  CHECK(coverage(6, 0.95) == Approx(0.95).epsilon(0.03));
  CHECK(coverage(6, 0.5) == Approx(0.5).epsilon(0.12));
}

TEST_CASE("bootstrap_interval: one value has no interval, a statistic that is NaN is left out") {
  CHECK(lamina::is_nan(interval_of_mean({3}, {}).low));
  CHECK(lamina::is_nan(interval_of_mean({3}, {}).high));
  values_type const same{2, 2, 2};
  CHECK(interval_of_mean(same, {}).low == 2);
  CHECK(interval_of_mean(same, {}).high == 2);
  interval const half_missing = lamina::bootstrap_interval(
      5, 3, [](index_t resample) { return resample % 2 == 0 ? 5.0 : lamina::not_a_number; });
  CHECK(half_missing.low == 5);
  CHECK(half_missing.high == 5);
}
