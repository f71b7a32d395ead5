# SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
# An overlay port: vcpkg install vmsuperio --overlay-ports=THIS-REPOSITORY/packaging/vcpkg/ports
# It installs the sources that it is part of.
get_filename_component(SOURCE_PATH "${CURRENT_PORT_DIR}/../../../.." ABSOLUTE)

vcpkg_cmake_configure(
  SOURCE_PATH "${SOURCE_PATH}"
  OPTIONS
    -DVMSUPERIO_BUILD_TESTS=OFF
    -DVMSUPERIO_BUILD_EXAMPLES=OFF
    -DVMSUPERIO_INSTALL=ON
    "-DVMSUPERIO_INSTALL_CMAKEDIR=share/${PORT}")
vcpkg_cmake_install()
vcpkg_fixup_pkgconfig()

# Headers do not differ between debug and release.
file(REMOVE_RECURSE "${CURRENT_PACKAGES_DIR}/debug")
# vcpkg keeps the licenses in one file of its own.
file(REMOVE_RECURSE "${CURRENT_PACKAGES_DIR}/share/doc")
vcpkg_install_copyright(FILE_LIST "${SOURCE_PATH}/LICENSE-APACHE" "${SOURCE_PATH}/LICENSE-BSD-3-Clause")
file(INSTALL "${CURRENT_PORT_DIR}/usage" DESTINATION "${CURRENT_PACKAGES_DIR}/share/${PORT}")
