# SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
"""A program for the nested host that holds a VM with one CPU open, and never runs it.

When the first VM of a host is created and when the last one is destroyed, Linux patches its own code while all CPUs
run (static keys such as preempt_notifier_key). QEMU's emulation of several CPUs sometimes loses such a patch: a CPU
then executes the temporary breakpoint endlessly, and one boot in a hundred found its host hung. With a VM that always
exists, no other VM is the first or the last.
"""

import struct

_LOAD_ADDRESS = 0x400000
_HEADERS = 64 + 56

# open, ioctl, pause: Linux arch/x86/entry/syscalls/syscall_64.tbl; the requests: include/uapi/linux/kvm.h
_SYS_OPEN, _SYS_IOCTL, _SYS_PAUSE = 2, 16, 34
_KVM_CREATE_VM, _KVM_CREATE_VCPU, _KVM_CREATE_IRQCHIP = 0xAE01, 0xAE41, 0xAE60
_SYSCALL = b"\x0f\x05"


def _system_call(number, second):
    """The first argument must already be in edi; the third one is 0."""
    return b"\xb8" + struct.pack("<I", number) + b"\xbe" + struct.pack("<I", second) + b"\x31\xd2" + _SYSCALL


def program():
    """A static ELF executable."""
    parts = [
        _system_call(_SYS_OPEN, 2),  # O_RDWR
        b"\x89\xc7", _system_call(_SYS_IOCTL, _KVM_CREATE_VM),  # mov edi, eax
        b"\x89\xc3\x89\xdf", _system_call(_SYS_IOCTL, _KVM_CREATE_IRQCHIP),  # mov ebx, eax; mov edi, ebx
        b"\x89\xdf", _system_call(_SYS_IOCTL, _KVM_CREATE_VCPU),
        b"\xb8" + struct.pack("<I", _SYS_PAUSE) + _SYSCALL + b"\xeb\xf7",  # repeatedly
    ]
    code = b"".join(parts)
    # mov edi, the path after the code
    code = b"\xbf" + struct.pack("<I", _LOAD_ADDRESS + _HEADERS + 5 + len(code)) + code
    image = code + b"/dev/kvm\0"
    size = _HEADERS + len(image)
    ident = b"\x7fELF" + bytes((2, 1, 1)) + bytes(9)
    header = struct.pack("<16sHHIQQQIHHHHHH", ident, 2, 62, 1, _LOAD_ADDRESS + _HEADERS, 64, 0, 0, 64, 56, 1, 0, 0, 0)
    segment = struct.pack("<IIQQQQQQ", 1, 5, 0, _LOAD_ADDRESS, _LOAD_ADDRESS, size, size, 0x1000)
    return header + segment + image
