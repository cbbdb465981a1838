// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#include "lamina/model/prefix_cache.hpp"

#include <doctest/doctest.h>

#include <vector>

#include "lamina/layers/selector.hpp"
#include "tests/support/minimal_model.hpp"
#include "tests/support/temporary_directory.hpp"

using namespace lamina;
using testing::minimal_prefix_model;
using testing::temporary_directory;

namespace {

using tokens_type = std::vector<std::int32_t>;
tokens_type const tokens{1, 4, 0, 3, 3, 2, 5};

template <class T>
std::vector<T> copy_of(matrix_view<T> m) {
  return {m.data, m.data + m.rows * m.cols};
}
template <class T>
std::vector<T> copy_of(matrix_view<T const> m) {
  return {m.data, m.data + m.rows * m.cols};
}

// Counts how its weights change, as far as it is told.
struct counting_model : minimal_prefix_model<float> {
  using minimal_prefix_model<float>::minimal_prefix_model;
  std::uint64_t weight_version(index_t layer) const {
    return versions[static_cast<std::size_t>(layer + 1)];
  }
  std::uint64_t versions[4] = {};
};

}  // namespace

TEST_CASE_TEMPLATE("a forward pass from the cache has the bits of one from the tokens", T, float,
                   double) {
  minimal_prefix_model<T> model(4, 6);
  for (index_t layer = 0; layer < 4; ++layer) {
    auto const plan = plan_backward(4, single_layer(layer));
    prefix_cache cache(model, plan);
    auto const prefix = cache.fill(model, tokens);
    CHECK(prefix.layer() == layer);
    CHECK(prefix.row_count() == 7);
    auto const expected = copy_of(model.forward(tokens, plan));
    CHECK(copy_of(prefix.forward(model, tokens, plan)) == expected);
    CHECK(copy_of(prefix.forward(model, tokens, plan)) == expected);
  }
}

TEST_CASE("the layers below run once, however often the prefix is used") {
  minimal_prefix_model<float> model(8, 6);
  auto const plan = plan_backward(8, single_layer(6));
  prefix_cache cache(model, plan);
  auto const prefix = cache.fill(model, tokens);
  CHECK(model.layer_runs == 6);
  for (int use = 0; use < 3; ++use) prefix.forward(model, tokens, plan);
  CHECK(model.layer_runs == 6 + 3 * 2);
}

TEST_CASE("a cache of what leaves the last layer serves a plan that trains no layer") {
  minimal_prefix_model<float> model(3, 6);
  auto const plan = plan_backward(3, {}, {.head = true});
  prefix_cache cache(model, plan);
  auto const prefix = cache.fill(model, tokens);
  CHECK(prefix.layer() == 3);
  CHECK(copy_of(prefix.forward(model, tokens, plan)) == copy_of(model.forward(tokens, plan)));
}

TEST_CASE("mini-batches: rows, and stretches of rows in any order, without a fill of their own") {
  minimal_prefix_model<float> model(4, 6);
  auto const plan = plan_backward(4, single_layer(2));
  prefix_cache cache(model, plan);
  auto const prefix = cache.fill(model, tokens);
  auto const logits = [&](auto const& part, tokens_type const& part_tokens) {
    return copy_of(part.forward(model, part_tokens, plan));
  };
  auto const expected = [&](tokens_type const& part) { return copy_of(model.forward(part, plan)); };

  auto const middle = prefix.select(row_range{2, 3});
  CHECK(middle.row_count() == 3);
  CHECK(logits(middle, {0, 3, 3}) == expected({0, 3, 3}));
  // Neighbouring rows are where the cache has them.
  CHECK(middle.stream(model).data == prefix.stream(model).data + 2 * 6);

  std::vector<row_range> const ranges{{5, 2}, {0, 1}};
  auto const gathered = prefix.select(ranges);
  CHECK(gathered.row_count() == 3);
  CHECK(logits(gathered, {2, 5, 1}) == expected({2, 5, 1}));
  std::vector<row_range> const inside{{1, 1}, {0, 1}};
  CHECK(logits(middle.select(inside), {3, 0}) == expected({3, 0}));
  CHECK(prefix.select(vector_view<row_range const>()).row_count() == 0);
  CHECK(logits(prefix, tokens) == expected(tokens));

  CHECK_THROWS_WITH_AS(prefix.select(row_range{5, 3}),
                       "cached_prefix::select: rows 5..7 are wanted, there are 7", shape_error);
  CHECK_THROWS_AS(prefix.select(row_range{-1, 3}), shape_error);
  CHECK_THROWS_WITH_AS(gathered.select(row_range{0, 1}),
                       "cached_prefix::select: these rows are gathered from 2 ranges; select from "
                       "the whole prefix",
                       shape_error);
}

TEST_CASE("a cache filled in parts holds what one fill does") {
  minimal_prefix_model<float> model(4, 6);
  auto const plan = plan_backward(4, single_layer(2));
  prefix_cache cache(model, plan), whole(model, plan);
  auto const first = cache.fill(model, {1, 4, 0});
  auto const second = cache.append(model, {3, 3, 2, 5});
  CHECK(copy_of(cache.rows().stream(model)) == copy_of(whole.fill(model, tokens).stream(model)));
  CHECK(first.row_count() == 3);
  CHECK(copy_of(first.forward(model, {1, 4, 0}, plan)) == copy_of(model.forward({1, 4, 0}, plan)));
  CHECK(copy_of(second.forward(model, {3, 3, 2, 5}, plan)) ==
        copy_of(model.forward({3, 3, 2, 5}, plan)));
}

TEST_CASE("rows stored as bf16 are the rounded rows, and take half the bytes") {
  minimal_prefix_model<float> model(4, 6);
  auto const plan = plan_backward(4, single_layer(2));
  prefix_cache exact(model, plan);
  prefix_cache narrow(model, plan, in_memory<bf16>{});
  auto const rows = copy_of(exact.fill(model, tokens).stream(model));
  auto const rounded = copy_of(narrow.fill(model, tokens).stream(model));
  REQUIRE(rows.size() == rounded.size());
  for (std::size_t i = 0; i < rows.size(); ++i) {
    CHECK(rounded[i] == static_cast<float>(bf16(rows[i])));
  }
  CHECK(rounded != rows);
  std::vector<row_range> const ranges{{6, 1}, {1, 2}};
  auto const part = copy_of(narrow.rows().select(ranges).stream(model));
  CHECK(std::equal(part.begin(), part.begin() + 6, rounded.begin() + 36));
  CHECK(std::equal(part.begin() + 6, part.end(), rounded.begin() + 6));
}

TEST_CASE_TEMPLATE("rows in a file are those in memory", E, float, bf16) {
  temporary_directory const directory;
  minimal_prefix_model<float> model(4, 6);
  auto const plan = plan_backward(4, single_layer(2));
  prefix_cache memory(model, plan, in_memory<E>{});
  prefix_cache file(model, plan, in_file<E>(directory.path()));
  for (auto const& batch : {tokens_type{1, 2}, tokens}) {
    auto const expected = copy_of(memory.fill(model, batch).stream(model));
    CHECK(copy_of(file.fill(model, batch).stream(model)) == expected);
  }
  CHECK(directory.entries().empty());
}

TEST_CASE("any change of a weight below makes the rows unusable, and says so") {
  minimal_prefix_model<float> model(4, 6);
  auto const plan = plan_backward(4, single_layer(2));
  prefix_cache cache(model, plan);
  auto const prefix = cache.fill(model, tokens);
  auto const expected = copy_of(prefix.forward(model, tokens, plan));
  char const* const reason =
      "prefix_cache::read: weights below layer 2 have changed since the cache was filled: fill it "
      "again";
  for (auto const& parameter : {model.outer_parameters()[0], model.parameters(1)[0]}) {
    float const old = parameter.weight[3];
    parameter.weight[3] = std::nextafter(old, 10.0f);
    CHECK_THROWS_WITH_AS(prefix.forward(model, tokens, plan), reason, config_error);
    CHECK_THROWS_AS(cache.append(model, tokens), config_error);
    parameter.weight[3] = old;
    CHECK(copy_of(prefix.forward(model, tokens, plan)) == expected);
  }
  model.parameters(2)[0].weight[3] = 5;  // the selected layer may change
  CHECK(copy_of(prefix.forward(model, tokens, plan)) == copy_of(model.forward(tokens, plan)));
  model.parameters(0)[0].weight[3] = 5;
  CHECK(copy_of(cache.fill(model, tokens).forward(model, tokens, plan)) ==
        copy_of(model.forward(tokens, plan)));
}

TEST_CASE("a model that counts its changes is asked, and no weight is read") {
  counting_model model(3, 6);
  auto const plan = plan_backward(3, single_layer(1));
  prefix_cache cache(model, plan);
  auto const prefix = cache.fill(model, tokens);
  ++model.versions[2];  // layer 1, which is trained
  prefix.stream(model);
  ++model.versions[1];  // layer 0
  CHECK_THROWS_AS(prefix.stream(model), config_error);
  cache.fill(model, tokens);
  ++model.versions[0];  // outside
  CHECK_THROWS_AS(cache.rows().stream(model), config_error);
}

TEST_CASE("a handle does not outlive its fill") {
  minimal_prefix_model<float> model(3, 6);
  prefix_cache cache(model, plan_backward(3, single_layer(1)));
  auto const old = cache.fill(model, tokens);
  auto const current = cache.fill(model, tokens);
  CHECK_THROWS_WITH_AS(old.stream(model),
                       "prefix_cache: the cache was filled again after this prefix was taken",
                       config_error);
  current.stream(model);
  cache.clear();
  CHECK_THROWS_AS(current.stream(model), config_error);
  CHECK(cache.row_count() == 0);
}

TEST_CASE("plans that train what the rows depend on are refused") {
  minimal_prefix_model<float> model(4, 6);
  CHECK_THROWS_WITH_AS(prefix_cache(model, plan_backward(5, single_layer(1))),
                       "prefix_cache: the plan is for 5 layers, the model has 4", config_error);
  CHECK_THROWS_WITH_AS(prefix_cache(model, plan_full(4)),
                       "prefix_cache: the plan trains the embeddings, so nothing is frozen",
                       config_error);
  prefix_cache cache(model, plan_backward(4, single_layer(2)));
  auto const prefix = cache.fill(model, tokens);
  CHECK_THROWS_WITH_AS(prefix.forward(model, tokens, plan_backward(4, single_layer(1))),
                       "cached_prefix::forward: the plan trains layer 1, but the cache holds what "
                       "enters layer 2: make a cache for this plan",
                       config_error);
  CHECK_THROWS_AS(prefix.forward(model, tokens, plan_full(4)), config_error);
  auto const above = plan_backward(4, single_layer(3));
  CHECK(copy_of(prefix.forward(model, tokens, above)) == copy_of(model.forward(tokens, above)));
}
