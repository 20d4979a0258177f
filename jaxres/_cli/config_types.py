"""The types of a configuration file's entries: strict, and bounded where a larger number could not be computed."""

from typing import Annotated

from pydantic import AfterValidator, BaseModel, ConfigDict, Discriminator, Field, Tag
from pydantic_core import PydanticCustomError


class Strict(BaseModel):
    """Unknown keys, values of another type and what is not finite are mistakes."""

    model_config = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False)


def kinds(message: str) -> Discriminator:
    """Chooses a member of a union by its tag, `type_tag`; where none fits, `message` is the one error."""
    return Discriminator(type_tag, custom_error_type="kind", custom_error_message=message)


def type_tag(x: object) -> str:
    """The name of the type in angle brackets, by which `config` knows tags from the keys of a file."""
    return f"<{type(x).__name__}>"


def _rectangular(rows: list[list[float]]) -> list[list[float]]:
    if len({len(row) for row in rows}) > 1:
        raise PydanticCustomError("shape", "must have rows of one length")
    return rows


#: TOML's integers have 64 bits.
Integer = Annotated[int, Field(ge=-(2**63), lt=2**63)]
Positive = Annotated[int, Field(ge=1, lt=2**63)]
#: Each worker is a process: a larger number is a mistake.
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
#: A number of points, or the extents by axis.
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
    """A complex matrix by its real and imaginary parts."""

    real: Matrix
    imag: Matrix


def _same_shape(x: Complex) -> Complex:
    if len(x.real) != len(x.imag) or len(x.real[0]) != len(x.imag[0]):
        raise PydanticCustomError("shape", "must have real and imag of one shape")
    return x


#: A parameter of a loss.
Parameter = Annotated[
    Annotated[bool, Tag("<bool>")]
    | Annotated[Integer, Tag("<int>")]
    | Annotated[float, Tag("<float>")]
    | Annotated[Matrix, Tag("<list>")]
    | Annotated[Complex, AfterValidator(_same_shape), Tag("<dict>")],
    kinds("must be a number, true or false, or a matrix"),
]
