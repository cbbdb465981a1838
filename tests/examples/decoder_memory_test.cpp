// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// A step that is no larger than one before it allocates nothing.
#include <doctest/doctest.h>

#include <atomic>
#include <cstdlib>
#include <new>

#include "examples/decoder/sampler.hpp"
#include "tests/examples/decoder_cases.hpp"
#include "tests/support/backends.hpp"

namespace {
std::atomic<int> allocation_count{0};

void* counted(std::size_t size) {
  ++allocation_count;
  if (void* const memory = std::malloc(size)) return memory;
  throw std::bad_alloc();
}
}  // namespace

void* operator new(std::size_t size) { return counted(size); }
void* operator new[](std::size_t size) { return counted(size); }
void operator delete(void* memory) noexcept { std::free(memory); }
void operator delete[](void* memory) noexcept { std::free(memory); }
void operator delete(void* memory, std::size_t) noexcept { std::free(memory); }
void operator delete[](void* memory, std::size_t) noexcept { std::free(memory); }

using namespace decoder;
using namespace decoder::testing;

namespace {
// Its matrices come from operator new, so every growth is seen.
using backend_type = lamina::testing::minimal_backend<float>;

template <class F>
int allocations_of(F const& f) {
  int const before = allocation_count;
  f();
  return allocation_count - before;
}
}  // namespace

TEST_CASE("decoder: after the first step, forward and backward allocate nothing") {
  config const shape = small_configs()[4].shape;
  transformer<backend_type> model({}, shape);
  randomize(model, 1);
  auto const large = random_batch(shape, {9, 5, 9}, 1), small = random_batch(shape, {4, 9}, 2);
  auto const coefficients =
      random_coefficients<float>(static_cast<index_t>(large.logit_rows.size()) * shape.vocab, 5);
  auto const full = lamina::plan_full(3);
  auto const one = lamina::plan_backward(3, lamina::layer_set{}.insert(2));
  auto const step = [&](token_batch const& batch, lamina::backward_plan const& plan) {
    auto const logits = model.forward(batch, plan);
    model.backward({coefficients.data(), logits.rows, logits.cols}, plan);
  };
  CHECK(allocations_of([&] { step(large, full); }) > 0);
  step(large, one);  // the frozen layers' memory
  CHECK(allocations_of([&] {
          step(large, full);
          step(small, one);
          step(large, one);
          model.forward(small);
          step(small, full);
        }) == 0);
}

TEST_CASE("decoder: after the first round, a prefix cache allocates nothing") {
  config const shape = small_configs()[4].shape;
  transformer<backend_type> model({}, shape);
  randomize(model, 1);
  auto const batch = random_batch(shape, {9, 5, 9}, 1), small = random_batch(shape, {4, 9}, 2);
  std::vector<index_t> const sequences{2, 0};
  auto const part = select(batch, sequences);
  auto const rows = token_rows(batch, sequences);
  auto const coefficients =
      random_coefficients<float>(static_cast<index_t>(batch.logit_rows.size()) * shape.vocab, 5);
  auto const plan = lamina::plan_backward(3, lamina::layer_set{}.insert(2));
  auto const test = [&](auto storage) {
    lamina::prefix_cache cache(model, plan, std::move(storage));
    auto const round = [&](token_batch const& tokens) {
      auto const prefix = cache.fill(model, tokens);
      auto const logits = prefix.forward(model, tokens, plan);
      model.backward({coefficients.data(), logits.rows, logits.cols}, plan);
    };
    auto const rounds = [&] {
      round(small);
      round(batch);
      cache.rows().select(rows).forward(model, part, plan);
      cache.rows().select(lamina::row_range{0, 9}).stream(model);
    };
    rounds();
    CHECK(allocations_of(rounds) == 0);
  };
  test(lamina::in_memory<float>{});
  test(lamina::in_memory<lamina::bf16>{});
}

TEST_CASE("decoder::sampler: after the first call only the result is allocated") {
  config const shape = small_configs()[2].shape;
  transformer<backend_type> model({}, shape);
  randomize(model, 1);
  std::vector<std::vector<std::int32_t>> const prompts{{1, 2, 3}, {4}};
  sampler<backend_type> reused(model.backend());
  auto const run = [&](index_t max_length) {
    reused.sample(model, prompts, 3, fixed_length{}, {.seed = 1}, max_length);
  };
  run(40);
  int const shorter = allocations_of([&] { run(20); }), longer = allocations_of([&] { run(40); });
  CHECK(shorter > 0);
  CHECK(longer - shorter <= 4);  // vectors of the result that double once more
}
