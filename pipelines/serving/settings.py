"""What a server accepts and where it listens."""

import ipaddress

from pydantic import BaseModel, ConfigDict, Field

from pipelines.errors import ConfigError

LOOPBACK = "127.0.0.1"
DEFAULT_PORT = 8000
LOOPBACK_NAMES = ("127.0.0.1", "localhost", "[::1]")


class Limits(BaseModel):
    """What one request, and all that wait, may ask for."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    body_bytes: int = Field(256 * 1024, gt=0, description="bytes of a request")
    prompt_characters: int = Field(2000, gt=0, description="of one prompt")
    prompts: int = Field(64, gt=0, description="of one request")
    images: int = Field(64, gt=0, description="of one request: prompts × n")
    evaluations: int = Field(1024, gt=0, description="of one request: network evaluations, images × steps")
    waiting_requests: int = Field(256, gt=0, description="requests that may wait; more are answered 503")
    waiting_evaluations: int = Field(8192, gt=0, description="network evaluations that may wait")
    seconds: float = Field(60.0, gt=0, description="until a request is given up and answered 504")


class ServerConfig(BaseModel):
    """One server. token: what a client sends as `Authorization: Bearer TOKEN`; None where none is asked."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    host: str = LOOPBACK
    port: int = Field(DEFAULT_PORT, ge=0, le=65535, description="0: the first free one")
    token: str | None = None
    hosts: tuple[str, ...] = Field((), description="further names that clients call this server by")
    insecure: bool = Field(False, description="let whoever reaches the port use the model, without a token")
    poll_seconds: float = Field(5.0, gt=0, description="between two looks at the registry for a new champion")
    batch_images: int = Field(32, gt=0, description="images that go through the network together")
    limits: Limits = Limits()

    @property
    def on_loopback(self) -> bool:
        """Whether only this machine reaches it."""
        if self.host == "localhost":
            return True
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return False

    @property
    def host_names(self) -> tuple[str, ...]:
        """What a Host header may name; empty for any.

        On loopback a web page whose own name was made to point here must not pass (DNS rebinding). Elsewhere
        the names are not known, and a page does not know the token.
        """
        if not self.on_loopback and not self.hosts:
            return ()
        return (*LOOPBACK_NAMES, self.host.lower(), *(name.lower() for name in self.hosts))

    def check(self) -> None:
        """Raise ConfigError for an address that would leave the model open to the network."""
        if self.on_loopback or self.token or self.insecure:
            return
        raise ConfigError(
            f"--host {self.host} opens the model to the network: give clients a token with --token or"
            " STRAIGHTSHOT_SERVE_TOKEN, or say --insecure"
        )
