"""Kafka's jars: Maven fetches them once into a cache folder, from the project's POM."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Mapping
from pathlib import Path

from stream.commands.failures import Failure

MIN_JAVA = 17  # of Kafka 4's broker
COPY_GOAL = "org.apache.maven.plugins:maven-dependency-plugin:3.8.1:copy-dependencies"
_PACKAGED_POM = Path(__file__).with_name("pom.xml")
_REPOSITORY_POM = Path(__file__).parents[2] / "docker" / "kafka" / "pom.xml"


def pom_path() -> Path:
    """Return the POM: beside this file in an installed wheel, under docker/kafka in a checkout."""
    for path in (_PACKAGED_POM, _REPOSITORY_POM):
        if path.is_file():
            return path
    raise Failure(f"no pom.xml at {_PACKAGED_POM} or {_REPOSITORY_POM}", "reinstall hrnn-stream: make install")


def kafka_version(pom: Path) -> str:
    """Return the Kafka version that the POM pins."""
    match = re.search(r"<artifactId>kafka_[\d.]+</artifactId>\s*<version>([^<]+)</version>", pom.read_text())
    if match is None:
        raise Failure(f"{pom} has no version of org.apache.kafka:kafka_2.13", "restore the file from version control")
    return match.group(1)


def cache_folder(environ: Mapping[str, str] = os.environ) -> Path:
    """Return the cache folder: $HRNN_CACHE_DIR, else ~/.cache/hrnn-stream."""
    named = environ.get("HRNN_CACHE_DIR")
    if named:
        return Path(named).expanduser()
    return Path(environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "hrnn-stream"


def java_command(environ: Mapping[str, str] = os.environ) -> str:
    """Return a `java` that can run Kafka: $JAVA_HOME's, else the PATH's; raises Failure if there is none."""
    home = environ.get("JAVA_HOME")
    java = shutil.which("java", path=str(Path(home) / "bin")) if home else None
    java = java or shutil.which("java", path=environ.get("PATH"))
    remedy = "apt-get install openjdk-17-jdk-headless"
    if java is None:
        raise Failure(f"no java found, and Kafka needs Java {MIN_JAVA} or newer", remedy)
    answer = subprocess.run([java, "-version"], capture_output=True, text=True, check=False)
    match = re.search(r'version "(?:1\.)?(\d+)', answer.stderr + answer.stdout)
    if match is None:
        raise Failure(f"{java} -version prints no version", remedy)
    if int(match.group(1)) < MIN_JAVA:
        raise Failure(f"{java} is Java {match.group(1)}, and Kafka needs {MIN_JAVA} or newer", remedy)
    return java


def resolve_jars(environ: Mapping[str, str] = os.environ) -> Path:
    """Return the folder of Kafka's jars, fetched by Maven the first time.

    They are copied into a temporary folder that is renamed when complete: processes that start at the same time do not
    see incomplete folders, and an interrupted fetch is repeated.
    """
    pom = pom_path()
    folder = cache_folder(environ) / f"kafka-{kafka_version(pom)}"
    if folder.is_dir():
        return folder
    maven = shutil.which("mvn", path=environ.get("PATH"))
    if maven is None:
        raise Failure("no mvn found, and Kafka's jars are fetched with Maven", "apt-get install maven")
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        partial = Path(tempfile.mkdtemp(prefix=f"{folder.name}.", dir=folder.parent))
    except OSError as error:
        raise Failure(
            f"can't write to {folder.parent}: {error.strerror}",
            "set HRNN_CACHE_DIR to a folder you can write to",
        ) from None
    try:
        _copy_jars(maven, pom, partial)
        try:
            partial.rename(folder)
        except OSError:
            if not folder.is_dir():  # otherwise another process was first, with the same jars
                raise
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return folder


def _copy_jars(maven: str, pom: Path, into: Path) -> None:
    command = [
        maven,
        "-B",
        "-q",
        "-f",
        str(pom),
        COPY_GOAL,
        "-DincludeScope=runtime",
        f"-DoutputDirectory={into}",
    ]
    answer = subprocess.run(command, capture_output=True, text=True, check=False)
    if answer.returncode != 0 or not list(into.glob("kafka_*.jar")):
        output = (answer.stdout + answer.stderr).strip().splitlines()
        errors = [line for line in output if "ERROR" in line][:3] or output[-3:]
        raise Failure(
            "Maven could not fetch Kafka's jars: " + " ".join(errors),
            "check the network and ~/.m2/settings.xml, then try again",
        )
