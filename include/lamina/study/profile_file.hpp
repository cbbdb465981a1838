// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// The contributions of a report's JSON file read back: what a selection such as top:5@profile.json
// refers to.
#pragma once

#include <limits>
#include <string>
#include <string_view>
#include <vector>

#include "lamina/io/atomic_file.hpp"
#include "lamina/io/json.hpp"
#include "lamina/layers/layer_set.hpp"

LAMINA_NAMESPACE_BEGIN

/// "contributions_by_layer" of a file that json_report wrote: [layers], NaN where a layer was not
/// measured. Throws io_error if the file cannot be read, and format_error, with file and place, if
/// it is not such a report or has not 1..max_layers layers.
inline std::vector<double> read_contributions(std::string const& path) {
  nlohmann::json const document = parse_json(read_file(path), path);
  json_view const list = json_view(document, path).at("contributions_by_layer");
  auto const layer_count = static_cast<index_t>(list.array().size());
  if (layer_count < 1 || layer_count > max_layers) {
    throw_format_error(list.where(), " has ", layer_count, " layers, expected 1..", max_layers);
  }
  std::vector<double> contributions;
  for (index_t layer = 0; layer < layer_count; ++layer) {
    json_view const value = list.at(layer);
    contributions.push_back(value.value().is_null() ? std::numeric_limits<double>::quiet_NaN()
                                                    : value.number());
  }
  return contributions;
}

/// The lookup of parse_selection for which the name behind '@' is a file; without '@' there is
/// none.
struct profile_files {
  std::vector<double> operator()(std::string_view name) const {
    return name.empty() ? std::vector<double>() : read_contributions(std::string(name));
  }
};

LAMINA_NAMESPACE_END
