// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// main of the tests that run on a device; without one they are skipped, never passed.
#define DOCTEST_CONFIG_IMPLEMENT
#include <cuda_runtime_api.h>
#include <doctest/doctest.h>

#include <cstdio>

int main(int argc, char** argv) {
  int device_count = 0;
  cudaError_t const status = cudaGetDeviceCount(&device_count);
  if (status != cudaSuccess || device_count == 0) {
    std::printf("skipped: no CUDA device (%s)\n", cudaGetErrorString(status));
    return LAMINA_TEST_SKIPPED;
  }
  return doctest::Context(argc, argv).run();
}
