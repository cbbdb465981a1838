// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#include "lamina/layers/parameter_name.hpp"

#include <doctest/doctest.h>

#include <string>
#include <vector>

#include "lamina/core/random.hpp"

using namespace lamina;

namespace {

using group_is = parameter_group;
using role_is = parameter_role;

struct known_name {
  char const* name;
  parameter_place place;
};

constexpr parameter_place in_layer(index_t layer, parameter_role role, index_t expert = no_expert) {
  return {group_is::decoder_layer, layer, role, expert, false};
}
constexpr parameter_place stacked(parameter_role role) {
  return {group_is::decoder_layer, 0, role, no_expert, true};
}
constexpr parameter_place embedding{.group = group_is::embedding, .role = role_is::embedding};
constexpr parameter_place final_norm{.group = group_is::final_norm, .role = role_is::final_norm};
constexpr parameter_place head{.group = group_is::head, .role = role_is::head};
constexpr parameter_place vision{.group = group_is::vision};
constexpr parameter_place audio{.group = group_is::audio};
constexpr parameter_place mtp{.group = group_is::mtp};
constexpr parameter_place other{};

constexpr auto attention_norm = role_is::attention_norm;
constexpr auto query = role_is::attention_query;
constexpr auto key = role_is::attention_key;
constexpr auto value = role_is::attention_value;
constexpr auto output = role_is::attention_output;
constexpr auto qkv = role_is::attention_qkv;
constexpr auto query_norm = role_is::query_norm;
constexpr auto key_norm = role_is::key_norm;
constexpr auto mlp_norm = role_is::mlp_norm;
constexpr auto gate = role_is::mlp_gate;
constexpr auto up = role_is::mlp_up;
constexpr auto down = role_is::mlp_down;
constexpr auto gate_up = role_is::mlp_gate_up;
constexpr auto router = role_is::mlp_router;
constexpr auto unsaid = role_is::other;

void check_names(std::vector<known_name> const& names, name_options const& options = {}) {
  for (known_name const& known : names) {
    CAPTURE(std::string(known.name));
    parameter_place const place = parse_parameter_name(known.name, options);
    CHECK(static_cast<int>(place.group) == static_cast<int>(known.place.group));
    CHECK(place.layer == known.place.layer);
    CHECK(static_cast<int>(place.role) == static_cast<int>(known.place.role));
    CHECK(place.expert == known.place.expert);
    CHECK(place.stacked == known.place.stacked);
  }
}

}  // namespace

TEST_CASE("parse_parameter_name: Llama, Mistral, Qwen2 and Qwen3 as Hugging Face names them") {
  static_assert(parse_parameter_name("model.layers.10.self_attn.q_proj.weight") ==
                in_layer(10, query));
  check_names({
      {"model.layers.10.self_attn.q_proj.weight", in_layer(10, query)},
      {"model.layers.10.self_attn.q_proj.bias", in_layer(10, query)},
      {"model.layers.0.self_attn.k_proj.weight", in_layer(0, key)},
      {"model.layers.0.self_attn.v_proj.weight", in_layer(0, value)},
      {"model.layers.0.self_attn.o_proj.weight", in_layer(0, output)},
      {"model.layers.35.self_attn.q_norm.weight", in_layer(35, query_norm)},
      {"model.layers.35.self_attn.k_norm.weight", in_layer(35, key_norm)},
      {"model.layers.10.mlp.gate_proj.weight", in_layer(10, gate)},
      {"model.layers.10.mlp.up_proj.weight", in_layer(10, up)},
      {"model.layers.10.mlp.down_proj.weight", in_layer(10, down)},
      {"model.layers.10.input_layernorm.weight", in_layer(10, attention_norm)},
      {"model.layers.10.post_attention_layernorm.weight", in_layer(10, mlp_norm)},
      {"model.layers.10.self_attn.rotary_emb.inv_freq", in_layer(10, unsaid)},
      {"model.layers.10", in_layer(10, unsaid)},
      {"model.embed_tokens.weight", embedding},
      {"model.norm.weight", final_norm},
      {"lm_head.weight", head},
      {"score.weight", other},
  });
}

TEST_CASE("parse_parameter_name: Gemma, and language models inside of vision and audio models") {
  check_names({
      {"model.layers.3.pre_feedforward_layernorm.weight", in_layer(3, mlp_norm)},
      {"model.layers.3.post_feedforward_layernorm.weight", in_layer(3, mlp_norm)},
      {"language_model.model.layers.3.self_attn.q_norm.weight", in_layer(3, query_norm)},
      {"model.language_model.layers.0.mlp.up_proj.weight", in_layer(0, up)},
      {"model.language_model.norm.weight", final_norm},
      {"language_model.lm_head.weight", head},
      {"vision_tower.vision_model.encoder.layers.7.self_attn.q_proj.weight", vision},
      {"model.vision_tower.encoder.layers.7.mlp.fc1.weight", vision},
      {"vision_model.embeddings.patch_embedding.weight", vision},
      {"model.visual.blocks.5.attn.qkv.weight", vision},
      {"visual.merger.mlp.0.weight", vision},
      {"multi_modal_projector.linear_1.weight", vision},
      {"v.blk.5.attn_q.weight", vision},
      {"mm.0.weight", vision},
      {"audio_tower.layers.3.self_attn.q_proj.weight", audio},
      {"model.audio_tower.conformer.2.norm.weight", audio},
      {"a.blk.1.attn_q.weight", audio},
  });
}

TEST_CASE("parse_parameter_name: GPT-2, nanoGPT, LitGPT, GPT-NeoX and Phi") {
  check_names({
      {"transformer.h.0.attn.c_attn.weight", in_layer(0, qkv)},
      {"h.11.attn.c_attn.bias", in_layer(11, qkv)},
      {"h.11.attn.bias", in_layer(11, unsaid)},
      {"transformer.h.0.attn.c_proj.weight", in_layer(0, output)},
      {"transformer.h.0.mlp.c_fc.weight", in_layer(0, up)},
      {"transformer.h.0.mlp.c_proj.weight", in_layer(0, down)},
      {"transformer.h.0.ln_1.weight", in_layer(0, attention_norm)},
      {"transformer.h.0.ln_2.bias", in_layer(0, mlp_norm)},
      {"transformer.wte.weight", embedding},
      {"wpe.weight", embedding},
      {"transformer.ln_f.weight", final_norm},
      {"_orig_mod.transformer.h.3.attn.c_attn.weight", in_layer(3, qkv)},
      {"transformer.h.2.attn.attn.weight", in_layer(2, qkv)},
      {"transformer.h.2.attn.qkv.weight", in_layer(2, qkv)},
      {"transformer.h.2.attn.proj.weight", in_layer(2, output)},
      {"transformer.h.2.mlp.fc_1.weight", in_layer(2, gate)},
      {"transformer.h.2.mlp.fc_2.weight", in_layer(2, up)},
      {"transformer.h.2.mlp.proj.weight", in_layer(2, down)},
      {"transformer.h.2.norm_1.weight", in_layer(2, attention_norm)},
      {"transformer.h.2.norm_2.weight", in_layer(2, mlp_norm)},
      {"gpt_neox.layers.0.attention.query_key_value.weight", in_layer(0, qkv)},
      {"gpt_neox.layers.0.attention.dense.weight", in_layer(0, output)},
      {"gpt_neox.layers.0.mlp.dense_h_to_4h.weight", in_layer(0, up)},
      {"gpt_neox.layers.0.mlp.dense_4h_to_h.bias", in_layer(0, down)},
      {"gpt_neox.embed_in.weight", embedding},
      {"gpt_neox.final_layer_norm.weight", final_norm},
      {"embed_out.weight", head},
      {"model.layers.0.self_attn.qkv_proj.weight", in_layer(0, qkv)},
      {"model.layers.0.mlp.gate_up_proj.weight", in_layer(0, gate_up)},
      {"model.layers.0.mlp.fc2.weight", in_layer(0, down)},
  });
}

TEST_CASE("parse_parameter_name: the expert is not the layer, the router not the gate") {
  check_names({
      {"model.layers.4.mlp.experts.12.down_proj.weight", in_layer(4, down, 12)},
      {"model.layers.4.mlp.experts.127.gate_proj.weight", in_layer(4, gate, 127)},
      {"model.layers.4.mlp.gate.weight", in_layer(4, router)},
      {"model.layers.4.mlp.gate.e_score_correction_bias", in_layer(4, router)},
      {"model.layers.4.mlp.shared_experts.up_proj.weight", in_layer(4, up)},
      {"model.layers.4.mlp.shared_expert_gate.weight", in_layer(4, router)},
      {"model.layers.7.block_sparse_moe.experts.3.w1.weight", in_layer(7, gate, 3)},
      {"model.layers.7.block_sparse_moe.experts.3.w2.weight", in_layer(7, down, 3)},
      {"model.layers.7.block_sparse_moe.experts.3.w3.weight", in_layer(7, up, 3)},
      {"model.layers.7.block_sparse_moe.gate.weight", in_layer(7, router)},
      {"model.layers.2.mlp.experts.gate_up_proj", in_layer(2, gate_up)},
      {"model.layers.2.mlp.experts.gate_up_proj_bias", in_layer(2, gate_up)},
      {"model.layers.2.mlp.experts.down_proj_blocks", in_layer(2, down)},
      {"model.layers.2.mlp.router.weight", in_layer(2, router)},
      {"model.layers.5.self_attn.kv_a_proj_with_mqa.weight", in_layer(5, qkv)},
      {"model.layers.5.self_attn.q_b_proj.weight", in_layer(5, query)},
      {"model.layers.5.self_attn.q_a_layernorm.weight", in_layer(5, query_norm)},
      {"model.layers.5.mlp.down_proj.weight_scale_inv", in_layer(5, down)},
  });
}

TEST_CASE("parse_parameter_name: a multi-token-prediction block is no layer") {
  check_names({
      {"mtp.layers.0.self_attn.q_proj.weight", mtp},
      {"mtp.layers.0.transformer_layer.self_attention.linear_qkv.weight", mtp},
      {"mtp.norm.weight", mtp},
      {"model.layers.61.eh_proj.weight", mtp},
      {"model.layers.61.shared_head.norm.weight", mtp},
      {"blk.61.nextn.eh_proj.weight", mtp},
  });
  check_names({{"model.layers.60.mlp.gate.weight", in_layer(60, router)},
               {"model.layers.61.self_attn.o_proj.weight", mtp},
               {"model.layers.61.embed_tokens.weight", mtp},
               {"blk.61.attn_output.weight", mtp}},
              {.layer_count = 61});
}

TEST_CASE("parse_parameter_name: OPT, BLOOM, Falcon, MPT, ChatGLM, Mamba, T5 and BERT") {
  check_names({
      {"model.decoder.layers.5.self_attn.out_proj.weight", in_layer(5, output)},
      {"model.decoder.layers.5.self_attn_layer_norm.weight", in_layer(5, attention_norm)},
      {"model.decoder.layers.5.final_layer_norm.weight", in_layer(5, mlp_norm)},
      {"model.decoder.layers.5.fc1.weight", in_layer(5, up)},
      {"model.decoder.final_layer_norm.weight", final_norm},
      {"model.decoder.embed_positions.weight", embedding},
      {"transformer.h.4.self_attention.query_key_value.weight", in_layer(4, qkv)},
      {"transformer.h.4.self_attention.dense.weight", in_layer(4, output)},
      {"transformer.h.4.ln_mlp.weight", in_layer(4, mlp_norm)},
      {"transformer.word_embeddings.weight", embedding},
      {"transformer.blocks.9.attn.Wqkv.weight", in_layer(9, qkv)},
      {"transformer.blocks.9.ffn.down_proj.weight", in_layer(9, down)},
      {"transformer.norm_f.weight", final_norm},
      {"transformer.encoder.layers.6.self_attention.query_key_value.weight", in_layer(6, qkv)},
      {"transformer.encoder.final_layernorm.weight", final_norm},
      {"transformer.output_layer.weight", head},
      {"transformer.embedding.word_embeddings.weight", embedding},
      {"backbone.layers.2.mixer.in_proj.weight", in_layer(2, unsaid)},
      {"backbone.layers.2.mixer.out_proj.weight", in_layer(2, unsaid)},
      {"backbone.layers.2.norm.weight", in_layer(2, unsaid)},
      {"model.layers.2.pre_ff_layernorm.weight", in_layer(2, mlp_norm)},
      {"model.layers.2.mamba.dt_layernorm.weight", in_layer(2, unsaid)},
      {"backbone.norm_f.weight", final_norm},
      {"encoder.block.3.layer.0.SelfAttention.q.weight", in_layer(3, query)},
      {"encoder.block.3.layer.0.layer_norm.weight", in_layer(3, attention_norm)},
      {"encoder.block.3.layer.1.DenseReluDense.wi_0.weight", in_layer(3, gate)},
      {"encoder.block.3.layer.1.DenseReluDense.wo.weight", in_layer(3, down)},
      {"encoder.block.3.layer.1.layer_norm.weight", in_layer(3, mlp_norm)},
      {"decoder.block.3.layer.1.EncDecAttention.o.weight", in_layer(3, output)},
      {"decoder.block.3.layer.1.layer_norm.weight", in_layer(3, attention_norm)},
      {"decoder.block.3.layer.2.layer_norm.weight", in_layer(3, mlp_norm)},
      {"decoder.block.0.layer.0.SelfAttention.relative_attention_bias.weight", in_layer(0, unsaid)},
      {"shared.weight", embedding},
      {"bert.encoder.layer.8.attention.self.query.weight", in_layer(8, query)},
      {"bert.encoder.layer.8.attention.output.dense.weight", in_layer(8, output)},
      {"bert.encoder.layer.8.intermediate.dense.weight", in_layer(8, up)},
      {"bert.encoder.layer.8.output.dense.weight", in_layer(8, down)},
      {"bert.encoder.layer.8.output.LayerNorm.weight", in_layer(8, mlp_norm)},
      {"model.layers.3.linear_attn.in_proj_qkvz.weight", in_layer(3, qkv)},
      {"model.layers.3.linear_attn.A_log", in_layer(3, unsaid)},
  });
}

TEST_CASE("parse_parameter_name: Meta, TorchTitan and torchtune") {
  check_names({
      {"layers.0.attention.wq.weight", in_layer(0, query)},
      {"layers.0.attention.wo.weight", in_layer(0, output)},
      {"layers.0.attention_norm.weight", in_layer(0, attention_norm)},
      {"layers.0.ffn_norm.weight", in_layer(0, mlp_norm)},
      {"layers.0.feed_forward.w1.weight", in_layer(0, gate)},
      {"layers.0.feed_forward.w2.weight", in_layer(0, down)},
      {"layers.0.feed_forward.w3.weight", in_layer(0, up)},
      {"layers.31.attn.output_proj.weight", in_layer(31, output)},
      {"layers.31.sa_norm.scale", in_layer(31, attention_norm)},
      {"layers.31.mlp_norm.scale", in_layer(31, mlp_norm)},
      {"layers.31.mlp.w3.weight", in_layer(31, up)},
      {"tok_embeddings.weight", embedding},
      {"norm.weight", final_norm},
      {"output.weight", head},
  });
}

TEST_CASE("parse_parameter_name: Megatron-Core, whose layers count from the pipeline stage") {
  check_names({
      {"module.decoder.layers.5.mlp.linear_fc1.layer_norm_weight", in_layer(5, mlp_norm)},
      {"module.decoder.layers.5.mlp.linear_fc1.weight", in_layer(5, gate_up)},
      {"module.module.decoder.layers.5.mlp.linear_fc2.weight", in_layer(5, down)},
      {"decoder.layers.5.self_attention.linear_qkv.layer_norm_weight", in_layer(5, attention_norm)},
      {"decoder.layers.5.self_attention.linear_qkv.weight", in_layer(5, qkv)},
      {"decoder.layers.5.self_attention.linear_proj.weight", in_layer(5, output)},
      {"decoder.layers.5.self_attention.q_layernorm.weight", in_layer(5, query_norm)},
      {"decoder.layers.5.pre_mlp_layernorm.weight", in_layer(5, mlp_norm)},
      {"decoder.layers.5.mlp.router.weight", in_layer(5, router)},
      {"decoder.layers.5.mlp.experts.linear_fc1.weight17", in_layer(5, gate_up, 17)},
      {"decoder.layers.5.mlp.experts.local_experts.3.linear_fc2.weight", in_layer(5, down, 3)},
      {"decoder.final_layernorm.weight", final_norm},
      {"embedding.word_embeddings.weight", embedding},
      {"output_layer.weight", head},
  });
  check_names({{"module.decoder.layers.5.mlp.linear_fc2.weight", in_layer(21, down)},
               {"module.decoder.layers.16.mlp.linear_fc2.weight", mtp}},
              {.layer_count = 32, .first_layer = 16});
}

TEST_CASE("parse_parameter_name: GGUF") {
  check_names({
      {"blk.0.attn_q.weight", in_layer(0, query)},
      {"blk.0.attn_k.bias", in_layer(0, key)},
      {"blk.0.attn_v.weight", in_layer(0, value)},
      {"blk.0.attn_output.weight", in_layer(0, output)},
      {"blk.0.attn_qkv.weight", in_layer(0, qkv)},
      {"blk.0.attn_norm.weight", in_layer(0, attention_norm)},
      {"blk.0.attn_q_norm.weight", in_layer(0, query_norm)},
      {"blk.0.ffn_norm.weight", in_layer(0, mlp_norm)},
      {"blk.0.ffn_gate.weight", in_layer(0, gate)},
      {"blk.0.ffn_up.weight", in_layer(0, up)},
      {"blk.0.ffn_down.weight", in_layer(0, down)},
      {"blk.0.ffn_gate_exps.weight", in_layer(0, gate)},
      {"blk.0.ffn_gate.5.weight", in_layer(0, gate, 5)},
      {"blk.0.ffn_gate_inp.weight", in_layer(0, router)},
      {"blk.0.ssm_conv1d.weight", in_layer(0, unsaid)},
      {"token_embd.weight", embedding},
      {"output_norm.weight", final_norm},
      {"output.weight", head},
      {"rope_freqs.weight", other},
  });
}

TEST_CASE("parse_parameter_name: Flax, T5X, Gemma in JAX, and axes that stack the layers") {
  check_names({
      {"transformer/h/0/attn/c_attn/kernel", in_layer(0, qkv)},
      {"/h/7/mlp/c_proj/kernel", in_layer(7, down)},
      {"decoder/layers_0/self_attention/query/kernel", in_layer(0, query)},
      {"decoder/layers_12/mlp/wi_1/kernel", in_layer(12, up)},
      {"decoder/layers_12/mlp/wo/kernel", in_layer(12, down)},
      {"decoder/layers_12/self_attention/out/kernel", in_layer(12, output)},
      {"decoder/layers_12/pre_mlp_layer_norm/scale", in_layer(12, mlp_norm)},
      {"decoder/decoder_norm/scale", final_norm},
      {"decoder/logits_dense/kernel", head},
      {"token_embedder/embedding", embedding},
      {"transformer/layer_3/attn/q_einsum/w", in_layer(3, query)},
      {"transformer/layer_3/attn/kv_einsum/w", in_layer(3, qkv)},
      {"transformer/layer_3/attn/attn_vec_einsum/w", in_layer(3, output)},
      {"transformer/layer_3/mlp/gating_einsum", in_layer(3, gate_up)},
      {"transformer/layer_3/mlp/linear", in_layer(3, down)},
      {"transformer/layer_3/pre_attention_norm/scale", in_layer(3, attention_norm)},
      {"transformer/embedder/input_embedding", embedding},
      {"transformer/final_norm/scale", final_norm},
      {"params/decoder/layers/self_attention/query/kernel", stacked(query)},
      {"params/decoder/layers/mlp/wi_0/kernel", stacked(gate)},
      {"params/decoder/layers/pre_self_attention_layer_norm/scale", stacked(attention_norm)},
      {"qkvw", stacked(qkv)},
      {"attprojb", stacked(output)},
      {"ln2w", stacked(mlp_norm)},
      {"fcw", stacked(up)},
      {"fcprojw", stacked(down)},
      {"wte", embedding},
      {"wpe", embedding},
      {"lnfw", final_norm},
  });
  CHECK(parse_parameter_name("params/decoder/layers/mlp/wo/kernel",
                             {.layer_count = 40, .first_layer = 20})
            .layer == 20);
}

TEST_CASE("strip_wrappers: wherever they stand and however often") {
  std::string const plain = "model.layers.3.self_attn.q_proj.weight";
  for (char const* name :
       {"module.model.layers.3.self_attn.q_proj.weight",
        "_orig_mod.module.model.layers.3.self_attn.q_proj.weight",
        "_fsdp_wrapped_module.model.layers.3._fsdp_wrapped_module._checkpoint_wrapped_module."
        "self_attn.q_proj.weight",
        "base_model.model.model.layers.3.self_attn.q_proj.base_layer.weight",
        "base_model.model.model.layers.3.self_attn.q_proj.lora_A.default.weight",
        "base_model.model.model.layers.3.self_attn.q_proj.lora_B.weight",
        "base_model.module.model.model.layers.3.self_attn.q_proj.original_module.weight",
        "model.layers.3.self_attn.q_proj.modules_to_save.default.weight", plain.c_str()}) {
    CAPTURE(std::string(name));
    CHECK(strip_wrappers(name) == plain);
    CHECK(parse_parameter_name(name) == in_layer(3, query));
  }
  CHECK(strip_wrappers("lm_head.modules_to_save.default.weight") == "lm_head.weight");
  CHECK(strip_wrappers("params/_orig_mod/h/0.attn") == "params/h/0.attn");
  CHECK(strip_wrappers("default.model.default") == "default.model.default");
  CHECK(strip_wrappers("module") == "");
  CHECK(parse_parameter_name("module") == other);
  CHECK(parse_parameter_name("") == other);
  CHECK(parse_parameter_name("..//.") == other);
}

TEST_CASE("parse_parameter_name: numbers that are no layer of any model") {
  check_names({
      {"model.layers.511.mlp.up_proj.weight", in_layer(511, up)},
      {"model.layers.512.mlp.up_proj.weight", mtp},
      {"model.layers.-1.mlp.up_proj.weight", {group_is::decoder_layer, 0, up, no_expert, true}},
      {"model.layer.x.up_proj", other},
      {"model.layers_x.up_proj", other},
  });
  CHECK_THROWS_WITH_AS(parse_parameter_name("x", {.layer_count = 0}),
                       "parse_parameter_name: layer_count is 0, expected 1..512", config_error);
  CHECK_THROWS_WITH_AS(parse_parameter_name("x", {.layer_count = 4, .first_layer = 4}),
                       "parse_parameter_name: first_layer is 4, expected 0..3", config_error);
}

TEST_CASE("parse_parameter_name: wrappers put anywhere into a name change nothing") {
  char const* const wrappers[] = {"module", "_orig_mod", "base_model.model", "lora_A.default",
                                  "_fsdp_wrapped_module"};
  counter_generator random(11);
  for (char const* const name :
       {"model.layers.7.block_sparse_moe.experts.3.w1.weight", "transformer/h/0/attn/c_attn/kernel",
        "encoder.block.3.layer.1.layer_norm.weight", "v.blk.5.attn_q.weight", "lm_head.weight"}) {
    for (int i = 0; i < 200; ++i) {
      std::string wrapped;
      for (char const* c = name;; ++c) {
        bool const at_start = c == name || c[-1] == '.' || c[-1] == '/';
        while (at_start && random.below(3) == 0) {
          wrapped += std::string(wrappers[random.below(5)]) + (c == name ? '.' : c[-1]);
        }
        if (*c == '\0') break;
        wrapped += *c;
      }
      CAPTURE(wrapped);
      REQUIRE(strip_wrappers(wrapped) == name);
      REQUIRE(parse_parameter_name(wrapped) == parse_parameter_name(name));
    }
  }
}
