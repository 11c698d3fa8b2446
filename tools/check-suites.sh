# SPDX-License-Identifier: GPL-2.0-or-later
# What ./check runs. Each suite is one line; a suite's exit status is its verdict.

TEST_PACKAGES="libcmocka-dev libzydis-dev clang libclang-rt-14-dev qemu-system-x86 qemu-utils python3 procps iproute2 util-linux acpica-tools lz4 binutils"

prepare() {
    # shellcheck disable=SC2086
    install_packages $BUILD_PACKAGES $GUEST_PACKAGES $TEST_PACKAGES
}

build_plain() { build_tree "$ROOT/build" -Dtests=enabled; }
build_asan() { build_tree "$ROOT/build-asan" -Dtests=enabled -Db_sanitize=address,undefined -Db_lundef=false --buildtype=debugoptimized; }
build_clang() { CC=clang build_tree "$ROOT/build-clang" -Dtests=enabled; }

# meson_suite DIR SUITE...: runs what is registered; nothing registered is a failure, not a pass.
meson_suite() {
    local dir=$1 s
    local args=()
    shift
    for s in "$@"; do args+=(--suite "$s"); done
    meson test -C "$dir" --no-rebuild --list "${args[@]}" 2>/dev/null | grep -q " / " || { say "no tests in $dir: $*"; return 1; }
    meson test -C "$dir" --no-rebuild --print-errorlogs --timeout-multiplier 10 "${args[@]}" >&2
}

san_env() { ASAN_OPTIONS=detect_leaks=1:abort_on_error=0 UBSAN_OPTIONS=halt_on_error=1:print_stacktrace=1 "$@"; }

guest_files() { fetch_kernel && make_initrd && make_vmlinux; }

# Every instruction of the kernel as Zydis decodes it.
decode_kernel() {
    fetch_kernel && make_vmlinux && "$ROOT/build/tests/engine/soft/decode/test-decode-binaries" "$VMLINUX" >&2
}

run_quick() {
    suite packages prepare
    suite build build_plain
    suite unit meson_suite "$ROOT/build" quick
    suite guests meson_suite "$ROOT/build" guest
}

run_check() {
    suite packages prepare
    suite build build_plain
    suite unit meson_suite "$ROOT/build" quick
    suite guests meson_suite "$ROOT/build" guest
    suite differential meson_suite "$ROOT/build" check
    suite build-asan build_asan
    suite unit-asan san_env meson_suite "$ROOT/build-asan" quick
    suite guests-asan san_env meson_suite "$ROOT/build-asan" guest
    suite build-clang build_clang
    suite unit-clang meson_suite "$ROOT/build-clang" quick
    suite guests-clang meson_suite "$ROOT/build-clang" guest
    suite guest-files guest_files
    suite decode-kernel decode_kernel
    suite linux-asan env LODGE_BUILD="$ROOT/build-asan" "$ROOT/tests/e2e/run" linux_boots_with_2_cpus
    suite e2e "$ROOT/tests/e2e/run" check
    suite quickstart quickstart_intro
    suite fuzz "$ROOT/tests/fuzz/run" 5
}

# As a new user without a terminal: the guest introduces itself and powers off.
quickstart_intro() {
    local out
    out=$("$ROOT/quickstart" < /dev/null 2>&1) || { say "$out"; return 1; }
    say "$out"
    grep -q '^guest: Linux 6' <<< "$out" && grep -q '^address: 10\.0\.2\.' <<< "$out"
}

full_pieces() { printf '%s\n' hostdiff fuzz e2e debian; }

run_full() {
    local piece
    [ "${1:-}" = list ] && { full_pieces; exit 0; }
    [ $# -gt 0 ] || set -- $(full_pieces)
    suite packages prepare
    suite build build_plain
    for piece in "$@"; do
        case $piece in
        hostdiff) suite hostdiff meson_suite "$ROOT/build" full ;;
        fuzz) suite fuzz "$ROOT/tests/fuzz/run" 60 ;;
        e2e) suite guest-files guest_files; suite e2e "$ROOT/tests/e2e/run" full ;;
        debian) suite debian "$ROOT/tests/e2e/run" debian ;;
        *) die "no piece '$piece': $(full_pieces | tr '\n' ' ')" ;;
        esac
    done
}
