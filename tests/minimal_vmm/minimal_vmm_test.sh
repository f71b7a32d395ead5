#!/bin/sh
# SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
# minimal_vmm_test.sh PROGRAM: runs examples/minimal_vmm with its input piped in.
program=$1
greeting='Type, and Ctrl-D to end:'
directory=$(mktemp -d) || exit 1
trap 'rm -rf "$directory"' EXIT

fail() {
    echo "FAILED: $*" >&2
    exit 1
}

if ! (exec 3<>/dev/kvm) 2>/dev/null; then
    # It reports that in one line and fails.
    "$program" </dev/null >"$directory/out" 2>"$directory/err" && fail "it ran without /dev/kvm"
    [ "$(wc -l <"$directory/err")" -eq 1 ] || fail "the error is not one line"
    echo "SKIPPED: $(cat "$directory/err")"
    exit 0
fi

# expect TEXT: the program's whole output, given the text on stdin, is the greeting and TEXT in upper case.
expect() {
    { echo "$greeting" && printf '%s' "$1" | tr 'a-z' 'A-Z'; } >"$directory/expected"
    printf '%s' "$1" | timeout 30 "$program" >"$directory/out" 2>"$directory/err" || fail "exit code $?"
    cmp "$directory/expected" "$directory/out" || fail "other output than expected"
    [ ! -s "$directory/err" ] || fail "stderr: $(cat "$directory/err")"
}

expect ''
expect 'Hello, {world}! @`[z'
# Much more input than the UART's FIFO holds.
expect "$(seq 1 2000 | sed 's/$/ lines of text/')"

# An output that cannot be written is an error, not a loop.
if [ -w /dev/full ]; then
    echo x | timeout 30 "$program" >/dev/full 2>"$directory/err" && fail "it wrote to a full device"
    [ "$(wc -l <"$directory/err")" -eq 1 ] || fail "the error is not one line"
fi
# An input that cannot be read is an error as well.
timeout 30 "$program" <&- >/dev/null 2>"$directory/err" && fail "it read from a closed input"
[ "$(wc -l <"$directory/err")" -eq 1 ] || fail "the error is not one line"
echo "passed"
