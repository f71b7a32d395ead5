// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
#pragma once

/// Clang's thread-safety annotations, which a standard attribute cannot spell for every compiler; empty
/// elsewhere. https://clang.llvm.org/docs/ThreadSafetyAnalysis.html

#if defined(__clang__)
#define VMDEVICE_THREAD_ATTRIBUTE(x) __attribute__((x))
#else
#define VMDEVICE_THREAD_ATTRIBUTE(x)
#endif

#define VMDEVICE_CAPABILITY(name) VMDEVICE_THREAD_ATTRIBUTE(capability(name))
#define VMDEVICE_SCOPED_CAPABILITY VMDEVICE_THREAD_ATTRIBUTE(scoped_lockable)
#define VMDEVICE_GUARDED_BY(mutex) VMDEVICE_THREAD_ATTRIBUTE(guarded_by(mutex))
#define VMDEVICE_REQUIRES(mutex) VMDEVICE_THREAD_ATTRIBUTE(requires_capability(mutex))
#define VMDEVICE_EXCLUDES(mutex) VMDEVICE_THREAD_ATTRIBUTE(locks_excluded(mutex))
#define VMDEVICE_ACQUIRE(...) VMDEVICE_THREAD_ATTRIBUTE(acquire_capability(__VA_ARGS__))
#define VMDEVICE_TRY_ACQUIRE(...) VMDEVICE_THREAD_ATTRIBUTE(try_acquire_capability(__VA_ARGS__))
#define VMDEVICE_RELEASE(...) VMDEVICE_THREAD_ATTRIBUTE(release_capability(__VA_ARGS__))
#define VMDEVICE_NO_ANALYSIS VMDEVICE_THREAD_ATTRIBUTE(no_thread_safety_analysis)
