// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// Sampling on a device: the tokens of the host, by steps that the host does not look into.
#include <doctest/doctest.h>

#include "examples/decoder/device/sampler.hpp"
#include "tests/examples/decoder_device_cases.hpp"

using namespace decoder;
using namespace decoder::testing;

namespace {

std::vector<std::vector<std::int32_t>> const prompts{{1, 2, 3}, {4}, {5, 6, 7, 8, 9, 1}};

// Ends rows with a token, as the device does.
struct until {
  std::int32_t end;
  bool advance(index_t, std::int32_t token, std::vector<std::int32_t>&) const {
    return token != end;
  }
};

template <class Pair>
void check_same(Pair& models, sampling_options const& options, std::int32_t end) {
  auto const expected = sample(models.host, prompts, 3, until{end}, options, 12);
  device_sampler sampler(models.backend);
  auto const got = sample_on_device(sampler, models.device, prompts, 3, options, 12, end, 4);
  CHECK(got.tokens == expected.tokens);
  CHECK(got.offsets == expected.offsets);
  CHECK(got.prompt_lengths == expected.prompt_lengths);
  CHECK(got.sampled == expected.sampled);
  CHECK(distance(got.log_probs, expected.log_probs) < 1e-5);
  CHECK(distance(got.log_kept, expected.log_kept) < 1e-5);
}

// A row of logits for one draw by each cut.
template <class Device>
std::vector<std::int32_t> drawn(std::vector<double> const& logits, index_t vocab,
                                sampling_options const& options) {
  Device const backend;
  index_t const rows = static_cast<index_t>(logits.size()) / vocab;
  uploaded in(backend, logits);
  std::vector<std::uint8_t> const ones(static_cast<std::size_t>(rows), 1);
  auto const make = [&](auto zero) {
    return lamina::device_vector<Device, decltype(zero)>(backend, rows);
  };
  auto tokens = make(std::int32_t{}), pending = make(std::int32_t{});
  auto sampled = make(std::uint8_t{}), active = make(std::uint8_t{});
  auto log_probs = make(0.0f), log_kept = make(0.0f);
  auto lengths = make(index_t{}), positions = make(index_t{});
  active.assign(backend, ones);
  auto const column = [&](auto& array) { return matrix_view(array.view().data, rows, index_t{1}); };
  backend.executor().run(
      rows,
      draw_and_append<double>{options,
                              in.matrix(vocab),
                              1,
                              -1,
                              {column(tokens), column(sampled), column(log_probs), column(log_kept),
                               lengths.view(), active.view(), pending.view(), positions.view()}});
  return tokens.to_host(backend);
}

}  // namespace

TEST_CASE("device sampler: tokens are those of the host's sampler") {
  sampling_options const base{.temperature = 0.8, .seed = 7, .step = 3, .first_row = 2};
  for (named_config const& tested : small_configs()) {
    CAPTURE(tested.name);
    model_pair<float> models(tested.shape);
    check_same(models, base, -1);
    check_same(models, base, 4);
  }
  model_pair<double> models(small_configs()[4].shape);
  for (truncation const& allowed :
       {truncation{.top_k = 3}, truncation{.top_p = 0.7}, truncation{.min_p = 0.2},
        truncation{.top_k = 6, .top_p = 0.8, .min_p = 0.05}}) {
    sampling_options options = base;
    options.allowed = allowed;
    check_same(models, options, -1);
  }
  sampling_options greedy = base;
  greedy.greedy = true;
  check_same(models, greedy, -1);
}

TEST_CASE("device sampler: steps need no host, and a sampler can be used again") {
  model_pair<float, lamina::bf16> models(small_configs()[2].shape);
  device_sampler sampler(models.backend);
  sampling_options const options{.seed = 5};
  sampler.start(models.device, prompts, 2, options, 9);
  for (int step = 0; step < 7; ++step) sampler.step(models.device);
  CHECK(models.backend.stream().pending() > 7);  // nothing has waited
  CHECK(sampler.active_count() == 0);
  auto const first = sampler.read();
  CHECK(first.tokens == sample(models.host, prompts, 2, fixed_length{}, options, 9).tokens);
  sampler.start(models.device, prompts, 2, options, 9);
  sampler.step(models.device);
  CHECK(sampler.active_count() == 6);
  auto const second = sampler.read();
  CHECK(second.offsets[1] == 5);  // three of the prompt and two drawn
  CHECK_THROWS_AS(sampler.start(models.device, prompts, 0, options, 9), lamina::config_error);
}

TEST_CASE("device sampler: rounded attention draws from the logits of the forward pass") {
  using device = with_narrow_products<simulated_device<float>>;
  model_pair<float, lamina::bf16, device> models(small_configs()[3].shape);
  device_sampler sampler(models.backend);
  auto const drawn = sample_on_device(sampler, models.device, prompts, 2, {.seed = 5}, 12);
  token_batch batch{drawn.tokens, drawn.offsets, {}};
  std::vector<std::size_t> targets;  // the tokens that were drawn
  for (std::size_t t = 0; t < drawn.tokens.size(); ++t) {
    if (drawn.sampled[t] == 0) continue;
    batch.logit_rows.push_back(static_cast<index_t>(t) - 1);
    targets.push_back(t);
  }
  auto const placed = models.place(batch);
  auto const logits = fetch(models.backend, models.device.forward(placed));
  std::size_t const vocab = logits.size() / targets.size();
  REQUIRE(targets.size() > 20);
  for (std::size_t i = 0; i < targets.size(); ++i) {
    double total = 0;
    for (std::size_t v = 0; v < vocab; ++v) total += std::exp(double(logits[i * vocab + v]));
    std::size_t const token = static_cast<std::size_t>(drawn.tokens[targets[i]]);
    double const expected = double(logits[i * vocab + token]) - std::log(total);
    CHECK(drawn.log_probs[targets[i]] == doctest::Approx(expected).epsilon(1e-5));
  }
}

TEST_CASE("device sampler: any number of lanes draws the same tokens under every cut") {
  index_t const vocab = 150;
  auto logits = random_coefficients<double>(6 * vocab, 9);
  for (double& x : logits) x *= 6;
  for (truncation const& allowed :
       {truncation{}, truncation{.top_k = 9}, truncation{.top_p = 0.6}, truncation{.min_p = 0.3}}) {
    for (bool const greedy : {false, true}) {
      sampling_options const options{
          .temperature = 1.3, .greedy = greedy, .allowed = allowed, .seed = 3};
      auto const one = drawn<simulated_device<double>>(logits, vocab, options);
      CHECK(drawn<simulated_device<double, 7>>(logits, vocab, options) == one);
      CHECK(drawn<simulated_device<double, 33, 2>>(logits, vocab, options) == one);
      // The host's draw of the same rows.
      std::vector<index_t> const rows{0, 1, 2, 3, 4, 5}, positions(6, 0);
      std::vector<std::int32_t> tokens(6);
      std::vector<float> log_probs(6), log_kept(6);
      lamina::host_rows<>{}.run(6, draw_tokens<double>{options, as_matrix(logits, vocab), 1, rows,
                                                       positions, tokens, log_probs, log_kept});
      CHECK(tokens == one);
    }
  }
}
