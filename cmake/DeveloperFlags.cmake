# SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
# Warnings, sanitizers and coverage for the programs built in this repository.
target_compile_options(
  vmsuperio_developer_flags
  INTERFACE -Wall
            -Wextra
            -Wpedantic
            $<$<BOOL:${VMSUPERIO_WARNINGS_AS_ERRORS}>:-Werror>
            -Wconversion
            -Wsign-conversion
            -Wshadow
            -Wold-style-cast
            -Wcast-align
            -Wnon-virtual-dtor
            -Woverloaded-virtual
            -Wdouble-promotion
            -Wformat=2
            -Wimplicit-fallthrough
            -Wextra-semi)
if(CMAKE_CXX_COMPILER_ID STREQUAL "Clang")
  target_compile_options(vmsuperio_developer_flags INTERFACE -Wthread-safety)
else()
  # GCC 12 reports overflows inside its own std::vector and std::string at -O3 (its bugs 105329, 105762).
  target_compile_options(vmsuperio_developer_flags INTERFACE -Wduplicated-cond -Wduplicated-branches -Wlogical-op
                                                             -Wno-stringop-overflow -Wno-array-bounds -Wno-restrict)
endif()
if(CMAKE_SIZEOF_VOID_P EQUAL 4)
  # Tests keep 64-bit numbers in sizes and indices.
  target_compile_options(vmsuperio_developer_flags INTERFACE -Wno-conversion -Wno-sign-conversion)
endif()
if(VMSUPERIO_SANITIZE)
  target_compile_options(vmsuperio_developer_flags INTERFACE -fsanitize=${VMSUPERIO_SANITIZE}
                                                             -fno-sanitize-recover=all -fno-omit-frame-pointer)
  target_link_options(vmsuperio_developer_flags INTERFACE -fsanitize=${VMSUPERIO_SANITIZE})
endif()
if(VMSUPERIO_COVERAGE)
  target_compile_options(vmsuperio_developer_flags INTERFACE --coverage -fprofile-update=atomic)
  target_link_options(vmsuperio_developer_flags INTERFACE --coverage)
endif()
# What most of our own programs include of the standard library (VMSUPERIO_PRECOMPILE).
set(vmsuperio_precompiled_headers
    <algorithm>
    <array>
    <atomic>
    <chrono>
    <cstddef>
    <cstdint>
    <expected>
    <filesystem>
    <fstream>
    <functional>
    <limits>
    <map>
    <memory>
    <mutex>
    <optional>
    <random>
    <set>
    <span>
    <string>
    <string_view>
    <thread>
    <utility>
    <vector>)
