#!/bin/bash -eu
# SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
#
# The build.sh of an OSS-Fuzz project: run in its base-builder image with $SRC/vmsuperio checked out, it leaves every
# target with its corpus and dictionary in $OUT. CXX, CXXFLAGS and LIB_FUZZING_ENGINE come from there.
cmake -S "$SRC/vmsuperio" -B "$WORK/build" -G Ninja -DCMAKE_BUILD_TYPE=None \
    -DVMSUPERIO_BUILD_TESTS=OFF -DVMSUPERIO_BUILD_EXAMPLES=OFF -DVMSUPERIO_BUILD_FUZZ=ON -DVMSUPERIO_INSTALL=OFF \
    "-DVMSUPERIO_FUZZ_ENGINE=$LIB_FUZZING_ENGINE"
cmake --build "$WORK/build"
for program in "$WORK"/build/fuzz/fuzz_*; do
    [ -x "$program" ] && [ -f "$program" ] || continue
    name=$(basename "$program")
    target=${name#fuzz_}
    cp "$program" "$OUT/"
    if [ -d "$SRC/vmsuperio/fuzz/corpus/$target" ]; then
        zip -q -j "$OUT/${name}_seed_corpus.zip" "$SRC/vmsuperio/fuzz/corpus/$target"/*
    fi
    if [ -f "$SRC/vmsuperio/fuzz/dict/$target.dict" ]; then
        cp "$SRC/vmsuperio/fuzz/dict/$target.dict" "$OUT/$name.dict"
    fi
done
