// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
#pragma once

#include <vmdevice/range.hpp>
#include <vmsuperio/pvpanic.hpp>

#include "devices/machine_device.hpp"
#include "machine/end.hpp"
#include "util/log.hpp"

namespace kvm_vmm {

/// The pvpanic port of QEMU. Only a panic ends the VM. The other events announce what follows: a crash kernel
/// that saves a dump and then resets or powers off, or an orderly shutdown.
[[nodiscard]] inline MachineDevice panic_port() {
    const auto create = [](const DeviceContext& context, ObservedDevice& observed) -> DevicePointer {
        return put_on_bus(observed, vmsuperio::Pvpanic([&end = context.end](vmsuperio::PvpanicEvent event) {
                              switch (event) {
                                  case vmsuperio::PvpanicEvent::panicked:
                                      end.request(end::Panicked{}, "the guest panicked");
                                      break;
                                  case vmsuperio::PvpanicEvent::crash_loaded:
                                      log(LogLevel::warning,
                                          "the guest panicked, and its crash kernel continues");
                                      break;
                                  case vmsuperio::PvpanicEvent::shutdown:
                                      log(LogLevel::info, "the guest shuts down");
                                      break;
                              }
                          }));
    };
    return {.description = with_acpi_node(
                {.name = "pvpanic",
                 .title = "panic port",
                 .model = "vmsuperio::Pvpanic",
                 .resources = {ports(vmdevice::pio_range(vmsuperio::Pvpanic::default_port, 1))}},
                "PEVT", "QEMU0001"),
            .create = create};
}

}  // namespace kvm_vmm
