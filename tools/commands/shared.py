"""What several commands have in common."""

import click
from rich.console import Console

CONSOLE = Console(highlight=False, width=160)

stack_option = click.option("--stack", default="dev", show_default=True, help="the stack, as in Pulumi.<stack>.yaml")
