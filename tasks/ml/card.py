"""scratch."""
from typing import Any
from pydantic import BaseModel
class CardFacts(BaseModel, extra="allow"):
    version: int|None=None
def card(f): return "card"
