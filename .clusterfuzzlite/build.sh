#!/bin/bash -eu
# SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
exec "$SRC/vmsuperio/fuzz/oss-fuzz/build.sh"
