"""A small run whose only tracker is lost on the way; prints a line of JSON with what became of it.

    python lost_tracker_run.py FOLDER HOW

HOW: none (no tracker) | service_killed (the process of W&B that this one talks to dies by SIGKILL at step 2) |
no_server (W&B online, nobody listens at its address) | server_killed (online, the server dies by SIGKILL at step 2).
"""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any


class WandbServer(BaseHTTPRequestHandler):
    """As much of the W&B server as a run needs to begin and to send numbers."""

    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        answer: dict[str, Any] = {}
        if self.path.endswith("/graphql"):
            project = {"id": "p", "name": "p", "entity": {"id": "e", "name": "me"}}
            bucket = {"id": "r", "name": "r", "displayName": "r", "config": "{}", "project": project}
            viewer = {"id": "u", "entity": "me", "username": "me", "flags": "{}", "teams": {"edges": []}}
            known = {
                "UpsertBucket": {"upsertBucket": {"bucket": bucket, "inserted": True}},
                "Viewer": {"viewer": viewer},
                "CreateRunFiles": {"createRunFiles": {"runID": "r", "uploadHeaders": [], "files": []}},
            }
            answer = {"data": known.get(json.loads(body).get("operationName"), {})}
        data = json.dumps(answer).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    do_GET = do_PUT = do_POST  # noqa: N815 - named by http.server

    def log_message(self, *arguments: Any) -> None:
        pass


def serve() -> None:
    """Answer on a free port, which is printed, until killed."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), WandbServer)
    print(server.server_port, flush=True)
    server.serve_forever()


def begin_server() -> tuple[subprocess.Popen[str], str]:
    """A server in a process of its own, and its address."""
    process = subprocess.Popen([sys.executable, __file__, "serve"], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    return process, f"http://127.0.0.1:{process.stdout.readline().strip()}"


def closed_port() -> str:
    """An address at which nobody listens."""
    with ThreadingHTTPServer(("127.0.0.1", 0), WandbServer) as server:
        return f"http://127.0.0.1:{server.server_port}"


def main(folder: str, how: str) -> None:
    for name in ("DIR", "DATA_DIR", "CACHE_DIR", "CONFIG_DIR"):
        os.environ[f"WANDB_{name}"] = folder
    os.environ |= {"WANDB_CONSOLE": "off", "WANDB_DISABLE_GIT": "true", "WANDB_SILENT": "true"}
    online = how in ("no_server", "server_killed")
    os.environ["WANDB_MODE"] = "online" if online else "offline"
    server = None
    if how == "server_killed":
        server, os.environ["WANDB_BASE_URL"] = begin_server()
    elif how == "no_server":
        os.environ["WANDB_BASE_URL"] = closed_port()
    if online:
        os.environ["WANDB_API_KEY"] = "0" * 40

    import psutil
    import torch
    from small_runs import LIGHT, TEXTS
    from tiny import tiny_llama, tiny_tokenizer
    from transformers import Trainer, TrainerCallback, TrainingArguments

    from topo_callback import TopologyCallback, TopologyConfig
    from topo_callback.sinks import MemorySink, WandbSink
    from topo_callback.sinks import wandb as wandb_sink

    wandb_sink._FINISH_SECONDS = 5.0
    memory = MemorySink()
    # a table is a file, which takes more of a server than there is here
    sinks = [WandbSink(project="p", table=how == "service_killed"), memory] if how != "none" else [memory]

    class Fate(TrainerCallback):
        def on_step_end(self, args: Any, state: Any, control: Any, **context: Any) -> None:
            if state.global_step != 2:
                return
            end = time.monotonic() + 100
            while not memory.snapshots and time.monotonic() < end:  # the tracker has got a number and works
                callback.on_log(args, state, control, logs={})
                time.sleep(0.05)
            if how == "service_killed":
                services = [p for p in psutil.Process().children(recursive=True) if "wandb-core" in p.name()]
                for process in services:
                    process.kill()
                assert services, "W&B has no service to kill"
                psutil.wait_procs(services)
            if server is not None:
                server.kill()
                server.wait()

    torch.manual_seed(3)
    tokenizer = tiny_tokenizer()
    model = tiny_llama(tokenizer, layers=3)
    encoded = tokenizer(list(TEXTS), padding="max_length", truncation=True, max_length=24, return_tensors="pt")
    rows = [{"input_ids": ids, "labels": ids} for ids in encoded["input_ids"]]
    config = TopologyConfig(**LIGHT, drain_seconds=100.0)
    callback = TopologyCallback(list(TEXTS), config=config, processing_class=tokenizer, sinks=sinks)
    args = TrainingArguments(
        folder, max_steps=5, per_device_train_batch_size=4, learning_rate=1e-2, use_cpu=True, report_to=[],
        disable_tqdm=True, save_strategy="no", logging_steps=1, seed=3,
    )  # fmt: skip
    trainer = Trainer(model, args, train_dataset=rows, callbacks=[Fate(), callback])
    trainer.train()
    weights = hashlib.sha256(b"".join(p.detach().numpy().tobytes() for p in model.parameters())).hexdigest()
    seen = {"steps": trainer.state.global_step, "weights": weights, "sent": list(memory.steps)}
    seen = {"steps": trainer.state.global_step, "weights": weights, "sent": list(memory.steps)}
    Path(folder, "seen.json").write_text(json.dumps(seen))


if __name__ == "__main__":
    serve() if sys.argv[1] == "serve" else main(*sys.argv[1:])
