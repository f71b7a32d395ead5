// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The Rust half of the comparison: the accesses of serial_compare.cpp on vm-superio.

use std::cell::Cell;
use std::hint::black_box;
use std::io;
use std::time::Instant;
use vm_superio::serial::NoEvents;
use vm_superio::{Serial, Trigger};

struct CountingTrigger {
    count: Cell<u64>,
}
impl Trigger for CountingTrigger {
    type E = io::Error;
    fn trigger(&self) -> io::Result<()> {
        self.count.set(black_box(self.count.get() + 1));
        Ok(())
    }
}

struct CountingWriter {
    count: u64,
}
impl io::Write for CountingWriter {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.count = black_box(self.count + bytes.len() as u64);
        Ok(bytes.len())
    }
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

type Uart = Serial<CountingTrigger, NoEvents, CountingWriter>;

// Each access is a call, as from a VMM's bus.
#[inline(never)]
fn write(uart: &mut Uart, offset: u8, value: u8) -> bool {
    uart.write(offset, value).is_ok()
}
#[inline(never)]
fn read(uart: &mut Uart, offset: u8) -> u8 {
    uart.read(offset)
}
#[inline(never)]
fn enqueue(uart: &mut Uart, bytes: &[u8]) -> bool {
    uart.enqueue_raw_bytes(bytes).is_ok()
}

struct Access {
    name: &'static str,
    interrupts: u8,
    write: bool,
    offset: u8,
    value: u8,
    enqueued: usize,
}
const fn written(name: &'static str, interrupts: u8, offset: u8, value: u8) -> Access {
    Access { name, interrupts, write: true, offset, value, enqueued: 0 }
}
const fn read_of(name: &'static str, offset: u8, enqueued: usize) -> Access {
    Access { name, interrupts: 0x05, write: false, offset, value: 0, enqueued }
}
const ACCESSES: [Access; 9] = [
    written("thr", 0x00, 0, b'x'),
    written("thr_interrupt", 0x07, 0, b'x'),
    read_of("lsr", 5, 0),
    read_of("iir", 2, 0),
    written("lcr", 0x00, 3, 0x03),
    written("fcr", 0x00, 2, 0x81),
    written("mcr", 0x00, 4, 0x0B),
    read_of("receive_1", 0, 1),
    read_of("receive_64", 0, 64),
];

fn repeat(access: &Access, rounds: u64) {
    let mut uart = Serial::new(CountingTrigger { count: Cell::new(0) }, CountingWriter { count: 0 });
    write(&mut uart, 2, 0x81);
    write(&mut uart, 1, access.interrupts);
    let input = [b'x'; 64];
    let offered = &input[..access.enqueued];
    if access.write {
        for _ in 0..rounds {
            black_box(write(&mut uart, black_box(access.offset), black_box(access.value)));
        }
    } else if access.enqueued == 0 {
        for _ in 0..rounds {
            black_box(read(&mut uart, black_box(access.offset)));
        }
    } else {
        for _ in 0..rounds {
            black_box(enqueue(&mut uart, black_box(offered)));
            for _ in 0..access.enqueued {
                black_box(read(&mut uart, black_box(access.offset)));
            }
        }
    }
}

// Prints the nanoseconds of a round, the best of `runs`.
fn main() {
    let arguments: Vec<String> = std::env::args().collect();
    let [_, name, rounds, runs] = arguments.as_slice() else {
        panic!("usage: serial_compare ACCESS ROUNDS RUNS");
    };
    let access = ACCESSES.iter().find(|access| access.name == name).expect("no such access");
    let rounds: u64 = rounds.parse().unwrap();
    let runs: u32 = runs.parse().unwrap();
    let mut best = f64::MAX;
    for _ in 0..runs {
        let start = Instant::now();
        repeat(access, rounds);
        best = best.min(start.elapsed().as_secs_f64());
    }
    println!("{:.2}", best * 1e9 / rounds as f64);
}
