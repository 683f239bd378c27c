"""Products are fp32 whatever the process allows torch's, by either interface, which is kept."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import product

import pytest
import torch
from small_models import ragged_pairs, tiny_model
from torch.utils._python_dispatch import TorchDispatchMode

from ioi_fast import ablate, activation_patch, attention, load, pair_sweep, path_patch
from ioi_fast.ioi.attending import writing
from ioi_fast.ioi.copying import copy_scores
from ioi_fast.ioi.dataset import ioi_prompts
from ioi_fast.ioi.repeats import repeat_scores, repeated_tokens
from ioi_fast.kernels.fp32_products import _get, _own, _set, fp32_products, tf32_products

# Of the newer interface: what is set for all, for a backend, and for its products.
LEVELS = [("generic", "all"), *product(("cuda", "mkldnn"), ("all", "matmul"))]
OLDER = ("highest", "high", "medium")
MODEL, PAIRS = tiny_model(), ragged_pairs(3)


def newer(*level: str, value: str):
    needed = pytest.mark.skipif(_get is None, reason="torch 2.9 brought it")
    return pytest.param(lambda: _set(*level, value), marks=needed, id=f"{'.'.join(level)}={value}")


ALLOWED = [
    pytest.param(lambda: torch.set_float32_matmul_precision("medium"), id="medium"),
    newer("cuda", "matmul", value="tf32"),
    newer("mkldnn", "matmul", value="bf16"),
    newer("generic", "all", value="bf16"),
]


@pytest.fixture(autouse=True)
def settings_of_a_new_process(monkeypatch) -> Iterator[None]:
    # Our own panels know no settings.
    monkeypatch.setattr("ioi_fast.kernels.choose_linear.panels_supported", lambda: False)
    yield
    torch.set_float32_matmul_precision("highest")
    for level in LEVELS if _set else ():
        _set(*level, "none")


def settings() -> tuple:
    """All of both interfaces; the older one's is read where the newer says nothing against it."""
    own = {level: _own(*level) for level in LEVELS} if _get else {}
    for level in own:
        _set(*level, "ieee")
    older = torch.get_float32_matmul_precision()
    for level, value in own.items():
        _set(*level, value)
    return older, own


def rounding() -> set[str]:
    """How products of fp32 may be rounded now."""
    if _get is None:
        return {torch.get_float32_matmul_precision()} - {"highest"}
    return {_get(backend, "matmul") for backend in ("cuda", "mkldnn")} - {"ieee"}


def choices() -> Iterator[tuple[str, dict]]:
    """Every setting of both interfaces together."""
    values = [("none", "ieee", "tf32", *(() if b == "cuda" else ("bf16",))) for b, _ in LEVELS]
    for older in OLDER:
        for chosen in product(*values) if _get else [()]:
            yield older, dict(zip(LEVELS if _get else (), chosen, strict=True))


def test_every_setting_is_kept() -> None:
    """Also after an error, and of one inside another."""
    for older, own in choices():
        torch.set_float32_matmul_precision(older)
        for level, value in own.items():
            _set(*level, value)
        with pytest.raises(ZeroDivisionError), fp32_products():
            assert not rounding() and torch.get_float32_matmul_precision() == "highest"
            with tf32_products():
                assert torch.get_float32_matmul_precision() == "high"
            with fp32_products():
                assert not rounding()
            assert not rounding()
            raise ZeroDivisionError
        assert settings() == (older, own)


class Products(TorchDispatchMode):
    """What products that are torch's or a CPU library's may be rounded to, one by one."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[set[str]] = []

    def __torch_dispatch__(self, function, types, arguments=(), more=None):
        if function._schema.name.rpartition("::")[2] in ("mm", "bmm", "addmm", "_linear_pointwise"):
            self.seen.append(rounding())
        return function(*arguments, **(more or {}))


def products_of(call: Callable) -> tuple[object, list[set[str]]]:
    with Products() as products:
        return call(), products.seen


CALLS = {
    "path_patch": lambda **how: path_patch(MODEL, PAIRS, ["0.1"], ["1.0.q"], **how).values,
    "activation_patch": lambda **how: activation_patch(MODEL, PAIRS, "z", "END", **how).values,
    "ablate": lambda **how: ablate(MODEL, PAIRS, [{"0.1": "all"}], **how).values,
    "attention": lambda **how: attention(MODEL, PAIRS, "heads", **how),
    "pair_sweep": lambda **how: pair_sweep(MODEL, PAIRS, ["q"], **how).effect,
}


@pytest.mark.parametrize("allow", ALLOWED)
@pytest.mark.parametrize("backend", ["cpu", "reference"])
def test_calls_are_fp32_and_leave_what_is_set(backend: str, allow: Callable) -> None:
    MODEL.refresh()
    plain = {name: call(backend=backend) for name, call in CALLS.items()}
    allow()
    before = settings()
    for name, call in CALLS.items():
        MODEL.refresh()
        got, seen = products_of(lambda call=call: call(backend=backend))
        assert seen and not set().union(*seen), name
        assert torch.equal(got, plain[name]) and settings() == before, name


@pytest.mark.parametrize("allow", [ALLOWED[0], ALLOWED[2]])
def test_logits_and_what_is_read_of_weights_are_fp32(allow: Callable) -> None:
    demo = load("demo")
    pairs = ioi_prompts(demo.tokenizer, n=2, seed=0)
    allow()
    before = settings()
    for call in (
        lambda: demo(pairs.orig),
        lambda: demo.to(dtype=torch.float64)(pairs.orig),
        lambda: copy_scores(demo, pairs),
        lambda: repeat_scores(demo, repeated_tokens(demo, 1, 9)),
        lambda: writing(demo, pairs, ["1.1"]),
    ):
        _, seen = products_of(call)
        assert seen and not set().union(*seen) and settings() == before


def test_a_setting_that_reaches_a_product_is_seen() -> None:
    torch.set_float32_matmul_precision("medium")
    _, seen = products_of(lambda: torch.ones(3, 3) @ torch.ones(3, 3))
    assert seen == [rounding()] != [set()]
