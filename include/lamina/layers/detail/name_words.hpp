// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// The words that the ecosystems write into parameter names, and what each says about a tensor.
#pragma once

#include <string_view>

#include "lamina/fwd.hpp"

LAMINA_NAMESPACE_BEGIN

namespace detail {

using name_text = std::string_view;

constexpr bool has_text(name_text text, name_text part) noexcept {
  return text.find(part) != name_text::npos;
}
template <std::size_t Size>
constexpr bool is_one_of(name_text word, name_text const (&words)[Size]) noexcept {
  for (name_text const candidate : words) {
    if (word == candidate) return true;
  }
  return false;
}

// What wraps a module without being one: DataParallel and Megatron, torch.compile, FSDP, activation
// checkpointing, DeepSpeed, PEFT.
inline constexpr name_text wrapper_words[] = {
    "module",          "_orig_mod",  "_fsdp_wrapped_module", "_checkpoint_wrapped_module",
    "_forward_module", "base_layer", "original_module"};
// PEFT's, which its adapter's name "default" may follow.
inline constexpr name_text adapter_words[] = {"lora_A", "lora_B", "lora_embedding_A",
                                              "lora_embedding_B", "modules_to_save"};

// What a number may follow that counts decoder layers; also layers_3, layer_3, ...
inline constexpr name_text block_words[] = {"layers", "layer", "h", "blk", "block", "blocks"};
// What stands before a stacked layer without a number.
inline constexpr name_text stack_words[] = {"layers", "blocks"};

inline constexpr name_text mtp_words[] = {"nextn", "eh_proj", "enorm", "hnorm", "shared_head"};
inline constexpr name_text vision_words[] = {
    "vit", "image_encoder", "img_processor", "multi_modal_projector", "mm_projector",
    "mm",  "image_newline", "img_embed",     "patch_embed",           "connector"};

inline constexpr name_text embedding_words[] = {"embed_tokens",
                                                "wte",
                                                "wpe",
                                                "embed_in",
                                                "tok_embeddings",
                                                "token_embd",
                                                "embeddings",
                                                "embedding",
                                                "word_embeddings",
                                                "position_embeddings",
                                                "embed",
                                                "emb",
                                                "shared",
                                                "token_embedder",
                                                "input_embedding",
                                                "embedder",
                                                "position_embd",
                                                "embed_positions"};
inline constexpr name_text final_norm_words[] = {
    "norm",   "ln_f",       "final_layernorm", "final_layer_norm", "output_norm", "norm_f",
    "ln_out", "final_norm", "decoder_norm",    "encoder_norm",     "lnfw",        "lnfb"};
inline constexpr name_text head_words[] = {"lm_head",   "output",       "output_layer",
                                           "embed_out", "logits_dense", "logits_linear",
                                           "head",      "unembed"};

struct name_word {
  name_text word;
  parameter_role role;
};

using role_is = parameter_role;

// Words that say the role wherever in a layer they stand. post_attention_layernorm is the norm in
// front of the MLP in Llama's names (Gemma 2 puts it behind attention); GGUF's and JAX's
// post_attention_norm stands behind attention.
inline constexpr name_word role_words[] = {
    {"input_layernorm", role_is::attention_norm},
    {"input_layer_norm", role_is::attention_norm},
    {"ln_1", role_is::attention_norm},
    {"ln1", role_is::attention_norm},
    {"norm_1", role_is::attention_norm},
    {"ln_attn", role_is::attention_norm},
    {"attention_norm", role_is::attention_norm},
    {"attn_norm", role_is::attention_norm},
    {"attn_norm_2", role_is::attention_norm},
    {"sa_norm", role_is::attention_norm},
    {"attention_layernorm", role_is::attention_norm},
    {"self_attn_layer_norm", role_is::attention_norm},
    {"encoder_attn_layer_norm", role_is::attention_norm},
    {"pre_attention_norm", role_is::attention_norm},
    {"pre_attention_layer_norm", role_is::attention_norm},
    {"pre_self_attention_norm", role_is::attention_norm},
    {"pre_self_attention_layer_norm", role_is::attention_norm},
    {"pre_cross_attention_layer_norm", role_is::attention_norm},
    {"post_attention_norm", role_is::attention_norm},
    {"post_self_attn_layernorm", role_is::attention_norm},
    {"attn_output_norm", role_is::attention_norm},
    {"ln1w", role_is::attention_norm},
    {"ln1b", role_is::attention_norm},
    {"post_attention_layernorm", role_is::mlp_norm},
    {"post_attention_layer_norm", role_is::mlp_norm},
    {"post_self_attention_layer_norm", role_is::mlp_norm},
    {"pre_feedforward_layernorm", role_is::mlp_norm},
    {"post_feedforward_layernorm", role_is::mlp_norm},
    {"pre_mlp_layernorm", role_is::mlp_norm},
    {"post_mlp_layernorm", role_is::mlp_norm},
    {"pre_mlp_layer_norm", role_is::mlp_norm},
    {"pre_ff_layernorm", role_is::mlp_norm},
    {"pre_ffw_norm", role_is::mlp_norm},
    {"post_ffw_norm", role_is::mlp_norm},
    {"ln_2", role_is::mlp_norm},
    {"ln2", role_is::mlp_norm},
    {"norm_2", role_is::mlp_norm},
    {"ln_mlp", role_is::mlp_norm},
    {"ffn_norm", role_is::mlp_norm},
    {"mlp_norm", role_is::mlp_norm},
    {"mlp_layer_norm", role_is::mlp_norm},
    {"final_layer_norm", role_is::mlp_norm},
    {"layer_output_norm", role_is::mlp_norm},
    {"ln2w", role_is::mlp_norm},
    {"ln2b", role_is::mlp_norm},
    {"q_norm", role_is::query_norm},
    {"q_layernorm", role_is::query_norm},
    {"q_a_layernorm", role_is::query_norm},
    {"query_norm", role_is::query_norm},
    {"attn_q_norm", role_is::query_norm},
    {"attn_q_a_norm", role_is::query_norm},
    {"k_norm", role_is::key_norm},
    {"k_layernorm", role_is::key_norm},
    {"kv_a_layernorm", role_is::key_norm},
    {"key_norm", role_is::key_norm},
    {"attn_k_norm", role_is::key_norm},
    {"attn_kv_a_norm", role_is::key_norm},
    {"q_proj", role_is::attention_query},
    {"q_a_proj", role_is::attention_query},
    {"q_b_proj", role_is::attention_query},
    {"wq", role_is::attention_query},
    {"attn_q", role_is::attention_query},
    {"attn_q_a", role_is::attention_query},
    {"attn_q_b", role_is::attention_query},
    {"q_einsum", role_is::attention_query},
    {"k_proj", role_is::attention_key},
    {"wk", role_is::attention_key},
    {"attn_k", role_is::attention_key},
    {"attn_k_b", role_is::attention_key},
    {"v_proj", role_is::attention_value},
    {"wv", role_is::attention_value},
    {"attn_v", role_is::attention_value},
    {"attn_v_b", role_is::attention_value},
    {"o_proj", role_is::attention_output},
    {"linear_proj", role_is::attention_output},
    {"attn_output", role_is::attention_output},
    {"attn_vec_einsum", role_is::attention_output},
    {"attprojw", role_is::attention_output},
    {"attprojb", role_is::attention_output},
    {"c_attn", role_is::attention_qkv},
    {"qkv_proj", role_is::attention_qkv},
    {"query_key_value", role_is::attention_qkv},
    {"Wqkv", role_is::attention_qkv},
    {"wqkv", role_is::attention_qkv},
    {"qkv", role_is::attention_qkv},
    {"linear_qkv", role_is::attention_qkv},
    {"attn_qkv", role_is::attention_qkv},
    {"in_proj_qkvz", role_is::attention_qkv},
    {"qkv_einsum", role_is::attention_qkv},
    {"kv_einsum", role_is::attention_qkv},
    {"kv_a_proj_with_mqa", role_is::attention_qkv},
    {"kv_b_proj", role_is::attention_qkv},
    {"attn_kv_a_mqa", role_is::attention_qkv},
    {"attn_kv_b", role_is::attention_qkv},
    {"qkvw", role_is::attention_qkv},
    {"qkvb", role_is::attention_qkv},
    {"gate_proj", role_is::mlp_gate},
    {"wi_0", role_is::mlp_gate},
    {"fc_1", role_is::mlp_gate},
    {"ffn_gate", role_is::mlp_gate},
    {"ffn_gate_exps", role_is::mlp_gate},
    {"ffn_gate_shexp", role_is::mlp_gate},
    {"up_proj", role_is::mlp_up},
    {"wi", role_is::mlp_up},
    {"wi_1", role_is::mlp_up},
    {"fc_2", role_is::mlp_up},
    {"ffn_up", role_is::mlp_up},
    {"ffn_up_exps", role_is::mlp_up},
    {"ffn_up_shexp", role_is::mlp_up},
    {"c_fc", role_is::mlp_up},
    {"fc", role_is::mlp_up},
    {"fc1", role_is::mlp_up},
    {"fc_in", role_is::mlp_up},
    {"dense_h_to_4h", role_is::mlp_up},
    {"fcw", role_is::mlp_up},
    {"fcb", role_is::mlp_up},
    {"down_proj", role_is::mlp_down},
    {"ffn_down", role_is::mlp_down},
    {"ffn_down_exps", role_is::mlp_down},
    {"ffn_down_shexp", role_is::mlp_down},
    {"fc2", role_is::mlp_down},
    {"fc_out", role_is::mlp_down},
    {"dense_4h_to_h", role_is::mlp_down},
    {"linear_fc2", role_is::mlp_down},
    {"fcprojw", role_is::mlp_down},
    {"fcprojb", role_is::mlp_down},
    {"gate_up_proj", role_is::mlp_gate_up},
    {"linear_fc1", role_is::mlp_gate_up},
    {"gating_einsum", role_is::mlp_gate_up},
    {"router", role_is::mlp_router},
    {"shared_expert_gate", role_is::mlp_router},
    {"ffn_gate_inp", role_is::mlp_router},
    {"ffn_gate_inp_shexp", role_is::mlp_router},
};

// Words that mean one thing on the attention branch, another on the MLP branch, and a third where
// the name says neither.
struct branch_word {
  name_text word;
  parameter_role attention, mlp, neither;
};
inline constexpr branch_word branch_words[] = {
    {"q", role_is::attention_query, role_is::other, role_is::attention_query},
    {"k", role_is::attention_key, role_is::other, role_is::attention_key},
    {"v", role_is::attention_value, role_is::other, role_is::attention_value},
    {"query", role_is::attention_query, role_is::other, role_is::attention_query},
    {"key", role_is::attention_key, role_is::other, role_is::attention_key},
    {"value", role_is::attention_value, role_is::other, role_is::attention_value},
    {"in_proj", role_is::attention_qkv, role_is::other, role_is::other},
    {"o", role_is::attention_output, role_is::other, role_is::other},
    {"wo", role_is::attention_output, role_is::mlp_down, role_is::other},
    {"out", role_is::attention_output, role_is::other, role_is::other},
    {"out_proj", role_is::attention_output, role_is::mlp_down, role_is::other},
    {"output_proj", role_is::attention_output, role_is::mlp_down, role_is::other},
    {"c_proj", role_is::attention_output, role_is::mlp_down, role_is::other},
    {"proj", role_is::attention_output, role_is::mlp_down, role_is::other},
    // BERT: attention.output.dense, intermediate.dense, output.dense.
    {"dense", role_is::attention_output, role_is::mlp_up, role_is::mlp_down},
    {"LayerNorm", role_is::attention_norm, role_is::mlp_norm, role_is::mlp_norm},
    {"layer_norm", role_is::attention_norm, role_is::mlp_norm, role_is::other},
    {"layernorm", role_is::attention_norm, role_is::mlp_norm, role_is::other},
    {"norm", role_is::attention_norm, role_is::mlp_norm, role_is::other},
    {"w1", role_is::other, role_is::mlp_gate, role_is::other},
    {"w2", role_is::other, role_is::mlp_down, role_is::other},
    {"w3", role_is::other, role_is::mlp_up, role_is::other},
    {"linear", role_is::other, role_is::mlp_down, role_is::other},
    {"gate", role_is::other, role_is::mlp_router, role_is::other},
};

constexpr bool is_attention_branch(name_text word) noexcept {
  return has_text(word, "attn") || has_text(word, "ttention") || word == "att";
}
constexpr bool is_mlp_branch(name_text word) noexcept {
  constexpr name_text words[] = {"feed_forward", "DenseReluDense", "intermediate", "ff"};
  return has_text(word, "mlp") || has_text(word, "ffn") || has_text(word, "moe") ||
         has_text(word, "MoeBlock") || has_text(word, "expert") || is_one_of(word, words);
}

}  // namespace detail

LAMINA_NAMESPACE_END
