# Restores the kernel's settings before the package is removed, while there is a `cdh` that can.
#
# A chroot or a container shares `core_pattern` with its host. If the handler or the directory of the socket that it
# names does not exist here, it is the host's, and is not touched. There is no percent sign here: rpm would expand it.
restore_node() {
    read -r pattern _ 2> /dev/null < /proc/sys/kernel/core_pattern || return 0
    case $pattern in
    '|'/*/cdh-handler) [ -e "${pattern#|}" ] || return 0 ;;
    @/*) [ -d "$(dirname "${pattern#@}")" ] || return 0 ;;
    esac
    # The package's own program, with the configuration of its unit and nothing of the caller's environment.
    env -i PATH="$PATH" /usr/bin/cdh agent uninstall --wait-for-agent 90 && return 0
    echo "error: cdh cannot restore the kernel's settings; it stays installed. Run: cdh agent check-config" >&2
    return 1
}
