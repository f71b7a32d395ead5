// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
#pragma once

#include <cstdint>
#include <string_view>

#include <vmsuperio/registers/register.hpp>

/// The registers of the 16550A UART, named as in the PC16550D datasheet (section 8.0, "Registers"); parts
/// that only the 64-byte version has are named as in the TL16C750 datasheet.
///
/// offset | read, DLAB=0 | write, DLAB=0 | read and write, DLAB=1
/// ------ | ------------ | ------------- | ----------------------
/// 0      | RBR          | THR           | DLL
/// 1      | IER          | IER           | DLM
/// 2      | IIR          | FCR           | IIR / FCR
/// 3..7   | LCR MCR LSR MSR SCR, independent of DLAB; writes to LSR and MSR have no effect
namespace vmsuperio::inline v0_2::uart16550 {

/// Offsets from the base address. RBR, THR and DLL share one, IER and DLM another, IIR and FCR a third.
namespace offset {
inline constexpr std::uint8_t receiver_buffer = 0;           // RBR
inline constexpr std::uint8_t transmitter_holding = 0;       // THR
inline constexpr std::uint8_t divisor_latch_low = 0;         // DLL, DLAB=1
inline constexpr std::uint8_t interrupt_enable = 1;          // IER
inline constexpr std::uint8_t divisor_latch_high = 1;        // DLM, DLAB=1
inline constexpr std::uint8_t interrupt_identification = 2;  // IIR
inline constexpr std::uint8_t fifo_control = 2;              // FCR
inline constexpr std::uint8_t line_control = 3;              // LCR
inline constexpr std::uint8_t modem_control = 4;             // MCR
inline constexpr std::uint8_t line_status = 5;               // LSR
inline constexpr std::uint8_t modem_status = 6;              // MSR
inline constexpr std::uint8_t scratch = 7;                   // SCR
/// How many offsets the UART has.
inline constexpr std::uint8_t count = 8;
}  // namespace offset

/// RBR: Receiver Buffer, offset 0, DLAB=0, read only. If it is empty, this model reads 0x00.
struct ReceiverBuffer : Register<ReceiverBuffer, std::uint8_t> {
    using Register::Register;
    static constexpr std::string_view name = "RBR";
    static constexpr Field<0, 7, Access::read_only> data{};
    static constexpr FieldInfo fields[]{{"data", data.bits}};
};

/// DLL: Divisor Latch, low byte, offset 0, DLAB=1. This model resets it to 0x0C: 9600 baud.
struct DivisorLatchLow : Register<DivisorLatchLow, std::uint8_t> {
    using Register::Register;
    static constexpr std::string_view name = "DLL";
    static constexpr Field<0, 7> divisor{};
    static constexpr FieldInfo fields[]{{"divisor", divisor.bits}};
};

/// DLM: Divisor Latch, high byte, offset 1, DLAB=1, reset 0x00.
struct DivisorLatchHigh : Register<DivisorLatchHigh, std::uint8_t> {
    using Register::Register;
    static constexpr std::string_view name = "DLM";
    static constexpr Field<0, 7> divisor{};
    static constexpr FieldInfo fields[]{{"divisor", divisor.bits}};
};

/// IER: Interrupt Enable, offset 1, DLAB=0, reset 0x00. Bits 7:4 read 0.
struct InterruptEnable : Register<InterruptEnable, std::uint8_t> {
    using Register::Register;
    static constexpr std::string_view name = "IER";
    static constexpr Bit<0> received_data{};  // ERBFI: data available and character timeout
    static constexpr Bit<1> thr_empty{};      // ETBEI
    static constexpr Bit<2> line_status{};    // ELSI
    static constexpr Bit<3> modem_status{};   // EDSSI
    static constexpr FieldInfo fields[]{{"received_data", received_data.bits},
                                        {"thr_empty", thr_empty.bits},
                                        {"line_status", line_status.bits},
                                        {"modem_status", modem_status.bits}};
};

/// IIR[3:0]: the highest pending interrupt (PC16550D table IV).
enum class InterruptId : std::uint8_t {
    modem_status = 0x0,  // MS, fourth priority
    none = 0x1,
    thr_empty = 0x2,          // THRE, third
    received_data = 0x4,      // RDA, second
    line_status = 0x6,        // RLS, first
    character_timeout = 0xC,  // CTI, second, after RDA
};

/// IIR: Interrupt Identification, offset 2, read only, reset 0x01.
struct InterruptIdentification : Register<InterruptIdentification, std::uint8_t> {
    using Register::Register;
    static constexpr std::string_view name = "IIR";
    static constexpr Bit<0, Access::read_only> not_pending{};
    static constexpr Field<0, 3, Access::read_only> id{};
    static constexpr Bit<5, Access::read_only> fifo_64{};            // TL16C750: 64-byte mode
    static constexpr Field<6, 7, Access::read_only> fifo_enabled{};  // both set while the FIFOs are enabled
    static constexpr FieldInfo fields[]{
        {"id", id.bits}, {"fifo_64", fifo_64.bits}, {"fifo_enabled", fifo_enabled.bits}};
};

/// FCR: FIFO Control, offset 2, write only, reset 0x00. The reset bits clear themselves; bit 3 (DMA mode) is
/// stored and has no effect; bit 5 exists on the TL16C750 only and is writable while DLAB=1.
struct FifoControl : Register<FifoControl, std::uint8_t> {
    using Register::Register;
    static constexpr std::string_view name = "FCR";
    static constexpr Bit<0> enable{};
    static constexpr Bit<1, Access::self_clearing> receiver_reset{};
    static constexpr Bit<2, Access::self_clearing> transmitter_reset{};
    static constexpr Bit<3> dma_mode{};
    static constexpr Bit<5, Access::read_only> fifo_64{};
    static constexpr Field<6, 7> receiver_trigger{};
    static constexpr FieldInfo fields[]{{"enable", enable.bits},
                                        {"receiver_reset", receiver_reset.bits},
                                        {"transmitter_reset", transmitter_reset.bits},
                                        {"dma_mode", dma_mode.bits},
                                        {"fifo_64", fifo_64.bits},
                                        {"receiver_trigger", receiver_trigger.bits}};
};

/// LCR: Line Control, offset 3. The PC16550D resets it to 0x00; this model to 0x03 (8 data bits).
struct LineControl : Register<LineControl, std::uint8_t> {
    using Register::Register;
    static constexpr std::string_view name = "LCR";
    static constexpr Field<0, 1> word_length{};  // WLS: 5 to 8 bits
    static constexpr Bit<2> stop_bits{};         // STB: 2 (1.5 with 5 data bits)
    static constexpr Bit<3> parity_enable{};     // PEN
    static constexpr Bit<4> even_parity{};       // EPS
    static constexpr Bit<5> stick_parity{};
    static constexpr Bit<6> set_break{};
    static constexpr Bit<7> divisor_latch_access{};  // DLAB
    static constexpr Field<0, 5> format{};           // word length, stop bits and parity
    static constexpr FieldInfo fields[]{{"word_length", word_length.bits},
                                        {"stop_bits", stop_bits.bits},
                                        {"parity_enable", parity_enable.bits},
                                        {"even_parity", even_parity.bits},
                                        {"stick_parity", stick_parity.bits},
                                        {"set_break", set_break.bits},
                                        {"divisor_latch_access", divisor_latch_access.bits}};
};

/// MCR: Modem Control, offset 4. Bits 7:5 read 0; bit 5 exists on the TL16C750 only. The PC16550D resets it
/// to 0x00; this model to 0x08.
struct ModemControl : Register<ModemControl, std::uint8_t> {
    using Register::Register;
    static constexpr std::string_view name = "MCR";
    static constexpr Bit<0> data_terminal_ready{};  // DTR
    static constexpr Bit<1> request_to_send{};      // RTS
    static constexpr Bit<2> out1{};
    static constexpr Bit<3> out2{};  // on a PC, gates the interrupt
    static constexpr Bit<4> loopback{};
    static constexpr Bit<5, Access::read_only> auto_flow_control{};  // AFE, TL16C750
    static constexpr FieldInfo fields[]{{"data_terminal_ready", data_terminal_ready.bits},
                                        {"request_to_send", request_to_send.bits},
                                        {"out1", out1.bits},
                                        {"out2", out2.bits},
                                        {"loopback", loopback.bits},
                                        {"auto_flow_control", auto_flow_control.bits}};
};

/// LSR: Line Status, offset 5, read only, reset 0x60. Reading clears bits 4:1.
struct LineStatus : Register<LineStatus, std::uint8_t> {
    using Register::Register;
    static constexpr std::string_view name = "LSR";
    static constexpr Bit<0, Access::read_only> data_ready{};         // DR
    static constexpr Bit<1, Access::read_only> overrun_error{};      // OE
    static constexpr Bit<2, Access::read_only> parity_error{};       // PE
    static constexpr Bit<3, Access::read_only> framing_error{};      // FE
    static constexpr Bit<4, Access::read_only> break_interrupt{};    // BI
    static constexpr Bit<5, Access::read_only> thr_empty{};          // THRE
    static constexpr Bit<6, Access::read_only> transmitter_empty{};  // TEMT
    static constexpr Bit<7, Access::read_only> fifo_error{};  // FIFO mode: a PE, FE or BI is in the RX FIFO
    static constexpr Field<1, 4, Access::read_only> errors{};
    static constexpr Field<2, 4, Access::read_only> character_errors{};
    static constexpr FieldInfo fields[]{{"data_ready", data_ready.bits},
                                        {"overrun_error", overrun_error.bits},
                                        {"parity_error", parity_error.bits},
                                        {"framing_error", framing_error.bits},
                                        {"break_interrupt", break_interrupt.bits},
                                        {"thr_empty", thr_empty.bits},
                                        {"transmitter_empty", transmitter_empty.bits},
                                        {"fifo_error", fifo_error.bits}};
};

/// MSR: Modem Status, offset 6, read only. Reading clears the deltas. Reset 0xB0: CTS, DSR and DCD are on.
struct ModemStatus : Register<ModemStatus, std::uint8_t> {
    using Register::Register;
    static constexpr std::string_view name = "MSR";
    static constexpr Bit<0, Access::read_only> delta_clear_to_send{};        // DCTS
    static constexpr Bit<1, Access::read_only> delta_data_set_ready{};       // DDSR
    static constexpr Bit<2, Access::read_only> trailing_edge_ring{};         // TERI
    static constexpr Bit<3, Access::read_only> delta_data_carrier_detect{};  // DDCD
    static constexpr Bit<4, Access::read_only> clear_to_send{};              // CTS
    static constexpr Bit<5, Access::read_only> data_set_ready{};             // DSR
    static constexpr Bit<6, Access::read_only> ring_indicator{};             // RI
    static constexpr Bit<7, Access::read_only> data_carrier_detect{};        // DCD
    static constexpr Field<0, 3, Access::read_only> deltas{};
    static constexpr Field<4, 7, Access::read_only> lines{};
    static constexpr FieldInfo fields[]{{"delta_clear_to_send", delta_clear_to_send.bits},
                                        {"delta_data_set_ready", delta_data_set_ready.bits},
                                        {"trailing_edge_ring", trailing_edge_ring.bits},
                                        {"delta_data_carrier_detect", delta_data_carrier_detect.bits},
                                        {"clear_to_send", clear_to_send.bits},
                                        {"data_set_ready", data_set_ready.bits},
                                        {"ring_indicator", ring_indicator.bits},
                                        {"data_carrier_detect", data_carrier_detect.bits}};
};

/// SCR: Scratch, offset 7, reset 0x00.
struct Scratch : Register<Scratch, std::uint8_t> {
    using Register::Register;
    static constexpr std::string_view name = "SCR";
    static constexpr Field<0, 7> data{};
    static constexpr FieldInfo fields[]{{"data", data.bits}};
};

/// The name of the register that an access reaches, for traces and debuggers; empty if there is none.
/// `divisor_latch` is LCR.DLAB at the time of the access.
[[nodiscard]] constexpr std::string_view register_name(std::uint64_t offset, bool write,
                                                       bool divisor_latch) noexcept {
    switch (offset) {
        case offset::receiver_buffer:
            return divisor_latch ? "DLL" : (write ? "THR" : "RBR");
        case offset::interrupt_enable:
            return divisor_latch ? "DLM" : InterruptEnable::name;
        case offset::interrupt_identification:
            return write ? FifoControl::name : InterruptIdentification::name;
        case offset::line_control:
            return LineControl::name;
        case offset::modem_control:
            return ModemControl::name;
        case offset::line_status:
            return LineStatus::name;
        case offset::modem_status:
            return ModemStatus::name;
        case offset::scratch:
            return Scratch::name;
        default:
            return {};
    }
}

}  // namespace vmsuperio::inline v0_2::uart16550
