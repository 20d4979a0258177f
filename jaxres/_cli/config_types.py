"""What may stand in a configuration file: strict types, bounded where a larger number could not be carried out."""

from typing import Annotated

from pydantic import AfterValidator, BaseModel, ConfigDict, Discriminator, Field, Tag
from pydantic_core import PydanticCustomError


class Strict(BaseModel):
    """Unknown keys, values of another type and what is not finite are mistakes."""

    model_config = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False)


def kinds(message: str) -> Discriminator:
    """Chooses among the members of a union by their tags, the name of the type in angle brackets: one error for all."""
    return Discriminator(
        lambda x: f"<{type(x).__name__}>", custom_error_type="kind", custom_error_message=message
    )


def _rectangular(rows: list[list[float]]) -> list[list[float]]:
    if len({len(row) for row in rows}) > 1:
        raise PydanticCustomError("shape", "must have rows of one length")
    return rows


#: TOML's integers have 64 bits
Integer = Annotated[int, Field(ge=-(2**63), lt=2**63)]
Positive = Annotated[int, Field(ge=1, lt=2**63)]
#: each is a process
Workers = Annotated[int, Field(ge=0, le=1024)]
Function = Annotated[str, Field(pattern=r"^[\w.]+:[\w.]+$")]
Row = Annotated[list[float], Field(min_length=1)]
Matrix = Annotated[list[Row], Field(min_length=1), AfterValidator(_rectangular)]
Value = Annotated[
    Annotated[bool, Tag("<bool>")]
    | Annotated[Integer, Tag("<int>")]
    | Annotated[float, Tag("<float>")]
    | Annotated[str, Tag("<str>")],
    kinds("must be a number, text, true or false"),
]
#: a number of points, or extents by axis
Chunk = Annotated[
    Annotated[Positive, Tag("<int>")] | Annotated[dict[str, Positive], Tag("<dict>")],
    kinds("must be a number of points, or a table of extents"),
]
Start = Annotated[
    Annotated[float, Tag("<int>")]
    | Annotated[float, Tag("<float>")]
    | Annotated[Row, Tag("<list>")],
    kinds("must be a number or a list of numbers"),
]


class Complex(Strict):
    """A complex matrix by its parts."""

    real: Matrix
    imag: Matrix


def _same_shape(x: Complex) -> Complex:
    if len(x.real) != len(x.imag) or len(x.real[0]) != len(x.imag[0]):
        raise PydanticCustomError("shape", "must have real and imag of one shape")
    return x


#: a parameter of a loss
Parameter = Annotated[
    Annotated[bool, Tag("<bool>")]
    | Annotated[Integer, Tag("<int>")]
    | Annotated[float, Tag("<float>")]
    | Annotated[Matrix, Tag("<list>")]
    | Annotated[Complex, AfterValidator(_same_shape), Tag("<dict>")],
    kinds("must be a number, true or false, or a matrix"),
]
