# SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
include(CMakePackageConfigHelpers)

# No installed file depends on the architecture, so all of them go below the data directory.
set(package_dir "${CMAKE_INSTALL_DATADIR}/cmake/vmsuperio")

foreach(library IN ITEMS vmdevice vmsuperio)
  install(TARGETS ${library} EXPORT ${library}-targets FILE_SET HEADERS DESTINATION "${CMAKE_INSTALL_INCLUDEDIR}")
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
write_basic_package_version_file(vmsuperioConfigVersion.cmake COMPATIBILITY SameMinorVersion ARCH_INDEPENDENT)
install(FILES "${PROJECT_BINARY_DIR}/vmsuperioConfig.cmake" "${PROJECT_BINARY_DIR}/vmsuperioConfigVersion.cmake"
        DESTINATION "${package_dir}")
# These are sources, not headers of the libraries. Projects that fuzz their own devices compile them.
install(FILES cmake/vmsuperioFuzz.cmake DESTINATION "${package_dir}")
install(FILES fuzz/fuzz_any_device.hpp DESTINATION "${CMAKE_INSTALL_DATADIR}/vmsuperio/fuzz")
install(
  DIRECTORY fuzz/support/
  DESTINATION "${CMAKE_INSTALL_DATADIR}/vmsuperio/fuzz/support"
  FILES_MATCHING
  PATTERN "*.hpp"
  PATTERN "*.cpp")
install(FILES LICENSE-APACHE LICENSE-BSD-3-Clause DESTINATION "${CMAKE_INSTALL_DOCDIR}")
