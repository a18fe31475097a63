"""Deterministic data: the same rows for the same seed, on every machine.

A *shape* is a function from row number and generator to one row. :func:`pool` makes a bounded number of distinct pages;
a source yields them again and again until the size is reached, so that neither side pays for making data, and the
memory that the data itself takes does not grow with the size.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import orjson
import pyarrow as pa

__all__ = ["KEY", "SHAPES", "Pool", "Shape", "pool"]

Row = dict[str, Any]
KEY = "id"
"""What every row of every shape has, an integer or a text."""
WORDS = [
    "alpha",
    "beta",
    "gamma",
    "delta",
    "epsilon",
    "zeta",
    "eta",
    "theta",
    "iota",
    "kappa",
    "lambda",
    "mu",
    "nu",
    "xi",
    "omicron",
    "pi",
    "rho",
    "sigma",
    "tau",
]
CITIES = ("Berlin", "São Paulo", "Kraków", "Lagos", "Osaka", "Lima", "Oslo", "Pune")


@dataclass(frozen=True, slots=True)
class Shape:
    """One kind of data: how a row is made, how many rows are size 1x, and how many distinct rows the pool holds."""

    name: str
    make: Callable[[int, random.Random], Row]
    rows: int
    distinct: int
    page_rows: int = 1_000


@dataclass(frozen=True, slots=True)
class Pool:
    """Distinct pages as JSON arrays; the other forms are made from them once, before anything is measured."""

    shape: Shape
    bodies: tuple[bytes, ...]

    def pages(self, form: str, rows: int) -> Iterator[Any]:
        """Pages of one form until ``rows`` rows are reached: the same objects again and again."""
        held = [_page(body, form) for body in self.bodies]

        return (held[number % len(held)] for number in range(rows // self.shape.page_rows))

    def new_pages(self, form: str, rows: int, first: int) -> Iterator[Any]:
        """Pages as from a real source: objects of their own, and ids that go on from ``first``."""
        size = self.shape.page_rows

        for number in range(rows // size):
            numbered = orjson.loads(self.bodies[number % len(self.bodies)])

            for identity, row in enumerate(numbered, first + number * size):
                row[KEY] = type(row[KEY])(identity)

            yield numbered if form == "dict" else _page(orjson.dumps(numbered), form)


def pool(shape: Shape, *, page_rows: int | None = None, seed: int = 7) -> Pool:
    """The shape's distinct pages."""
    page_rows = page_rows or shape.page_rows
    generator = random.Random(seed)
    count = max(shape.distinct // page_rows, 1)
    bodies = tuple(
        orjson.dumps([shape.make(page * page_rows + number, generator) for number in range(page_rows)])
        for page in range(count)
    )

    return Pool(Shape(shape.name, shape.make, shape.rows, shape.distinct, page_rows), bodies)


def _page(body: bytes, form: str) -> Any:
    if form == "bytes":
        return body

    rows = orjson.loads(body)

    return pa.Table.from_pylist(rows) if form == "arrow" else rows


def _text(r: random.Random, words: int) -> str:
    return " ".join(r.choice(WORDS) for _ in range(words))


def _moment(r: random.Random) -> str:
    day, second = r.randint(1, 28), r.randint(0, 86_399)

    return f"2024-{r.randint(1, 12):02}-{day:02}T{second // 3600:02}:{second // 60 % 60:02}:{second % 60:02}Z"


def flat(number: int, r: random.Random) -> Row:
    """Ten columns: three integers, two floats, three texts, one bool, one moment."""
    return {
        "id": number,
        "user_id": r.randint(1, 1_000_000),
        "amount": round(r.uniform(0.5, 5_000), 2) + 0.001,
        "rate": round(r.random() + 0.01, 6),
        "quantity": r.randint(1, 100),
        "name": _text(r, 2),
        "email": f"{r.choice(WORDS)}.{number}@example.org",
        "city": r.choice(CITIES),
        "active": r.random() < 0.7,
        "created_at": _moment(r),
    }


def order(number: int, r: random.Random) -> Row:
    """A customer, an address, one to five lines with taxes, and tags: four tables."""
    return {
        "id": number,
        "placed_at": _moment(r),
        "status": r.choice(("new", "paid", "sent")),
        "customer": {"id": r.randint(1, 50_000), "name": _text(r, 2), "vip": r.random() < 0.1},
        "address": {
            "street": _text(r, 3),
            "city": r.choice(CITIES),
            "geo": {"lat": round(r.uniform(-90, 90), 6), "lon": round(r.uniform(-180, 180), 6)},
        },
        "lines": [
            {
                "sku": f"SKU-{r.randint(1, 9_999):05}",
                "quantity": r.randint(1, 9),
                "price": round(r.uniform(1, 500), 2) + 0.001,
                "taxes": [
                    {"kind": kind, "rate": r.choice((0.07, 0.19))} for kind in ("vat", "city")[: r.randint(0, 2)]
                ],
            }
            for _ in range(r.randint(1, 5))
        ],
        "tags": [r.choice(WORDS) for _ in range(r.randint(0, 4))],
        "note": _text(r, 6) if r.random() < 0.3 else None,
    }


def wide(number: int, r: random.Random) -> Row:
    """Three hundred columns, one in ten missing from each row."""
    row: Row = {"id": number}

    for column in range(300):
        if r.random() < 0.9:
            row[f"c{column:03}"] = _WIDE_KINDS[column % len(_WIDE_KINDS)](r)

    return row


_WIDE_KINDS: tuple[Callable[[random.Random], Any], ...] = (
    lambda r: r.randint(0, 10**9),
    lambda r: round(r.random() + 0.001, 6),
    lambda r: r.choice(WORDS),
    lambda r: r.random() < 0.5,
    lambda r: r.randint(0, 9),
    _moment,
)


def variants(number: int, r: random.Random) -> Row:
    """Ten columns, six of which change their type in one row of twenty."""
    odd = r.random() < 0.05

    return {
        "id": number,
        "count": _text(r, 1) if odd else r.randint(0, 1000),
        "price": r.choice((True, _text(r, 1))) if odd else round(r.uniform(1, 100), 6),
        "code": str(r.randint(0, 99)) if r.random() < 0.5 else r.randint(0, 99),
        "flag": r.choice(("maybe", 2.5)) if odd else r.random() < 0.5,
        "label": r.choice((1, 2.5, True)) if odd else _text(r, 2),
        "score": r.randint(0, 5) if r.random() < 0.3 else round(r.random() + 0.01, 6),
        "extra": {"k": r.randint(0, 9)} if odd else r.randint(0, 9),
        "city": r.choice(CITIES),
        "created_at": _moment(r),
    }


_URLS = [
    "archive",
    "assignees",
    "blobs",
    "branches",
    "collaborators",
    "comments",
    "commits",
    "compare",
    "contents",
    "contributors",
    "deployments",
    "downloads",
    "events",
    "forks",
    "git_commits",
    "git_refs",
    "git_tags",
    "hooks",
    "issue_comment",
    "issue_events",
    "issues",
    "keys",
    "labels",
    "languages",
    "merges",
    "milestones",
    "notifications",
    "pulls",
    "releases",
    "stargazers",
    "statuses",
    "subscribers",
    "subscription",
    "tags",
    "teams",
    "trees",
]
_USER_URLS = [
    "followers",
    "following",
    "gists",
    "starred",
    "subscriptions",
    "organizations",
    "repos",
    "events",
    "received_events",
]
_HOST = "https://api.example.org"


def _user(r: random.Random) -> Row:
    login = f"{r.choice(WORDS)}{r.randint(1, 9_999)}"
    urls = {f"{name}_url": f"{_HOST}/users/{login}/{name}" for name in _USER_URLS}

    return {
        "login": login,
        "id": r.randint(1, 10**8),
        "node_id": f"U_{r.randint(1, 10**9):x}",
        "url": f"{_HOST}/users/{login}",
        **urls,
        "type": "User",
        "site_admin": False,
    }


def _repository(r: random.Random) -> Row:
    owner = _user(r)
    full = f"{owner['login']}/{r.choice(WORDS)}"
    urls = {f"{name}_url": f"{_HOST}/repos/{full}/{name}" for name in _URLS}
    counts = {
        name: r.randint(0, 5_000)
        for name in ("size", "stargazers_count", "watchers_count", "forks_count", "open_issues_count")
    }
    flags = {
        name: r.random() < 0.5
        for name in ("private", "fork", "has_issues", "has_projects", "has_wiki", "has_pages", "archived")
    }
    license_of = {"key": "mit", "name": "MIT License", "spdx_id": "MIT"} if r.random() < 0.6 else None

    return {
        "id": r.randint(1, 10**8),
        "name": full.split("/")[1],
        "full_name": full,
        "owner": owner,
        "description": _text(r, 8) if r.random() < 0.8 else None,
        **urls,
        **counts,
        **flags,
        "created_at": _moment(r),
        "updated_at": _moment(r),
        "language": r.choice(("Python", "Rust", "Go", None)),
        "license": license_of,
        "topics": [r.choice(WORDS) for _ in range(r.randint(0, 4))],
        "default_branch": "main",
    }


def _labels(r: random.Random) -> list[Row]:
    return [
        {"id": r.randint(1, 10**6), "name": r.choice(WORDS), "color": "ededed", "default": False}
        for _ in range(r.randint(0, 3))
    ]


def _issue(r: random.Random) -> Row:
    return {
        "id": r.randint(1, 10**9),
        "number": r.randint(1, 9_999),
        "title": _text(r, 6),
        "user": _user(r),
        "labels": _labels(r),
        "state": r.choice(("open", "closed")),
        "assignee": _user(r) if r.random() < 0.3 else None,
        "assignees": [_user(r) for _ in range(r.randint(0, 2))],
        "comments": r.randint(0, 40),
        "created_at": _moment(r),
        "closed_at": _moment(r) if r.random() < 0.4 else None,
        "body": _text(r, 40),
        "reactions": {"total_count": r.randint(0, 9), "+1": r.randint(0, 5), "-1": 0, "heart": r.randint(0, 2)},
    }


def _pull_request(r: random.Random) -> Row:
    side = {
        name: {
            "label": r.choice(WORDS),
            "ref": "main",
            "sha": f"{r.getrandbits(160):040x}",
            "user": _user(r),
            "repo": _repository(r),
        }
        for name in ("head", "base")
    }

    return {
        **_issue(r),
        **side,
        "merged": r.random() < 0.5,
        "merged_at": _moment(r) if r.random() < 0.5 else None,
        "requested_reviewers": [_user(r) for _ in range(r.randint(0, 2))],
        "milestone": {"id": 1, "title": _text(r, 2), "creator": _user(r)} if r.random() < 0.2 else None,
        "additions": r.randint(0, 2_000),
        "deletions": r.randint(0, 2_000),
        "_links": {name: {"href": f"{_HOST}/{name}"} for name in ("self", "html", "issue", "comments", "commits")},
    }


def _push(r: random.Random) -> Row:
    commits = [
        {
            "sha": f"{r.getrandbits(160):040x}",
            "message": _text(r, 8),
            "author": {"name": _text(r, 2), "email": "a@example.org"},
            "distinct": True,
        }
        for _ in range(r.randint(1, 4))
    ]

    return {"push_id": r.randint(1, 10**9), "size": len(commits), "ref": "refs/heads/main", "commits": commits}


_PAYLOADS: tuple[tuple[str, Callable[[random.Random], Row]], ...] = (
    ("PushEvent", _push),
    ("PullRequestEvent", lambda r: {"action": "opened", "number": r.randint(1, 999), "pull_request": _pull_request(r)}),
    ("IssuesEvent", lambda r: {"action": "closed", "issue": _issue(r)}),
    (
        "IssueCommentEvent",
        lambda r: {
            "action": "created",
            "issue": _issue(r),
            "comment": {"id": r.randint(1, 10**9), "user": _user(r), "body": _text(r, 30)},
        },
    ),
    ("ForkEvent", lambda r: {"forkee": _repository(r)}),
    ("WatchEvent", lambda _: {"action": "started"}),
    (
        "ReleaseEvent",
        lambda r: {
            "action": "published",
            "release": {
                "id": r.randint(1, 10**8),
                "tag_name": "v1",
                "author": _user(r),
                "assets": [
                    {"name": r.choice(WORDS), "size": r.randint(1, 10**6), "uploader": _user(r)}
                    for _ in range(r.randint(0, 3))
                ],
            },
        },
    ),
)


def event(number: int, r: random.Random) -> Row:
    """A GitHub-like event: one of seven payloads, some hundreds of columns wide together, with lists four deep."""
    kind, payload = r.choices(_PAYLOADS, weights=(30, 25, 12, 15, 6, 8, 4))[0]

    return {
        "id": str(30_000_000_000 + number),
        "type": kind,
        "actor": _user(r),
        "repo": _repository(r) if kind == "PullRequestEvent" else {"id": number, "name": _text(r, 1)},
        "payload": payload(r),
        "public": True,
        "created_at": _moment(r),
        **({"org": {"id": r.randint(1, 10**6), "login": r.choice(WORDS)}} if r.random() < 0.4 else {}),
    }


SHAPES: dict[str, Shape] = {
    "flat": Shape("flat", flat, rows=100_000, distinct=20_000),
    "orders": Shape("orders", order, rows=30_000, distinct=10_000),
    "events": Shape("events", event, rows=4_000, distinct=1_000, page_rows=100),
    "wide": Shape("wide", wide, rows=4_000, distinct=1_000, page_rows=200),
    "variants": Shape("variants", variants, rows=60_000, distinct=20_000),
}
"""The shapes by name. Rows at 1x are such that the reference needs a few seconds."""
