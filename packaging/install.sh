#!/bin/sh
# Installs cdh from a release, after comparing the archive with the release's SHA-256 sums.
#
#   sh install.sh [--url URL] [--prefix DIR] [--signers FILE]
#
#   --url URL       where the files of the release are: https://…, or a directory
#   --prefix DIR    where to install (default /usr/local)
#   --signers FILE  also check the signature of the sums, against this file of allowed signers (ssh-keygen(1))
#
# It installs programs, man pages and completions. It does not change the kernel's settings: `cdh agent install` does.
set -eu
umask 022

version=@version@
url='@url@'
prefix=/usr/local
signers=

fail() {
    echo "error: $*" >&2
    exit 1
}

download() {
    case $url in
    http://* | https://*)
        if command -v curl > /dev/null; then
            # A redirect must not lead away from https.
            case $url in https://*) only='=https' ;; *) only='=http,https' ;; esac
            curl --fail --silent --show-error --location --proto-redir "$only" --output "$2" "$url/$1" ||
                fail "cannot download $url/$1"
        elif command -v wget > /dev/null; then
            wget --quiet --output-document "$2" "$url/$1" || fail "cannot download $url/$1"
        else
            fail "install curl or wget"
        fi
        ;;
    *) cp "$url/$1" "$2" || fail "cannot read $url/$1" ;;
    esac
}

main() {
    while [ $# -gt 0 ]; do
        case $1 in
        --url | --prefix | --signers)
            [ $# -gt 1 ] || fail "$1 needs a value"
            case $1 in
            --url) url=${2%/} ;;
            --prefix) prefix=$2 ;;
            --signers) signers=$2 ;;
            esac
            shift 2
            ;;
        *) fail "unknown argument \`$1\`; known are --url, --prefix and --signers" ;;
        esac
    done
    [ -n "$url" ] || fail "name the address of the release with --url"
    [ "$(uname -s)" = Linux ] || fail "cdh runs on Linux only"
    case $(uname -m) in
    x86_64 | amd64) target=x86_64-unknown-linux-gnu ;;
    aarch64 | arm64) target=aarch64-unknown-linux-gnu ;;
    *) fail "there is no cdh for $(uname -m)" ;;
    esac
    name=cdh-$version-$target
    work=$(mktemp -d)
    trap 'rm -rf "$work"' EXIT
    trap 'exit 130' INT TERM

    download SHA256SUMS "$work/SHA256SUMS"
    if [ -n "$signers" ]; then
        download SHA256SUMS.sig "$work/SHA256SUMS.sig"
        ssh-keygen -Y verify -q -f "$signers" -I cdh -n cdh-release -s "$work/SHA256SUMS.sig" \
            < "$work/SHA256SUMS" > /dev/null || fail "the signature of SHA256SUMS is not valid"
    fi
    expected=$(awk -v name="$name.tar.gz" '$2 == name {print $1}' "$work/SHA256SUMS")
    [ -n "$expected" ] || fail "the release has no $name.tar.gz"
    download "$name.tar.gz" "$work/$name.tar.gz"
    actual=$(sha256sum "$work/$name.tar.gz" | cut -d ' ' -f 1)
    [ "$expected" = "$actual" ] ||
        fail "$name.tar.gz has SHA-256 $actual, the release says $expected: nothing was installed"

    mkdir -p "$prefix" && [ -w "$prefix" ] || fail "cannot write to $prefix: run as root, or choose another --prefix"
    tar -xzf "$work/$name.tar.gz" -C "$work"
    # Renamed into place, because a program that runs cannot be overwritten.
    (cd "$work/$name" && find . -type f) | while read -r file; do
        mkdir -p "$prefix/$(dirname "$file")"
        cp -p "$work/$name/$file" "$prefix/$file.new"
        mv -f "$prefix/$file.new" "$prefix/$file"
    done
    echo "installed cdh $version in $prefix"
    case :$PATH: in
    *":$prefix/bin:"*) ;;
    *) echo "next: add $prefix/bin to PATH" ;;
    esac
    echo "next: on a node, capture crashes with \`cdh agent install\`; on a workstation, list dumps with \`cdh --store URL ls\`"
}

# Everything is read before anything runs: a download that is cut installs nothing.
main "$@"
