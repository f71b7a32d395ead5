// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
#pragma once

#include <span>
#include <string>
#include <string_view>

namespace kvm_vmm {

/// The one of `words` that was most likely meant by `word`: the same except for case or '_' instead of '-', a
/// word that begins with it, or one that differs in a few letters (two swapped letters count as one). Empty
/// if none is similar.
[[nodiscard]] std::string_view nearest_word(std::string_view word, std::span<const std::string_view> words);

/// "; did you mean X?" with the one of `words` that is nearest to `word`, or an empty text.
[[nodiscard]] std::string suggestion(std::string_view word, std::span<const std::string_view> words);

/// One line about `word`, which begins with '-' and is not an option. `options` are the names of the options
/// with the dashes. Options of QEMU, Firecracker, cloud-hypervisor, crosvm and kvmtool are recognised.
[[nodiscard]] std::string explain_unknown_option(std::string_view word,
                                                 std::span<const std::string_view> options);

/// in_quotes() of at most the first 80 bytes of `text`, because one line contains several such words.
[[nodiscard]] std::string quote(std::string_view text);

}  // namespace kvm_vmm
