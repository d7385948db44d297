"""Where messages about incidents go: `notify` in project.yaml, and KEEPFIT_NOTIFY. Secrets stay in environment variables, which these name."""

import os
import re
from dataclasses import dataclass
from typing import Annotated, Self
from urllib.parse import urlsplit

from pydantic import AfterValidator, BaseModel, Field, model_validator

from tasks.config.errors import KeepfitError
from tasks.config.settings import Settings

EVERYWHERE = "KEEPFIT_NOTIFY"
SHORTEST = 16  # characters of a secret; what is shorter can be tried out
Variable = Annotated[str, Field(pattern=r"^[A-Z][A-Z0-9_]{0,99}$")]


class Webhook(BaseModel, frozen=True, extra="forbid"):
    """An address that is sent CloudEvents."""

    name: str = Field(pattern=r"^[a-z][a-z0-9_-]{0,39}$", description="how status and logs call it")
    url: str | None = Field(default=None, description="http or https, without a secret in it; or leave it to `url_env`")
    url_env: Variable | None = Field(
        default=None,
        description="name of the environment variable that holds the URL, where the URL is a secret itself",
    )
    secret: Variable | None = Field(
        default=None,
        description="name of the environment variable with the secret that signs what is sent; at least 16 characters",
    )

    @model_validator(mode="after")
    def _one_url_without_a_secret(self) -> Self:
        if (self.url is None) == (self.url_env is None):
            raise ValueError(f"webhook '{self.name}' needs one of url and url_env")
        if self.url is not None and (why := _no_url(self.url)):
            raise ValueError(f"webhook '{self.name}': {why}")
        return self


def _names_once(webhooks: tuple[Webhook, ...]) -> tuple[Webhook, ...]:
    names = [webhook.name for webhook in webhooks]
    if len(set(names)) != len(names):
        raise ValueError(f"each webhook needs a name of its own, because its queue is kept under it; given: {names}")
    return webhooks


class Notify(BaseModel, frozen=True, extra="forbid"):
    """Who is told of incidents: one message when one begins, one when it ends."""

    webhooks: Annotated[tuple[Webhook, ...], AfterValidator(_names_once)] = ()
    apprise: tuple[Variable, ...] = Field(
        default=(), description="names of environment variables that hold apprise URLs (mail, chat, …), apart by blanks"
    )


@dataclass(frozen=True)
class Destination:
    """Where one message goes.

    Attributes:
        name: the same from one time to the next; no secret.
        url: where to.
        secret: that signs it, where it is a webhook that has one.
        is_webhook: else it is apprise's.
    """

    name: str
    url: str
    secret: str | None = None
    is_webhook: bool = False

    def __repr__(self) -> str:
        """Its name alone: URLs of chats are secrets, too."""
        return f"Destination({self.name!r})"


def names(notify: Notify, settings: Settings) -> list[str]:
    """The names of a project's destinations, those that everybody has among them; one a URL, as far as the variables are set here."""
    found = [f"webhook {webhook.name}" for webhook in notify.webhooks]
    variables = [*([EVERYWHERE] if settings.notify else []), *notify.apprise]
    for variable in dict.fromkeys(variables):
        count = max(len(_urls(_held(variable, settings))), 1)
        found += [f"{variable} {place}" for place in range(1, count + 1)]
    return found


def named(name: str, notify: Notify, settings: Settings) -> Destination | None:
    """The destination of that name as it is configured now; None where it is not configured any more.

    Raises:
        KeepfitError: a variable that it needs is not set for this process, or holds what it may not.
    """
    kind, _, rest = name.rpartition(" ")
    if kind == "webhook":
        return next((_webhook(one, settings) for one in notify.webhooks if one.name == rest), None)
    if kind not in notify.apprise and not (kind == EVERYWHERE and settings.notify):
        return None
    urls = _urls(_needed(kind, settings))
    return Destination(name, urls[int(rest) - 1]) if rest.isdigit() and 0 < int(rest) <= len(urls) else None


def _webhook(webhook: Webhook, settings: Settings) -> Destination:
    url = webhook.url or _needed(webhook.url_env or "", settings)
    if webhook.url_env and (why := _no_url(url, secret=True)):
        raise KeepfitError(f"{webhook.url_env}: {why}")
    secret = _needed(webhook.secret, settings) if webhook.secret else None
    if secret is not None and len(secret) < SHORTEST:
        raise KeepfitError(
            f"{webhook.secret} is shorter than {SHORTEST} characters. Make a secret: openssl rand -hex 32"
        )
    return Destination(f"webhook {webhook.name}", url, secret, is_webhook=True)


def _no_url(url: str, *, secret: bool = False) -> str:
    """Why a text is no URL of a webhook, or nothing; its text is not repeated."""
    try:
        parts = urlsplit(url)
        host, inside = parts.hostname, parts.username or parts.password or parts.query
    except ValueError:
        host, inside = None, None
    if not host or parts.scheme not in {"http", "https"}:
        return "the URL must be http://… or https://…"
    if inside and not secret:
        return "the URL holds a user, a password or a query, which may be secret. Put it into an environment variable and name that as url_env"
    return ""


def _needed(variable: str, settings: Settings) -> str:
    if not (held := _held(variable, settings)):
        raise KeepfitError(f"the environment variable {variable} is not set. Set it where `keepfit up` is said.")
    return held


def _held(variable: str, settings: Settings) -> str:
    if variable == EVERYWHERE:
        return settings.notify.get_secret_value() if settings.notify else ""
    return os.environ.get(variable, "")


def _urls(text: str) -> list[str]:
    """Apprise's URLs: a blank or a comma parts two where another one begins.

    >>> _urls("mailto://a:b@c.org?to=d@c.org,e@c.org slack://t/x, json://h")
    ['mailto://a:b@c.org?to=d@c.org,e@c.org', 'slack://t/x', 'json://h']
    """
    return [url for url in re.split(r"[\s,]+(?=[a-z][a-z0-9]*://)", text.strip()) if url]
