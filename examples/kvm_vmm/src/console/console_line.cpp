// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
#include "console/console_line.hpp"

#include <algorithm>
#include <array>
#include <span>
#include <sys/epoll.h>
#include <utility>

#include "util/log.hpp"

namespace kvm_vmm {

ConsoleLine::ConsoleLine(EventManager& events, SerialBackend& backend, Guest& guest,
                         CommandHandler on_command)
    : events_(events), backend_(backend), guest_(guest), on_command_(std::move(on_command)) {}

ConsoleLine::~ConsoleLine() {
    backend_.set_on_change({});
    disconnect();
}

void ConsoleLine::open() {
    backend_.set_on_change([this] { on_backend_change(); });
    on_backend_change();
}

// --- Watching descriptors

ConsoleLine::Watch ConsoleLine::watch(int fd) {
    return {.id = events_.subscribe(fd, 0, "a console's back end",
                                    [this](std::uint32_t bits) { on_ready(bits); }),
            .events = 0};
}

void ConsoleLine::watch_for(Watch& watch, std::uint32_t events) {
    if (watch.events != events) {
        events_.modify(watch.id, events);
        watch.events = events;
    }
}

void ConsoleLine::connect() {
    const int input = backend_.input_fd();
    const int output = backend_.output_fd();
    if (input >= 0) {
        input_watch_ = watch(input);
    }
    if (output >= 0 && output != input) {
        output_watch_ = watch(output);
    }
}

void ConsoleLine::disconnect() {
    for (auto* const watch : {&input_watch_, &output_watch_}) {
        if (*watch) {
            events_.remove((*watch)->id);
            watch->reset();
        }
    }
}

void ConsoleLine::update_watches() {
    const bool wants_input = !backend_.input_ended() && room_to_read() != 0;
    const bool wants_output = guest_.output_waits();
    const std::uint32_t input = wants_input ? EPOLLIN : 0U;
    const std::uint32_t output = wants_output ? EPOLLOUT : 0U;
    if (output_watch_) {
        watch_for(*output_watch_, output);
    }
    if (input_watch_) {
        const std::uint32_t events = output_watch_ ? input : input | output;
        watch_for(*input_watch_, backend_.has_peers() && events == 0 ? EventManager::hangup_only : events);
    }
}

void ConsoleLine::on_ready(std::uint32_t events) {
    if (backend_.has_peers() && (events & (EPOLLHUP | EPOLLERR)) != 0) {
        disconnect();  // before its descriptor is closed
        backend_.on_hangup();
        return;
    }
    // The end of a descriptor that is not that of a peer is detected by reading and writing.
    if (backend_.output().waiting()) {
        resume_output();
    }
    if (!backend_.input_ended() && room_to_read() != 0) {
        read_input();
    }
    deliver();
}

void ConsoleLine::on_backend_change() {
    disconnect();
    connect();
    resume_output();
    deliver();
}

// --- Output

void ConsoleLine::resume_output() {
    backend_.output().flush();
    guest_.resume_output(backend_.output().take_dropped());
}

// --- Input

void ConsoleLine::deliver() {
    guest_.take_input(backend_.read_ahead());
    update_watches();
}

void ConsoleLine::send_break() {
    keep({.byte = 0, .is_break = true});
    deliver();
}

std::size_t ConsoleLine::room_to_read() {
    constexpr std::size_t at_a_time = 4096;
    const InputQueue& waiting = backend_.read_ahead();
    switch (backend_.input()) {
        case SerialBackend::Input::keyboard:
            return at_a_time;
        case SerialBackend::Input::commands:
            return std::min(waiting.room(), at_a_time);
        case SerialBackend::Input::plain:
            break;
    }
    return waiting.empty() ? guest_.input_room() : 0;
}

void ConsoleLine::read_input() {
    std::array<std::uint8_t, 4096> typed{};
    const auto count = backend_.read(std::span(typed).first(std::min(room_to_read(), typed.size())));
    if (!count && (count.error() == std::errc::resource_unavailable_try_again ||
                   count.error() == std::errc::interrupted)) {
        return;
    }
    if (!count || *count == 0) {
        backend_.on_input_end();
        return;
    }
    for (const std::uint8_t byte : std::span(typed).first(*count)) {
        if (backend_.input() == SerialBackend::Input::plain) {
            keep({.byte = byte});
        } else {
            take_typed(byte);
        }
    }
}

void ConsoleLine::take_typed(std::uint8_t byte) {
    const EscapeParser::Result result = backend_.escape().feed(byte);
    if (result.byte) {
        keep({.byte = *result.byte});
    }
    if (result.command == ConsoleCommand::send_break && guest_.takes_break()) {
        keep({.byte = 0, .is_break = true});
    } else if (result.command) {
        on_command_(*result.command);
    }
}

void ConsoleLine::keep(InputItem item) {
    if (!backend_.read_ahead().push(item) && !std::exchange(input_dropped_logged_, true)) {
        log(LogLevel::warning,
            "what is typed is dropped from now on, because the guest does not read what "
            "was typed before");
    }
}

}  // namespace kvm_vmm
