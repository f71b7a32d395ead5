// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
#pragma once

#include <cstdint>
#include <initializer_list>
#include <span>
#include <string_view>

#include "util/bytes.hpp"

/// A small builder of ACPI Machine Language (ACPI 6.5, chapter 20): each function returns the bytes of one
/// term, and terms nest as they do in ASL.
///
/// ```cpp
/// const aml::Bytes clock = aml::scope("\\_SB_", {aml::device("RTC0", {aml::name("_HID", aml::eisa_id("PNP0B00"))})});
/// ```
/// Its input comes from the VMM, not the guest: a malformed name or id throws std::invalid_argument.
namespace kvm_vmm::aml {

using kvm_vmm::Bytes;
using Terms = std::span<const Bytes>;

/// A path such as "_CRS", "\\_SB_.COM1" or "^PEVT"; segments are padded to four characters.
[[nodiscard]] Bytes name_string(std::string_view path);
[[nodiscard]] Bytes integer(std::uint64_t value);
[[nodiscard]] Bytes string(std::string_view text);
/// "PNP0501" compressed to the integer that _HID takes.
[[nodiscard]] Bytes eisa_id(std::string_view id);
[[nodiscard]] Bytes buffer(std::span<const std::uint8_t> content);

[[nodiscard]] Bytes name(std::string_view path, const Bytes& value);
[[nodiscard]] Bytes package(Terms elements);
[[nodiscard]] Bytes scope(std::string_view path, Terms terms);
[[nodiscard]] Bytes device(std::string_view path, Terms terms);
[[nodiscard]] Bytes package(std::initializer_list<Bytes> elements);
[[nodiscard]] Bytes scope(std::string_view path, std::initializer_list<Bytes> terms);
[[nodiscard]] Bytes device(std::string_view path, std::initializer_list<Bytes> terms);

// Resource descriptors (ACPI 6.5, 6.4), joined by resource_template().

enum class Triggering : std::uint8_t { level, edge };
enum class Sharing : std::uint8_t { exclusive, shared };

/// IO(Decode16, port, port, 1, length).
[[nodiscard]] Bytes io(std::uint16_t port, std::uint8_t length);
/// IRQ of the ISA bus: edge triggered, active high.
[[nodiscard]] Bytes irq(std::uint8_t number, Sharing sharing = Sharing::exclusive);
/// Interrupt by GSI, active high, for the device itself.
[[nodiscard]] Bytes interrupt(std::uint32_t gsi, Triggering triggering, Sharing sharing = Sharing::exclusive);
/// Memory32Fixed(ReadWrite, base, length).
[[nodiscard]] Bytes memory32_fixed(std::uint32_t base, std::uint32_t length);
/// The buffer for _CRS: the descriptors and the end tag.
[[nodiscard]] Bytes resource_template(Terms descriptors);

}  // namespace kvm_vmm::aml
