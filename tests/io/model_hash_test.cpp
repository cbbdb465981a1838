// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#include "lamina/io/model_hash.hpp"

#include <doctest/doctest.h>

#include <set>

#include "tests/support/named_weights.hpp"

using lamina::bf16;
using lamina::model_hash;
using lamina::tensor_hash;
using lamina::vector_view;
using lamina::xxh64;
using lamina::testing::named_weights;

TEST_CASE("xxh64 is what the xxHash library computes") {
  // Python package xxhash 4.1.0, bytes 7 i + 3 modulo 256, seeds 0 and 0x123456789abcdef0.
  struct {
    std::size_t size;
    std::uint64_t unseeded, seeded;
  } const cases[] = {
      {1, 0x1f25c8d0bc1f4bb6u, 0x1e2ea53a3040e362u},
      {3, 0x31d2363f52e564c9u, 0x05c22bc4b93347d9u},
      {4, 0x9bb64b7d66ee9fdau, 0x6f43828b2dc8c736u},
      {7, 0x9a7b149959ce60d8u, 0x8ba3f8e8dcfc9a32u},
      {8, 0xdab99d95c6f90092u, 0x311893ba9020dedfu},
      {12, 0xd52e407833af5133u, 0xe9e507001465eec1u},
      {31, 0xa2aa5f33cc4a6119u, 0x2c9e9c9d631d0aaau},
      {32, 0x23c3c17ef790fd97u, 0xd1dc5d84aebdafb4u},
      {33, 0x50a7cfc7ba588784u, 0x4c4db23e16391b47u},
      {63, 0x5e3e54b431c7493cu, 0xa89a91242f37eb2du},
      {64, 0x0eb64b3ef6eeb01fu, 0xf5d7da99a82361fbu},
      {100, 0xa61f8d4c170fe531u, 0x3c691e06b9fcc7dbu},
      {1000, 0x5f235fa033f1a3fbu, 0x2c07c91f9c8937bdu},
  };
  std::string bytes;
  for (unsigned i = 0; i < 1000; ++i) bytes += static_cast<char>(7 * i + 3);
  CHECK(xxh64("") == 0xef46db3751d8e999u);
  for (auto const& c : cases) {
    CHECK(xxh64(bytes.substr(0, c.size)) == c.unseeded);
    CHECK(xxh64(bytes.substr(0, c.size), 0x123456789abcdef0u) == c.seeded);
    // From any alignment.
    CHECK(xxh64(std::string_view("x" + bytes.substr(0, c.size)).substr(1)) == c.unseeded);
  }
}

TEST_CASE("name, type, number and every bit of a tensor count in its hash") {
  std::vector<float> const values{0, 1, 2, 3};
  std::set<std::uint64_t> hashes;
  vector_view<float const> const view = values;
  hashes.insert(tensor_hash<float>("a", view));
  hashes.insert(tensor_hash<float>("b", view));
  hashes.insert(tensor_hash<float>("a", view.subview(0, 3)));
  hashes.insert(tensor_hash<double>("a", {reinterpret_cast<double const*>(values.data()), 2}));
  hashes.insert(tensor_hash<float>("a", {}));
  hashes.insert(tensor_hash<float>("b", {}));
  CHECK(hashes.size() == 6);
  std::vector<bf16> weights(100);
  hashes = {tensor_hash<bf16>("a", vector_view<bf16 const>(weights))};
  for (std::size_t bit = 0; bit < 1600; ++bit) {
    auto const mask = static_cast<std::uint16_t>(1u << (bit % 16));
    weights[bit / 16].bits ^= mask;
    hashes.insert(tensor_hash<bf16>("a", vector_view<bf16 const>(weights)));
    weights[bit / 16].bits ^= mask;
  }
  CHECK(hashes.size() == 1601);
}

TEST_CASE("the hash of a model is the sum over its tensors, whatever their order") {
  named_weights<float> model({"a", "b", "c"});
  auto parameters = model.parameters();
  model_hash const hash(parameters);
  CHECK(hash.value() == tensor_hash<float>("a", vector_view<float const>(model[0])) +
                            tensor_hash<float>("b", vector_view<float const>(model[1])) +
                            tensor_hash<float>("c", vector_view<float const>(model[2])));
  std::swap(parameters[0], parameters[2]);
  CHECK(model_hash(parameters).value() == hash.value());
  CHECK(hash.find("b")->hash == tensor_hash<float>("b", vector_view<float const>(model[1])));
  CHECK(hash.find("d") == nullptr);
  // Two tensors that trade their values are another model.
  std::swap(model[0], model[2]);
  CHECK(model_hash(model.parameters()).value() != hash.value());
}

TEST_CASE("a model whose names are empty or not unique has no hash") {
  named_weights<float> twice({"a", "b", "a"});
  CHECK_THROWS_WITH_AS(model_hash(twice.parameters()),
                       "model_hash: the name \"a\" is empty or used twice, expected unique names",
                       lamina::config_error);
  named_weights<float> nameless({""});
  CHECK_THROWS_AS(model_hash(nameless.parameters()), lamina::config_error);
  CHECK(model_hash(std::vector<lamina::parameter_view<float>>{}).value() == 0);
}
