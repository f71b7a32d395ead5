// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//
// The keyboard controller, explored: every sequence of the operations below, the invariants checked after
// each step, and every state saved and restored into a twin that must do the same next.

#include <chrono>

#include <vmsuperio/i8042.hpp>

#include "explore/explore.hpp"
#include "i8042_target.hpp"

int main(int argc, char** argv) {
    const fuzz::ExploreLimits limits = fuzz::explore_limits(argc, argv, {5, 200'000});
    const fuzz::Trace quiet(false);
    using Target = fuzz::I8042Target<fuzz::Level>;
    fuzz::Explorer<Target> explorer(0x30, {
                                              {0x00},              // read the data port
                                              {0x14, 0x20},        // read, write the command byte
                                              {0x14, 0x60},        //
                                              {0x14, 0xA7},        // mouse off, on
                                              {0x14, 0xA8},        //
                                              {0x14, 0xAA},        // self test
                                              {0x14, 0xAD},        // keyboard off, on
                                              {0x14, 0xAE},        //
                                              {0x14, 0xD0},        // read, write the output port
                                              {0x14, 0xD1},        //
                                              {0x14, 0xD2},        // a byte as if from the keyboard,
                                              {0x14, 0xD3},        // from the mouse,
                                              {0x14, 0xD4},        // to the mouse
                                              {0x14, 0xFE},        // reset the CPU
                                              {0x10, 0x00},        // data: nothing on,
                                              {0x10, 0x47},        // all interrupts and translation,
                                              {0x10, 0x03},        // all interrupts,
                                              {0x10, 0xED},        // LEDs,
                                              {0x10, 0xF0},        // scan code set,
                                              {0x10, 0xF2},        // identify,
                                              {0x10, 0xF4},        // enable,
                                              {0x10, 0xF5},        // disable,
                                              {0x10, 0xFF},        // reset
                                              {0x70, 30},          // A down
                                              {0x71, 30},          // A up
                                              {0x62, 1, 1, 0, 1},  // the mouse moves
                                          });
    explorer.run(limits.depth, limits.states, [&] { return Target(quiet, vmsuperio::I8042Options{}, true); });

    // The keys whose codes depend on other keys, a mouse with reports, and bytes that are held off.
    fuzz::Explorer<Target> busy(0x70, {
                                          {0x00},              // read the data port
                                          {0x35, 0xF4},        // 1 ms passes; the mouse: enable,
                                          {0x33, 0xF3},        // 0.6 ms; sample rate,
                                          {0x30, 100},         // its parameter,
                                          {0x30, 0xFE},        // the last packet again
                                          {0x10, 0xED},        // LEDs,
                                          {0x10, 0x02},        // Num Lock,
                                          {0x10, 0xFE},        // the last byte again
                                          {0x70, 42},          // left Shift down
                                          {0x71, 42},          // left Shift up
                                          {0x70, 56},          // left Alt down
                                          {0x71, 56},          // left Alt up
                                          {0x70, 99},          // Print Screen down
                                          {0x71, 99},          // Print Screen up
                                          {0x70, 110},         // Insert down
                                          {0x71, 110},         // Insert up
                                          {0x62, 1, 1, 0, 1},  // the mouse moves
                                          {0x62, 0, 0, 0, 8},  // and a button that it cannot show
                                      });
    const vmsuperio::I8042Options slow{.command_byte = 0x47, .hold_off = std::chrono::milliseconds(1)};
    busy.run(limits.depth, limits.states, [&] { return Target(quiet, slow, true); });
    return 0;
}
