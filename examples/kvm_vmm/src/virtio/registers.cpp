// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
#include "virtio/registers.hpp"

#include "util/text.hpp"

namespace kvm_vmm::virtio {

std::string mmio_register_name(std::uint64_t offset) {
    switch (offset) {
        case mmio::magic_value:
            return "MagicValue";
        case mmio::version:
            return "Version";
        case mmio::device_id:
            return "DeviceID";
        case mmio::vendor_id:
            return "VendorID";
        case mmio::device_features:
            return "DeviceFeatures";
        case mmio::device_features_sel:
            return "DeviceFeaturesSel";
        case mmio::driver_features:
            return "DriverFeatures";
        case mmio::driver_features_sel:
            return "DriverFeaturesSel";
        case mmio::queue_sel:
            return "QueueSel";
        case mmio::queue_num_max:
            return "QueueNumMax";
        case mmio::queue_num:
            return "QueueNum";
        case mmio::queue_ready:
            return "QueueReady";
        case mmio::queue_notify:
            return "QueueNotify";
        case mmio::interrupt_status:
            return "InterruptStatus";
        case mmio::interrupt_ack:
            return "InterruptACK";
        case mmio::status:
            return "Status";
        case mmio::queue_desc_low:
            return "QueueDescLow";
        case mmio::queue_desc_high:
            return "QueueDescHigh";
        case mmio::queue_driver_low:
            return "QueueDriverLow";
        case mmio::queue_driver_high:
            return "QueueDriverHigh";
        case mmio::queue_device_low:
            return "QueueDeviceLow";
        case mmio::queue_device_high:
            return "QueueDeviceHigh";
        case mmio::shm_sel:
            return "SHMSel";
        case mmio::shm_len_low:
            return "SHMLenLow";
        case mmio::shm_len_high:
            return "SHMLenHigh";
        case mmio::shm_base_low:
            return "SHMBaseLow";
        case mmio::shm_base_high:
            return "SHMBaseHigh";
        case mmio::queue_reset:
            return "QueueReset";
        case mmio::config_generation:
            return "ConfigGeneration";
        default:
            break;
    }
    return offset >= mmio::config && offset < mmio::window_size ? "config+" + hex(offset - mmio::config, 2)
                                                                : std::string();
}

}  // namespace kvm_vmm::virtio
