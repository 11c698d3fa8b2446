# SPDX-License-Identifier: GPL-2.0-or-later
# Shell parts shared by quickstart, check and bench. Sourced with ROOT set to the top of the tree.

CACHE=${LODGE_CACHE:-$ROOT/.cache}
BUILD_PACKAGES="gcc libc6-dev meson ninja-build pkg-config libjson-c-dev libseccomp-dev libslirp-dev scdoc"
GUEST_PACKAGES="busybox-static cpio"
DEBIAN_PACKAGES="mmdebstrap e2fsprogs uidmap"

say() { printf '%s\n' "$*" >&2; }
die() { say "error: $*"; exit 1; }

# Runs a command up to four times with growing pauses: downloads fail for reasons of their own.
retry() {
    local n
    for n in 1 2 3 4; do
        "$@" && return 0
        [ "$n" = 4 ] || { say "retrying: $*"; sleep $((n * n)); }
    done
    return 1
}

as_root() {
    if [ "$(id -u)" = 0 ]; then "$@"
    elif command -v sudo >/dev/null; then sudo "$@"
    else die "installing packages needs root: run this as root or install sudo"; fi
}

# Names the packages of the list that are not installed.
missing_packages() {
    local p
    for p in "$@"; do
        [ "$(dpkg-query -W -f='${db:Status-Status}' "$p" 2>/dev/null)" = installed ] || printf '%s ' "$p"
    done
}

apt_update_once() {
    [ -n "${APT_UPDATED:-}" ] && return 0
    retry as_root apt-get -q update >&2 || die "apt-get update failed: is there a network?"
    APT_UPDATED=1
}

# Installs what is missing of the list. Services stay off: a policy that answers 101 stands while packages are set up.
install_packages() {
    local want policy=/usr/sbin/policy-rc.d made=
    want=$(missing_packages "$@")
    [ -z "$want" ] && return 0
    command -v apt-get >/dev/null || die "not a Debian system: install the equivalents of: $want"
    say "installing: $want"
    apt_update_once
    (
        # However this ends, the policy goes.
        trap '[ -n "$made" ] && as_root rm -f $policy' EXIT
        trap 'exit 130' INT TERM HUP
        if [ ! -e $policy ]; then
            made=1
            as_root sh -c "printf '#!/bin/sh\nexit 101\n' > $policy && chmod 755 $policy"
        fi
        # shellcheck disable=SC2086
        retry as_root env DEBIAN_FRONTEND=noninteractive apt-get -q -y --no-install-recommends install $want >&2
    )
    local rc=$?
    [ $rc = 0 ] || die "could not install: $want"
}

# Configures and builds: build_tree DIR [meson options]. Options that an existing tree was not made with are applied to it, so that
# ./check works after ./quickstart, which needs no test packages; a call without options takes the tree as it is.
build_tree() {
    local dir=$1
    shift
    if [ ! -e "$dir/build.ninja" ]; then
        meson setup "$dir" "$ROOT" --wrap-mode=nodownload "$@" >&2 || die "meson setup failed"
    elif [ $# -gt 0 ] && [ "$(cat "$dir/configured-with" 2>/dev/null)" != "$*" ]; then
        meson setup --reconfigure "$dir" "$ROOT" "$@" >&2 || die "meson setup failed"
    fi
    [ $# = 0 ] || printf '%s\n' "$*" > "$dir/configured-with"
    ninja -C "$dir" >&2 || die "the build failed"
}

# Downloads and unpacks a package without installing it, once a version: prints the directory.
# unpack_package NAME [ARCH]
unpack_package() {
    local name=$1 version dir tmp
    version=$(apt-cache policy "$name" 2>/dev/null | awk '/Candidate:/ { print $2 }')
    if [ -z "$version" ] || [ "$version" = "(none)" ]; then
        apt_update_once
        version=$(apt-cache policy "$name" | awk '/Candidate:/ { print $2 }')
    fi
    [ -n "$version" ] && [ "$version" != "(none)" ] || die "no package $name: check the sources of apt"
    dir=$CACHE/packages/$(printf '%s' "$name" | tr ':' '_')_$(printf '%s' "$version" | tr ':/' '__')
    if [ ! -e "$dir/.complete" ]; then
        say "fetching $name $version"
        tmp=$dir.tmp.$$
        rm -rf "$tmp" && mkdir -p "$tmp/deb" || die "cannot write in $CACHE"
        (cd "$tmp/deb" && retry apt-get -q -o APT::Sandbox::User=root download "$name" >&2) || die "could not download $name"
        dpkg -x "$tmp"/deb/*.deb "$tmp" || die "could not unpack $name"
        rm -rf "$tmp/deb"
        touch "$tmp/.complete"
        rm -rf "$dir"
        mv "$tmp" "$dir" || die "cannot write in $CACHE"
    fi
    printf '%s\n' "$dir"
}

# The kernel package behind a metapackage such as linux-image-cloud-amd64: prints its name.
kernel_package() {
    local name
    name=$(apt-cache depends "$1" 2>/dev/null | awk '/Depends: linux-image-/ { print $2; exit }')
    if [ -z "$name" ]; then
        apt_update_once
        name=$(apt-cache depends "$1" | awk '/Depends: linux-image-/ { print $2; exit }')
    fi
    [ -n "$name" ] || die "no kernel package behind $1"
    printf '%s\n' "$name"
}

# Sets KERNEL_DIR (unpacked package), KERNEL (vmlinuz) for a metapackage. What it was resolved to is kept until apt's lists change.
fetch_kernel() {
    local meta=${1:-linux-image-cloud-amd64} package known
    known=$CACHE/kernel-$(printf '%s' "$meta" | tr ':' '_')
    if [ "$known" -nt /var/lib/apt/lists ] && KERNEL_DIR=$(cat "$known") && [ -e "$KERNEL_DIR/.complete" ]; then
        :
    else
        package=$(kernel_package "$meta") || exit 1
        KERNEL_DIR=$(unpack_package "$package") || exit 1
        printf '%s\n' "$KERNEL_DIR" > "$known"
    fi
    KERNEL=$(ls "$KERNEL_DIR"/boot/vmlinuz-* | head -n 1)
    [ -e "$KERNEL" ] || die "no kernel in $KERNEL_DIR"
}

# The ELF kernel inside KERNEL: sets VMLINUX.
make_vmlinux() {
    VMLINUX=$CACHE/vmlinux-$(basename "$KERNEL")
    [ -e "$VMLINUX" ] && return 0
    "$ROOT/tools/guest/extract-vmlinux" "$KERNEL" "$VMLINUX.tmp" && mv "$VMLINUX.tmp" "$VMLINUX" || die "could not unpack the kernel"
}

# Initramfs of busybox, the virtio modules of KERNEL_DIR and tools/guest/init: sets INITRD. Made anew when an input is newer.
# make_initrd [FILE=NAME-IN-GUEST ...]: adds files.
make_initrd() {
    local key out
    key=$(basename "$KERNEL")
    [ $# -gt 0 ] && key=$key-$(printf '%s\n' "$@" | cksum | cut -d' ' -f1)
    out=$CACHE/initrd-$key.img
    local newest=$ROOT/tools/guest/init f
    for f in "$@"; do [ "${f%%=*}" -nt "$newest" ] && newest=${f%%=*}; done
    if [ ! -e "$out" ] || [ "$newest" -nt "$out" ] || [ "$ROOT/tools/guest/make-initrd" -nt "$out" ]; then
        mkdir -p "$CACHE"
        "$ROOT/tools/guest/make-initrd" "$KERNEL_DIR" "$out" "$@" || die "could not make the initramfs"
    fi
    INITRD=$out
}
