// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// JSON from strangers: parsed by nlohmann/json with hostile texts refused, read through typed
// accessors whose errors name the file and the place in it.
#pragma once

#include <cstdint>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "lamina/core/error.hpp"

LAMINA_NAMESPACE_BEGIN

namespace detail {

// Builds a document from nlohmann's events, which come without exceptions; keeps what is wrong.
class json_builder {
 public:
  using json = nlohmann::json;

  json_builder(json& root, index_t max_depth) : root_(root), max_depth_(max_depth) {}

  std::string const& complaint() const noexcept { return complaint_; }

  bool null() { return add(nullptr); }
  bool boolean(bool value) { return add(value); }
  bool number_integer(json::number_integer_t value) { return add(value); }
  bool number_unsigned(json::number_unsigned_t value) { return add(value); }
  bool number_float(json::number_float_t value, json::string_t const&) { return add(value); }
  bool string(json::string_t& value) { return add(std::move(value)); }
  bool binary(json::binary_t&) { return false; }  // not in a text
  bool start_object(std::size_t) { return open(json::value_t::object); }
  bool start_array(std::size_t) { return open(json::value_t::array); }
  bool end_object() { return close(); }
  bool end_array() { return close(); }
  bool key(json::string_t& name) {
    auto* const members = open_.back()->get_ptr<json::object_t*>();
    auto const [place, is_new] = members->emplace(name, nullptr);
    if (!is_new) return refuse(join("has the name \"", name.substr(0, 100), "\" twice"));
    member_ = &place->second;
    return true;
  }
  bool parse_error(std::size_t position, std::string const&, json::exception const& error) {
    std::string_view const words = error.what();  // "[json.exception.parse_error.101] parse ..."
    return refuse(join("is not JSON at byte ", position, ":",
                       words.substr(words.find(']') + 1).substr(0, 160)));
  }

 private:
  bool refuse(std::string complaint) {
    complaint_ = std::move(complaint);
    return false;
  }
  template <class Value>
  json* put(Value&& value) {
    json* place = &root_;
    if (member_ != nullptr) {
      place = std::exchange(member_, nullptr);
    } else if (!open_.empty()) {
      return &open_.back()->get_ptr<json::array_t*>()->emplace_back(std::forward<Value>(value));
    }
    *place = std::forward<Value>(value);
    return place;
  }
  template <class Value>
  bool add(Value&& value) {
    put(std::forward<Value>(value));
    return true;
  }
  bool open(json::value_t kind) {
    if (static_cast<index_t>(open_.size()) == max_depth_) {
      return refuse(join("is nested deeper than ", max_depth_, " levels"));
    }
    open_.push_back(put(kind));
    return true;
  }
  bool close() {
    open_.pop_back();
    return true;
  }

  json& root_;
  index_t max_depth_;
  std::vector<json*> open_;
  json* member_ = nullptr;
  std::string complaint_;
};

}  // namespace detail

/// Parses a whole text: one JSON value in UTF-8, nested at most `max_depth` deep, in which no
/// object has a name twice and every number is finite in a double.
///
/// source  what errors call the text: a file's path, say
/// Throws format_error with the source and, where the grammar is broken, the byte (from 1).
inline nlohmann::json parse_json(std::string_view text, std::string_view source,
                                 index_t max_depth = 64) {
  nlohmann::json document;
  detail::json_builder builder(document, max_depth);
  if (!nlohmann::json::sax_parse(text.begin(), text.end(), &builder)) {
    throw_format_error("parse_json: '", source, "' ", builder.complaint());
  }
  return document;
}

/// A value of a parsed document and where it stands. Accessors check the type: what is not as
/// expected is a format_error that names the source, the place, the value and what was expected.
///
///   auto const document = lamina::parse_json(lamina::read_file(path), path);
///   lamina::json_view const config(document, path);
///   auto const width = config.at("hidden_size").integer(1);
///
/// Refers to the document. Texts with very many members are read faster through object().
class json_view {
 public:
  json_view(nlohmann::json const& value, std::string_view source)
      : value_(&value), where_(detail::join("'", source, "': $")) {}

  nlohmann::json const& value() const noexcept { return *value_; }
  /// The source and the path to the value, long names cut, as errors begin: "'config.json':
  /// $.rope_scaling.factor".
  std::string const& where() const noexcept { return where_; }

  /// The member of this object; nothing if it is absent or null.
  std::optional<json_view> find(std::string_view name) const {
    auto const& members = object();
    auto const found = members.find(std::string(name));
    if (found == members.end() || found->second.is_null()) return std::nullopt;
    return json_view(&found->second, detail::join(where_, ".", name.substr(0, 100)));
  }
  /// The member of this object, which must be there and not null.
  json_view at(std::string_view name) const {
    std::optional<json_view> found = find(name);
    if (!found) throw_format_error(where_, " has no member \"", name.substr(0, 100), "\"");
    return *std::move(found);
  }
  /// The element of this array, which must have one of that index.
  json_view at(index_t index) const {
    auto const& elements = array();
    if (index < 0 || index >= static_cast<index_t>(elements.size())) {
      throw_format_error(where_, " has ", elements.size(), " elements, expected one at ", index);
    }
    return json_view(&elements[static_cast<std::size_t>(index)],
                     detail::join(where_, "[", index, "]"));
  }

  nlohmann::json::object_t const& object() const {
    return *expect<nlohmann::json::object_t>("an object");
  }
  nlohmann::json::array_t const& array() const {
    return *expect<nlohmann::json::array_t>("an array");
  }
  std::string const& text() const { return *expect<std::string>("a text"); }
  bool boolean() const { return *expect<bool>("true or false"); }
  double number() const {
    if (!value_->is_number()) refuse("a number");
    return value_->get<double>();
  }
  /// An integer in [low, high].
  index_t integer(index_t low = INT64_MIN, index_t high = INT64_MAX) const {
    auto const* const positive = value_->get_ptr<std::uint64_t const*>();
    auto const* const any = value_->get_ptr<std::int64_t const*>();
    bool const fits = positive != nullptr ? *positive <= INT64_MAX : any != nullptr;
    index_t const result = fits ? value_->get<index_t>() : 0;
    if (!fits || result < low || result > high) {
      refuse(detail::join("an integer in [", low, ", ", high, "]"));
    }
    return result;
  }

 private:
  json_view(nlohmann::json const* value, std::string where)
      : value_(value), where_(std::move(where)) {}

  template <class Value>
  Value const* expect(char const* expected) const {
    auto const* const found = value_->get_ptr<Value const*>();
    if (found == nullptr) refuse(expected);
    return found;
  }
  [[noreturn]] void refuse(std::string_view expected) const {
    std::string text;
    if (value_->is_structured()) {
      text = detail::join("an ", value_->type_name(), " of ", value_->size());
    } else {
      text = value_->dump(-1, ' ', true, nlohmann::json::error_handler_t::replace);
      if (text.size() > 100) text = text.substr(0, 100) + "...";
    }
    throw_format_error(where_, " is ", text, ", expected ", expected);
  }

  nlohmann::json const* value_;
  std::string where_;
};

LAMINA_NAMESPACE_END
