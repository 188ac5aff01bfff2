"""``pytest-sandbox build``, and the words of ``--image``, as a person types them."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from pytest_sandbox.cli import main
from pytest_sandbox_runtime import Engine, EngineSettings, Image
from pytest_sandbox_runtime.errors import BuildError
from pytest_sandbox_runtime.images.home import default_store
from pytest_sandbox_runtime.images.images import Images
from pytest_sandbox_runtime.images.store import Store

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    Done = subprocess.CompletedProcess[str]
    Command = Callable[..., Done]

pytestmark = pytest.mark.needs("overlayfs", "static-busybox")

MAIN = "from pytest_sandbox.cli import main; sys.exit(main())"
DOCKERFILE = """\
FROM base AS first
ARG WHO=nobody
COPY greeting /greeting
RUN echo "$WHO" > /who
FROM first
RUN echo last > /last
"""


@pytest.fixture
def project(tmp_path: Path, busybox_tar: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current directory, and a store that nobody else uses with the image ``base``."""
    place = tmp_path / "project"
    place.mkdir()
    monkeypatch.chdir(place)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    for name in ("PYTEST_SANDBOX_HOME", "PYTEST_SANDBOX_NO_CACHE"):
        monkeypatch.delenv(name, raising=False)
    with Store(default_store(os.environ)) as store:
        (loaded,) = Images(store).load(str(busybox_tar))
        Images(store).tag(loaded, "base")
    return place


@pytest.fixture
def command(project: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Command:
    """The command, called."""

    def call(*words: object, **env: str) -> Done:
        with monkeypatch.context() as patch, open(os.devnull, encoding="ascii") as nothing:
            for name, value in env.items():
                patch.setenv(name, value)
            patch.setattr(sys, "stdin", nothing)
            argv = [str(word) for word in words]
            returncode = main(argv)
        return subprocess.CompletedProcess(argv, returncode, *capfd.readouterr())

    return call


def start(*words: str, said: str = "", program: str = "") -> Done:
    """Run the command as a program of its own, which begins with the Python of ``program``."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    return subprocess.run(
        [sys.executable, "-c", f"import sys{program};{MAIN}", *words],
        input=said,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
        env=environment,
    )


@pytest.fixture
def app(project: Path) -> Path:
    """A folder with a Dockerfile."""
    folder = project / "app"
    folder.mkdir()
    (folder / "Dockerfile").write_text(DOCKERFILE)
    (folder / "greeting").write_text("hi\n")
    return folder


def printed(command: Command, image: str, shell: str) -> str:
    return command("run", "--image", image, "--", "sh", "-c", shell).stdout


def test_a_folder_is_built_and_has_the_names_it_was_given(command: Command, app: Path) -> None:
    built = command("build", "app", "-t", "app:1", "-t", "localhost/app", "--build-arg", "WHO=you")
    assert built.returncode == 0
    assert built.stderr.splitlines() == [
        "step 1/3 copy('greeting', '/greeting')",
        "step 2/3 run('echo \"$WHO\" > /who', network='host')",
        "step 3/3 run('echo last > /last', network='host')",
    ]
    (digest,) = built.stdout.splitlines()
    assert digest.startswith("sha256:")
    for name in ("app:1", "localhost/app:latest", digest, digest[7:19]):
        assert printed(command, name, "cat /greeting /who /last") == "hi\nyou\nlast\n"


def test_what_is_built_is_only_named_again(command: Command, app: Path) -> None:
    first = command("build", "app")
    again = command("build", "app")
    assert (again.stdout, again.stderr) == (first.stdout, "")


ENGINE = "; import atexit; atexit.register(lambda: print('pytest_sandbox_runtime.engine' in sys.modules))"


def test_a_build_of_which_nothing_has_changed_is_answered_at_once(app: Path) -> None:
    def build(*words: str) -> list[str]:
        return start("build", "app", *words, program=ENGINE).stdout.split()

    digest, with_engine = build()
    assert with_engine == "True"
    assert build() == [digest, "False"]
    assert build("--no-cache") == build("--no-cache") == [digest, "True"]
    (app / "greeting").write_text("ho\n")
    other, with_engine = build()
    assert other != digest
    assert with_engine == "True"
    assert build() == [other, "False"]


@pytest.mark.parametrize(("words", "env"), [(("--no-cache",), {}), ((), {"PYTEST_SANDBOX_NO_CACHE": "1"})])
def test_a_build_without_the_cache_says_why_where_asked(
    command: Command, app: Path, words: tuple[str, ...], env: dict[str, str]
) -> None:
    first = command("build", "app")
    again = command("build", "app", "--explain", *words, **env)
    assert again.stdout == first.stdout
    lines = again.stderr.splitlines()
    assert len(lines) == 3
    assert all(line.endswith(": everything is to be made anew") for line in lines)


def test_a_stage_and_values_of_the_environment_are_taken(command: Command, app: Path) -> None:
    built = command("build", "app", "--target", "first", "--build-arg", "WHO", "--quiet", WHO="env")
    assert built.stderr == ""
    assert printed(command, built.stdout.strip(), "cat /who; ls /last || echo none") == "env\nnone\n"


def test_a_dockerfile_may_lie_outside_of_its_context(command: Command, app: Path) -> None:
    elsewhere = app.parent / "docker"
    elsewhere.mkdir()
    (app / "Dockerfile").rename(elsewhere / "web.dockerfile")
    built = command("build", "-f", "docker/web.dockerfile", "app")
    assert printed(command, built.stdout.strip(), "cat /greeting") == "hi\n"
    refused = command("build", "-f", "docker/web.dockerfile", "nowhere")
    assert refused.stderr == (
        "pytest-sandbox: there is no folder nowhere to copy files from\n  hint: pytest-sandbox build -f FILE FOLDER\n"
    )


def test_images_that_python_declares_are_built(project: Path, busybox_tar: Path) -> None:
    (project / "declared.py").write_text(declaring(busybox_tar))
    (project / "images.py").write_text("from declared import web\nmore = web.run('echo more > /more')\n")
    built = start("build", "declared.py:web", "images.py:more", "-q")
    assert (built.returncode, built.stderr) == (0, "")
    web, more = built.stdout.split()
    assert web != more
    assert start("run", "--image", more, "cat", "/web", "/more").stdout == "web\nmore\n"


def declaring(tar: Path) -> str:
    return f"from pytest_sandbox import Image\nbase = Image.archive({str(tar)!r})\nweb = base.run('echo web > /web')\n"


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("declared.py:wep",), "declared.py has no image wep\n  hint: there are base, web"),
        (("declared.py",), "which image of declared.py? Name it: FILE.py:NAME\n  hint: there are base, web"),
        (("nowhere.py:web",), "there is no file nowhere.py"),
        (("broken.py:web",), "broken.py:2 cannot be imported: ZeroDivisionError: division by zero"),
        (("declared.py:web", "--target=x"), "declared.py:web is no Dockerfile: --file, --target, --build-arg and"),
        (("declared.py:web", "declared.py:base", "-t", "x"), "a tag is the name of one image\n  hint: build them one"),
        (("declared.py:web", "-t", "A B"), "'A B' is no reference of an image"),
        (("nowhere",), "nowhere: it cannot be read: No such file or directory"),
        (("app", "--build-arg", "WOH=x"), "args has WOH, which no ARG declares\n  hint: did you mean WHO?"),
    ],
)
def test_what_cannot_be_built_is_said_and_nothing_made(
    command: Command, app: Path, busybox_tar: Path, monkeypatch: pytest.MonkeyPatch, words: tuple[str, ...], said: str
) -> None:
    monkeypatch.setattr(sys, "path", sys.path[:])
    (app.parent / "declared.py").write_text(declaring(busybox_tar))
    (app.parent / "broken.py").write_text("number = 0\nweb = 1 / number\n")
    refused = command("build", *words)
    assert refused.returncode == 1
    assert refused.stdout == ""
    assert refused.stderr.startswith("pytest-sandbox: ")
    assert said in refused.stderr
    assert "Traceback" not in refused.stderr


def test_a_line_for_a_shell_that_the_image_lacks_is_told_as_that(command: Command, app: Path) -> None:
    (app / "Dockerfile").write_text("FROM scratch\nCOPY greeting /\nRUN true\n")
    assert command("build", "app").stderr.endswith(
        f"pytest-sandbox: {app}/Dockerfile:3: RUN: step 2/2 run('true', network='host') failed: there is no program '/bin/sh' in the sandbox\n"
        "  hint: start from an image that has this shell, or give the command as a list\n"
    )


@pytest.mark.parametrize(
    ("step", "said"),
    [
        ("RUN echo broken; exit 3", "RUN: step 2/2 run('echo broken; exit 3', network='host') failed: /bin/sh -c"),
        ("COPY nothing /", "COPY: there is no nothing in the context app\n"),
        ("COPY --chown=nobody greeting /", "COPY: 'nobody' names nobody, whom the image's /etc/passwd"),
        (
            "RUN --mount=type=secret,id=key,required=true true",
            "RUN: the step needs the secret key, which was not given",
        ),
    ],
)
def test_a_step_that_fails_names_its_line(command: Command, app: Path, step: str, said: str) -> None:
    (app / "Dockerfile").write_text(f"FROM base\nRUN true\n\n{step}\n")
    refused = command("build", "app")
    assert refused.returncode == 1
    assert f"pytest-sandbox: {app.name}/Dockerfile:4: {said}" in refused.stderr.replace(f"{app.parent}/", "")


def test_a_stage_that_fails_where_it_is_copied_from_names_its_own_line(command: Command, app: Path) -> None:
    (app / "Dockerfile").write_text("FROM base AS first\nRUN exit 3\nFROM base\nCOPY --from=first /x /x\n")
    refused = command("build", "app")
    assert "/Dockerfile:2: RUN: step 1/1 run('exit 3', network='host') failed: " in refused.stderr
    assert "/Dockerfile:4" not in refused.stderr


def test_the_line_of_a_step_is_no_part_of_it(command: Command, app: Path) -> None:
    first = command("build", "app")
    (app / "Dockerfile").write_text("# moved\n" + DOCKERFILE.replace("RUN", "\nRUN"))
    again = command("build", "app")
    assert (again.stdout, again.stderr) == (first.stdout, "")


def test_who_reads_no_further_is_no_error(app: Path) -> None:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    read, write = os.pipe()
    os.close(read)
    argv = [sys.executable, "-c", f"import sys;{MAIN}", "inspect", "base"]
    with open(write, "wb") as nowhere:
        done = subprocess.run(argv, stdout=nowhere, stderr=subprocess.PIPE, check=False, env=environment)
    assert (done.returncode, done.stderr) == (141, b"")


def test_a_name_that_is_taken_away_is_told_as_it_is_written(command: Command) -> None:
    assert command("tag", "base", "ghcr.io/me/other").returncode == 0
    assert command("rmi", "base", "ghcr.io/me/other").stdout.splitlines()[:2] == [
        "Untagged: base:latest",
        "Untagged: ghcr.io/me/other:latest",
    ]


# Secrets

PEEK = "FROM base\nRUN --mount=type=secret,id=token,required=true wc -c < /run/secrets/token > /size\n"


@pytest.mark.parametrize(
    "words", ["id=token,src=file", "type=file,id=token,source=file", "id=token,env=VALUE", "id=token"]
)
def test_a_secret_comes_from_a_file_or_a_variable(command: Command, app: Path, words: str) -> None:
    (app / "Dockerfile").write_text(PEEK)
    (app.parent / "file").write_text("1234567")
    built = command(
        "build", "app", "--secret", words, VALUE="1234567", **({"token": "1234567"} if words == "id=token" else {})
    )
    assert printed(command, built.stdout.strip(), "cat /size; ls -A /run") == "7\n"


def test_the_secret_of_an_image_is_nowhere_on_disk(command: Command, app: Path, tmp_path: Path) -> None:
    (app / "Dockerfile").write_text(PEEK)
    assert command("build", "app", "--secret", "id=token,env=VALUE", VALUE="not-to-be-found").returncode == 0
    found = subprocess.run(["grep", "-rl", "not-to-be-found", tmp_path], check=False, capture_output=True, text=True)
    assert (found.returncode, found.stdout) == (1, "")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("src=file", "--secret src=file has no id"),
        ("id=token,uid=0", "--secret id=token,uid=0 cannot be read at 'uid=0'"),
        ("id=token,type=ssh", "--secret id=token,type=ssh has the type ssh\n  hint: there are file and env"),
        ("id=token,src=nowhere", "the secret token: there is no file nowhere"),
        ("id=token,env=NOWHERE", "the secret token: there is no variable NOWHERE"),
        ("id=token", "the secret token: there is no file token"),
    ],
)
def test_a_secret_that_is_none_is_refused(command: Command, app: Path, words: str, said: str) -> None:
    refused = command("build", "app", "--secret", words)
    assert (refused.returncode, refused.stdout) == (1, "")
    assert refused.stderr.startswith(f"pytest-sandbox: {said}")


# What an image runs


@pytest.mark.parametrize(
    ("lines", "words", "said"),
    [
        ('CMD ["echo", "command"]', (), "command\n"),
        ("CMD echo $((1 + 1))", (), "2\n"),
        ('CMD ["echo", "command"]', ("--", "echo", "mine"), "mine\n"),
        ('ENTRYPOINT ["echo", "entry"]\nCMD ["command"]', (), "entry command\n"),
        ('ENTRYPOINT ["echo", "entry"]\nCMD ["command"]', ("mine",), "entry mine\n"),
        ('ENTRYPOINT ["false"]\nCMD ["command"]', ("--entrypoint", "echo"), "\n"),
        ('ENTRYPOINT ["false"]', ("--entrypoint", "", "--", "echo", "mine"), "mine\n"),
        ("ENV WORD=there\nWORKDIR /srv\nUSER app\nCMD echo $WORD $(pwd) $(id -u)", (), "there /srv 1000\n"),
    ],
)
def test_an_image_runs_what_it_says(command: Command, app: Path, lines: str, words: tuple[str, ...], said: str) -> None:
    (app / "Dockerfile").write_text(f"FROM base\nRUN echo app:x:1000:1000::/:/bin/sh >> /etc/passwd\n{lines}\n")
    entrypoint, command_words = (words[:2], words[2:]) if words[:1] == ("--entrypoint",) else ((), words)
    done = command("run", "--image", "app", *entrypoint, *command_words)
    assert (done.returncode, done.stdout) == (0, said)


def test_an_image_that_runs_nothing_needs_a_command(command: Command) -> None:
    for image in ("base", "host"):
        refused = command("run", "--image", image)
        assert refused.returncode == 1
        assert refused.stderr == (
            f"pytest-sandbox: there is nothing to run: {image} has no command of its own\n"
            f"  hint: say it: pytest-sandbox run --image {image} -- COMMAND\n"
        )


# --image


def test_a_shell_opens_where_a_step_has_failed(command: Command, app: Path) -> None:
    (app / "Dockerfile").write_text("FROM base\nRUN echo before > /before\nRUN echo broken; exit 3\n")
    failed = command("build", "app")
    assert failed.returncode == 1
    assert "exit 3' ended with exit status 3\nbroken\n" in failed.stderr
    *_, hint = failed.stderr.splitlines()
    words = hint.partition(": pytest-sandbox ")[2].split()
    assert words[:2] == ["shell", "--image"]
    shell = start(*words, said="read word < /before; echo $word it was; exit 7\n")
    assert shell.returncode == 7
    assert "\nbefore it was" in shell.stdout


def test_the_way_into_a_failed_step_names_the_store_where_it_is_another(app: Path) -> None:
    (app / "Dockerfile").write_text("FROM scratch\nCOPY greeting /\nRUN ['/greeting']\n".replace("'", '"'))
    with Engine.open(EngineSettings(store="other")) as engine, pytest.raises(BuildError) as caught:
        engine.images.build(Image.dockerfile("app"))
    assert (
        caught.value.message
        == f"{app}/Dockerfile:3: RUN: step 2/2 run(['/greeting'], network='host') failed: cannot run '/greeting': Permission denied"
    )
    assert f": PYTEST_SANDBOX_HOME={app.parent}/other pytest-sandbox shell --image " in caught.value.hint


def test_each_word_for_an_image_is_understood(command: Command, app: Path, busybox_tar: Path) -> None:
    (app.parent / "root/bin").mkdir(parents=True)
    subprocess.run(["tar", "-C", app.parent / "root", "-xf", busybox_tar], check=True)
    (app.parent / "root/mark").write_text("directory\n")
    assert printed(command, "root", "cat /mark") == "directory\n"
    assert printed(command, str(busybox_tar), "echo tar") == "tar\n"
    assert printed(command, "app", "cat /last") == "last\n"
    assert printed(command, "app/Dockerfile", "cat /last") == "last\n"
    assert printed(command, "base", "echo $PATH") != ""
    assert printed(command, "host", "cat /etc/hostname") == "sandbox\n"


@pytest.mark.parametrize(
    ("word", "said"),
    [
        ("localhost:1/bsae", "cannot be pulled: localhost:1 refuses connections\n  hint: it has base:latest; pytest"),
        ("0123456789ab", "the store has no image 0123456789ab\n  hint: it has base:latest; pytest"),
        ("./nowhere", "cannot read the archive /*/nowhere: No such file or directory"),
        ("nowhere.tar.zst", "cannot read the archive /*/nowhere.tar.zst: No such file or directory"),
        ("A/B", "'A/B' is no reference of an image"),
    ],
)
def test_an_image_that_is_none_is_named_with_those_there_are(command: Command, word: str, said: str) -> None:
    refused = command("run", "--image", word, "--", "true")
    assert refused.returncode == 1
    before, _, after = said.partition("/*")
    assert before in refused.stderr
    assert after in refused.stderr


def test_an_empty_store_says_how_an_image_comes_into_it(command: Command, tmp_path: Path) -> None:
    refused = command("run", "--image", "base", "--", "true", PYTEST_SANDBOX_HOME=str(tmp_path / "empty"))
    assert "hint: it has none with a name; pytest-sandbox build -t NAME makes one, and " in refused.stderr
