// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
// A kernel (an ELF file for Linux's 64-bit boot protocol) that gives every virtio device requests in all its queues, and resets
// them while the requests are in progress. The command line says how: "how=device" writes 0 to Status, "how=queue" 1 to
// QueueReset; "how=stay" does neither, prints '!' and halts. Otherwise the guest resets the computer at its end.
using u8 = unsigned char;
using u16 = unsigned short;
using u32 = unsigned int;
using u64 = unsigned long long;

namespace {

constexpr u64 first_window = 0xD0000000;
constexpr u64 queue_memory = 0x1000000;  // 64 KiB for each queue
constexpr u64 data = 0x2000000;
constexpr u32 data_size = (2U << 20U) + 1;  // the last byte is a disk's status

struct Descriptor {
    u64 address;
    u32 length;
    u16 flags;
    u16 next;
};

volatile u32& reg(u64 window, u64 offset) { return *reinterpret_cast<volatile u32*>(window + offset); }

void out(u16 port, u8 value) { asm volatile("outb %0, %1" : : "a"(value), "Nd"(port)); }

bool is_next(const char* text, const char* word) {
    while (*word != 0 && *text == *word) {
        ++text;
        ++word;
    }
    return *word == 0;
}

bool contains(const char* text, const char* word) {
    for (; *text != 0; ++text) {
        if (is_next(text, word)) {
            return true;
        }
    }
    return false;
}

void start_device(u64 window, u64& memory) {
    reg(window, 0x70) = 0;
    reg(window, 0x70) = 1;
    reg(window, 0x70) = 3;
    reg(window, 0x14) = 0;
    const u32 low = reg(window, 0x10);
    reg(window, 0x14) = 1;
    const u32 high = reg(window, 0x10);
    reg(window, 0x24) = 0;
    reg(window, 0x20) = low;
    reg(window, 0x24) = 1;
    reg(window, 0x20) = high;
    reg(window, 0x70) = 11;
    for (u32 queue = 0;; ++queue) {
        reg(window, 0x30) = queue;
        const u32 most = reg(window, 0x34);
        if (most == 0) {
            break;
        }
        const u32 size = most < 64 ? most : 64;
        const u64 available = memory + 0x2000;
        const u64 used = memory + 0x4000;
        const u64 headers = memory + 0x6000;
        auto* const descriptors = reinterpret_cast<volatile Descriptor*>(memory);
        auto* const ring = reinterpret_cast<volatile u16*>(available);
        for (u32 i = 0; i < size / 2; ++i) {
            auto* const header = reinterpret_cast<volatile u32*>(headers + u64{i} * 16);
            header[0] = 0;  // a disk's VIRTIO_BLK_T_IN
            header[1] = 0;
            header[2] = i * 4096;  // sector
            header[3] = 0;
            descriptors[2 * i].address = headers + u64{i} * 16;
            descriptors[2 * i].length = 16;
            descriptors[2 * i].flags = 1;
            descriptors[2 * i].next = static_cast<u16>(2 * i + 1);
            descriptors[2 * i + 1].address = data;
            descriptors[2 * i + 1].length = data_size;
            descriptors[2 * i + 1].flags = 2;
            ring[2 + i] = static_cast<u16>(2 * i);
        }
        ring[0] = 0;
        ring[1] = static_cast<u16>(size / 2);
        reinterpret_cast<volatile u32*>(used)[0] = 0;
        reg(window, 0x38) = size;
        reg(window, 0x80) = static_cast<u32>(memory);
        reg(window, 0x84) = 0;
        reg(window, 0x90) = static_cast<u32>(available);
        reg(window, 0x94) = 0;
        reg(window, 0xA0) = static_cast<u32>(used);
        reg(window, 0xA4) = 0;
        reg(window, 0x44) = 1;
        memory += 0x10000;
    }
    reg(window, 0x70) = 15;
    for (u32 queue = 8; queue != 0;) {
        --queue;
        reg(window, 0x50) = queue;
    }
}

void reset_device(u64 window, bool queues) {
    if (!queues) {
        reg(window, 0x70) = 0;
        return;
    }
    for (u32 queue = 0;; ++queue) {
        reg(window, 0x30) = queue;
        if (reg(window, 0x34) == 0) {
            break;
        }
        reg(window, 0xC0) = 1;
    }
}

}  // namespace

extern "C" [[noreturn]] void run_guest(u64 zero_page) {
    const auto* const command_line =
        reinterpret_cast<const char*>(u64{*reinterpret_cast<const u32*>(zero_page + 0x228)});
    const bool stay = contains(command_line, "how=stay");
    const bool queues = contains(command_line, "how=queue");
    for (u32 round = 0; round < (stay ? 1 : 8); ++round) {
        u64 memory = queue_memory;
        u64 end = first_window;
        while (reg(end, 0) == 0x74726976) {
            end += 0x1000;
        }
        // The first device, a disk, is the last to get requests and the first to be reset.
        for (u64 window = end; window != first_window;) {
            window -= 0x1000;
            start_device(window, memory);
        }
        for (u32 pause = 0; pause < round * 200; ++pause) {
            asm volatile("");
        }
        for (u64 window = first_window; !stay && window != end; window += 0x1000) {
            reset_device(window, queues);
        }
        out(0x3F8, stay ? '!' : '.');
    }
    if (!stay) {
        out(0xCF9, 6);
    }
    for (;;) {
        asm volatile("hlt");
    }
}

asm(R"(
    .globl _start
_start:
    mov $0x900000, %rsp
    mov %rsi, %rdi
    call run_guest
)");
