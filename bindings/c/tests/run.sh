#!/usr/bin/env bash
# Installs the library into a folder of its own, and tests it from C and C++ as its users have it: by
# pkg-config, shared and static, with sanitizers, on the golden vectors; and the example.
#
#     bash bindings/c/tests/run.sh        # needs cargo-c, pkg-config, cc, c++, make, cmake
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

fail() {
    echo "bindings/c/tests/run.sh: $*" >&2
    exit 1
}

root=$PWD/../..
target=${CARGO_TARGET_DIR:-$root/target}
mkdir -p "$target/c"
work=$(cd "$target/c" && pwd)
prefix=$work/prefix
rm -rf "$work"
mkdir -p "$prefix" "$work/golden"

cargo cinstall --release --prefix "$prefix" --libdir lib
cmp include/adamant.h "$prefix/include/adamant.h"
export PKG_CONFIG_PATH=$prefix/lib/pkgconfig
version=$(pkg-config --modversion adamant)
grep -qx "version = \"$version\"" Cargo.toml || fail "adamant.pc is of version $version"

library=$prefix/lib/libadamant.so
others=$(nm -D --defined-only "$library" | awk '$3 !~ /^adamant_/ { print $3 }')
[ -z "$others" ] || fail "the library exports, too: $others"
declared=$(grep -oE '\badamant_[a-z0-9_]+\(' include/adamant.h | tr -d '(' | sort -u)
exported=$(nm -D --defined-only "$library" | awk '{ print $3 }' | sort -u)
for name in $exported; do
    grep -qx "$name" <<<"$declared" || fail "$name is exported, but not in the header"
done
strip -o "$work/stripped.so" "$library"
bytes=$(stat -c %s "$work/stripped.so")
echo "libadamant.so, stripped: $bytes bytes"
# 18 optimizers, of some 200 KB each.
[ "$bytes" -lt 4500000 ] || fail "the stripped library has 4.5 MB or more"

(cd "$root" && ADAMANT_GOLDEN_WORDS=$work/golden cargo test --test suite golden::)
golden=("$work"/golden/*)
[ ${#golden[@]} -gt 20 ] || fail "there are only ${#golden[@]} golden vectors"

# Only the pointers' size and what they are aligned to differ: no library is needed for that.
"${CC:-cc}" -std=c99 -fsyntax-only -x c tests/layout.h
"${CC:-cc}" -std=c99 -m32 -ffreestanding -fsyntax-only -x c tests/layout.h

warnings=(-Wall -Wextra -Werror -pedantic -O1 -g)
sanitizers=(-fsanitize=address,undefined -fno-sanitize-recover=all)
read -ra cflags <<<"$(pkg-config --cflags adamant)"
read -ra shared <<<"$(pkg-config --libs adamant)"
# The archive by its name, so that the linker cannot take the shared one; and what it needs itself.
read -ra needs <<<"$(pkg-config --libs --static adamant)"
static=("$prefix/lib/libadamant.a")
for need in "${needs[@]}"; do
    [ "$need" = -ladamant ] || static+=("$need")
done

# check NAME COMPILER...: builds a program and runs it.
check() {
    echo "$1: ${*:2}"
    "${@:2}" -o "$work/$1"
    LD_LIBRARY_PATH=$prefix/lib "$work/$1" "${golden[@]}"
    LD_LIBRARY_PATH=$prefix/lib ADAMANT_ISA=sse9 "$work/$1" unknown-isa
}

c=("${CC:-cc}" -std=c99 "${warnings[@]}" "${cflags[@]}" tests/check.c)
cc=("${CXX:-c++}" -std=c++17 "${warnings[@]}" "${cflags[@]}" tests/check.cc)
check c-shared "${c[@]}" "${shared[@]}" -pthread -lm
check c-static "${c[@]}" "${static[@]}" -pthread -lm
check c-sanitized "${c[@]}" "${sanitizers[@]}" "${static[@]}" -pthread -lm
check cc-shared "${cc[@]}" "${shared[@]}" -pthread
check cc-static "${cc[@]}" "${static[@]}" -pthread
check cc-sanitized "${cc[@]}" "${sanitizers[@]}" "${shared[@]}" -pthread
# C23, if the compiler has it, where the enums of the header have a type.
if "${CC:-cc}" -std=c2x -E - </dev/null >/dev/null 2>&1; then
    check c23-shared "${c[@]}" -std=c2x "${shared[@]}" -pthread -lm
fi

# The program of README.md, which finds the library by its rpath, by a folder of its own, or has it in it.
smallest=$work/smallest
mkdir -p "$smallest/beside"
awk '/^```c$/ { on = 1; next } /^```$/ { on = 0 } on' README.md >"$smallest/smallest.c"
expected='0.899 2.098 2.897 4.096'
small=("${CC:-cc}" -std=c99 -Wall -Wextra -Werror -pedantic "$smallest/smallest.c" "${cflags[@]}")
"${small[@]}" "${shared[@]}" -o "$smallest/lost"
if "$smallest/lost" 2>"$smallest/lost.txt"; then fail "a library of this name is installed already"; fi
grep -q "cannot open shared object file" "$smallest/lost.txt" || fail "the loader says something else"
"${small[@]}" "${shared[@]}" -Wl,-rpath,"$(pkg-config --variable=libdir adamant)" -o "$smallest/rpath"
"${small[@]}" "${shared[@]}" -Wl,-rpath,'$ORIGIN' -o "$smallest/beside/smallest"
cp -a "$prefix"/lib/libadamant.so* "$smallest/beside/"
"${small[@]}" "${static[@]}" -o "$smallest/static"
for program in rpath beside/smallest static; do
    found=$("$smallest/$program")
    [ "$found" = "$expected" ] || fail "README.md's program printed: $found"
done

# The example, by both of its build files, which tell the program where the library is.
make -C examples run BUILD="$work/example-make"
cmake -S examples -B "$work/example-cmake" >/dev/null
cmake --build "$work/example-cmake"
"$work/example-cmake/train"
echo "bindings/c/tests/run.sh: passed"
