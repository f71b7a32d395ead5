# SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
# Debian's cross compilers, and qemu-user to run what they build:
#   cmake -DCMAKE_TOOLCHAIN_FILE=cmake/toolchains/linux.cmake -DVMSUPERIO_MACHINE=s390x ...
# VMSUPERIO_MACHINE is aarch64, arm, i686 or s390x.
set(CMAKE_TRY_COMPILE_PLATFORM_VARIABLES VMSUPERIO_MACHINE)
set(CMAKE_SYSTEM_NAME Linux)
set(CMAKE_SYSTEM_PROCESSOR "${VMSUPERIO_MACHINE}")
set(triplet "${VMSUPERIO_MACHINE}-linux-gnu")
if(VMSUPERIO_MACHINE STREQUAL "arm")
  set(triplet arm-linux-gnueabihf)
endif()
set(CMAKE_CXX_COMPILER "${triplet}-g++")
# Static, so that the emulator needs no library of the machine.
set(CMAKE_EXE_LINKER_FLAGS_INIT "-static")
# An x86 processor runs the programs of its 32-bit predecessor itself.
if(NOT VMSUPERIO_MACHINE STREQUAL "i686")
  set(CMAKE_CROSSCOMPILING_EMULATOR "qemu-${VMSUPERIO_MACHINE}-static")
endif()
