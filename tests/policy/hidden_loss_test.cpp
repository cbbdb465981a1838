// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#include "lamina/policy/hidden_loss.hpp"

#include <doctest/doctest.h>

#include <atomic>
#include <cmath>
#include <cstdlib>
#include <limits>
#include <new>
#include <string>
#include <vector>

#include "lamina/policy/contrastive.hpp"
#include "tests/support/typed_backends.hpp"
#include "tests/support/random_batch.hpp"

namespace {
std::atomic<std::size_t> allocated_bytes{0};

void* counted(std::size_t size) {
  allocated_bytes += size;
  if (void* const memory = std::malloc(size)) return memory;
  throw std::bad_alloc();
}
}  // namespace

// Out of line, so that compilers see matching pairs of new and delete.
[[gnu::noinline]] void* operator new(std::size_t size) { return counted(size); }
[[gnu::noinline]] void* operator new[](std::size_t size) { return counted(size); }
[[gnu::noinline]] void operator delete(void* memory) noexcept { std::free(memory); }
[[gnu::noinline]] void operator delete[](void* memory) noexcept { std::free(memory); }
[[gnu::noinline]] void operator delete(void* memory, std::size_t) noexcept { std::free(memory); }
[[gnu::noinline]] void operator delete[](void* memory, std::size_t) noexcept { std::free(memory); }

using namespace lamina;
using testing::minimal_backend;
using testing::owned_batch;
using testing::tolerance;

namespace {

template <class Entropy = no_entropy_bonus, class Filter = no_filter>
using token_estimator = policy_gradient<group_relative<>, token_ratio, ppo_clip, kl_penalty<>,
                                        sequence_mean_token_mean, no_correction, Filter, Entropy>;
using plain_estimator = token_estimator<>;
template <class Entropy = no_entropy_bonus>
using sequence_estimator_with =
    policy_gradient<group_relative<>, sequence_mean_ratio, ppo_clip, kl_penalty<>,
                    sequence_mean_token_mean, no_correction, no_filter, Entropy>;
using sequence_estimator = sequence_estimator_with<>;
using sequence_bonus = sequence_estimator_with<entropy_bonus<>>;

template <class T>
constexpr T not_a_number = std::numeric_limits<T>::quiet_NaN();

// Everything a call needs, with buffers that hold NaN until they are written.
template <storage_scalar T, storage_scalar HeadT = T>
struct problem {
  using scalar = compute_t<T>;

  problem(std::uint64_t seed, index_t sequences, index_t width_, index_t vocab_)
      : width(width_),
        vocab(vocab_),
        batch(testing::random_batch<scalar>(seed, sequences, vocab_)),
        hidden(size(tokens() * width_)),
        weights(size(vocab_ * width_)),
        d_hidden(hidden.size(), T(not_a_number<scalar>)),
        d_weights(weights.size(), scalar(0)),
        log_probs(size(tokens()), not_a_number<scalar>),
        d_log_probs(log_probs),
        entropies(log_probs),
        d_entropies(log_probs) {
    counter_generator random(seed + 99);
    for (T& x : hidden) x = T(static_cast<scalar>(2 * random.uniform() - 1));
    for (HeadT& x : weights) {
      x = HeadT(static_cast<compute_t<HeadT>>((2 * random.uniform() - 1)));
    }
    // Old and reference log-probs near those of the policy, so that ratios are moderate.
    auto const z = logits();
    for (index_t t = 0; t < tokens(); ++t) {
      double total = 0;
      for (index_t v = 0; v < vocab; ++v) total += std::exp(double{z[size(t * vocab + v)]});
      std::size_t const at = size(t);
      auto const log_prob =
          static_cast<scalar>(double{z[size(t * vocab + batch.token_ids[at])]} - std::log(total));
      batch.reference_log_probs[at] += log_prob - batch.log_probs[at];
      batch.old_log_probs[at] += log_prob - batch.log_probs[at];
      // Never to be used.
      if (batch.mask[at] == 0) {
        for (index_t d = 0; d < width; ++d) hidden[size(t * width + d)] = T(not_a_number<scalar>);
      }
    }
  }

  std::vector<scalar> logits() const {
    std::vector<scalar> result(size(tokens() * vocab));
    std::vector<scalar> const h(hidden.begin(), hidden.end()), w(weights.begin(), weights.end());
    minimal_backend<scalar>{}.gemm(transpose::no, transpose::yes, 1,
                                   matrix_view<scalar const>(h.data(), tokens(), width),
                                   matrix_view<scalar const>(w.data(), vocab, width), 0,
                                   matrix_view<scalar>(result.data(), tokens(), vocab));
    return result;
  }

  index_t tokens() const { return batch.tokens(); }
  policy_batch<scalar> view() const {
    auto result = batch.view();
    result.temperature = temperature;
    result.group_offsets = groups;
    result.denominators.groups = static_cast<index_t>(groups.size()) - 1;
    return result;
  }
  hidden_states<T> states() {
    return {.hidden = {hidden.data(), tokens(), width},
            .d_hidden = {d_hidden.data(), tokens(), width}};
  }
  frozen_head<HeadT> frozen() const { return {.weights = {weights.data(), vocab, width}}; }
  trained_head<HeadT> trained() {
    return {.weights = {weights.data(), vocab, width},
            .d_weights = {d_weights.data(), vocab, width}};
  }
  policy_outputs<scalar> outputs() { return {log_probs, d_log_probs, entropies, d_entropies}; }
  // Two groups, for the objective that contrasts their rollouts.
  void group() {
    index_t const count = batch.view().sequence_count();
    groups = {0, count / 2, count};
  }
  // A scratch for chunks of that many tokens.
  std::vector<scalar> scratch(index_t rows) {
    detail::hidden_layout<T, frozen_head<HeadT>> const layout(states(), frozen());
    return std::vector<scalar>(size(layout.size(rows)), not_a_number<scalar>);
  }
  static std::size_t size(index_t n) { return static_cast<std::size_t>(n); }

  index_t width, vocab;
  owned_batch<scalar> batch;
  std::vector<index_t> groups{0};
  double temperature = 0.8;
  std::vector<T> hidden;
  std::vector<HeadT> weights;
  std::vector<T> d_hidden;
  std::vector<scalar> d_weights;
  std::vector<scalar> log_probs, d_log_probs, entropies, d_entropies;
};

// What the logits form gives, followed by the two products.
template <class Backend, class Estimator, class T>
policy_result through_logits(Backend const& backend, Estimator const& estimator, problem<T>& p) {
  auto logits = p.logits();
  matrix_view<T> const z(logits.data(), p.tokens(), p.vocab);
  auto const result = policy_loss(backend, estimator, z, p.view(), p.outputs());
  auto hidden = p.hidden;
  for (T& x : hidden) x = is_nan(x) ? T(0) : x;
  backend.gemm(transpose::no, transpose::no, 1, z, p.frozen().weights, 0, p.states().d_hidden);
  backend.gemm(transpose::yes, transpose::no, 1, z,
               matrix_view<T const>(hidden.data(), p.tokens(), p.width), 1, p.trained().d_weights);
  return result;
}

template <class T>
double worst_difference(std::vector<T> const& a, std::vector<T> const& b) {
  REQUIRE(a.size() == b.size());
  double worst = 0;
  for (std::size_t i = 0; i < a.size(); ++i) {
    double const difference =
        std::abs(static_cast<double>(compute_t<T>(a[i])) - static_cast<double>(compute_t<T>(b[i])));
    worst = difference <= worst ? worst : difference;  // a NaN becomes the worst
  }
  return worst;
}

// Counts the products of a backend.
template <real T>
struct counting_backend : minimal_backend<T> {
  int* count;
  void gemm(transpose ta, transpose tb, T alpha, matrix_view<T const> a, matrix_view<T const> b,
            T beta, matrix_view<T> c) const {
    ++*count;
    minimal_backend<T>::gemm(ta, tb, alpha, a, b, beta, c);
  }
};

template <class Backend, class Estimator>
void check_equals_logits_form(Estimator const& estimator) {
  using T = typename Backend::scalar_type;
  // Rows of its product do not depend on each other, so that nothing may differ.
  bool const exact = std::same_as<Backend, minimal_backend<T>>;
  double const allowed = exact ? 0.0 : 10 * tolerance<T>;
  int gradients = 0;
  for (std::uint64_t seed = 1; seed <= 4; ++seed) {
    problem<T> expected(seed, 6, 5, 11);
    expected.group();
    auto const loss = through_logits(Backend{}, estimator, expected);
    for (T x : expected.d_hidden) gradients += std::abs(x) > T(1e-4) ? 1 : 0;
    for (index_t rows : {1, 2, 3, 7, 100}) {
      problem<T> p(seed, 6, 5, 11);
      p.group();
      auto scratch = p.scratch(rows);
      auto const result = policy_loss(Backend{}, estimator, p.states(), p.trained(), p.view(),
                                      p.outputs(), scratch);
      CHECK(std::abs(result.loss - loss.loss) <= allowed);
      CHECK(result.metrics.active_tokens == loss.metrics.active_tokens);
      CHECK(std::abs(result.metrics.entropy_mean - loss.metrics.entropy_mean) <= allowed);
      CHECK(std::abs(result.metrics.ratio_max - loss.metrics.ratio_max) <= allowed);
      CHECK(worst_difference(p.log_probs, expected.log_probs) <= allowed);
      CHECK(worst_difference(p.d_log_probs, expected.d_log_probs) <= allowed);
      CHECK(worst_difference(p.entropies, expected.entropies) <= allowed);
      CHECK(worst_difference(p.d_entropies, expected.d_entropies) <= allowed);
      CHECK(worst_difference(p.d_hidden, expected.d_hidden) <= allowed);
      CHECK(worst_difference(p.d_weights, expected.d_weights) <= 10 * tolerance<T>);

      auto const gradient = p.d_hidden;
      policy_loss(Backend{}, estimator, p.states(), p.frozen(), p.view(), p.outputs(), scratch);
      CHECK(worst_difference(p.d_hidden, gradient) <=
            (detail::token_local<Estimator> ? 0.0 : tolerance<T>));
    }
  }
  CHECK(gradients >= 20);
}

}  // namespace

TEST_CASE_TEMPLATE("the hidden form equals the logits form followed by products", Backend,
                   LAMINA_TEST_BACKENDS) {
  SUBCASE("token ratios") {
    check_equals_logits_form<Backend>(plain_estimator{.kl = {.coefficient = 0.05}});
  }
  SUBCASE("token ratios, entropy bonus") {
    check_equals_logits_form<Backend>(
        token_estimator<entropy_bonus<>>{.entropy = {.coefficient = 0.03}});
  }
  SUBCASE("token ratios, entropy filter") {
    check_equals_logits_form<Backend>(
        token_estimator<no_entropy_bonus, top_entropy_filter>{.filter = {.threshold = 2.2}});
  }
  SUBCASE("a ratio of the whole sequence") {
    check_equals_logits_form<Backend>(sequence_estimator{.kl = {.coefficient = 0.05}});
  }
  SUBCASE("a ratio of the whole sequence, entropy bonus") {
    check_equals_logits_form<Backend>(sequence_bonus{.entropy = {.coefficient = 0.03}});
  }
  SUBCASE("rollouts against the others of their group") {
    check_equals_logits_form<Backend>(conspo{.margin = 0.1});
  }
}

TEST_CASE("d hidden and d head by central differences in double, with temperature") {
  auto const check = [](auto const& estimator) {
    problem<double> p(3, 5, 4, 6);
    p.group();
    auto scratch = p.scratch(3);
    policy_outputs<double> const outputs = p.outputs();
    auto const call = [&](problem<double>& at) {
      return policy_loss(eigen_backend<double>{}, estimator, at.states(), at.trained(), at.view(),
                         outputs, scratch)
          .loss;
    };
    call(p);
    double const h = 1e-6;
    auto moved = p;
    auto const slope = [&](double& x) {
      double const at = x;
      x = at + h;
      double const above = call(moved);
      x = at - h;
      double const below = call(moved);
      x = at;
      return (above - below) / (2 * h);
    };
    int nonzero = 0;
    for (std::size_t i = 0; i < p.hidden.size(); ++i) {
      if (is_nan(p.hidden[i])) continue;
      CHECK(std::abs(p.d_hidden[i] - slope(moved.hidden[i])) < 2e-9);
      nonzero += std::abs(p.d_hidden[i]) > 1e-4 ? 1 : 0;
    }
    for (std::size_t i = 0; i < p.weights.size(); ++i) {
      CHECK(std::abs(p.d_weights[i] - slope(moved.weights[i])) < 2e-9);
    }
    CHECK(nonzero > 10);
  };
  check(token_estimator<entropy_bonus<>>{.kl = {.coefficient = 0.05},
                                         .entropy = {.coefficient = 0.1}});
  check(sequence_estimator{.surrogate = {.clip_low = 0.9, .clip_high = 9}});
}

TEST_CASE_TEMPLATE("narrow hidden states and heads are computed as the floats they hold", T, bf16,
                   f16) {
  // More rows than the head converts at a time.
  index_t const width = 3, vocab = 1100;
  eigen_backend<float> const backend;
  problem<T> narrow(5, 5, width, vocab);
  problem<float> wide(5, 5, width, vocab);
  wide.hidden.assign(narrow.hidden.begin(), narrow.hidden.end());
  wide.weights.assign(narrow.weights.begin(), narrow.weights.end());
  wide.batch = narrow.batch;
  plain_estimator const estimator{.kl = {.coefficient = 0.05}};
  auto narrow_scratch = narrow.scratch(4), wide_scratch = wide.scratch(4);
  auto const result = policy_loss(backend, estimator, narrow.states(), narrow.trained(),
                                  narrow.view(), narrow.outputs(), narrow_scratch);
  auto const expected = policy_loss(backend, estimator, wide.states(), wide.trained(), wide.view(),
                                    wide.outputs(), wide_scratch);
  CHECK(result.loss == doctest::Approx(expected.loss).epsilon(1e-5));
  CHECK(worst_difference(narrow.d_weights, wide.d_weights) <= 1e-6);
  for (std::size_t i = 0; i < wide.d_hidden.size(); ++i) {
    CHECK(std::abs(float(narrow.d_hidden[i]) - wide.d_hidden[i]) <=
          1e-6f + std::abs(wide.d_hidden[i]) / 128);
  }

  // Float states over a narrow head.
  auto const gradient = wide.d_hidden;
  policy_loss(backend, estimator, wide.states(), narrow.frozen(), wide.view(), wide.outputs(),
              narrow_scratch);
  CHECK(worst_difference(wide.d_hidden, gradient) <= 1e-6);
}

TEST_CASE_TEMPLATE("rows that are masked or not finite get gradient 0 and spoil no other", Backend,
                   LAMINA_TEST_BACKENDS) {
  using T = typename Backend::scalar_type;
  auto const check = [](auto const& estimator, index_t rows, bool trained) {
    problem<T> p(31, 6, 5, 9);
    REQUIRE(p.tokens() > 8);
    p.batch.mask.assign(p.batch.mask.size(), 1);
    for (T& x : p.hidden) x = is_nan(x) ? T(0.5) : x;
    p.batch.mask[1] = 0;
    p.batch.denominators = denominators_of(p.batch.view());
    for (std::size_t d = 0; d < 5; ++d) p.hidden[5 + d] = not_a_number<T>;
    p.hidden[3 * 5 + 2] = not_a_number<T>;
    p.hidden[7 * 5] = std::numeric_limits<T>::infinity();
    auto scratch = p.scratch(rows);
    auto const result = trained ? policy_loss(Backend{}, estimator, p.states(), p.trained(),
                                              p.view(), p.outputs(), scratch)
                                : policy_loss(Backend{}, estimator, p.states(), p.frozen(),
                                              p.view(), p.outputs(), scratch);
    CHECK(result.metrics.nonfinite_tokens == 2);
    CHECK(is_finite(result.loss));
    bool finite = true;
    for (T x : p.d_hidden) finite &= is_finite(x);
    for (T x : p.d_weights) finite &= is_finite(x);
    CHECK(finite);
    for (index_t t : {1, 3, 7}) {
      for (index_t d = 0; d < 5; ++d) CHECK(p.states().d_hidden(t, d) == 0);
    }
  };
  for (index_t rows : {2, 100}) {
    for (bool trained : {false, true}) {
      check(plain_estimator{}, rows, trained);
      check(sequence_estimator{}, rows, trained);
      check(sequence_bonus{.entropy = {.coefficient = 0.1}}, rows, trained);
    }
  }
}

TEST_CASE("d hidden may be written over the hidden states") {
  auto const check = [](auto const& estimator) {
    for (index_t rows : {2, 5, 100}) {
      problem<float> apart(8, 6, 5, 11), together(8, 6, 5, 11);
      auto scratch = apart.scratch(rows);
      eigen_backend<float> const backend;
      policy_loss(backend, estimator, apart.states(), apart.trained(), apart.view(),
                  apart.outputs(), scratch);
      matrix_view<float> const both(together.hidden.data(), together.tokens(), 5);
      policy_loss(backend, estimator, hidden_states<float>{both, both}, together.trained(),
                  together.view(), together.outputs(), scratch);
      CHECK(together.hidden == apart.d_hidden);
      CHECK(together.d_weights == apart.d_weights);

      problem<float> frozen(8, 6, 5, 11);
      policy_loss(backend, estimator, apart.states(), apart.frozen(), apart.view(), apart.outputs(),
                  scratch);
      matrix_view<float> const again(frozen.hidden.data(), frozen.tokens(), 5);
      policy_loss(backend, estimator, hidden_states<float>{again, again}, frozen.frozen(),
                  frozen.view(), frozen.outputs(), scratch);
      CHECK(frozen.hidden == apart.d_hidden);
    }
  };
  check(plain_estimator{});
  check(sequence_estimator{});
}

TEST_CASE("rows of the matrices may lie further apart than they are wide") {
  problem<double> close(4, 5, 4, 7), apart(4, 5, 4, 7);
  auto const spread = [](auto const& matrix, double gap) {
    std::vector<double> wide;
    for (std::size_t i = 0; i < matrix.size(); ++i) {
      wide.push_back(matrix[i]);
      if (i % 4 == 3) wide.insert(wide.end(), 3, gap);
    }
    return wide;
  };
  auto hidden = spread(apart.hidden, not_a_number<double>),
       weights = spread(apart.weights, not_a_number<double>);
  auto d_hidden = spread(apart.d_hidden, 5.0), d_weights = spread(apart.d_weights, 5.0);
  auto scratch = close.scratch(3);
  eigen_backend<double> const backend;
  policy_loss(backend, plain_estimator{}, close.states(), close.trained(), close.view(),
              close.outputs(), scratch);
  policy_loss(backend, plain_estimator{},
              hidden_states<double>{{hidden.data(), apart.tokens(), 4, 7},
                                    {d_hidden.data(), apart.tokens(), 4, 7}},
              trained_head<double>{{weights.data(), 7, 4, 7}, {d_weights.data(), 7, 4, 7}},
              apart.view(), apart.outputs(), scratch);
  CHECK(d_hidden == spread(close.d_hidden, 5.0));
  CHECK(d_weights == spread(close.d_weights, 5.0));
}

TEST_CASE_TEMPLATE("threads and lanes: any number gives the same gradient", T, float, double) {
  problem<T> serial(12, 6, 5, 53);
  auto scratch = serial.scratch(4);
  policy_loss(eigen_backend<T>{}, plain_estimator{}, serial.states(), serial.trained(),
              serial.view(), serial.outputs(), scratch);
  for (index_t threads : {2, 7}) {
    problem<T> p(12, 6, 5, 53);
    eigen_backend<T, testing::spawning_for> const backend{testing::spawning_for{threads}};
    policy_loss(backend, plain_estimator{}, p.states(), p.trained(), p.view(), p.outputs(),
                scratch);
    CHECK(p.log_probs == serial.log_probs);
    CHECK(p.d_hidden == serial.d_hidden);
    CHECK(p.d_weights == serial.d_weights);
  }
  problem<T> p(12, 6, 5, 53);
  policy_loss(testing::threaded_backend<T, 7>{}, plain_estimator{}, p.states(), p.trained(),
              p.view(), p.outputs(), scratch);
  CHECK(worst_difference(p.d_hidden, serial.d_hidden) <= 10 * tolerance<T>);
  CHECK(worst_difference(p.d_weights, serial.d_weights) <= 10 * tolerance<T>);
}

TEST_CASE("d weights are added to what is there: micro-batches add up to the batch") {
  problem<double> whole(6, 4, 5, 11), parts(6, 4, 5, 11);
  auto scratch = whole.scratch(3);
  eigen_backend<double> const backend;
  auto const result = policy_loss(backend, plain_estimator{}, whole.states(), whole.trained(),
                                  whole.view(), whole.outputs(), scratch);
  double loss = 0;
  for (index_t i = 0; i < 4; ++i) {
    owned_batch<double> one;
    one.push_sequence(parts.batch, i);
    one.denominators = parts.batch.denominators;
    auto batch = one.view();
    batch.temperature = parts.temperature;
    index_t const first = parts.batch.offsets[static_cast<std::size_t>(i)], count = one.tokens();
    auto const outputs = parts.outputs();
    loss += policy_loss(backend, plain_estimator{},
                        hidden_states<double>{parts.states().hidden.row_block(first, count),
                                              parts.states().d_hidden.row_block(first, count)},
                        parts.trained(), batch,
                        policy_outputs<double>{outputs.log_probs.subview(first, count),
                                               outputs.d_log_probs.subview(first, count)},
                        scratch)
                .loss;
  }
  CHECK(loss == doctest::Approx(result.loss).epsilon(1e-12));
  CHECK(worst_difference(parts.d_hidden, whole.d_hidden) <= 1e-12);
  CHECK(worst_difference(parts.d_weights, whole.d_weights) <= 1e-12);
}

TEST_CASE("products are only made for tokens that need them") {
  int count = 0;
  counting_backend<float> const backend{{}, &count};
  auto const products = [&](auto const& estimator, auto const& prepare, index_t rows, auto head) {
    problem<float> p(2, 6, 5, 9);
    p.batch.mask.assign(p.batch.mask.size(), 1);
    p.batch.advantages.assign(p.batch.advantages.size(), 1.0f);
    p.batch.denominators = denominators_of(p.batch.view());
    for (float& x : p.hidden) x = is_nan(x) ? 0.5f : x;
    prepare(p);
    auto scratch = p.scratch(rows > 0 ? rows : p.tokens());
    count = 0;
    policy_loss(backend, estimator, p.states(), head(p), p.view(), p.outputs(), scratch);
    bool finite = true;
    for (float x : p.d_hidden) finite &= is_finite(x);
    CHECK(finite);
    return count;
  };
  auto const as_is = [](problem<float>&) {};
  auto const nothing_active = [](problem<float>& p) {
    p.batch.mask.assign(p.batch.mask.size(), 0);
  };
  auto const no_advantage = [](problem<float>& p) {
    p.batch.advantages.assign(p.batch.advantages.size(), 0.0f);
  };
  auto const one_active = [](problem<float>& p) {
    p.batch.mask.assign(p.batch.mask.size(), 0);
    p.batch.mask[p.batch.mask.size() / 2] = 1;
  };
  auto const frozen = [](problem<float>& p) { return p.frozen(); };
  auto const trained = [](problem<float>& p) { return p.trained(); };
  // Clips nothing, so that every token has a gradient.
  plain_estimator const open{.surrogate = {.clip_low = 1, .clip_high = 1e3}};
  sequence_estimator const sequence{.surrogate = {.clip_low = 1, .clip_high = 1e3}};
  int const tokens = static_cast<int>(problem<float>(2, 6, 5, 9).tokens());
  REQUIRE(tokens > 6);

  CHECK(products(open, as_is, 0, frozen) == 2);
  CHECK(products(open, as_is, 0, trained) == 3);
  CHECK(products(open, as_is, 1, frozen) == 2 * tokens);
  CHECK(products(open, nothing_active, 3, trained) == 0);
  CHECK(products(sequence, nothing_active, 3, trained) == 0);
  CHECK(products(sequence, nothing_active, 3, frozen) == 0);
  CHECK(products(open, one_active, 1, trained) == 3);
  CHECK(products(open, no_advantage, 0, trained) == 1);
  CHECK(products(sequence, as_is, 0, frozen) == 2);
  CHECK(products(sequence, as_is, 1, frozen) == 2 * tokens);
  // The logits of one chunk are computed once, those of others twice.
  CHECK(products(sequence, as_is, 0, trained) == 3);
  CHECK(products(sequence, as_is, 1, trained) == 4 * tokens - 1);
  CHECK(products(sequence, no_advantage, 1, trained) == tokens);
  sequence_bonus const bonus{.surrogate = open.surrogate, .entropy = {.coefficient = 0.1}};
  CHECK(products(bonus, as_is, 1, frozen) == 3 * tokens - 1);
}

TEST_CASE("the scratch is all the memory a call takes") {
  auto const check = [](auto const& estimator) {
    // A head whose logits for all tokens would take 20 MB.
    problem<float> p(2, 6, 8, 300'000);
    REQUIRE(p.tokens() > 8);
    std::size_t const scratch_bytes = std::size_t{4} * p.scratch(2).size();
    auto const states = p.states();
    auto const head = p.trained();
    auto const batch = p.view();
    auto const outputs = p.outputs();
    std::size_t const before = allocated_bytes;
    auto scratch = p.scratch(2);
    std::size_t const with_scratch = allocated_bytes;
    policy_loss(minimal_backend<float>{}, estimator, states, head, batch, outputs, scratch);
    policy_loss(minimal_backend<float>{}, estimator, states, p.frozen(), batch, outputs, scratch);
    CHECK(allocated_bytes == with_scratch);
    CHECK(allocated_bytes - before <= scratch_bytes + (std::size_t{5} << 20));
    CHECK(scratch_bytes * 3 < static_cast<std::size_t>(p.tokens() * p.vocab * 4));
  };
  check(plain_estimator{});
  check(sequence_estimator{});
}

TEST_CASE("an empty batch has loss 0 and needs no scratch") {
  problem<float> p(1, 0, 5, 9);
  auto const result = policy_loss(minimal_backend<float>{}, plain_estimator{}, p.states(),
                                  p.trained(), p.view(), p.outputs(), vector_view<float>{});
  CHECK(result.loss == 0);
  CHECK(worst_difference(p.d_weights, std::vector<float>(45)) == 0);
}

TEST_CASE("bad input throws before anything is written") {
  problem<float> p(5, 4, 3, 9);
  index_t const tokens = p.tokens();
  REQUIRE(tokens > 2);
  auto scratch = p.scratch(2);
  struct arguments {
    hidden_states<float> states;
    trained_head<float> head;
    policy_batch<float> batch;
    policy_outputs<float> outputs;
    vector_view<float> scratch;
  };
  auto const message_of = [&](auto const& change) -> std::string {
    arguments a{p.states(), p.trained(), p.view(), p.outputs(), scratch};
    change(a);
    try {
      policy_loss(eigen_backend<float>{}, plain_estimator{}, a.states, a.head, a.batch, a.outputs,
                  a.scratch);
    } catch (shape_error const& e) {
      return std::string("shape: ") + e.what();
    } catch (config_error const& e) {
      return std::string("config: ") + e.what();
    }
    return "nothing thrown";
  };
  auto const refuses = [&](auto const& change, std::string const& expected) {
    CHECK(message_of(change) == expected);
  };
  std::string const n = std::to_string(tokens);
  refuses([](arguments& a) { a.states.hidden.rows = 1; },
          "shape: policy_loss: hidden has 1 rows, the batch has " + n + " tokens");
  refuses([](arguments& a) { a.states.d_hidden.rows = 1; },
          "shape: policy_loss: d_hidden is 1 x 3, expected " + n + " x 3");
  refuses([](arguments& a) { a.states.d_hidden.cols = 2; },
          "shape: policy_loss: d_hidden is " + n + " x 2, expected " + n + " x 3");
  refuses(
      [](arguments& a) { a.states.d_hidden.stride = 2; },
      "shape: policy_loss: d_hidden has row stride 2 and 3 columns; expected stride >= columns");
  refuses([](arguments& a) { a.states.hidden.stride = 1; },
          "shape: policy_loss: hidden has row stride 1 and 3 columns; expected stride >= columns");
  refuses([](arguments& a) { a.head.weights.cols = 4; },
          "shape: policy_loss: head.weights has 4 columns, hidden has 3; expected one width");
  refuses([](arguments& a) { a.head.weights.stride = 0; },
          "shape: policy_loss: head.weights has row stride 0 and 3 columns; expected stride >= "
          "columns");
  refuses([](arguments& a) { a.head.d_weights.rows = 8; },
          "shape: policy_loss: head.d_weights is 8 x 3, expected 9 x 3");
  refuses([](arguments& a) { a.batch.temperature = -1; },
          "config: policy_loss: temperature is -1, expected a finite value > 0");
  refuses([](arguments& a) { --a.batch.token_ids.size; },
          "shape: policy_loss: token_ids has " + std::to_string(tokens - 1) +
              " entries, hidden has " + n + " rows; expected one token a row");
  refuses([](arguments& a) { --a.outputs.log_probs.size; },
          "shape: policy_loss: outputs.log_probs has " + std::to_string(tokens - 1) +
              " entries, the batch has " + n + " tokens");
  refuses([](arguments& a) { a.scratch.size = 13; },
          "shape: policy_loss: scratch has 13 elements, expected at least 14 for one token at a "
          "time; hidden_scratch_size gives " +
              std::to_string(14 * tokens));
  CHECK(message_of([](arguments& a) {
          a.head.weights.rows = a.head.d_weights.rows = 1;
        }).find(", the vocabulary is 0..0") != std::string::npos);
  CHECK(message_of([](arguments& a) {
          a.batch.old_log_probs = {};
        }).find("shape: policy_loss: batch.old_log_probs has 0 entries") == 0);
  for (auto const* written : {&p.d_hidden, &p.log_probs, &p.d_log_probs, &p.entropies}) {
    for (float x : *written) CHECK(is_nan(x));
  }
  CHECK(worst_difference(p.d_weights, std::vector<float>(27)) == 0);
  CHECK(message_of([](arguments&) {}) == "nothing thrown");
}
