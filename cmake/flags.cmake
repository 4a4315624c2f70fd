# drupe_flags: what every room is compiled with.
add_library(drupe_flags INTERFACE)
target_include_directories(drupe_flags INTERFACE
  ${CMAKE_SOURCE_DIR}/src ${CMAKE_SOURCE_DIR}/include ${CMAKE_BINARY_DIR}/generated)
target_compile_definitions(drupe_flags INTERFACE
  _GNU_SOURCE DRUPE_VERSION="${PROJECT_VERSION}")
target_compile_options(drupe_flags INTERFACE
  -fvisibility=hidden -Wall -Wextra -Wpedantic -Wshadow -Wconversion -Wno-sign-conversion
  -Wstrict-prototypes -Wmissing-prototypes -Wvla -Wcast-qual -Wformat=2 -Wundef
  -Wwrite-strings -Wdouble-promotion -Wimplicit-fallthrough -Wswitch-enum -fno-common
  -fmacro-prefix-map=${CMAKE_SOURCE_DIR}/=)
# Same bytes on every machine: no contraction of a*b+c unless the code asks for fma().
target_compile_options(drupe_flags INTERFACE -ffp-contract=off)
if(CMAKE_C_COMPILER_ID STREQUAL "GNU")
  target_compile_options(drupe_flags INTERFACE
    -Wlogical-op -Wduplicated-cond -Wduplicated-branches)
elseif(CMAKE_C_COMPILER_ID MATCHES "Clang")
  target_compile_options(drupe_flags INTERFACE -Wconditional-uninitialized -Wcomma)
endif()
if(DRUPE_WERROR)
  target_compile_options(drupe_flags INTERFACE -Werror)
endif()
if(DRUPE_SANITIZE)
  target_compile_options(drupe_flags INTERFACE -fsanitize=address,undefined
    -fno-omit-frame-pointer)
  target_link_options(drupe_flags INTERFACE -fsanitize=address,undefined)
endif()
if(DRUPE_FUZZ)
  set(fuzz_sanitizers address,undefined,float-cast-overflow)
  target_compile_options(drupe_flags INTERFACE -fno-omit-frame-pointer
    -fsanitize=fuzzer-no-link,${fuzz_sanitizers} -fno-sanitize-recover=all)
  target_link_options(drupe_flags INTERFACE -fsanitize=${fuzz_sanitizers})
endif()
if(DRUPE_TSAN)
  target_compile_options(drupe_flags INTERFACE -fsanitize=thread)
  target_link_options(drupe_flags INTERFACE -fsanitize=thread)
endif()
