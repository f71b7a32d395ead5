// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
#pragma once

#include <cstddef>
#include <string>
#include <string_view>

namespace kvm_vmm {

/// `text` in single quotes, fit for a line on a terminal: control characters (C0, DEL, C1) and bytes that are
/// no UTF-8 become `\xNN`, and of more than 1024 bytes the middle is left out.
[[nodiscard]] std::string in_quotes(std::string_view text);

/// The length in bytes of the character at the start of `text`; 0 where a terminal should not get it as it
/// is: a control character, or a byte that is no UTF-8.
[[nodiscard]] std::size_t shown_length(std::string_view text);

}  // namespace kvm_vmm
