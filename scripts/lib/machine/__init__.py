# SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
"""Machines on which kvm_vmm runs: this one, or one that QEMU emulates. Used by scripts/boot and tests/boot."""
