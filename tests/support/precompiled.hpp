// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
#pragma once

// What most tests include of Catch2 and of the standard library (see VMSUPERIO_PRECOMPILE in tests/CMakeLists.txt).

#include <algorithm>
#include <array>
#include <atomic>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <expected>
#include <filesystem>
#include <fstream>
#include <functional>
#include <limits>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <random>
#include <set>
#include <span>
#include <string>
#include <string_view>
#include <thread>
#include <utility>
#include <vector>

#include "catch.hpp"
