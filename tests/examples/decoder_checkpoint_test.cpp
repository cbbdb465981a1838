// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// Checkpoints: what is read is what was written, and nothing else is ever accepted.
#include "examples/decoder/checkpoint.hpp"

#include <doctest/doctest.h>

#include <fstream>
#include <functional>

#include "lamina/backend/eigen.hpp"
#include "tests/examples/decoder_cases.hpp"
#include "tests/support/temporary_directory.hpp"

using namespace decoder;
using namespace decoder::testing;
using lamina::format_error;

namespace {

template <class T>
using model_of = transformer<lamina::eigen_backend<T>>;

config everything() { return small_configs()[4].shape; }

template <class T = float>
model_of<T> random_model(config const& shape, std::uint64_t seed) {
  model_of<T> model({}, shape);
  randomize(model, seed);
  return model;
}

template <class Model>
auto weights_of(Model& model) {
  std::vector<std::vector<typename Model::scalar_type>> result;
  for (auto const& parameter : lamina::all_parameters(model)) {
    result.push_back(copy_of(parameter.weight));
  }
  return result;
}

std::string bytes_of_file(std::string const& path) {
  std::ifstream file(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(file), {}};
}

void write_bytes(std::string const& path, std::string const& bytes) {
  std::ofstream(path, std::ios::binary) << bytes;
}

/// The message with the path replaced by its name.
std::string refusal(std::string const& path, config const& shape, std::string const& settings) {
  auto model = random_model(shape, 99);
  auto const before = weights_of(model);
  std::string message = "accepted";
  try {
    load_checkpoint(path, model, settings);
  } catch (format_error const& e) {
    message = e.what();
    message.replace(message.find(path), path.size(), "FILE");
  }
  CHECK(weights_of(model) == before);
  return message;
}

}  // namespace

TEST_CASE_TEMPLATE("decoder checkpoint: weights come back bit for bit", T, float, double) {
  lamina::testing::temporary_directory const directory;
  for (named_config const& entry : small_configs()) {
    CAPTURE(entry.name);
    config const& shape = entry.shape;
    auto const path = directory / "model.ckpt";
    auto saved = random_model<T>(shape, 5);
    save_checkpoint(path, saved, "seed 5");
    auto loaded = random_model<T>(shape, 6);
    load_checkpoint(path, loaded, "seed 5");
    CHECK(weights_of(loaded) == weights_of(saved));
  }
  CHECK(directory.entries() == std::vector<std::string>{"model.ckpt"});
}

TEST_CASE("decoder checkpoint: another shape, scalar or setting is refused by name") {
  lamina::testing::temporary_directory const directory;
  auto const path = directory / "model.ckpt";
  auto const model = random_model(everything(), 5);
  save_checkpoint(path, model, "math, seed 5");
  CHECK(refusal(path, everything(), "math, seed 6") ==
        "decoder::load_checkpoint: 'FILE' has settings=math, seed 5 in line 1, expected "
        "settings=math, seed 6");
  auto const with = [&](auto const& change) {
    config shape = everything();
    change(shape);
    return refusal(path, shape, "math, seed 5");
  };
  CHECK(with([](config& s) { s.layer_count = 4; }) ==
        "decoder::load_checkpoint: 'FILE' has layer_count=3 in line 1, expected layer_count=4");
  CHECK(with([](config& s) { s.ffn_width = 13; }) ==
        "decoder::load_checkpoint: 'FILE' has ffn_width=12 in line 1, expected ffn_width=13");
  CHECK(with([](config& s) { s.rope_theta = 10000; }) ==
        "decoder::load_checkpoint: 'FILE' has rope_theta=1000 in line 1, expected "
        "rope_theta=10000");
  CHECK(with([](config& s) { s.tied_head = false; }) ==
        "decoder::load_checkpoint: 'FILE' has tied_head=1 in line 1, expected tied_head=0");
  save_checkpoint(path, random_model<double>(everything(), 5), "math, seed 5");
  CHECK(refusal(path, everything(), "math, seed 5") ==
        "decoder::load_checkpoint: 'FILE' has scalar=float64 little endian in line 1, expected "
        "scalar=float32 little endian");
}

TEST_CASE("decoder checkpoint: a damaged file is refused and changes no weight") {
  lamina::testing::temporary_directory const directory;
  auto const path = directory / "model.ckpt";
  save_checkpoint(path, random_model(everything(), 5), "s");
  std::string const good = bytes_of_file(path);
  std::size_t const data = 4 * 2064;  // elements of the model
  std::size_t const header = good.size() - data;
  auto const damaged = [&](std::function<void(std::string&)> const& damage) {
    std::string bad = good;
    damage(bad);
    REQUIRE(bad != good);
    write_bytes(path, bad);
    return refusal(path, everything(), "s");
  };
  std::string const prefix = "decoder::load_checkpoint: 'FILE' ";

  CHECK(damaged([](std::string& b) { b.clear(); }) ==
        prefix + "does not begin with 'lamina decoder checkpoint'");
  CHECK(damaged([](std::string& b) { b[0] = 'L'; }) ==
        prefix + "does not begin with 'lamina decoder checkpoint'");
  CHECK(damaged([](std::string& b) { b = "{\"epoch\": 3}\n"; }) ==
        prefix + "does not begin with 'lamina decoder checkpoint'");
  CHECK(damaged([](std::string& b) { b.resize(60); }) ==
        prefix + "ends in line 1 after 60 bytes: it is truncated");
  CHECK(damaged([](std::string& b) { b[40] = static_cast<char>(b[40] ^ 1); }) ==
        prefix + "has a wrong checksum in line 1: it is corrupt");
  CHECK(damaged([](std::string& b) {
          std::size_t const at = b.find("q_proj");
          b[at] = 'k';
        }) == prefix + "has a wrong checksum in line 5: it is corrupt");
  CHECK(damaged([&](std::string& b) { b.resize(header); }) ==
        prefix + "has 0 bytes of data, expected 8256: it is truncated");
  CHECK(damaged([](std::string& b) { b.pop_back(); }) ==
        prefix + "has 8255 bytes of data, expected 8256: it is truncated");
  CHECK(damaged([](std::string& b) { b += '\0'; }) ==
        prefix + "has 8257 bytes of data, expected 8256: something follows them");
  CHECK(damaged([&](std::string& b) {
          b[header] = static_cast<char>(b[header] ^ 64);
        }).starts_with(prefix + "has data with checksum "));
  CHECK(damaged([](std::string& b) {
          b.back() = static_cast<char>(b.back() ^ 1);
        }).ends_with(": it is corrupt"));
  CHECK(damaged([](std::string& b) { b += b; }).ends_with("something follows them"));

  // Lines that are whole, but not the right ones.
  auto const replace_line = [&](std::string const& old_line, std::vector<std::string> const& line) {
    return damaged([&](std::string& b) {
      std::size_t const at = b.find(old_line), end = b.find('\n', at);
      b.replace(at, end + 1 - at, lamina::encode_record(line));
    });
  };
  CHECK(replace_line("lamina decoder", {"lamina decoder checkpoint", "version=2"}) ==
        prefix + "has version=2 in line 1, expected version=1");
  CHECK(replace_line("model.norm.weight", {"model.norm.bias", "elements=8"}) ==
        prefix + "has model.norm.bias in line 3, expected model.norm.weight");
  CHECK(replace_line("model.norm.weight", {"model.norm.weight", "elements=99999999999999"}) ==
        prefix + "has elements=99999999999999 in line 3, expected elements=8");
  CHECK(replace_line("data", {"model.extra.weight", "elements=1"}) ==
        prefix + "has model.extra.weight in line 46, expected data");

  // Cut anywhere, it is refused.
  for (std::size_t size = 0; size < good.size(); size += 97) {
    write_bytes(path, good.substr(0, size));
    CHECK(refusal(path, everything(), "s") != "accepted");
  }
  write_bytes(path, good);
  CHECK(refusal(path, config(everything()), "t") != "accepted");
}

TEST_CASE("decoder checkpoint: a file that cannot be read or written is an io_error") {
  lamina::testing::temporary_directory const directory;
  auto model = random_model(everything(), 5);
  CHECK_THROWS_AS(load_checkpoint(directory / "absent", model, "s"), lamina::io_error);
  CHECK_THROWS_AS(load_checkpoint(directory.path(), model, "s"), lamina::io_error);
  CHECK_THROWS_AS(save_checkpoint(directory / "no/such/directory", model, "s"), lamina::io_error);
  CHECK(directory.entries().empty());
}
