// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
#include "vmm/exit_handler.hpp"

#include <variant>

#include "util/text.hpp"

namespace kvm_vmm {
namespace {

std::string_view suberror_name(std::uint32_t suberror) {
    switch (suberror) {
        case KVM_INTERNAL_ERROR_EMULATION:
            return "KVM cannot emulate an instruction";
        case KVM_INTERNAL_ERROR_SIMUL_EX:
            return "simultaneous exceptions";
        case KVM_INTERNAL_ERROR_DELIVERY_EV:
            return "an exit while delivering an event";
        case KVM_INTERNAL_ERROR_UNEXPECTED_EXIT_REASON:
            return "an unexpected exit reason";
        default:
            return "an unknown suberror";
    }
}

}  // namespace

bool ExitHandler::handle(const KvmVcpu& vcpu, VcpuExit& exit) {
    observer_.count_exit(exit.index());
    // Not for kicks of this program.
    if (!std::holds_alternative<exits::Resume>(exit)) {
        rest_.on_return();
    }
    if (coalesced_ != nullptr) {
        coalesced_->deliver();
    }
    return std::visit([&](auto& kind) { return on(vcpu, kind); }, exit);
}

// If no device claims an access, a read returns all ones and a write has no effect, as on real hardware,
// because guests probe for devices.
bool ExitHandler::on(const KvmVcpu& vcpu, exits::PortRead& exit) {
    const auto answered = io_.pio_exit(vmdevice::IoDirection::in, vmdevice::PioAddress{exit.port}, exit.width,
                                       exit.data.size() / exit.width, exit.data);
    observer_.record({IoAccess::Bus::pio, false, vcpu.id(), exit.port, exit.width, exit.data},
                     answered.has_value());
    return true;
}

bool ExitHandler::on(const KvmVcpu& vcpu, exits::PortWrite& exit) {
    const auto answered = io_.pio_exit(vmdevice::IoDirection::out, vmdevice::PioAddress{exit.port},
                                       exit.width, exit.data.size() / exit.width, exit.data);
    observer_.record({IoAccess::Bus::pio, true, vcpu.id(), exit.port, exit.width, exit.data},
                     answered.has_value());
    // The write may have ended the VM: the guest must not continue to run after a reset.
    return !end_.requested();
}

bool ExitHandler::on(const KvmVcpu& vcpu, exits::MmioRead& exit) {
    const auto answered =
        io_.mmio_exit(vmdevice::IoDirection::in, vmdevice::MmioAddress{exit.address}, exit.data);
    observer_.record({IoAccess::Bus::mmio, false, vcpu.id(), exit.address, exit.data.size(), exit.data},
                     answered.has_value());
    return true;
}

bool ExitHandler::on(const KvmVcpu& vcpu, exits::MmioWrite& exit) {
    const auto answered =
        io_.mmio_exit(vmdevice::IoDirection::out, vmdevice::MmioAddress{exit.address}, exit.data);
    observer_.record({IoAccess::Bus::mmio, true, vcpu.id(), exit.address, exit.data.size(), exit.data},
                     answered.has_value());
    return !end_.requested();
}

bool ExitHandler::on(const KvmVcpu&, exits::Resume&) { return true; }

bool ExitHandler::on(const KvmVcpu&, exits::Halt&) {
    end_.request(end::Halted{}, "the guest halted");
    return false;
}

bool ExitHandler::on(const KvmVcpu& vcpu, exits::Shutdown&) {
    end_.request(end::TripleFaulted{}, "triple fault; " + vcpu.describe());
    return false;
}

bool ExitHandler::on(const KvmVcpu&, exits::SystemEvent& exit) {
    using Kind = exits::SystemEvent::Kind;
    switch (exit.kind) {
        case Kind::power_off:
            end_.request(end::PoweredOff{});
            break;
        case Kind::reset:
            end_.request(end::Reset{});
            break;
        case Kind::crash:
            end_.request(end::Panicked{}, "the guest reported a crash");
            break;
        case Kind::other:
            end_.request(end::Failed{ExitCode::unhandled_exit},
                         "unknown system event " + std::to_string(exit.type));
            break;
    }
    return false;
}

bool ExitHandler::on(const KvmVcpu& vcpu, exits::FailEntry& exit) {
    end_.request(end::Failed{ExitCode::unhandled_exit},
                 "the CPU refused to enter the guest, hardware reason " + hex(exit.hardware_reason) + "; " +
                     vcpu.describe());
    return false;
}

bool ExitHandler::on(const KvmVcpu& vcpu, exits::InternalError& exit) {
    std::string message = "KVM internal error " + std::to_string(exit.suberror) + " (" +
                          std::string(suberror_name(exit.suberror)) + "); " + vcpu.describe();
    if (!exit.data.empty()) {
        message += "; data";
        for (const std::uint64_t value : exit.data) {
            message += ' ' + hex(value);
        }
    }
    end_.request(end::Failed{ExitCode::unhandled_exit}, message);
    return false;
}

bool ExitHandler::on(const KvmVcpu& vcpu, exits::Unknown& exit) {
    end_.request(end::Failed{ExitCode::unhandled_exit}, "unhandled KVM exit " + std::to_string(exit.reason) +
                                                            " (" + std::string(exit.name) + "); " +
                                                            vcpu.describe());
    return false;
}

}  // namespace kvm_vmm
