"""Writes a commented stack file to start from."""

import re

import click
from pydantic import TypeAdapter, ValidationError

from components.errors import UserError
from components.settings.types import Fqdn
from tools.offline.stack_template import template
from tools.offline.stackfile import ROOT


@click.command()
@click.option("--stack", required=True, help="name of the new stack")
@click.option("--domain", required=True, help="the mail domain")
def new_stack_command(stack: str, domain: str) -> None:
    """Writes Pulumi.<stack>.yaml: what must be set with examples, everything else commented out."""
    if not re.fullmatch(r"[A-Za-z0-9_-]{1,100}", stack):
        raise UserError(f"STACK: write a name of letters, digits, '-' and '_' (got {stack!r})")
    try:
        TypeAdapter(Fqdn).validate_python(domain)
    except ValidationError as error:
        raise UserError(f"DOMAIN: {error.errors()[0]['msg'].removeprefix('Value error, ')} (got {domain!r})") from None
    path = ROOT / f"Pulumi.{stack}.yaml"
    try:
        with path.open("x", encoding="utf-8") as file:
            file.write(template(stack, domain))
    except FileExistsError:
        raise UserError(f"{path.name}: exists already; write STACK=<another name>, or remove it first") from None
    print(f"{path.name} is written; go through it from top to bottom, then `make render STACK={stack}`")
