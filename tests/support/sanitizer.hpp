// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
#pragma once

/// What tests must know about the sanitizer they may be built with.

#if defined(__has_feature)
#if __has_feature(undefined_behavior_sanitizer)
#define VMSUPERIO_UNDEFINED_BEHAVIOR_SANITIZER
#endif
#endif

namespace vmsuperio_test {

/// UndefinedBehaviorSanitizer takes a valid object for invalid where the process has no descriptor left for
/// its pipe.
#ifdef VMSUPERIO_UNDEFINED_BEHAVIOR_SANITIZER
inline constexpr bool sanitizer_needs_descriptors = true;
#else
inline constexpr bool sanitizer_needs_descriptors = false;
#endif

}  // namespace vmsuperio_test
