// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
#include "util/quote.hpp"

#include <string>

#include "catch.hpp"

using kvm_vmm::quoted;

TEST_CASE("quoted: text stays as it is, in any script", "[quote]") {
    CHECK(quoted("") == "''");
    CHECK(quoted("/tmp/a b~") == "'/tmp/a b~'");
    CHECK(quoted("\u00A0\u00E9\u20AC\U0001F600\U0010FFFF") == "'\u00A0\u00E9\u20AC\U0001F600\U0010FFFF'");
}

TEST_CASE("quoted: nothing that a terminal would obey gets through", "[quote]") {
    CHECK(quoted("a\nb\r\t\x1B[2J\x7F") == "'a\\x0ab\\x0d\\x09\\x1b[2J\\x7f'");
    CHECK(quoted(std::string("nul\0", 4)) == "'nul\\x00'");
    // C1 controls, as UTF-8 and as bytes; CSI is U+009B.
    CHECK(quoted("\xC2\x9B"
                 "2J") == "'\\xc2\\x9b2J'");
    CHECK(quoted("\x9B"
                 "2J") == "'\\x9b2J'");
    // No UTF-8: overlong, a surrogate, above U+10FFFF, cut off.
    CHECK(quoted("\xC0\x8A") == "'\\xc0\\x8a'");
    CHECK(quoted("\xE0\x82\x9B") == "'\\xe0\\x82\\x9b'");
    CHECK(quoted("\xED\xA0\x80") == "'\\xed\\xa0\\x80'");
    CHECK(quoted("\xF4\x90\x80\x80") == "'\\xf4\\x90\\x80\\x80'");
    CHECK(quoted("\xE2\x82") == "'\\xe2\\x82'");
    for (int byte = 0; byte < 256; ++byte) {
        for (const char c : quoted(std::string(1, static_cast<char>(byte)))) {
            CHECK((c >= ' ' && c < '\x7F'));
        }
    }
}

TEST_CASE("quoted: of a very long text both ends are shown", "[quote]") {
    const std::string text = "start" + std::string(100'000, 'x') + "end";
    const std::string shown = quoted(text);
    CHECK(shown.size() < 1100);
    CHECK(shown.substr(0, 8) == "'startxx");
    CHECK(shown.substr(shown.size() - 6) == "xxend'");
    CHECK_THAT(shown, Catch::Matchers::Contains("[...]"));
}
