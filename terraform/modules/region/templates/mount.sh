# the data volume, attached a moment after the instance starts; formatted the first time only
useradd --system --home-dir /var/lib/shadowq --shell /usr/sbin/nologin shadowq || true
mkdir -p /var/lib/shadowq
device=""
while [ -z "$device" ]; do
  device=$(lsblk --noheadings --list --paths --output NAME,TYPE,MOUNTPOINTS | awk '$2 == "disk" && $3 == "" { print $1 }' |
    while read -r disk; do [ "$(lsblk --noheadings --output NAME "$disk" | wc -l)" -gt 1 ] || echo "$disk"; done | tail -n 1)
  [ -n "$device" ] || sleep 2
done
blkid "$device" || mkfs.ext4 -q "$device"
grep -q /var/lib/shadowq /etc/fstab || echo "UUID=$(blkid -s UUID -o value "$device") /var/lib/shadowq ext4 defaults,nofail 0 2" >>/etc/fstab
mount -a
chown shadowq:shadowq /var/lib/shadowq
