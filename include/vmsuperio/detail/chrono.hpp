// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
#pragma once

#include <vmsuperio/detail/config.hpp>

/// Durations, time points and clocks, which is all of <chrono> that the devices need. In libstdc++ they have
/// a separate header, which <mutex> and others include; the rest (calendars, parsing, streams) takes longer
/// to compile than all devices together. Other libraries have only <chrono>.
#if defined(_GLIBCXX_RELEASE) && __has_include(<bits/chrono.h>)
#include <bits/chrono.h>
#else
#include <chrono>
#endif
