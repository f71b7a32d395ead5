// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
#pragma once

#include <cstddef>
#include <string>
#include <string_view>

namespace kvm_vmm {

/// `text` in single quotes, suitable for a line on a terminal: control characters (C0, DEL, C1) and bytes
/// that are not UTF-8 become `\xNN`, and if the text is longer than 1024 bytes its middle is left out.
[[nodiscard]] std::string in_quotes(std::string_view text);

/// The length in bytes of the character at the start of `text`, or 0 if it must not be sent to a terminal: a
/// control character, or a byte that is not UTF-8.
[[nodiscard]] std::size_t shown_length(std::string_view text);

}  // namespace kvm_vmm
