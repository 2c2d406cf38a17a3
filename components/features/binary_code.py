"""Binary code hashing: many ids on few table rows (Yan et al. 2021, 2109.02471)."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, ValidationInfo, field_validator

from components.common.config import Config


class BinaryCode(Config):
    """An id's hash is cut to a code of L bits, the code into K = ceil(L / t) blocks of at most t bits.

    Block k with bits b_k is row b_k + k * 2^t of a table of K * 2^t rows. Ids with different codes differ in at least
    one of their rows.
    """

    code_bits: int = Field(21, ge=2, le=31, description="L; ids with one code are one to the model")
    block_bits: int = Field(11, ge=1, le=30, description="t; the table has K * 2^t rows")
    split: Literal["succession", "skip"] = Field(
        "succession", description="neighbouring bits make a block, or every K-th bit"
    )
    combine: Literal["sum", "concatenate"] = Field(
        "sum", description="the blocks' vectors are added up, or each goes to the net"
    )

    @field_validator("block_bits")
    @classmethod
    def _check_block_bits(cls, bits: int, info: ValidationInfo) -> int:
        code_bits = info.data.get("code_bits", bits)
        if bits > code_bits:
            raise ValueError(f"a block of {bits} bits is longer than the code, code_bits = {code_bits}")
        return bits

    @property
    def num_blocks(self) -> int:
        """Blocks of a code, K = ceil(L / t)."""
        return -(-self.code_bits // self.block_bits)

    @property
    def num_codes(self) -> int:
        """Different codes, 2^L."""
        return 2**self.code_bits

    @property
    def num_rows(self) -> int:
        """Rows of the table, K * 2^t."""
        return self.num_blocks * 2**self.block_bits

    @property
    def num_vectors(self) -> int:
        """How many vectors an id has for the net."""
        return self.num_blocks if self.combine == "concatenate" else 1

    def rows(self, codes: Any) -> list[Any]:
        """Every block's table rows.

        Args:
            codes: Below 2^L; an int64 array of NumPy or tensor of torch, of any shape.

        Returns:
            K arrays or tensors of that shape.
        """
        return [self._block(codes, number) + number * 2**self.block_bits for number in range(self.num_blocks)]

    def _block(self, codes: Any, number: int) -> Any:
        if self.split == "succession":
            return (codes >> (number * self.block_bits)) & (2**self.block_bits - 1)
        places = range(number, self.code_bits, self.num_blocks)
        return sum(((codes >> place) & 1) << target for target, place in enumerate(places))
