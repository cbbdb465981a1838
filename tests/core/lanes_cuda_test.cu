// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// Row bodies, views, scalars, random numbers, plans and products of tiles in device code: they give
// what the host gives.
#include <cuda_runtime_api.h>
#include <doctest/doctest.h>

#include <cmath>
#include <vector>

#include "lamina/backend/cuda_rows.cuh"
#include "lamina/lamina.hpp"
#include "tests/support/device.cuh"
#include "tests/support/tile_products.hpp"

namespace {

using lamina::index_t;
using namespace testing;

// log of the sum of exponentials of each row, and the row's number rounded through half precision.
template <lamina::storage_scalar T>
struct log_sum_body {
  lamina::matrix_view<T const> values;
  lamina::vector_view<double> out;
  lamina::vector_view<float> halves;

  template <lamina::lane_group Lanes>
  LAMINA_HOST_DEVICE void operator()(Lanes lanes, index_t row) const {
    using std::exp;
    using std::log;
    double peak = -1e30;
    for (index_t col = lanes.lane(); col < values.cols; col += lanes.count()) {
      double const value = static_cast<float>(values(row, col));
      peak = value > peak ? value : peak;
    }
    peak = lanes.max(peak);
    double total = 0;
    for (index_t col = lanes.lane(); col < values.cols; col += lanes.count()) {
      total += exp(static_cast<double>(static_cast<float>(values(row, col))) - peak);
    }
    total = lanes.sum(total);
    if (lanes.lane() == 0) {
      out[row] = peak + log(total);
      halves[row] = lamina::f16(0.1f * static_cast<float>(row)) +
                    lamina::bf16(1.0f / static_cast<float>(row + 1));
    }
  }
};

// The random number of each row, and whether a plan made by the compiler trains that layer.
struct draw_body {
  static constexpr auto plan = lamina::plan_backward(28, lamina::middle_layers(28, 5));
  static constexpr index_t first = plan.stop_layer();
  static constexpr index_t last = plan.layers().highest();

  lamina::vector_view<double> draws;
  lamina::vector_view<int> trained;

  template <lamina::lane_group Lanes>
  LAMINA_HOST_DEVICE void operator()(Lanes lanes, index_t row) const {
    if (lanes.lane() != 0) return;
    lamina::random_words const words =
        lamina::philox4x32(7, {{static_cast<std::uint32_t>(row), 1, 2, 3}});
    draws[row] = lamina::uniform_open(words.word[0], words.word[1]);
    trained[row] = first <= row && row <= last ? 1 : 0;
  }
};

// Products by the tensor cores; the bits of plain loops.
template <class T, int Rows, int Cols, int Depth>
void check_tile_products() {
  using products = lamina::testing::exact_tile_products<T, Rows, Cols, Depth>;
  CAPTURE(Rows);
  CAPTURE(Cols);
  CAPTURE(Depth);
  owned_stream const stream;
  for (int const rows : {1, 5, 16, 37, Rows}) {
    if (rows > Rows) continue;
    CAPTURE(rows);
    products const p(rows);
    device_copy<T> const a(p.a), b(p.b), c(p.c);
    device_copy<float> const scores{std::vector<float>(p.scores.size())};
    device_copy<float> const mixed{std::vector<float>(p.mixed.size())};
    device_copy<float> const sums{std::vector<float>(p.sums.size())};
    device_copy<float> const maxima{std::vector<float>(p.maxima.size())};
    device_copy<int> const visits{std::vector<int>(p.scores.size())};
    lamina::cuda_rows{stream, lamina::cuda_limits::of_current_device()}.run(
        1, typename products::body{rows, a.data(), b.data(), c.data(), scores.data(), mixed.data(),
                                   sums.data(), maxima.data(), visits.data()});
    CHECK(scores.host() == p.scores);
    CHECK(mixed.host() == p.mixed);
    CHECK(sums.host() == p.sums);
    CHECK(maxima.host() == p.maxima);
    CHECK(visits.host() == std::vector<int>(p.scores.size(), 1));
  }
}

}  // namespace

TEST_CASE_TEMPLATE("row bodies on a device: one thread and one warp a row agree with the host", T,
                   float, lamina::bf16) {
  index_t const rows = 37, cols = 101;
  std::vector<T> values;
  lamina::counter_generator random(5);
  for (index_t i = 0; i < rows * cols; ++i) {
    values.push_back(T(static_cast<float>(8 * random.uniform() - 4)));
  }
  std::vector<double> expected(rows);
  std::vector<float> expected_halves(rows);
  lamina::host_rows<>{}.run(
      rows, log_sum_body<T>{{values.data(), rows, cols}, expected, expected_halves});

  device_copy<T> const on_device(values);
  for (bool const warp : {false, true}) {
    CAPTURE(warp);
    device_copy<double> const out{std::vector<double>(rows)};
    device_copy<float> const halves{std::vector<float>(rows)};
    log_sum_body<T> const body{{on_device.data(), rows, cols}, out, halves};
    if (warp) {
      one_warp_a_row<<<static_cast<unsigned>(rows), 32>>>(body);
    } else {
      one_thread_a_row<<<2, 32>>>(body, rows);
    }
    check(cudaGetLastError());
    auto const result = out.host();
    for (index_t row = 0; row < rows; ++row) {
      CHECK(result[row] == doctest::Approx(expected[row]).epsilon(1e-12));
    }
    CHECK(halves.host() == expected_halves);
  }
}

TEST_CASE("random numbers and plans on a device: bit for bit those of the host") {
  std::vector<double> draws(28);
  std::vector<int> trained(28);
  lamina::host_rows<>{}.run(28, draw_body{draws, trained});

  device_copy<double> const device_draws{std::vector<double>(28)};
  device_copy<int> const device_trained{std::vector<int>(28)};
  one_warp_a_row<<<28, 32>>>(draw_body{device_draws, device_trained});
  check(cudaGetLastError());
  CHECK(device_draws.host() == draws);
  CHECK(device_trained.host() == trained);
  CHECK(trained[10] == 0);
  CHECK(trained[11] == 1);
  CHECK(trained[15] == 1);
  CHECK(trained[16] == 0);
}

TEST_CASE_TEMPLATE("products of tiles on a device: bit for bit those of plain loops", T,
                   lamina::bf16, lamina::f16) {
  check_tile_products<T, 128, 64, 64>();
  check_tile_products<T, 128, 32, 128>();
  check_tile_products<T, 64, 16, 48>();
}
