"""What is said when Java or Maven is missing, and what is left of a fetch that fails."""

from pathlib import Path

import pytest

from stream.commands.failures import Failure
from stream.demo.kafka_jars import cache_folder, java_command, kafka_version, pom_path, resolve_jars


def script(folder: Path, name: str, text: str) -> None:
    (folder / name).write_text(f"#!/bin/sh\n{text}\n")
    (folder / name).chmod(0o755)


def test_the_version_comes_from_the_pom() -> None:
    assert kafka_version(pom_path()) == "4.3.1"


def test_a_missing_java_names_the_package(tmp_path: Path) -> None:
    with pytest.raises(Failure, match="apt-get install openjdk-17-jdk-headless"):
        java_command({"PATH": str(tmp_path)})


@pytest.mark.parametrize("said", ['openjdk version "11.0.2"', 'java version "1.8.0_292"'])
def test_an_old_java_is_refused(tmp_path: Path, said: str) -> None:
    script(tmp_path, "java", f"echo '{said}' >&2")
    with pytest.raises(Failure, match="needs 17 or newer"):
        java_command({"PATH": str(tmp_path)})


def test_java_home_goes_before_the_path(tmp_path: Path) -> None:
    (tmp_path / "bin").mkdir()
    script(tmp_path / "bin", "java", "echo 'openjdk version \"21\"' >&2")
    assert java_command({"PATH": "/usr/bin", "JAVA_HOME": str(tmp_path)}) == str(tmp_path / "bin" / "java")


def test_a_missing_maven_names_the_package(tmp_path: Path) -> None:
    with pytest.raises(Failure, match="apt-get install maven"):
        resolve_jars({"PATH": str(tmp_path), "HRNN_CACHE_DIR": str(tmp_path)})


def test_a_fetch_that_fails_leaves_nothing(tmp_path: Path) -> None:
    script(tmp_path, "mvn", "echo '[ERROR] no network'; exit 1")
    cache = tmp_path / "cache"
    with pytest.raises(Failure, match="no network"):
        resolve_jars({"PATH": f"{tmp_path}:/usr/bin:/bin", "HRNN_CACHE_DIR": str(cache)})
    assert list(cache.iterdir()) == []


def test_a_fetch_that_succeeds_is_kept_whole(tmp_path: Path) -> None:
    script(tmp_path, "mvn", 'for a; do case $a in -DoutputDirectory=*) : > "${a#*=}/kafka_2.13-4.3.1.jar";; esac; done')
    environ = {"PATH": f"{tmp_path}:/usr/bin:/bin", "HRNN_CACHE_DIR": str(tmp_path / "cache")}
    folder = resolve_jars(environ)
    assert folder == tmp_path / "cache" / "kafka-4.3.1"
    assert [jar.name for jar in folder.iterdir()] == ["kafka_2.13-4.3.1.jar"]
    (tmp_path / "mvn").unlink()
    assert resolve_jars(environ) == folder  # and needs no Maven the second time


def test_the_cache_is_below_home_unless_named() -> None:
    assert cache_folder({"HRNN_CACHE_DIR": "/c"}) == Path("/c")
    assert cache_folder({"XDG_CACHE_HOME": "/x"}) == Path("/x/hrnn-stream")
    assert cache_folder({}) == Path.home() / ".cache" / "hrnn-stream"
