"""The command line: parses, runs, prints the report, returns the exit code."""

from __future__ import annotations

import argparse
import gc
import sys
import warnings
from collections.abc import Sequence

from pipelines.streams import hold_streams

DESCRIPTION = """Moves history into Mixpanel: reads partitioned JSON from S3, GCS or local disk, validates
it, stamps $insert_id, imports it at the rate Mixpanel allows, and accounts for every record."""

EPILOG = """examples:
  python run_backfill.py --config configs/local.yaml
  python run_backfill.py show --config configs/s3.yaml
  python run_backfill.py --config configs/s3.yaml --dry-run
  python run_backfill.py --config configs/s3.yaml --set source.dates.from=2024-03-01 --set limits.in_flight=8
  python run_backfill.py --config configs/s3.yaml --resume 20240401T120000Z-1a2b
  python run_backfill.py replay 20240401T120000Z-1a2b --config configs/s3.yaml

verbs:
  show             print some records beside what would be sent of them (--help tells more)
  status RUN_ID    say how a run stands, from its state folder alone (--help tells more)
  runs             say which runs there are, and how each ended
  replay RUN_ID    send the dead letters and undelivered records of a run, as a new run; ids are kept

exit codes:
  0 done                              6 dead letters above run.allow_dead_letters
  1 bug                               7 refused for good by the service
  2 usage, configuration, mismatch    8 stopped by run.max_errors
  3 credentials or endpoint refused   9 no input matched
  4 input damaged, the rest is in    10 the books do not close
  5 undelivered records left         130/143 interrupted
  5, 8, 130, 143: --resume goes on where the run was. 3: likewise, after a fix.
"""

MOST_SHOWN = 2000  # a request's worth


def parser() -> argparse.ArgumentParser:
    """Returns the parser of the command line; what it does not know goes to Beam."""
    made = argparse.ArgumentParser(
        prog="run_backfill.py",
        description=DESCRIPTION,
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    made.add_argument(
        "--config",
        metavar="FILE",
        required=True,
        help="the run's configuration, YAML (docs/configuration.md)",
    )
    made.add_argument(
        "--resume", metavar="RUN_ID", help="go on with a run that was begun (default: start a new one)"
    )
    made.add_argument(
        "--allow-new",
        action="store_true",
        help="with --resume: take in files that match by now and were not there when the run was planned",
    )
    made.add_argument(
        "--detach",
        action="store_true",
        help="with an engine elsewhere: return once it has the run; `status RUN_ID` closes the books",
    )
    made.add_argument("--dry-run", action="store_true", help="read and validate everything, send nothing")
    _add_overrides(made)
    made.add_argument(
        "--log-format",
        metavar="FORMAT",
        choices=["text", "json"],
        default="text",
        help="text or json: how progress and warnings are told on stderr (default: text)",
    )
    made.add_argument(
        "--json", action="store_true", help="print the report as JSON on stdout, and nothing else there"
    )
    return made


def parse(argv: Sequence[str]) -> tuple[argparse.Namespace, list[str]]:
    """Returns the arguments, and those that are for Beam.

    A verb stands first or nowhere: further back the same word may be the value of an option for Beam.
    """
    made = parser()
    made.set_defaults(replay=None)
    if argv and argv[0] == "replay":
        if len(argv) < 2 or argv[1].startswith("-"):
            made.error("replay needs the id of a run: replay RUN_ID --config FILE")
        made.set_defaults(replay=argv[1])
        argv = argv[2:]
    arguments, beam_args = made.parse_known_args(argv)
    if arguments.replay and arguments.resume:
        made.error("--resume goes on with a replay by itself: give its own id, without replay")
    if arguments.allow_new and not arguments.resume:
        made.error("--allow-new goes with --resume: a new run takes all files that match")
    return arguments, beam_args


def looking_parser(verb: str) -> argparse.ArgumentParser:
    """Returns the parser of a verb that only looks: `status` or `runs`."""
    made = argparse.ArgumentParser(prog=f"run_backfill.py {verb}", allow_abbrev=False)
    if verb == "status":
        made.add_argument("run_id", metavar="RUN_ID", help="the run")
        made.add_argument(
            "--follow", action="store_true", help="again every 10 seconds, until the run runs no more"
        )
    made.add_argument("--config", metavar="FILE", help="a configuration that names the state folder")
    made.add_argument(
        "--state", metavar="FOLDER", default=".backfill", help="the state folder (default: .backfill)"
    )
    made.add_argument("--json", action="store_true", help="print JSON, a line each")
    return made


def _add_overrides(made: argparse.ArgumentParser) -> None:
    made.add_argument(
        "--set",
        dest="overrides",
        metavar="KEY.PATH=VALUE",
        action="append",
        default=[],
        help="override one value of the configuration, like source.uri; may be repeated",
    )


def _count(text: str) -> int:
    if not text.isdecimal() or not 1 <= int(text) <= MOST_SHOWN:
        raise argparse.ArgumentTypeError(f"must be a number from 1 to {MOST_SHOWN}")
    return int(text)


def showing_parser() -> argparse.ArgumentParser:
    """Returns the parser of the verb `show`."""
    made = argparse.ArgumentParser(
        prog="run_backfill.py show",
        description="Prints the first records of a source (<), each with what would be sent of it (>), or "
        "why not. Sends nothing and leaves nothing behind.",
        allow_abbrev=False,
    )
    made.add_argument("--config", metavar="FILE", required=True, help="the run's configuration, YAML")
    made.add_argument("--count", metavar="N", type=_count, default=5, help="records to show (default: 5)")
    _add_overrides(made)
    return made


def look(verb: str, argv: Sequence[str]) -> int:
    """Says how runs stand and returns the exit code."""
    arguments = looking_parser(verb).parse_args(argv)
    from pipelines.status_command import show_runs, show_status

    where = {"config_path": arguments.config, "state": arguments.state}
    if verb == "runs":
        return show_runs(**where, as_json=arguments.json)
    return show_status(arguments.run_id, **where, following=arguments.follow, as_json=arguments.json)


def main(argv: Sequence[str] | None = None) -> int:
    """Runs a backfill as the arguments say and returns the exit code."""
    argv = sys.argv[1:] if argv is None else argv
    hold_streams()
    # Google's client tells with each start on Python 3.10 that it is old; it is supported here.
    warnings.filterwarnings("ignore", "You are using a .*Python version", FutureWarning)
    if argv and argv[0] in ("status", "runs"):
        return look(argv[0], argv[1:])
    if argv and argv[0] == "show":
        arguments = showing_parser().parse_args(argv[1:])
        from pipelines.showing import show_records

        return show_records(arguments.config, overrides=arguments.overrides, count=arguments.count)
    arguments, beam_args = parse(argv)
    from pipelines.heap import share_one

    share_one()
    from pipelines.command import run

    return run(
        arguments.config,
        overrides=arguments.overrides,
        resume=arguments.resume,
        replay=arguments.replay,
        dry_run=arguments.dry_run,
        allow_new=arguments.allow_new,
        detach=arguments.detach,
        as_json=arguments.json,
        log_format=arguments.log_format,
        beam_args=beam_args,
    )


if __name__ == "__main__":
    try:
        code = main()
        gc.freeze()  # all is closed, and a last look through all that Beam has loaded takes 0.5 s of CPU
        sys.exit(code)
    except KeyboardInterrupt:  # while nothing runs that drains: what is being read or shown is let go of
        print("interrupted", file=sys.stderr)
        sys.exit(130)
