// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// Draws against their definition: Gumbel noise token by token, and tails cut off a sorted row.
#include "examples/decoder/draw.hpp"

#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <numeric>
#include <vector>

#include "lamina/core/lanes.hpp"

using namespace decoder;

namespace {

using row_type = std::vector<float>;

row_type random_row(index_t vocab, double spread, std::uint64_t seed) {
  lamina::counter_generator draws(seed);
  row_type row;
  for (index_t v = 0; v < vocab; ++v) {
    double const normal =
        std::sqrt(-2 * std::log(draws.uniform())) * std::cos(6.283185307179586 * draws.uniform());
    row.push_back(static_cast<float>(spread * normal));
  }
  return row;
}

struct drawn {
  std::vector<std::int32_t> tokens;
  std::vector<float> log_probs;
  std::vector<float> log_kept;
};

/// `count` draws from one row, for the positions 0, 1, ...
drawn draw(row_type const& row, sampling_options const& options, index_t count) {
  auto const size = static_cast<std::size_t>(count);
  std::vector<index_t> rows(size, 3), positions(size);
  std::iota(positions.begin(), positions.end(), 0);
  drawn result{std::vector<std::int32_t>(size), row_type(size), row_type(size)};
  lamina::host_rows<>{}.run(count, draw_tokens<float>{options,
                                                      {row.data(), 1, index_t(row.size())},
                                                      count,
                                                      rows,
                                                      positions,
                                                      result.tokens,
                                                      result.log_probs,
                                                      result.log_kept});
  return result;
}

std::vector<double> probabilities(row_type const& row, double temperature) {
  double total = 0;
  std::vector<double> p;
  double const peak = static_cast<double>(*std::max_element(row.begin(), row.end()));
  for (float const x : row) p.push_back(std::exp((static_cast<double>(x) - peak) / temperature));
  for (double const x : p) total += x;
  for (double& x : p) x /= total;
  return p;
}

/// Probabilities with the tail cut off, not renormalised; for rows without equal logits.
std::vector<double> cut_probabilities(row_type const& row, double temperature,
                                      truncation const& allowed) {
  std::vector<double> p = probabilities(row, temperature);
  std::vector<std::size_t> order(p.size());
  std::iota(order.begin(), order.end(), std::size_t{0});
  std::sort(order.begin(), order.end(), [&](auto a, auto b) { return p[a] > p[b]; });
  std::size_t kept = p.size();
  if (allowed.top_k > 0) kept = std::min(kept, static_cast<std::size_t>(allowed.top_k));
  double mass = 0, seen = 0;
  for (std::size_t i = 0; i < kept; ++i) mass += p[order[i]];
  if (allowed.top_p < 1) {
    std::size_t nucleus = 0;
    while (nucleus < kept && (nucleus == 0 || seen < allowed.top_p * mass)) {
      seen += p[order[nucleus++]];
    }
    kept = nucleus;
  }
  while (kept > 1 && p[order[kept - 1]] < allowed.min_p * p[order[0]]) --kept;
  for (std::size_t i = kept; i < order.size(); ++i) p[order[i]] = 0;
  return p;
}

}  // namespace

TEST_CASE("decoder::draw_tokens: what cannot win is passed over, and nothing else") {
  for (index_t const vocab : {1, 2, 63, 64, 65, 1000}) {
    for (double const spread : {0.0, 1.0, 4.0, 30.0}) {
      CAPTURE(vocab);
      CAPTURE(spread);
      row_type row = random_row(vocab, spread, 11);
      if (vocab > 64) row[7] = -std::numeric_limits<float>::infinity();
      sampling_options const options{
          .temperature = 0.8, .seed = 0x123456789abcdefu, .step = 5, .first_row = 20};
      drawn const result = draw(row, options, 60);
      for (std::uint32_t position = 0; position < 60; ++position) {
        std::int32_t best = -1;
        double best_score = 0;
        for (std::uint32_t v = 0; v < row.size(); ++v) {
          auto const words = lamina::philox4x32(options.seed, {{5, 23, position, v}});
          double const u = lamina::uniform_open(words.word[0], words.word[1]);
          double const score = static_cast<double>(row[v]) / 0.8 - std::log(-std::log(u));
          if (best >= 0 && score <= best_score) continue;
          best = static_cast<std::int32_t>(v);
          best_score = score;
        }
        CHECK(result.tokens[position] == best);
        CHECK(result.log_kept[position] == 0);
      }
    }
  }
}

TEST_CASE("decoder::draw_tokens: with a cut, frequencies are those of what is left") {
  row_type const row = random_row(40, 1.5, 3);
  double const temperature = 1.3;
  index_t const count = 20000;
  truncation const cuts[] = {{.top_k = 5},
                             {.top_p = 0.7},
                             {.min_p = 0.2},
                             {.top_k = 12, .top_p = 0.8},
                             {.top_k = 20, .top_p = 0.9, .min_p = 0.1}};
  for (truncation const& allowed : cuts) {
    CAPTURE(allowed.top_k);
    CAPTURE(allowed.top_p);
    CAPTURE(allowed.min_p);
    drawn const result =
        draw(row, {.temperature = temperature, .allowed = allowed, .seed = 4}, count);
    auto const whole = probabilities(row, temperature);
    auto const left = cut_probabilities(row, temperature, allowed);
    double const mass = std::accumulate(left.begin(), left.end(), 0.0);
    std::vector<double> observed(row.size());
    for (std::size_t i = 0; i < result.tokens.size(); ++i) {
      auto const token = static_cast<std::size_t>(result.tokens[i]);
      ++observed[token];
      CHECK(static_cast<double>(result.log_probs[i]) ==
            doctest::Approx(std::log(whole[token])).epsilon(1e-6));
      CHECK(static_cast<double>(result.log_kept[i]) ==
            doctest::Approx(std::log(mass)).epsilon(1e-5));
    }
    double chi_square = 0;
    int choices = 0;
    for (std::size_t v = 0; v < row.size(); ++v) {
      if (left[v] == 0) {
        CHECK(observed[v] == 0);
        continue;
      }
      double const expected = left[v] / mass * static_cast<double>(count);
      chi_square += (observed[v] - expected) * (observed[v] - expected) / expected;
      ++choices;
    }
    CHECK(choices > 1);
    double const freedom = choices - 1;  // beyond mean + 4 deviations: 1 in 5,000 or rarer
    CHECK(chi_square < freedom + 4 * std::sqrt(2 * freedom) + 4);
  }
}

TEST_CASE("decoder::draw_tokens: equal logits stay or go together") {
  row_type const row{1, 3, 2, 3, 2, 2, 0};
  auto const allowed_tokens = [&](truncation const& allowed) {
    std::vector<std::int32_t> seen = draw(row, {.allowed = allowed, .seed = 1}, 400).tokens;
    std::sort(seen.begin(), seen.end());
    seen.erase(std::unique(seen.begin(), seen.end()), seen.end());
    return seen;
  };
  std::vector<std::int32_t> const two{1, 3}, five{1, 2, 3, 4, 5}, all{0, 1, 2, 3, 4, 5, 6};
  CHECK(allowed_tokens({.top_k = 1}) == two);
  CHECK(allowed_tokens({.top_k = 3}) == five);
  CHECK(allowed_tokens({.top_k = 100}) == all);
  CHECK(allowed_tokens({.top_p = 1e-9}) == two);
  CHECK(allowed_tokens({.top_p = 0.7}) == five);
  CHECK(allowed_tokens({.min_p = 1}) == two);
  CHECK(allowed_tokens({.min_p = 0.3}) == five);
}

TEST_CASE("decoder::cut_of: is the one of a sorted row, for flat and peaked rows") {
  for (double const spread : {0.01, 1.0, 10.0, 100.0}) {
    row_type const row = random_row(5000, spread, 8);
    float const inverse = 1.25f;
    scaled_row<float> const scaled{
        {row.data(), 5000},
        inverse,
        lamina::summarize_row<false>(lamina::single_lane{}, row.data(), 5000, inverse)};
    for (truncation const& allowed :
         {truncation{.top_k = 50}, truncation{.top_p = 0.9}, truncation{.top_p = 0.9999},
          truncation{.min_p = 0.01}, truncation{.top_k = 300, .top_p = 0.5}}) {
      CAPTURE(spread);
      CAPTURE(allowed.top_k);
      CAPTURE(allowed.top_p);
      auto const left = cut_probabilities(row, 0.8, allowed);
      cut<float> const found = cut_of(scaled, allowed);
      double const mass = std::accumulate(left.begin(), left.end(), 0.0);
      CHECK(found.mass / scaled.summary.total == doctest::Approx(mass).epsilon(1e-5));
      double differing = 0;  // of the mass: rounding may move a token of the edge
      for (index_t v = 0; v < 5000; ++v) {
        bool const keeps = scaled[v] >= found.lowest;
        if (keeps != (left[static_cast<std::size_t>(v)] > 0)) {
          differing += probabilities(row, 0.8)[static_cast<std::size_t>(v)];
        }
      }
      CHECK(differing < 1e-3);
    }
  }
}
