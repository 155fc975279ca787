"""Whether minted keys would be gone at the next start."""

from pathlib import Path
from typing import Final

import pytest

from relay import container
from relay.container import in_container, keys_would_vanish, on_volume

HEX: Final = "3f1c9b" * 10 + "3f1c"
PROC: Final = """\
1090 1089 0:99 / /proc rw,nosuid,nodev,noexec,relatime - proc proc rw
1091 1089 0:100 / /dev rw,nosuid - tmpfs tmpfs rw,size=65536k,mode=755,inode64
1092 1091 0:101 / /dev/pts rw,nosuid,noexec,relatime - devpts devpts rw,gid=5,mode=620,ptmxmode=666
1093 1089 0:102 / /sys ro,nosuid,nodev,noexec,relatime - sysfs sysfs ro
1094 1093 0:29 / /sys/fs/cgroup ro,nosuid,nodev,noexec,relatime - cgroup2 cgroup rw,nsdelegate,memory_recursiveprot
1097 1091 0:103 / /dev/shm rw,nosuid,nodev,noexec,relatime - tmpfs shm rw,size=65536k,inode64
"""
OVERLAY: Final = (
    "1089 900 0:98 / / rw,relatime master:301 - overlay overlay rw,lowerdir=/var/lib/docker/overlay2/l/5JQ:"
    "/var/lib/docker/overlay2/l/KAL,upperdir=/var/lib/docker/overlay2/9d/diff,workdir=/var/lib/docker/overlay2/9d/work\n"
)
NAMES: Final = f"""\
1099 1089 8:1 /var/lib/docker/containers/{HEX}/resolv.conf /etc/resolv.conf rw,relatime - ext4 /dev/sda1 rw
1100 1089 8:1 /var/lib/docker/containers/{HEX}/hostname /etc/hostname rw,relatime - ext4 /dev/sda1 rw
1101 1089 8:1 /var/lib/docker/containers/{HEX}/hosts /etc/hosts rw,relatime - ext4 /dev/sda1 rw
"""
BARE: Final = OVERLAY + PROC + NAMES
POD: Final = "/var/lib/kubelet/pods/7f0c2d34-2a0e-4c0e-9d7e-0c1b7c8a1f55"


def docker(line: str) -> str:
    return BARE + line + "\n"


ON_VOLUME: Final = {
    "docker named volume": docker(
        "1098 1089 8:1 /var/lib/docker/volumes/blindrelay/_data /data rw,relatime master:1 - ext4 /dev/sda1 rw"
    ),
    "docker named volume, /var on its own": docker(
        "1098 1089 8:3 /lib/docker/volumes/blindrelay/_data /data rw,relatime master:1 - xfs /dev/sda3 rw,noquota"
    ),
    "docker bind mount": docker("1098 1089 8:1 /srv/relay /data rw,relatime - ext4 /dev/sda1 rw,errors=remount-ro"),
    "docker bind mount of a whole disk": docker("1098 1089 8:17 / /data rw,relatime - btrfs /dev/sdb1 rw,subvol=/"),
    "docker desktop bind mount": docker(
        "1098 1089 0:48 /Users/me/relay /data rw,nosuid,nodev,relatime - fakeowner /run/host_mark/Users rw"
    ),
    "bind mounts one within another": docker(
        "1098 1089 0:60 / /data rw - tmpfs tmpfs rw\n1099 1098 8:1 /srv /data rw,relatime - ext4 /dev/sda1 rw"
    ),
    "podman named volume": docker(
        "820 790 0:38 /home/me/.local/share/containers/storage/volumes/blindrelay/_data /data"
        " rw,nosuid,nodev,relatime - btrfs /dev/nvme0n1p3 rw,seclabel,subvol=/home"
    ),
    "nfs volume": docker("1098 1089 0:55 / /data rw,relatime - nfs4 nas:/relay rw,vers=4.2"),
    "kubernetes PVC, host path": docker(f"1098 1089 8:1 /opt/local-path/pvc-1 /data rw - ext4 {POD}/x rw"),
    "kubernetes PVC, CSI": docker("1098 1089 8:32 / /data rw,relatime - ext4 /dev/sdc rw"),
}
FLEETING: Final = {
    "nothing mounted": BARE,
    "docker anonymous volume": docker(
        f"1098 1089 8:1 /var/lib/docker/volumes/{HEX}/_data /data rw,relatime master:1 - ext4 /dev/sda1 rw"
    ),
    "podman anonymous volume": docker(
        f"820 790 0:38 /home/me/.local/share/containers/storage/volumes/{HEX}/_data /data rw,nosuid - btrfs /dev/x rw"
    ),
    "tmpfs": docker("1098 1089 0:60 / /data rw,nosuid,nodev,noexec,relatime - tmpfs tmpfs rw,inode64"),
    "ramfs": docker("1098 1089 0:60 / /data rw,relatime - ramfs ramfs rw"),
    "kubernetes emptyDir": docker(
        f"1098 1089 8:1 {POD}/volumes/kubernetes.io~empty-dir/data /data rw,relatime - ext4 /dev/sda1 rw"
    ),
    "kubernetes emptyDir in memory": docker("1098 1089 0:70 / /data rw,relatime - tmpfs tmpfs rw,size=1024k"),
    "a volume with a similar name": docker("1098 1089 8:1 /srv /data2 rw,relatime - ext4 /dev/sda1 rw"),
    "a volume with a shorter name": docker("1098 1089 8:1 /srv /dat rw,relatime - ext4 /dev/sda1 rw"),
    "a volume below the data directory": docker("1098 1089 8:1 /srv /data/more rw,relatime - ext4 /dev/sda1 rw"),
    "a tmpfs over a volume": docker(
        "1098 1089 8:1 /srv /data rw - ext4 /dev/sda1 rw\n1099 1098 0:60 / /data rw - tmpfs tmpfs rw"
    ),
    "no mounts at all": "",
    "lines that are none": "nonsense\n\n1 2 3 - \n1 2 3:4 / /data rw\n",
}


@pytest.mark.parametrize("mountinfo", ON_VOLUME.values(), ids=ON_VOLUME.keys())
def test_what_outlives_the_container(mountinfo: str) -> None:
    assert on_volume(Path("/data"), mountinfo)
    assert on_volume(Path("/data/blindrelay/not/made/yet"), mountinfo)


@pytest.mark.parametrize("mountinfo", FLEETING.values(), ids=FLEETING.keys())
def test_what_does_not(mountinfo: str) -> None:
    assert not on_volume(Path("/data"), mountinfo)
    assert not on_volume(Path("/data/blindrelay"), mountinfo)


@pytest.mark.parametrize(
    ("directory", "written"),
    [("/my data", r"/my\040data"), ("/tab\tback\\slash", r"/tab\011back\134slash"), ("/dönnées", "/dönnées")],
)
def test_names_that_mountinfo_writes_in_its_own_way(directory: str, written: str) -> None:
    line = f"1098 1089 8:1 /srv/relay {written} rw,relatime - ext4 /dev/sda1 rw"
    assert on_volume(Path(directory) / "keys", docker(line))
    assert not on_volume(Path("/elsewhere"), docker(line))


def test_a_link_is_followed(tmp_path: Path) -> None:
    real = tmp_path / "real"
    real.mkdir()
    (tmp_path / "link").symlink_to(real)
    line = f"1098 1089 8:1 /srv/relay {real} rw,relatime - ext4 /dev/sda1 rw"
    assert on_volume(tmp_path / "link", docker(line))


# --- Whether it is a container at all --------------------------------------------------------------------------------


@pytest.mark.parametrize("marker", [".dockerenv", "run/.containerenv"])
def test_the_files_that_runtimes_leave(marker: str, tmp_path: Path) -> None:
    assert not in_container({}, tmp_path)
    (tmp_path / marker).parent.mkdir(exist_ok=True)
    (tmp_path / marker).touch()
    assert in_container({}, tmp_path)


@pytest.mark.parametrize(
    ("environ", "inside"),
    [
        ({"container": "podman"}, True),
        ({"container": "docker"}, True),
        ({"container": "oci"}, True),
        ({"KUBERNETES_SERVICE_HOST": "10.96.0.1"}, True),
        ({"container": "systemd-nspawn"}, False),
        ({"container": "lxc"}, False),
        ({"HOME": "/root"}, False),
    ],
)
def test_the_variables_that_runtimes_set(environ: dict[str, str], inside: bool, tmp_path: Path) -> None:
    assert in_container(environ, tmp_path) is inside


# --- Both ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("inside", "mountinfo", "vanish"),
    [
        (False, BARE, False),
        (True, BARE, True),
        (True, ON_VOLUME["docker named volume"], False),
        (True, FLEETING["docker anonymous volume"], True),
        (True, None, True),
    ],
)
def test_keys_vanish_in_a_container_and_on_no_volume(
    inside: bool, mountinfo: str | None, vanish: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mounts = tmp_path / "mountinfo"
    if mountinfo is not None:
        mounts.write_bytes(mountinfo.encode() + b"1 2 3:4 / /not-utf8-\xff rw - ext4 /dev/sda1 rw\n")
    monkeypatch.setattr(container, "_MOUNTS", mounts)
    monkeypatch.setattr(container, "in_container", lambda _environ: inside)
    assert keys_would_vanish(Path("/data"), {}) is vanish
