// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// Rows of logits of every length from every address, with what is not finite in them, by lanes that
// keep all, some or nothing of a row: losses, outputs and gradients are those of one lane.
#include <doctest/doctest.h>

#include <cstring>
#include <limits>
#include <vector>

#include "lamina/policy/logits_loss.hpp"
#include "lamina/policy/presets.hpp"
#include "lamina/policy/score_surrogate.hpp"
#include "tests/support/backends.hpp"
#include "tests/support/device_batch.hpp"
#include "tests/support/threaded_lanes.hpp"

using namespace lamina;
using lamina::testing::first_difference;
using lamina::testing::numbers_of;
using lamina::testing::owned_batch;

namespace {

// The loss is -A log p, so that no ratio can be clipped; with an entropy bonus.
using score = policy_gradient<group_relative<>, on_policy_ratio, score_function, no_kl, token_mean,
                              no_correction, no_filter, entropy_bonus<>>;
static_assert(detail::token_local<score> && !detail::token_local<gspo>);

template <class T>
struct keeping_backend : eigen_backend<T> {
  testing::keeping_rows rows;
  testing::keeping_rows executor() const { return rows; }
};

constexpr index_t tokens = 9;
constexpr std::size_t masked = 7, not_finite[] = {2, 3, 4, 5, 6};

// Two sequences; old log-probs below all others, so that no ratio is clipped.
template <class T>
owned_batch<T> batch_of(index_t vocab) {
  counter_generator random(static_cast<std::uint64_t>(vocab));
  auto batch = testing::random_batch_of<T>(random, {5, 4}, vocab);
  batch.advantages = {T(-1), T(-0.7)};
  batch.old_log_probs.assign(batch.old_log_probs.size(), T(-6));
  batch.mask.assign(batch.mask.size(), 1);
  batch.mask[masked] = 0;
  batch.denominators = denominators_of(batch.view());
  return batch;
}

// Row t begins at element t * stride; what lies between rows is 42.
template <class T>
std::vector<T> logits_of(owned_batch<compute_t<T>> const& batch, index_t vocab, index_t stride) {
  compute_t<T> const infinity = std::numeric_limits<compute_t<T>>::infinity();
  std::vector<T> values(static_cast<std::size_t>(tokens * stride), T(42.0f));
  matrix_view<T> const rows(values.data(), tokens, vocab, stride);
  counter_generator random(static_cast<std::uint64_t>(17 * vocab + stride));
  for (index_t t = 0; t < tokens; ++t) {
    for (T& z : rows.row(t)) z = T(static_cast<compute_t<T>>(6 * random.uniform() - 3));
  }
  auto const fill = [&](index_t t, compute_t<T> value) {
    for (T& z : rows.row(t)) z = T(value);
  };
  auto const chosen = [&](index_t t) {
    return static_cast<index_t>(batch.token_ids[static_cast<std::size_t>(t)]);
  };
  auto const beside = [&](index_t t) { return (chosen(t) + 1) % vocab; };
  // One token can be drawn, and it was.
  fill(1, -infinity);
  rows(1, chosen(1)) = T(1.5f);
  // One can be drawn, but another was; if there is no other, nothing can be drawn, as in row 6.
  fill(2, -infinity);
  if (vocab > 1) rows(2, beside(2)) = T(-2.0f);
  rows(3, beside(3)) = T(infinity);
  rows(4, beside(4)) = T(std::numeric_limits<compute_t<T>>::quiet_NaN());
  rows(5, chosen(5)) = T(infinity);
  fill(6, -infinity);
  fill(masked, std::numeric_limits<compute_t<T>>::quiet_NaN());
  // Exponentials that would overflow, and vanish.
  fill(8, compute_t<T>(-3e4));
  rows(8, beside(8)) = T(3e4f);
  rows(8, chosen(8)) = T(3e4f);
  return values;
}

template <class T, class Number>
struct outcome {
  policy_result result{};
  std::vector<T> logits;
  std::vector<Number> log_probs, d_log_probs, entropies, d_entropies;

  outcome(std::vector<T> const& values, bool with_entropies)
      : logits(values),
        log_probs(tokens),
        d_log_probs(tokens),
        entropies(with_entropies ? tokens : 0),
        d_entropies(entropies) {}
  policy_outputs<Number> view() { return {log_probs, d_log_probs, entropies, d_entropies}; }
};

template <class T, class Backend, class Estimator>
auto run(Backend const& backend, Estimator const& estimator, owned_batch<compute_t<T>> const& batch,
         std::vector<T> const& logits, index_t vocab, index_t stride, bool with_entropies) {
  outcome<T, compute_t<T>> out(logits, with_entropies);
  auto view = batch.view();
  view.temperature = 0.8;
  out.result =
      policy_loss(backend, estimator, matrix_view<T>(out.logits.data(), tokens, vocab, stride),
                  view, out.view());
  return out;
}

template <class T, class Number>
void check_equal(outcome<T, Number> const& found, outcome<T, Number> const& expected) {
  double const rounding = sizeof(Number) == 8 ? 1e-12 : 1e-5;
  REQUIRE(first_difference(numbers_of(found.result), numbers_of(expected.result), rounding) == -1);
  REQUIRE(first_difference(found.log_probs, expected.log_probs, rounding) == -1);
  REQUIRE(first_difference(found.d_log_probs, expected.d_log_probs, rounding) == -1);
  REQUIRE(first_difference(found.entropies, expected.entropies, rounding) == -1);
  REQUIRE(first_difference(found.d_entropies, expected.d_entropies, rounding) == -1);
  REQUIRE(first_difference(found.logits, expected.logits, sizeof(T) == 2 ? 1e-2 : rounding) == -1);
}

}  // namespace

TEST_CASE_TEMPLATE("rows of every length and address, finite or not, whatever lanes keep", T, float,
                   double, bf16, f16) {
  using number = compute_t<T>;
  for (index_t const vocab : {1, 2, 3, 5, 7, 8, 9, 31, 67}) {
    index_t const stride = vocab + 3 + vocab % 2;  // odd: every address comes up
    CAPTURE(vocab);
    auto const batch = batch_of<number>(vocab);
    auto const logits = logits_of<T>(batch, vocab, stride);
    auto const compare = [&](auto const& estimator, bool entropies) {
      auto const expected =
          run<T>(eigen_backend<number>{}, estimator, batch, logits, vocab, stride, entropies);
      REQUIRE(expected.result.metrics.nonfinite_tokens == 5);
      for (auto const& [lanes, slots] :
           {std::pair<index_t, index_t>{1, 1}, {2, 0}, {2, 5}, {5, 1}}) {
        CAPTURE(lanes);
        auto const found = run<T>(keeping_backend<number>{{}, {lanes, slots}}, estimator, batch,
                                  logits, vocab, stride, entropies);
        check_equal(found, expected);
        auto const zero = [&](std::size_t t) {
          REQUIRE(found.d_log_probs[t] == 0);
          for (index_t v = 0; v < vocab; ++v) {
            index_t const at = static_cast<index_t>(t) * stride + v;
            REQUIRE(static_cast<number>(found.logits[static_cast<std::size_t>(at)]) == 0);
          }
        };
        for (std::size_t const t : not_finite) zero(t);
        zero(masked);
        for (std::size_t const t : {0u, 1u, 8u}) REQUIRE(found.d_log_probs[t] > 0);
      }
    };
    compare(score{}, false);
    compare(score{.entropy = {.coefficient = 0.05}}, true);
    compare(gspo{}, true);  // visits a row twice
  }
}

TEST_CASE("rows of float become rows of bf16 in their own memory, whatever lanes keep of them") {
  score const estimator{.entropy = {.coefficient = 0.05}};
  for (index_t vocab = 1; vocab <= 40; ++vocab) {
    CAPTURE(vocab);
    auto const batch = batch_of<float>(vocab);
    for (index_t const stride : {(vocab + 7) / 4 * 4, vocab + 2}) {  // aligned to chunks, or not
      auto const logits = logits_of<float>(batch, vocab, stride);
      auto const expected =
          run<float>(eigen_backend<float>{}, estimator, batch, logits, vocab, stride, true);
      auto const check = [&](outcome<float, float> const& found) {
        for (index_t t = 0; t < tokens; ++t) {
          std::size_t const first = static_cast<std::size_t>(t * stride);
          for (index_t v = 0; v < vocab; ++v) {
            bf16 value;
            std::memcpy(&value, reinterpret_cast<char const*>(&found.logits[first]) + 2 * v, 2);
            float const exact = expected.logits[first + static_cast<std::size_t>(v)];
            // Half a unit in the last place, and what rounding of floats can move across one.
            REQUIRE(std::abs(static_cast<float>(value) - exact) <= 0x1.01p-8 * std::abs(exact));
          }
          for (index_t v = vocab; v < stride; ++v) {
            REQUIRE(found.logits[first + static_cast<std::size_t>(v)] == 42);
          }
        }
      };
      auto view = batch.view();
      view.temperature = 0.8;
      auto const run_once = [&](auto const& rows) {
        outcome<float, float> found(logits, true);
        detail::count_active_tokens(view, vector_view<float>(found.d_log_probs));
        matrix_view<float> const matrix(found.logits.data(), tokens, vocab, stride);
        rows.run(tokens, policy_logits_body<true, float, score, token_of_row, bf16>{
                             matrix, view, found.view(), estimator});
        check(found);
      };
      auto const run_second = [&](auto const& rows) {
        auto found = expected;
        found.logits = logits;
        matrix_view<float> const matrix(found.logits.data(), tokens, vocab, stride);
        rows.run(tokens,
                 logits_gradient_body<float, token_of_row, bf16>{matrix, view, found.view()});
        check(found);
      };
      auto const run_both = [&](auto const& rows) {
        run_once(rows);
        run_second(rows);
      };
      run_both(host_rows<>{});
      for (auto const& [lanes, slots] :
           {std::pair<index_t, index_t>{1, 1}, {1, 2}, {2, 0}, {2, 1}, {3, 1}, {3, 2}}) {
        CAPTURE(lanes);
        CAPTURE(slots);
        run_both(testing::keeping_rows{lanes, slots});
      }
    }
  }
}
