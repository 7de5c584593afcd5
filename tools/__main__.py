"""Every command of this project: `python -m tools --help`. `make` calls them with what they need set up first."""

import importlib

import click

from components.errors import UserError

# Where each command is; imported when it is asked for, because some need seconds to load.
COMMANDS = {
    "init": "init",
    "adopt": "adopt",
    "preview": "engine",
    "up": "engine",
    "destroy": "engine",
    "stack-init": "engine",
    "drift": "drift",
    "render": "render",
    "edge-plan": "edge",
    "edge-flip-back": "edge",
    "edge-health": "edge",
    "job": "job",
    "doctor": "doctor",
    "edge-check": "doctor",
    "dns-adopt": "dns_adopt",
    "dns-snapshot": "dns_snapshot",
    "lab": "lab",
    "lab-compare": "lab",
    "lab-doctor": "lab",
    "bench": "bench",
    "docs": "docs",
}
# Of a command that could not do its work, where 1 says something else: the job's own failure, drift, a degraded system.
EXIT_CODES = {"job": 2, "drift": 2, "doctor": 3}


class Commands(click.Group):
    """Loads commands by name, and prints every error that is meant for a person."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        module = importlib.import_module(f"tools.commands.{COMMANDS[cmd_name]}")
        return getattr(module, f"{cmd_name.replace('-', '_')}_command")

    def invoke(self, ctx: click.Context) -> None:
        try:
            super().invoke(ctx)
        except UserError as error:
            for line in str(error).splitlines():
                click.echo(f"error: {line}", err=True)
            ctx.exit(EXIT_CODES.get(ctx.invoked_subcommand or "", 1))


@click.command(cls=Commands, help=__doc__, context_settings={"max_content_width": 120})
def main() -> None:
    pass


if __name__ == "__main__":
    main(prog_name="python -m tools")
