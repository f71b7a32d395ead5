# SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
# Sourced by scripts/boot and scripts/test: the Debian packages they need, and how missing ones are installed.
# shellcheck shell=bash

# Needed to build kvm_vmm and to boot a guest.
boot_packages=(
    busybox-static  # the guest's user space
    cmake
    g++
    libcli11-dev    # kvm_vmm's command line
    libseccomp-dev  # kvm_vmm's sandbox
    liburing-dev    # kvm_vmm's disks
    ninja-build
    nlohmann-json3-dev  # kvm_vmm's metrics
    pkgconf
    python3
)

# Needed if the CPU does not virtualize in hardware.
nested_packages=(
    qemu-system-x86
)

# Needed to make the disk image of scripts/boot --debian.
debian_packages=(
    e2fsprogs
    fakeroot
    mmdebstrap
)

# Needed to build and run the tests with GCC.
test_packages=(
    acpica-tools      # iasl disassembles our ACPI tables
    catch2
    debhelper         # builds our Debian packages
    dpkg-dev
    fakeroot
    git
    libbenchmark-dev
    lintian           # checks them
    lz4
    passt             # the network of a guest
    tmux              # a real terminal for kvm_vmm
    xz-utils
    zstd
)

# For the documentation site: scripts/docs, and the test that runs it.
docs_packages=(
    doxygen
)

# Needed in addition for the other stages of scripts/test.
clang_packages=(
    clang-19
    clang-format-19
    clang-tidy-19
    libclang-rt-19-dev  # sanitizers and libFuzzer
    zip                 # packs the seed corpora as OSS-Fuzz wants them
)

# For the stage platforms: the libraries on other machines, systems and standard libraries.
platform_packages=(
    g++-aarch64-linux-gnu
    g++-i686-linux-gnu
    g++-mingw-w64-x86-64-posix
    g++-s390x-linux-gnu
    libc++-19-dev
    libc++abi-19-dev
    qemu-user-static
    wine64
)

# while_running PID COMMAND ARGUMENT...: waits for a child and returns its status; runs the command every 15 seconds.
while_running() {
    local pid=$1 next=$((SECONDS + 15))
    shift
    while kill -0 "$pid" 2>/dev/null; do
        sleep 0.2
        if [ "$SECONDS" -ge "$next" ]; then
            "$@"
            next=$((SECONDS + 15))
        fi
    done
    wait "$pid"
}

# install_packages PROGRAM PACKAGE...: installs the missing packages. Needs no network if none is missing.
install_packages() {
    local program=$1 package missing=() as_root=()
    shift
    if ! command -v dpkg-query >/dev/null; then
        echo "$program: this is not Debian; these packages' programs must be there already: $*" >&2
        return
    fi
    for package; do
        [ "$(dpkg-query -W -f '${db:Status-Status}' "$package" 2>/dev/null)" = installed ] || missing+=("$package")
    done
    [ ${#missing[@]} -gt 0 ] || return 0
    if [ "$(id -u)" -ne 0 ]; then
        if ! command -v sudo >/dev/null; then
            echo "$program: these packages are missing, and without root or sudo cannot be installed: ${missing[*]}" >&2
            return 1
        fi
        as_root=(sudo)
    fi
    echo "$program: installing ${missing[*]}" >&2
    local log
    log=$(mktemp)
    local say_so=(echo "$program: still installing")
    # The package lists may be missing (a fresh container) or older than the mirror: then update and try
    # again. An earlier installation may have been interrupted half-way.
    if ! install_now "$log" "${missing[@]}"; then
        if grep -q 'dpkg was interrupted' "$log"; then
            "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive dpkg --configure -a </dev/null >"$log" 2>&1
        fi
        "${as_root[@]}" apt-get -q update </dev/null >"$log" 2>&1 &
        if ! while_running $! "${say_so[@]}" >&2 || ! install_now "$log" "${missing[@]}"; then
            cat "$log" >&2
            local unknown
            unknown=$(sed -nE -e "s/^E: Unable to locate package (.*)/\\1/p" \
                -e "s/^E: Package '([^']+)' has no installation candidate/\\1/p" "$log" | tr '\n' ' ')
            rm -f "$log"
            if [ -n "$unknown" ]; then
                echo "$program: apt's sources lack ${unknown% }; Debian 12 and its updates have all of these packages" >&2
            fi
            echo "$program: installing packages failed: ${missing[*]}" >&2
            return 1
        fi
    fi
    rm -f "$log"
}

install_now() {
    local log=$1
    shift
    "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get -q -y -o DPkg::Lock::Timeout=600 install \
        --no-install-recommends "$@" </dev/null >"$log" 2>&1 &
    while_running $! "${say_so[@]}" >&2
}

# why_nested: prints why kvm_vmm cannot run a kernel directly on this computer, or nothing if it can.
why_nested() {
    if ! grep -qwE 'vmx|svm' /proc/cpuinfo; then
        echo "this CPU has neither vmx nor svm"
    elif [ ! -e /dev/kvm ]; then
        echo "there is no /dev/kvm"
    elif ! (exec 3<>/dev/kvm) 2>/dev/null; then
        echo "/dev/kvm cannot be opened (is this user in the group kvm?)"
    fi
}

# build_static PROGRAM ROOT: builds the static kvm_vmm and puts its path in $kvm_vmm.
build_static() {
    local program=$1 root=$2 log status=0
    local build=$root/build/static
    kvm_vmm=$build/examples/kvm_vmm/src/kvm_vmm
    mkdir -p "$build" || return 1
    log=$build/build.log
    # One at a time: two runs of a script may share the tree.
    exec 9>"$build/.lock"
    flock 9
    [ -x "$kvm_vmm" ] || echo "$program: building kvm_vmm" >&2
    {
        if [ ! -f "$build/build.ninja" ]; then
            cmake -S "$root" --preset static $(command -v ccache >/dev/null && echo -DCMAKE_CXX_COMPILER_LAUNCHER=ccache)
        fi && cmake --build "$build" --target kvm_vmm
    } </dev/null >"$log" 2>&1 || status=$?
    exec 9>&-
    if [ $status -ne 0 ]; then
        tail -n 30 "$log" >&2
        echo "$program: building kvm_vmm failed; the whole log is $log" >&2
        return 1
    fi
}
