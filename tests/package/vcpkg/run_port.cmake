# SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
# Runs a portfile without vcpkg, for a package of headers: cmake -DPORT_DIR=... -DPACKAGES_DIR=... -DBUILD_DIR=...
# -DCOMPILER=... -P run_port.cmake. Each function does what vcpkg's function of that name does, and refuses arguments that
# this one does not know.
set(CURRENT_PORT_DIR "${PORT_DIR}")
set(CURRENT_PACKAGES_DIR "${PACKAGES_DIR}")
set(PORT vmsuperio)
set(VERSION 0.0.0)

function(run)
  execute_process(COMMAND ${ARGV} RESULT_VARIABLE status OUTPUT_VARIABLE output ERROR_VARIABLE output)
  if(NOT status EQUAL 0)
    message(FATAL_ERROR "${ARGV}:\n${output}")
  endif()
endfunction()

macro(parse_all prefix single multiple)
  cmake_parse_arguments(arg "" "${single}" "${multiple}" ${ARGN})
  if(arg_UNPARSED_ARGUMENTS OR arg_KEYWORDS_MISSING_VALUES)
    message(FATAL_ERROR "${prefix}: ${arg_UNPARSED_ARGUMENTS} ${arg_KEYWORDS_MISSING_VALUES}")
  endif()
endmacro()

function(vcpkg_cmake_configure)
  parse_all(vcpkg_cmake_configure SOURCE_PATH OPTIONS ${ARGN})
  run("${CMAKE_COMMAND}" -S "${arg_SOURCE_PATH}" -B "${BUILD_DIR}" -G Ninja "-DCMAKE_CXX_COMPILER=${COMPILER}"
      "-DCMAKE_INSTALL_PREFIX=${CURRENT_PACKAGES_DIR}" ${arg_OPTIONS})
endfunction()
function(vcpkg_cmake_install)
  parse_all(vcpkg_cmake_install "" "" ${ARGN})
  run("${CMAKE_COMMAND}" --build "${BUILD_DIR}" --target install)
  # The debug build of a package of headers.
  run("${CMAKE_COMMAND}" --install "${BUILD_DIR}" --prefix "${CURRENT_PACKAGES_DIR}/debug")
endfunction()
function(vcpkg_fixup_pkgconfig)
  file(GLOB_RECURSE modules "${CURRENT_PACKAGES_DIR}/share/pkgconfig/*.pc")
  if(NOT modules)
    message(FATAL_ERROR "no pkg-config module was installed")
  endif()
endfunction()
function(vcpkg_install_copyright)
  parse_all(vcpkg_install_copyright "COMMENT" "FILE_LIST" ${ARGN})
  foreach(file IN LISTS arg_FILE_LIST)
    file(READ "${file}" text)
    file(APPEND "${CURRENT_PACKAGES_DIR}/share/${PORT}/copyright" "${text}\n")
  endforeach()
endfunction()

include("${PORT_DIR}/portfile.cmake")
