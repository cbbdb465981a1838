// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// The engine without exceptions, here in a build with them: its threads, products and gradients,
// and lamina's step on them. The program itself fails unless its training works:
// examples.no_exceptions.
#include <doctest/doctest.h>

#include <cmath>
#include <cstring>
#include <thread>
#include <vector>

#include "examples/no_exceptions/adopt.hpp"
#include "tests/support/gemm_cases.hpp"

namespace {

constexpr std::size_t arena_size = std::size_t{8} << 20;
constexpr engine::shape shape{
    .vocab = engine::symbol_count, .tokens = engine::prompt_tokens, .layers = 3, .width = 8};

std::vector<float> values_of(engine::matrix const& m) {
  std::vector<float> values;
  for (long r = 0; r < m.rows; ++r) values.insert(values.end(), m.row(r), m.row(r) + m.cols);
  return values;
}

engine::matrix random_matrix(engine::runtime& host, long rows, long cols, unsigned long* random) {
  engine::matrix const m = host.make_matrix(rows, cols);
  for (long i = 0; i < m.size(); ++i) m.data[i] = engine::uniform(random) - 0.5f;
  return m;
}

// All weights of a model that was trained for a few steps.
std::vector<float> trained_weights(int thread_count) {
  engine::runtime host{engine::arena(arena_size), engine::thread_pool(thread_count)};
  unsigned long random = 3;
  engine::model m = engine::make_model(&host, shape, 5);
  engine::pretrain(&m, 5, 32, 0.1f, &random);
  engine::layer_grpo grpo(&m, lamina::single_layer(1), 64, 8, 0.01);
  engine::episodes e = engine::make_episodes(&host, 64);
  for (int i = 0; i < 5; ++i) {
    engine::ask(&e, 8, &random);
    engine::answer(&m, &e, &random);
    grpo.step(e);
  }
  std::vector<float> weights;
  engine::for_each_tensor(m, [&](engine::tensor const& t) {
    std::vector<float> const values = values_of(t.weight);
    weights.insert(weights.end(), values.begin(), values.end());
  });
  return weights;
}

}  // namespace

TEST_CASE("the pool visits every index once, whatever the grain") {
  engine::thread_pool threads(3);
  for (long count : {0L, 1L, 7L, 1000L}) {
    for (long grain : {1L, 10L, 2000L}) {
      std::vector<int> visits(static_cast<std::size_t>(count));
      threads.run(count, grain, [&](long begin, long end) {
        for (long i = begin; i < end; ++i) ++visits[static_cast<std::size_t>(i)];
      });
      CHECK(visits == std::vector<int>(visits.size(), 1));
    }
  }
}

TEST_CASE("the backend's product is a GEMM") {
  engine::runtime host{engine::arena(arena_size), engine::thread_pool(2)};
  lamina::testing::check_gemm<float>([&host](lamina::gemm_arguments<float> const& g) {
    bool const ta = g.transpose_a == lamina::transpose::yes;
    bool const tb = g.transpose_b == lamina::transpose::yes;
    engine::arena_backend{&host}.gemm(
        g.transpose_a, g.transpose_b, g.alpha,
        {g.a, ta ? g.depth : g.rows, ta ? g.rows : g.depth, g.a_stride},
        {g.b, tb ? g.cols : g.depth, tb ? g.depth : g.cols, g.b_stride}, g.beta,
        {g.c, g.rows, g.cols, g.c_stride});
  });
}

TEST_CASE("the engine's gradients are central differences, tensor by tensor") {
  engine::runtime host{engine::arena(arena_size), engine::thread_pool(2)};
  unsigned long random = 3;
  engine::model m = engine::make_model(&host, shape, 5);
  long const sequences = 6;
  engine::reserve(&m, sequences, 0);
  engine::for_each_tensor(m, [&](engine::tensor& t) { t.gradient = host.make_like(t.weight); });
  engine::episodes e = engine::make_episodes(&host, sequences);
  engine::ask(&e, 1, &random);
  engine::matrix const direction = random_matrix(host, sequences, shape.width, &random);
  auto const loss = [&] {
    engine::forward(&m, e.prompts);
    double sum = 0;
    for (long i = 0; i < direction.size(); ++i) {
      sum += static_cast<double>(direction.data[i]) * static_cast<double>(m.normed.data[i]);
    }
    return sum;
  };
  loss();
  engine::norm_backward(&m, direction);
  for (long l = shape.layers - 1; l >= 0; --l) engine::layer_backward(&m, l, true);

  engine::for_each_tensor(m, [&](engine::tensor& t) {
    if (std::strcmp(t.name, "embedding") == 0 || std::strcmp(t.name, "positions") == 0 ||
        std::strcmp(t.name, "head") == 0) {
      return;  // not of these passes
    }
    engine::matrix const step = random_matrix(host, t.weight.rows, t.weight.cols, &random);
    std::vector<float> const saved = values_of(t.weight);
    double expected = 0, norm = 0;
    for (long i = 0; i < step.size(); ++i) {
      double const gradient = static_cast<double>(t.gradient.data[i]);
      expected += gradient * static_cast<double>(step.data[i]);
      norm += gradient * gradient;
    }
    auto const at = [&](float distance) {
      for (long i = 0; i < step.size(); ++i) {
        t.weight.data[i] = saved[static_cast<std::size_t>(i)] + distance * step.data[i];
      }
      double const value = loss();
      std::copy(saved.begin(), saved.end(), t.weight.data);
      return value;
    };
    float const h = 2e-3f;
    double const difference = (at(h) - at(-h)) / (2 * static_cast<double>(h));
    INFO(t.name, ": ", difference, " against ", expected);
    CHECK(norm > 0);
    CHECK(std::abs(difference - expected) < 2e-3 * std::sqrt(norm) + 1e-3);
  });
}

TEST_CASE("training has the same bits for any number of threads") {
  std::vector<float> const alone = trained_weights(1);
  for (int thread_count : {2, 5}) {
    std::vector<float> const shared = trained_weights(thread_count);
    REQUIRE(shared.size() == alone.size());
    CHECK(std::memcmp(shared.data(), alone.data(), alone.size() * sizeof(float)) == 0);
  }
}

TEST_CASE("frozen layers below the trained one share their activations") {
  engine::runtime host{engine::arena(arena_size), engine::thread_pool(1)};
  engine::model m = engine::make_model(&host, shape, 5);
  auto const bytes_of = [&](long layer) {
    std::size_t const before = host.memory.used();
    engine::layer_grpo const grpo(&m, lamina::single_layer(layer), 64, 8, 0.01);
    return host.memory.used() - before;
  };
  std::size_t const all_kept = bytes_of(0), two_share = bytes_of(2);
  CHECK(m.kept[0].inner.data == m.kept[1].inner.data);
  CHECK(m.kept[2].inner.data != m.kept[1].inner.data);
  std::size_t const elements_of_a_layer = 64 * 4 * (8 * 8 + 2 * 32 + 4);
  CHECK(all_kept - two_share == elements_of_a_layer * sizeof(float));
}
