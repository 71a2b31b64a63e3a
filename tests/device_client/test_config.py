"""device.toml: what is read is what was written, and every mistake is one sentence that names the place."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from device_client.config import DeviceHome, DeviceSection, DeviceSettings, load, write
from device_client.config_gates import GatesSection
from device_client.config_installers import InstallerSection
from device_client.errors import DeviceError, NotFoundError, UsageError
from protocol.manifest import Policy

MINIMAL = '[device]\nid = "d1"\nproduct = "cam"\nhardware = "rev-b"\n'


SOURCE = MINIMAL + "[[download.sources]]\n"


def _load(directory: Path, text: str | bytes) -> DeviceSettings:
    data = text if isinstance(text, bytes) else text.encode()
    (directory / "device.toml").write_bytes(data)
    return load(directory)[1]


def test_minimal(tmp_path: Path) -> None:
    """Three lines are enough; all else has its default, and the home is where the file lies."""
    settings = _load(tmp_path, MINIMAL)
    assert (settings.device.id, settings.device.component, settings.installer.kind) == ("d1", "app", "directory")
    for named in (tmp_path, tmp_path / "device.toml"):
        home, again = load(named)
        assert home.path == tmp_path
        assert again == settings


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("[device", "not TOML"),
        (b"\xff\xfe", "not TOML"),
        ("", "device: Field required"),
        (MINIMAL.replace("d1", "a/b"), "device.id"),
        (MINIMAL.replace("d1", "#"), "device.id"),
        (MINIMAL.replace("d1", "+"), "device.id"),
        (MINIMAL.replace("d1", ""), "device.id"),
        (MINIMAL.replace("d1", "x" * 65), "device.id"),
        (MINIMAL.replace("d1", "d1\\n"), "device.id"),
        (MINIMAL.replace('"d1"', "7"), "device.id"),
        (MINIMAL.replace("cam", "../x"), "device.product"),
        (MINIMAL + 'colour = "red"\n', "device.colour: Extra inputs"),
        (MINIMAL + "[colours]\n", "colours: Extra inputs"),
        (MINIMAL + "[timing]\nverify_timeout_s = 0\n", "timing.verify_timeout_s"),
        (MINIMAL + "[timing]\nverify_timeout_s = nan\n", "timing.verify_timeout_s"),
        (MINIMAL + "[timing]\nchunk_timeout_s = inf\n", "timing.chunk_timeout_s"),
        (MINIMAL + "[download]\nwindow = 65\n", "download.window"),
        (MINIMAL + "[download]\nwindow_bytes = 1000\n", "download.window_bytes"),
        (MINIMAL + "[gates]\nmin_battery_percent = 101\n", "gates.min_battery_percent"),
        (MINIMAL + '[gates]\non_deadline = "force"\n', "needs allow_force"),
        (MINIMAL + '[gates]\non_deadline = "ask"\n', "needs a program in notify"),
        (MINIMAL + '[[gates.windows]]\ndays = ["mon"]\nstart = "25:00"\nminutes = 60\n', "gates.windows.0.start"),
        (MINIMAL + '[[gates.windows]]\ndays = []\nstart = "01:00"\nminutes = 60\n', "gates.windows.0.days"),
        (
            MINIMAL + '[[gates.windows]]\ndays = ["mon"]\nstart = "01:00"\nminutes = 60\ntimezone = "Mars"\n',
            "gates.windows.0.timezone: time zone 'Mars'",
        ),
        (MINIMAL + 'timezone = "Mars"\n', "device.timezone: time zone 'Mars'"),
        (MINIMAL + 'timezone = "../etc/passwd"\n', "device.timezone: time zone"),
        (MINIMAL + '[installer]\nkind = "magic"\n', "installer.kind"),
        (MINIMAL + '[device.labels]\n"a/b" = "x"\n', "device.labels"),
        (SOURCE + 'kind = "ftp"\n', "download.sources.0.kind"),
        (SOURCE + 'kind = "https"\n', "needs an url"),
        (SOURCE + 'kind = "https"\nurl = "http://m.example"\n', "download.sources.0.url: expected https://HOST"),
        (SOURCE + 'kind = "https"\nurl = "https://u:p@m.example"\n', "without user"),
        (SOURCE + 'kind = "https"\nurl = "https://m"\npath = "/x"\n', "has no path"),
        (SOURCE + 'kind = "https"\nurl = "https://m"\ninterface = "a/b"\n', "download.sources.0.interface"),
        (SOURCE + 'kind = "https"\nurl = "https://m"\nca = "none"\n', "download.sources.0.ca"),
        (SOURCE + 'kind = "directory"\n', "needs a path"),
        (SOURCE + 'kind = "directory"\npath = "media"\n', "expected an absolute one"),
        (SOURCE + 'kind = "directory"\npath = "/x"\ninterface = "eth0"\n', "are for kind https"),
        (SOURCE + 'kind = "mqtt"\nurl = "https://m"\n', "has no url"),
        (SOURCE + 'kind = "mqtt"\n' + "[[download.sources]]\nkind = 'mqtt'\n", "name each once"),
        (SOURCE + 'kind = "mqtt"\n' + "[[download.sources]]\nkind = 'mqtt'\n" * 16, "download.sources"),
        (MINIMAL + '[network]\nmetered_interfaces = ["a b"]\n', "network.metered_interfaces.0"),
        (MINIMAL + "[network]\nmetered_bytes_per_day = -1\n", "network.metered_bytes_per_day"),
        ("#" * 70_000, "at most 65536 B"),
    ],
)
def test_mistakes(tmp_path: Path, text: str | bytes, named: str) -> None:
    """One sentence with the file and the place."""
    with pytest.raises(DeviceError, match=r"device\.toml") as refused:
        _load(tmp_path, text)
    assert named in str(refused.value)
    assert "\n" not in str(refused.value)


def test_a_mistake_does_not_show_the_value(tmp_path: Path) -> None:
    """A password that was pasted into the wrong place does not end in a log."""
    with pytest.raises(UsageError) as refused:
        _load(tmp_path, MINIMAL + '[broker]\ntimeout_s = "hunter2"\n')
    assert "hunter2" not in str(refused.value)


def test_no_device(tmp_path: Path) -> None:
    """A directory without device.toml says how to make one."""
    for path in (tmp_path, tmp_path / "absent"):
        with pytest.raises(NotFoundError, match="flagship-device enrol"):
            load(path)


TEXT = st.text(st.characters(codec="utf-8"), max_size=64)
IDS = st.from_regex(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}", fullmatch=True)


@given(labels=st.dictionaries(IDS, TEXT, max_size=4), health=st.lists(TEXT, max_size=3), percent=st.integers(0, 100))
def test_what_is_written_is_read(
    tmp_path_factory: pytest.TempPathFactory, labels: dict[str, str], health: list[str], percent: int
) -> None:
    """Any label and any argument survives the file."""
    settings = DeviceSettings(
        device=DeviceSection(id="d1", product="cam", hardware="rev-b", labels=labels),
        gates=GatesSection(min_battery_percent=percent, power_supply_root=Path('/tmp/ü "x')),
        installer=InstallerSection(health=health),
    )
    home = DeviceHome(tmp_path_factory.mktemp("home"))
    write(home, settings)
    assert load(home.path)[1] == settings


def test_the_zone_of_windows(tmp_path: Path) -> None:
    """The device's, and a window's own where it names one; it survives the file."""
    text = MINIMAL + 'timezone = "Europe/Oslo"\n'
    for zone in ("", 'timezone = "Asia/Tokyo"\n'):
        text += f'[[gates.windows]]\ndays = ["mon"]\nstart = "02:30"\nminutes = 60\n{zone}'
    settings = _load(tmp_path, text)
    assert settings.device.timezone == "Europe/Oslo"
    assert [window.timezone for window in settings.gates.windows] == [None, "Asia/Tokyo"]
    write(DeviceHome(tmp_path), settings)
    assert load(tmp_path)[1] == settings
    assert _load(tmp_path, MINIMAL).device.timezone is None


def test_the_policy_is_the_owners_demands(tmp_path: Path) -> None:
    """Each knob of gates and the interval is a demand."""
    settings = _load(
        tmp_path,
        MINIMAL + "[gates]\nmin_battery_percent = 70\nrequire_approval = true\nallow_in_use = true\n"
        "require_way_back = true\n[installer]\nmin_interval_s = 9\n",
    )
    assert settings.policy() == Policy(
        min_battery_percent=70, require_approval=True, allow_in_use=True, require_way_back=True, min_interval_s=9
    )


def test_private_directories(tmp_path: Path) -> None:
    """Keys, trust, state and what is staged are for this user only; making a home twice changes nothing."""
    home = DeviceHome(tmp_path / "home")
    home.create()
    home.create()
    for path in (home.identity, home.trust, home.state, home.staging):
        assert path.stat().st_mode & 0o777 == 0o700
    assert home.inhibitors.is_dir()
    assert home.approvals.is_dir()


def test_sources_are_written_and_read(tmp_path: Path) -> None:
    """In their order, with the words that differ from the defaults."""
    values = {
        "device": {"id": "d1", "product": "cam", "hardware": "rev-b"},
        "download": {
            "sources": [
                {"kind": "directory", "path": "/media/updates"},
                {"kind": "https", "url": "https://m.example/ota", "interface": "eth0", "allow_metered": False},
                {"kind": "https", "url": "https://cdn.example", "ca": "system", "min_rate_bytes_s": 1000},
                {"kind": "mqtt"},
            ]
        },
        "network": {"metered_interfaces": ["wwan*"], "metered_bytes_per_day": 10**7},
    }
    settings = DeviceSettings.model_validate(values)
    home = DeviceHome(tmp_path)
    write(home, settings)
    assert load(home.path)[1] == settings
    assert [one.kind for one in settings.download.sources] == ["directory", "https", "https", "mqtt"]
