#!/usr/bin/env bash
# Runs inside the container of tests/systemd.sh: each line of its output is one thing that was seen, or was not.
set -uo pipefail
cd /root
failed=0
check() { # check WORDS COMMAND…
  local words=$1
  shift
  if "$@" > /tmp/said 2>&1; then echo "ok      $words"; else failed=1; echo "FAILED  $words"; sed 's/^/        /' /tmp/said | tail -12; fi
}
show() { systemctl show --value --property "$1" vsrv@chat; }
ask() { curl -s -m 60 --cacert /etc/vsrv/ca/ca.pem -H "Authorization: Bearer $key" -H 'Content-Type: application/json' "$@"; }
status() { curl -s -m 60 --cacert /etc/vsrv/ca/ca.pem -o /dev/null -w '%{http_code}' "$@"; }
until_true() { for _ in $(seq "$1"); do "${@:2}" && return; sleep 0.5; done; return 1; }
is_ready() { [ "$(status https://localhost:8443/readyz)" = 200 ]; }
has_restarted() { [ "$(show NRestarts)" -ge 1 ]; }

set_up() {
  systemctl disable --now vsrv@chat.socket vsrv@chat.service || true
  rm -rf /etc/vsrv /etc/systemd/system/vsrv@* /var/cache/private/vsrv /opt/vsrv
  python3 vsrv.pyz setup --cpu --wheels /wheels --to /opt/vsrv || return
  ln -sfn /opt/vsrv/bin/vsrv /usr/local/bin/vsrv
  mkdir -p /etc/systemd/system/vsrv@.service.d /etc/vsrv || return
  for name in vsrv@.service vsrv@.socket; do vsrv docs "$name" > "/etc/systemd/system/$name" || return; done
  vsrv docs cpu.conf > /etc/systemd/system/vsrv@.service.d/cpu.conf || return
  printf 'host = "0.0.0.0"\nport = 8443\n' > /etc/vsrv/chat.toml
  vsrv cert --out /etc/vsrv/ca --name localhost || return
  cp /etc/vsrv/ca/server.pem /etc/vsrv/chat.crt && cp /etc/vsrv/ca/server.key /etc/vsrv/chat.key
  vsrv keys new --api-key-file /etc/vsrv/chat.keys.toml --tenant acme --expires 90d > key || return
  vsrv check --config /etc/vsrv/chat.toml --api-key-file /etc/vsrv/chat.keys.toml \
    --ssl-certfile /etc/vsrv/chat.crt --ssl-keyfile /etc/vsrv/chat.key
}
check "setup --to, units, certificate, key; vsrv check finds no error" set_up
[ $failed = 0 ] || exit 1
key=$(grep ^vsrv- key)
systemctl daemon-reload
check "systemctl start returns when the first token was generated" systemctl start vsrv@chat
check "ready" is_ready
check "no key: 401" [ "$(status https://localhost:8443/v1/models)" = 401 ]
check "the key, a credential, is known" grep -q '"object":"list"' <(ask https://localhost:8443/v1/models)

rights() {
  local pid
  pid=$(show MainPID)
  [ "$(stat -c %u "/proc/$pid")" -ge 61184 ] || return # DynamicUser
  grep -Eq '^CapEff:\s0+$' "/proc/$pid/status" && grep -Eq '^NoNewPrivs:\s1$' "/proc/$pid/status" && grep -Eq '^Seccomp:\s2$' "/proc/$pid/status"
}
check "a user of its own, no capabilities, system calls filtered" rights
check "kernels lie in the service's cache, mode 0700" [ "$(stat -c %a /var/cache/private/vsrv/chat)" = 700 ]
reload() { systemctl reload vsrv@chat && is_ready && [ "$(show NRestarts)" = 0 ]; }
check "reload goes on serving" reload

engine_dies() { pkill -KILL -f ' _engine ' && sleep 1 && until_true 40 is_ready && [ "$(show NRestarts)" = 0 ]; }
check "a killed engine is started again by the front" engine_dies
priorities() { journalctl -b -u vsrv@chat -o cat -p err --no-pager | grep -q 'restarting the engine'; }
check "the journal knows an error from a remark" priorities
watchdog() {
  local pid
  pid=$(show MainPID)
  [ "$pid" -gt 1 ] && kill -STOP "$pid" && until_true 100 has_restarted && until_true 60 is_ready
}
check "a front that stands still is restarted by the watchdog" watchdog

drained() {
  ask -N https://localhost:8443/v1/completions -d '{"prompt":"a","max_tokens":900,"ignore_eos":true,"stream":true}' > stream &
  sleep 0.5
  systemctl stop vsrv@chat && wait $! && grep -qx 'data: \[DONE\]' stream && [ "$(show ExecMainStatus)" = 0 ]
}
check "systemctl stop lets a stream finish" drained
wrong() {
  cp /etc/vsrv/chat.toml good.toml && echo 'prot = 1' >> /etc/vsrv/chat.toml
  ! systemctl start vsrv@chat && sleep 3 && [ "$(show ExecMainStatus)" = 78 ] && [ "$(show NRestarts)" = 0 ] || return
  cp good.toml /etc/vsrv/chat.toml && systemctl reset-failed vsrv@chat
}
check "a wrong configuration ends with 78 and is not tried again" wrong

behind_a_socket() {
  : > /etc/vsrv/chat.toml && systemctl start vsrv@chat.socket || return
  KEY=$key python3 load.py 20 &
  sleep 7 && systemctl restart vsrv@chat && sleep 5 && systemctl restart vsrv@chat && wait $!
}
check "behind the socket unit: started by the first request, restarted twice under load, none failed" behind_a_socket
cat /tmp/said
systemctl stop vsrv@chat.socket vsrv@chat.service
exit $failed
