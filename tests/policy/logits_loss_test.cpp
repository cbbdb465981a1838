// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#include "lamina/policy/logits_loss.hpp"

#include <doctest/doctest.h>

#include <cmath>
#include <limits>
#include <vector>

#include "lamina/policy/presets.hpp"
#include "lamina/policy/score_surrogate.hpp"
#include "tests/support/typed_backends.hpp"
#include "tests/support/random_batch.hpp"
#include "tests/support/reference_file.hpp"

using namespace lamina;
using testing::owned_batch;
using testing::random_batch;
using testing::tolerance;

namespace {

// -ffast-math makes the processor read subnormal numbers as 0, with them the smallest halves.
#if defined(__FAST_MATH__)
template <class T>
constexpr double flushed = std::is_same_v<T, f16> ? 0x1p-14 : 0.0;
#else
template <class T>
constexpr double flushed = 0;
#endif

template <class T>
std::vector<T> random_values(index_t count, std::uint64_t seed) {
  counter_generator random(seed);
  std::vector<T> values;
  for (index_t i = 0; i < count; ++i) {
    values.push_back(static_cast<T>(static_cast<compute_t<T>>(4 * random.uniform() - 2)));
  }
  return values;
}

// A batch whose old log-probs lie near the log-probs of the logits, so that ratios are moderate.
template <class Backend, class T>
owned_batch<compute_t<T>> batch_for(Backend const& backend, std::vector<T>& logits, index_t vocab,
                                    index_t sequences, std::uint64_t seed, double temperature) {
  auto batch = random_batch<compute_t<T>>(seed, sequences, vocab);
  logits = random_values<T>(batch.tokens() * vocab, seed + 99);
  std::vector<compute_t<T>> log_probs(batch.token_ids.size());
  token_log_probs(backend, matrix_view<T>(logits.data(), batch.tokens(), vocab), batch.token_ids,
                  {}, temperature, log_probs);
  for (std::size_t t = 0; t < log_probs.size(); ++t) {
    batch.reference_log_probs[t] += log_probs[t] - batch.log_probs[t];
    batch.old_log_probs[t] += log_probs[t] - batch.log_probs[t];
  }
  return batch;
}

template <class T>
struct outputs_of {
  explicit outputs_of(index_t tokens)
      : log_probs(static_cast<std::size_t>(tokens)),
        d_log_probs(log_probs),
        entropies(log_probs),
        d_entropies(log_probs) {}
  policy_outputs<T> view(bool with_entropy) {
    policy_outputs<T> outputs{log_probs, d_log_probs};
    if (with_entropy) {
      outputs.entropies = entropies;
      outputs.d_entropies = d_entropies;
    }
    return outputs;
  }
  std::vector<T> log_probs, d_log_probs, entropies, d_entropies;
};

}  // namespace

TEST_CASE_TEMPLATE("PyTorch vectors: loss, log-probs, entropies and d logits", Backend,
                   LAMINA_TEST_BACKENDS) {
  using T = typename Backend::scalar_type;
  auto const file = testing::read_reference("policy_vectors.json");
  for (auto const& c : file["cases"]) {
    if (c["aggregation"] != "sequence_mean_token_mean" && c["aggregation"] != "constant_length") {
      continue;  // the other parts are covered at the log-prob level
    }
    owned_batch<T> batch;
    for (index_t n : c["lengths"]) batch.offsets.push_back(batch.offsets.back() + n);
    batch.token_ids = c["token_ids"].get<std::vector<std::int32_t>>();
    batch.old_log_probs = c["old_log_probs"].get<std::vector<T>>();
    batch.reference_log_probs = c["reference_log_probs"].get<std::vector<T>>();
    batch.advantages = c["advantages"].get<std::vector<T>>();
    batch.mask = c["mask"].get<std::vector<std::uint8_t>>();
    batch.denominators = denominators_of(batch.view());
    auto logits = c["logits"].get<std::vector<T>>();
    index_t const vocab = c["vocab"];
    outputs_of<T> outputs(batch.tokens());
    auto view = batch.view();
    view.temperature = c["temperature"];
    ppo_clip const clip{.clip_low = c["clip_low"], .clip_high = c["clip_high"]};
    matrix_view<T> const matrix(logits.data(), batch.tokens(), vocab);
    policy_result result;
    if (c["aggregation"] == "constant_length") {
      result = policy_loss(Backend{}, dr_grpo{.surrogate = clip, .aggregation = {c["length"]}},
                           matrix, view, outputs.view(true));
    } else {
      grpo const estimator{.surrogate = clip, .kl = {.coefficient = c["beta"]}};
      result = policy_loss(Backend{}, estimator, matrix, view, outputs.view(true));
    }
    double const accuracy = sizeof(T) == 4 ? 1e-5 : 1e-11;
    CHECK(result.loss == doctest::Approx(c["loss"].get<double>()).epsilon(accuracy));
    for (std::size_t t = 0; t < batch.mask.size(); ++t) {
      if (!batch.mask[t]) continue;
      CHECK(outputs.log_probs[t] ==
            doctest::Approx(c["log_probs"][t].get<double>()).epsilon(accuracy));
      CHECK(outputs.entropies[t] ==
            doctest::Approx(c["entropies"][t].get<double>()).epsilon(accuracy));
    }
    for (std::size_t i = 0; i < logits.size(); ++i) {
      CHECK(std::abs(logits[i] - c["d_logits"][i].get<double>()) < accuracy);
    }
  }
}

TEST_CASE("d logits by central differences in double, with temperature") {
  eigen_backend<double> const backend;
  index_t const vocab = 7;
  double const temperature = 0.7;
  grpo const estimator{.kl = {.coefficient = 0.05}};
  for (std::uint64_t seed = 1; seed <= 6; ++seed) {
    std::vector<double> logits;
    auto const batch =
        batch_for<eigen_backend<double>, double>(backend, logits, vocab, 4, seed, temperature);
    if (batch.denominators.tokens == 0) continue;
    auto view = batch.view();
    view.temperature = temperature;
    outputs_of<double> outputs(batch.tokens());
    auto const loss_at = [&](std::vector<double> values) {
      return policy_loss(backend, estimator,
                         matrix_view<double>(values.data(), batch.tokens(), vocab), view,
                         outputs.view(false))
          .loss;
    };
    std::vector<double> gradient = logits;
    policy_loss(backend, estimator, matrix_view<double>(gradient.data(), batch.tokens(), vocab),
                view, outputs.view(false));
    for (std::size_t i = 0; i < logits.size(); ++i) {
      double const h = 1e-6, at = logits[i];
      logits[i] = at + h;
      double const above = loss_at(logits);
      logits[i] = at - h;
      double const below = loss_at(logits);
      logits[i] = at;
      CHECK(std::abs(gradient[i] - (above - below) / (2 * h)) < 2e-9);
    }
  }
}

TEST_CASE_TEMPLATE("the logits form equals the log-prob form on its log-probs, bit for bit", T,
                   float, double, bf16, f16) {
  using L = compute_t<T>;
  eigen_backend<float> const backend;
  for (std::uint64_t seed = 1; seed <= 5; ++seed) {
    std::vector<T> logits;
    auto const batch = batch_for<eigen_backend<float>, T>(backend, logits, 37, 6, seed, 1.0);
    grpo const estimator{.kl = {.coefficient = 0.02}};
    outputs_of<L> outputs(batch.tokens());
    auto const result =
        policy_loss(backend, estimator, matrix_view<T>(logits.data(), batch.tokens(), 37),
                    batch.view(), outputs.view(true));
    std::vector<L> gradient(batch.token_ids.size());
    auto const plain = policy_loss(estimator, outputs.log_probs, batch.view(), gradient);
    CHECK(result.loss == plain.loss);
    CHECK(outputs.d_log_probs == gradient);
    CHECK(result.metrics.clip_low_fraction == plain.metrics.clip_low_fraction);
    CHECK(result.metrics.ratio_max == plain.metrics.ratio_max);
    // A row of d logits sums to 0: probabilities sum to 1.
    for (index_t t = 0; t < batch.tokens(); ++t) {
      double sum = 0;
      for (index_t v = 0; v < 37; ++v) {
        sum += static_cast<double>(static_cast<L>(logits[static_cast<std::size_t>(t * 37 + v)]));
      }
      double const narrow = sizeof(T) == 2 ? 2e-2 : 1e-5;
      CHECK(std::abs(sum) <=
            narrow * (std::abs(gradient[static_cast<std::size_t>(t)]) + 1e-3) + 37 * flushed<T>);
    }
  }
}

namespace {

// Lanes that keep what they read of a row, and read again what does not fit.
template <class T>
struct keeping_backend : eigen_backend<T> {
  testing::keeping_rows rows;
  testing::keeping_rows executor() const { return rows; }
};

template <class T, class Estimator>
void check_threads_and_lanes(Estimator const& estimator) {
  index_t const vocab = 53;
  std::vector<T> logits;
  auto const batch = batch_for<eigen_backend<T>, T>({}, logits, vocab, 5, 12, 1.0);
  std::vector<T> serial = logits;
  outputs_of<T> outputs(batch.tokens());
  auto const view = [&](std::vector<T>& values) {
    return matrix_view<T>(values.data(), batch.tokens(), vocab);
  };
  auto const result =
      policy_loss(eigen_backend<T>{}, estimator, view(serial), batch.view(), outputs.view(true));
  for (index_t threads : {2, 7}) {
    std::vector<T> values = logits;
    eigen_backend<T, testing::spawning_for> const backend{testing::spawning_for{threads}};
    outputs_of<T> other(batch.tokens());
    auto const again =
        policy_loss(backend, estimator, view(values), batch.view(), other.view(true));
    CHECK(again.loss == result.loss);
    CHECK(values == serial);
  }
  auto const lanes_agree = [&](auto const& backend) {
    std::vector<T> values = logits;
    outputs_of<T> other(batch.tokens());
    auto const again =
        policy_loss(backend, estimator, view(values), batch.view(), other.view(true));
    CHECK(again.loss == doctest::Approx(result.loss).epsilon(10 * tolerance<T>));
    for (std::size_t i = 0; i < values.size(); ++i) {
      CHECK(std::abs(values[i] - serial[i]) <= 10 * tolerance<T>);
    }
  };
  lanes_agree(testing::threaded_backend<T, 7>{});
  lanes_agree(testing::threaded_backend<T, 33>{});
  lanes_agree(testing::threaded_backend<T, 64>{});
  for (index_t slots : {0, 1, 4}) {
    lanes_agree(keeping_backend<T>{{}, {3, slots}});
    lanes_agree(keeping_backend<T>{{}, {33, slots}});
  }
}

}  // namespace

TEST_CASE_TEMPLATE("threads and lanes: any number gives the same gradient", T, float, double) {
  check_threads_and_lanes<T>(grpo{});
  // Two visits a row, and the gradient of an entropy bonus.
  check_threads_and_lanes<T>(
      policy_gradient<group_relative<>, sequence_mean_ratio, ppo_clip, no_kl,
                      sequence_mean_token_mean, no_correction, no_filter, entropy_bonus<>>{
          .entropy = {.coefficient = 0.1}});
}

TEST_CASE_TEMPLATE("lanes that keep a row: narrow logits, rows at odd addresses, -infinity", T,
                   bf16, f16) {
  for (index_t const vocab : {index_t{53}, index_t{64}}) {
    std::vector<T> logits;
    auto const batch = batch_for<eigen_backend<float>, T>({}, logits, vocab, 4, 31, 0.8);
    for (std::size_t i = 5; i < logits.size(); i += 29) {
      if (batch.token_ids[i / static_cast<std::size_t>(vocab)] !=
          static_cast<std::int32_t>(i % static_cast<std::size_t>(vocab))) {
        logits[i] = T(-std::numeric_limits<float>::infinity());
      }
    }
    auto const run = [&](auto const& backend, std::vector<T>& values, outputs_of<float>& outputs) {
      auto view = batch.view();
      view.temperature = 0.8;
      return policy_loss(backend, grpo{.kl = {.coefficient = 0.02}},
                         matrix_view<T>(values.data(), batch.tokens(), vocab), view,
                         outputs.view(true));
    };
    std::vector<T> plain = logits, kept = logits;
    outputs_of<float> plain_outputs(batch.tokens()), kept_outputs(batch.tokens());
    auto const expected = run(eigen_backend<float>{}, plain, plain_outputs);
    auto const result = run(keeping_backend<float>{{}, {5, 2}}, kept, kept_outputs);
    CHECK(result.loss == doctest::Approx(expected.loss).epsilon(1e-5));
    for (std::size_t i = 0; i < plain.size(); ++i) {
      float const value = static_cast<float>(plain[i]);
      CHECK(std::abs(static_cast<float>(kept[i]) - value) <= 0.01f * std::abs(value) + 1e-7f);
    }
    for (std::size_t t = 0; t < plain_outputs.entropies.size(); ++t) {
      CHECK(kept_outputs.entropies[t] == doctest::Approx(plain_outputs.entropies[t]).epsilon(1e-5));
      CHECK(kept_outputs.log_probs[t] == doctest::Approx(plain_outputs.log_probs[t]).epsilon(1e-5));
    }
  }
}

TEST_CASE("worked case C12: derivatives of log-prob and entropy at temperature 0.7") {
  auto const c = testing::read_reference("worked_cases.json")["C12"];
  // One token with advantage -1 has the loss log p, one with a bonus of -1 the loss H.
  using score = policy_gradient<group_relative<>, on_policy_ratio, score_function, no_kl,
                                token_mean, no_correction, no_filter, entropy_bonus<>>;
  auto const check = [&c](double advantage, double bonus, char const* expected) {
    std::vector<double> logits = c["inputs"]["logits"];
    owned_batch<double> batch;
    batch.token_ids = {c["inputs"]["token"].get<std::int32_t>()};
    batch.mask = {1};
    batch.end_sequence(advantage);
    batch.denominators = denominators_of(batch.view());
    auto view = batch.view();
    view.temperature = c["inputs"]["temperature"];
    outputs_of<double> outputs(1);
    auto const result =
        policy_loss(eigen_backend<double>{}, score{.entropy = {.coefficient = bonus}},
                    matrix_view<double>(logits.data(), 1, 4), view, outputs.view(true));
    CHECK(result.policy_loss ==
          doctest::Approx(-advantage * c["expected"]["logp"].get<double>()).epsilon(1e-9));
    CHECK(result.entropy_loss ==
          doctest::Approx(-bonus * c["expected"]["entropy"].get<double>()).epsilon(1e-9));
    for (std::size_t j = 0; j < 4; ++j) {
      CHECK(std::abs(logits[j] - c["expected"][expected][j].get<double>()) < 1e-9);
    }
  };
  check(-1, 0, "dlogp_dlogits");
  check(0, -1, "dentropy_dlogits");
}

TEST_CASE("masked rows full of NaN become gradient 0; non-finite rows are counted") {
  eigen_backend<float> const backend;
  index_t const vocab = 9;
  std::vector<float> logits;
  auto batch = batch_for<eigen_backend<float>, float>(backend, logits, vocab, 6, 31, 1.0);
  REQUIRE(batch.tokens() > 4);
  batch.mask.assign(batch.mask.size(), 1);
  batch.mask[1] = 0;
  batch.denominators = denominators_of(batch.view());
  float const nan = std::numeric_limits<float>::quiet_NaN();
  for (std::size_t v = 0; v < 9; ++v) logits[9 + v] = nan;
  logits[3 * 9 + 4] = nan;
  outputs_of<float> outputs(batch.tokens());
  auto const result =
      policy_loss(backend, grpo{}, matrix_view<float>(logits.data(), batch.tokens(), vocab),
                  batch.view(), outputs.view(true));
  CHECK(result.metrics.nonfinite_tokens == 1);
  CHECK(result.metrics.active_tokens == batch.tokens() - 1);
  CHECK(std::isfinite(result.loss));
  CHECK(std::isfinite(result.metrics.entropy_mean));
  for (float d : logits) CHECK(std::isfinite(d));
  for (std::size_t v = 0; v < 9; ++v) {
    CHECK(logits[9 + v] == 0);
    CHECK(logits[27 + v] == 0);
  }
}

TEST_CASE("bad input throws before a logit changes") {
  eigen_backend<float> const backend;
  std::vector<float> logits;
  auto const good = batch_for<eigen_backend<float>, float>(backend, logits, 9, 4, 5, 1.0);
  auto const before = logits;
  outputs_of<float> outputs(good.tokens());
  auto const call = [&](owned_batch<float> const& batch, index_t rows, double temperature) {
    auto view = batch.view();
    view.temperature = temperature;
    policy_loss(backend, grpo{}, matrix_view<float>(logits.data(), rows, 9), view,
                outputs.view(false));
  };
  auto bad = good;
  std::size_t active = 0;
  while (!bad.mask[active]) ++active;
  bad.token_ids[active] = 9;
  CHECK_THROWS_WITH_AS(call(bad, good.tokens(), 1), doctest::Contains("the vocabulary is 0..8"),
                       config_error);
  CHECK_THROWS_WITH_AS(call(good, good.tokens() - 1, 1), doctest::Contains("logits has"),
                       shape_error);
  CHECK_THROWS_WITH_AS(call(good, good.tokens(), -1), doctest::Contains("temperature is -1"),
                       config_error);
  CHECK(logits == before);
}
