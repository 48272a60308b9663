"""The command line: `python -m mixpanel_emulator`."""

import argparse
import ipaddress
import sys

from mixpanel_emulator.settings import Settings, SettingsError, parse_settings, settings_help


def main(arguments: list[str] | None = None) -> int:
    """Runs the emulator until it is told to end; returns the exit code."""
    options = _parser().parse_args(arguments)
    try:
        settings = parse_settings(options.setting)
        host = _loopback(options.host)
    except (SettingsError, ValueError) as error:
        print(f"mixpanel_emulator: {error}", file=sys.stderr)
        return 2
    return _run(options, host, settings)


def _run(options: argparse.Namespace, host: str, settings: Settings) -> int:
    # Imported here so that a wrong option is told at once.
    from mixpanel_emulator.app import Emulator
    from mixpanel_emulator.server import address_of, end_with_parent, open_socket, serve
    from mixpanel_emulator.store import Store, StoreError

    try:
        opened = open_socket(host, options.port)
        emulator = Emulator(Store(options.db), settings)
    except (OSError, StoreError) as error:
        print(f"mixpanel_emulator: {error}", file=sys.stderr)
        return 2
    if options.exit_with_parent:
        end_with_parent()
    serve(
        emulator.app,
        opened,
        emulator.gauges,
        on_ready=lambda: print(f"listening on {address_of(opened)}", flush=True),
    )
    emulator.close()
    return 0


def _loopback(host: str) -> str:
    """Returns the loopback address that a host is; what stands here must never be reachable from outside."""
    address = "127.0.0.1" if host == "localhost" else host
    try:
        loopback = ipaddress.ip_address(address).is_loopback
    except ValueError:
        loopback = False
    if not loopback:
        raise ValueError(f"--host must be a loopback address, for example 127.0.0.1 or ::1, got {host}")
    return address


def _port(text: str) -> int:
    port = int(text)
    if not 0 <= port <= 65535:
        raise argparse.ArgumentTypeError(f"a port is a number from 0 to 65535, got {text}")
    return port


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m mixpanel_emulator",
        description="A local Mixpanel. The first line it prints is `listening on http://HOST:PORT`; open that"
        " address in a browser to see what it holds. It serves this machine only.",
        epilog="settings and their defaults:\n" + settings_help(),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--host", default="127.0.0.1", help="loopback address to listen on (default: 127.0.0.1)"
    )
    parser.add_argument("--port", type=_port, default=0, help="port; 0 takes a free one (default: 0)")
    parser.add_argument(
        "--db", default=":memory:", metavar="PATH", help="store; :memory: keeps nothing (default)"
    )
    parser.add_argument(
        "--setting",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="choose a variant or a limit; repeatable",
    )
    parser.add_argument("--exit-with-parent", action="store_true", help="end when standard input ends")
    return parser


if __name__ == "__main__":
    sys.exit(main())
