// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// What the frozen layers below a selection compute, kept: one pass through them serves the old
// policy, the reference and every epoch and mini-batch on the same tokens.
#pragma once

#include <string>
#include <type_traits>
#include <utility>
#include <vector>

#include "lamina/io/scratch_file.hpp"
#include "lamina/model/weight_fingerprint.hpp"
#include "lamina/optim/update_row.hpp"

LAMINA_NAMESPACE_BEGIN

/// Rows [first, first + count).
struct row_range {
  index_t first = 0;
  index_t count = 0;
};

/// Where a prefix_cache keeps its rows.
///
/// element_type   what they are stored in; rounded to it and widened from it
/// resize(count)  makes room for `count` elements and keeps those there are
/// data()         the first of them
template <class S>
concept prefix_storage = std::movable<S> && requires(S& storage, index_t count) {
  requires storage_scalar<typename S::element_type>;
  storage.resize(count);
  { storage.data() } -> std::same_as<typename S::element_type*>;
};

/// Rows in memory, as T: the model's own scalar keeps every bit, bf16 takes half of float.
template <storage_scalar T>
class in_memory {
 public:
  using element_type = T;

  void resize(index_t count) {
    if (auto const size = static_cast<std::size_t>(count); size > elements_.size()) {
      elements_.resize(size);
    }
  }
  T* data() noexcept { return elements_.data(); }

 private:
  std::vector<T> elements_;
};

/// Rows in a file that is mapped into memory, as T: for batches that memory cannot hold.
template <storage_scalar T>
class in_file {
 public:
  using element_type = T;

  /// A file without a name in `directory`. Throws io_error if it cannot be made.
  explicit in_file(std::string const& directory) : file_(directory) {}

  /// Throws io_error if the disk has no room.
  void resize(index_t count) { file_.reserve(static_cast<std::size_t>(count) * sizeof(T)); }
  T* data() noexcept { return static_cast<T*>(file_.data()); }

 private:
  scratch_file file_;
};

/// Rows in a device's memory, as T: for models whose residual stream lies there. The cache then
/// converts and gathers on the device, and nothing waits.
template <device_backend Backend, storage_scalar T>
class in_device_memory {
 public:
  using element_type = T;

  explicit in_device_memory(Backend const& backend) : backend_(backend), elements_(backend, 0) {}

  /// Throws what the backend does if the device has no room.
  void resize(index_t count) {
    if (count <= elements_.size()) return;
    device_vector<Backend, T> larger(backend_, count);
    copy_elements(backend_, elements_.view(), larger.view().subview(0, elements_.size()));
    elements_ = std::move(larger);
  }
  T* data() noexcept { return elements_.view().data; }
  Backend const& backend() const noexcept { return backend_; }

 private:
  Backend backend_;
  device_vector<Backend, T> elements_;
};
template <device_backend Backend>
in_device_memory(Backend const&) -> in_device_memory<Backend, typename Backend::scalar_type>;

/// Storage of which the host can touch nothing; backend() can.
template <class S>
concept device_prefix_storage = prefix_storage<S> && requires(S const& storage) {
  requires device_backend<std::remove_cvref_t<decltype(storage.backend())>>;
};

namespace detail {

// Room for rows of T where the storage is.
template <storage_scalar T, prefix_storage Storage>
auto storage_beside(Storage const& storage) {
  if constexpr (device_prefix_storage<Storage>) {
    return in_device_memory<std::remove_cvref_t<decltype(storage.backend())>, T>(storage.backend());
  } else {
    return in_memory<T>();
  }
}

template <storage_scalar To, storage_scalar From>
LAMINA_HOST_DEVICE constexpr To converted(From value) noexcept {
  if constexpr (std::same_as<To, From>) {
    return value;
  } else {
    return stored<To>(static_cast<compute_t<From>>(value));
  }
}

template <storage_scalar To, storage_scalar From>
struct convert_body {
  matrix_view<From const> from;
  matrix_view<To> to;

  template <lane_group Lanes>
  LAMINA_HOST_DEVICE void operator()(Lanes lanes, index_t row) const {
    for (index_t c = lanes.lane(); c < to.cols; c += lanes.count()) {
      to(row, c) = converted<To>(from(row, c));
    }
  }
};

}  // namespace detail

template <prefix_model Model, prefix_storage Storage, class Guard>
class prefix_cache;

/// Rows of a filled cache: what a forward pass starts from in place of the tokens. A handle, to be
/// passed by value; good until the cache is filled again or the weights below its layer change.
template <prefix_model Model, prefix_storage Storage, class Guard>
class cached_prefix {
 public:
  using batch_type = typename model_traits<Model>::batch_type;

  index_t layer() const noexcept { return cache_->layer(); }
  /// Number of rows, one for each token.
  index_t row_count() const noexcept {
    if (ranges_.empty()) return rows_.count;
    index_t count = 0;
    for (row_range const& range : ranges_) count += range.count;
    return count;
  }

  /// Some of these rows: a mini-batch. Nothing is copied.
  /// Throws shape_error if there are no such rows.
  cached_prefix select(row_range rows) const {
    check(rows);
    cached_prefix part = *this;
    part.rows_ = {rows_.first + rows.first, rows.count};
    return part;
  }
  /// Several stretches of these rows, one after another: sequences drawn from the batch, or the
  /// first tokens of each. `ranges` must outlive the handle; rows are gathered when they are used.
  /// Throws shape_error if there are no such rows, or if these are themselves gathered.
  cached_prefix select(vector_view<row_range const> ranges) const {
    for (row_range const& range : ranges) check(range);
    cached_prefix part = *this;
    part.ranges_ = ranges;
    if (ranges.empty()) part.rows_.count = 0;
    return part;
  }

  /// The stream [row_count, width] that enters layer(). Valid until the cache is used again.
  ///
  /// Throws config_error if the cache has been filled since, or if the weights that this was
  /// computed with have changed.
  matrix_view<model_stream_t<Model> const> stream(Model& model) const {
    return cache_->read(model, *this);
  }

  /// The logits of model.forward(tokens, plan), without running the layers below layer();
  /// model.backward may follow.
  ///
  /// tokens  the batch of these rows, whole sequences
  /// Throws as stream() and the model do, and config_error if the plan trains something that these
  /// rows depend on.
  matrix_view<model_logit_t<Model>> forward(Model& model, batch_type const& tokens,
                                            backward_plan const& plan) const {
    if (plan.trains_embeddings() || plan.frozen_prefix() < layer()) {
      throw_config_error("cached_prefix::forward: the plan trains ",
                         plan.trains_embeddings() ? "the embeddings" : "layer ",
                         plan.trains_embeddings() ? "" : std::to_string(plan.frozen_prefix()),
                         ", but the cache holds what enters layer ", layer(),
                         ": make a cache for this plan");
    }
    return model_traits<Model>::forward_suffix(model, tokens, layer(), stream(model), plan);
  }

 private:
  friend class prefix_cache<Model, Storage, Guard>;
  using cache_type = prefix_cache<Model, Storage, Guard>;

  cached_prefix(cache_type& cache, std::uint64_t fill, row_range rows)
      : cache_(&cache), fill_(fill), rows_(rows) {}

  void check(row_range rows) const {
    if (!ranges_.empty()) {
      throw_shape_error("cached_prefix::select: these rows are gathered from ", ranges_.size,
                        " ranges; select from the whole prefix");
    }
    if (rows.first < 0 || rows.count < 0 || rows.first + rows.count > rows_.count) {
      throw_shape_error("cached_prefix::select: rows ", rows.first, "..",
                        rows.first + rows.count - 1, " are wanted, there are ", rows_.count);
    }
  }

  cache_type* cache_;
  std::uint64_t fill_;
  row_range rows_;
  vector_view<row_range const> ranges_{};  // inside rows_; empty: all of them
};

/// Keeps the residual stream [tokens, width] that enters the lowest layer a plan trains.
///
///   lamina::prefix_cache cache(model, plan);
///   auto const prefix = cache.fill(model, tokens);           // once per rollout batch
///   auto const logits = prefix.forward(model, tokens, plan); // as often as wanted
///
/// Storage  in_memory<T> (T the model's own scalar by default), in_file<T>, a host's own, or, for a
///          model on a device, in_device_memory(backend)
/// Guard    what notices that weights below the layer have changed: fingerprint_guard reads them
///          all at every use, at the speed of memory; version_guard asks a model that counts.
///          On a device, version_guard costs nothing and device_fingerprint_guard(backend) waits
///
/// Memory: row count x width elements, and as many of the model's scalar for the largest part that
/// was ever used, if parts are gathered or stored in another type. It is reused by every fill.
template <prefix_model Model, prefix_storage Storage = in_memory<model_stream_t<Model>>,
          class Guard = default_guard<Model>>
class prefix_cache {
 public:
  using prefix_type = cached_prefix<Model, Storage, Guard>;
  using batch_type = typename model_traits<Model>::batch_type;
  using scalar_type = model_stream_t<Model>;

  static_assert(!device_prefix_storage<Storage> || !std::same_as<Guard, fingerprint_guard>,
                "lamina: fingerprint_guard reads weights on the host; a model on a device needs "
                "weight_version(layer), or a device_fingerprint_guard(backend), which waits");

  /// A cache for what `plan` leaves frozen. It serves every plan that trains nothing below.
  /// Throws config_error if the plan is for another layer count, or trains the embeddings: then
  /// nothing is frozen.
  prefix_cache(Model const& model, backward_plan const& plan, Storage storage = {},
               Guard guard = {})
      : layer_(plan.frozen_prefix()), storage_(std::move(storage)), guard_(std::move(guard)) {
    index_t const layer_count = model_traits<Model>::layer_count(model);
    if (plan.layer_count() != layer_count) {
      throw_config_error("prefix_cache: the plan is for ", plan.layer_count(),
                         " layers, the model has ", layer_count);
    }
    if (plan.trains_embeddings()) {
      throw_config_error("prefix_cache: the plan trains the embeddings, so nothing is frozen");
    }
  }
  // Handles point here.
  prefix_cache(prefix_cache const&) = delete;
  prefix_cache& operator=(prefix_cache const&) = delete;

  index_t layer() const noexcept { return layer_; }
  /// Rows it holds.
  index_t row_count() const noexcept { return row_count_; }

  /// Runs the frozen layers on a batch and keeps what comes out, in place of what was there:
  /// handles to it become unusable.
  prefix_type fill(Model& model, batch_type const& tokens) {
    clear();
    return append(model, tokens);
  }

  /// Adds the rows of another batch, and returns these. A large batch is best filled in parts: the
  /// frozen layers then need working memory for a part only. Returned handles stay good.
  /// Throws config_error if weights below the layer have changed since the first part.
  prefix_type append(Model& model, batch_type const& tokens) {
    std::uint64_t const weights = guard_(model, layer_);
    if (row_count_ > 0 && weights != weights_) refuse_changed("append");
    matrix_view<scalar_type const> const stream =
        model_traits<Model>::forward_prefix(model, tokens, layer_);
    if (row_count_ > 0 && stream.cols != width_) {
      throw_shape_error("prefix_cache::append: the stream has ", stream.cols,
                        " columns, the rows before have ", width_);
    }
    if constexpr (device_prefix_storage<Storage>) {
      detail::check_reachable(storage_.backend(), "prefix_cache::append", "the model's stream",
                              stream);
    }
    storage_.resize((row_count_ + stream.rows) * stream.cols);
    width_ = stream.cols;
    weights_ = weights;
    convert(stream,
            matrix_view<element>(storage_.data() + row_count_ * width_, stream.rows, width_));
    row_range const added{row_count_, stream.rows};
    row_count_ += stream.rows;
    return {*this, fill_, added};
  }

  /// All rows of this fill, in the order they were added.
  prefix_type rows() { return {*this, fill_, {0, row_count_}}; }

  /// Forgets the rows; their memory stays.
  void clear() noexcept {
    row_count_ = 0;
    ++fill_;
  }

 private:
  friend prefix_type;
  using element = typename Storage::element_type;

  [[noreturn]] void refuse_changed(char const* function) const {
    throw_config_error("prefix_cache::", function, ": weights below layer ", layer_,
                       " have changed since the cache was filled: fill it again");
  }

  template <class From, class To>
  void convert(matrix_view<From const> from, matrix_view<To> to) {
    detail::convert_body<To, From> const body{from, to};
    if constexpr (device_prefix_storage<Storage>) {
      storage_.backend().executor().run(to.rows, body);
    } else {
      host_rows<>{}.run(to.rows, body);
    }
  }

  matrix_view<scalar_type const> read(Model& model, prefix_type const& prefix) {
    if (prefix.fill_ != fill_) {
      throw_config_error("prefix_cache: the cache was filled again after this prefix was taken");
    }
    if (guard_(model, layer_) != weights_) refuse_changed("read");
    if constexpr (std::same_as<element, scalar_type>) {
      if (prefix.ranges_.empty()) return stored_rows(prefix.rows_);
    }
    index_t const count = prefix.row_count();
    gathered_.resize(count * width_);
    scalar_type* to = gathered_.data();
    auto const gather = [&](row_range range) {
      convert(stored_rows(range), matrix_view<scalar_type>(to, range.count, width_));
      to += range.count * width_;
    };
    if (prefix.ranges_.empty()) gather(prefix.rows_);
    for (row_range const& range : prefix.ranges_) {
      gather({prefix.rows_.first + range.first, range.count});
    }
    return {gathered_.data(), count, width_};
  }

  matrix_view<element const> stored_rows(row_range rows) {
    return {storage_.data() + rows.first * width_, rows.count, width_};
  }

  index_t layer_;
  Storage storage_;
  Guard guard_;
  index_t row_count_ = 0;
  index_t width_ = 0;
  std::uint64_t fill_ = 0;
  std::uint64_t weights_ = 0;  // what the guard said when the cache was filled
  decltype(detail::storage_beside<scalar_type>(std::declval<Storage const&>())) gathered_ =
      detail::storage_beside<scalar_type>(storage_);
};

template <prefix_model Model>
prefix_cache(Model const&, backward_plan const&) -> prefix_cache<Model>;
template <prefix_model Model, prefix_storage Storage>
prefix_cache(Model const&, backward_plan const&, Storage) -> prefix_cache<Model, Storage>;
template <prefix_model Model, prefix_storage Storage, class Guard>
prefix_cache(Model const&, backward_plan const&, Storage, Guard)
    -> prefix_cache<Model, Storage, Guard>;

LAMINA_NAMESPACE_END
