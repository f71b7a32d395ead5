# SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
include(CMakePackageConfigHelpers)

# No installed file depends on the architecture, so all of them go below the data directory. vcpkg wants the package's
# files in share/vmsuperio.
set(VMSUPERIO_INSTALL_CMAKEDIR "${CMAKE_INSTALL_DATADIR}/cmake/vmsuperio" CACHE STRING
    "Folder of the CMake package, relative to the prefix")
set(package_dir "${VMSUPERIO_INSTALL_CMAKEDIR}")
set(fuzz_dir "${CMAKE_INSTALL_DATADIR}/vmsuperio/fuzz")

foreach(library IN ITEMS vmdevice vmsuperio)
  # CMake before 3.23 ignores the file set of an installed package.
  install(TARGETS ${library} EXPORT ${library}-targets INCLUDES DESTINATION "${CMAKE_INSTALL_INCLUDEDIR}"
          FILE_SET HEADERS DESTINATION "${CMAKE_INSTALL_INCLUDEDIR}")
  install(
    EXPORT ${library}-targets
    NAMESPACE vmsuperio::
    DESTINATION "${package_dir}")
  # The prefix is given relative to the file, so that an installed tree may be moved.
  file(RELATIVE_PATH pc_prefix "/${CMAKE_INSTALL_DATADIR}/pkgconfig" "/")
  string(REGEX REPLACE "/$" "" pc_prefix "${pc_prefix}")
  configure_file(cmake/${library}.pc.in ${library}.pc @ONLY)
  install(FILES "${PROJECT_BINARY_DIR}/${library}.pc" DESTINATION "${CMAKE_INSTALL_DATADIR}/pkgconfig")
endforeach()

foreach(header IN LISTS vmsuperio_optional_headers)
  cmake_path(GET header PARENT_PATH directory)
  install(FILES "${PROJECT_SOURCE_DIR}/include/${header}" DESTINATION "${CMAKE_INSTALL_INCLUDEDIR}/${directory}")
endforeach()

configure_package_config_file(cmake/vmsuperioConfig.cmake.in vmsuperioConfig.cmake INSTALL_DESTINATION
                              "${package_dir}")
math(EXPR previous_minor "${PROJECT_VERSION_MINOR} - 1")
set(compatible_version "${PROJECT_VERSION_MAJOR}.${previous_minor}")
configure_file(cmake/vmsuperioConfigVersion.cmake.in vmsuperioConfigVersion.cmake @ONLY)
install(FILES "${PROJECT_BINARY_DIR}/vmsuperioConfig.cmake" "${PROJECT_BINARY_DIR}/vmsuperioConfigVersion.cmake"
        DESTINATION "${package_dir}")
# These are sources, not headers of the libraries. Projects that fuzz their own devices compile them.
file(RELATIVE_PATH relative_fuzz_dir "/${package_dir}" "/${fuzz_dir}")
configure_file(cmake/vmsuperioFuzz.cmake.in vmsuperioFuzz.cmake @ONLY)
install(FILES "${PROJECT_BINARY_DIR}/vmsuperioFuzz.cmake" DESTINATION "${package_dir}")
install(FILES fuzz/fuzz_any_device.hpp DESTINATION "${fuzz_dir}")
install(
  DIRECTORY fuzz/support/
  DESTINATION "${fuzz_dir}/support"
  FILES_MATCHING
  PATTERN "*.hpp"
  PATTERN "*.cpp")
# Each library in one file (scripts/amalgamate).
install(FILES single_include/vmsuperio.hpp single_include/vmdevice.hpp
        DESTINATION "${CMAKE_INSTALL_DATADIR}/vmsuperio/single_include")
# C++20 modules, to compile with the project that imports them.
install(FILES modules/vmsuperio.cppm modules/vmdevice.cppm DESTINATION "${CMAKE_INSTALL_DATADIR}/vmsuperio/modules")

# The Common Package Specification's description, which build systems other than CMake can read.
# The file itself names the prefix as @prefix@.
set(prefix "@prefix@")
configure_file(cmake/vmsuperio.cps.in vmsuperio.cps @ONLY)
install(FILES "${PROJECT_BINARY_DIR}/vmsuperio.cps" DESTINATION "${CMAKE_INSTALL_DATADIR}/cps")
install(FILES LICENSE-APACHE LICENSE-BSD-3-Clause DESTINATION "${CMAKE_INSTALL_DOCDIR}")
