# SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
# The component "fuzz" of the package: fuzz targets for the devices of another project.
set(vmsuperio_fuzz_dir "${CMAKE_CURRENT_LIST_DIR}/../../vmsuperio/fuzz")

# vmsuperio_add_fuzz_target(NAME sources...)
#
# Adds an executable from sources of which one defines fuzz::run_target (see fuzz_any_device.hpp and
# support/target.hpp in ${vmsuperio_fuzz_dir}). With Clang it is linked with libFuzzer, AddressSanitizer and
# UndefinedBehaviorSanitizer; with another compiler it replays inputs and generates random ones, and takes the
# same options. For another fuzzing engine set VMSUPERIO_FUZZ_ENGINE to the library or option that must be
# linked.
function(vmsuperio_add_fuzz_target name)
  add_executable(${name} ${ARGN} "${vmsuperio_fuzz_dir}/support/report.cpp"
                         "${vmsuperio_fuzz_dir}/support/target_main.cpp")
  target_include_directories(${name} PRIVATE "${vmsuperio_fuzz_dir}")
  target_link_libraries(${name} PRIVATE vmsuperio::vmsuperio vmsuperio::vmdevice)
  if(VMSUPERIO_FUZZ_ENGINE)
    separate_arguments(engine NATIVE_COMMAND "${VMSUPERIO_FUZZ_ENGINE}")
    target_link_libraries(${name} PRIVATE ${engine})
  elseif(CMAKE_CXX_COMPILER_ID STREQUAL "Clang")
    target_compile_options(${name} PRIVATE -g -fsanitize=fuzzer-no-link,address,undefined -fno-sanitize-recover=all)
    target_link_options(${name} PRIVATE -fsanitize=fuzzer,address,undefined)
  else()
    target_sources(${name} PRIVATE "${vmsuperio_fuzz_dir}/support/replay_main.cpp")
  endif()
endfunction()
