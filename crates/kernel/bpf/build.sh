#!/bin/sh
# Builds the objects that the crate carries.
#
#   crates/kernel/bpf/build.sh [DIRECTORY]
#
# Into bpf/obj, or into another directory, to compare. Needs clang-19 and llvm-19; another version makes other bytes. No header of
# this host is read, and no path of it gets into the objects.
set -eu

cd "$(dirname "$0")"
to=${1:-obj}
for source in *.bpf.c; do
    object=$to/${source%.bpf.c}.o
    # BTF is made from debug information (-g), which is dropped afterwards.
    clang-19 --target=bpfel -mcpu=v3 -std=gnu17 -O2 -g -nostdinc -Wall -Wextra -Werror \
        -ffile-compilation-dir=. -c "$source" -o "$object"
    llvm-strip-19 --strip-debug "$object"
done
