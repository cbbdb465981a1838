// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// parse_parameter_name and strip_wrappers: every text is a name, and wrappers never matter.
#include "lamina/layers/parameter_name.hpp"

#include "lamina/layers/role_set.hpp"

#include "tests/fuzz/require.hpp"

namespace {

void check_place(lamina::parameter_place const& place, lamina::name_options const& options) {
  using lamina::parameter_group;
  if (place.group == parameter_group::decoder_layer) {
    require(place.layer >= options.first_layer && place.layer < options.layer_count);
    require(lamina::layer_roles.contains(place.role));
    require(place.expert >= lamina::no_expert);
    return;
  }
  require(place.layer == lamina::outside_layers);
  require(place.expert == lamina::no_expert && !place.stacked);
  bool const is_outer = place.group == parameter_group::embedding ||
                        place.group == parameter_group::final_norm ||
                        place.group == parameter_group::head;
  require(is_outer == lamina::outer_roles.contains(place.role));
  require(is_outer || place.role == lamina::parameter_role::other);
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(std::uint8_t const* data, std::size_t size) {
  if (size == 0) return 0;
  std::string_view const name(reinterpret_cast<char const*>(data + 1), size - 1);
  lamina::name_options const options{.layer_count = 1 + data[0] / 2, .first_layer = data[0] / 4};
  lamina::parameter_place const place = lamina::parse_parameter_name(name, options);
  check_place(place, options);
  std::string const stripped = lamina::strip_wrappers(name);
  require(lamina::strip_wrappers(stripped) == stripped);
  require(lamina::parse_parameter_name(stripped, options) == place);
  // A name that is itself "default" would be read as the adapter's.
  if (name.substr(0, 7) == "default") return 0;
  char const* const wrappers[] = {"module.", "_orig_mod/", "base_model.model.", "lora_A.default."};
  std::string const wrapped = wrappers[data[0] % 4] + std::string(name);
  require(lamina::parse_parameter_name(wrapped, options) == place);
  return 0;
}
