"""Packages of the host's own distribution for another processor, without root and beside its own database.

apt resolves, downloads and verifies (signatures and SHA-256), with a state, a cache and a list of sources of
its own; the host's are not touched.
"""

from __future__ import annotations

import platform
import re
import shutil
import subprocess
import tarfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from resnet_edge.errors import DependencyMissingError
from resnet_edge.runners.commands import CommandFailedError, run

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

GUEST = "arm64"
"""Debian's name of the emulated processor's architecture."""

_RETRY = "try again: what was downloaded is kept; look at the network and at the host's own `apt-get update`"
_COMPONENTS = ("main", "universe")


@dataclass(frozen=True, kw_only=True)
class Distribution:
    """What the host runs.

    Attributes:
        name: ``debian`` or ``ubuntu``.
        codename: Of the release: ``bookworm``.
    """

    name: str
    codename: str

    @property
    def keyring(self) -> Path:
        """The keys that sign the archive."""
        return Path(f"/usr/share/keyrings/{self.name}-archive-keyring.gpg")


@dataclass(frozen=True, kw_only=True)
class Source:
    """A place of packages.

    Attributes:
        uri: Of the archive.
        suite: The release, or one of its pockets: ``bookworm-updates``.
        component: ``main``.
    """

    uri: str
    suite: str
    component: str


def host_distribution(os_release: Path = Path("/etc/os-release")) -> Distribution:
    """The host's distribution.

    Raises:
        DependencyMissingError: It is neither Debian nor Ubuntu, nor made of one of them.
    """
    fields = _fields(os_release)
    names = [fields.get("ID", ""), *fields.get("ID_LIKE", "").split()]
    name = next((name for name in names if name in ("debian", "ubuntu")), None)
    codename = fields.get("UBUNTU_CODENAME") or fields.get("VERSION_CODENAME", "")
    if name is None or not codename:
        raise DependencyMissingError(
            "the emulated ARM machine is made of Debian or Ubuntu packages, and this is another system",
            where=str(os_release),
            found=fields.get("PRETTY_NAME") or platform.platform(),
            allowed="Debian 12 or newer, Ubuntu 24.04 or newer",
            next_step="run it in such a container, or verify on a board with --runner ssh://USER@HOST",
        )
    distribution = Distribution(name="ubuntu" if "UBUNTU_CODENAME" in fields else name, codename=codename)
    if not distribution.keyring.is_file():
        raise DependencyMissingError(
            "the keys that sign the distribution's packages are missing",
            where=str(distribution.keyring),
            next_step=f"apt-get install {name}-archive-keyring"
            if name == "debian"
            else "apt-get install ubuntu-keyring",
        )
    return distribution


def _fields(os_release: Path) -> dict[str, str]:
    """The variables of os-release(5); none where there is no such file."""
    try:
        lines = os_release.read_text("utf-8").splitlines()
    except OSError:
        return {}
    return {key: value.strip("\"'") for key, found, value in (line.partition("=") for line in lines) if found}


def host_sources(distribution: Distribution) -> list[Source]:
    """The distribution's own sources among those that the host is set up with."""
    listed = run(
        [
            "apt-get",
            "indextargets",
            "--format",
            "$(REPO_URI) $(RELEASE) $(COMPONENT)",
            "Created-By: Packages",
        ],
        next_step=_RETRY,
    )
    sources = [
        Source(uri=uri, suite=suite, component=component)
        for uri, suite, component in (line.split() for line in sorted(set(listed.splitlines())))
    ]
    return own_sources(sources, distribution)


def own_sources(sources: Iterable[Source], distribution: Distribution) -> list[Source]:
    """Leave out what others offer for the same release: a mirror of the distribution has its updates too.

    Raises:
        DependencyMissingError: None is left.
    """
    codename = distribution.codename
    candidates = [
        source
        for source in sources
        if source.component in _COMPONENTS and source.suite.split("-")[0] == codename
    ]
    mirrors = {source.uri for source in candidates if source.suite != codename}
    own = [source for source in candidates if source.uri in mirrors] if mirrors else candidates
    if not own:
        raise DependencyMissingError(
            "the host is set up with no package source of its own distribution",
            where="/etc/apt/sources.list.d",
            allowed=f"{distribution.name} {codename}",
            next_step="add the distribution's sources, or use --runner ssh://USER@HOST",
        )
    return own


def guest_uri(uri: str, distribution: Distribution) -> str:
    """Where an archive's packages for the guest are: Ubuntu keeps other processors' on its ``ports`` host."""
    if distribution.name != "ubuntu" or platform.machine() == "aarch64":
        return uri
    return re.sub(
        r"//[a-z.-]*?(?:archive|security)\.(ubuntu\.[a-z]+)/ubuntu\b", r"//ports.\1/ubuntu-ports", uri
    )


def extract(package: Path, member: str, target: Path) -> bool:
    """Take one program out of a package, if it is there and not a link."""
    command = ["dpkg-deb", "--fsys-tarfile", str(package)]
    with (
        subprocess.Popen(command, stdout=subprocess.PIPE) as archive,  # noqa: S603 - a list, never a shell
        tarfile.open(fileobj=archive.stdout, mode="r|") as files,
    ):
        for info in files:
            stream = files.extractfile(info) if info.name == member and info.isreg() else None
            if stream:
                target.unlink(missing_ok=True)  # it may be running
                with target.open("wb") as copy:
                    shutil.copyfileobj(stream, copy)
                target.chmod(0o755)
                archive.kill()  # there is nothing else to take
                return True
    return False


class PrivateApt:
    """apt with a folder of its own.

    Args:
        folder: For lists, packages and settings; made if need be.
        distribution: The host's.
        sources: Its sources.
    """

    def __init__(self, folder: Path, distribution: Distribution, sources: Sequence[Source]) -> None:
        self._folder, self._distribution, self._sources = folder, distribution, sources
        self._host = run(["dpkg", "--print-architecture"], next_step="apt-get install dpkg").strip()

    def update(self) -> None:
        """Fetch the lists of packages; of the release alone where a mirror's updates are being replaced.

        Raises:
            CommandFailedError: There is no network, or a signature is wrong.
        """
        self._write_settings(self._sources)
        try:
            self._apt("update", "--error-on=any")
        except CommandFailedError:
            release = [source for source in self._sources if source.suite == self._distribution.codename]
            if len(release) == len(self._sources):
                raise
            self._write_settings(release)
            self._apt("update", "--error-on=any")

    def names(self, prefix: str) -> list[str]:
        """The packages whose names begin so."""
        return self._run("apt-cache", "pkgnames", prefix).split()

    def download_with_dependencies(self, packages: Iterable[str]) -> list[Path]:
        """Packages for the guest and all that they need, as files."""
        self._apt("install", "--download-only", "--yes", *packages)
        return sorted((self._folder / "cache/archives").glob("*.deb"))

    def download(self, package: str, *, guest: bool = False) -> Path:
        """One package, for the host or for the guest, without what it needs."""
        for old in self._folder.glob(f"{package}_*.deb"):
            old.unlink()
        self._apt("download", f"{package}:{GUEST if guest else self._host}")
        (file,) = self._folder.glob(f"{package}_*.deb")
        return file

    def _apt(self, *arguments: str) -> None:
        self._run("apt-get", "--quiet", *arguments)

    def _run(self, program: str, *arguments: str) -> str:
        return run([program, "-c", "apt.conf", *arguments], next_step=_RETRY, folder=self._folder)

    def _write_settings(self, sources: Iterable[Source]) -> None:
        for name in ("state/lists/partial", "cache/archives/partial"):
            (self._folder / name).mkdir(parents=True, exist_ok=True)
        # Resolving starts from a machine on which nothing is installed.
        (self._folder / "status").touch()
        lines = []
        for source in sources:
            for architecture in dict.fromkeys((GUEST, self._host)):
                uri = guest_uri(source.uri, self._distribution) if architecture == GUEST else source.uri
                options = f"arch={architecture} signed-by={self._distribution.keyring}"
                lines.append(f"deb [{options}] {uri} {source.suite} {source.component}\n")
        (self._folder / "sources.list").write_text("".join(dict.fromkeys(lines)), "utf-8")
        settings = _SETTINGS.format(folder=self._folder, guest=GUEST, host=self._host)
        (self._folder / "apt.conf").write_text(settings, "utf-8")


# Read behind the host's own settings, whose proxies are kept; whose hooks would act on the host.
_SETTINGS = """\
#clear APT::Architectures;
#clear APT::Update;
#clear DPkg;
APT::Architecture "{guest}";
APT::Architectures {{ "{guest}"; "{host}"; }};
APT::Install-Recommends "false";
APT::Sandbox::User "root";
Acquire::Languages "none";
Acquire::Retries "3";
Dir::State "{folder}/state";
Dir::State::status "{folder}/status";
Dir::Cache "{folder}/cache";
Dir::Etc::sourcelist "{folder}/sources.list";
Dir::Etc::sourceparts "/dev/null";
Dir::Etc::preferences "/dev/null";
Dir::Etc::preferencesparts "/dev/null";
"""
