// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#include "lamina/policy/token_logprob.hpp"

#include <doctest/doctest.h>

#include <cmath>
#include <limits>
#include <vector>

#include "lamina/core/random.hpp"
#include "tests/support/typed_backends.hpp"
#include "tests/support/reference.hpp"
#include "tests/support/reference_file.hpp"

using namespace lamina;
using testing::tolerance;

namespace {

// Random logits of T, and the same values in double.
template <class T>
struct random_logits {
  random_logits(index_t rows, index_t vocab, double spread, std::uint64_t seed)
      : values(static_cast<std::size_t>(rows * vocab)), view(values.data(), rows, vocab) {
    counter_generator random(seed);
    for (T& z : values) {
      z = static_cast<T>(static_cast<compute_t<T>>(spread * (2 * random.uniform() - 1)));
    }
  }
  std::vector<double> row(index_t r) const {
    std::vector<double> result;
    for (T z : view.row(r)) result.push_back(static_cast<double>(static_cast<compute_t<T>>(z)));
    return result;
  }
  std::vector<T> values;
  matrix_view<T> view;
};

template <class Backend, class T>
void check_rows(Backend const& backend, index_t vocab, double spread, double temperature) {
  index_t const rows = 5;
  random_logits<T> const logits(rows, vocab, spread, static_cast<std::uint64_t>(vocab) + 3);
  std::vector<std::int32_t> ids;
  for (index_t r = 0; r < rows; ++r) ids.push_back(static_cast<std::int32_t>((r * 7) % vocab));
  std::vector<compute_t<T>> log_probs(5), entropies(5);
  token_log_probs(backend, logits.view, ids, {}, temperature, log_probs, entropies);
  for (index_t r = 0; r < rows; ++r) {
    auto const s = static_cast<std::size_t>(r);
    auto const z = logits.row(r);
    double const expected =
        testing::reference_log_prob(z, static_cast<std::size_t>(ids[s]), temperature);
    CHECK(std::abs(log_probs[s] - expected) <= tolerance<compute_t<T>> * (1 + std::abs(expected)));
    double const entropy = testing::reference_entropy(z, temperature);
    CHECK(std::abs(entropies[s] - entropy) <= 10 * tolerance<compute_t<T>> * (1 + entropy));
  }
  std::vector<compute_t<T>> alone(5);
  token_log_probs(backend, logits.view, ids, {}, temperature, alone);
  for (std::size_t r = 0; r < 5; ++r) {
    CHECK(std::abs(alone[r] - log_probs[r]) <= tolerance<compute_t<T>> * 20);
  }
}

}  // namespace

TEST_CASE_TEMPLATE("log-probs and entropies by the definition, around every block size", Backend,
                   LAMINA_TEST_BACKENDS) {
  using T = typename Backend::scalar_type;
  for (index_t vocab : {1, 2, 12, 15, 16, 17, 100, 4095, 4096, 4097, 9000}) {
    check_rows<Backend, T>(Backend{}, vocab, 4, 1.0);
    check_rows<Backend, T>(Backend{}, vocab, 30, 0.6);
  }
}

TEST_CASE_TEMPLATE("narrow logits are computed in float from their exact values", T, bf16, f16) {
  for (index_t vocab : {7, 4097}) check_rows<eigen_backend<float>, T>({}, vocab, 8, 0.9);
}

TEST_CASE_TEMPLATE("threaded lanes agree with one lane, also 33 lanes on 12 columns", T, float,
                   double) {
  for (index_t vocab : {12, 300}) {
    random_logits<T> const logits(3, vocab, 5, 17);
    std::vector<std::int32_t> const ids{0, 5, 11};
    std::vector<T> one(3), one_entropy(3), many(3), many_entropy(3);
    token_log_probs(eigen_backend<T>{}, logits.view, ids, {}, 0.8, one, one_entropy);
    auto const compare = [&](auto const& backend) {
      token_log_probs(backend, logits.view, ids, {}, 0.8, many, many_entropy);
      for (std::size_t r = 0; r < 3; ++r) {
        CHECK(many[r] == doctest::Approx(one[r]).epsilon(tolerance<T>));
        CHECK(many_entropy[r] == doctest::Approx(one_entropy[r]).epsilon(10 * tolerance<T>));
      }
    };
    compare(testing::threaded_backend<T, 7>{});
    compare(testing::threaded_backend<T, 33>{});
  }
}

TEST_CASE("worked case C12: log-prob and entropy at temperature 0.7") {
  auto const file = testing::read_reference("worked_cases.json");
  auto const& c = file["C12"];
  std::vector<double> logits = c["inputs"]["logits"];
  std::vector<std::int32_t> const id{c["inputs"]["token"].get<std::int32_t>()};
  std::vector<double> log_prob(1), entropy(1);
  token_log_probs(eigen_backend<double>{}, matrix_view<double>(logits.data(), 1, 4), id, {},
                  c["inputs"]["temperature"].get<double>(), log_prob, entropy);
  CHECK(log_prob[0] == doctest::Approx(c["expected"]["logp"].get<double>()).epsilon(1e-9));
  CHECK(entropy[0] == doctest::Approx(c["expected"]["entropy"].get<double>()).epsilon(1e-9));
}

TEST_CASE_TEMPLATE("impossible tokens have probability 0, huge logits do not overflow", T, float,
                   double) {
  T const infinity = std::numeric_limits<T>::infinity();
  std::vector<T> logits{T(1),    -infinity, T(2),    -infinity,  // two tokens can be drawn
                        T(1e30), T(-1e30),  T(0),    T(0),       // one certain token
                        T(-1e4), T(-1e4),   T(-1e4), T(-1e4)};
  std::vector<std::int32_t> const ids{2, 0, 3};
  std::vector<T> log_probs(3), entropies(3);
  token_log_probs(eigen_backend<T>{}, matrix_view<T>(logits.data(), 3, 4), ids, {}, 1.0, log_probs,
                  entropies);
  double const p = 1 / (1 + std::exp(-1.0));
  CHECK(log_probs[0] == doctest::Approx(std::log(p)).epsilon(1e-6));
  CHECK(entropies[0] ==
        doctest::Approx(-p * std::log(p) - (1 - p) * std::log(1 - p)).epsilon(1e-6));
  CHECK(log_probs[1] == 0);
  CHECK(entropies[1] == 0);
  CHECK(log_probs[2] == doctest::Approx(-std::log(4.0)).epsilon(1e-6));
  CHECK(entropies[2] == doctest::Approx(std::log(4.0)).epsilon(1e-6));
}

TEST_CASE("rows with mask 0 are not read") {
  float const nan = std::numeric_limits<float>::quiet_NaN();
  std::vector<float> logits{0, 0, nan, nan};
  std::vector<std::int32_t> const ids{0, 99};
  std::vector<std::uint8_t> const mask{1, 0};
  std::vector<float> log_probs(2, 7.0f);
  token_log_probs(eigen_backend<float>{}, matrix_view<float>(logits.data(), 2, 2), ids, mask, 1.0,
                  log_probs);
  CHECK(log_probs[0] == doctest::Approx(-std::log(2.0)));
  CHECK(log_probs[1] == 0);
}

TEST_CASE("a row stride larger than the vocabulary is respected") {
  std::vector<float> logits{1, 2, 777, 3, 5, 777};
  std::vector<std::int32_t> const ids{0, 1};
  std::vector<float> log_probs(2);
  token_log_probs(eigen_backend<float>{}, matrix_view<float>(logits.data(), 2, 2, 3), ids, {}, 1.0,
                  log_probs);
  CHECK(log_probs[0] == doctest::Approx(-std::log1p(std::exp(1.0))));
  CHECK(log_probs[1] == doctest::Approx(-std::log1p(std::exp(-2.0))));
}

TEST_CASE("bad input is named with its value") {
  std::vector<float> logits(6);
  matrix_view<float> const view(logits.data(), 2, 3);
  std::vector<float> out(2);
  eigen_backend<float> const backend;
  auto const call = [&](std::vector<std::int32_t> const& ids, double temperature,
                        std::vector<float>& log_probs) {
    token_log_probs(backend, view, ids, {}, temperature, log_probs);
  };
  CHECK_THROWS_WITH_AS(call({0, 3}, 1, out),
                       "token_log_probs: token_ids[1] is 3, the vocabulary is 0..2", config_error);
  CHECK_THROWS_AS(call({-1, 0}, 1, out), config_error);
  CHECK_THROWS_WITH_AS(call({0, 1}, 0, out),
                       "token_log_probs: temperature is 0, expected a finite value > 0",
                       config_error);
  CHECK_THROWS_AS(call({0, 1}, NAN, out), config_error);
  CHECK_THROWS_AS(call({0}, 1, out), shape_error);
  std::vector<float> small(1);
  CHECK_THROWS_AS(call({0, 1}, 1, small), shape_error);
}
