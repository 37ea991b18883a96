"""What a process can find out about the Serve that it is a replica of; in any other process there is nothing."""


def in_replica() -> bool:
    """Whether this process is a replica of Serve."""
    from ray import serve
    from ray.serve.exceptions import RayServeException

    try:
        serve.get_replica_context()
    except RayServeException:
        return False
    return True


def deployed_host() -> str | None:
    """The address that Serve's proxies listen on, whatever our settings say; None outside of a replica."""
    if not in_replica():
        return None
    from ray.serve.context import _get_global_client

    client = _get_global_client()
    host: str | None = client.http_config.host if client else None
    return host
