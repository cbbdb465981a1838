// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// Optimizers on a device: the numbers of the host, no waits, no allocations, and nothing half done.
#include "lamina/optim/optimizer.hpp"

#include <doctest/doctest.h>

#include <limits>
#include <utility>

#include "lamina/backend/eigen.hpp"
#include "lamina/layers/selector.hpp"
#include "lamina/optim/adamw.hpp"
#include "lamina/optim/sgd.hpp"
#include "tests/optim/device_tensors.hpp"
#include "tests/support/simulated_device.hpp"

using namespace lamina;
using namespace lamina::testing;

namespace {

struct make_adamw {
  template <class Backend, class T>
  auto operator()(Backend const& backend, std::vector<parameter_view<T>> parameters,
                  double clip_norm = no_clipping) const {
    return adamw(backend, std::move(parameters),
                 {.learning_rate = 0.01,
                  .clip_norm = clip_norm,
                  .rates = boost(layer_range(2, 3), 2.0) * boost(single_layer(5), 0.0)});
  }
};
struct make_momentum {
  template <class Backend, class T>
  auto operator()(Backend const& backend, std::vector<parameter_view<T>> parameters,
                  double clip_norm = no_clipping) const {
    return sgd(
        backend, std::move(parameters),
        {.learning_rate = 0.01, .momentum = 0.9, .weight_decay = 0.1, .clip_norm = clip_norm});
  }
};
struct make_sgd {
  template <class Backend, class T>
  auto operator()(Backend const& backend, std::vector<parameter_view<T>> parameters,
                  double clip_norm = no_clipping) const {
    return sgd(backend, std::move(parameters), {.learning_rate = 0.1, .clip_norm = clip_norm});
  }
};

// A run on a host and the same on a device, step by step.
template <class Make, class Backend, class T>
struct twins {
  using host_backend_type = eigen_backend<typename Backend::scalar_type>;

  host_tensors<T> host = tensors_of_many_sizes<T>();
  Backend backend;
  device_tensors<Backend, T> device{backend, host};
  decltype(Make{}(host_backend_type{}, host.parameters())) on_host;
  decltype(Make{}(backend, device.parameters())) on_device;

  explicit twins(double clip_norm = no_clipping)
      : on_host(Make{}(host_backend_type{}, host.parameters(), clip_norm)),
        on_device(Make{}(backend, device.parameters(), clip_norm)) {}

  step_status step(std::uint64_t seed) {
    host.draw_gradients(seed);
    device.copy_gradients();
    on_device.step();
    return on_host.step();
  }
  void check_same() {
    CHECK(device.weights() == host.weights());
    CHECK(remembered(on_device) == remembered(on_host));
  }
};

using single = simulated_device<float>;

}  // namespace

#define LAMINA_TEST_RUNS                                                                           \
  std::pair<make_adamw, simulated_device<float>>, std::pair<make_adamw, simulated_device<double>>, \
      std::pair<make_adamw, simulated_device<float, 7>>,                                           \
      std::pair<make_adamw, simulated_device<float, 33>>,                                          \
      std::pair<make_momentum, simulated_device<float>>,                                           \
      std::pair<make_momentum, simulated_device<double, 7>>,                                       \
      std::pair<make_sgd, simulated_device<float, 7>>

TEST_CASE_TEMPLATE("optimizer on a device: the bits of the host, tensors of any size", Run,
                   LAMINA_TEST_RUNS) {
  using Backend = typename Run::second_type;
  twins<typename Run::first_type, Backend, typename Backend::scalar_type> run;
  for (std::uint64_t s = 1; s <= 4; ++s) {
    auto const expected = run.step(s);
    auto const found = run.on_device.read_status();
    CHECK(found.learning_rate == expected.learning_rate);
    CHECK(found.gradient_norm == doctest::Approx(expected.gradient_norm).epsilon(1e-14));
    CHECK(found.clip_scale == 1);
    CHECK(!found.skipped);
  }
  run.check_same();
}

TEST_CASE_TEMPLATE("optimizer on a device: clipping as on the host", Run, LAMINA_TEST_RUNS) {
  using Backend = typename Run::second_type;
  using T = typename Backend::scalar_type;
  twins<typename Run::first_type, Backend, T> run(0.5);
  for (std::uint64_t s = 1; s <= 3; ++s) {
    auto const expected = run.step(s);
    CHECK(expected.clip_scale < 1);
    CHECK(run.on_device.read_status().clip_scale ==
          doctest::Approx(expected.clip_scale).epsilon(1e-14));
  }
  // Lanes add in an order of their own: the scale, hence a weight, may differ in its last bit.
  auto const found = run.device.weights(), expected = run.host.weights();
  for (std::size_t t = 0; t < found.size(); ++t) {
    for (std::size_t i = 0; i < found[t].size(); ++i) {
      CHECK(std::fabs(found[t][i] - expected[t][i]) <= std::numeric_limits<T>::epsilon());
    }
  }
}

TEST_CASE_TEMPLATE("optimizer on a device: narrow weights and their masters, the bits of the host",
                   T, bf16, f16) {
  auto const check = [](auto run) {
    REQUIRE(run->on_device.state().slot_count() == 3);
    for (std::uint64_t s = 1; s <= 3; ++s) run->step(s);
    auto const found = run->device.weights(), expected = run->host.weights();
    for (std::size_t t = 0; t < found.size(); ++t) {
      for (std::size_t i = 0; i < found[t].size(); ++i) {
        CHECK(found[t][i].bits == expected[t][i].bits);
      }
    }
    CHECK(remembered(run->on_device) == remembered(run->on_host));
  };
  check(std::make_unique<twins<make_adamw, simulated_device<float>, T>>());
  check(std::make_unique<twins<make_adamw, simulated_device<float, 7>, T>>());
}

TEST_CASE_TEMPLATE("optimizer on a device: tensors that start anywhere, the bits of the host", T,
                   float, bf16) {
  auto host = tensors_of_many_sizes<T>();
  simulated_device<float, 7> const backend;
  device_tensors device(backend, host);
  auto const odd = [](std::vector<parameter_view<T>> list) {
    for (auto& p : list) {
      if (p.weight.size < 2) continue;
      p.weight = p.weight.subview(1, p.weight.size - 1);
      p.gradient = p.gradient.subview(1, p.gradient.size - 1);
    }
    return list;
  };
  adamw on_host(eigen_backend<float>{}, odd(host.parameters()));
  adamw on_device(backend, odd(device.parameters()));
  for (int i = 0; i < 2; ++i) {
    on_host.step();
    on_device.step();
  }
  auto const found = device.weights();
  for (std::size_t t = 0; t < found.size(); ++t) {
    for (std::size_t i = 0; i < found[t].size(); ++i) {
      CHECK(same_bits(found[t][i], host.tensors[t].weight[i]));
    }
  }
  CHECK(remembered(on_device) == remembered(on_host));
}

TEST_CASE_TEMPLATE(
    "optimizer on a device: a step is three launches, waits for nothing and "
    "allocates nothing",
    Make, make_adamw, make_momentum) {
  auto host = tensors_of_many_sizes<float>();
  single const backend;
  device_tensors device(backend, host);
  auto optimizer = Make{}(backend, device.parameters(), 0.5);
  std::size_t const allocated = backend.stream().allocated();
  for (std::size_t s = 1; s <= 5; ++s) {
    optimizer.step(0.01);
    CHECK(backend.stream().pending() == 3 * s);
  }
  CHECK(backend.stream().allocated() == allocated);
  CHECK(device.weights() != host.weights());
  CHECK(optimizer.state().step_count(3) == 5);
}

TEST_CASE_TEMPLATE("optimizer on a device: a gradient that is not finite changes nothing at all",
                   Run, LAMINA_TEST_RUNS) {
  using Backend = typename Run::second_type;
  using T = typename Backend::scalar_type;
  twins<typename Run::first_type, Backend, T> run;
  run.step(1);
  for (double const poison :
       {std::numeric_limits<double>::quiet_NaN(), -std::numeric_limits<double>::infinity()}) {
    run.host.tensors[2].gradient[100] = static_cast<T>(poison);
    run.host.tensors[7].gradient[8999] = static_cast<T>(poison);
    run.device.copy_gradients();
    run.on_device.step();
    auto const status = run.on_device.read_status();
    CHECK(status.skipped);
    CHECK(status.nonfinite_count == 2);
    CHECK(!is_finite(status.gradient_norm));
    CHECK(status.clip_scale == 1);
    run.check_same();
  }
  run.step(2);  // and the run goes on as if the steps had never been asked for
  run.check_same();
}

TEST_CASE("optimizer on a device: learning rates that its memory holds when the step runs") {
  twins<make_adamw, single, float> run;
  device_vector<single, double> rate(run.backend, 1);
  std::vector<double> const rates{0.5, 0.25, 0.125};
  for (std::size_t s = 0; s < rates.size(); ++s) {  // all asked for before any is done
    rate.assign(run.backend, vector_view<double const>(&rates[s], 1));
    run.on_device.step(std::as_const(rate).view());
    run.on_host.step(rates[s]);
  }
  run.check_same();
  CHECK(run.on_device.read_status().learning_rate == 0.125);
  for (double const wrong : {-1.0, std::numeric_limits<double>::quiet_NaN(),
                             std::numeric_limits<double>::max()}) {  // times 2 it is infinite
    rate.assign(run.backend, vector_view<double const>(&wrong, 1));
    run.on_device.step(std::as_const(rate).view());
    CHECK(run.on_device.read_status().skipped);
    run.check_same();
  }
  double const on_host = 0.1;
  CHECK_THROWS_WITH_AS(
      run.on_device.step(vector_view<double const>(&on_host, 1)),
      "step: learning_rate [1] does not lie in memory that the backend's device can use",
      device_error);
  CHECK_THROWS_WITH_AS(run.on_device.step(vector_view<double const>()),
                       "adamw::step: learning_rate has 0 elements, expected 1", shape_error);
  CHECK_THROWS_AS(run.on_device.step(-1.0), config_error);
  run.check_same();
}

TEST_CASE_TEMPLATE("optimizer on a device: a rotating selection ends as on the host", Run,
                   LAMINA_TEST_RUNS) {
  using Backend = typename Run::second_type;
  twins<typename Run::first_type, Backend, typename Backend::scalar_type> run;
  auto const pick = [](auto const& all, std::vector<std::size_t> const& which) {
    std::remove_cvref_t<decltype(all)> some;
    for (std::size_t const i : which) some.push_back(all[i]);
    return some;
  };
  std::uint64_t seed = 0;
  for (auto const& which : {std::vector<std::size_t>{1, 2}, {6}, {2, 1, 7}, {6}, {1, 2}}) {
    for (moments const kept : {moments::keep, seed == 9 ? moments::drop : moments::keep}) {
      run.on_host.rebind(pick(run.host.parameters(), which), kept);
      run.on_device.rebind(pick(run.device.parameters(), which), kept);
      run.step(++seed);
      run.step(++seed);
      run.check_same();
    }
    REQUIRE(run.on_device.parked().size() == run.on_host.parked().size());
    for (std::size_t p = 0; p < run.on_host.parked().size(); ++p) {
      CHECK(run.on_device.parked()[p].name == run.on_host.parked()[p].name);
      CHECK(run.on_device.parked()[p].step_count == run.on_host.parked()[p].step_count);
      CHECK(run.on_device.parked()[p].slots == run.on_host.parked()[p].slots);
    }
  }
}

TEST_CASE("optimizer on a device: a checkpoint resumes bit for bit, on a host too") {
  twins<make_adamw, single, bf16> run, resumed;
  for (std::uint64_t s = 1; s <= 3; ++s) run.step(s);
  auto const& state = run.on_device.state();
  for (index_t p = 0; p < state.size(); ++p) {
    auto const saved = state.parked(p);
    std::vector<vector_view<float const>> const slots(saved.slots.begin(), saved.slots.end());
    resumed.on_device.state().restore(saved.name, saved.step_count, slots);
    resumed.on_host.state().restore(saved.name, saved.step_count, slots);
  }
  auto const weights = run.device.weights();
  for (std::size_t t = 0; t < weights.size(); ++t) {
    resumed.host.tensors[t].weight = weights[t];
    resumed.device.tensors[t].weight.assign(resumed.backend, weights[t]);
  }
  run.step(4);
  resumed.step(4);
  CHECK(remembered(resumed.on_device) == remembered(run.on_device));
  CHECK(remembered(resumed.on_host) == remembered(run.on_device));
}

TEST_CASE("optimizer on a device: it can be moved while its steps are still to be done") {
  twins<make_adamw, single, float> run;
  run.on_device.step();
  auto moved = std::move(run.on_device);
  moved.step();
  run.on_device = std::move(moved);
  run.on_device.step();
  for (int i = 0; i < 3; ++i) run.on_host.step();
  run.check_same();
}

TEST_CASE("optimizer on a device: memory of the host is refused by the tensor's name") {
  auto host = tensors_of_many_sizes<float>();
  single const backend;
  device_tensors device(backend, host);
  auto list = device.parameters();
  list[1].gradient = host.parameters()[1].gradient;
  CHECK_THROWS_WITH_AS(adamw(backend, list),
                       "adamw: the gradient of layers.1.weight [7] does not lie in memory that the "
                       "backend's device can use",
                       device_error);
  CHECK_THROWS_WITH_AS(gradient_norm(backend, list),
                       "gradient_norm: the gradient of layers.1.weight [7] does not lie in memory "
                       "that the backend's device can use",
                       device_error);
  adamw optimizer(backend, device.parameters());
  list = device.parameters();
  list[2].weight = host.parameters()[2].weight;
  CHECK_THROWS_WITH_AS(optimizer.rebind(list, moments::keep),
                       "adamw: the weight of layers.2.weight [255] does not lie in memory that the "
                       "backend's device can use",
                       device_error);
  CHECK(optimizer.state().size() == 8);
}

TEST_CASE("optimizer on a device: where memory ends, all is as it was") {
  twins<make_adamw, single, float> run;
  run.step(1);
  auto& stream = run.backend.stream();
  run.backend.synchronize();
  std::size_t const before = stream.allocated();
  int failures = 0;
  for (std::size_t room = 0;; room += 4096) {
    stream.set_limit(before + room);
    try {
      auto another = make_adamw{}(run.backend, run.device.parameters());
      break;
    } catch (std::runtime_error const&) {
      ++failures;
    }
    run.backend.synchronize();
    CHECK(stream.allocated() == before);
  }
  CHECK(failures > 10);
  run.backend.synchronize();
  CHECK(stream.allocated() == before);

  failures = 0;
  auto const list = run.device.parameters();
  for (std::size_t room = 0;; room += 4096) {
    stream.set_limit(before + room);
    try {
      run.on_device.rebind({list[7], list[1]}, moments::keep);
      break;
    } catch (std::runtime_error const&) {
      ++failures;
    }
    CHECK(run.on_device.parked().empty());
    run.check_same();
    CHECK(stream.allocated() == before);
  }
  CHECK(failures > 10);
  auto const on_host = run.host.parameters();
  run.on_host.rebind({on_host[7], on_host[1]}, moments::keep);
  run.step(2);
  run.check_same();
}

TEST_CASE_TEMPLATE("gradient_norm on a device: as on the host, and measured without a wait",
                   Backend, simulated_device<float>, simulated_device<double>,
                   simulated_device<float, 7>, simulated_device<float, 33>) {
  using T = typename Backend::scalar_type;
  auto host = tensors_of_many_sizes<T>();
  Backend const backend;
  device_tensors device(backend, host);
  double const expected = gradient_norm(eigen_backend<T>{}, host.parameters()).norm;
  CHECK(gradient_norm(backend, device.parameters()).norm ==
        doctest::Approx(expected).epsilon(1e-14));

  gradient_norm_meter<Backend, T> meter(backend, device.parameters());
  std::size_t const allocated = backend.stream().allocated();
  meter.run();
  CHECK(backend.stream().pending() == 2);
  CHECK(backend.stream().allocated() == allocated);
  auto const first = meter.read();
  CHECK(first.nonfinite_count == 0);
  host.tensors[6].gradient[4096] = std::numeric_limits<T>::infinity();
  device.copy_gradients();
  meter.run();
  CHECK(meter.read().nonfinite_count == 1);
  CHECK(!is_finite(meter.read().norm));
  for (auto& t : host.tensors) t.gradient.assign(t.gradient.size(), T(0));
  device.copy_gradients();
  meter.run();
  CHECK(meter.read().norm == 0);
}
