# What tests/vm/test_debian.py looks at: each part begins with a line "== NAME". vm.debian says what `as_user` is.
exec 2>&1
part() { echo "== $1"; }
o() { as_user orlop "$@"; }
run="o run --network none"
rows() { python3 -c '
import json, sys
for row in json.load(sys.stdin):
    print(row["feature"] + ":", row["state"] + ":", row["why"])'; }
state() { o inspect -f '{{.Name}} {{.State.Status}} {{.State.Pid}} {{.State.StartedAt}}' "$@"; }
cgroup() { echo /sys/fs/cgroup$(cut -d: -f3 /proc/$1/cgroup); }

if [ $BOOT = 1 ]; then
part machine
systemctl is-system-running --wait; cat /proc/self/cgroup /sys/module/apparmor/parameters/enabled
as_user systemctl --user is-system-running --wait
cat /sys/fs/cgroup/user.slice/user-1000.slice/user@1000.service/cgroup.controllers

part "no delegation"
plain() { as_user ORLOP_RUN=/run/user/1000/plain ORLOP_ROOT=/home/tester/plain orlop "$@"; }
plain run --rm --network none -m 64m --rootfs / true
echo $?
plain engine stop >/dev/null

units=/home/tester/.config/systemd/user
as_user mkdir -p $units
for kind in service socket; do as_user cp /orlop/docs/systemd/orlop-user.$kind $units/orlop.$kind; done
as_user systemctl --user daemon-reload
as_user systemctl --user --quiet enable --now orlop.socket orlop.service
as_user cp /orlop/.job/small.tar /home/tester
o import /home/tester/small.tar small >/dev/null
part service
$run -d --name one --restart always -m 64m --memory-swap 64m --cpus 0.5 --pids-limit 20 small sleep 10000
own=$(cgroup $(o inspect -f '{{.State.Pid}}' one))
echo ${own#/sys/fs/cgroup}; stat -c %U $own
(cd $own && cat memory.max memory.swap.max cpu.max pids.max)
as_user systemctl --user is-active orlop.service

part freeze
o pause one; cat $own/cgroup.freeze; o unpause one; cat $own/cgroup.freeze

part systemd
# Who runs below a service of systemd's asks systemd for what runs outside, or raises its own limit.
attack='for p in dbus/system_bus_socket systemd/private systemd/notify user/1000/bus user/1000/systemd/private; do
[ -e /run/$p ] && echo /run/$p; done
env | grep -E "BUS|NOTIFY|RUNTIME|INVOCATION|JOURNAL|LISTEN"
export XDG_RUNTIME_DIR=/run/user/1000 DBUS_SESSION_BUS_ADDRESS=unix:path=/run/user/1000/bus
for to in --user --system; do /usr/bin/systemd-run $to --quiet --wait touch /home/tester/escaped 2>&1; done
echo max >/sys/fs/cgroup/memory.max && echo raised
echo $$ >/sys/fs/cgroup/../cgroup.procs && echo left
mkdir /sys/fs/cgroup/mine && echo made'
usr="-v /usr:/usr:ro -v /usr/lib:/lib:ro -v /usr/lib64:/lib64:ro"
o run --rm --network host -m 64m $usr small sh -c "$attack"; ls /home/tester/escaped
part "systemd and writable cgroups"
o run --rm --network host -m 64m --security-opt writable-cgroups=true $usr small sh -c "$attack"; ls /home/tester/escaped

if [ "$LONG" ]; then
part pids
$run --rm --pids-limit 5 small sh -c 'for n in 1 2 3 4 5 6; do sleep 9 & done; echo forked'
echo $?
fi

part oom
$run -d --name hog -m 16m --memory-swap 16m small dd if=/dev/zero of=/dev/null bs=64M count=1
o wait hog; o why hog

part doctor
o doctor --format json | rows
orlop doctor --fix --user tester >/dev/null

run="orlop run --rm --network none"
orlop import /orlop/.job/small.tar small >/dev/null
part apparmor
attempts='cat /proc/self/attr/current
echo 1 >/proc/sys/kernel/sysrq && echo written
mount -t tmpfs none /tmp && echo mounted'
powers="--cap-add SYS_ADMIN --security-opt seccomp=unconfined --security-opt systempaths=unconfined"
$run $powers small sh -c "$attempts"
dmesg | grep -o 'apparmor="DENIED" operation="open" .*sysrq"'
part "apparmor unconfined"
$run $powers --security-opt apparmor=unconfined small sh -c "$attempts"
if [ "$LONG" ]; then
part "apparmor unknown"
$run --security-opt apparmor=nobodys small true; echo $?
part "apparmor exec"
orlop run -d --name confined --network none small sleep 1000 >/dev/null
orlop exec confined cat /proc/self/attr/current; orlop exec --privileged confined cat /proc/self/attr/current
orlop inspect -f '{{.AppArmorProfile}}' confined
orlop audit confined | grep -o "AppArmor's profile .*"
orlop stop -t 1 confined; orlop rm confined >/dev/null
part "apparmor of a user"
o run --rm --network none --security-opt apparmor=orlop-default small sh -c "$attempts" 2>&1 | grep -v WARNING
o run --rm --network none --security-opt apparmor=nobodys small true 2>&1 | grep -o 'label nobodys: No such file or directory'
fi
part userns
# Of id-mapped layers: this kernel's overlayfs takes them from mounts that are attached somewhere alone.
$run --userns auto small sh -c 'echo mine >/tmp/mine && cat /tmp/mine && cat /proc/self/uid_map'
$run --userns keep-id small sh -c 'echo mine >/bin/mine && cat /bin/mine'
part devices
# /dev/fuse: without the rule it is no container's, and whoever has the node may open it.
$run --device-cgroup-rule 'c 10:229 r' small sh -c 'mknod /tmp/fuse c 10 229
dd if=/tmp/fuse of=/dev/null count=0 2>/dev/null && echo opened to read
true 2>/dev/null >/tmp/fuse && echo opened to write || echo no writing' 2>/dev/null
orlop engine stop >/dev/null

o run -d --network none --name stem --restart unless-stopped small sleep 10000 >/dev/null
o run -d --network none --name leaf --restart always --depends-on stem small sleep 10000 >/dev/null
o run -d --network none --name off --restart unless-stopped small sleep 10000 >/dev/null
o run -d --network none --name no small sleep 10000 >/dev/null
o stop -t 0 off >/dev/null
systemctl reboot
sleep 1000
fi

part "after reboot"
for n in $(seq 60); do [ $(o ps -q | wc -l) = 3 ] && break; sleep 1; done
state one leaf stem off no | while read name status pid started; do echo $name $status; done
state stem leaf | sort -k 4 | while read name status pid started; do echo $name; done
cat $(cgroup $(o inspect -f '{{.State.Pid}}' one))/memory.max
part "doctor after reboot"
o doctor --format json | rows
part end
