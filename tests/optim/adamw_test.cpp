// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#include "lamina/optim/adamw.hpp"

#include <doctest/doctest.h>

#include <cmath>
#include <limits>

#include "tests/optim/torch_steps.hpp"
#include "tests/support/typed_backends.hpp"

using namespace lamina;
using namespace lamina::testing;

TEST_CASE_TEMPLATE("adamw: takes the steps of torch.optim.AdamW", Backend, LAMINA_TEST_BACKENDS) {
  using T = typename Backend::scalar_type;
  follow_torch<T>(
      "adamw",
      [](auto parameters, nlohmann::json const& known) {
        nlohmann::json const& o = known["options"];
        return adamw(Backend{}, parameters,
                     {.beta1 = o.value("beta1", 0.9),
                      .beta2 = o.value("beta2", 0.999),
                      .epsilon = o.value("epsilon", 1e-8),
                      .weight_decay = o.value("weight_decay", 0.01),
                      .clip_norm = o.value("clip_norm", no_clipping),
                      .rates = boost(layer_set{}.insert(3), known["boost"].get<double>())});
      },
      [](double found, double expected, std::string const& where) {
        CAPTURE(where);
        CHECK(found ==
              doctest::Approx(expected).epsilon(sizeof(T) == 4 ? 2e-6 : 1e-14).scale(1e-2));
      });
}

TEST_CASE("adamw: the first step moves every weight by the learning rate against its gradient") {
  host_tensors<double> host;
  host.add("w", 0, 4);
  host.tensors[0].weight = {1.0, 1.0, -2.0, 0.5};
  host.tensors[0].gradient = {1e-3, -70.0, 0.25, 0.0};
  adamw optimizer(eigen_backend<double>{}, host.parameters(),
                  {.learning_rate = 0.1, .epsilon = 1e-12, .weight_decay = 0});
  optimizer.step();
  std::vector<double> const expected{0.9, 1.1, -2.1, 0.5};
  for (std::size_t i = 0; i < 4; ++i) {
    CHECK(host.tensors[0].weight[i] == doctest::Approx(expected[i]).epsilon(1e-8));
  }
}

TEST_CASE("adamw: weight decay shrinks a weight without gradient, and only where it applies") {
  host_tensors<double> host;
  host.add("matrix", 0, 1, true).add("norm", 0, 1, false);
  for (auto& t : host.tensors) {
    t.weight = {2.0};
    t.gradient = {0.0};
  }
  adamw optimizer(eigen_backend<double>{}, host.parameters(),
                  {.learning_rate = 0.5, .weight_decay = 0.25});
  optimizer.step();
  CHECK(host.tensors[0].weight[0] == 2.0 * (1 - 0.5 * 0.25));
  CHECK(host.tensors[1].weight[0] == 2.0);
}

TEST_CASE_TEMPLATE("adamw: tiles, single rows and cooperating lanes give the same bits", T, float,
                   double) {
  // The lane groups of threaded_backend take the loop with std::sqrt, the others the tiles.
  auto const run = [](auto backend) {
    auto host = tensors_of_many_sizes<T>();
    adamw optimizer(backend, host.parameters(), {.learning_rate = 0.01});
    for (std::uint64_t s = 0; s < 3; ++s) {
      host.draw_gradients(s);
      optimizer.step();
    }
    return std::pair(host.weights(), state_of(optimizer));
  };
  auto const expected = run(eigen_backend<T>{});
  CHECK(run(minimal_backend<T>{}) == expected);
  CHECK(run(threaded_backend<T, 1>{}) == expected);
  CHECK(run(threaded_backend<T, 7>{}) == expected);
  CHECK(run(threaded_backend<T, 33>{}) == expected);
}

TEST_CASE_TEMPLATE("adamw: many elements follow the formula in long double", T, float, double) {
  auto host = tensors_of_many_sizes<T>();
  adamw_options const options{.learning_rate = 3e-3, .beta2 = 0.99, .weight_decay = 0.1};
  adamw optimizer(eigen_backend<T>{}, host.parameters(), options);
  std::vector<std::vector<long double>> w, m, v;
  for (auto const& t : host.tensors) {
    w.emplace_back(t.weight.begin(), t.weight.end());
    m.emplace_back(t.weight.size(), 0.0L);
    v.emplace_back(t.weight.size(), 0.0L);
  }
  for (int step = 1; step <= 4; ++step) {
    host.draw_gradients(static_cast<std::uint64_t>(step));
    optimizer.step();
    long double const correction1 = 1 - std::pow(0.9L, step),
                      correction2 = 1 - std::pow(0.99L, step);
    for (std::size_t t = 0; t < w.size(); ++t) {
      long double const decay = host.tensors[t].decays ? 0.1L : 0.0L;
      for (std::size_t i = 0; i < w[t].size(); ++i) {
        long double const g = host.tensors[t].gradient[i];
        m[t][i] = 0.9L * m[t][i] + 0.1L * g;
        v[t][i] = 0.99L * v[t][i] + 0.01L * g * g;
        w[t][i] -= 3e-3L * (decay * w[t][i] +
                            m[t][i] / correction1 / (std::sqrt(v[t][i] / correction2) + 1e-8L));
      }
    }
  }
  double worst = 0;
  for (std::size_t t = 0; t < w.size(); ++t) {
    for (std::size_t i = 0; i < w[t].size(); ++i) {
      double const difference = static_cast<double>(host.tensors[t].weight[i] - w[t][i]);
      worst = std::max(worst, std::fabs(difference));
    }
  }
  CHECK(worst < (sizeof(T) == 4 ? 3e-7 : 1e-15));
}

TEST_CASE_TEMPLATE("adamw: steps below the resolution of the weights add up in the master", T, bf16,
                   f16) {
  host_tensors<T> host;
  host.add("w", 0, 300);
  for (T& w : host.tensors[0].weight) w = T(1.0f);
  for (T& g : host.tensors[0].gradient) g = T(0.5f);
  adamw optimizer(eigen_backend<float>{}, host.parameters(),
                  {.learning_rate = 1e-5, .weight_decay = 0});
  REQUIRE(optimizer.state().slot_count() == 3);
  REQUIRE(optimizer.slot_name(2) == "master_weight");
  optimizer.step();
  CHECK(static_cast<float>(host.tensors[0].weight[7]) == 1.0f);  // 1 - 1e-5 rounds to 1
  for (int i = 1; i < 1000; ++i) optimizer.step();
  // A constant gradient moves the weight by the learning rate each step: 1 - 1000 * 1e-5.
  CHECK(optimizer.state().values(0, 2)[7] == doctest::Approx(0.99).epsilon(1e-5));
  for (T const w : host.tensors[0].weight) {
    CHECK(static_cast<float>(w) == static_cast<float>(T(optimizer.state().values(0, 2)[7])));
  }
}

TEST_CASE("adamw: a weight that the host overwrites is taken over from the host") {
  host_tensors<bf16> host;
  host.add("w", 0, 2);
  host.tensors[0].weight = {bf16(1.0f), bf16(1.0f)};
  host.tensors[0].gradient = {bf16(0.5f), bf16(0.5f)};
  adamw optimizer(eigen_backend<float>{}, host.parameters(),
                  {.learning_rate = 1e-5, .weight_decay = 0});
  for (int i = 0; i < 50; ++i) optimizer.step();
  host.tensors[0].weight[0] = bf16(3.0f);
  optimizer.step();
  CHECK(optimizer.state().values(0, 2)[0] == doctest::Approx(3 - 1e-5).epsilon(1e-7));
  CHECK(optimizer.state().values(0, 2)[1] == doctest::Approx(1 - 51e-5).epsilon(1e-6));
}

TEST_CASE("adamw: float weights may be trained with double state") {
  host_tensors<float> narrow;
  host_tensors<double> wide;
  narrow.add("w", 0, 500);
  wide.add("w", 0, 500);
  adamw a(eigen_backend<double>{}, narrow.parameters(), {});
  adamw b(eigen_backend<double>{}, wide.parameters(), {});
  for (std::uint64_t s = 0; s < 5; ++s) {
    narrow.draw_gradients(s);
    wide.draw_gradients(s);
    a.step();
    b.step();
  }
  for (std::size_t i = 0; i < 500; ++i) {
    CHECK(narrow.tensors[0].weight[i] == static_cast<float>(wide.tensors[0].weight[i]));
  }
}

TEST_CASE("adamw: options that make no sense are refused by name") {
  host_tensors<float> host;
  host.add("w", 0, 2);
  auto const make = [&](adamw_options const& options) {
    return adamw(eigen_backend<float>{}, host.parameters(), options);
  };
  double const nan = std::numeric_limits<double>::quiet_NaN();
  CHECK_THROWS_WITH_AS(make({.learning_rate = -1e-3}),
                       "adamw: learning_rate is -0.001, expected finite and >= 0", config_error);
  CHECK_THROWS_WITH_AS(make({.learning_rate = nan}),
                       "adamw: learning_rate is nan, expected finite and >= 0", config_error);
  CHECK_THROWS_WITH_AS(make({.beta1 = 1.0}), "adamw: beta1 is 1, expected 0 <= beta1 < 1",
                       config_error);
  CHECK_THROWS_WITH_AS(make({.beta2 = -0.5}), "adamw: beta2 is -0.5, expected 0 <= beta2 < 1",
                       config_error);
  CHECK_THROWS_WITH_AS(make({.epsilon = 0}), "adamw: epsilon is 0, expected finite and > 0",
                       config_error);
  CHECK_THROWS_WITH_AS(make({.weight_decay = -0.1}),
                       "adamw: weight_decay is -0.1, expected finite and >= 0", config_error);
  CHECK_THROWS_WITH_AS(make({.clip_norm = 0}),
                       "adamw: clip_norm is 0, expected > 0, or infinity for no clipping",
                       config_error);
  CHECK_THROWS_WITH_AS(make({.clip_norm = nan}),
                       "adamw: clip_norm is nan, expected > 0, or infinity for no clipping",
                       config_error);
}
