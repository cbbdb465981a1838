// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// What lamina throws, and the small text helpers its messages are built with.
#pragma once

#include <cstdio>
#include <stdexcept>
#include <string>
#include <string_view>

#include "lamina/config.hpp"

LAMINA_NAMESPACE_BEGIN

/// Base of everything lamina throws. The message names the function, the argument, its value and
/// what was expected.
struct error : std::runtime_error {
  using std::runtime_error::runtime_error;
};

/// Two shapes or sizes that must agree do not.
struct shape_error : error {
  using error::error;
};

/// An option or a value is outside its legal range.
struct config_error : error {
  using error::error;
};

/// A layer selection is empty, out of range or cannot be parsed.
struct selection_error : error {
  using error::error;
};

/// A file is truncated, corrupt, or not what it says it is.
struct format_error : error {
  using error::error;
};

/// The operating system refused a file operation.
struct io_error : error {
  using error::error;
};

/// A measurement cannot support the number that was asked for.
struct measurement_error : error {
  using error::error;
};

/// Memory lies where the backend cannot use it, or a device refused a call.
struct device_error : error {
  using error::error;
};

namespace detail {

// Shortest common text of a number in a message: 0.2 is "0.2", not "0.200000".
inline std::string text_of(double value) {
  char buffer[40];
  std::snprintf(buffer, sizeof buffer, "%.6g", value);
  return buffer;
}

// A piece of a message. One type for all, so that the hundred throw sites of the library share one
// function that joins them.
class message_part {
 public:
  message_part(char const* text) : text_(text) {}
  message_part(std::string_view text) : text_(text) {}
  message_part(std::string const& text) : text_(text) {}
  message_part(double number) : number_(number), kind_(kind::number) {}
  message_part(float number) : message_part(static_cast<double>(number)) {}
  message_part(bool flag) : message_part(static_cast<int>(flag)) {}
  message_part(int count) : message_part(static_cast<long long>(count)) {}
  message_part(long count) : message_part(static_cast<long long>(count)) {}
  message_part(long long count) : count_(count), kind_(kind::count) {}
  message_part(unsigned count) : message_part(static_cast<unsigned long long>(count)) {}
  message_part(unsigned long count) : message_part(static_cast<unsigned long long>(count)) {}
  message_part(unsigned long long count)
      : count_(static_cast<long long>(count)), kind_(kind::size) {}

  void append_to(std::string& message) const {
    switch (kind_) {
      case kind::text: message += text_; break;
      case kind::number: message += text_of(number_); break;
      case kind::count: message += std::to_string(count_); break;
      case kind::size: message += std::to_string(static_cast<unsigned long long>(count_)); break;
    }
  }

 private:
  enum class kind : unsigned char { text, number, count, size };
  std::string_view text_{};
  double number_ = 0;
  long long count_ = 0;
  kind kind_ = kind::text;
};

inline std::string join_parts(message_part const* parts, std::size_t count) {
  std::string message;
  for (std::size_t i = 0; i < count; ++i) parts[i].append_to(message);
  return message;
}

template <class... Parts>
std::string join(Parts const&... parts) {
  message_part const list[] = {parts...};
  return join_parts(list, sizeof...(parts));
}

}  // namespace detail

/// Throws shape_error through the throw seam, with the message joined from `parts`.
template <class... Parts>
[[noreturn]] void throw_shape_error(Parts... parts) {
  detail::message_part const list[] = {parts...};
  LAMINA_THROW(shape_error, detail::join_parts(list, sizeof...(parts)));
}

/// Throws config_error through the throw seam.
template <class... Parts>
[[noreturn]] void throw_config_error(Parts... parts) {
  detail::message_part const list[] = {parts...};
  LAMINA_THROW(config_error, detail::join_parts(list, sizeof...(parts)));
}

/// Throws selection_error through the throw seam.
template <class... Parts>
[[noreturn]] void throw_selection_error(Parts... parts) {
  detail::message_part const list[] = {parts...};
  LAMINA_THROW(selection_error, detail::join_parts(list, sizeof...(parts)));
}

/// Throws format_error through the throw seam.
template <class... Parts>
[[noreturn]] void throw_format_error(Parts... parts) {
  detail::message_part const list[] = {parts...};
  LAMINA_THROW(format_error, detail::join_parts(list, sizeof...(parts)));
}

/// Throws io_error through the throw seam.
template <class... Parts>
[[noreturn]] void throw_io_error(Parts... parts) {
  detail::message_part const list[] = {parts...};
  LAMINA_THROW(io_error, detail::join_parts(list, sizeof...(parts)));
}

/// Throws device_error through the throw seam.
template <class... Parts>
[[noreturn]] void throw_device_error(Parts... parts) {
  detail::message_part const list[] = {parts...};
  LAMINA_THROW(device_error, detail::join_parts(list, sizeof...(parts)));
}

/// Throws measurement_error through the throw seam.
template <class... Parts>
[[noreturn]] void throw_measurement_error(Parts... parts) {
  detail::message_part const list[] = {parts...};
  LAMINA_THROW(measurement_error, detail::join_parts(list, sizeof...(parts)));
}

LAMINA_NAMESPACE_END
