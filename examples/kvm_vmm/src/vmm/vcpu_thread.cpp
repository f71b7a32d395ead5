// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
#include "vmm/vcpu_thread.hpp"

#include <csignal>
#include <pthread.h>
#include <string>
#include <time.h>  // NOLINT(modernize-deprecated-headers): clock_gettime is not in <ctime>
#include <variant>

#include "console/raw_terminal.hpp"
#include "util/log.hpp"

namespace kvm_vmm {
namespace {

int kick_signal() noexcept { return SIGRTMIN; }

// The signal only has to make KVM_RUN return with EINTR.
void install_kick_handler() {
    struct sigaction action{};
    action.sa_handler = [](int) {};
    sigemptyset(&action.sa_mask);
    ::sigaction(kick_signal(), &action, nullptr);
}

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
    const std::string name = "vcpu" + std::to_string(vcpu_.id());
    pthread_setname_np(thread_.native_handle(), name.c_str());
}

void VcpuThread::request_stop() {
    // In this order: a thread that has passed its check of `stop_` finds immediate_exit set when it enters
    // the guest, and one that is in the guest already is thrown out by the signal.
    stop_.store(true);
    kick();
}

void VcpuThread::request_halt_check() {
    halted_.store(false);
    check_halt_.store(true);
    kick();
}

void VcpuThread::kick() {
    vcpu_.request_exit();
    if (thread_.joinable()) {
        pthread_kill(thread_.native_handle(), kick_signal());
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

void VcpuThread::on_kick() {
    // After every kick, or the CPU would never enter the guest again; and before the flags are looked at, so
    // that a request that comes in between kicks once more.
    vcpu_.clear_exit_request();
    if (!check_halt_.exchange(false)) {
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
    const AlternateSignalStack signal_stack;
    // Nothing lies between this line and the first KVM_RUN: scripts/measure takes the start-up time from it.
    if (log_enabled(LogLevel::debug)) {
        log_unlimited(LogLevel::debug, "CPU " + std::to_string(vcpu_.id()) + " starts");
    }
    try {
        while (!stop_.load()) {
            VcpuExit exit = vcpu_.run();
            if (!handler_.handle(vcpu_, exit)) {
                break;
            }
            if (std::holds_alternative<exits::Resume>(exit)) {
                on_kick();
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
