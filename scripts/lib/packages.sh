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

# install_packages PROGRAM PACKAGE...: installs the missing packages. Needs no network if none is missing. Ctrl-C ends a
# download; packages that are being unpacked are completed first, so that none is left half installed.
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
    # The password is asked for here, in the foreground, unless apt-get needs none.
    if [ ${#as_root[@]} -gt 0 ] && ! { sudo -n -v || sudo -n apt-get --version; } >/dev/null 2>&1 && ! sudo -v; then
        echo "$program: sudo refused, so that these packages cannot be installed: ${missing[*]}" >&2
        return 1
    fi
    local log updated status=0 say_so=(echo "$program: still installing")
    local apt_get=("${as_root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get -q -y -o DPkg::Lock::Timeout=600)
    log=$(mktemp) && updated=$(mktemp) || return 1
    trap 'rm -f "$log" "$updated"' EXIT
    install_missing || status=1
    trap - EXIT
    rm -f "$log" "$updated"
    return $status
}

# The rest of install_packages, with its variables.
install_missing() {
    # The package lists may be missing (a fresh container) or older than the mirror: then update and try
    # again. An earlier installation may have been interrupted half-way. If one of apt's sources cannot be used, the
    # others may have all that is needed.
    install_now && return
    if grep -q 'dpkg was interrupted' "$log"; then
        env --ignore-signal=INT "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive dpkg --configure -a </dev/null >"$log" 2>&1
    fi
    update_lists
    install_now && return
    local unknown hosts
    unknown=$(sed -nE -e "s/^E: Unable to locate package (.*)/\\1/p" \
        -e "s/^E: Package '([^']+)' has no installation candidate/\\1/p" "$log" | tr '\n' ' ')
    hosts=$(cat "$updated" "$log" | sed -nE -e "s/.*(Could not resolve|Temporary failure resolving) '([^']+)'.*/\\2/p" \
        -e 's/.*(Could not connect to|Cannot initiate the connection to|Unable to connect to) ([^ :]+).*/\2/p' | sort -u | tr '\n' ' ')
    if [ -n "$hosts" ]; then
        echo "$program: apt cannot reach ${hosts% } (is there a network?), and these packages are missing: ${missing[*]}" >&2
    elif [ -n "$unknown" ]; then
        echo "$program: apt's sources lack ${unknown% }; Debian 12 and its updates have all of these packages" >&2
    else
        cat "$log" >&2
        echo "$program: installing packages failed: ${missing[*]}" >&2
    fi
    return 1
}

install_now() {
    # Said explicitly, because whether a program in the background of a script ignores Ctrl-C depends on the traps.
    env --default-signal=INT "${apt_get[@]}" --download-only install --no-install-recommends "${missing[@]}" \
        </dev/null >"$log" 2>&1 &
    while_running $! "${say_so[@]}" >&2 || return
    local interrupted=
    trap 'interrupted=yes; echo "$program: the installation is completed first" >&2' INT
    env --ignore-signal=INT "${apt_get[@]}" install --no-install-recommends "${missing[@]}" </dev/null >"$log" 2>&1 &
    while_running $! "${say_so[@]}" >&2
    local status=$?
    trap - INT
    [ -z "$interrupted" ] || exit 130
    return $status
}

# Other programs may be updating the lists as well, such as the system itself after its start.
update_lists() {
    local limit=$((SECONDS + 600))
    while :; do
        env --default-signal=INT "${as_root[@]}" apt-get -q update </dev/null >"$updated" 2>&1 &
        while_running $! "${say_so[@]}" >&2
        grep -q 'Could not get lock' "$updated" && [ "$SECONDS" -lt "$limit" ] || return 0
        sleep 2
    done
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

# static_folder ROOT: prints where the static kvm_vmm is built: in the tree, or, if this user cannot write there, in the
# folder of the cache that belongs to this tree.
static_folder() {
    local folder=$1/build/static
    if mkdir -p "$folder" 2>/dev/null && [ -w "$folder" ]; then
        echo "$folder"
    else
        echo "${VMSUPERIO_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/vmsuperio}/build/$(printf %s "$1" | cksum | cut -d ' ' -f 1)"
    fi
}

# build_static PROGRAM ROOT: builds the static kvm_vmm and puts its path in $kvm_vmm.
build_static() {
    local program=$1 root=$2 build log status=0
    build=$(static_folder "$root")
    kvm_vmm=$build/examples/kvm_vmm/src/kvm_vmm
    if ! mkdir -p "$build" 2>/dev/null || ! { : >>"$build/.lock"; } 2>/dev/null; then
        echo "$program: cannot write to $build (VMSUPERIO_CACHE names another place)" >&2
        return 1
    fi
    log=$build/build.log
    # One at a time: two runs of a script may share the tree.
    exec 9>"$build/.lock"
    flock 9
    # The tree was copied or moved with what was built in it: that would build the other tree.
    if [ -f "$build/CMakeCache.txt" ] &&
        ! [ "$(sed -n 's/^CMAKE_HOME_DIRECTORY:INTERNAL=//p' "$build/CMakeCache.txt")" -ef "$root" ]; then
        rm -rf "$build/CMakeCache.txt" "$build/CMakeFiles" "$build/build.ninja" "$kvm_vmm"
    fi
    [ -x "$kvm_vmm" ] || echo "$program: building kvm_vmm" >&2
    {
        if [ ! -f "$build/build.ninja" ]; then
            cmake -S "$root" -B "$build" --preset static $(command -v ccache >/dev/null && echo -DCMAKE_CXX_COMPILER_LAUNCHER=ccache)
        fi && cmake --build "$build" --target kvm_vmm
    } </dev/null >"$log" 2>&1 || status=$?
    exec 9>&-
    if [ $status -ne 0 ]; then
        tail -n 30 "$log" >&2
        echo "$program: building kvm_vmm failed; the whole log is $log" >&2
        return 1
    fi
}
