# The first process of a host: what the host sees of the file system, until it is killed.
#   $1 the host's disk, $2 twill-cni, $3 what the kernel says that tells one boot from another
set -e
disk=$1
# Of the namespace outside: there this process has the pid that others know.
read -r pid _ </proc/self/stat
mount -t proc proc /proc
# Programs first: what is mounted next may hide where they are.
mkdir -p "$disk/bin" "$disk/net.d" "$disk/cni"
mount -t tmpfs tmpfs "$disk/bin"
cp "$2" "$disk/bin/flannel"
cp /usr/lib/cni/bridge /usr/lib/cni/host-local "$disk/bin"
for hidden in /etc /opt /run /var/lib; do mount -t tmpfs tmpfs "$hidden"; done
mkdir -p /etc/cni/net.d /opt/cni/bin /var/lib/cni
mount --bind "$disk/net.d" /etc/cni/net.d
mount --bind "$disk/bin" /opt/cni/bin
mount --bind "$disk/cni" /var/lib/cni
echo "$3" >/run/boot_id
mount --bind /run/boot_id /proc/sys/kernel/random/boot_id
echo "$pid" >"$disk/init.new"
mv "$disk/init.new" "$disk/init"
# The shell waits for whatever ends here.
while :; do sleep 3600; done
