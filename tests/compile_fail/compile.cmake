# SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
# Compiles `source` as it is written (form = mistake: must fail with the text of its first line) or
# repaired (form = fixed: must compile).
file(STRINGS ${source} expected LIMIT_COUNT 1)
if(NOT expected MATCHES "^// expect: (.+)$")
  message(FATAL_ERROR "${source}: the first line is not `// expect: <regular expression>`")
endif()
set(expected "${CMAKE_MATCH_1}")

set(command ${compiler} -std=c++20 -fsyntax-only -I${include} -isystem ${eigen_include}
    ${source})
set(ENV{LC_ALL} C)
if(form STREQUAL "fixed")
  list(APPEND command -Wall -Wextra -Wpedantic -Werror -DLAMINA_FIXED)
endif()
execute_process(COMMAND ${command} RESULT_VARIABLE status ERROR_VARIABLE words OUTPUT_QUIET)

if(form STREQUAL "fixed" AND NOT status EQUAL 0)
  message(FATAL_ERROR "the repaired form does not compile:\n${words}")
elseif(form STREQUAL "mistake" AND status EQUAL 0)
  message(FATAL_ERROR "the mistake compiles, expected: ${expected}")
elseif(form STREQUAL "mistake" AND NOT words MATCHES "(error|note):[^\n]*(${expected})")
  message(FATAL_ERROR "the compiler does not say: ${expected}\nbut:\n${words}")
endif()
