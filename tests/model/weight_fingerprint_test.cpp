// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#include "lamina/model/weight_fingerprint.hpp"

#include <doctest/doctest.h>

#include <set>
#include <utility>
#include <vector>

#include "tests/support/minimal_model.hpp"

using namespace lamina;
using testing::minimal_model;

namespace {

template <class T>
std::uint64_t fingerprint_of(std::vector<T> const& values) {
  weight_fingerprint fingerprint;
  fingerprint.add(vector_view<T const>(values));
  return fingerprint.value();
}

// Counts what a host would count.
struct counting_model : minimal_model<float> {
  using minimal_model<float>::minimal_model;
  std::uint64_t weight_version(index_t layer) const {
    return versions[static_cast<std::size_t>(layer + 1)];
  }
  std::uint64_t versions[5] = {};
};

}  // namespace

TEST_CASE_TEMPLATE("every single bit of every element counts", T, bf16, float, double) {
  std::vector<T> values;
  for (int i = 0; i < 77; ++i) values.push_back(static_cast<T>(0.25f * static_cast<float>(i) - 5));
  std::set<std::uint64_t> seen{fingerprint_of(values)};
  auto* bytes = reinterpret_cast<unsigned char*>(values.data());
  std::size_t const size = values.size() * sizeof(T);
  for (std::size_t i = 0; i < size; ++i) {
    for (int bit = 0; bit < 8; ++bit) {
      bytes[i] = static_cast<unsigned char>(bytes[i] ^ (1u << bit));
      seen.insert(fingerprint_of(values));
      bytes[i] = static_cast<unsigned char>(bytes[i] ^ (1u << bit));
    }
  }
  CHECK(seen.size() == 8 * size + 1);
}

TEST_CASE("elements that change places, and zeros at the end, count") {
  std::vector<float> values(100);
  for (std::size_t i = 0; i < 100; ++i) values[i] = static_cast<float>(i);
  auto const before = fingerprint_of(values);
  std::swap(values[3], values[67]);  // neighbours in one lane
  CHECK(fingerprint_of(values) != before);
  std::swap(values[3], values[67]);
  CHECK(fingerprint_of(values) == before);
  CHECK(fingerprint_of(std::vector<float>(3)) != fingerprint_of(std::vector<float>(4)));
}

TEST_CASE("fingerprint_guard: the layers below and the embedding count, nothing else does") {
  minimal_model<float> model(4, 6);
  fingerprint_guard const guard;
  auto const before = guard(model, 2);
  auto const changed_by = [&](parameter_view<float> const& parameter) {
    float const old = std::exchange(parameter.weight[1], 17.0f);
    bool const changed = guard(model, 2) != before;
    parameter.weight[1] = old;
    return changed;
  };
  CHECK(changed_by(model.outer_parameters()[0]));
  CHECK(changed_by(model.parameters(0)[0]));
  CHECK(changed_by(model.parameters(1)[0]));
  CHECK_FALSE(changed_by(model.parameters(2)[0]));
  CHECK_FALSE(changed_by(model.parameters(3)[0]));
  CHECK(guard(model, 2) == before);
}

TEST_CASE("version_guard: the versions of the layers below and of what is outside count") {
  static_assert(versioned_model<counting_model> && !versioned_model<minimal_model<float>>);
  static_assert(std::is_same_v<default_guard<counting_model>, version_guard>);
  static_assert(std::is_same_v<default_guard<minimal_model<float>>, fingerprint_guard>);
  counting_model model(4, 6);
  version_guard const guard;
  std::set<std::uint64_t> seen{guard(model, 2)};
  for (std::size_t i = 0; i < 3; ++i) {  // outside, layers 0 and 1
    ++model.versions[i];
    CHECK(seen.insert(guard(model, 2)).second);
  }
  ++model.versions[3];
  CHECK_FALSE(seen.insert(guard(model, 2)).second);
}
