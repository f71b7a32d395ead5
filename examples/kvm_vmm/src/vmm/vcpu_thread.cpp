// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
#include "vmm/vcpu_thread.hpp"

#include <csignal>
#include <pthread.h>
#include <string>
#include <time.h>  // NOLINT(modernize-deprecated-headers): clock_gettime is not in <ctime>
#include <utility>
#include <variant>

#include "console/raw_terminal.hpp"
#include "event/signals.hpp"
#include "sandbox/sandbox.hpp"
#include "util/log.hpp"

namespace kvm_vmm {
namespace {

// Its default action is to do nothing, so that one from another process is harmless; and unlike a real-time
// signal it needs no room in the queue of pending signals, which is limited for each user
// (RLIMIT_SIGPENDING).
constexpr int kick_signal = SIGURG;

// The signal only has to make KVM_RUN return with EINTR.
void install_kick_handler() {
    struct sigaction action{};
    action.sa_handler = [](int) {};
    sigemptyset(&action.sa_mask);
    ::sigaction(kick_signal, &action, nullptr);
}

std::chrono::nanoseconds read_clock(clockid_t clock) {
    timespec time{};
    ::clock_gettime(clock, &time);
    return std::chrono::seconds(time.tv_sec) + std::chrono::nanoseconds(time.tv_nsec);
}

/// Detects that the calling thread has stood still: time passed in which it used no CPU. That is the case for
/// a stopped process, wherever the thread was at that moment (most often on its way out of KVM_RUN), and also
/// for an idle guest, for which it is harmless.
class StandstillWatch {
public:
    /// Whether it stood still since the last call.
    [[nodiscard]] bool stood_still() {
        // The coarse clock, because it is read at each exit; the thread's own clock costs a system call.
        const std::chrono::nanoseconds now = read_clock(CLOCK_MONOTONIC_COARSE);
        if (now - looked_at_ < interval) {
            return false;
        }
        const std::chrono::nanoseconds used = read_clock(CLOCK_THREAD_CPUTIME_ID);
        const auto passed = now - std::exchange(looked_at_, now);
        return passed - (used - std::exchange(used_, used)) >= noticeable;
    }

private:
    static constexpr std::chrono::milliseconds interval{250};
    // Much longer than any exit takes, and much shorter than the timeout of a guest's watchdog.
    static constexpr std::chrono::seconds noticeable{1};

    std::chrono::nanoseconds looked_at_{read_clock(CLOCK_MONOTONIC_COARSE)};
    std::chrono::nanoseconds used_{read_clock(CLOCK_THREAD_CPUTIME_ID)};
};

}  // namespace

VcpuThread::VcpuThread(KvmVcpu& vcpu, ExitHandler& handler) : vcpu_(vcpu), handler_(handler) {
    [[maybe_unused]] static const bool installed = (install_kick_handler(), true);
}

VcpuThread::~VcpuThread() {
    request_stop();
    join();
}

void VcpuThread::start() {
    thread_ = std::thread([this] { run(); });
    started_.release();
}

void VcpuThread::request_stop() {
    requests_.request_stop([this] { kick(); });
}

void VcpuThread::request_halt_check() {
    halted_.store(false);
    requests_.request_halt_check([this] { kick(); });
}

void VcpuThread::request_pause_notice() {
    requests_.request_pause_notice([this] { kick(); });
}

// A thread that is not in the guest finds immediate_exit set when it enters it; one that is there already is
// interrupted by the signal.
void VcpuThread::kick() {
    vcpu_.request_exit();
    if (thread_.joinable()) {
        pthread_kill(thread_.native_handle(), kick_signal);
    }
}

bool VcpuThread::wait_stopped(std::chrono::milliseconds timeout) {
    if (!thread_.joinable() || stopped_.try_acquire_for(timeout)) {
        stopped_.release();
        return true;
    }
    return false;
}

std::chrono::nanoseconds VcpuThread::cpu_time() const noexcept {
    clockid_t clock{};
    timespec time{};
    // The handle is not changed after start(), which comes before any call of this.
    if (pthread_getcpuclockid(const_cast<std::thread&>(thread_).native_handle(), &clock) != 0 ||
        ::clock_gettime(clock, &time) != 0) {
        return {};
    }
    return std::chrono::seconds(time.tv_sec) + std::chrono::nanoseconds(time.tv_nsec);
}

void VcpuThread::on_resume() {
    // Done after every kick, because otherwise the CPU would never enter the guest again.
    const VcpuRequests::Taken taken = requests_.take([this] { vcpu_.clear_exit_request(); });
    // KVM_RUN ended without a kick: this process was stopped, or frozen together with the host.
    if (taken.pause_notice || !taken.any) {
        vcpu_.declare_pause();
    }
    if (!taken.halt_check) {
        return;
    }
    constexpr std::uint64_t interrupt_flag = 1U << 9U;
    const std::uint32_t state = vcpu_.mp_state().mp_state;
    halted_.store(state == KVM_MP_STATE_UNINITIALIZED || state == KVM_MP_STATE_INIT_RECEIVED ||
                  (state == KVM_MP_STATE_HALTED && (vcpu_.regs().rflags & interrupt_flag) == 0));
}

void VcpuThread::join() {
    if (thread_.joinable()) {
        thread_.join();
    }
}

void VcpuThread::run() {
    started_.acquire();
    leave_signals_to_main_thread();
    sandbox::enter(sandbox::Role::vcpu, ("vcpu" + std::to_string(vcpu_.id())).c_str());
    sigset_t kick{};
    sigemptyset(&kick);
    sigaddset(&kick, kick_signal);
    pthread_sigmask(SIG_UNBLOCK, &kick, nullptr);
    const AlternateSignalStack signal_stack;
    StandstillWatch watch;
    // This line is logged immediately before the first KVM_RUN: scripts/measure derives the start-up time
    // from it.
    if (log_enabled(LogLevel::debug)) {
        log_unlimited(LogLevel::debug, "CPU " + std::to_string(vcpu_.id()) + " starts");
    }
    try {
        while (!requests_.stop_requested()) {
            if (watch.stood_still()) {
                vcpu_.declare_pause();
            }
            VcpuExit exit = vcpu_.run();
            if (!handler_.handle(vcpu_, exit)) {
                break;
            }
            if (std::holds_alternative<exits::Resume>(exit)) {
                on_resume();
            }
        }
    } catch (const VmmError& error) {
        handler_.fail(error.code(), error.what());
    } catch (const std::exception& error) {
        handler_.fail(ExitCode::vmm_error, error.what());
    }
    stopped_.release();
}

}  // namespace kvm_vmm
