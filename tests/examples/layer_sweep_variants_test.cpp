// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#include "examples/layer_sweep/variants.hpp"

#include <doctest/doctest.h>

#include "lamina/study/sweep.hpp"

using namespace layer_sweep;
using lamina::parameter_role;

namespace {

settings eight_layers() {
  settings s;
  s.steps = 60;
  s.learning_rate = 3e-4;
  s.layer_learning_rate = 3e-4;
  return s;
}

// The runs that a sweep over the list makes.
index_t runs_of(variant_list const& variants) {
  index_t runs = 0;
  lamina::run_sweep(variants.plan(""), {}, lamina::serial_for{}, [&runs](lamina::sweep_run const&) {
    ++runs;
    return lamina::run_scores{};
  });
  return runs;
}

}  // namespace

TEST_CASE("variants: what each row trains") {
  variant_list const rows(eight_layers());
  CHECK(rows.row("full").plan.trains_embeddings());
  CHECK(rows.row("full").plan.trains_head());
  CHECK(rows.row("full").plan.layers() == lamina::all_layers(8));
  CHECK(rows.row("layer:5").plan.layers() == lamina::single_layer(5));
  CHECK_FALSE(rows.row("layer:5").plan.trains_head());
  CHECK(rows.row("layer:5").variant.layer == 5);
  CHECK(rows.row("head only").plan.layers().empty());
  CHECK(rows.row("head only").plan.trains_head());
  CHECK_FALSE(rows.row("head only").plan.trains_final_norm());
  CHECK(rows.row("layers only").plan.layers() == lamina::all_layers(8));
  CHECK_FALSE(rows.row("layers only").plan.trains_embeddings());
  CHECK_FALSE(rows.row("layers only").plan.trains_head());
  CHECK(rows.row("middle:3").plan.layers() == lamina::layer_range(2, 4));
  CHECK(rows.row("last:3").plan.layers() == lamina::layer_range(5, 7));
  CHECK_THROWS_WITH_AS(rows.row("layer:8"), "variant_list: no variant is named 'layer:8'",
                       lamina::config_error);
}

TEST_CASE("variants: what is chosen from the profile, and its controls") {
  variant_list rows(eight_layers());
  rows.choose({0.1, 0.9, 0.2, 0.3, 0.8, 0.2, 0.7, 0.1});
  lamina::layer_set const top = lamina::parse_layers("1,4,6", 8);
  CHECK(rows.row("top:3").plan.layers() == top);

  training const& boosted = rows.row("boost top:3");
  training const& control = rows.row("boost all");
  CHECK(boosted.plan.trains_embeddings());
  for (index_t layer = 0; layer < 8; ++layer) {
    CHECK(boosted.rates(layer) == (top.contains(layer) ? 2 : 1));
    CHECK(control.rates(layer) == 2);
  }
  CHECK(boosted.rates(lamina::outside_layers) == 1);
  CHECK(control.rates(lamina::outside_layers) == 1);

  CHECK(rows.row("shuffled best").plan.layers() == lamina::single_layer(1));
  for (training const& row : rows.rows()) {
    CHECK(row.shuffled == (row.variant.name.find("shuffled") == 0));
  }
}

TEST_CASE("variants: run_count is known before the choice") {
  settings s = eight_layers();
  s.bases = 3;
  s.full_seeds = 6;
  s.second_learning_rate = 9e-4;
  variant_list rows(s);
  index_t const before = rows.run_count();
  rows.choose(std::vector<double>(8, 0.5));
  CHECK(before == runs_of(rows));
  // 3 bases of: base, 6 full, 3 seeds of 8 layers twice, 4 fixed rows, 5 chosen rows.
  CHECK(runs_of(rows) == 3 * (1 + 6 + 3 * (16 + 4 + 5)));
}

TEST_CASE("variants: the second table trains every layer faster, outside the profile") {
  settings s = eight_layers();
  s.second_learning_rate = 9e-4;
  variant_list const rows(s);
  CHECK(rows.row("layer:2 fast").variant.learning_rate == 9e-4);
  CHECK(rows.row("layer:2 fast").variant.kind == lamina::variant_kind::selection);
  CHECK(rows.row("layer:2 fast").plan.layers() == lamina::single_layer(2));
}

TEST_CASE("variants: one selection instead of a sweep") {
  settings s = eight_layers();
  s.select = "0,middle:2";
  variant_list const rows(s);
  CHECK_FALSE(rows.chooses());
  CHECK(rows.rows().size() == 3);
  CHECK(rows.row("0,middle:2").plan.layers() == lamina::parse_layers("0,3,4", 8));
  CHECK(rows.run_count() == runs_of(rows));

  s.select = "2:mlp,3";
  variant_list const by_role(s);
  CHECK(by_role.row("2:mlp,3").plan.trained_roles(2) == lamina::mlp_roles);
  CHECK(by_role.row("2:mlp,3").plan.trained_roles(3) == lamina::layer_roles);
  CHECK(by_role.row("2:mlp,3").variant.trained == "2:mlp,3");
}

TEST_CASE("settings: a third of the layers, rounded up, is selected") {
  settings s;
  for (auto const& [layers, expected] : {std::pair{1, 1}, {3, 1}, {4, 2}, {8, 3}, {9, 3}}) {
    s.layers = layers;
    CHECK(s.selected_count() == expected);
  }
}

TEST_CASE("variants: a part of the profile is trained seed by seed, the far layers first") {
  settings s = eight_layers();
  s.profile = "every:2,7";
  variant_list rows(s);
  CHECK_FALSE(rows.chooses());
  CHECK(rows.order() == lamina::sweep_order::by_seed);
  std::vector<std::string> names;
  for (training const& row : rows.rows()) names.push_back(row.variant.name);
  CHECK(names == std::vector<std::string>{"base", "full", "layer:0", "layer:7", "layer:4",
                                          "layer:2", "layer:6"});
  CHECK(rows.run_count() == runs_of(rows));

  s.select = "middle:2";
  CHECK(variant_list(s).row("middle:2").plan.layers() == lamina::layer_range(3, 4));
  CHECK(variant_list(eight_layers()).order() == lamina::sweep_order::by_variant);
}
