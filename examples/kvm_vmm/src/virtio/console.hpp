// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
#pragma once

#include <array>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <expected>
#include <span>
#include <string_view>
#include <vector>

#include "console/console_line.hpp"
#include "console/serial_backend.hpp"
#include "event/notifier.hpp"
#include "virtio/device.hpp"

namespace kvm_vmm::virtio {

/// A console: VIRTIO 1.2, section 5.3, with port 0 alone (no VIRTIO_CONSOLE_F_MULTIPORT).
///
/// Output: a buffer of the driver goes to the back end as a whole, and is returned when the back end has all
/// of it, or its channel keeps it (OutputChannel, up to 1 MiB). If that is full, the buffer stays with the
/// device until the reader takes output, so that nothing is lost.
///
/// Input: what was read from the back end before the driver offers buffers waits, as at a serial port
/// (ConsoleLine). A BREAK does not exist: the handler of the commands receives it.
///
/// VIRTIO_CONSOLE_F_SIZE is offered if the back end is a terminal. VIRTIO_CONSOLE_F_EMERG_WRITE is always
/// offered; a byte for which there is no room is dropped, because a write to a register cannot wait.
///
/// The constructor and destructor, terminal_resized(), take_last_output() and unsent() are for the event loop's
/// thread.
class Console final : public Device, private ConsoleLine::Guest {
public:
    /// Feature bits (5.3.3).
    static constexpr std::uint64_t feature_size = 1U << 0U;             ///< VIRTIO_CONSOLE_F_SIZE
    static constexpr std::uint64_t feature_emergency_write = 1U << 2U;  ///< VIRTIO_CONSOLE_F_EMERG_WRITE
    static constexpr std::size_t receive_queue = 0;
    static constexpr std::size_t transmit_queue = 1;

    /// `events` and `backend` must outlive the device. `on_command` receives all commands that the user types.
    /// Throws VmmError if the system has no descriptor left.
    Console(std::string_view name, Counters& counters, EventManager& events, SerialBackend& backend,
            ConsoleLine::CommandHandler on_command);
    ~Console() override;

    [[nodiscard]] DeviceType type() const noexcept override { return DeviceType::console; }
    [[nodiscard]] std::uint64_t features() const noexcept override {
        return feature_emergency_write | (has_terminal_ ? feature_size : 0);
    }
    [[nodiscard]] std::span<const std::uint16_t> queue_sizes() const noexcept override { return sizes; }
    [[nodiscard]] EventManager& events() noexcept override { return events_; }

    /// The terminal of the back end may have another size now.
    void terminal_resized();

    /// To be called when the guest's CPUs have stopped for good, before the device is: takes the output that the
    /// driver has offered, which needs no guest memory after that.
    void take_last_output();
    /// How many bytes the reader has not taken yet, after take_last_output(). 0 if there is no reader.
    [[nodiscard]] std::size_t unsent();

private:
    /// 5.3.4
    struct Config {
        std::uint16_t columns;
        std::uint16_t rows;
        std::uint32_t max_ports;  // for VIRTIO_CONSOLE_F_MULTIPORT only
        std::uint32_t emergency_write;
    };
    static_assert(sizeof(Config) == 12);
    static constexpr std::array<std::uint16_t, 2> sizes{64, 64};

    void on_read_config(std::uint64_t offset, std::span<std::uint8_t> data) const
        KVM_VMM_REQUIRES(mutex()) override;
    void on_write_config(std::uint64_t offset, std::span<const std::uint8_t> data)
        KVM_VMM_REQUIRES(mutex()) override;
    void on_reset() KVM_VMM_REQUIRES(mutex()) override;
    void on_queue_reset(std::size_t index) KVM_VMM_REQUIRES(mutex()) override;
    [[nodiscard]] std::vector<std::uint8_t> on_state() const KVM_VMM_REQUIRES(mutex()) override;
    [[nodiscard]] std::expected<void, std::string_view> on_restore_state(std::span<const std::uint8_t> bytes,
                                                                         std::uint64_t features)
        KVM_VMM_REQUIRES(mutex()) override;
    void on_restored() KVM_VMM_REQUIRES(mutex()) override { update_size(); }
    void on_notified(std::size_t index) KVM_VMM_REQUIRES(mutex()) override;
    void on_defective(std::size_t index, const Chain& chain) KVM_VMM_REQUIRES(mutex()) override;

    // ConsoleLine::Guest
    [[nodiscard]] std::size_t input_room() override;
    void take_input(InputQueue& waiting) override;
    [[nodiscard]] bool output_waits() override;
    void resume_output(std::size_t lost) override;
    [[nodiscard]] bool takes_break() const noexcept override { return false; }

    void receive() KVM_VMM_REQUIRES(mutex());
    [[nodiscard]] std::uint32_t fill(const Buffers& buffers);
    void transmit() KVM_VMM_REQUIRES(mutex());
    [[nodiscard]] bool send_chain(const Buffers& buffers, std::size_t& budget) KVM_VMM_REQUIRES(mutex());
    void finish_output(const Chain& chain) KVM_VMM_REQUIRES(mutex());
    [[nodiscard]] std::size_t send(std::span<const std::uint8_t> bytes) KVM_VMM_REQUIRES(mutex());
    void update_size() KVM_VMM_REQUIRES(mutex());

    EventManager& events_;
    SerialBackend& backend_;
    Counter& bytes_sent_;
    Counter& bytes_received_;
    Counter& bytes_lost_;
    Counter& waits_;

    bool has_terminal_;
    TerminalSize terminal_size_;
    std::uint64_t sent_of_chain_{0};         // of the chain that is available next
    bool transmit_waits_{false};             // for room in the channel
    std::vector<std::uint8_t> last_output_;  // that the channel had no room for when the guest ended

    // Set with the mutex locked.
    std::atomic<bool> driver_takes_input_{false};

    Notifier wake_;  // for output that waits since a write in another thread
    EventManager::SubscriptionId wake_subscription_{};
    ConsoleLine line_;
};

}  // namespace kvm_vmm::virtio
