// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#include "lamina/optim/optimizer.hpp"

#include <doctest/doctest.h>

#include <limits>
#include <utility>

#include "lamina/layers/selector.hpp"
#include "lamina/optim/adamw.hpp"
#include "lamina/optim/sgd.hpp"
#include "tests/optim/tensors.hpp"
#include "tests/support/backends.hpp"

using namespace lamina;
using namespace lamina::testing;

namespace {

// Both optimizers behind one name, so that every law of the loop is tested with both.
struct make_adamw {
  template <class Backend, class T>
  auto operator()(Backend const& backend, std::vector<parameter_view<T>> parameters,
                  double clip_norm = no_clipping, layer_rates const& rates = {}) const {
    return adamw(backend, std::move(parameters),
                 {.learning_rate = 0.01, .clip_norm = clip_norm, .rates = rates});
  }
};
struct make_sgd {
  template <class Backend, class T>
  auto operator()(Backend const& backend, std::vector<parameter_view<T>> parameters,
                  double clip_norm = no_clipping, layer_rates const& rates = {}) const {
    return sgd(backend, std::move(parameters),
               {.learning_rate = 0.01,
                .momentum = 0.9,
                .weight_decay = 0.1,
                .clip_norm = clip_norm,
                .rates = rates});
  }
};

template <class Optimizer, class T>
void take_steps(Optimizer& optimizer, host_tensors<T>& host, std::uint64_t first,
                std::uint64_t last) {
  for (std::uint64_t step = first; step <= last; ++step) {
    host.draw_gradients(step);
    optimizer.step();
  }
}

}  // namespace

TEST_CASE_TEMPLATE("optimizer: the same bits for any number of threads", Make, make_adamw,
                   make_sgd) {
  auto const run = [](auto backend) {
    auto host = tensors_of_many_sizes<float>();
    auto optimizer = Make{}(backend, host.parameters(), 0.5);
    take_steps(optimizer, host, 1, 3);
    host.draw_gradients(4);
    auto const status = optimizer.step();
    CHECK(status.clip_scale < 1);
    return std::pair(std::pair(status.gradient_norm, host.weights()), state_of(optimizer));
  };
  auto const expected = run(eigen_backend<float>{});
  CHECK(run(minimal_backend<float>{}) == expected);
  for (index_t const threads : {1, 2, 5}) {
    CHECK(run(eigen_backend<float, spawning_for>{{threads}}) == expected);
  }
}

TEST_CASE_TEMPLATE("optimizer: a gradient that is not finite changes nothing at all", Make,
                   make_adamw, make_sgd) {
  double const poisons[] = {std::numeric_limits<double>::quiet_NaN(),
                            std::numeric_limits<double>::infinity(),
                            -std::numeric_limits<double>::infinity()};
  for (double const poison : poisons) {
    auto host = tensors_of_many_sizes<float>(), twin = tensors_of_many_sizes<float>();
    auto optimizer = Make{}(eigen_backend<float>{}, host.parameters(), 1.0);
    auto untroubled = Make{}(eigen_backend<float>{}, twin.parameters(), 1.0);
    take_steps(optimizer, host, 1, 2);
    take_steps(untroubled, twin, 1, 2);
    auto const weights = host.weights();
    auto const state = state_of(optimizer);
    host.tensors[2].gradient[100] = static_cast<float>(poison);
    host.tensors[7].gradient[8999] = static_cast<float>(poison);
    auto const status = optimizer.step();
    CHECK(status.skipped);
    CHECK(status.nonfinite_count == 2);
    CHECK_FALSE(is_finite(status.gradient_norm));
    CHECK(host.weights() == weights);
    CHECK(state_of(optimizer) == state);
    // And the run goes on as if the step had never been asked for.
    take_steps(optimizer, host, 3, 4);
    take_steps(untroubled, twin, 3, 4);
    CHECK(host.weights() == twin.weights());
    CHECK(state_of(optimizer) == state_of(untroubled));
  }
}

TEST_CASE_TEMPLATE("optimizer: gradients are read only, and what is not listed is left alone", Make,
                   make_adamw, make_sgd) {
  auto host = tensors_of_many_sizes<double>();
  auto const before = host.weights();
  auto const all = host.parameters();
  auto optimizer = Make{}(eigen_backend<double>{}, std::vector{all[3], all[7]}, 0.1);
  CHECK(optimizer.state().size() == 2);
  CHECK(optimizer.state().element_count() == 257 + 9000);
  host.draw_gradients(1);
  std::vector<std::vector<double>> gradients;
  for (auto const& t : host.tensors) gradients.push_back(t.gradient);
  CHECK(optimizer.step().clip_scale < 1);
  for (std::size_t t = 0; t < host.tensors.size(); ++t) {
    CAPTURE(t);
    CHECK(host.tensors[t].gradient == gradients[t]);
    CHECK((host.tensors[t].weight == before[t]) == (t != 3 && t != 7));
  }
}

TEST_CASE_TEMPLATE("optimizer: clipping is scaling every gradient by the clip scale", Make,
                   make_adamw, make_sgd) {
  auto clipped = tensors_of_many_sizes<double>(), scaled = tensors_of_many_sizes<double>();
  auto const norm = gradient_norm(eigen_backend<double>{}, clipped.parameters()).norm;
  auto a = Make{}(eigen_backend<double>{}, clipped.parameters(), 0.25 * norm);
  auto b = Make{}(eigen_backend<double>{}, scaled.parameters());
  auto const status = a.step();
  CHECK(status.gradient_norm == norm);
  CHECK(status.clip_scale == 0.25 * norm / (norm + 1e-6));
  for (auto& t : scaled.tensors) {
    for (double& g : t.gradient) g *= status.clip_scale;
  }
  CHECK(b.step().clip_scale == 1);
  // Not to the bit: with fused multiply-add, scaling and using a gradient may be one rounding.
  for (std::size_t t = 0; t < clipped.tensors.size(); ++t) {
    for (std::size_t i = 0; i < clipped.tensors[t].weight.size(); ++i) {
      CHECK(clipped.tensors[t].weight[i] ==
            doctest::Approx(scaled.tensors[t].weight[i]).epsilon(1e-14));
    }
  }
}

TEST_CASE_TEMPLATE("optimizer: a layer's rate multiplies the learning rate of its tensors", Make,
                   make_adamw, make_sgd) {
  auto host = tensors_of_many_sizes<double>();
  host.add("head", outside_layers, 20);
  auto const start = host.weights();
  auto const moved_from_start = [&](layer_rates const& rates, double learning_rate) {
    for (std::size_t t = 0; t < start.size(); ++t) host.tensors[t].weight = start[t];
    auto optimizer = Make{}(eigen_backend<double>{}, host.parameters(), no_clipping, rates);
    optimizer.step(learning_rate);
    return host.weights();
  };
  auto const plain = moved_from_start({}, 0.01), twice = moved_from_start({}, 0.02);
  auto const boosted =
      moved_from_start(boost(layer_range(2, 3), 2.0) * boost(single_layer(5), 0.0), 0.01);
  for (std::size_t t = 0; t < start.size(); ++t) {
    CAPTURE(t);
    CHECK(boosted[t] == (t == 2 || t == 3 ? twice[t] : t == 5 ? start[t] : plain[t]));
    CHECK(plain[t] != start[t]);
  }
  auto const outside = moved_from_start(boost_outside(2.0), 0.01);
  for (std::size_t t = 0; t < start.size(); ++t) {
    CHECK(outside[t] == (t + 1 == start.size() ? twice[t] : plain[t]));
  }
}

TEST_CASE_TEMPLATE("optimizer: after a rebind with kept moments a run goes on bit for bit", Make,
                   make_adamw, make_sgd) {
  auto host = tensors_of_many_sizes<float>();
  auto optimizer = Make{}(eigen_backend<float>{}, host.parameters());
  take_steps(optimizer, host, 1, 3);
  auto moved = host;  // the same tensors elsewhere in memory
  take_steps(optimizer, host, 4, 5);
  auto const expected = host.weights();

  host = tensors_of_many_sizes<float>();
  auto second = Make{}(eigen_backend<float>{}, host.parameters());
  take_steps(second, host, 1, 3);
  auto list = moved.parameters();
  std::swap(list[0], list[5]);  // order does not matter, names do
  second.rebind(list, moments::keep);
  take_steps(second, moved, 4, 5);
  CHECK(moved.weights() == expected);
}

TEST_CASE_TEMPLATE("optimizer: after a rebind without moments it is a new optimizer", Make,
                   make_adamw, make_sgd) {
  auto host = tensors_of_many_sizes<float>();
  auto optimizer = Make{}(eigen_backend<float>{}, host.parameters());
  take_steps(optimizer, host, 1, 3);
  auto twin = host;
  optimizer.rebind(host.parameters(), moments::drop);
  auto fresh = Make{}(eigen_backend<float>{}, twin.parameters());
  take_steps(optimizer, host, 4, 5);
  take_steps(fresh, twin, 4, 5);
  CHECK(host.weights() == twin.weights());
}

TEST_CASE_TEMPLATE("optimizer: a parameter that joins later begins with its own first step", Make,
                   make_adamw, make_sgd) {
  auto host = tensors_of_many_sizes<float>(), twin = tensors_of_many_sizes<float>();
  auto const all = host.parameters(), twins = twin.parameters();
  auto optimizer = Make{}(eigen_backend<float>{}, std::vector{all[1], all[2]});
  take_steps(optimizer, host, 1, 3);
  optimizer.rebind({all[2], all[6]}, moments::keep);
  CHECK(optimizer.state().step_count(0) == 3);
  CHECK(optimizer.state().step_count(1) == 0);
  take_steps(optimizer, host, 4, 5);
  auto alone = Make{}(eigen_backend<float>{}, std::vector{twins[6]});
  take_steps(alone, twin, 4, 5);
  CHECK(host.tensors[6].weight == twin.tensors[6].weight);
}

TEST_CASE_TEMPLATE("optimizer: a parameter that leaves and returns goes on where it was", Make,
                   make_adamw, make_sgd) {
  auto host = tensors_of_many_sizes<float>(), twin = tensors_of_many_sizes<float>();
  auto const all = host.parameters(), twins = twin.parameters();
  auto optimizer = Make{}(eigen_backend<float>{}, std::vector{all[1], all[2]});
  auto first = Make{}(eigen_backend<float>{}, std::vector{twins[1], twins[2]});
  auto second = Make{}(eigen_backend<float>{}, std::vector{twins[6]});
  auto const both = [&](auto& turn, std::uint64_t from) {
    take_steps(optimizer, host, from, from + 2);
    take_steps(turn, twin, from, from + 2);
  };
  both(first, 1);
  optimizer.rebind({all[6]}, moments::keep);
  CHECK(optimizer.state().size() == 1);
  REQUIRE(optimizer.parked().size() == 2);
  CHECK(optimizer.parked()[0].name == "layers.1.weight");
  CHECK(optimizer.parked()[0].step_count == 3);
  both(second, 4);
  optimizer.rebind({all[1], all[2]}, moments::keep);
  CHECK(optimizer.parked().size() == 1);
  both(first, 7);
  optimizer.rebind({all[6]}, moments::keep);
  both(second, 10);
  CHECK(host.weights() == twin.weights());
  CHECK(state_of(optimizer) == state_of(second));

  optimizer.rebind({all[1], all[2]}, moments::drop);
  CHECK(optimizer.parked().empty());
  CHECK(optimizer.state().step_count(0) == 0);
  optimizer.rebind({all[6]}, moments::keep);
  CHECK(optimizer.state().step_count(0) == 0);
  optimizer.forget_parked();
  optimizer.rebind({all[1]}, moments::keep);
  CHECK(optimizer.state().step_count(0) == 0);
}

TEST_CASE("optimizer: a checkpoint of what is parked resumes bit for bit, and is checked") {
  auto host = tensors_of_many_sizes<float>();
  auto const all = host.parameters();
  auto optimizer = make_adamw{}(eigen_backend<float>{}, std::vector{all[1]});
  take_steps(optimizer, host, 1, 3);
  auto const expected = state_of(optimizer);
  optimizer.rebind({all[2]}, moments::keep);
  auto resumed = make_adamw{}(eigen_backend<float>{}, std::vector{all[2]});
  for (auto const& parked : optimizer.parked()) resumed.park(parked);
  resumed.park(optimizer.parked()[0]);  // twice is once
  REQUIRE(resumed.parked().size() == 1);
  auto moved = std::move(resumed);
  moved.rebind({all[1]}, moments::keep);
  CHECK(state_of(moved) == expected);

  auto parked = optimizer.parked()[0];
  parked.name = "layers.2.weight";
  CHECK_THROWS_WITH_AS(optimizer.park(parked),
                       "adamw::park: the name is \"layers.2.weight\", expected one of a parameter "
                       "that is not trained now",
                       config_error);
  parked.name = "x";
  parked.step_count = -1;
  CHECK_THROWS_AS(optimizer.park(parked), config_error);
  parked.step_count = 1;
  parked.slots[0][0] = std::numeric_limits<float>::quiet_NaN();
  CHECK_THROWS_WITH_AS(optimizer.park(parked), "adamw::park: a value for x is nan, expected finite",
                       config_error);
  parked.slots[0].pop_back();
  CHECK_THROWS_AS(optimizer.park(parked), error);
  parked.slots.pop_back();
  CHECK_THROWS_WITH_AS(optimizer.park(parked), "adamw::park: 1 slots are given for x, expected 2",
                       shape_error);
  CHECK(optimizer.parked().size() == 1);
}

TEST_CASE("optimizer: a parked name that returns with another size is refused, and stays parked") {
  auto host = tensors_of_many_sizes<float>();
  auto const all = host.parameters();
  auto optimizer = make_adamw{}(eigen_backend<float>{}, std::vector{all[3]});
  take_steps(optimizer, host, 1, 2);
  optimizer.rebind({all[2]}, moments::keep);
  auto resized = all[3];
  resized.weight.size = resized.gradient.size = 256;
  CHECK_THROWS_WITH_AS(optimizer.rebind({resized}, moments::keep),
                       "rebind: layers.3.weight has 256 elements, its state has 257", shape_error);
  CHECK(optimizer.state().name(0) == "layers.2.weight");
  optimizer.rebind({all[3]}, moments::keep);
  CHECK(optimizer.state().step_count(0) == 2);
}

TEST_CASE_TEMPLATE("optimizer: a failed rebind leaves it as it was", Make, make_adamw, make_sgd) {
  auto host = tensors_of_many_sizes<float>(), twin = tensors_of_many_sizes<float>();
  auto optimizer = Make{}(eigen_backend<float>{}, host.parameters());
  auto untroubled = Make{}(eigen_backend<float>{}, twin.parameters());
  take_steps(optimizer, host, 1, 2);
  take_steps(untroubled, twin, 1, 2);
  auto resized = host.parameters();
  resized[3].weight.size = resized[3].gradient.size = 256;
  CHECK_THROWS_WITH_AS(optimizer.rebind(resized, moments::keep),
                       "rebind: layers.3.weight has 256 elements, its state has 257", shape_error);
  CHECK_THROWS_AS(optimizer.rebind({}, moments::drop), config_error);
  take_steps(optimizer, host, 3, 4);
  take_steps(untroubled, twin, 3, 4);
  CHECK(host.weights() == twin.weights());
  CHECK(state_of(optimizer) == state_of(untroubled));
}

TEST_CASE_TEMPLATE("optimizer: a checkpoint of names, step counts and slots resumes bit for bit",
                   Make, make_adamw, make_sgd) {
  auto host = tensors_of_many_sizes<float>();
  auto optimizer = Make{}(eigen_backend<float>{}, host.parameters());
  take_steps(optimizer, host, 1, 3);
  struct saved_parameter {
    std::string name;
    index_t step_count;
    std::vector<std::vector<float>> slots;
  };
  std::vector<saved_parameter> checkpoint;
  auto const& state = std::as_const(optimizer).state();
  for (index_t p = 0; p < state.size(); ++p) {
    saved_parameter saved{std::string(state.name(p)), state.step_count(p), {}};
    for (index_t slot = 0; slot < state.slot_count(); ++slot) {
      saved.slots.emplace_back(state.values(p, slot).begin(), state.values(p, slot).end());
    }
    checkpoint.push_back(saved);
  }
  auto resumed_host = host;
  auto resumed = Make{}(eigen_backend<float>{}, resumed_host.parameters());
  for (auto const& saved : checkpoint) {
    std::vector<vector_view<float const>> slots(saved.slots.begin(), saved.slots.end());
    resumed.state().restore(saved.name, saved.step_count, slots);
  }
  take_steps(optimizer, host, 4, 6);
  take_steps(resumed, resumed_host, 4, 6);
  CHECK(resumed_host.weights() == host.weights());
  CHECK(state_of(resumed) == state_of(optimizer));
}

TEST_CASE_TEMPLATE("optimizer: it can be moved and goes on", Make, make_adamw, make_sgd) {
  auto host = tensors_of_many_sizes<float>(), twin = tensors_of_many_sizes<float>();
  auto first = Make{}(minimal_backend<float>{}, host.parameters());
  auto untroubled = Make{}(minimal_backend<float>{}, twin.parameters());
  take_steps(first, host, 1, 2);
  auto second = std::move(first);
  take_steps(second, host, 3, 3);
  first = std::move(second);
  take_steps(first, host, 4, 4);
  take_steps(untroubled, twin, 1, 4);
  CHECK(host.weights() == twin.weights());
}

TEST_CASE_TEMPLATE("optimizer: parameters that cannot be trained are refused by name", Make,
                   make_adamw, make_sgd) {
  host_tensors<float> host;
  host.add("a", 0, 5).add("b", 1, 5);
  std::string const name = std::is_same_v<Make, make_adamw> ? "adamw" : "sgd";
  auto const text_of = [&](auto change) {
    auto list = host.parameters();
    change(list);
    try {
      Make{}(eigen_backend<float>{}, list);
    } catch (error const& problem) {
      return std::string(problem.what());
    }
    return std::string("no error");
  };
  CHECK(text_of([](auto& list) { list.clear(); }) ==
        name + ": parameters is empty, expected at least one tensor to train");
  CHECK(text_of([](auto& list) { list[1].name = ""; }) ==
        name + ": the name of parameter 1 is empty, expected a name that is unique in the model");
  CHECK(text_of([](auto& list) { list[1].name = "a"; }) ==
        name + ": the name a is used by two parameters, expected unique names");
  CHECK(text_of([](auto& list) { list[1].weight = list[0].weight; }) ==
        name + ": a and b are the same weights, expected every tensor once");
  CHECK(text_of([](auto& list) { list[1].gradient = {}; }) ==
        name + ": the gradient of b has 0 elements, its weight has 5");
  CHECK(text_of([](auto& list) { list[0].gradient.size = 4; }) ==
        name + ": the gradient of a has 4 elements, its weight has 5");
  CHECK(text_of([](auto& list) { list[0].weight = list[0].gradient = {}; }) ==
        name + ": the weight of a is empty, expected at least one element");
  CHECK(text_of([](auto& list) { list[0].layer = 512; }) ==
        "layer_rates: layer is 512, expected 0..511, or outside_layers (-1)");
}

TEST_CASE_TEMPLATE("optimizer: a learning rate that makes no sense is refused and changes nothing",
                   Make, make_adamw, make_sgd) {
  auto host = tensors_of_many_sizes<float>();
  auto const before = host.weights();
  auto optimizer =
      Make{}(eigen_backend<float>{}, host.parameters(), no_clipping, boost(single_layer(7), 1e300));
  auto const state = state_of(optimizer);
  CHECK_THROWS_AS(optimizer.step(-1.0), config_error);
  CHECK_THROWS_AS(optimizer.step(std::numeric_limits<double>::quiet_NaN()), config_error);
  CHECK_THROWS_AS(optimizer.step(1e300), config_error);  // overflows for layer 7 only
  CHECK(host.weights() == before);
  CHECK(state_of(optimizer) == state);
}
