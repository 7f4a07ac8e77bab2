#!/bin/sh
# gpu.py in several processes on one GPU, under JAX.
#
#   benchmarks/gpu.sh times OUT [NETWORK ...]
#   benchmarks/gpu.sh cells OUT DATA_DIR MINUTES WORKERS 'CELL ... [OPTION ...]' ...
#
# "times" writes the step times into OUT, in float32, and into OUT/tensorfloat32: its processes, one for each
# network and precision, compile side by side and measure one after another. "cells" trains cells for so many
# minutes: every worker goes through the lists of cells one after the other, and takes what no other has.
set -uf
here=$(dirname "$0")
what=$1 out=$2
shift 2
export KERAS_BACKEND=jax JAX_PLATFORMS="${JAX_PLATFORMS:-cuda,cpu}" XLA_PYTHON_CLIENT_PREALLOCATE=false
# What one process has compiled the others read.
export JAX_COMPILATION_CACHE_DIR="${JAX_COMPILATION_CACHE_DIR:-/tmp/jax-compiled}"
export JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS=0 JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES=-1

step_times() {
    [ $# -gt 0 ] || set -- mnist-fc mnist-conv mnist-lc cifar10-fc cifar10-conv cifar10-lc
    mkdir -p "$out/logs"
    for network; do
        step_time "$network" highest "$out" &
        step_time "$network" tensorfloat32 "$out/tensorfloat32" &
    done
    wait
    cat "$out/gpu.md" "$out/tensorfloat32/gpu.md"
}

step_time() {
    export JAX_DEFAULT_MATMUL_PRECISION="$2"
    gpu --networks "$1" --cells --alone "$out/alone" --minutes 60 --out "$3" >"$out/logs/$1-$2" 2>&1
}

worker() {
    for cells; do
        left=$(awk "BEGIN { print ($end - $(date +%s)) / 60 }")
        # shellcheck disable=SC2086
        gpu --data-dir "$data" --networks --minutes "$left" --out "$out" --cells $cells
    done
}

gpu() {
    python3 -W ignore "$here/gpu.py" "$@"
}

if [ "$what" = times ]; then
    step_times "$@"
else
    data=$1 end=$(awk "BEGIN { printf \"%d\", $(date +%s) + 60 * $2 }") workers=$3
    shift 3
    mkdir -p "$out/logs"
    for number in $(seq "$workers"); do
        worker "$@" >"$out/logs/$number" 2>&1 &
    done
    wait
    cat "$out/gpu.md"
fi
