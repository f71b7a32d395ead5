// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
#include "virtio/passt_process.hpp"

#include <algorithm>
#include <array>
#include <cerrno>
#include <chrono>
#include <linux/sockios.h>
#include <poll.h>
#include <string_view>
#include <sys/epoll.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <thread>
#include <unistd.h>
#include <utility>

#include "util/error.hpp"
#include "util/log.hpp"

namespace kvm_vmm::virtio {
namespace {

using namespace std::chrono_literals;

constexpr auto start_limit = 5s;

std::string not_started(const std::string& program, int error_number) {
    if (error_number == ENOENT) {
        return program + " is not installed (Debian's package is named passt)";
    }
    return errno_message(program + " cannot be started", error_number);
}

std::string how_it_ended(int status) {
    if (WIFSIGNALED(status)) {
        return "it was ended by signal " + std::to_string(WTERMSIG(status));
    }
    return "it has ended with exit code " + std::to_string(WEXITSTATUS(status));
}

// What passt writes to stderr when there is no system logger.
bool is_noise(std::string_view line) {
    return line.find_first_not_of(" \t") == std::string_view::npos ||
           (line.starts_with("Failed to send") && line.ends_with("to syslog"));
}

// A frame of the type for local experiments (IEEE 802, 88B5), which passt ignores.
constexpr std::array<std::uint8_t, 4 + 14> probe{0, 0, 0, 14, 2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2, 0x88, 0xB5};

}  // namespace

PasstProcess::PasstProcess(std::vector<std::string> arguments, std::string program)
    : arguments_(std::move(arguments)), program_(std::move(program)) {}

PasstProcess::~PasstProcess() { PasstProcess::detach(); }

std::expected<vmsuperio::UniqueFd, std::string> PasstProcess::connect() {
    if (!launcher_) {
        std::vector<std::string> words{program_,  "--foreground",
                                       "--quiet", "--stderr",
                                       "--fd",    std::to_string(HelperLauncher::socket_of_helper)};
        words.insert(words.end(), arguments_.begin(), arguments_.end());
        auto launcher = HelperLauncher::create(std::move(words));
        if (!launcher) {
            return std::unexpected(errno_message("cannot start a process", launcher.error()));
        }
        launcher_.emplace(*std::move(launcher));
    }
    stop_watching();
    auto started = launcher_->start();
    if (!started) {
        return std::unexpected(not_started(program_, started.error()));
    }
    messages_ = std::move(started->messages);
    last_message_.clear();
    watch_messages();
    if (!std::exchange(started_before_, true)) {
        if (auto reason = wait_until_ready(started->socket.get())) {
            return std::unexpected(*std::move(reason));
        }
    }
    return std::move(started->socket);
}

std::optional<std::string> PasstProcess::wait_until_ready(int fd) {
    if (::send(fd, probe.data(), probe.size(), MSG_NOSIGNAL) < 0 && errno != EPIPE) {
        return errno_message("cannot send to " + program_, errno);
    }
    const auto deadline = std::chrono::steady_clock::now() + start_limit;
    for (;;) {
        int unread = 0;
        const bool taken = ::ioctl(fd, SIOCOUTQ, &unread) == 0 && unread == 0;
        // What it has not read is gone when it has ended.
        pollfd entry{.fd = fd, .events = 0, .revents = 0};
        if (::poll(&entry, 1, 0) == 1) {
            const std::string reason = end_of_helper();
            return program_ + ": " + (reason.empty() ? "it has closed its connection" : reason);
        }
        if (taken) {
            return std::nullopt;
        }
        if (std::chrono::steady_clock::now() >= deadline) {
            return program_ + " does not serve its connection within " +
                   std::to_string(std::chrono::seconds(start_limit).count()) + " s";
        }
        std::this_thread::sleep_for(1ms);
    }
}

void PasstProcess::attach(EventManager& events) {
    events_ = &events;
    watch_messages();
}

void PasstProcess::detach() noexcept {
    stop_watching();
    events_ = nullptr;
}

void PasstProcess::stop_watching() noexcept {
    if (subscription_) {
        events_->remove(*std::exchange(subscription_, std::nullopt));
    }
}

void PasstProcess::watch_messages() {
    if (events_ != nullptr && messages_) {
        const auto added = events_->add(messages_.get(), EPOLLIN, [this](std::uint32_t) { read_messages(); });
        subscription_ = added ? std::optional(*added) : std::nullopt;
    }
}

// Logs each line, and remembers the last one.
void PasstProcess::read_messages() {
    std::array<char, 4096> text{};
    for (;;) {
        const ssize_t got = messages_ ? ::read(messages_.get(), text.data(), text.size()) : -1;
        if (got <= 0) {
            if (got == 0) {
                stop_watching();
            }
            return;
        }
        std::string_view rest(text.data(), static_cast<std::size_t>(got));
        while (!rest.empty()) {
            const std::string_view line = rest.substr(0, rest.find('\n'));
            rest.remove_prefix(std::min(rest.size(), line.size() + 1));
            if (!is_noise(line)) {
                last_message_ = line.substr(0, 200);
                log(LogLevel::info, program_ + ": " + last_message_);
            }
        }
    }
}

std::string PasstProcess::on_lost() {
    const std::string reason = end_of_helper();
    return reason.empty() ? reason : program_ + ": " + reason;
}

// Why it has ended; an empty text if it did not do so by itself.
std::string PasstProcess::end_of_helper() {
    const std::optional<int> status = launcher_ ? launcher_->end() : std::nullopt;
    read_messages();
    if (!status) {
        return {};
    }
    // What it has written last is the reason only if it has ended by itself.
    return last_message_.empty() || WIFSIGNALED(*status) ? how_it_ended(*status) : last_message_;
}

}  // namespace kvm_vmm::virtio
