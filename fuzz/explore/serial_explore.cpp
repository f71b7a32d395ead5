// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//
// The serial port's interrupt logic, explored: every sequence of the operations below, each step compared
// with the model of the datasheet. The data bytes are all alike, so that states differ in what interrupts
// depend on: registers, FIFO levels, errors, deltas, and whether the writer takes bytes.

#include "explore/explore.hpp"
#include "serial_target.hpp"

int main(int argc, char** argv) {
    const fuzz::ExploreLimits limits = fuzz::explore_limits(argc, argv, {6, 200'000});
    const fuzz::Trace quiet(false);
    fuzz::Explorer<fuzz::SerialTarget<fuzz::Edge>> explorer(0, {
                                                                   {0x00},              // read RBR
                                                                   {0x10, 0x00},        // write THR
                                                                   {0x02},              // read IIR
                                                                   {0x05},              // read LSR
                                                                   {0x06},              // read MSR
                                                                   {0x11, 0x00},        // IER: none,
                                                                   {0x11, 0x01},        // each alone,
                                                                   {0x11, 0x02},        //
                                                                   {0x11, 0x04},        //
                                                                   {0x11, 0x08},        //
                                                                   {0x11, 0x0F},        // all
                                                                   {0x12, 0x00},        // FCR: off,
                                                                   {0x12, 0x41},        // on with level 4,
                                                                   {0x12, 0x47},        // with both resets
                                                                   {0x14, 0x08},        // MCR: OUT2,
                                                                   {0x14, 0x00},        // no OUT2,
                                                                   {0x14, 0x18},        // loopback
                                                                   {0x20, 0x00},        // one byte in
                                                                   {0x22, 0x00, 0, 0},  // three bytes in
                                                                   {0x61},              // a break in
                                                                   {0x62, 0x00, 0x04},  // a parity error in
                                                                   {0x63},              // character timeout
                                                                   {0x64, 0x00},        // modem lines off,
                                                                   {0x64, 0xB0},        // on
                                                                   {0x50},              // the writer is full,
                                                                   {0x59},              // takes all
                                                                   {0x60},              // resume_transmit
                                                                   {0x40},              // save and restore
                                                               });
    explorer.run(limits.depth, limits.states, [&] { return fuzz::SerialTarget<fuzz::Edge>(quiet); });
    return 0;
}
