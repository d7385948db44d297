"""What goes out: JSON, and the refusal, which is an answer too."""

import msgspec
from starlette.responses import Response


def as_json(content: object, status: int = 200, headers: dict[str, str] | None = None) -> Response:
    """An answer with JSON in it."""
    return Response(msgspec.json.encode(content), status, headers, media_type="application/json")


class Refusal(Exception):  # noqa: N818 – a refusal is an answer, not a fault
    """An answer other than the wanted one: a status and one sentence."""

    def __init__(self, status: int, sentence: str, **headers: str) -> None:
        super().__init__(sentence)
        self.status = status
        self.headers = {name.replace("_", "-"): value for name, value in headers.items()}

    def response(self) -> Response:
        """The refusal as it goes out."""
        return as_json({"error": str(self)}, self.status, self.headers)


FAILED = Refusal(500, "The server failed at this request; its log says where. Tell whoever runs it.")
