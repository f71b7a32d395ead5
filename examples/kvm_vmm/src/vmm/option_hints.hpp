// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
#pragma once

#include <span>
#include <string>
#include <string_view>

namespace kvm_vmm {

/// The one of `words` that `word` most likely was meant to be: the same but for case or '_' instead of '-',
/// the beginning of one, or a few letters away (swapped neighbours count as one). Empty where none is near.
[[nodiscard]] std::string_view nearest_word(std::string_view word, std::span<const std::string_view> words);

/// "; did you mean X?" with the one of `words` that is nearest to `word`, or nothing.
[[nodiscard]] std::string suggestion(std::string_view word, std::span<const std::string_view> words);

/// One line about `word`, which begins with '-' and is none of the options. `options` are their names with
/// the dashes. Words that users of QEMU, Firecracker, cloud-hypervisor, crosvm and kvmtool know are
/// recognised.
[[nodiscard]] std::string explain_unknown_option(std::string_view word,
                                                 std::span<const std::string_view> options);

/// in_quotes() of no more than the first 80 bytes of `text`, for several such words are in one line.
[[nodiscard]] std::string quote(std::string_view text);

}  // namespace kvm_vmm
