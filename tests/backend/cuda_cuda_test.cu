// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// The CUDA backend on a device: memory, executors of every schedule, products, streams, graphs, and
// what it refuses.
#include "lamina/backend/cuda.cuh"

#include <cmath>
#include <cstdint>
#include <memory>

#include "tests/support/device.cuh"

using namespace lamina;
using namespace testing;

namespace {

// Everything lanes can do: sums, maxima, slots that keep what was put in them.
template <row_schedule Schedule>
struct lanes_body {
  static constexpr row_schedule schedule = Schedule;
  matrix_view<float const> values;
  vector_view<double> sums;
  vector_view<float> peaks;
  vector_view<double> kept;
  vector_view<index_t> counts;

  index_t kept_bytes() const { return values.cols * 4; }

  template <lane_group Lanes>
  LAMINA_HOST_DEVICE void operator()(Lanes lanes, index_t row) const {
    double sum = 0;
    float peak = -1e30f;
    index_t slot = 0;
    for (index_t c = lanes.lane(); c < values.cols; c += lanes.count(), ++slot) {
      sum += values(row, c);
      peak = values(row, c) > peak ? values(row, c) : peak;
      if constexpr (keeping_lane_group<Lanes>) {
        if (slot < lanes.slot_count()) *static_cast<float*>(lanes.slot(slot)) = values(row, c);
      }
    }
    sum = lanes.sum(sum);
    peak = lanes.max(peak);
    double again = 0;
    slot = 0;
    for (index_t c = lanes.lane(); c < values.cols; c += lanes.count(), ++slot) {
      float value = values(row, c);
      if constexpr (keeping_lane_group<Lanes>) {
        if (slot < lanes.slot_count()) value = *static_cast<float*>(lanes.slot(slot));
      }
      again += value;
    }
    again = lanes.sum(again);
    if (lanes.lane() != 0) return;
    sums[row] = sum;
    peaks[row] = peak;
    kept[row] = again;
    counts[row] = lanes.count();
  }
};

// Counts what passes through it, and can be told to have nothing left.
struct counting_allocator {
  struct counts {
    std::size_t live = 0, most = std::size_t{1} << 40;
  };
  std::shared_ptr<counts> count = std::make_shared<counts>();

  void* allocate(std::size_t bytes, cudaStream_t stream) const {
    if (count->live + bytes > count->most) throw_device_error("counting_allocator: ", bytes);
    void* const data = stream_ordered_allocator{}.allocate(bytes, stream);
    count->live += bytes;
    return data;
  }
  void deallocate(void* data, std::size_t bytes, cudaStream_t stream) const noexcept {
    stream_ordered_allocator{}.deallocate(data, bytes, stream);
    count->live -= bytes;
  }
};

template <row_schedule Schedule>
void check_schedule(index_t rows, index_t cols) {
  CAPTURE(rows);
  CAPTURE(cols);
  owned_stream const stream;
  cuda_backend<float> const backend(stream);
  using backend_type = cuda_backend<float>;
  std::vector<float> values(static_cast<std::size_t>(rows * cols));
  for (std::size_t i = 0; i < values.size(); ++i) {
    values[i] = static_cast<float>((i * 7919) % 1013) * 0.25f - 100;
  }
  device_vector<backend_type, float> const on_device(backend, vector_view<float const>(values));
  device_vector<backend_type, double> sums(backend, rows), kept(backend, rows);
  device_vector<backend_type, float> peaks(backend, rows);
  device_vector<backend_type, index_t> counts(backend, rows);
  backend.executor().run(rows, lanes_body<Schedule>{{on_device.view().data, rows, cols},
                                                    sums.view(),
                                                    peaks.view(),
                                                    kept.view(),
                                                    counts.view()});
  auto const sum = sums.to_host(backend), again = kept.to_host(backend);
  auto const peak = peaks.to_host(backend);
  for (index_t row = 0; row < rows; ++row) {
    double expected = 0;
    float highest = -1e30f;
    for (index_t c = 0; c < cols; ++c) {
      float const value = values[static_cast<std::size_t>(row * cols + c)];
      expected += value;
      highest = value > highest ? value : highest;
    }
    std::size_t const r = static_cast<std::size_t>(row);
    CHECK(sum[r] == expected);  // quarters of integers: exact in any order
    CHECK(again[r] == expected);
    CHECK(peak[r] == highest);
  }
}

}  // namespace

TEST_CASE("executors: a thread, a warp, a block and a cluster work rows of any length") {
  for (index_t const cols : {1, 31, 32, 257, 5000, 40000, 151936}) {
    check_schedule<row_schedule::thread>(3, cols);
    check_schedule<row_schedule::warp>(19, cols);
    check_schedule<row_schedule::block>(5, cols);
    check_schedule<row_schedule::cluster>(5, cols);
  }
  check_schedule<row_schedule::warp>(0, 4);
}

TEST_CASE_TEMPLATE("gemm: every transposition, strides, alpha and beta, against plain loops", T,
                   float, double) {
  owned_stream const stream;
  cuda_backend<T> const backend(stream);
  using vector = device_vector<cuda_backend<T>, T>;
  index_t const m = 5, n = 7, k = 3, gap = 2;
  for (auto const ta : {transpose::no, transpose::yes}) {
    for (auto const tb : {transpose::no, transpose::yes}) {
      index_t const a_rows = ta == transpose::yes ? k : m, a_cols = ta == transpose::yes ? m : k;
      index_t const b_rows = tb == transpose::yes ? n : k, b_cols = tb == transpose::yes ? k : n;
      auto const fill = [](index_t size, int seed) {
        std::vector<T> values;
        for (index_t i = 0; i < size; ++i) values.push_back(T((i * 37 + seed) % 11) - T(5));
        return values;
      };
      auto const a = fill(a_rows * (a_cols + gap), 1), b = fill(b_rows * (b_cols + gap), 2);
      auto const c = fill(m * (n + gap), 3);
      vector const da(backend, vector_view<T const>(a)), db(backend, vector_view<T const>(b));
      for (double const beta : {0.0, 1.0, -2.0}) {
        vector dc(backend, vector_view<T const>(c));
        backend.gemm(ta, tb, T(0.5), {da.view().data, a_rows, a_cols, a_cols + gap},
                     {db.view().data, b_rows, b_cols, b_cols + gap}, T(beta),
                     {dc.view().data, m, n, n + gap});
        auto const result = dc.to_host(backend);
        for (index_t i = 0; i < m; ++i) {
          for (index_t j = 0; j < n + gap; ++j) {
            std::size_t const at = static_cast<std::size_t>(i * (n + gap) + j);
            double expected = static_cast<double>(c[at]);
            if (j < n) {
              double sum = 0;
              for (index_t l = 0; l < k; ++l) {
                index_t const ia =
                    ta == transpose::yes ? l * (a_cols + gap) + i : i * (a_cols + gap) + l;
                index_t const ib =
                    tb == transpose::yes ? j * (b_cols + gap) + l : l * (b_cols + gap) + j;
                sum += static_cast<double>(a[static_cast<std::size_t>(ia)]) *
                       static_cast<double>(b[static_cast<std::size_t>(ib)]);
              }
              expected = 0.5 * sum + beta * expected;
            }
            CHECK(static_cast<double>(result[at]) == expected);
          }
        }
      }
    }
  }
}

TEST_CASE_TEMPLATE("gemm: narrow operands with sums in float; a product over nothing scales", T,
                   bf16, f16) {
  owned_stream const stream;
  cuda_backend<float> const backend(stream);
  std::vector<T> const ones(64, T(1.0f));
  std::vector<float> const twos(16, 2.0f);
  device_vector<cuda_backend<float>, T> const a(backend, vector_view<T const>(ones));
  device_vector<cuda_backend<float>, float> c(backend, vector_view<float const>(twos));
  device_vector<cuda_backend<float>, T> narrow(backend, 16);
  matrix_view<T const> const in(a.view().data, 4, 16), nothing(a.view().data, 4, 0);
  backend.gemm(transpose::no, transpose::yes, 1.0f, in, in, 0.0f,
               matrix_view<T>(narrow.view().data, 4, 4));
  for (T const value : narrow.to_host(backend)) CHECK(static_cast<float>(value) == 16.0f);
  backend.gemm(transpose::no, transpose::yes, 1.0f, in, in, 1.0f,
               matrix_view<float>(c.view().data, 4, 4));
  for (float const value : c.to_host(backend)) CHECK(value == 18.0f);
  backend.gemm(transpose::no, transpose::yes, 1.0f, nothing, nothing, 0.5f,
               matrix_view<float>(c.view().data, 4, 4));
  for (float const value : c.to_host(backend)) CHECK(value == 9.0f);
}

TEST_CASE("memory: from the host's allocator, given back, and zeroed") {
  owned_stream const stream;
  counting_allocator const allocator;
  {
    cuda_backend<float, counting_allocator> const backend(stream, {.allocator = allocator});
    std::size_t const before = allocator.count->live;
    auto matrix = backend.make_matrix(10, 20);
    CHECK(allocator.count->live == before + 800);
    std::vector<float> values(200, 1.0f);
    backend.copy(values.data(), backend.view(matrix).data, 800);
    backend.synchronize();
    for (float const value : values) CHECK(value == 0.0f);
    allocator.count->most = allocator.count->live;
    CHECK_THROWS_AS(backend.make_matrix(1, 1), device_error);
  }
  CHECK(allocator.count->live == 0);
}

TEST_CASE("memory: more than there is, is an error with the number of bytes") {
  owned_stream const stream;
  cuda_backend<float> const backend(stream);
  try {
    backend.make_matrix(index_t{1} << 22, index_t{1} << 22);
    FAIL("expected cuda_error");
  } catch (cuda_error const& e) {
    CHECK(std::string(e.what()).find("cudaMallocAsync (70368744177664 bytes)") == 0);
  }
  CHECK(cudaGetLastError() == cudaSuccess);
}

TEST_CASE("backends: a null or legacy stream is refused; host memory is not reached") {
  CHECK_THROWS_AS(cuda_backend<float>{nullptr}, config_error);
  CHECK_THROWS_AS(cuda_backend<float>{cudaStreamLegacy}, config_error);
  owned_stream const stream;
  cuda_backend<float> const backend(stream);
  float on_host = 0;
  CHECK(!backend.reaches(&on_host));
  auto matrix = backend.make_matrix(1, 1);
  CHECK(backend.reaches(backend.view(matrix).data));
}

TEST_CASE("graphs: what a backend does can be captured and replayed") {
  owned_stream const stream;
  cuda_backend<float> const backend(stream);
  auto a = backend.make_matrix(8, 8), c = backend.make_matrix(8, 8);
  std::vector<float> const ones(64, 1.0f);
  backend.copy(backend.view(a).data, ones.data(), 256);
  backend.synchronize();
  cudaGraph_t graph = nullptr;
  cudaGraphExec_t executable = nullptr;
  check(cudaStreamBeginCapture(stream, cudaStreamCaptureModeThreadLocal));
  backend.gemm(transpose::no, transpose::no, 1.0f, backend.view(std::as_const(a)),
               backend.view(std::as_const(a)), 1.0f, backend.view(c));
  check(cudaStreamEndCapture(stream, &graph));
  check(cudaGraphInstantiate(&executable, graph, 0));
  for (int i = 0; i < 3; ++i) check(cudaGraphLaunch(executable, stream));
  std::vector<float> result(64);
  backend.copy(result.data(), backend.view(c).data, 256);
  backend.synchronize();
  for (float const value : result) CHECK(value == 24.0f);
  cudaGraphExecDestroy(executable);
  cudaGraphDestroy(graph);
}
