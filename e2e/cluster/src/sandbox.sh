# Keeps one node's namespaces alive for as long as this script's standard input stays open, and removes what a
# node leaves behind: before it starts, because its last owner may have been killed, and when it has ended.
# Arguments: work folder, identity (names the cgroup and the link), process 1; without the last it only cleans.
work=$1 identity=$2 init=$3
mark="$work/.outrider-cluster"
trap '' INT TERM HUP

clean() {
    ip link delete "$identity" 2>/dev/null
    for group in $(find /sys/fs/cgroup -maxdepth 2 -type d -name "$identity"); do
        # The kernel frees the groups of ended processes with a short delay.
        for attempt in $(seq 50); do
            find "$group" -depth -type d -exec rmdir {} + 2>/dev/null
            [ -d "$group" ] || break
            sleep 0.1
        done
    done
    # The mark goes last: without it nothing here is ours to remove.
    [ -e "$mark" ] && find "$work" -mindepth 1 -maxdepth 1 ! -path "$mark" -exec rm -rf --one-file-system {} +
    rm -f "$mark"
    [ ! -e "$work" ] || rmdir "$work"
}

clean || exit 1
[ -n "$init" ] || exit 0
mkdir -p "$work" && touch "$mark"
mkdir -p "$work/run" "$work/lib" "$work/log" "$work/tmp" "$work/sysctl"

# The kubelet sets these for the whole machine. It finds them set already, and the machine keeps its own.
for setting in vm/overcommit_memory=1 vm/panic_on_oom=0 kernel/panic=10 kernel/panic_on_oops=1 \
    kernel/keys/root_maxkeys=1000000 kernel/keys/root_maxbytes=25000000; do
    echo "${setting#*=}" >"$work/sysctl/$(echo "${setting%=*}" | tr / .)"
done

unshare --mount --net --pid --fork --kill-child -- sh -ec '
    work=$1
    # Still the proc of the machine: this is the number that the owner knows this process by.
    read -r number rest </proc/self/stat
    mount -t proc proc /proc
    for file in "$work"/sysctl/*; do
        mount --bind "$file" "/proc/sys/$(basename "$file" | tr . /)"
    done
    mount --bind "$work/run" /run
    mount --bind "$work/lib" /var/lib
    mount --bind "$work/log" /var/log
    mount --make-rshared /
    ip link set lo up
    echo "$number"
    exec "$2" stdin
' node "$work" "$init"
clean
