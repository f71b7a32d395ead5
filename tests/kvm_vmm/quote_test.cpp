// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
#include "util/quote.hpp"

#include <string>

#include "catch.hpp"

using kvm_vmm::in_quotes;

TEST_CASE("in_quotes: printable text in any script stays unchanged", "[quote]") {
    CHECK(in_quotes("") == "''");
    CHECK(in_quotes("/tmp/a b~") == "'/tmp/a b~'");
    CHECK(in_quotes("\u00A0\u00E9\u20AC\U0001F600\U0010FFFF") == "'\u00A0\u00E9\u20AC\U0001F600\U0010FFFF'");
}

TEST_CASE("in_quotes: control sequences of terminals are escaped", "[quote]") {
    CHECK(in_quotes("a\nb\r\t\x1B[2J\x7F") == "'a\\x0ab\\x0d\\x09\\x1b[2J\\x7f'");
    CHECK(in_quotes(std::string("nul\0", 4)) == "'nul\\x00'");
    // C1 controls, as UTF-8 and as bytes; CSI is U+009B.
    CHECK(in_quotes("\xC2\x9B"
                    "2J") == "'\\xc2\\x9b2J'");
    CHECK(in_quotes("\x9B"
                    "2J") == "'\\x9b2J'");
    // Invalid UTF-8: overlong, a surrogate, above U+10FFFF, cut off.
    CHECK(in_quotes("\xC0\x8A") == "'\\xc0\\x8a'");
    CHECK(in_quotes("\xE0\x82\x9B") == "'\\xe0\\x82\\x9b'");
    CHECK(in_quotes("\xED\xA0\x80") == "'\\xed\\xa0\\x80'");
    CHECK(in_quotes("\xF4\x90\x80\x80") == "'\\xf4\\x90\\x80\\x80'");
    CHECK(in_quotes("\xE2\x82") == "'\\xe2\\x82'");
    for (int byte = 0; byte < 256; ++byte) {
        for (const char c : in_quotes(std::string(1, static_cast<char>(byte)))) {
            CHECK((c >= ' ' && c < '\x7F'));
        }
    }
}

TEST_CASE("in_quotes: of a very long text both ends are shown", "[quote]") {
    const std::string text = "start" + std::string(100'000, 'x') + "end";
    const std::string shown = in_quotes(text);
    CHECK(shown.size() < 1100);
    CHECK(shown.substr(0, 8) == "'startxx");
    CHECK(shown.substr(shown.size() - 6) == "xxend'");
    CHECK_THAT(shown, Catch::Matchers::Contains("[...]"));
}
