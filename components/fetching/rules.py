"""How URLs are asked for: limits, retries, what is respected, which addresses may be reached."""

import ipaddress

from pydantic import BaseModel, ConfigDict, Field, field_validator

MIB = 2**20
PRODUCT = "straightshot"  # the product token of the User-Agent, under which robots.txt may name us

# What img2dataset refuses by default, and `none`, which stands for noindex with nofollow.
OPT_OUT_DIRECTIVES = ("noai", "noimageai", "noindex", "noimageindex", "none")


class FetchRules(BaseModel):
    """How every URL is asked for. Times in seconds, sizes in bytes."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    contact: str | None = Field(
        default=None, description="a URL or e-mail address in the User-Agent, for those who run the servers"
    )
    agents: tuple[str, ...] = Field(
        default=(PRODUCT,),
        min_length=1,
        description="product tokens whose rules are obeyed, in robots.txt and X-Robots-Tag",
    )
    robots: bool = Field(default=True, description="ask every origin for robots.txt, and obey it")
    tdmrep: bool = Field(
        default=True, description="obey TDMRep: its header, and each origin's /.well-known/tdmrep.json"
    )
    opt_out_directives: tuple[str, ...] = Field(
        default=OPT_OUT_DIRECTIVES, description="directives of X-Robots-Tag by which an image is refused"
    )
    allow_networks: tuple[str, ...] = Field(
        default=(), description="networks that may be reached although they are not public: 10.1.0.0/16"
    )
    max_bytes: int = Field(default=25_000_000, ge=1, description="of an image, received and decompressed")
    max_redirects: int = Field(default=5, ge=0)
    connections: int = Field(default=64, ge=1, description="at the same time, of one worker")
    connections_per_host: int = Field(default=2, ge=1, description="at the same time, of all workers")
    host_delay: float = Field(
        default=0.0, ge=0, description="least time from one request of a host to the next"
    )
    max_crawl_delay: float = Field(
        default=30.0, ge=0, description="most of robots.txt's Crawl-delay that is waited"
    )
    connect_timeout: float = Field(default=10.0, gt=0)
    read_timeout: float = Field(default=15.0, gt=0, description="without a byte")
    total_timeout: float = Field(
        default=60.0, gt=0, description="of one request, whatever it sends meanwhile"
    )
    tries: int = Field(default=3, ge=1, description="of a request that failed as it may not fail again")
    backoff: float = Field(default=1.0, ge=0, description="before the second try; doubled from try to try")
    max_backoff: float = Field(
        default=60.0, ge=0, description="most time between two tries, also where a server asks for more"
    )

    @field_validator("allow_networks")
    @classmethod
    def _networks(cls, networks: tuple[str, ...]) -> tuple[str, ...]:
        for network in networks:
            ipaddress.ip_network(network)  # a ValueError that says what is wrong with it
        return networks

    @field_validator("agents", "opt_out_directives")
    @classmethod
    def _lower(cls, words: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(word.lower() for word in words)

    @field_validator("contact")
    @classmethod
    def _printable(cls, contact: str | None) -> str | None:
        if contact is not None and not (contact.isascii() and contact.isprintable()):
            raise ValueError("it goes into an HTTP header; give printable ASCII")
        return contact

    @property
    def user_agent(self) -> str:
        contact = f"; +{self.contact}" if self.contact else ""
        return f"{PRODUCT}/0.1 (images and alt texts for training{contact})"
