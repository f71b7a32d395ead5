// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
#pragma once

/// Properties of the sanitizer with which the tests are built, if any.

#if defined(__has_feature)
#if __has_feature(undefined_behavior_sanitizer)
#define VMSUPERIO_UNDEFINED_BEHAVIOR_SANITIZER
#endif
#endif

namespace vmsuperio_test {

/// UndefinedBehaviorSanitizer reports a valid object as invalid if the process has no descriptor left for its
/// pipe.
#ifdef VMSUPERIO_UNDEFINED_BEHAVIOR_SANITIZER
inline constexpr bool sanitizer_needs_descriptors = true;
#else
inline constexpr bool sanitizer_needs_descriptors = false;
#endif

}  // namespace vmsuperio_test
