"""The systemd units and drop-ins. The lines of the credentials come from the option table, so that unit and server agree.

Rights are as packaging for systemd 252 measured them: `systemd-analyze security` gives 1.2 of 10 with the CPU's drop-in, 1.5 with the GPU's.
"""

from __future__ import annotations

from collections.abc import Sequence

from vsrv.commands import Command
from vsrv.options import CREDENTIALS

# name of a credential → suffix of its file in /etc/vsrv
_SUFFIXES = {"keys.toml": "keys.toml", "tls.crt": "crt", "tls.key": "key", "client-ca.crt": "client-ca.crt"}

_SERVICE = """\
# One language model server. The instance is its configuration: vsrv@chat.service serves /etc/vsrv/chat.toml.
#
#   cd /etc/systemd/system && mkdir vsrv@.service.d
#   for name in vsrv@.service vsrv@.socket; do vsrv docs $name > $name; done
#   vsrv docs cpu.conf > vsrv@.service.d/cpu.conf                        (or gpu.conf)
#   mkdir /etc/vsrv && vsrv docs example.toml > /etc/vsrv/chat.toml      (then say in it what to serve)
#   vsrv check --config /etc/vsrv/chat.toml
#   systemctl enable --now vsrv@chat.service                             (or vsrv@chat.socket: then the socket's address counts)
#
# The configuration is read by the service's own user, who is nobody: it is no place for secrets. Keys and certificates are credentials:
# files of root's that the service gets a copy of when it starts. Those that are not there are left out; `vsrv check` says what there is.

[Unit]
Description=vsrv language model server (%i)
Documentation=man:vsrv(1) man:vsrv.toml(5)
Wants=network-online.target
After=network-online.target
StartLimitIntervalSec=10min
StartLimitBurst=5

[Service]
Type=notify
ExecStart=/usr/local/bin/vsrv serve --config /etc/vsrv/%i.toml
ExecReload=/bin/kill -HUP $MAINPID
# ready once the first token is generated; while it loads or drains, the server asks for more time itself
TimeoutStartSec=15min
TimeoutStopSec=60s
WatchdogSec=30s
Restart=on-failure
RestartSec=2s
# 78: the configuration is wrong, and would be the next time too
RestartPreventExitStatus=78
# the front is asked to end, drains, and ends the others; what is left after TimeoutStopSec= is killed
KillMode=mixed
# an engine that runs out of memory is restarted by the front
OOMPolicy=continue
LimitNOFILE=65536
# a core file would hold prompts
LimitCORE=0
SyslogIdentifier=vsrv-%i

# secrets: the file's name here is the one that vsrv looks for; the empty default makes each of them optional
%CREDENTIALS%
# files: a user of its own, everything read-only but its cache (compiled kernels, downloads) and /run/vsrv/NAME (for uds)
DynamicUser=yes
CacheDirectory=vsrv/%i
CacheDirectoryMode=0700
RuntimeDirectory=vsrv/%i
Environment=HF_HOME=%C/vsrv/%i/huggingface PYTHONDONTWRITEBYTECODE=1
UMask=0077
ProtectSystem=strict
ProtectHome=yes
PrivateTmp=yes

# rights: none that a server of HTTP does not need. Kernels are compiled at run time, so memory must become executable.
MemoryDenyWriteExecute=no
NoNewPrivileges=yes
CapabilityBoundingSet=
AmbientCapabilities=
KeyringMode=private
LockPersonality=yes
PrivateMounts=yes
ProtectClock=yes
ProtectControlGroups=yes
ProtectHostname=yes
ProtectKernelLogs=yes
ProtectKernelModules=yes
ProtectKernelTunables=yes
ProtectProc=invisible
RemoveIPC=yes
RestrictAddressFamilies=AF_INET AF_INET6 AF_UNIX
RestrictNamespaces=yes
RestrictRealtime=yes
RestrictSUIDSGID=yes
SystemCallArchitectures=native
# @resources stays: threads are pinned, memory is bound to nodes, the engine lowers its priority
SystemCallFilter=@system-service
SystemCallFilter=~@privileged
SystemCallErrorNumber=EPERM

[Install]
WantedBy=multi-user.target
"""

_SOCKET = """\
# The address of vsrv@NAME.service, held by systemd: connections wait while the service restarts, and start it if it is not running.
# The address in the configuration file does not count then. For another one: systemctl edit vsrv@NAME.socket, with an empty
# ListenStream= before the new one. An address that others reach needs keys, as everywhere.

[Unit]
Description=Address of the vsrv language model server (%i)
Documentation=man:vsrv(1)

[Socket]
ListenStream=127.0.0.1:8000
Backlog=4096
NoDelay=yes
# a server whose configuration is wrong would be started for every connection
TriggerLimitIntervalSec=10s
TriggerLimitBurst=20

[Install]
WantedBy=sockets.target
"""

_CPU = """\
# Drop-in for hosts without a GPU: no devices at all, no other users. Goes to vsrv@.service.d/ or, for one instance, vsrv@NAME.service.d/
[Service]
PrivateDevices=yes
PrivateUsers=yes
"""

_GPU = """\
# Drop-in for hosts with an NVIDIA GPU: its devices and nothing else. Goes to vsrv@.service.d/ or, for one instance, vsrv@NAME.service.d/
[Service]
DevicePolicy=closed
DeviceAllow=char-nvidia* rw
# the device files are made by a program that is set-uid root, which this service could not start: so it is started before, by root
ExecStartPre=+-/usr/bin/nvidia-modprobe -c 0 -u
# pinned memory
LimitMEMLOCK=infinity
Environment=CUDA_CACHE_PATH=%C/vsrv/%i/cuda
"""


def service(commands: Sequence[Command]) -> str:
    """vsrv@.service. The empty line as default makes a credential optional (systemd.exec(5), SetCredential=)."""
    lines = []
    for name in CREDENTIALS.values():
        lines += [f"LoadCredential={name}:/etc/vsrv/%i.{_SUFFIXES[name]}", f"SetCredential={name}:\\n"]
    return _SERVICE.replace("%CREDENTIALS%", "\n".join(lines) + "\n")


def socket_unit(commands: Sequence[Command]) -> str:
    """vsrv@.socket."""
    return _SOCKET


def cpu_drop_in(commands: Sequence[Command]) -> str:
    """cpu.conf."""
    return _CPU


def gpu_drop_in(commands: Sequence[Command]) -> str:
    """gpu.conf."""
    return _GPU
