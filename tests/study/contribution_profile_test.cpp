// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#include "lamina/study/contribution_profile.hpp"

#include <doctest/doctest.h>

using doctest::Approx;
using lamina::contribution_profile;
using lamina::contribution_scale;
using lamina::is_nan;
using lamina::measure_profile;
using lamina::score_table;

namespace {

contribution_scale unit_scale() { return {{{0.0}}, {{1.0, 1.0, 1.0}}}; }

bool mentions(contribution_profile const& profile, std::string const& text) {
  for (std::string const& caveat : profile.caveats) {
    if (caveat.find(text) != std::string::npos) return true;
  }
  return false;
}

}  // namespace

TEST_CASE("profile: C of every layer, the best one, and layers that were not trained") {
  contribution_profile const profile =
      measure_profile(unit_scale(), {{{0.2, 0.3, 0.1}}, {}, {{0.6, 0.7, 0.8}}, {{0.5, 0.4, 0.6}}});
  CHECK(profile.layer_count() == 4);
  CHECK(profile.contribution_of(0) == Approx(0.2));
  CHECK(profile.contribution_of(2) == Approx(0.7));
  auto const values = profile.contributions_by_layer();
  REQUIRE(values.size() == 4);
  CHECK(is_nan(values[1]));
  CHECK(values[3] == Approx(0.5));
  CHECK(profile.best.layer == 2);
  CHECK(profile.best.apparent == Approx(0.7));
  CHECK(profile.rank_agreement.mean == Approx(1));
  CHECK_THROWS_WITH_AS(profile.contribution_of(1), "contribution_profile: layer 1 was not trained",
                       lamina::measurement_error);
  CHECK_THROWS_WITH_AS(profile.contribution_of(4), "contribution_profile: layer 4 is outside 0..3",
                       lamina::selection_error);
}

TEST_CASE("profile: the corrected best leaves the fold out that it is read on") {
  // Means 0.5 and 0.6: layer 1. Without seed 0 layer 0 leads (0.8 > 0.3) and reads -0.1 there;
  // without seed 1 or 2 layer 1 leads (0.75 > 0.35) and reads 0.3.
  contribution_profile const profile =
      measure_profile(unit_scale(), {{{-0.1, 0.8, 0.8}}, {{1.2, 0.3, 0.3}}});
  CHECK(profile.best.layer == 1);
  CHECK(profile.best.apparent == Approx(0.6));
  CHECK(profile.best.fold_count == 3);
  CHECK(profile.best.agreeing_folds == 2);
  CHECK(profile.best.corrected == Approx((-0.1 + 0.3 + 0.3) / 3));
}

TEST_CASE("profile: over equal layers the best is too good, the corrected best is not") {
  // 12 layers whose true C is 0.5, with noise of 0.1 a seed.
  std::vector<double> apparent, corrected;
  lamina::counter_generator generator(31);
  for (int study = 0; study < 400; ++study) {
    std::vector<score_table> layers(12, score_table(1));
    for (auto& layer : layers) {
      for (int seed = 0; seed < 3; ++seed) {
        layer[0].push_back(0.5 + 0.1 * lamina::normal_quantile(generator.uniform()));
      }
    }
    contribution_scale const scale({{0.0}}, {{1.0, 1.0}}, {.bootstrap = {.resamples = 1}});
    auto const best = measure_profile(scale, layers).best;
    apparent.push_back(best.apparent);
    corrected.push_back(best.corrected);
  }
  // The largest of 12 normal means is 1.63 standard errors up: 0.5 + 1.63 0.1 / sqrt 3 = 0.594.
  CHECK(lamina::mean(apparent) == Approx(0.594).epsilon(0.01));
  CHECK(std::abs(lamina::mean(corrected) - 0.5) < 4 * lamina::standard_error(corrected));
  CHECK(lamina::standard_error(corrected) < 0.005);
}

TEST_CASE("profile: several bases are the folds") {
  contribution_scale const scale({{0.0}, {0.0}}, {{1.0, 1.0}, {1.0, 1.0}});
  contribution_profile const profile =
      measure_profile(scale, {{{0.2, 0.2}, {0.9, 0.9}}, {{0.6, 0.6}, {0.4, 0.4}}});
  CHECK(profile.best.layer == 0);  // 0.55 against 0.5
  CHECK(profile.best.fold_count == 2);
  // Chosen on base 1: layer 0, which has 0.2 on base 0; chosen on base 0: layer 1, 0.4 on base 1.
  CHECK(profile.best.corrected == Approx(0.3));
  CHECK(profile.rank_agreement.mean == Approx(-1));
  CHECK(profile.rank_agreement.minimum == Approx(-1));
  CHECK(mentions(profile, "chooses on the other bases"));
  CHECK_FALSE(mentions(profile, "One pretrained base"));
}

TEST_CASE("profile: permuting the seeds changes nothing but the order of the folds") {
  contribution_scale const scale({{0.1}}, {{0.8, 0.9, 0.7}});
  auto const a = measure_profile(scale, {{{0.2, 0.5, 0.3}}, {{0.4, 0.3, 0.6}}});
  auto const b = measure_profile(scale, {{{0.5, 0.3, 0.2}}, {{0.3, 0.6, 0.4}}});
  for (lamina::index_t layer = 0; layer < 2; ++layer) {
    CHECK(a.contribution_of(layer) == Approx(b.contribution_of(layer)).epsilon(1e-14));
  }
  CHECK(a.best.corrected == Approx(b.best.corrected).epsilon(1e-14));
  CHECK(a.rank_agreement.mean == Approx(b.rank_agreement.mean));
}

TEST_CASE("profile: one seed has no correction and says so") {
  contribution_profile const profile =
      measure_profile(contribution_scale({{0.0}}, {{1.0}}), {{{0.3}}, {{0.4}}});
  CHECK(profile.best.layer == 1);
  CHECK(is_nan(profile.best.corrected));
  CHECK(is_nan(profile.rank_agreement.mean));
  CHECK(mentions(profile, "Fewer than two seeds"));
  CHECK(mentions(profile, "One pretrained base"));
}

TEST_CASE(
    "profile: a refused one keeps the scores, has no best layer, and throws with the reason") {
  contribution_profile const profile =
      measure_profile(contribution_scale({{0.5}}, {{0.5, 0.4}}), {{{0.6, 0.6}}, {{0.7, 0.7}}});
  CHECK_FALSE(profile.measurable());
  CHECK(profile.best.layer == -1);
  CHECK(profile.layers[1].score == Approx(0.7));
  for (double value : profile.contributions_by_layer()) CHECK(is_nan(value));
  CHECK_THROWS_WITH_AS(profile.contribution_of(0),
                       "contribution_profile: S_full - S_base is -0.05 (S_base 0.5, S_full 0.45), "
                       "expected a positive gain of full training",
                       lamina::measurement_error);
  REQUIRE(profile.caveats.size() == 1);
  CHECK(mentions(profile, "No contribution is given: S_full - S_base is -0.05"));
}

TEST_CASE("profile: no layers at all, and a layer that misses a base, are errors") {
  CHECK_THROWS_WITH_AS(measure_profile(unit_scale(), {}), "measure_profile: layers is empty",
                       lamina::shape_error);
  contribution_scale const two({{0.0}, {0.0}}, {{1.0}, {1.0}});
  CHECK_THROWS_WITH_AS(measure_profile(two, {{{0.5}}}),
                       "contribution_scale: the variant has scores for 1 bases, expected 2",
                       lamina::shape_error);
  // None trained is a profile without numbers.
  contribution_profile const empty = measure_profile(unit_scale(), {{}, {}});
  CHECK(empty.measurable());
  CHECK(empty.best.layer == -1);
}
