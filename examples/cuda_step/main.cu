// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// Trains one layer of a bfloat16 decoder on a CUDA device, with sampling as a replayed graph and
// rewards that stay there; looks at what happened after the first step and every tenth. Ends with
// 77 where there is no device, and with 1 if the reward did not rise.
#include <cstdio>

#include "examples/cuda_step/graph_repeat.cuh"
#include "examples/cuda_step/selective_training.hpp"
#include "lamina/backend/cuda.cuh"

int main() {
  int device_count = 0;
  if (cudaGetDeviceCount(&device_count) != cudaSuccess || device_count == 0) {
    std::puts("skipped: no CUDA device");
    return 77;
  }
  cudaStream_t stream = nullptr;
  if (cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking) != cudaSuccess) return 1;
  using backend = lamina::cuda_backend<float>;
  double first = 0, last = 0;
  {
    cuda_step::selective_training<backend, lamina::bf16> training(backend(stream),
                                                                  {.shape = {.layer_count = 4,
                                                                             .width = 256,
                                                                             .head_count = 4,
                                                                             .kv_head_count = 2,
                                                                             .head_width = 64,
                                                                             .ffn_width = 512,
                                                                             .vocab = 64},
                                                                   .layer = 2});
    int const step_count = 60;
    for (int step = 0; step < step_count; ++step) {
      training.step(cuda_step::graph_repeat{stream});
      if (step > 0 && step % 10 != 9) continue;
      auto const result = training.read();
      std::printf("step %d: reward %.3f, loss %.4f, gradient norm %.3f\n", step, result.reward,
                  result.policy.loss, result.optimizer.gradient_norm);
      (step == 0 ? first : last) = result.reward;
    }
  }
  cudaStreamDestroy(stream);
  return last > first ? 0 : 1;
}
