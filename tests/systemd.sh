#!/usr/bin/env bash
# The README's systemd section under a booted systemd: a Debian in a container, the archive, the units, keys, TLS, and what a service meets.
#
#   sudo tests/systemd.sh [FOLDER]      FOLDER (default build/systemd) keeps the Debian and the wheels for the next run
#
# Needs root, debootstrap and systemd-nspawn (Debian: debootstrap, systemd-container), and pip where it finds torch's CPU build.
# The container has no network but its own loopback. About six minutes the first time, three afterwards. Exits 1 if a check failed.
set -euo pipefail
cd "$(dirname "$0")/.."
work=$(realpath -m "${1:-build/systemd}")
root=$work/root
release=bookworm version=3.11 # of its Python
python=${PYTHON:-python3}
if [ -z "${PYTHON:-}" ] && [ -x .venv/bin/python ]; then python=.venv/bin/python; fi

for program in debootstrap systemd-nspawn nsenter; do
  command -v "$program" > /dev/null || { echo "tests/systemd.sh: $program is missing" >&2; exit 78; }
done
[ "$(id -u)" = 0 ] || { echo "tests/systemd.sh: needs root" >&2; exit 78; }

mkdir -p "$work/wheels"
if [ ! -e "$root/usr/lib/systemd/systemd" ]; then
  echo "making a Debian ($release) in $root"
  packages=systemd,systemd-sysv,dbus,python3,python3-venv,curl,procps
  debootstrap --variant=minbase --include="$packages" "$release" "$root" > "$work/debootstrap.log"
fi
echo "collecting what vsrv/locks/cpu.txt names"
"$python" -m pip download --quiet --no-deps --only-binary=:all: --python-version "$version" --require-hashes \
  -r vsrv/locks/cpu.txt -d "$work/wheels"
echo "building the archive"
"$python" build_zipapp.py > "$work/build.log"
install -m 644 dist/vsrv.pyz "$root/root/vsrv.pyz"
install -m 755 tests/service/steps.sh tests/service/load.py "$root/root/"

container=
finish() {
  [ -z "$container" ] || { kill "$container" 2> /dev/null || true; wait "$container" 2> /dev/null || true; }
}
trap finish EXIT
systemd-nspawn --quiet --directory="$root" --bind-ro="$work/wheels:/wheels" --private-network --register=no --keep-unit \
  --boot --console=pipe < /dev/null > "$work/boot.log" 2>&1 &
container=$!
inside() {
  nsenter --target "$(pgrep --parent "$container" | head -1)" --mount --uts --ipc --net --pid --cgroup -- \
    env -i PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin HOME=/root TERM=dumb "$@"
}
for _ in $(seq 60); do
  state=$(inside systemctl is-system-running 2> /dev/null || true)
  case $state in running | degraded) break ;; esac
  sleep 0.5
done
case $state in
  running | degraded) ;;
  *) echo "tests/systemd.sh: systemd has not booted (${state:-no answer}); see $work/boot.log" >&2; exit 1 ;;
esac
inside bash /root/steps.sh
