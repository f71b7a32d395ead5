// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
#include "virtio/vsock_connection.hpp"

#include <cstdint>
#include <vector>

#include "catch.hpp"

using namespace kvm_vmm::virtio;
using Reaction = VsockConnection::Reaction;

namespace {

VsockHeader packet(std::uint16_t op, std::uint32_t len = 0, std::uint32_t flags = 0) {
    VsockHeader header{};
    header.op = op;
    header.len = len;
    header.flags = flags;
    header.buf_alloc = 1000;
    return header;
}

/// What the specification says of one connection, in the simplest words: the states as sets of facts.
struct Reference {
    bool host_asked;  // the request was made by the host
    bool request_sent{false};
    bool open;  // both sides have agreed
    bool response_due;
    std::uint32_t guest_bits{0};
    std::uint32_t host_bits{0};
    std::uint32_t told_bits{0};
    bool update_asked{false};
    bool over{false};
};

enum class Step : std::uint8_t {
    request,
    response,
    rst,
    shut_receive,
    shut_send,
    shut_both,
    shut_none,
    data,
    update,
    ask,
    invalid,
    unknown,
    host_ends_sending,
    host_ends_receiving,
    send_control,
    last
};

// One step on both, with all checks.
void step(VsockConnection& tested, Reference& model, Step which) {
    const auto guest = [&](const VsockHeader& header) { return tested.on_packet(header); };
    const auto in_open = [&](Reaction expected, const VsockHeader& header) {
        const Reaction reaction = guest(header);
        REQUIRE(reaction == (model.open ? expected : Reaction::violation));
        model.over = reaction == Reaction::violation;
    };
    const auto shut = [&](std::uint32_t bits) {
        in_open(Reaction::shutdown, packet(vsock::op_shutdown, 0, bits | 0xFFFF'FFF0U));
        if (!model.over) {
            model.guest_bits |= bits;
            REQUIRE(tested.guest_shutdown() == model.guest_bits);
        }
    };
    switch (which) {
        case Step::request:
            in_open(Reaction::violation, packet(vsock::op_request));
            break;
        case Step::response: {
            const Reaction reaction = guest(packet(vsock::op_response));
            const bool right = !model.open && model.request_sent;
            REQUIRE(reaction == (right ? Reaction::opened : Reaction::violation));
            model.open = model.open || right;
            model.over = !right;
            break;
        }
        case Step::rst:
            REQUIRE(guest(packet(vsock::op_rst)) == Reaction::closed);
            model.over = true;
            break;
        case Step::shut_receive:
            shut(vsock::shutdown_receive);
            break;
        case Step::shut_send:
            shut(vsock::shutdown_send);
            break;
        case Step::shut_both:
            shut(vsock::shutdown_both);
            break;
        case Step::shut_none:
            shut(0);
            break;
        case Step::data:
            if ((model.guest_bits & vsock::shutdown_send) != 0) {
                REQUIRE(guest(packet(vsock::op_rw, 1)) == Reaction::violation);
                model.over = true;
            } else {
                in_open(Reaction::data, packet(vsock::op_rw, 1));
            }
            break;
        case Step::update:
            in_open(Reaction::none, packet(vsock::op_credit_update));
            break;
        case Step::ask:
            in_open(Reaction::none, packet(vsock::op_credit_request));
            model.update_asked = true;
            break;
        case Step::invalid:
            REQUIRE(guest(packet(0)) == Reaction::violation);
            model.over = true;
            break;
        case Step::unknown:
            REQUIRE(guest(packet(8)) == Reaction::violation);
            model.over = true;
            break;
        case Step::host_ends_sending:
            tested.close_host(vsock::shutdown_send);
            model.host_bits |= vsock::shutdown_send;
            break;
        case Step::host_ends_receiving:
            tested.close_host(vsock::shutdown_receive);
            model.host_bits |= vsock::shutdown_receive;
            break;
        default: {
            const auto op = tested.next_control();
            VsockHeader header{};
            if (op) {
                header.op = *op;
                tested.stamp(header);
                REQUIRE(header.buf_alloc == VsockConnection::buffer_size);
                REQUIRE(header.fwd_cnt == 0);
            }
            if (!model.open) {
                REQUIRE(op == (model.request_sent ? std::nullopt : std::optional(vsock::op_request)));
                model.request_sent = true;
            } else if (model.response_due) {
                REQUIRE(op == vsock::op_response);
                model.response_due = false;
                model.update_asked = false;
            } else if (model.told_bits != model.host_bits) {
                REQUIRE(op == vsock::op_shutdown);
                REQUIRE(header.flags == model.host_bits);
                model.told_bits = model.host_bits;
                model.update_asked = false;
            } else {
                REQUIRE(op == (model.update_asked ? std::optional(vsock::op_credit_update) : std::nullopt));
                model.update_asked = false;
            }
            break;
        }
    }
    if (!model.over) {
        REQUIRE(tested.established() == model.open);
        REQUIRE(tested.may_send_data() == (model.open && (model.guest_bits & vsock::shutdown_receive) == 0 &&
                                           (model.host_bits & vsock::shutdown_send) == 0));
    }
}

std::uint64_t try_all(const VsockConnection& tested, const Reference& model, int depth) {
    if (depth == 0 || model.over) {
        return 1;
    }
    std::uint64_t tried = 0;
    for (std::uint8_t i = 0; i < static_cast<std::uint8_t>(Step::last); ++i) {
        VsockConnection next = tested;
        Reference next_model = model;
        step(next, next_model, static_cast<Step>(i));
        tried += try_all(next, next_model, depth - 1);
    }
    return tried;
}

}  // namespace

TEST_CASE("Vsock connection: all sequences of six steps, from either side", "[vsock]") {
    CHECK(try_all(VsockConnection(VsockConnection::Origin::host),
                  {.host_asked = true, .open = false, .response_due = false}, 6) > 10'000);
    CHECK(try_all(VsockConnection(VsockConnection::Origin::guest, packet(vsock::op_request)),
                  {.host_asked = false, .open = true, .response_due = true}, 5) > 100'000);
}

TEST_CASE("Vsock connection: counts of bytes wrap at 2^32 in both directions", "[vsock]") {
    VsockConnection connection(VsockConnection::Origin::guest, packet(vsock::op_request));
    REQUIRE(connection.next_control() == vsock::op_response);
    constexpr std::uint32_t most = VsockConnection::buffer_size;
    std::uint64_t sent_by_guest = 0;
    std::uint64_t sent_by_host = 0;
    std::uint32_t known_forwarded = 0;
    bool right = true;
    while (sent_by_guest < 3ULL << 32U) {
        VsockHeader data = packet(vsock::op_rw, most);
        data.buf_alloc = most;
        data.fwd_cnt = static_cast<std::uint32_t>(sent_by_host);
        right = right && connection.on_packet(data) == Reaction::data && connection.room() == 0 &&
                connection.credit() == most;
        sent_by_guest += most;
        connection.sent(most);
        sent_by_host += most;
        right = right && connection.credit() == 0 && !connection.has_control();
        connection.forwarded(most - 1);
        right = right && connection.has_control();
        connection.forwarded(1);
        VsockHeader update{};
        update.op = connection.next_control().value_or(0);
        right = right && update.op == vsock::op_credit_update;
        connection.stamp(update);
        known_forwarded = update.fwd_cnt;
        right = right && known_forwarded == static_cast<std::uint32_t>(sent_by_guest) &&
                !connection.has_control();
    }
    CHECK(right);
}

TEST_CASE("Vsock connection: data beyond the room is a violation, up to it is not", "[vsock]") {
    VsockConnection connection(VsockConnection::Origin::guest, packet(vsock::op_request));
    CHECK(connection.room() == 65536);
    CHECK(connection.on_packet(packet(vsock::op_rw, 65535)) == Reaction::data);
    CHECK(connection.room() == 1);
    VsockConnection other = connection;
    CHECK(other.on_packet(packet(vsock::op_rw, 2)) == Reaction::violation);
    CHECK(connection.on_packet(packet(vsock::op_rw, 1)) == Reaction::data);
    CHECK(connection.on_packet(packet(vsock::op_rw, 0)) == Reaction::data);
    CHECK(connection.on_packet(packet(vsock::op_rw, 1)) == Reaction::violation);
}

TEST_CASE("Vsock connection: an update follows a quarter of the buffer, or less when the guest waits",
          "[vsock]") {
    VsockConnection connection(VsockConnection::Origin::guest, packet(vsock::op_request));
    REQUIRE(connection.next_control() == vsock::op_response);
    REQUIRE(connection.on_packet(packet(vsock::op_rw, 40'000)) == Reaction::data);
    connection.forwarded(16'383);
    CHECK_FALSE(connection.has_control());
    SECTION("a quarter") {
        connection.forwarded(1);
        CHECK(connection.next_control() == vsock::op_credit_update);
    }
    SECTION("the guest has used its room") {
        REQUIRE(connection.on_packet(packet(vsock::op_rw, 65'536 - 40'000 - 4096)) == Reaction::data);
        CHECK_FALSE(connection.has_control());
        REQUIRE(connection.on_packet(packet(vsock::op_rw, 1)) == Reaction::data);
        CHECK(connection.next_control() == vsock::op_credit_update);
    }
    SECTION("not for a guest that sends no more") {
        REQUIRE(connection.on_packet(packet(vsock::op_shutdown, 0, vsock::shutdown_send)) ==
                Reaction::shutdown);
        connection.forwarded(20'000);
        CHECK_FALSE(connection.has_control());
    }
}

TEST_CASE("Vsock connection: credit is asked for once, until there is some", "[vsock]") {
    VsockHeader request = packet(vsock::op_request);
    request.buf_alloc = 0;
    VsockConnection connection(VsockConnection::Origin::guest, request);
    REQUIRE(connection.next_control() == vsock::op_response);
    CHECK(connection.credit() == 0);
    connection.miss_credit();
    CHECK(connection.next_control() == vsock::op_credit_request);
    connection.miss_credit();
    CHECK_FALSE(connection.has_control());
    VsockHeader update = packet(vsock::op_credit_update);
    update.buf_alloc = 0;
    REQUIRE(connection.on_packet(update) == Reaction::none);
    connection.miss_credit();
    CHECK_FALSE(connection.has_control());
    REQUIRE(connection.on_packet(packet(vsock::op_credit_update)) == Reaction::none);
    CHECK(connection.credit() == 1000);
    connection.sent(1000);
    connection.miss_credit();
    CHECK(connection.next_control() == vsock::op_credit_request);
}
