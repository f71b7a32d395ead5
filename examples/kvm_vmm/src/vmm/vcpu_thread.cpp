// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
#include "vmm/vcpu_thread.hpp"

#include <pthread.h>

#include <csignal>
#include <string>

#include "console/raw_terminal.hpp"

namespace kvm_vmm {
namespace {

int kick_signal() noexcept { return SIGRTMIN; }

// The signal only has to make KVM_RUN return with EINTR.
void install_kick_handler() {
    struct sigaction action {};
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
    vcpu_.request_exit();
    if (thread_.joinable()) {
        pthread_kill(thread_.native_handle(), kick_signal());
    }
}

void VcpuThread::join() {
    if (thread_.joinable()) {
        thread_.join();
    }
}

void VcpuThread::run() {
    const AlternateSignalStack signal_stack;
    try {
        while (!stop_.load()) {
            VcpuExit exit = vcpu_.run();
            if (!handler_.handle(vcpu_, exit)) {
                break;
            }
        }
    } catch (const VmmError& error) {
        handler_.fail(error.code(), error.what());
    } catch (const std::exception& error) {
        handler_.fail(ExitCode::vmm_error, error.what());
    }
}

}  // namespace kvm_vmm
