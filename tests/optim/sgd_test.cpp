// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#include "lamina/optim/sgd.hpp"

#include <doctest/doctest.h>

#include <limits>

#include "tests/optim/torch_steps.hpp"
#include "tests/support/typed_backends.hpp"

using namespace lamina;
using namespace lamina::testing;

TEST_CASE_TEMPLATE("sgd: takes the steps of torch.optim.SGD", Backend, LAMINA_TEST_BACKENDS) {
  using T = typename Backend::scalar_type;
  follow_torch<T>(
      "sgd",
      [](auto parameters, nlohmann::json const& known) {
        nlohmann::json const& o = known["options"];
        return sgd(Backend{}, parameters,
                   {.momentum = o.value("momentum", 0.0),
                    .dampening = o.value("dampening", 0.0),
                    .weight_decay = o.value("weight_decay", 0.0),
                    .nesterov = o.value("nesterov", false),
                    .clip_norm = o.value("clip_norm", no_clipping),
                    .rates = boost(layer_set{}.insert(3), known["boost"].get<double>())});
      },
      [](double found, double expected, std::string const& where) {
        CAPTURE(where);
        CHECK(found ==
              doctest::Approx(expected).epsilon(sizeof(T) == 4 ? 2e-6 : 1e-14).scale(1e-2));
      });
}

TEST_CASE("sgd: without momentum it keeps nothing and subtracts learning rate times gradient") {
  host_tensors<double> host;
  host.add("w", 0, 2);
  host.tensors[0].weight = {1.0, -1.0};
  host.tensors[0].gradient = {0.5, 4.0};
  sgd optimizer(eigen_backend<double>{}, host.parameters(), {.learning_rate = 0.25});
  CHECK(optimizer.state().slot_count() == 0);
  optimizer.step();
  CHECK(host.tensors[0].weight == std::vector<double>{0.875, -2.0});
}

TEST_CASE("sgd: momentum worked by hand") {
  host_tensors<double> host;
  host.add("w", 0, 1);
  host.tensors[0].weight = {0.0};
  sgd optimizer(eigen_backend<double>{}, host.parameters(),
                {.learning_rate = 1.0, .momentum = 0.5, .dampening = 0.25});
  host.tensors[0].gradient = {8.0};
  optimizer.step();  // b = 8, undamped
  CHECK(host.tensors[0].weight[0] == -8.0);
  host.tensors[0].gradient = {4.0};
  optimizer.step();  // b = 0.5 * 8 + 0.75 * 4 = 7
  CHECK(host.tensors[0].weight[0] == -15.0);
  CHECK(optimizer.state().values(0, 0)[0] == 7.0);
  CHECK(optimizer.slot_name(0) == "momentum");
}

TEST_CASE_TEMPLATE("sgd: one thread a row and cooperating lanes give the same bits", T, float,
                   double) {
  auto const run = [](auto backend, sgd_options const& options) {
    auto host = tensors_of_many_sizes<T>();
    sgd optimizer(backend, host.parameters(), options);
    for (std::uint64_t s = 0; s < 3; ++s) {
      host.draw_gradients(s);
      optimizer.step();
    }
    return std::pair(host.weights(), state_of(optimizer));
  };
  sgd_options const with_momentum{.momentum = 0.9, .weight_decay = 0.1, .nesterov = true};
  for (sgd_options const& options : {sgd_options{}, with_momentum}) {
    auto const expected = run(eigen_backend<T>{}, options);
    CHECK(run(minimal_backend<T>{}, options) == expected);
    CHECK(run(threaded_backend<T, 7>{}, options) == expected);
    CHECK(run(threaded_backend<T, 33>{}, options) == expected);
  }
}

TEST_CASE("sgd: options that make no sense are refused by name") {
  host_tensors<float> host;
  host.add("w", 0, 2);
  auto const make = [&](sgd_options const& options) {
    return sgd(eigen_backend<float>{}, host.parameters(), options);
  };
  CHECK_THROWS_WITH_AS(make({.learning_rate = std::numeric_limits<double>::infinity()}),
                       "sgd: learning_rate is inf, expected finite and >= 0", config_error);
  CHECK_THROWS_WITH_AS(make({.momentum = 1}), "sgd: momentum is 1, expected 0 <= momentum < 1",
                       config_error);
  CHECK_THROWS_WITH_AS(make({.dampening = -1}), "sgd: dampening is -1, expected 0 <= dampening < 1",
                       config_error);
  CHECK_THROWS_WITH_AS(make({.weight_decay = -1}),
                       "sgd: weight_decay is -1, expected finite and >= 0", config_error);
  CHECK_THROWS_WITH_AS(
      make({.nesterov = true}),
      "sgd: nesterov is set with momentum 0 and dampening 0, expected momentum > 0 and dampening 0",
      config_error);
  CHECK_THROWS_WITH_AS(make({.momentum = 0.9, .dampening = 0.5, .nesterov = true}),
                       "sgd: nesterov is set with momentum 0.9 and dampening 0.5, expected "
                       "momentum > 0 and dampening 0",
                       config_error);
  CHECK_THROWS_AS(make({.clip_norm = -1}), config_error);
}
