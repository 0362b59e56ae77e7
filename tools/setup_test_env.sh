#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-only
# Makes a Debian machine ready for the whole test suite: the real BPF clients, the kernel's
# file systems, and the kernel headers where BCC looks for them. Run as root, as often as you like.
#
#   tools/setup_test_env.sh          what the tests need
#   tools/setup_test_env.sh --vm     also what tools/vm.py needs to boot another kernel
#   tools/setup_test_env.sh --tables also ClickHouse (chDB) and Spark, 1.4 GB, for docs/many-traces.md;
#                                    with CI=true in any case, if they come in time
#
# The first time it takes a minute or more, most of it the download; after that seconds.
#
# What it cannot do (no root, no apt, a mount that is refused) it says, and then exits 0, because
# the tests that would need it skip with a reason. With CI=true it exits 1: there nothing may skip.
set -uo pipefail

case "${1:-}" in
-h | --help)
    sed -n '3,/^set /s/^# \{0,1\}//p' "$0"
    exit 0
    ;;
esac

# One row per package: the reason it is here.
packages=(
    python3-venv        # lets `python3 -m venv` work on a bare Debian
    python3-pip         # the README's commands call it
    python3-bpfcc       # BCC, a tracee
    bpftrace            # a tracee
    bpftool             # a tracee, and the authority on programs' tags and listings
    libbpf-tools        # opensnoop, execsnoop and friends: tracees
    linux-perf          # `perf record`, a tracee
    chromium            # opens the pages of bpfstrace report, without a window
    chromium-driver     # tells it what to do
    protobuf-compiler   # protoc --decode_raw, a second opinion on Perfetto's files
    less                # -R shows our colours
    strace              # an independent opinion on the same syscalls
    clang llvm          # compile and disassemble BPF objects; llvm-objdump, llvm-strip
    libbpf-dev          # bpf/bpf_helpers.h for those objects
    linux-libc-dev      # linux/bpf.h
    binutils            # links the i386 tracee; c++filt, an opinion on names of C++
    g++                 # a program of C++, whose names stand in stacks
    iproute2            # attaches XDP programs; network namespaces
    util-linux          # setpriv, unshare
    tmux                # a terminal that can be looked at, for the browser in it
    man-db groff-base   # read the man pages as their readers do
    mandoc              # a second opinion on them
    zsh fish            # complete bpfstrace's options, as bash does
    jq                  # a recipe of docs/cookbook.md
    debhelper dh-python # build the Debian package, and so do:
    pybuild-plugin-pyproject python3-all python3-setuptools
    lintian             # judges it
    python3-construct python3-ptrace python3-rich # what it depends on
    kmod                # depmod for the virtual machine's kernel
)
# CPython's own tests, which run traced and have to end as untraced.
python=/usr/bin/python3
[ -x $python ] && packages+=("lib$($python -c 'import sys; print("python%d.%d" % sys.version_info[:2])')-testsuite")
vm_packages=(
    qemu-system-x86     # the virtual machine
    qemu-system-arm     # the same with an aarch64 processor
    busybox-static      # the virtual machine's first process, when the host has no better one
)
table_packages=(
    default-jre-headless # Spark runs on it
)
headers_fallback=linux-headers-$(dpkg --print-architecture 2>/dev/null || echo amd64)

[ "${1:-}" = "--vm" ] && packages+=("${vm_packages[@]}")
tables=0
[ "${1:-}" = "--tables" ] || [ "${CI:-}" = "true" ] && tables=1
[ $tables = 1 ] && packages+=("${table_packages[@]}")
problems=()
note() { echo "setup_test_env: $*"; }
problem() { problems+=("$*"); note "NOT DONE: $*"; }

finish() {
    if [ ${#problems[@]} -eq 0 ]; then
        note "ready"
        exit 0
    fi
    note "${#problems[@]} thing(s) not done; tests that need them will skip"
    [ "${CI:-}" = "true" ] && exit 1
    exit 0
}

# -- packages ------------------------------------------------------------------------------------

installed() { dpkg-query -W -f '${db:Status-Status}\n' "$1" 2>/dev/null | grep -qx installed; }

install_packages() {
    local wanted=() name
    for name in "${packages[@]}"; do
        installed "$name" || wanted+=("$name")
    done
    # BCC compiles against kernel headers. Those of the running kernel are best; a kernel that
    # Debian did not build has none, and then those of Debian's own kernel do for simple programs.
    local need_headers=0
    [ -e "/lib/modules/$(uname -r)/build/Makefile" ] || need_headers=1
    if [ ${#wanted[@]} -eq 0 ] && { [ $need_headers = 0 ] || newest_headers >/dev/null; }; then
        note "all packages are installed"
        return
    fi
    export DEBIAN_FRONTEND=noninteractive
    local apt=(apt-get -o DPkg::Lock::Timeout=300 -o Acquire::Retries=3)
    # A third party's broken repository makes `update` fail although Debian's own was read.
    "${apt[@]}" update -qq || note "apt-get update had errors; going on with what it did read"
    if [ $need_headers = 1 ] && ! newest_headers >/dev/null; then
        if apt-cache show "linux-headers-$(uname -r)" >/dev/null 2>&1; then
            wanted+=("linux-headers-$(uname -r)")
        else
            wanted+=("$headers_fallback")
        fi
    fi
    [ ${#wanted[@]} -eq 0 ] && return
    note "installing: ${wanted[*]}"
    "${apt[@]}" install -y -qq --no-install-recommends "${wanted[@]}" </dev/null >/dev/null && return
    # One package that this release lacks must not cost us all the others.
    for name in "${wanted[@]}"; do
        "${apt[@]}" install -y -qq --no-install-recommends "$name" </dev/null >/dev/null ||
            problem "package $name could not be installed"
    done
}

# -- engines for tables --------------------------------------------------------------------------

table_engines=${XDG_CACHE_HOME:-${HOME:-/root}/.cache}/bpfstrace/engines
tables_limit=200 # seconds

# Neither is small, and nothing but one test needs them: a virtual environment of their own.
install_tables() {
    local python=$table_engines/bin/python
    "$python" -c 'import chdb, pyspark' 2>/dev/null && return
    mkdir -p "$table_engines" && python3 -m venv --without-pip "$table_engines" &&
        timeout "$tables_limit" python3 -m pip --python "$python" install -q --no-cache-dir \
            chdb-core pyspark && return
    rm -rf "$table_engines" # half of it is of no use
    return 1
}

# -- kernel headers for BCC ----------------------------------------------------------------------

# Prints the newest /usr/src/linux-headers-VERSION-FLAVOUR that has a -common folder beside it.
newest_headers() {
    local common headers
    for common in $(ls -d /usr/src/linux-headers-*-common 2>/dev/null | sort -Vr); do
        headers=${common%-common}-${headers_fallback#linux-headers-}
        [ -d "$headers" ] && echo "$headers" && return 0
    done
    return 1
}

link_headers() {
    local modules headers
    modules=/lib/modules/$(uname -r)
    if [ -e "$modules/build/Makefile" ]; then
        note "kernel headers: $(readlink -f "$modules/build")"
        return
    fi
    if ! headers=$(newest_headers); then
        problem "no kernel headers for BCC"
        return
    fi
    mkdir -p "$modules" &&
        ln -sfn "$headers" "$modules/build" &&
        ln -sfn "${headers%-*}-common" "$modules/source" ||
        { problem "cannot link $modules/build to $headers"; return; }
    note "kernel headers: $modules/build -> $headers"
}

# -- file systems --------------------------------------------------------------------------------

mount_at() { # type directory
    # fstype, not just "is a mount point": /sys/kernel/debug may be some other file system's.
    if grep -q "^[^ ]* $2 $1 " /proc/mounts; then
        note "$1 is mounted at $2"
    elif mkdir -p "$2" 2>/dev/null && mount -t "$1" "$1" "$2" 2>/dev/null; then
        note "mounted $1 at $2"
    else
        problem "cannot mount $1 at $2"
    fi
}

mount_filesystems() {
    mount_at tracefs /sys/kernel/tracing
    mount_at bpf /sys/fs/bpf
    mount_at debugfs /sys/kernel/debug # older clients look for tracefs below it
    if ! grep -q '^[^ ]* [^ ]* cgroup2 ' /proc/mounts; then
        mount_at cgroup2 /sys/fs/cgroup/unified
    fi
}

# ------------------------------------------------------------------------------------------------

if [ "$(id -u)" != 0 ]; then
    problem "not root: neither packages nor mounts (try: sudo $0)"
    finish
fi
if command -v apt-get >/dev/null; then
    install_packages
    [ $tables = 1 ] && { install_tables & tables=$!; }
    link_headers
else
    problem "no apt-get: install by hand what these are here: ${packages[*]}"
fi
mount_filesystems
if [ $tables != 0 ] && ! wait "$tables"; then
    note "ClickHouse and Spark did not come in time: a test of docs/many-traces.md will skip"
fi
finish
