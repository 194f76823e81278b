# Restores the kernel's settings before the package is removed, while there is a `cdh` that can.
#
# A chroot or a container shares `core_pattern` with its host. If the handler that it names does not exist here, it
# is the host's, and is not touched.
restore_node() {
    pattern=$(cat /proc/sys/kernel/core_pattern 2>/dev/null) || return 0
    handler=${pattern#|}
    handler=${handler%% *}
    case $handler in
    /*/cdh-handler) [ -e "$handler" ] || return 0 ;;
    esac
    cdh agent uninstall --wait-for-agent 90 && return 0
    echo "error: cdh cannot restore the kernel's settings; it stays installed. Run: cdh agent doctor" >&2
    return 1
}
