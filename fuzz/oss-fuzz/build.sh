#!/bin/bash -eu
# SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
#
# The build script of OSS-Fuzz and of ClusterFuzzLite: with $SRC/vmsuperio checked out, it leaves every target with its
# corpus and dictionary in $OUT. CC, CXX, CFLAGS, CXXFLAGS and LIB_FUZZING_ENGINE come from the base-builder image.
# FUZZ_TARGETS, a list of names without "fuzz_", restricts it to some targets; the tests do that.
source_dir=$SRC/vmsuperio
build_dir=$WORK/vmsuperio

cmake -S "$source_dir" -B "$build_dir" -G Ninja -DCMAKE_BUILD_TYPE=None -DVMSUPERIO_BUILD_TESTS=OFF \
    -DVMSUPERIO_BUILD_EXAMPLES=OFF -DVMSUPERIO_BUILD_FUZZ=ON -DVMSUPERIO_INSTALL=OFF -DVMSUPERIO_WARNINGS_AS_ERRORS=OFF \
    "-DVMSUPERIO_FUZZ_ENGINE=$LIB_FUZZING_ENGINE"
programs=()
for target in ${FUZZ_TARGETS-}; do
    programs+=(--target "fuzz_$target")
done
cmake --build "$build_dir" "${programs[@]}"

for program in "$build_dir"/fuzz/fuzz_*; do
    if [ ! -f "$program" ] || [ ! -x "$program" ]; then
        continue
    fi
    name=$(basename "$program")
    target=${name#fuzz_}
    cp "$program" "$OUT/"
    # Every target has seeds: one without would start from nothing each time.
    zip -q -j -X "$OUT/${name}_seed_corpus.zip" "$source_dir/fuzz/corpus/$target"/*
    if [ -f "$source_dir/fuzz/dict/$target.dict" ]; then
        cp "$source_dir/fuzz/dict/$target.dict" "$OUT/$name.dict"
    fi
    printf '[libfuzzer]\nmax_len = 4096\n' >"$OUT/$name.options"
done
