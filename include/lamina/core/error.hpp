// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// What lamina throws, and the small text helpers its messages are built with.
#pragma once

#include <cstdio>
#include <stdexcept>
#include <string>
#include <string_view>
#include <type_traits>

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

namespace detail {

// Shortest common text of a number in a message: 0.2 is "0.2", not "0.200000".
inline std::string text_of(double value) {
  char buffer[40];
  std::snprintf(buffer, sizeof buffer, "%.6g", value);
  return buffer;
}

template <class... Parts>
std::string join(Parts const&... parts) {
  std::string text;
  auto const append = [&text](auto const& part) {
    using part_type = std::remove_cvref_t<decltype(part)>;
    if constexpr (std::is_integral_v<part_type>) {
      text += std::to_string(part);
    } else if constexpr (std::is_floating_point_v<part_type>) {
      text += text_of(static_cast<double>(part));
    } else {
      text += std::string_view(part);
    }
  };
  (append(parts), ...);
  return text;
}

}  // namespace detail

/// Throws shape_error through the throw seam, with the message joined from `parts`.
template <class... Parts>
[[noreturn]] void throw_shape_error(Parts const&... parts) {
  LAMINA_THROW(shape_error, detail::join(parts...));
}

/// Throws config_error through the throw seam.
template <class... Parts>
[[noreturn]] void throw_config_error(Parts const&... parts) {
  LAMINA_THROW(config_error, detail::join(parts...));
}

/// Throws selection_error through the throw seam.
template <class... Parts>
[[noreturn]] void throw_selection_error(Parts const&... parts) {
  LAMINA_THROW(selection_error, detail::join(parts...));
}

/// Throws format_error through the throw seam.
template <class... Parts>
[[noreturn]] void throw_format_error(Parts const&... parts) {
  LAMINA_THROW(format_error, detail::join(parts...));
}

/// Throws io_error through the throw seam.
template <class... Parts>
[[noreturn]] void throw_io_error(Parts const&... parts) {
  LAMINA_THROW(io_error, detail::join(parts...));
}

/// Throws measurement_error through the throw seam.
template <class... Parts>
[[noreturn]] void throw_measurement_error(Parts const&... parts) {
  LAMINA_THROW(measurement_error, detail::join(parts...));
}

LAMINA_NAMESPACE_END
