// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#include "lamina/layers/tensor_selection_text.hpp"

#include <doctest/doctest.h>

#include <limits>

#include "lamina/core/random.hpp"

using namespace lamina;

namespace {

constexpr double unmeasured = std::numeric_limits<double>::quiet_NaN();

// Six layers of the Llama family, a tied or a separate head.
std::vector<std::string> llama_names(bool tied = false) {
  std::vector<std::string> names = {"model.embed_tokens.weight"};
  for (int layer = 0; layer < 6; ++layer) {
    std::string const prefix = "model.layers." + std::to_string(layer) + ".";
    for (char const* part : {"input_layernorm", "self_attn.q_proj", "self_attn.k_proj",
                             "self_attn.v_proj", "self_attn.o_proj", "post_attention_layernorm",
                             "mlp.gate_proj", "mlp.up_proj", "mlp.down_proj"}) {
      names.push_back(prefix + part + ".weight");
    }
  }
  names.push_back("model.norm.weight");
  if (!tied) names.push_back("lm_head.weight");
  return names;
}

std::vector<std::string> const llama = llama_names();
std::vector<model_tensor> const tensors = model_tensors(llama);

std::vector<double> profiles(std::string_view name) {
  if (name == "profile.json") return {0.2, 0.9, unmeasured, 0.9, -0.1, 0.5};
  if (name == "other.json") return {1, 2};
  if (name.empty()) return {5, 4, 3, 2, 1, 0};
  return {};
}

tensor_selection read(std::string_view text) { return parse_selection(text, 6, tensors, profiles); }

std::string message_of(std::string_view text, std::vector<model_tensor> const& model = tensors) {
  try {
    parse_selection(text, 6, model, profiles);
  } catch (selection_error const& problem) {
    return problem.what();
  }
  return "no error";
}

bool message_has(std::string_view text, std::string_view part) {
  std::string const message = message_of(text);
  if (message.find(part) != std::string::npos) return true;
  MESSAGE(message);
  return false;
}

parameter_selection whole(layer_set const& layers) { return parameter_selection(6).add(layers); }

std::string const exists =
    "the model has layers 0..5, the roles attention, mlp, norms, attention.norm, attention.q, "
    "attention.k, attention.v, attention.o, mlp.norm, mlp.gate, mlp.up, mlp.down and, outside the "
    "layers, embeddings, final_norm, head; its tensors are model.embed_tokens.weight, "
    "model.layers.0.input_layernorm.weight, model.layers.0.self_attn.q_proj.weight, ...";

}  // namespace

TEST_CASE("parse_selection: every form of parse_layers selects whole layers") {
  for (char const* text : {"3", "1-4", "first:2", "last:3", "middle:2", "every:2", "every:4+1",
                           "!0", "!1-3", "0,2-3", " 5 , 1 ", "none,2", "all"}) {
    CAPTURE(std::string(text));
    CHECK(read(text).by_role() == whole(parse_layers(text, 6)));
    CHECK(parse_selection(text, 6) == read(text));
  }
  CHECK(read("*").by_role() == whole(all_layers(6)));
}

TEST_CASE("parse_selection: roles in layers, names outside of them, and their unions") {
  // [forms]
  auto const mlp_of_two = parse_selection("2-3:mlp", 6);
  auto const outputs = parse_selection("*:attention.o", 6);
  auto const mixed = parse_selection("5:attention.q+attention.k, first:1, final_norm", 6);
  // [/forms]
  CHECK(mlp_of_two.by_role() == parameter_selection(6).add(layer_range(2, 3), mlp_roles));
  CHECK(outputs.by_role() ==
        parameter_selection(6).add(all_layers(6), roles(parameter_role::attention_output)));
  CHECK(mixed.by_role() == parameter_selection(6)
                               .add(single_layer(5), roles(parameter_role::attention_query,
                                                           parameter_role::attention_key))
                               .add(single_layer(0))
                               .add_outside(roles(parameter_role::final_norm)));
  CHECK(read("every:4+1:mlp").by_role() ==
        parameter_selection(6).add(every_layer(6, 4, 1), mlp_roles));
  CHECK(read("embeddings,head").by_role() ==
        parameter_selection(6).add_outside(roles(parameter_role::embedding, parameter_role::head)));
}

TEST_CASE("parse_selection: a complement stays where its item is") {
  CHECK(read("!2-3:mlp").by_role() ==
        whole(complement(layer_range(2, 3), 6)).add(layer_range(2, 3), layer_roles - mlp_roles));
  CHECK(read("!*:mlp").by_role() ==
        parameter_selection(6).add(all_layers(6), layer_roles - mlp_roles));
  CHECK(read("!embeddings").by_role() == parameter_selection(6).add_outside(roles(
                                             parameter_role::final_norm, parameter_role::head)));
  CHECK(read("all,!embeddings").by_role() ==
        whole(all_layers(6)).add_outside(roles(parameter_role::final_norm, parameter_role::head)));
}

TEST_CASE("parse_selection: the best layers of a profile that the caller looks up") {
  CHECK(read("top:2@profile.json").by_role() == whole(single_layer(1) | single_layer(3)));
  CHECK(read("worst:1@profile.json:mlp").by_role() ==
        parameter_selection(6).add(single_layer(4), mlp_roles));
  CHECK(read("top:1").by_role() == whole(single_layer(0)));
  CHECK(message_has("top:1@lost.json",
                    "\"top:1@lost.json\" in \"top:1@lost.json\": there is no contribution profile "
                    "\"lost.json\""));
  CHECK(message_has("top:1@other.json", "the profile has 2 layers, the model has 6"));
  CHECK(message_has("top:6@profile.json", "k is 6, but the profile has 5 measured layers of 6"));
  CHECK(message_has("top:1@", "expected the name of a profile behind \"@\""));
  CHECK_THROWS_WITH_AS(parse_selection("top:1", 6),
                       "parse_selection: \"top:1\" in \"top:1\": needs a contribution profile, and "
                       "none is given",
                       selection_error);
}

TEST_CASE("parse_selection: a pattern selects exactly the tensors whose names hold it") {
  tensor_selection const selection = read("/layers\\.[1-2]\\..*(q|k)_proj/,4:mlp.down");
  std::vector<std::string> chosen;
  for (model_tensor const& tensor : tensors) {
    if (selection.contains(tensor)) chosen.emplace_back(tensor.name);
  }
  CHECK(chosen == std::vector<std::string>{"model.layers.1.self_attn.q_proj.weight",
                                           "model.layers.1.self_attn.k_proj.weight",
                                           "model.layers.2.self_attn.q_proj.weight",
                                           "model.layers.2.self_attn.k_proj.weight",
                                           "model.layers.4.mlp.down_proj.weight"});
  CHECK(selection.covering() == parameter_selection(6)
                                    .add(layer_range(1, 2), roles(parameter_role::attention_query,
                                                                  parameter_role::attention_key))
                                    .add(single_layer(4), roles(parameter_role::mlp_down)));
  CHECK(read("!/layers/").covering() == parameter_selection(6).add_outside(outer_roles));
  CHECK(read("/norm.{0,7}$/").covering().layers() == all_layers(6));  // a comma is no end
}

TEST_CASE("to_text: canonical, and parse_selection brings the same back") {
  auto const canonical = [](std::string_view text) { return to_text(read(text)); };
  CHECK(canonical("5,0-2,3") == "0-3,5");
  CHECK(canonical("0-5") == "all");
  CHECK(canonical("*:mlp.up+mlp.down") == "*:mlp.up+mlp.down");
  CHECK(canonical("2:mlp,3:mlp,2:attention") == "2:attention+mlp,3:mlp");
  CHECK(canonical("head,embeddings,1:norms,!/layers/,/q_proj/,/q_proj/") ==
        "1:norms,embeddings,head,!/layers/,/q_proj/");
  CHECK(to_text(parse_selection("2:mlp,3:mlp,2:attention,2:other", 6)) == "2,3:mlp");
  CHECK(to_text(parameter_selection(6)) == "none");
}

TEST_CASE("to_text: random selections of items come back, with tensors and without") {
  char const* const items[] = {"3",        "0-2",        "first:1",       "last:2", "!4",
                               "every:3",  "2:mlp",      "*:attention.o", "!*:mlp", "!1-2:norms",
                               "5:other",  "embeddings", "final_norm",    "head",   "!head",
                               "/q_proj/", "!/layers/",  "/\\.1\\..*w/",  "all",    "top:2"};
  counter_generator random(8);
  int parsed = 0;
  for (int i = 0; i < 3000; ++i) {
    std::string text;
    for (std::uint32_t n = 0, count = 1 + random.below(4); n < count; ++n) {
      if (n > 0) text += ',';
      text += items[random.below(20)];
    }
    CAPTURE(text);
    for (bool const with_tensors : {true, false}) {
      vector_view<model_tensor const> const model = with_tensors
                                                        ? vector_view<model_tensor const>(tensors)
                                                        : vector_view<model_tensor const>();
      try {
        tensor_selection const selection = parse_selection(text, 6, model, profiles);
        REQUIRE(parse_selection(to_text(selection), 6, model) == selection);
        REQUIRE(to_text(parse_selection(to_text(selection), 6, model)) == to_text(selection));
        ++parsed;
      } catch (selection_error const&) {
      }
    }
  }
  CHECK(parsed > 2000);
}

TEST_CASE("parse_selection: what selects nothing lists what exists") {
  CHECK(message_of("") == "parse_selection: the text is empty; " + exists);
  CHECK(message_of("none") == "parse_selection: \"none\" selects nothing; " + exists);
  CHECK(message_of("2:attention.qkv") ==
        "parse_selection: \"2:attention.qkv\" in \"2:attention.qkv\": selects no tensor; " +
            exists);
  CHECK(message_of("1,/q_porj/") ==
        "parse_selection: \"/q_porj/\" in \"1,/q_porj/\": matches no tensor; " + exists);
  CHECK(message_has("all,!all:mlp,5:other", "\"5:other\" in \"all,!all:mlp,5:other\""));
  CHECK_THROWS_WITH_AS(
      parse_selection("none", 2),
      "parse_selection: \"none\" selects nothing; the model has layers 0..1, the roles attention, "
      "mlp, norms, attention.norm, attention.q, attention.k, attention.v, attention.qkv, "
      "attention.o, attention.q_norm, attention.k_norm, mlp.norm, mlp.gate, mlp.up, mlp.gate_up, "
      "mlp.down, mlp.router, other and, outside the layers, embeddings, final_norm, head",
      selection_error);
}

TEST_CASE("parse_selection: everything has to be asked for by name") {
  for (char const* text :
       {"!none", "every:1", "first:6", "first:3,last:3", "0,!0", "/layers/", "/./,3", "!/zzz/"}) {
    CAPTURE(std::string(text));
    CHECK(message_has(text, "selects every "));
  }
  CHECK_THROWS_AS(parse_selection("!none", 6), selection_error);
  for (char const* text : {"all", "*", "0-5", "0,1,2,3,4,5", "all,/q_proj/",
                           "*:attention,*:mlp,*:other", "all,embeddings,final_norm,head"}) {
    CAPTURE(std::string(text));
    if (std::string(text).find("other") == std::string::npos) {
      CHECK(read(text).covering().layers() == all_layers(6));
    } else {
      CHECK(parse_selection(text, 6).by_role() == whole(all_layers(6)));
    }
  }
  CHECK(parse_selection("0", 1).by_role().layers() == single_layer(0));
}

TEST_CASE("parse_selection: a head tied to the embeddings is selected as embeddings") {
  std::vector<std::string> const names = llama_names(true);
  auto const tied = model_tensors(names);
  CHECK(message_of("head", tied).find("a head tied to the embeddings is selected as embeddings") !=
        std::string::npos);
  CHECK(parse_selection("embeddings,head", 6, tied).covering() ==
        parameter_selection(6).add_outside(roles(parameter_role::embedding)));
}

TEST_CASE("parse_selection: a role that only some layers have selects these layers") {
  std::vector<std::string> const names = {"layers.0.mixer.in_proj.weight",
                                          "layers.1.attention.wq.weight",
                                          "layers.1.feed_forward.w1.weight"};
  auto const hybrid = model_tensors(names);
  auto const selection = parse_selection("*:attention.q", 2, hybrid);
  CHECK(to_text(selection) == "1:attention.q");
  CHECK(selection.covering().layers() == single_layer(1));
}

TEST_CASE("parse_selection: tensors that no plan trains are refused by name") {
  std::vector<std::string> const names = {"visual.blocks.0.attn.qkv.weight",
                                          "layers.0.attention.wq.weight",
                                          "layers.1.attention.wq.weight"};
  auto const model = model_tensors(names);
  CHECK(
      message_of("/att/", model) ==
      "parse_selection: \"/att/\" in \"/att/\": matches visual.blocks.0.attn.qkv.weight, which is "
      "in no decoder layer and neither embedding, final norm nor head");
  CHECK(parse_selection("!/s\\.1/", 2, model).covering().layers() == single_layer(0));
}

TEST_CASE("parse_selection: bad items name the item, the text and what was expected") {
  auto const in = [](std::string const& item, std::string const& text, std::string const& what) {
    return "parse_selection: \"" + item + "\" in \"" + text + "\": " + what;
  };
  std::string const forms =
      "expected a layer (7), a range (13-22), first:k, last:k, middle:k, top:k, worst:k, "
      "top:k@PROFILE, every:n, every:n+offset, all, * or none, each with :ROLES or without; "
      "embeddings, final_norm or head; /PATTERN/; with ! in front for the complement";
  CHECK(message_of("3,foo") == in("foo", "3,foo", forms));
  CHECK(message_of("!") == in("!", "!", forms));
  CHECK(message_of("! 3") == in("! 3", "! 3", forms));
  CHECK(message_of("embeddings:mlp") == in("embeddings:mlp", "embeddings:mlp", forms));
  CHECK(message_of("3,,4") == in("", "3,,4", "the item is empty, expected a layer or a selector"));
  CHECK(message_of("6") == in("6", "6", "layer 6 does not exist, expected 0..5"));
  CHECK(message_of("1,6:mlp") == in("6:mlp", "1,6:mlp", "layer 6 does not exist, expected 0..5"));
  CHECK(message_has("3:mpl", "\"3:mpl\" in \"3:mpl\": \"mpl\" is no role, expected attention, "));
  CHECK(message_of("3,/a") == in("/a", "3,/a", "expected a closing \"/\""));
  CHECK(message_of("/a\\/") == in("/a\\/", "/a\\/", "expected a closing \"/\""));
  CHECK(message_of("/a/b/") == in("/a/b/", "/a/b/", "expected a comma behind the pattern"));
  CHECK(message_of("3,/(a/") ==
        in("/(a/", "3,/(a/", "at offset 2 of the pattern \"(a\": expected \")\""));
  CHECK(message_of("//") == in("//", "//", "the pattern is empty"));
  CHECK_THROWS_WITH_AS(
      parse_selection("/q_proj/", 6),
      "parse_selection: \"/q_proj/\" in \"/q_proj/\": needs the names of the model's tensors, and "
      "none are given",
      selection_error);
  CHECK_THROWS_WITH_AS(parse_selection("all", 0),
                       "parse_selection: layer_count is 0, expected 1..512", config_error);
}
