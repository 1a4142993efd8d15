"""A real Orthanc on loopback, with a store of its own, for interop and acceptance tests."""

import json
import shutil
import socket
import subprocess
import urllib.request
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self
from urllib.error import URLError

from tests.waiting import wait_until

PLUGIN = Path("/usr/share/orthanc/plugins/libOrthancDicomWeb.so")
# Forwards every stable study's images to the node, as sites do by rule.
AUTO_FORWARD = """
function OnStableStudy(studyId, tags, metadata, origin)
  for _, series in pairs(ParseJson(RestApiGet('/studies/' .. studyId .. '/series'))) do
    local modality = series['MainDicomTags']['Modality']
    if modality == 'CT' or modality == 'MR' then
      RestApiPost('/modalities/node/store', DumpJson({Resources = {series['ID']}, Synchronous = true}, true))
    end
  end
end
"""


def free_port() -> int:
    """Return a port that was free a moment ago."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@dataclass
class Orthanc:
    """One Orthanc process; `start` and `stop` may be called again and again, the store stays."""

    directory: Path
    node_port: int = 0
    node_ae_title: str = "HILUM"
    auto_forward: bool = False
    ae_title: str = "PACS1"
    http_port: int = field(default_factory=free_port)
    dicom_port: int = field(default_factory=free_port)
    process: subprocess.Popen[bytes] | None = None

    @staticmethod
    def installed() -> bool:
        return shutil.which("Orthanc") is not None

    def settings(self) -> dict[str, Any]:
        lua = self.directory / "forward.lua"
        lua.write_text(AUTO_FORWARD)
        node = {"AET": self.node_ae_title, "Host": "127.0.0.1", "Port": self.node_port}
        return {
            "Name": self.ae_title,
            "StorageDirectory": str(self.directory / "db"),
            "IndexDirectory": str(self.directory / "db"),
            "Plugins": [str(PLUGIN)] if PLUGIN.exists() else [],
            "HttpServerEnabled": True,
            "HttpPort": self.http_port,
            "RemoteAccessAllowed": False,
            "AuthenticationEnabled": False,
            "DicomServerEnabled": True,
            "DicomAet": self.ae_title,
            "DicomPort": self.dicom_port,
            "DicomCheckCalledAet": True,
            "DicomAlwaysAllowStore": True,
            "DicomModalities": {"node": node} if self.node_port else {},
            "StableAge": 1,
            "SyncStorageArea": False,
            "UnknownSopClassAccepted": True,
            "DefaultEncoding": "Utf8",
            "OverwriteInstances": False,
            "LuaScripts": [str(lua)] if self.auto_forward else [],
            "DicomScuTimeout": 30,
        }

    def start(self) -> Self:
        self.directory.mkdir(parents=True, exist_ok=True)
        path = self.directory / "orthanc.json"
        path.write_text(json.dumps(self.settings()))
        log = (self.directory / "orthanc.log").open("ab")
        self.process = subprocess.Popen(["Orthanc", str(path)], stdout=log, stderr=log)
        log.close()
        wait_until(self.answers, timeout_s=60, what="Orthanc's REST interface")
        return self

    def stop(self) -> None:
        if self.process is not None:
            self.process.terminate()
            self.process.wait(60)
            self.process = None

    __enter__ = start

    def __exit__(self, *_: object) -> None:
        self.stop()

    def answers(self) -> bool:
        if self.process is None or self.process.poll() is not None:
            raise AssertionError((self.directory / "orthanc.log").read_text()[-2000:])
        try:
            self.get("/system")
        except (URLError, ConnectionError, TimeoutError):
            return False
        return True

    def get(self, path: str) -> Any:
        return json.loads(self.get_bytes(path))

    def get_bytes(self, path: str) -> bytes:
        with urllib.request.urlopen(f"http://127.0.0.1:{self.http_port}{path}", timeout=30) as answer:
            return bytes(answer.read())

    def instances(self, modality: str | None = None) -> list[str]:
        """Return Orthanc's ids of all instances, or of those of one modality."""
        if modality is None:
            return list(self.get("/instances"))
        series = [item for item in self.get("/series?expand") if item["MainDicomTags"].get("Modality") == modality]
        return [one for item in series for one in item["Instances"]]

    def sop_instance_uids(self, modality: str) -> list[str]:
        return [self.get(f"/instances/{one}")["MainDicomTags"]["SOPInstanceUID"] for one in self.instances(modality)]

    def download(self, instance: str, path: Path) -> Path:
        path.write_bytes(self.get_bytes(f"/instances/{instance}/file"))
        return path
