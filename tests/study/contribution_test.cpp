// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#include "lamina/study/contribution.hpp"

#include <doctest/doctest.h>

using doctest::Approx;
using lamina::contribution;
using lamina::contribution_options;
using lamina::contribution_scale;
using lamina::index_t;
using lamina::is_nan;
using lamina::score_table;

namespace {

std::vector<double> noisy(double centre, double deviation, std::uint64_t stream, index_t count) {
  lamina::counter_generator generator(23, stream);
  std::vector<double> values;
  for (index_t i = 0; i < count; ++i) {
    values.push_back(centre + deviation * lamina::normal_quantile(generator.uniform()));
  }
  return values;
}

}  // namespace

TEST_CASE("contribution: base 0.5, full 0.8 and 1.0, layer 0.7 and 0.6 by hand") {
  contribution_scale const scale({{0.5}}, {{0.8, 1.0}}, {.noise_multiple = 2});
  CHECK(scale.measurable());
  CHECK(scale.base_score() == 0.5);
  CHECK(scale.full_score() == Approx(0.9));
  CHECK(scale.gain() == Approx(0.4));
  // se(F) = 0.1414 / sqrt 2 = 0.1, and the base was scored exactly.
  CHECK(scale.full_score_error() == Approx(0.1));
  CHECK(scale.gain_error() == Approx(0.1));
  CHECK(scale.base_score_error() == 0);

  contribution const measured = scale.measure({{0.7, 0.6}});
  CHECK(measured.score == Approx(0.65));
  CHECK(measured.score_error == Approx(0.05));
  CHECK(measured.value == Approx(0.375));  // 0.15 / 0.4, the ratio of means
  // sqrt(0.05^2 + 0.375^2 0.1^2) / 0.4
  CHECK(measured.standard_error == Approx(0.15625));
  CHECK(measured.by_base == std::vector<double>{measured.value});
  CHECK(measured.confidence.low < measured.value);
  CHECK(measured.confidence.high > measured.value);
}

TEST_CASE("contribution: the untrained base is 0, full training is 1") {
  contribution_scale const scale({{0.5}, {0.4}}, {{0.8, 0.84}, {0.9, 0.88}});
  CHECK(scale.measure(scale.base_scores()).value == 0);
  CHECK(scale.measure(scale.full_scores()).value == Approx(1));
}

TEST_CASE("contribution does not depend on the unit or the zero of the score") {
  score_table const base{{0.5}}, full{{0.8, 0.84, 0.81}}, layer{{0.6, 0.66, 0.61}};
  auto const mapped = [](score_table table) {
    for (double& score : table[0]) score = 100 * score - 7;
    return table;
  };
  contribution const plain = contribution_scale(base, full).measure(layer);
  contribution const percent =
      contribution_scale(mapped(base), mapped(full)).measure(mapped(layer));
  CHECK(percent.value == Approx(plain.value).epsilon(1e-12));
  CHECK(percent.standard_error == Approx(plain.standard_error).epsilon(1e-12));
  CHECK(percent.confidence.low == Approx(plain.confidence.low).epsilon(1e-9));
  CHECK(percent.confidence.high == Approx(plain.confidence.high).epsilon(1e-9));
}

TEST_CASE("contribution: the noise of full training widens every C, also of a layer without any") {
  score_table const layer{{0.6, 0.6, 0.6}};
  contribution const exact = contribution_scale({{0.5}}, {{0.8, 0.8, 0.8}}).measure(layer);
  CHECK(exact.standard_error == Approx(0));
  CHECK(exact.confidence.low == Approx(exact.value));
  contribution const noisy_full = contribution_scale({{0.5}}, {{0.78, 0.8, 0.82}}).measure(layer);
  CHECK(noisy_full.value == Approx(exact.value));
  // C se(F) / gain = (1/3) (0.02 / sqrt 3) / 0.3
  CHECK(noisy_full.standard_error == Approx(0.02 / std::sqrt(3.0) / 0.9).epsilon(1e-9));
  CHECK(noisy_full.confidence.high - noisy_full.confidence.low > 0.03);
}

TEST_CASE("contribution: the standard error is the spread that repeating the study shows") {
  std::vector<double> values;
  double error = 0;
  int const repeats = 400;
  for (int r = 0; r < repeats; ++r) {
    std::uint64_t const stream = 2 * static_cast<std::uint64_t>(r);
    contribution_scale const scale({{0.5}}, {noisy(0.9, 0.02, stream, 6)},
                                   {.bootstrap = {.resamples = 1}});
    contribution const measured = scale.measure({noisy(0.7, 0.01, stream + 1, 3)});
    values.push_back(measured.value);
    error += measured.standard_error / repeats;
  }
  CHECK(lamina::mean(values) == Approx(0.5).epsilon(0.01));
  CHECK(lamina::sample_deviation(values) == Approx(error).epsilon(0.12));
}

TEST_CASE("contribution: the interval covers the truth about as often as it says") {
  int const repeats = 300;
  int covered = 0;
  for (int r = 0; r < repeats; ++r) {
    std::uint64_t const stream = 2 * static_cast<std::uint64_t>(r);
    contribution_scale const scale({{0.5}}, {noisy(0.9, 0.02, stream, 3)},
                                   {.bootstrap = {.resamples = 400}});
    auto const range = scale.measure({noisy(0.7, 0.02, stream + 1, 3)}).confidence;
    covered += range.low <= 0.5 && 0.5 <= range.high ? 1 : 0;
  }
  CHECK(covered / static_cast<double>(repeats) == Approx(0.955).epsilon(0.035));
}

TEST_CASE("contribution: several bases give the mean of their ratios and its error over bases") {
  // C is 0.1/0.2 = 0.5 on the first base and 0.3/0.4 = 0.75 on the second.
  contribution_scale const scale({{0.5}, {0.4}}, {{0.7}, {0.8}});
  contribution const measured = scale.measure({{0.6}, {0.7}});
  REQUIRE(measured.by_base.size() == 2);
  CHECK(measured.by_base[0] == Approx(0.5));
  CHECK(measured.by_base[1] == Approx(0.75));
  CHECK(measured.value == Approx(0.625));
  CHECK(measured.standard_error == Approx(0.125));
  CHECK(measured.score == Approx(0.65));
  CHECK(scale.gain() == Approx(0.3));
  CHECK(scale.gain_error() == Approx(0.1));
  CHECK(measured.confidence.low < 0.5);
  CHECK(measured.confidence.high > 0.75);
}

TEST_CASE("contribution: a base scored once with a known error widens C") {
  score_table const full{{0.9, 0.9}}, layer{{0.7, 0.7}};
  contribution const exact = contribution_scale({{0.5}}, full).measure(layer);
  contribution_scale const scale({{0.5}}, full, {.base_score_error = 0.04});
  contribution const measured = scale.measure(layer);
  CHECK(exact.standard_error == Approx(0));
  CHECK(scale.base_score_error() == Approx(0.04));
  CHECK(measured.standard_error == Approx(0.5 * 0.04 / 0.4));  // (1 - C) se(B) / gain
  CHECK(measured.confidence.high - measured.confidence.low > 0.1);
}

TEST_CASE("contribution is refused where full training gains nothing") {
  contribution_scale const scale({{0.512}}, {{0.49, 0.51}});
  CHECK_FALSE(scale.measurable());
  CHECK(scale.refusal() ==
        "S_full - S_base is -0.012 (S_base 0.512, S_full 0.5), expected a positive gain of full "
        "training");
  contribution const measured = scale.measure({{0.6, 0.7}});
  CHECK(is_nan(measured.value));
  CHECK(is_nan(measured.standard_error));
  CHECK(is_nan(measured.confidence.low));
  REQUIRE(measured.by_base.size() == 1);
  CHECK(is_nan(measured.by_base[0]));
  CHECK(measured.score == Approx(0.65));
}

TEST_CASE("contribution is refused where the gain of full training is within its noise") {
  // se(F) = 0.1: the gain of 0.25 is 2.5 standard errors.
  contribution_scale const refused({{0.5}}, {{0.65, 0.85}});
  CHECK(refused.refusal() ==
        "S_full - S_base is 0.25 (S_base 0.5, S_full 0.75), within noise: its standard error is "
        "0.1, expected a gain of more than 3 standard errors");
  CHECK(contribution_scale({{0.5}}, {{0.65, 0.85}}, {.noise_multiple = 2}).measurable());
  // One hopeless base refuses the mean over bases, and is named.
  contribution_scale const second({{0.5}, {0.5}}, {{0.8, 0.81}, {0.4, 0.41}});
  CHECK(second.refusal().rfind("base 1: S_full - S_base is -0.095", 0) == 0);
}

TEST_CASE("contribution of one seed has a value, no error and no interval") {
  contribution_scale const scale({{0.5}}, {{0.9}});
  CHECK(scale.measurable());
  CHECK(is_nan(scale.gain_error()));
  contribution const measured = scale.measure({{0.7}});
  CHECK(measured.value == Approx(0.5));
  CHECK(is_nan(measured.standard_error));
  CHECK(is_nan(measured.score_error));
  CHECK(is_nan(measured.confidence.low));
}

TEST_CASE("contribution: bad scores and options are named with their value") {
  CHECK_THROWS_WITH_AS(contribution_scale({}, {}), "contribution_scale: base has no scores",
                       lamina::shape_error);
  CHECK_THROWS_WITH_AS(contribution_scale({{0.5}}, {{0.9}, {0.8}}),
                       "contribution_scale: full has scores for 2 bases, expected 1",
                       lamina::shape_error);
  CHECK_THROWS_WITH_AS(contribution_scale({{0.5}, {}}, {{0.9}, {0.8}}),
                       "contribution_scale: base has no score on base 1", lamina::shape_error);
  CHECK_THROWS_WITH_AS(contribution_scale({{0.5}}, {{lamina::not_a_number}}),
                       "contribution_scale: full has score nan on base 0, expected a finite number",
                       lamina::config_error);
  CHECK_THROWS_WITH_AS(contribution_scale({{0.5}}, {{0.9}}, {.noise_multiple = -1}),
                       "contribution_scale: noise_multiple is -1 and base_score_error is 0, "
                       "expected neither to be negative",
                       lamina::config_error);
  contribution_scale const scale({{0.5}}, {{0.9, 0.91}});
  CHECK_THROWS_WITH_AS(scale.measure({}),
                       "contribution_scale: the variant has scores for 0 bases, expected 1",
                       lamina::shape_error);
}
