// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#include "lamina/io/layer_patch.hpp"

#include <doctest/doctest.h>

#include <limits>

#include "tests/support/named_weights.hpp"
#include "tests/support/temporary_directory.hpp"

using lamina::bf16;
using lamina::f16;
using lamina::index_t;
using lamina::layer_patch;
using lamina::layer_patch_info;
using lamina::model_hash;
using lamina::raw_tensor;
using lamina::safetensors_file;
using lamina::safetensors_metadata;
using lamina::testing::named_weights;
using lamina::testing::temporary_directory;

namespace {

template <class T>
named_weights<T> four_layers() {
  return named_weights<T>({"layers.0.w", "layers.1.w", "layers.2.w", "layers.3.w"});
}

// The patch that sets one element of a tensor of `model`, which is changed.
template <class T>
layer_patch<T> trained(named_weights<T>& model, std::size_t tensor, float value,
                       layer_patch_info info = {}) {
  model_hash const base(model.parameters());
  model[tensor][1] = static_cast<T>(value);
  return layer_patch<T>(base, model.parameters(), info);
}

std::string refusal(auto const& call) {
  try {
    call();
  } catch (lamina::error const& error) {
    return error.what();
  }
  return "";
}

}  // namespace

TEST_CASE("training, a file, and the trained model again from the base") {
  temporary_directory const directory;
  std::string const path = directory / "patch.safetensors";
  named_weights<float> model = four_layers<float>();
  named_weights<float> engine = model;
  auto const train = [&] { model[2][0] = -0.f; };
  // [patch]
  lamina::model_hash const base(model.parameters());  // of the whole model, before training
  train();
  lamina::layer_patch patch(base, model.parameters(), {.selection = "2", .step_count = 100});
  patch.reshape("layers.2.w", {2, 2});
  patch.save(path);

  // Elsewhere, over a copy of the base:
  lamina::layer_patch<float> received{lamina::safetensors_file(path)};
  received.verify(engine.parameters());  // throws unless it fits
  received.apply(engine.parameters());   // the trained model, bit for bit
  received.revert(engine.parameters());  // the base, bit for bit
  // [/patch]
  CHECK(engine.bytes() == four_layers<float>().bytes());
  received.apply(engine.parameters());
  CHECK(engine.bytes() == model.bytes());
  CHECK(received.info().selection == "2");
  CHECK(received.info().step_count == 100);
  CHECK(received.info().lamina_version == lamina::version);
  safetensors_file const file(path);
  REQUIRE(file.tensors().size() == 1);
  CHECK(file.tensors()[0].shape == std::vector<index_t>{2, 2});
}

TEST_CASE_TEMPLATE("apply and revert give every bit back, over and over", T, float, double, bf16,
                   f16) {
  named_weights<T> model = four_layers<T>();
  std::string const base = model.bytes();
  layer_patch<T> patch = trained(model, 1, 0.1f);
  std::string const result = model.bytes();
  CHECK(patch.base_hash() != patch.result_hash());
  model = four_layers<T>();
  for (int i = 0; i < 3; ++i) {
    patch.apply(model.parameters());
    CHECK(patch.applied());
    CHECK(model.bytes() == result);
    patch.revert(model.parameters());
    CHECK_FALSE(patch.applied());
    CHECK(model.bytes() == base);
  }
}

TEST_CASE("a patch has the tensors that changed and no others, a NaN and a zero's sign included") {
  named_weights<float> model = four_layers<float>();
  model_hash const base(model.parameters());
  CHECK(layer_patch<float>(base, model.parameters()).tensors().empty());
  model[0][0] = -0.f;
  model[3][0] = std::numeric_limits<float>::quiet_NaN();
  layer_patch<float> patch(base, model.parameters());
  REQUIRE(patch.tensors().size() == 2);
  CHECK(patch.tensors()[0].name == "layers.0.w");
  CHECK(patch.tensors()[1].name == "layers.3.w");
  std::string const bytes = model.bytes();
  named_weights<float> other = four_layers<float>();
  patch.apply(other.parameters());
  CHECK(other.bytes() == bytes);
}

TEST_CASE("a model that is not the base is refused and keeps its weights") {
  named_weights<float> model = four_layers<float>();
  layer_patch<float> patch = trained(model, 1, 9);
  std::string const bytes = model.bytes();
  std::string const hashes = lamina::hex_text(patch.result_hash()) + ", the patch is for " +
                             lamina::hex_text(patch.base_hash());
  CHECK(refusal([&] { patch.verify(model.parameters()); }) ==
        "layer_patch::verify: the model has the hash " + hashes);
  CHECK(refusal([&] { patch.apply(model.parameters()); }) ==
        "layer_patch::apply: the model has the hash " + hashes);
  CHECK(refusal([&] { patch.revert(model.parameters()); }) ==
        "layer_patch::revert: the patch is not applied");
  CHECK(model.bytes() == bytes);

  model = four_layers<float>();
  patch.apply(model.parameters());
  CHECK(refusal([&] { patch.apply(model.parameters()); }) ==
        "layer_patch::apply: the patch is applied already");
  model[3][3] = 77;  // something else wrote the model meanwhile
  CHECK(refusal([&] {
          patch.revert(model.parameters());
        }).starts_with("layer_patch::revert: the model has the hash "));
  CHECK(model[1][1] == 9);
  named_weights<float> fewer({"layers.0.w"});
  CHECK(refusal([&] { patch.verify(fewer.parameters()); }) != "");
}

TEST_CASE("patches follow one another, as one or one by one") {
  named_weights<float> model = four_layers<float>();
  layer_patch<float> const first = trained(model, 1, 5, {.selection = "1", .step_count = 10});
  layer_patch<float> const second = trained(model, 2, 6, {.selection = "2", .step_count = 5});
  layer_patch<float> const third = trained(model, 1, 7, {.selection = "1", .step_count = 1});
  CHECK(second.base_hash() == first.result_hash());
  layer_patch<float> all = lamina::compose(lamina::compose(first, second), third);
  CHECK(all.tensors().size() == 2);
  CHECK(all.info().step_count == 16);
  CHECK(all.info().selection == "1,2,1");
  CHECK(all.base_hash() == first.base_hash());
  CHECK(all.result_hash() == third.result_hash());
  named_weights<float> other = four_layers<float>();
  all.apply(other.parameters());
  CHECK(other.bytes() == model.bytes());
  all.revert(other.parameters());
  CHECK(other.bytes() == four_layers<float>().bytes());
}

TEST_CASE("two patches of one base compose if they share no tensor, in either order") {
  named_weights<float> one = four_layers<float>(), two = four_layers<float>(),
                       both = four_layers<float>();
  layer_patch<float> const first = trained(one, 1, 5);
  layer_patch<float> const second = trained(two, 3, 6);
  both[1][1] = 5;
  both[3][1] = 6;
  for (layer_patch<float> composed : {compose(first, second), compose(second, first)}) {
    CHECK(composed.result_hash() == model_hash(both.parameters()).value());
    named_weights<float> model = four_layers<float>();
    composed.apply(model.parameters());
    CHECK(model.bytes() == both.bytes());
  }
  named_weights<float> three = four_layers<float>();
  layer_patch<float> const third = trained(three, 1, 8);
  CHECK(refusal([&] { compose(first, third); }) ==
        "compose: both patches of base " + lamina::hex_text(first.base_hash()) +
            " have layers.1.w, expected no common tensor");
  layer_patch<float> const fourth = trained(three, 2, 8);  // on top of the third
  CHECK(
      refusal([&] { compose(first, fourth); }).starts_with("compose: the second patch is of base"));
  CHECK(refusal([&] { compose(fourth, third); }) != "");
}

TEST_CASE("an applied patch that is saved is the way back") {
  temporary_directory const directory;
  std::string const path = directory / "back";
  named_weights<double> model = four_layers<double>();
  layer_patch<double> patch = trained(model, 1, 5);
  std::string const result = model.bytes();
  model = four_layers<double>();
  patch.apply(model.parameters());
  patch.save(path);
  layer_patch<double> back{safetensors_file(path)};
  back.apply(model.parameters());
  CHECK(model.bytes() == four_layers<double>().bytes());
}

TEST_CASE("a patch of one layer takes little more than the bytes of the layer") {
  temporary_directory const directory;
  std::string const path = directory / "patch";
  // The nine tensors of a layer of width 64, in three layers.
  std::vector<std::string> names;
  for (char const* layer : {"0", "1", "2"}) {
    for (char const* name : {"self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj",
                             "self_attn.o_proj", "mlp.gate_proj", "mlp.up_proj", "mlp.down_proj",
                             "input_layernorm", "post_attention_layernorm"}) {
      names.push_back(std::string("model.layers.") + layer + "." + name + ".weight");
    }
  }
  named_weights<float> model(names, 64 * 64);
  model_hash const base(model.parameters());
  for (std::size_t t = 9; t < 18; ++t) model[t][0] = -1;
  layer_patch<float>(base, model.parameters(), {.selection = "1"}).save(path);
  std::size_t const layer_bytes = 9 * 64 * 64 * sizeof(float);
  CHECK(lamina::read_file(path).size() < layer_bytes * 105 / 100);
  CHECK(safetensors_file(path).tensors().size() == 9);
}

TEST_CASE("a tensor's shape must have its elements") {
  named_weights<float> model = four_layers<float>();
  layer_patch<float> patch = trained(model, 1, 5);
  CHECK_THROWS_WITH_AS(patch.reshape("layers.0.w", {4}),
                       "layer_patch::reshape: the patch has no tensor layers.0.w",
                       lamina::config_error);
  CHECK_THROWS_WITH_AS(patch.reshape("layers.1.w", {2, 3}),
                       "layer_patch::reshape: layers.1.w has 4 elements, the shape has 6",
                       lamina::shape_error);
  named_weights<float> other({"x"});
  CHECK_THROWS_WITH_AS(layer_patch<float>(model_hash(model.parameters()), other.parameters()),
                       "layer_patch: the 1 parameters are not the tensors of the base, which are 4",
                       lamina::config_error);
  CHECK_THROWS_AS(layer_patch<float>(model_hash(model.parameters()), model.parameters(),
                                     {.selection = "", .step_count = -1}),
                  lamina::config_error);
}

TEST_CASE("a file that is no patch, lies or is damaged is an error that says so") {
  temporary_directory const directory;
  std::string const path = directory / "patch";
  named_weights<float> model = four_layers<float>();
  trained(model, 1, 5).save(path);
  safetensors_file const file(path);
  auto const with = [&](char const* key, char const* value) {
    safetensors_metadata metadata = file.metadata();
    if (value == nullptr) {
      metadata.erase(key);
    } else {
      metadata[key] = value;
    }
    lamina::write_safetensors(directory / "changed", file.tensors(), metadata);
    return refusal([&] {
      layer_patch<float> patch{safetensors_file(directory / "changed")};
      named_weights<float> base = four_layers<float>();
      patch.apply(base.parameters());
    });
  };
  std::string const who = "layer_patch: '" + (directory / "changed") + "'";
  CHECK(with("note", "x") == "");
  CHECK(with("format", "pt") == who + ": the format is \"pt\", expected \"lamina layer patch 1\"");
  for (char const* key : {"format", "base_hash", "result_hash", "content_hash", "selection",
                          "step_count", "lamina_version"}) {
    CHECK(with(key, nullptr) == who + " has no \"" + key + "\" in its metadata");
  }
  CHECK(with("base_hash", "xyz") == who + ": base_hash is \"xyz\", expected 16 hexadecimal digits");
  CHECK(with("step_count", "-1") == who + ": step_count is \"-1\", expected 0 or more");
  CHECK(with("step_count", "1x") != "");
  CHECK(with("base_hash", "0123456789abcdef").find("the patch is for 0123456789abcdef") !=
        std::string::npos);
  CHECK(with("result_hash", "0123456789abcdef").find("expected 0123456789abcdef") !=
        std::string::npos);
  CHECK(with("content_hash", "0123456789abcdef").find("it is corrupt") != std::string::npos);

  std::string bytes = lamina::read_file(path);
  bytes.back() ^= 1;
  CHECK(refusal([&] {
          layer_patch<float>{safetensors_file::from_bytes(bytes, "m")};
        }).ends_with("it is corrupt"));
  CHECK(refusal([&] {
          layer_patch<bf16>{safetensors_file(path)};
        }).ends_with("layers.1.w has the type F32, expected BF16"));
}
