// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// Code of docs/saving.md.
#include <doctest/doctest.h>

#include <algorithm>
#include <vector>

#include "lamina/layers/selector.hpp"
#include "lamina/model/prefix_cache.hpp"
#include "lamina/model/reference.hpp"
#include "tests/support/minimal_model.hpp"
#include "tests/support/temporary_directory.hpp"

using lamina::index_t;
using lamina::testing::minimal_prefix_model;

namespace {
template <class T>
std::vector<T> copy_of(lamina::matrix_view<T> m) {
  return {m.data, m.data + m.rows * m.cols};
}
}  // namespace

TEST_CASE("rows in other forms") {
  minimal_prefix_model<float> model(6, 8);
  auto const plan = lamina::plan_backward(6, lamina::single_layer(4));
  lamina::testing::temporary_directory const scratch;
  std::string const directory = scratch.path();
  std::vector<std::int32_t> const tokens{1, 2, 3};

  // [storage]
  lamina::prefix_cache exact(model, plan);                                    // the model's scalar
  lamina::prefix_cache half(model, plan, lamina::in_memory<lamina::bf16>{});  // half of float
  lamina::prefix_cache large(model, plan, lamina::in_file<lamina::bf16>(directory));
  // [/storage]

  auto const expected = copy_of(model.forward(tokens, plan));
  CHECK(copy_of(exact.fill(model, tokens).forward(model, tokens, plan)) == expected);
  auto const rounded = copy_of(half.fill(model, tokens).forward(model, tokens, plan));
  CHECK(copy_of(large.fill(model, tokens).forward(model, tokens, plan)) == rounded);
  for (std::size_t i = 0; i < expected.size(); ++i) {
    CHECK(rounded[i] == doctest::Approx(expected[i]).epsilon(0.02));
  }
}

TEST_CASE("filled in parts, used in mini-batches") {
  minimal_prefix_model<float> model(6, 8);
  auto const plan = lamina::plan_backward(6, lamina::single_layer(4));
  std::vector<std::vector<std::int32_t>> const parts{{1, 2, 3}, {4, 5}, {6, 7, 0, 1}};
  std::vector<std::int32_t> const mini_batch{4, 5, 1, 2};  // rows 3, 4 and then 0, 1

  // [parts]
  lamina::prefix_cache cache(model, plan);
  cache.clear();
  for (auto const& part : parts) cache.append(model, part);  // working memory for one part only

  std::vector<lamina::row_range> const rows{{3, 2}, {0, 2}};  // first, count
  auto const prefix = cache.rows().select(rows);
  auto const logits = prefix.forward(model, mini_batch, plan);
  // [/parts]

  auto const found = copy_of(logits);
  CHECK(found == copy_of(model.forward(mini_batch, plan)));
}

TEST_CASE("a selection that moves") {
  minimal_prefix_model<float> model(6, 8);
  auto const original = model.weights();
  std::vector<lamina::backward_plan> const plans{lamina::plan_backward(6, lamina::single_layer(4)),
                                                 lamina::plan_backward(6, lamina::single_layer(2))};
  auto const train = [&](lamina::backward_plan const& plan) {
    auto const parameter = model.parameters(plan.layers().lowest())[0];
    for (float& weight : parameter.weight) weight += 0.5f;
  };

  // [schedule]
  lamina::frozen_copy reference(model, plans.front());
  for (auto const& plan : plans) {
    reference.extend(model, plan);  // before anything new is trained
    train(plan);
  }
  // [/schedule]

  CHECK(model.weights() != original);
  reference.with(model, [&] { CHECK(model.weights() == original); });
}
