// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// DLPack: tensors of other frameworks as views that give them back, and memory of lamina as tensors
// for them.
#pragma once

#include <concepts>
#include <cstddef>
#include <cstdint>
#include <string>
#include <utility>

#include "lamina/backend/backend.hpp"
#include "lamina/backend/foreign.hpp"

LAMINA_NAMESPACE_BEGIN

// The structs of dlpack.h, layout and member names, for hosts that do not include it. Hosts that do
// pass their own: everything below takes either.
// Source: dmlc/dlpack, include/dlpack/dlpack.h, v0.6 and v1.0.

/// Kinds of memory lamina has a name for.
enum class dlpack_device_type : std::int32_t {
  cpu = 1,
  cuda = 2,
  cuda_host = 3,
  cuda_managed = 13
};

/// Where a tensor lies; the id counts for cuda alone.
struct dlpack_device {
  dlpack_device_type device_type = dlpack_device_type::cpu;
  std::int32_t device_id = 0;
};

enum class dlpack_type_code : std::uint8_t {
  signed_int = 0,
  unsigned_int = 1,
  floating = 2,
  handle = 3,
  bfloat = 4,
  complex = 5,
  boolean = 6,
};

struct dlpack_data_type {
  std::uint8_t code;
  std::uint8_t bits;
  std::uint16_t lanes;
};

/// shape [ndim]; strides [ndim] in elements, null for a tensor without gaps.
struct dlpack_tensor {
  void* data;
  dlpack_device device;
  std::int32_t ndim;
  dlpack_data_type dtype;
  std::int64_t* shape;
  std::int64_t* strides;
  std::uint64_t byte_offset;
};

/// DLManagedTensor, of every version before 1.
struct dlpack_managed_tensor {
  dlpack_tensor dl_tensor;
  void* manager_ctx;
  void (*deleter)(dlpack_managed_tensor*);
};

struct dlpack_version {
  std::uint32_t major;
  std::uint32_t minor;
};

/// DLManagedTensorVersioned, of version 1.
struct dlpack_managed_tensor_versioned {
  dlpack_version version;
  void* manager_ctx;
  void (*deleter)(dlpack_managed_tensor_versioned*);
  std::uint64_t flags;
  dlpack_tensor dl_tensor;
};

/// The bit of `flags` of a tensor that must not be written.
inline constexpr std::uint64_t dlpack_read_only = 1;

/// A managed tensor of either version, lamina's struct or dlpack.h's.
template <class M>
concept dlpack_managed = requires(M& m) {
  { m.dl_tensor.byte_offset } -> std::convertible_to<std::uint64_t>;
  m.dl_tensor.device.device_type;
  m.manager_ctx;
  m.deleter(&m);
};

template <class M>
concept dlpack_versioned = dlpack_managed<M> && requires(M& m) {
  { m.version.major } -> std::convertible_to<std::uint32_t>;
  { m.flags } -> std::convertible_to<std::uint64_t>;
};

namespace detail {

template <class T>
consteval dlpack_data_type dlpack_type_of() {
  constexpr bool is_brain = std::same_as<T, bf16>;
  constexpr bool is_float = storage_scalar<T> && !is_brain;
  constexpr bool is_signed = std::same_as<T, std::int32_t> || std::same_as<T, std::int64_t>;
  static_assert(is_brain || is_float || is_signed || std::same_as<T, std::uint8_t>,
                "lamina: elements of DLPack tensors are float, double, f16, bf16, int32_t, int64_t "
                "or uint8_t");
  constexpr dlpack_type_code code = is_brain    ? dlpack_type_code::bfloat
                                    : is_float  ? dlpack_type_code::floating
                                    : is_signed ? dlpack_type_code::signed_int
                                                : dlpack_type_code::unsigned_int;
  return {static_cast<std::uint8_t>(code), static_cast<std::uint8_t>(8 * sizeof(T)), 1};
}

inline std::string text_of(dlpack_data_type type) {
  static constexpr char const* names[] = {"int",    "uint",    "float", "handle",
                                          "bfloat", "complex", "bool"};
  std::string text = type.code < 7 ? names[type.code] : "code " + std::to_string(type.code) + " ";
  text += std::to_string(type.bits);
  return type.lanes == 1 ? text : text + "x" + std::to_string(type.lanes);
}

inline std::string text_of(dlpack_device device) {
  std::string const id = ":" + std::to_string(device.device_id);
  switch (device.device_type) {
    case dlpack_device_type::cpu: return "cpu" + id;
    case dlpack_device_type::cuda: return "cuda" + id;
    case dlpack_device_type::cuda_host: return "cuda_host" + id;
    case dlpack_device_type::cuda_managed: return "cuda_managed" + id;
  }
  return "device type " + std::to_string(static_cast<std::int32_t>(device.device_type)) + id;
}

// A managed tensor of any struct, given back once.
class dlpack_owner {
 public:
  template <dlpack_managed Managed>
  explicit dlpack_owner(Managed* managed) noexcept
      : managed_(managed), release_([](void* m) {
          auto* const tensor = static_cast<Managed*>(m);
          if (tensor->deleter != nullptr) tensor->deleter(tensor);
        }) {}
  dlpack_owner(dlpack_owner&& other) noexcept
      : managed_(std::exchange(other.managed_, nullptr)), release_(other.release_) {}
  dlpack_owner& operator=(dlpack_owner&& other) noexcept {
    std::swap(managed_, other.managed_);
    std::swap(release_, other.release_);
    return *this;
  }
  ~dlpack_owner() {
    if (managed_ != nullptr) release_(managed_);
  }

 private:
  void* managed_;
  void (*release_)(void*);
};

// What a tensor says, in lamina's own structs.
struct dlpack_description {
  dlpack_tensor tensor;
  bool read_only = false;
};

template <dlpack_managed Managed>
dlpack_description describe(char const* function, Managed const* managed) {
  if (managed == nullptr) throw_config_error(function, ": the managed tensor is null");
  dlpack_description d{};
  if constexpr (dlpack_versioned<Managed>) {
    // Of another major version only the deleter is known to be where it is looked for.
    if (managed->version.major != 1) {
      throw_config_error(function, ": tensor has DLPack version ", managed->version.major, ".",
                         managed->version.minor, ", expected 1");
    }
    d.read_only = (managed->flags & dlpack_read_only) != 0;
  }
  auto const& from = managed->dl_tensor;
  d.tensor = {.data = from.data,
              .device = {static_cast<dlpack_device_type>(from.device.device_type),
                         static_cast<std::int32_t>(from.device.device_id)},
              .ndim = from.ndim,
              .dtype = {from.dtype.code, from.dtype.bits, from.dtype.lanes},
              .shape = from.shape,
              .strides = from.strides,
              .byte_offset = from.byte_offset};
  return d;
}

inline void check_dl_tensor(char const* function, dlpack_description const& d,
                            dlpack_data_type expected, bool writes, dlpack_device device) {
  dlpack_device const found = d.tensor.device;
  if (found.device_type != device.device_type ||
      (device.device_type == dlpack_device_type::cuda && found.device_id != device.device_id)) {
    throw_device_error(function, ": tensor lies on ", text_of(found), ", expected ",
                       text_of(device));
  }
  dlpack_data_type const type = d.tensor.dtype;
  // Masks are bytes that only 0 and 1 may be written to.
  bool const is_mask = type.code == static_cast<std::uint8_t>(dlpack_type_code::boolean) &&
                       !writes &&
                       expected.code == static_cast<std::uint8_t>(dlpack_type_code::unsigned_int);
  if ((type.code != expected.code && !is_mask) || type.bits != expected.bits || type.lanes != 1) {
    throw_config_error(function, ": tensor has elements of type ", text_of(type), ", expected ",
                       text_of(expected));
  }
  if (writes && d.read_only) {
    throw_config_error(function,
                       ": tensor is read-only, expected one that may be written; ask for "
                       "a view of const elements");
  }
}

inline tensor_layout layout_of(char const* function, dlpack_tensor const& tensor) {
  check_rank(function, tensor.ndim, 0);
  if (tensor.ndim > 0 && tensor.shape == nullptr) {
    throw_shape_error(function, ": shape is null, expected the ", tensor.ndim,
                      " sizes of the axes");
  }
  vector_view<index_t const> const shape(tensor.shape, tensor.ndim);
  if (tensor.strides == nullptr) return make_layout(function, shape);
  return make_layout(function, shape, vector_view<index_t const>(tensor.strides, tensor.ndim));
}

template <class T>
T* data_of(char const* function, dlpack_tensor const& tensor) {
  if (tensor.byte_offset > static_cast<std::uint64_t>(PTRDIFF_MAX)) {
    throw_shape_error(function, ": byte_offset is ", tensor.byte_offset,
                      ", expected less than 2^63");
  }
  if (tensor.data == nullptr) return nullptr;
  return reinterpret_cast<T*>(static_cast<char*>(tensor.data) + tensor.byte_offset);
}

}  // namespace detail

/// An imported tensor: a view of it, and the duty to give it back, once, when this dies. Move-only.
template <class View>
class dlpack_import {
 public:
  dlpack_import(detail::dlpack_owner owner, View view) noexcept
      : owner_(std::move(owner)), view_(view) {}
  /// Valid as long as this, or what it was moved into, lives.
  View view() const noexcept { return view_; }

 private:
  detail::dlpack_owner owner_;
  View view_;
};
template <class T>
using dlpack_matrix = dlpack_import<matrix_view<T>>;
template <class T>
using dlpack_vector = dlpack_import<vector_view<T>>;

/// Takes a managed tensor of rank 2 or more as a matrix [rows, cols], by the rules of
/// make_matrix_view: no element is copied.
///
/// T         float, double, f16, bf16, int32_t, int64_t or uint8_t; const for a tensor that is only
///           read. uint8_t const also takes booleans
/// managed   belongs to lamina from the call on, also if it throws: its deleter is called once
/// expected  the device it must lie on. Nothing waits for the producer's stream: on a device the
///           host sees to it, as DLPack's Python protocol does when it passes the stream
/// Throws device_error for another device, config_error for another type, version or a read-only
/// tensor, shape_error for a layout that make_matrix_view refuses.
template <class T, dlpack_managed Managed>
dlpack_matrix<T> matrix_from_dlpack(Managed* managed, dlpack_device expected = {}) {
  char const* const function = "matrix_from_dlpack";
  detail::dlpack_owner owner(managed);
  auto const d = detail::describe(function, managed);
  detail::check_dl_tensor(function, d, detail::dlpack_type_of<std::remove_const_t<T>>(),
                          !std::is_const_v<T>, expected);
  auto const view = detail::checked_matrix(function, detail::data_of<T>(function, d.tensor),
                                           detail::layout_of(function, d.tensor));
  return {std::move(owner), view};
}

/// The same for all elements of a tensor of rank 1 or more that has no gaps: token ids, offsets,
/// masks, log-probs.
template <class T, dlpack_managed Managed>
dlpack_vector<T> vector_from_dlpack(Managed* managed, dlpack_device expected = {}) {
  char const* const function = "vector_from_dlpack";
  detail::dlpack_owner owner(managed);
  auto const d = detail::describe(function, managed);
  detail::check_dl_tensor(function, d, detail::dlpack_type_of<std::remove_const_t<T>>(),
                          !std::is_const_v<T>, expected);
  auto const view = detail::checked_vector(function, detail::data_of<T>(function, d.tensor),
                                           detail::layout_of(function, d.tensor));
  return {std::move(owner), view};
}

namespace detail {

// A tensor that was given away, with what it shows.
template <dlpack_managed Managed, class KeepAlive>
struct dlpack_export {
  Managed managed{};
  std::int64_t shape[2] = {};
  std::int64_t strides[2] = {};
  KeepAlive keep_alive;

  explicit dlpack_export(KeepAlive&& from) : keep_alive(std::move(from)) {}

  template <class T>
  Managed* show(matrix_view<T> view, std::int32_t rank, dlpack_device device) {
    static_assert(!std::is_const_v<T> || dlpack_versioned<Managed>,
                  "lamina: a DLManagedTensor cannot say that it is read-only; export a view of "
                  "elements that may be written, or a DLManagedTensorVersioned");
    if constexpr (dlpack_versioned<Managed>) {
      managed.version.major = 1;
      managed.version.minor = 0;
      managed.flags = std::is_const_v<T> ? dlpack_read_only : 0;
    }
    shape[0] = rank == 2 ? view.rows : view.cols;
    shape[1] = view.cols;
    strides[0] = rank == 2 ? view.stride : 1;
    strides[1] = 1;
    auto& tensor = managed.dl_tensor;
    tensor.data = const_cast<std::remove_const_t<T>*>(view.data);
    tensor.device.device_type =
        static_cast<decltype(tensor.device.device_type)>(device.device_type);
    tensor.device.device_id = device.device_id;
    tensor.ndim = rank;
    constexpr dlpack_data_type type = dlpack_type_of<std::remove_const_t<T>>();
    tensor.dtype.code = type.code;
    tensor.dtype.bits = type.bits;
    tensor.dtype.lanes = type.lanes;
    tensor.shape = shape;
    tensor.strides = strides;
    tensor.byte_offset = 0;
    managed.manager_ctx = this;
    managed.deleter = [](Managed* m) { delete static_cast<dlpack_export*>(m->manager_ctx); };
    return &managed;
  }
};

}  // namespace detail

/// A managed tensor [rows, cols] that shows a view and keeps its owner alive.
///
/// Managed     which struct: dlpack_managed_tensor_versioned, dlpack_managed_tensor, or dlpack.h's.
/// Views of
///             const elements are exported as read-only, which only the versioned one can say
/// keep_alive  what owns the memory of the view, or shares it; moved in, destroyed by the deleter,
///             on whatever thread calls it. Moving it must not move the elements
/// Returns a tensor that belongs to the caller, who passes it on or calls its deleter, once.
template <dlpack_managed Managed = dlpack_managed_tensor_versioned, class T, class KeepAlive>
[[nodiscard]] Managed* to_dlpack(matrix_view<T> view, KeepAlive keep_alive,
                                 dlpack_device device = {}) {
  auto* const made = new detail::dlpack_export<Managed, KeepAlive>(std::move(keep_alive));
  return made->show(view, 2, device);
}

/// The same for a vector [size].
template <dlpack_managed Managed = dlpack_managed_tensor_versioned, class T, class KeepAlive>
[[nodiscard]] Managed* to_dlpack(vector_view<T> view, KeepAlive keep_alive,
                                 dlpack_device device = {}) {
  auto* const made = new detail::dlpack_export<Managed, KeepAlive>(std::move(keep_alive));
  return made->show(matrix_view<T>{view.data, 1, view.size}, 1, device);
}

/// The same for a matrix of a backend, which is moved in.
template <dlpack_managed Managed = dlpack_managed_tensor_versioned, has_views Backend>
[[nodiscard]] Managed* to_dlpack(Backend const& /*backend*/, typename Backend::matrix_type matrix,
                                 dlpack_device device = {}) {
  using matrix_type = typename Backend::matrix_type;
  auto* const made = new detail::dlpack_export<Managed, matrix_type>(std::move(matrix));
  return made->show(Backend::view(made->keep_alive), 2, device);
}

static_assert(dlpack_managed<dlpack_managed_tensor> && !dlpack_versioned<dlpack_managed_tensor>);
static_assert(dlpack_versioned<dlpack_managed_tensor_versioned>);

LAMINA_NAMESPACE_END
