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
/// Storage  in_memory<T> (T the model's own scalar by default), in_file<T>, or a host's own
/// Guard    what notices that weights below the layer have changed: fingerprint_guard reads them
///          all at every use, at the speed of memory; version_guard asks a model that counts
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
    storage_.resize((row_count_ + stream.rows) * stream.cols);
    width_ = stream.cols;
    weights_ = weights;
    for (index_t row = 0; row < stream.rows; ++row) {
      element* const to = storage_.data() + (row_count_ + row) * width_;
      scalar_type const* const from = stream.row(row).data;
      for (index_t c = 0; c < width_; ++c) to[c] = converted<element>(from[c]);
    }
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

  template <class To, class From>
  static To converted(From value) noexcept {
    if constexpr (std::same_as<To, From>) {
      return value;
    } else {
      return stored<To>(static_cast<compute_t<From>>(value));
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
    auto const size = static_cast<std::size_t>(count * width_);
    if (size > gathered_.size()) gathered_.resize(size);
    scalar_type* to = gathered_.data();
    auto const gather = [&](row_range range) {
      matrix_view<element const> const from = stored_rows(range);
      for (index_t i = 0; i < range.count * width_; ++i) {
        to[i] = converted<scalar_type>(from.data[i]);
      }
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
  [[no_unique_address]] Guard guard_;
  index_t row_count_ = 0;
  index_t width_ = 0;
  std::uint64_t fill_ = 0;
  std::uint64_t weights_ = 0;  // what the guard said when the cache was filled
  std::vector<scalar_type> gathered_;
};

template <prefix_model Model>
prefix_cache(Model const&, backward_plan const&) -> prefix_cache<Model>;
template <prefix_model Model, prefix_storage Storage>
prefix_cache(Model const&, backward_plan const&, Storage) -> prefix_cache<Model, Storage>;
template <prefix_model Model, prefix_storage Storage, class Guard>
prefix_cache(Model const&, backward_plan const&, Storage, Guard)
    -> prefix_cache<Model, Storage, Guard>;

LAMINA_NAMESPACE_END
