// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// Shapes of real models for benchmarks. Source: config.json of Qwen/Qwen3-1.7B and Qwen/Qwen3-0.6B.
#pragma once

#include "examples/decoder/config.hpp"

namespace lamina::benchmarks {

inline constexpr decoder::config qwen3_1_7b{.layer_count = 28,
                                            .width = 2048,
                                            .head_count = 16,
                                            .kv_head_count = 8,
                                            .head_width = 128,
                                            .ffn_width = 6144,
                                            .vocab = 151936,
                                            .rope_theta = 1e6,
                                            .norm_epsilon = 1e-6,
                                            .tied_head = true,
                                            .qk_norm = true};

inline constexpr decoder::config qwen3_0_6b{.layer_count = 28,
                                            .width = 1024,
                                            .head_count = 16,
                                            .kv_head_count = 8,
                                            .head_width = 128,
                                            .ffn_width = 3072,
                                            .vocab = 151936,
                                            .rope_theta = 1e6,
                                            .norm_epsilon = 1e-6,
                                            .tied_head = true,
                                            .qk_norm = true};

}  // namespace lamina::benchmarks
