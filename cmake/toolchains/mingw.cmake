# SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
# Debian's MinGW-w64, with threads of the C++ standard library; Wine, if it is installed, runs the built programs.
set(CMAKE_SYSTEM_NAME Windows)
set(CMAKE_SYSTEM_PROCESSOR x86_64)
set(CMAKE_CXX_COMPILER x86_64-w64-mingw32-g++-posix)
# GCC 12's C++23 headers define std::type_info::operator== inline, and so does its static library.
set(CMAKE_EXE_LINKER_FLAGS_INIT "-static -Wl,--allow-multiple-definition")
find_program(WINE NAMES wine64 wine PATHS /usr/lib/wine)
if(WINE)
  set(CMAKE_CROSSCOMPILING_EMULATOR "${WINE}")
endif()
