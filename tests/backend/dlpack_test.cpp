// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#include "lamina/backend/dlpack.hpp"

#include <doctest/doctest.h>

// A host may include it before or after: nothing is defined twice.
#if __has_include(<dlpack/dlpack.h>)
#include <dlpack/dlpack.h>
#endif

#include <cstddef>
#include <limits>
#include <memory>
#include <type_traits>
#include <vector>

#include "tests/support/backends.hpp"

using namespace lamina;

namespace {

// A foreign framework: fills a managed tensor over memory of its own, and counts how often it is
// asked to take it back.
template <class Managed = dlpack_managed_tensor_versioned>
struct producer {
  std::vector<std::int64_t> shape, strides;
  Managed managed{};
  int given_back = 0;

  producer(void* data, dlpack_type_code code, int bits, std::vector<std::int64_t> sizes,
           std::vector<std::int64_t> steps = {})
      : shape(std::move(sizes)), strides(std::move(steps)) {
    if constexpr (dlpack_versioned<Managed>) managed.version = {1, 3};
    managed.dl_tensor.data = data;
    managed.dl_tensor.device.device_type =
        static_cast<decltype(managed.dl_tensor.device.device_type)>(1);
    managed.dl_tensor.ndim = static_cast<std::int32_t>(shape.size());
    managed.dl_tensor.dtype.code = static_cast<std::uint8_t>(code);
    managed.dl_tensor.dtype.bits = static_cast<std::uint8_t>(bits);
    managed.dl_tensor.dtype.lanes = 1;
    managed.dl_tensor.shape = shape.data();
    managed.dl_tensor.strides = strides.empty() ? nullptr : strides.data();
    managed.manager_ctx = this;
    managed.deleter = [](Managed* m) { ++static_cast<producer*>(m->manager_ctx)->given_back; };
  }
  producer(producer const&) = delete;
  void lies_on(std::int32_t type, std::int32_t id) {
    managed.dl_tensor.device = {static_cast<dlpack_device_type>(type), id};
  }
};

using floats = producer<>;
constexpr auto floating = dlpack_type_code::floating;

// An owner that tells when it dies.
struct witness {
  std::shared_ptr<int> alive = std::make_shared<int>(1);
};

}  // namespace

static_assert(sizeof(void*) != 8 ||
              (sizeof(dlpack_tensor) == 48 && sizeof(dlpack_managed_tensor) == 64 &&
               offsetof(dlpack_managed_tensor_versioned, flags) == 24 &&
               offsetof(dlpack_managed_tensor_versioned, dl_tensor) == 32));
static_assert(!std::is_copy_constructible_v<dlpack_matrix<float>> &&
              std::is_nothrow_move_constructible_v<dlpack_matrix<float>>);

#if defined(DLPACK_VERSION) && DLPACK_VERSION < 100
TEST_CASE("dlpack.h: lamina's structs lie as its own, which pass in and out as they are") {
  static_assert(sizeof(DLTensor) == sizeof(dlpack_tensor));
  static_assert(offsetof(DLTensor, device) == offsetof(dlpack_tensor, device));
  static_assert(offsetof(DLTensor, ndim) == offsetof(dlpack_tensor, ndim));
  static_assert(offsetof(DLTensor, dtype) == offsetof(dlpack_tensor, dtype));
  static_assert(offsetof(DLTensor, shape) == offsetof(dlpack_tensor, shape));
  static_assert(offsetof(DLTensor, strides) == offsetof(dlpack_tensor, strides));
  static_assert(offsetof(DLTensor, byte_offset) == offsetof(dlpack_tensor, byte_offset));
  static_assert(offsetof(DLManagedTensor, deleter) == offsetof(dlpack_managed_tensor, deleter));
  static_assert(static_cast<int>(dlpack_device_type::cpu) == kDLCPU);
  static_assert(static_cast<int>(dlpack_device_type::cuda) == kDLCUDA);
  static_assert(static_cast<int>(dlpack_device_type::cuda_host) == kDLCUDAHost);
  static_assert(static_cast<int>(dlpack_device_type::cuda_managed) == kDLCUDAManaged);
  static_assert(static_cast<int>(dlpack_type_code::bfloat) == kDLBfloat);
  static_assert(static_cast<int>(dlpack_type_code::unsigned_int) == kDLUInt);

  std::vector<float> values{1, 2, 3, 4};
  producer<DLManagedTensor> host(values.data(), floating, 32, {2, 2});
  CHECK(matrix_from_dlpack<float>(&host.managed).view()(1, 0) == 3);
  CHECK(host.given_back == 1);

  DLManagedTensor* const given =
      to_dlpack<DLManagedTensor>(matrix_view<float>(values.data(), 2, 2), witness{});
  CHECK(given->dl_tensor.device.device_type == kDLCPU);
  CHECK(given->dl_tensor.dtype.code == kDLFloat);
  CHECK(given->dl_tensor.data == values.data());
  given->deleter(given);
}
#endif

TEST_CASE_TEMPLATE("matrix_from_dlpack: shows the producer's memory and gives it back once",
                   Managed, dlpack_managed_tensor, dlpack_managed_tensor_versioned) {
  std::vector<float> values(24);
  producer<Managed> host(values.data(), floating, 32, {2, 3, 4});
  {
    dlpack_matrix<float> tensor = matrix_from_dlpack<float>(&host.managed);
    CHECK(tensor.view().rows == 6);
    CHECK(tensor.view().cols == 4);
    tensor.view()(5, 3) = 7;
    dlpack_matrix<float> moved = std::move(tensor);
    dlpack_matrix<float> assigned =
        matrix_from_dlpack<float>(to_dlpack(matrix_view<float>(values.data(), 6, 4), witness{}));
    assigned = std::move(moved);
    CHECK(assigned.view()(5, 3) == 7);
    CHECK(host.given_back == 0);
  }
  CHECK(values[23] == 7);
  CHECK(host.given_back == 1);
}

TEST_CASE("matrix_from_dlpack: a tensor without a deleter is nobody's to give back") {
  std::vector<float> values(4);
  floats host(values.data(), floating, 32, {2, 2});
  host.managed.deleter = nullptr;
  CHECK(matrix_from_dlpack<float>(&host.managed).view().rows == 2);
  CHECK(host.given_back == 0);
}

TEST_CASE("matrix_from_dlpack: strides and the offset in bytes") {
  std::vector<float> values(24);
  floats host(values.data(), floating, 32, {3, 4}, {8, 1});
  host.managed.dl_tensor.byte_offset = 4 * sizeof(float);
  auto const tensor = matrix_from_dlpack<float>(&host.managed);
  CHECK(tensor.view().data == values.data() + 4);
  CHECK(tensor.view().stride == 8);
}

TEST_CASE("matrix_from_dlpack: what makes no view is refused, and still given back") {
  std::vector<float> values(24);
  SUBCASE("another device") {
    floats host(values.data(), floating, 32, {2, 3});
    host.lies_on(2, 1);
    CHECK_THROWS_WITH_AS(matrix_from_dlpack<float>(&host.managed),
                         "matrix_from_dlpack: tensor lies on cuda:1, expected cpu:0", device_error);
    CHECK(host.given_back == 1);
    CHECK_THROWS_WITH_AS(matrix_from_dlpack<float>(&host.managed, {dlpack_device_type::cuda, 0}),
                         "matrix_from_dlpack: tensor lies on cuda:1, expected cuda:0",
                         device_error);
    host.lies_on(10, 0);
    CHECK_THROWS_WITH_AS(matrix_from_dlpack<float>(&host.managed),
                         "matrix_from_dlpack: tensor lies on device type 10:0, expected cpu:0",
                         device_error);
    CHECK(host.given_back == 3);
  }
  SUBCASE("another type") {
    floats host(values.data(), floating, 64, {2, 3});
    CHECK_THROWS_WITH_AS(
        matrix_from_dlpack<float>(&host.managed),
        "matrix_from_dlpack: tensor has elements of type float64, expected float32", config_error);
    CHECK_THROWS_WITH_AS(
        matrix_from_dlpack<bf16>(&host.managed),
        "matrix_from_dlpack: tensor has elements of type float64, expected bfloat16", config_error);
    CHECK_THROWS_WITH_AS(matrix_from_dlpack<std::int64_t>(&host.managed),
                         "matrix_from_dlpack: tensor has elements of type float64, expected int64",
                         config_error);
    host.managed.dl_tensor.dtype = {2, 32, 4};
    CHECK_THROWS_WITH_AS(
        matrix_from_dlpack<float>(&host.managed),
        "matrix_from_dlpack: tensor has elements of type float32x4, expected float32",
        config_error);
    CHECK(host.given_back == 4);
  }
  SUBCASE("strides that are no rows") {
    floats host(values.data(), floating, 32, {2, 3}, {1, 2});
    CHECK_THROWS_WITH_AS(matrix_from_dlpack<float>(&host.managed),
                         "matrix_from_dlpack: tensor has shape [2, 3] and strides [1, 2], expected "
                         "a last stride of 1: rows must be contiguous",
                         shape_error);
    CHECK(host.given_back == 1);
  }
  SUBCASE("a rank that cannot be") {
    floats host(values.data(), floating, 32, {2, 3});
    for (int const rank : {-1, 0, 1, 65}) {
      host.managed.dl_tensor.ndim = rank;
      CHECK_THROWS_AS(matrix_from_dlpack<float>(&host.managed), shape_error);
    }
    host.managed.dl_tensor.ndim = 2;
    host.managed.dl_tensor.shape = nullptr;
    CHECK_THROWS_WITH_AS(matrix_from_dlpack<float>(&host.managed),
                         "matrix_from_dlpack: shape is null, expected the 2 sizes of the axes",
                         shape_error);
    CHECK(host.given_back == 5);
  }
  SUBCASE("null, misaligned or endless memory") {
    floats host(nullptr, floating, 32, {2, 3});
    CHECK_THROWS_WITH_AS(matrix_from_dlpack<float>(&host.managed),
                         "matrix_from_dlpack: data is null, expected the memory of 6 elements",
                         shape_error);
    host.managed.dl_tensor.data = values.data();
    host.managed.dl_tensor.byte_offset = 2;
    CHECK_THROWS_AS(matrix_from_dlpack<float>(&host.managed), shape_error);
    host.managed.dl_tensor.byte_offset = std::numeric_limits<std::uint64_t>::max();
    CHECK_THROWS_AS(matrix_from_dlpack<float>(&host.managed), shape_error);
    host.managed.dl_tensor.byte_offset = 0;
    host.shape = {std::numeric_limits<std::int64_t>::max(), 3};
    host.managed.dl_tensor.shape = host.shape.data();
    CHECK_THROWS_AS(matrix_from_dlpack<float>(&host.managed), shape_error);
    CHECK(host.given_back == 4);
  }
  SUBCASE("nothing at all") {
    dlpack_managed_tensor* const nothing = nullptr;
    CHECK_THROWS_WITH_AS(matrix_from_dlpack<float>(nothing),
                         "matrix_from_dlpack: the managed tensor is null", config_error);
  }
}

TEST_CASE("matrix_from_dlpack: a read-only tensor gives a view of const elements only") {
  std::vector<float> values(6);
  floats host(values.data(), floating, 32, {2, 3});
  host.managed.flags = dlpack_read_only;
  CHECK_THROWS_WITH_AS(matrix_from_dlpack<float>(&host.managed),
                       "matrix_from_dlpack: tensor is read-only, expected one that may be "
                       "written; ask for a view of const elements",
                       config_error);
  dlpack_matrix<float const> const tensor = matrix_from_dlpack<float const>(&host.managed);
  CHECK(tensor.view().cols == 3);
}

TEST_CASE("matrix_from_dlpack: of another major version nothing but the deleter is used") {
  floats host(nullptr, floating, 32, {});
  host.managed.version = {2, 7};
  CHECK_THROWS_WITH_AS(matrix_from_dlpack<float>(&host.managed),
                       "matrix_from_dlpack: tensor has DLPack version 2.7, expected 1",
                       config_error);
  CHECK(host.given_back == 1);
}

TEST_CASE("matrix_from_dlpack: every element type, and devices by name") {
  std::vector<double> memory(8);
  auto const rows = [&]<class T>(T, dlpack_type_code code) {
    floats host(memory.data(), code, static_cast<int>(8 * sizeof(T)), {2, 4});
    return matrix_from_dlpack<T>(&host.managed).view().rows;
  };
  CHECK(rows(float{}, floating) == 2);
  CHECK(rows(double{}, floating) == 2);
  CHECK(rows(f16{}, floating) == 2);
  CHECK(rows(bf16{}, dlpack_type_code::bfloat) == 2);
  CHECK(rows(std::int32_t{}, dlpack_type_code::signed_int) == 2);
  CHECK(rows(std::int64_t{}, dlpack_type_code::signed_int) == 2);
  CHECK(rows(std::uint8_t{}, dlpack_type_code::unsigned_int) == 2);

  floats host(memory.data(), floating, 32, {2, 3});
  for (auto const type : {dlpack_device_type::cuda, dlpack_device_type::cuda_host,
                          dlpack_device_type::cuda_managed}) {
    host.lies_on(static_cast<std::int32_t>(type), 0);
    CHECK(matrix_from_dlpack<float>(&host.managed, {type, 0}).view().rows == 2);
  }
}

TEST_CASE("vector_from_dlpack: token ids, offsets and masks of any rank without gaps") {
  std::vector<std::int64_t> offsets{0, 3, 6};
  floats host(offsets.data(), dlpack_type_code::signed_int, 64, {3});
  auto const tensor = vector_from_dlpack<index_t const>(&host.managed);
  CHECK(tensor.view().size == 3);
  CHECK(tensor.view()[2] == 6);

  std::vector<std::uint8_t> mask{1, 0, 1, 1, 1, 0};
  floats booleans(mask.data(), dlpack_type_code::boolean, 8, {2, 3});
  CHECK(vector_from_dlpack<std::uint8_t const>(&booleans.managed).view().size == 6);
  CHECK_THROWS_WITH_AS(vector_from_dlpack<std::uint8_t>(&booleans.managed),
                       "vector_from_dlpack: tensor has elements of type bool8, expected uint8",
                       config_error);
  floats gaps(mask.data(), dlpack_type_code::unsigned_int, 8, {2, 2}, {3, 1});
  CHECK_THROWS_WITH_AS(vector_from_dlpack<std::uint8_t const>(&gaps.managed),
                       "vector_from_dlpack: tensor has shape [2, 2] and strides [3, 1], expected "
                       "elements without gaps, the last axis innermost",
                       shape_error);
  CHECK(booleans.given_back == 2);
}

TEST_CASE("to_dlpack: a view keeps its owner alive until the deleter is called") {
  std::vector<double> values(12);
  witness owner;
  std::weak_ptr<int> const alive = owner.alive;
  auto* const given = to_dlpack(matrix_view<double const>(values.data(), 3, 2, 4), std::move(owner),
                                {dlpack_device_type::cuda_host, 0});
  CHECK(given->version.major == 1);
  CHECK(given->flags == dlpack_read_only);
  CHECK(given->dl_tensor.data == values.data());
  CHECK(given->dl_tensor.device.device_type == dlpack_device_type::cuda_host);
  CHECK(given->dl_tensor.ndim == 2);
  CHECK(given->dl_tensor.dtype.bits == 64);
  CHECK(given->dl_tensor.shape[0] == 3);
  CHECK(given->dl_tensor.shape[1] == 2);
  CHECK(given->dl_tensor.strides[0] == 4);
  CHECK(given->dl_tensor.strides[1] == 1);
  CHECK(!alive.expired());
  given->deleter(given);
  CHECK(alive.expired());
}

TEST_CASE("to_dlpack: vectors have one axis") {
  std::vector<bf16> values(5);
  auto* const given =
      to_dlpack<dlpack_managed_tensor>(vector_view<bf16>(values.data(), 5), witness{});
  CHECK(given->dl_tensor.ndim == 1);
  CHECK(given->dl_tensor.shape[0] == 5);
  CHECK(given->dl_tensor.dtype.code == static_cast<std::uint8_t>(dlpack_type_code::bfloat));
  CHECK(vector_from_dlpack<bf16>(given).view().size == 5);
}

TEST_CASE_TEMPLATE("to_dlpack: a matrix of a backend moves in and comes back as it was", Backend,
                   testing::minimal_backend<float>, eigen_backend<double>) {
  using T = typename Backend::scalar_type;
  Backend const backend{};
  auto matrix = backend.make_matrix(2, 3);
  Backend::view(matrix)(1, 2) = 5;
  T const* const memory = Backend::view(matrix).data;
  auto* const given = to_dlpack(backend, std::move(matrix));
  CHECK(given->flags == 0);
  auto const back = matrix_from_dlpack<T>(given);
  CHECK(back.view().data == memory);
  CHECK(back.view()(1, 2) == 5);
}
