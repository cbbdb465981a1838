// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#include "lamina/optim/state.hpp"

#include <doctest/doctest.h>

#include <limits>

#include "tests/optim/tensors.hpp"
#include "tests/support/typed_backends.hpp"

using namespace lamina;
using namespace lamina::testing;

namespace {

template <class T>
host_tensors<T> three_tensors() {
  host_tensors<T> host;
  host.add("a", 0, 5).add("b", 1, 17).add("c", 1, 32);
  return host;
}

template <class Backend>
using state_values = std::vector<vector_view<typename Backend::scalar_type const>>;

}  // namespace

TEST_CASE_TEMPLATE("optimizer_state: zeros for the given parameters, and each its own", Backend,
                   LAMINA_TEST_BACKENDS) {
  using T = typename Backend::scalar_type;
  auto host = three_tensors<T>();
  optimizer_state<Backend> state(Backend{}, host.parameters(), 2);
  CHECK(state.size() == 3);
  CHECK(state.slot_count() == 2);
  CHECK(state.element_count() == 54);
  for (index_t p = 0; p < 3; ++p) {
    CHECK(state.name(p) == host.tensors[static_cast<std::size_t>(p)].name);
    CHECK(state.step_count(p) == 0);
    for (index_t slot = 0; slot < 2; ++slot) {
      CHECK(state.values(p, slot).size == state.element_count(p));
      for (T& value : state.values(p, slot)) {
        CHECK(value == T(0));
        value = static_cast<T>(10 * p + slot + 1);
      }
    }
  }
  auto const& constant = state;
  for (index_t p = 0; p < 3; ++p) {
    for (index_t slot = 0; slot < 2; ++slot) {
      for (T const value : constant.values(p, slot)) {
        CHECK(value == static_cast<T>(10 * p + slot + 1));
      }
    }
  }
}

TEST_CASE("optimizer_state: names outlive those of the host") {
  auto host = three_tensors<float>();
  optimizer_state<eigen_backend<float>> const state({}, host.parameters(), 1);
  for (auto& t : host.tensors) t.name = "gone";
  CHECK(state.find("b") == 1);
  CHECK(state.find("gone") == -1);
}

TEST_CASE_TEMPLATE("optimizer_state: restore puts one parameter back", Backend,
                   LAMINA_TEST_BACKENDS) {
  using T = typename Backend::scalar_type;
  auto host = three_tensors<T>();
  optimizer_state<Backend> state(Backend{}, host.parameters(), 2);
  std::vector<T> const first(17, T(1.5)), second(17, T(0.25));
  state.restore("b", 12, {first, second});
  for (index_t& count : state.step_counts()) ++count;
  CHECK(state.step_count(0) == 1);
  CHECK(state.step_count(1) == 13);
  for (T const value : state.values(1, 0)) CHECK(value == T(1.5));
  for (T const value : state.values(1, 1)) CHECK(value == T(0.25));
  for (T const value : state.values(0, 0)) CHECK(value == T(0));
  for (T const value : state.values(2, 1)) CHECK(value == T(0));
}

TEST_CASE("optimizer_state: what a checkpoint cannot mean is refused and changes nothing") {
  using backend = eigen_backend<double>;
  auto host = three_tensors<double>();
  optimizer_state<backend> state({}, host.parameters(), 2);
  std::vector<double> const good(5, 1.0), wrong(4, 1.0);
  std::vector<double> poisoned(5, 1.0);
  poisoned[4] = std::numeric_limits<double>::quiet_NaN();
  CHECK_THROWS_WITH_AS(state.restore("z", 1, {good, good}),
                       "optimizer_state::restore: no trained parameter is named z", config_error);
  CHECK_THROWS_WITH_AS(state.restore("a", -1, {good, good}),
                       "optimizer_state::restore: the step count of a is -1, expected >= 0",
                       config_error);
  CHECK_THROWS_WITH_AS(state.restore("a", 1, state_values<backend>{good}),
                       "optimizer_state::restore: 1 slots are given for a, expected 2",
                       shape_error);
  CHECK_THROWS_WITH_AS(state.restore("a", 1, {good, wrong}),
                       "optimizer_state::restore: a slot of 4 elements is given for a, expected 5",
                       shape_error);
  CHECK_THROWS_WITH_AS(state.restore("a", 1, {good, poisoned}),
                       "optimizer_state::restore: a value for a is nan, expected finite",
                       config_error);
  CHECK(state.step_count(0) == 0);
  for (index_t slot = 0; slot < 2; ++slot) {
    for (double const value : state.values(0, slot)) CHECK(value == 0.0);
  }
}

TEST_CASE("optimizer_state: take_over keeps what both lists name") {
  using backend = eigen_backend<float>;
  auto host = three_tensors<float>();
  optimizer_state<backend> old({}, host.parameters(), 1);
  old.restore("a", 3, state_values<backend>{std::vector<float>(5, 1.0f)});
  old.restore("c", 4, state_values<backend>{std::vector<float>(32, 2.0f)});
  host_tensors<float> later;
  later.add("c", 1, 32).add("d", 2, 8);
  optimizer_state<backend> state({}, later.parameters(), 1);
  state.take_over(old);
  CHECK(state.step_count(0) == 4);
  CHECK(state.step_count(1) == 0);
  for (float const value : state.values(0, 0)) CHECK(value == 2.0f);
  for (float const value : state.values(1, 0)) CHECK(value == 0.0f);

  host_tensors<float> resized;
  resized.add("a", 0, 5).add("c", 1, 33);
  optimizer_state<backend> other({}, resized.parameters(), 1);
  CHECK_THROWS_WITH_AS(other.take_over(old), "rebind: c has 33 elements, its state has 32",
                       shape_error);
  for (float const value : other.values(0, 0)) CHECK(value == 0.0f);
}

TEST_CASE("optimizer_state: what is parked is taken over by name, and only at its own size") {
  using backend = eigen_backend<float>;
  auto host = three_tensors<float>();
  optimizer_state<backend> old({}, host.parameters(), 2);
  old.restore("a", 3,
              state_values<backend>{std::vector<float>(5, 1.0f), std::vector<float>(5, 2.0f)});
  auto const parked = old.parked(0);
  CHECK(parked.name == "a");
  CHECK(parked.step_count == 3);
  CHECK(parked.slots == std::vector{std::vector<float>(5, 1.0f), std::vector<float>(5, 2.0f)});

  optimizer_state<backend> state({}, host.parameters(), 2);
  state.take_over(std::vector{parked});
  CHECK(state.step_count(0) == 3);
  CHECK(state.step_count(1) == 0);
  for (float const value : state.values(0, 1)) CHECK(value == 2.0f);

  host_tensors<float> resized;
  resized.add("a", 0, 6);
  optimizer_state<backend> other({}, resized.parameters(), 2);
  CHECK_THROWS_WITH_AS(other.take_over(std::vector{parked}),
                       "rebind: a has 6 elements, its state has 5", shape_error);
  CHECK(other.step_count(0) == 0);
}
