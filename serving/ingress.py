"""The deployment ``ingress``: HTTP in front of GM and IM."""

from fastapi import FastAPI
from ray import serve
from ray.serve.handle import DeploymentHandle

from configs.serving import ServingSettings
from configs.settings import PromptSettings
from serving.api import create
from serving.models import Model


@serve.deployment(logging_config={"enable_access_log": False})
@serve.ingress()
class Ingress:
    """Builds the application in the replica, around handles of both models."""

    def __init__(self, gm: DeploymentHandle, im: DeploymentHandle, prompts: PromptSettings, serving: ServingSettings):
        self.prompts, self.serving = prompts, serving
        seconds = serving.request_timeout_s
        self.gm = Model("gm", gm, fields="post", timeout_s=seconds, on_demand=serving.gm.min_replicas == 0)
        self.im = Model("im", im, fields="post, draft", timeout_s=seconds, on_demand=serving.im.min_replicas == 0)

    def __serve_build_asgi_app__(self) -> FastAPI:
        """Called by Serve once the constructor has returned."""
        return create(self.gm, self.im, self.prompts, self.serving)
