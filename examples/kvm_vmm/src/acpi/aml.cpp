// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
#include "acpi/aml.hpp"

#include <cstddef>
#include <stdexcept>
#include <string>

namespace kvm_vmm::aml {
namespace {

// Opcodes, ACPI 6.5, 20.2 and 20.3.
constexpr std::uint8_t zero_op = 0x00;
constexpr std::uint8_t one_op = 0x01;
constexpr std::uint8_t name_op = 0x08;
constexpr std::uint8_t byte_prefix = 0x0A;
constexpr std::uint8_t word_prefix = 0x0B;
constexpr std::uint8_t dword_prefix = 0x0C;
constexpr std::uint8_t string_prefix = 0x0D;
constexpr std::uint8_t qword_prefix = 0x0E;
constexpr std::uint8_t scope_op = 0x10;
constexpr std::uint8_t buffer_op = 0x11;
constexpr std::uint8_t package_op = 0x12;
constexpr std::uint8_t dual_name_prefix = 0x2E;
constexpr std::uint8_t multi_name_prefix = 0x2F;
constexpr std::uint8_t extended_prefix = 0x5B;
constexpr std::uint8_t device_op = 0x82;

[[noreturn]] void refuse(std::string_view what, std::string_view text) {
    throw std::invalid_argument("AML: '" + std::string(text) + "' is not " + std::string(what));
}

Bytes join(Terms terms) {
    Bytes result;
    for (const Bytes& term : terms) {
        append_bytes(result, term);
    }
    return result;
}

/// PkgLength (20.2.4) counts itself: up to 63 in one byte, else 4 bits there and 8 in each that follows.
Bytes with_package_length(const Bytes& content) {
    unsigned extra = 0;
    std::size_t length = content.size() + 1;
    if (length > 0x3F) {
        do {
            ++extra;
            length = content.size() + 1 + extra;
        } while (length >> (4U + 8U * extra) != 0 && extra < 3);
    }
    if (length >> 28U != 0) {
        throw std::length_error("AML: a package of 256 MiB or more");
    }
    Bytes result;
    if (extra == 0) {
        result.push_back(static_cast<std::uint8_t>(length));
    } else {
        result.push_back(static_cast<std::uint8_t>(extra << 6U | (length & 0xFU)));
        append_integer(result, length >> 4U, extra);
    }
    append_bytes(result, content);
    return result;
}

Bytes block(std::initializer_list<std::uint8_t> opcode, const Bytes& content) {
    Bytes result = opcode;
    append_bytes(result, with_package_length(content));
    return result;
}

Bytes named_block(std::initializer_list<std::uint8_t> opcode, std::string_view path, Terms terms) {
    Bytes content = name_string(path);
    append_bytes(content, join(terms));
    return block(opcode, content);
}

bool is_name_character(char c, bool lead) {
    return (c >= 'A' && c <= 'Z') || c == '_' || (!lead && c >= '0' && c <= '9');
}

void append_segment(Bytes& target, std::string_view segment, std::string_view path) {
    if (segment.empty() || segment.size() > 4) {
        refuse("a name path", path);
    }
    for (std::size_t i = 0; i < 4; ++i) {
        const char c = i < segment.size() ? segment[i] : '_';
        if (!is_name_character(c, i == 0)) {
            refuse("a name path", path);
        }
        target.push_back(static_cast<std::uint8_t>(c));
    }
}

}  // namespace

Bytes name_string(std::string_view path) {
    Bytes result;
    std::string_view rest = path;
    while (!rest.empty() && (rest.front() == '\\' || rest.front() == '^')) {
        result.push_back(static_cast<std::uint8_t>(rest.front()));
        rest.remove_prefix(1);
    }
    Bytes segments;
    while (!rest.empty()) {
        const std::size_t dot = rest.find('.');
        append_segment(segments, rest.substr(0, dot), path);
        if (dot == std::string_view::npos) {
            break;
        }
        rest.remove_prefix(dot + 1);
        if (rest.empty()) {
            refuse("a name path", path);
        }
    }
    const std::size_t count = segments.size() / 4;
    if (count == 0 && result.empty()) {
        refuse("a name path", path);
    }
    if (count == 0) {
        result.push_back(0);  // NullName: the root itself, or the parent
    } else if (count == 2) {
        result.push_back(dual_name_prefix);
    } else if (count > 2) {
        result.push_back(multi_name_prefix);
        result.push_back(static_cast<std::uint8_t>(count));
    }
    append_bytes(result, segments);
    return result;
}

Bytes integer(std::uint64_t value) {
    if (value <= 1) {
        return {value == 0 ? zero_op : one_op};
    }
    const unsigned bytes = value <= 0xFF ? 1 : value <= 0xFFFF ? 2 : value <= 0xFFFF'FFFF ? 4 : 8;
    Bytes result{bytes == 1   ? byte_prefix
                 : bytes == 2 ? word_prefix
                 : bytes == 4 ? dword_prefix
                              : qword_prefix};
    append_integer(result, value, bytes);
    return result;
}

Bytes string(std::string_view text) {
    Bytes result{string_prefix};
    for (const char c : text) {
        if (c <= 0) {  // AsciiChar is 0x01 to 0x7F
            refuse("an ASCII string", text);
        }
        result.push_back(static_cast<std::uint8_t>(c));
    }
    result.push_back(0);
    return result;
}

Bytes eisa_id(std::string_view id) {
    if (id.size() != 7) {
        refuse("an EISA id", id);
    }
    std::uint32_t value = 0;  // three letters of 5 bits, four hexadecimal digits; most significant byte first
    for (const char c : id.substr(0, 3)) {
        if (c < 'A' || c > 'Z') {
            refuse("an EISA id", id);
        }
        value = value << 5U | static_cast<std::uint32_t>(c - 'A' + 1);
    }
    for (const char c : id.substr(3)) {
        const bool digit = c >= '0' && c <= '9';
        if (!digit && (c < 'A' || c > 'F')) {
            refuse("an EISA id", id);
        }
        value = value << 4U | static_cast<std::uint32_t>(digit ? c - '0' : c - 'A' + 10);
    }
    Bytes result{dword_prefix};
    for (unsigned shift = 32; shift > 0; shift -= 8) {
        result.push_back(static_cast<std::uint8_t>(value >> (shift - 8U)));
    }
    return result;
}

Bytes buffer(std::span<const std::uint8_t> content) {
    Bytes body = integer(content.size());
    append_bytes(body, content);
    return block({buffer_op}, body);
}

Bytes name(std::string_view path, const Bytes& value) {
    Bytes result{name_op};
    append_bytes(result, name_string(path));
    append_bytes(result, value);
    return result;
}

Bytes package(Terms elements) {
    if (elements.size() > 0xFF) {
        throw std::length_error("AML: a package of more than 255 elements");
    }
    Bytes content{static_cast<std::uint8_t>(elements.size())};
    append_bytes(content, join(elements));
    return block({package_op}, content);
}

Bytes scope(std::string_view path, Terms terms) { return named_block({scope_op}, path, terms); }

Bytes device(std::string_view path, Terms terms) {
    return named_block({extended_prefix, device_op}, path, terms);
}

Bytes package(std::initializer_list<Bytes> elements) {
    return package(Terms(elements.begin(), elements.size()));
}

Bytes scope(std::string_view path, std::initializer_list<Bytes> terms) {
    return scope(path, Terms(terms.begin(), terms.size()));
}

Bytes device(std::string_view path, std::initializer_list<Bytes> terms) {
    return device(path, Terms(terms.begin(), terms.size()));
}

Bytes io(std::uint16_t port, std::uint8_t length) {
    constexpr std::uint8_t tag = 0x47;
    constexpr std::uint8_t decode_16 = 1;
    constexpr std::uint8_t alignment = 1;
    Bytes result{tag, decode_16};
    append_integer(result, port, 2);
    append_integer(result, port, 2);
    result.push_back(alignment);
    result.push_back(length);
    return result;
}

Bytes irq(std::uint8_t number, Sharing sharing) {
    // The two-byte form means edge, active high, exclusive; "shared" needs the third byte.
    if (number > 15) {
        throw std::invalid_argument("AML: the ISA bus has no interrupt " + std::to_string(number));
    }
    constexpr std::uint8_t edge_active_high = 0x01;
    constexpr std::uint8_t shared = 0x10;
    Bytes result{static_cast<std::uint8_t>(sharing == Sharing::shared ? 0x23 : 0x22)};
    append_integer(result, std::uint64_t{1} << number, 2);
    if (sharing == Sharing::shared) {
        result.push_back(edge_active_high | shared);
    }
    return result;
}

Bytes interrupt(std::uint32_t gsi, Triggering triggering, Sharing sharing) {
    constexpr std::uint8_t tag = 0x89;
    constexpr unsigned consumer = 1U << 0U;
    const unsigned edge = triggering == Triggering::edge ? 1U << 1U : 0U;
    const unsigned shared = sharing == Sharing::shared ? 1U << 3U : 0U;
    Bytes result{tag, 6, 0, static_cast<std::uint8_t>(consumer | edge | shared), 1};
    append_integer(result, gsi, 4);
    return result;
}

Bytes memory32_fixed(std::uint32_t base, std::uint32_t length) {
    constexpr std::uint8_t tag = 0x86;
    constexpr std::uint8_t read_write = 1;
    Bytes result{tag, 9, 0, read_write};
    append_integer(result, base, 4);
    append_integer(result, length, 4);
    return result;
}

Bytes resource_template(Terms descriptors) {
    constexpr std::uint8_t end_tag = 0x79;
    Bytes content = join(descriptors);
    content.push_back(end_tag);
    content.push_back(0);  // no checksum
    return buffer(content);
}

}  // namespace kvm_vmm::aml
