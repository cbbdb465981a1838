// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// Shapes of published models, from their configuration files.
#pragma once

#include "lamina/layers/transformer_shape.hpp"

namespace lamina::testing {

inline constexpr transformer_shape qwen3_1_7b{.layer_count = 28,
                                              .width = 2048,
                                              .query_width = 2048,
                                              .key_width = 1024,
                                              .head_count = 16,
                                              .ffn_width = 6144,
                                              .vocab = 151936,
                                              .tied_head = true,
                                              .qk_norm = true};
inline constexpr transformer_shape qwen3_4b{.layer_count = 36,
                                            .width = 2560,
                                            .query_width = 4096,
                                            .key_width = 1024,
                                            .head_count = 32,
                                            .ffn_width = 9728,
                                            .vocab = 151936,
                                            .tied_head = true,
                                            .qk_norm = true};
inline constexpr transformer_shape qwen3_8b{.layer_count = 36,
                                            .width = 4096,
                                            .query_width = 4096,
                                            .key_width = 1024,
                                            .head_count = 32,
                                            .ffn_width = 12288,
                                            .vocab = 151936,
                                            .qk_norm = true};
inline constexpr transformer_shape smollm2_135m{.layer_count = 30,
                                                .width = 576,
                                                .query_width = 576,
                                                .key_width = 192,
                                                .head_count = 9,
                                                .ffn_width = 1536,
                                                .vocab = 49152,
                                                .tied_head = true};

}  // namespace lamina::testing
