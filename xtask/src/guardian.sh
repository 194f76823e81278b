# Waits for the end of its standard input, which is the end of a measurement, and puts the node in order.
#
# $1 $2 $3  fs.suid_dumpable, kernel.core_pattern and kernel.core_pipe_limit as they were
# $4        the measurement's directory
# $5        instances of the kernel's trace that were there before, as `:one:another:`
#
# Whoever ends by itself says `done` and has put away its own directory and processes; who was killed
# has not. Nobody else makes a `cdh-bench-…` or a new `cdh-…` meanwhile: we have the lock of the settings.
trap '' INT TERM HUP
end=
read -r end
printf '%s\n' "$1" > /proc/sys/fs/suid_dumpable
printf '%s\n' "$2" > /proc/sys/kernel/core_pattern
printf '%s\n' "$3" > /proc/sys/kernel/core_pipe_limit
place=$4
traces=$5

# Programs that run from the directory: those that crash, handlers, a daemon.
end_processes() {
    for process in /proc/[0-9]*; do
        case $(readlink "$process/exe") in
        "$place"/*)
            left=yes
            kill -9 "${process#/proc/}"
            ;;
        esac
    done
}

remove_cgroups() {
    for group in /sys/fs/cgroup/cdh-bench-* /sys/fs/cgroup/*/cdh-bench-*; do
        [ -d "$group" ] || continue
        left=yes
        # What is frozen does not die.
        [ -e "$group/freezer.state" ] && echo THAWED > "$group/freezer.state"
        [ -e "$group/cgroup.freeze" ] && echo 0 > "$group/cgroup.freeze"
        while read -r process; do
            kill -9 "$process"
        done < "$group/cgroup.procs"
        rmdir "$group"
    done
}

remove_traces() {
    for trace in /sys/kernel/tracing/instances/cdh-*; do
        [ -d "$trace" ] || continue
        name=${trace##*/}
        case $name in
        cdh-bench-*) ;;
        *) case $traces in *":$name:"*) continue ;; esac ;;
        esac
        left=yes
        echo 0 > "$trace/events/enable"
        rmdir "$trace"
    done
}

# The kernel lets go of a process, and of what it was in, a moment after its end.
tries=0
while [ "$tries" -lt 100 ]; do
    left=
    [ "$end" = done ] || end_processes
    remove_cgroups
    remove_traces
    [ -n "$left" ] || break
    tries=$((tries + 1))
    sleep 0.1
done

[ "$end" = done ] && exit
while read -r _ at _; do
    case $at in
    "$place"/*) umount -l "$at" ;;
    esac
done < /proc/mounts
rm -rf "$place"
