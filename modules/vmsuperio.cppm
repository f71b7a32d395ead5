// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
// The module vmsuperio, written by scripts/amalgamate: import vmsuperio;
// Clang 19 compiles it. GCC 12 does not.
module;

#include <array>
#include <bit>
#include <concepts>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <expected>
#include <initializer_list>
#include <limits>
#include <new>
#include <optional>
#include <ratio>
#include <span>
#include <string>
#include <string_view>
#include <system_error>
#include <tuple>
#include <type_traits>
#include <utility>
#include <vector>
#if __has_include(<bits/chrono.h>)
#include <bits/chrono.h>
#endif
#if __has_include(<chrono>)
#include <chrono>
#endif
#if __has_include(<version>)
#include <version>
#endif
#if defined(__linux__)
#include <algorithm>
#include <cerrno>
#include <climits>
#include <cstdio>
#include <fcntl.h>
#include <poll.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>
#endif

export module vmsuperio;

#if defined(__clang__)
#pragma clang diagnostic ignored "-Winclude-angled-in-module-purview"
#endif
export extern "C++" {
#include <vmsuperio/vmsuperio.hpp>  // IWYU pragma: export
#if defined(__linux__)
#include <vmsuperio/linux/eventfd.hpp>
#include <vmsuperio/linux/fd_writer.hpp>
#include <vmsuperio/linux/unique_fd.hpp>
#endif
}  // extern "C++"
